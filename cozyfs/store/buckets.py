"""Bucket names: the Cozy server's formulas, and the refusals that it lacks.

:func:`sanitize_prefix`, :func:`sanitize_org` and :func:`bucket_name` give the very names that a
Cozy server would, for any input. :func:`check_prefix` and :func:`org_bucket` refuse input whose
names would collide or be invalid; configuration and instances go through these. Pure functions.
"""

from __future__ import annotations

import re

from cozyfs.errors import UsageError

DEFAULT_PREFIX = "cozy"
DEFAULT_ORG = "default"
SIDE_BUCKETS = ("apps-web", "apps-konnectors", "assets", "previews", "exports")

MAX_BUCKET_LENGTH = 63
MIN_BUCKET_LENGTH = 3
MAX_PREFIX_LENGTH = MAX_BUCKET_LENGTH - len("-apps-konnectors")
_MAX_ORG_LENGTH = 37


def sanitize_prefix(bucket_prefix: str) -> str:
    """*bucket_prefix* as it stands in bucket names; may be empty, see :func:`check_prefix`."""
    if not bucket_prefix:
        return DEFAULT_PREFIX
    return re.sub(r"[^a-z0-9-]", "-", bucket_prefix.lower()).strip("-")


def check_prefix(bucket_prefix: str) -> str:
    """The sanitised prefix; UsageError when nothing of it is left or it is too long."""
    prefix = sanitize_prefix(bucket_prefix)
    if not prefix:
        raise UsageError("the bucket prefix has no letter and no digit")
    if len(prefix) > MAX_PREFIX_LENGTH:
        raise UsageError(
            f"the bucket prefix has {len(prefix)} characters, at most {MAX_PREFIX_LENGTH} fit"
        )
    return prefix


def sanitize_org(org: str) -> str:
    """*org* as it stands in a bucket name; may be empty, see :func:`org_bucket`."""
    name = org.lower().replace("_", "-").replace(".", "-")
    name = re.sub(r"[^a-z0-9-]", "", name)
    name = re.sub(r"-{2,}", "-", name)
    return name.strip("-")[:_MAX_ORG_LENGTH]


def bucket_name(prefix: str, org: str) -> str:
    """The bucket of an organisation, as the Cozy server names it. *prefix* is sanitised
    already; an empty *org* is ``default``."""
    name = f"{prefix}-{sanitize_org(org or DEFAULT_ORG)}"
    return name[:MAX_BUCKET_LENGTH].rstrip("-").ljust(MIN_BUCKET_LENGTH, "0")


def side_bucket(prefix: str, kind: str) -> str:
    """The bucket of one of :data:`SIDE_BUCKETS`."""
    if kind not in SIDE_BUCKETS:
        raise ValueError(kind)
    return f"{prefix}-{kind}"


def org_bucket(bucket_prefix: str, org: str) -> str:
    """The bucket of *org*; UsageError where the Cozy server's name would be another's bucket."""
    prefix = check_prefix(bucket_prefix)
    part = sanitize_org(org or DEFAULT_ORG)
    if not part:
        raise UsageError(f"the organisation '{org}' has no letter and no digit from a-z, 0-9")
    bucket = bucket_name(prefix, org)
    if bucket in {side_bucket(prefix, kind) for kind in SIDE_BUCKETS}:
        raise UsageError(f"the organisation '{org}' has the name of a bucket that Cozy reserves")
    return bucket

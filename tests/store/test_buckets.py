"""Bucket names: the Cozy server's vectors, and the names that cozyfs refuses."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cozyfs.errors import UsageError
from cozyfs.store.buckets import (
    SIDE_BUCKETS,
    bucket_name,
    check_prefix,
    org_bucket,
    sanitize_org,
    sanitize_prefix,
    side_bucket,
)


@pytest.mark.parametrize(
    ("given_prefix", "expected"),
    [
        ("", "cozy"),
        ("Cozy_Prod", "cozy-prod"),
        ("--a__b--", "a--b"),
        ("a.b", "a-b"),
        ("é1", "1"),
        ("___", ""),
    ],
)
def test_a_bucket_prefix_is_sanitised(given_prefix, expected):
    assert sanitize_prefix(given_prefix) == expected


@pytest.mark.parametrize(
    ("org", "expected"),
    [
        ("production", "production"),
        ("my_context", "my-context"),
        ("My.Context", "my-context"),
        ("UPPERCASE", "uppercase"),
        ("with spaces!", "withspaces"),
        ("a--b--c", "a-b-c"),
        ("-leading-trailing-", "leading-trailing"),
        (
            "very-long-name-that-exceeds-the-maximum-allowed-length",
            "very-long-name-that-exceeds-the-maxim",
        ),
        ("", ""),
    ],
)
def test_an_organisation_is_sanitised(org, expected):
    assert sanitize_org(org) == expected


@pytest.mark.parametrize(
    ("org", "prefix", "bucket"),
    [
        ("org-123", "cozy", "cozy-org-123"),
        ("", "cozy", "cozy-default"),
        ("My_Org", "cozy", "cozy-my-org"),
        ("org.example.com", "cozy", "cozy-org-example-com"),
        ("!!!", "cozy", "cozy"),
        ("!!!", "c", "c00"),
        ("a" * 36 + "-b", "cozy", "cozy-" + "a" * 36),
    ],
)
def test_a_bucket_name_is_made_of_prefix_and_organisation(org, prefix, bucket):
    assert bucket_name(prefix, org) == bucket


@pytest.mark.parametrize("org", ["assets", "Previews", "exports", "apps_web", "apps.konnectors"])
def test_an_organisation_with_the_bucket_of_side_storage_is_refused(org):
    with pytest.raises(UsageError, match="reserves"):
        org_bucket("cozy", org)


@pytest.mark.parametrize("org", ["!!!", "---", "é", "日本"])
def test_an_organisation_of_stripped_characters_only_is_refused(org):
    with pytest.raises(UsageError, match="no letter"):
        org_bucket("cozy", org)


@pytest.mark.parametrize("prefix", ["___", "-", "é"])
def test_a_prefix_sanitised_to_nothing_is_refused(prefix):
    with pytest.raises(UsageError, match="no letter"):
        check_prefix(prefix)


def test_a_prefix_is_refused_when_the_longest_side_bucket_would_not_fit():
    longest = "p" * 47
    assert len(side_bucket(check_prefix(longest), "apps-konnectors")) == 63

    with pytest.raises(UsageError, match="48 characters"):
        check_prefix(longest + "p")


@given(st.text(max_size=60), st.text(max_size=60))
def test_whatever_is_not_refused_is_a_valid_bucket_name_of_its_own(prefix, org):
    try:
        prefix = check_prefix(prefix)
        bucket = org_bucket(prefix, org)
    except UsageError:
        return

    assert 3 <= len(bucket) <= 63
    assert set(bucket) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert not bucket.startswith("-")
    assert not bucket.endswith("-")
    assert bucket not in {side_bucket(prefix, kind) for kind in SIDE_BUCKETS}

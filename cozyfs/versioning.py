"""Which rules of versions hold for a mount: its options, the instance, the configuration file.

The file's keys are those of a Cozy server's ``cozy.yaml``: ``fs.versioning.*`` for all instances
and ``fs.contexts.<context>.*`` for those of a context. Each value is looked up on its own.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from cozyfs.errors import UsageError
from cozyfs.values import VersionRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from cozyfs.values import Instance

log = logging.getLogger(__name__)

T = TypeVar("T", int, float)

MAX_KEY = "max_number_of_versions_to_keep"
DELAY_KEY = "min_delay_between_two_versions"

_GO_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}


def version_rules(
    section: Mapping[str, object],
    instance: Instance,
    *,
    max_number: int | None = None,
    min_delay_s: float | None = None,
) -> VersionRules:
    """*max_number* and *min_delay_s* (of the mount) where given, else those of *instance*, else
    of its context in *section* (the ``fs`` of the file), else of the file, else a Cozy's.

    Raises UsageError for a wrong value in ``fs.versioning``; one in a context is passed over, as
    a Cozy does.
    """
    default = VersionRules()
    chosen_max = _first(max_number, instance.max_versions)
    if chosen_max is None:
        chosen_max = _configured(section, instance.context, MAX_KEY, _count, default.max_number)
    delay_s = _first(min_delay_s, instance.version_delay_s)
    if delay_s is None:
        delay_s = _configured(
            section, instance.context, DELAY_KEY, go_duration, default.min_delay_s
        )
    return VersionRules(chosen_max, delay_s)


def go_duration(value: object) -> float:
    """Seconds of a duration as Go writes them: ``15m``, ``1h30m``, ``1.5h``, ``0``. Raises
    ValueError."""
    if value in (0, "0"):
        return 0.0
    parts = re.findall(
        r"(\d+(?:\.\d*)?)(ns|us|µs|ms|s|m|h)", value if isinstance(value, str) else ""
    )
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError("a duration such as 15m")
    return sum(float(number) * _GO_UNITS[unit] for number, unit in parts)


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise ValueError("a whole number")
    return value


def _first(*values: T | None) -> T | None:
    return next((value for value in values if value is not None), None)


def _configured(
    section: Mapping[str, object], context: str, key: str, read: Callable[[object], T], default: T
) -> T:
    of_context = _below(_below(section, "contexts"), context).get(key)
    if of_context is not None:
        try:
            return read(of_context)
        except ValueError as exc:
            log.warning("fs.contexts.%s.%s is not %s: passed over", context, key, exc)
    value = _below(section, "versioning").get(key)
    if value is None:
        return default
    try:
        return read(value)
    except ValueError as exc:
        raise UsageError(f"fs.versioning.{key} must be {exc}") from exc


def _below(section: Mapping[str, object], name: str) -> Mapping[str, object]:
    found = section.get(name)
    return found if isinstance(found, Mapping) else {}

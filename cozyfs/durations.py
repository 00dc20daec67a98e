"""Durations as people and a Cozy's configuration write them."""

from __future__ import annotations

import re

_SECONDS = {
    "": 1,
    "s": 1,
    "m": 60,
    "h": 3600,
    "d": 86400,
    "w": 7 * 86400,
    "D": 86400,
    "W": 7 * 86400,
    "M": 30 * 86400,
    "Y": 365 * 86400,
}


def parse_duration(text: str) -> float | None:
    """Seconds of ``90``, ``90s``, ``15m``, ``1h30m``, ``1d``, ``2w`` and, as in a cozy.yaml,
    ``30D``, ``2W``, ``3M`` (months of 30 days), ``1Y`` (of 365); None for anything else."""
    parts = re.findall(r"(\d+(?:\.\d+)?)([A-Za-z]?)", text, re.ASCII)
    if (
        not parts
        or "".join(number + unit for number, unit in parts) != text
        or any(unit not in _SECONDS for _, unit in parts)
    ):
        return None
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)

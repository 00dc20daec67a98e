"""What a client's headers ask for: encodings by their weights, and versions it has already.

RFC 9110, sections 12.5.3 and 13.1.2. Pure functions.
"""

from __future__ import annotations

import re

_WEIGHT = re.compile(r"0(\.\d{0,3})?|1(\.0{0,3})?")
_ENTITY_TAG = re.compile(r'(?:W/)?("[^"]*")')


def accepts(header: str, encoding: str) -> bool:
    """Whether *encoding* (``br``, ``gzip``) may be sent, and is not less welcome than the plain
    content. *header* is that of Accept-Encoding; without one only the plain content is sure to
    be understood."""
    weights = _weights(header)
    weight = weights.get(encoding, weights.get("*", 0.0))
    return weight > 0 and weight >= weights.get("identity", 0.0)


def _weights(header: str) -> dict[str, float]:
    """Lower-case coding to its q; one whose q makes no sense is as if not named."""
    weights = {}
    for item in header.split(","):
        coding, *parameters = (part.strip().lower() for part in item.split(";"))
        weight = 1.0
        for parameter in parameters:
            name, _, value = (part.strip() for part in parameter.partition("="))
            if name == "q":
                weight = float(value) if _WEIGHT.fullmatch(value) else -1.0
        if coding and weight >= 0:
            weights[coding] = weight
    return weights


def has_etag(header: str, etag: str) -> bool:
    """Whether *etag* (with its quotes) is among those of If-None-Match; compared weakly."""
    return header.strip() == "*" or etag in _ENTITY_TAG.findall(header)

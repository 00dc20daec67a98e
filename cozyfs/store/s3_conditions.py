"""Whether an S3 server honours conditional PUTs, tried out once on objects of our own.

Thread safe: the first caller makes the trial, the others wait for its outcome.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable

from cozyfs.errors import NotSupported, PreconditionFailed

log = logging.getLogger(__name__)

Send = Callable[[str, str, dict[str, str]], str]
"""Puts an empty object: (bucket, key, headers) -> ETag."""


class Conditions:
    """What this server makes of conditional PUTs, tried out once on objects of our own.

    A server that does not know the header overwrites and says 200, so only a trial can tell.
    """

    def __init__(self, send: Send, delete: Callable[[str, str], None]) -> None:
        self._send = send
        self._delete = delete
        self._lock = threading.Lock()
        self._honoured: dict[str, bool] | None = None

    def require(self, bucket: str, key: str, header: str) -> None:
        """NotSupported unless *header* (If-None-Match or If-Match) is honoured. The objects of a
        trial are made beside *key*, where the credentials may write in any case."""
        with self._lock:
            if self._honoured is None:
                self._honoured = self._try_out(bucket, key)
        if not self._honoured[header]:
            raise NotSupported("the S3 server does not honour conditional writes")

    def _try_out(self, bucket: str, beside: str) -> dict[str, bool]:
        key = f"{beside}.trial-{secrets.token_hex(8)}"
        etag = self._send(bucket, key, {})
        try:
            honoured = {
                "If-None-Match": self._refused(bucket, key, {"If-None-Match": "*"}),
                "If-Match": self._refused(bucket, key, {"If-Match": f'"{"0" * 32}"'})
                and not self._refused(bucket, key, {"If-Match": f'"{etag}"'}),
            }
        finally:
            self._delete(bucket, key)
        log.debug("conditional writes honoured: %s", honoured)
        return honoured

    def _refused(self, bucket: str, key: str, condition: dict[str, str]) -> bool:
        try:
            self._send(bucket, key, condition)
        except PreconditionFailed:
            return True
        except NotSupported:
            return False
        return False

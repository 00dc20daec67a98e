"""The one place where an exception becomes an errno.

pyfuse3 answers the kernel only for FUSEError; any other exception leaves the caller waiting and
ends the mount. So every handler is wrapped: an error of ours becomes its errno, anything else is
logged with its traceback and becomes EIO.
"""

from __future__ import annotations

import errno
import functools
import logging
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import pyfuse3

from cozyfs.errors import CozyError, StoreError, UploadFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

log = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")


class ErrorCount:
    """How often requests failed for reasons that are not the caller's; for ``status``."""

    def __init__(self) -> None:
        self.total = 0


errors = ErrorCount()


def fuse_error(exc: Exception) -> pyfuse3.FUSEError:
    """The FUSEError to answer with for *exc*."""
    if isinstance(exc, CozyError):
        if isinstance(exc, StoreError | UploadFailed):
            errors.total += 1
            log.warning("%s (%s)", exc, exc.__cause__ or type(exc).__name__)
        return pyfuse3.FUSEError(exc.errno)
    errors.total += 1
    if isinstance(exc, OSError) and exc.errno in (errno.ENOSPC, errno.EDQUOT):
        log.error("the disk of the state directory is full")
        return pyfuse3.FUSEError(errno.ENOSPC)
    log.error("unexpected error in a request", exc_info=exc)
    return pyfuse3.FUSEError(errno.EIO)


def answered(handler: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Wrap a handler so that only FUSEError leaves it."""

    @functools.wraps(handler)
    async def wrapper(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await handler(*args, **kwargs)
        except pyfuse3.FUSEError:
            raise
        except Exception as exc:
            raise fuse_error(exc) from exc

    return wrapper

"""What a running mount answers about its tree on its control socket, request by request.

`cozyfs.mount` answers itself what concerns the mount as a whole (``status``, ``flush``). A handler
gets the file system, the request and a function that sends an answer; it may send several, and
raises CozyError for a refusal. A client that goes away cancels it. The socket is the mount
owner's alone.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from cozyfs.control import Send
from cozyfs.filelog import answer_log
from cozyfs.fuse import trash
from cozyfs.fuse.checks import answer_fsck
from cozyfs.fuse.copies import answer_copy, answer_copy_in, answer_lend
from cozyfs.fuse.versions import (
    answer_clear,
    answer_import,
    answer_remove,
    answer_restore,
    answer_tag,
    answer_versions,
)
from cozyfs.rereading import answer_reread, answer_usage
from cozyfs.vfs.filesystem import FileSystem

Handler = Callable[[FileSystem, dict[str, Any], Send], Awaitable[None]]

HANDLERS: Mapping[str, Handler] = {
    "copy": answer_copy,
    "lend": answer_lend,
    "copy-in": answer_copy_in,
    "versions": answer_versions,
    "version-restore": answer_restore,
    "version-remove": answer_remove,
    "versions-clear": answer_clear,
    "version-import": answer_import,
    "version-tag": answer_tag,
    "trash-list": trash.answer_list,
    "trash-restore": trash.answer_restore,
    "trash-remove": trash.answer_remove,
    "trash-empty": trash.answer_empty,
    "reread": answer_reread,
    "usage": answer_usage,
    "log": answer_log,
    "fsck": answer_fsck,
}
"""By the name of the request (``op``)."""

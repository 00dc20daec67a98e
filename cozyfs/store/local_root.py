"""The marker that names a folder as a local store, so that no other folder is taken for one.

A Cozy server's own local storage in particular looks alike from afar and is not to be touched.
"""

from __future__ import annotations

import json
import os
import secrets

from cozyfs.errors import UsageError

MARKER = ".cozyfs-store"
FORMAT = 1


def claim(root: str) -> None:
    """Makes *root* a store if it is missing or empty; UsageError if it is something else."""
    try:
        if os.path.exists(os.path.join(root, MARKER)):
            check(root)
            return
        os.makedirs(root, mode=0o700, exist_ok=True)
        # A marker that another process is just writing is no stranger; lost+found is the disk's.
        strangers = [
            name
            for name in os.listdir(root)
            if not name.startswith(MARKER) and name != "lost+found"
        ]
        if strangers and not os.path.exists(os.path.join(root, MARKER)):
            raise UsageError(
                f"{root} is not empty and is not a store of cozyfs; name another folder"
            )
        _write(root)
    except OSError as exc:
        raise UsageError(f"{root} cannot be used as a local store: {exc.strerror}") from exc


def check(root: str) -> None:
    """UsageError unless *root* is a store that this version understands."""
    try:
        with open(os.path.join(root, MARKER), encoding="utf-8") as file:
            found = json.load(file)["format"]
    except OSError as exc:
        raise UsageError(f"{root} cannot be used as a local store: {exc.strerror}") from exc
    except (ValueError, KeyError, TypeError) as exc:
        raise UsageError(f"{os.path.join(root, MARKER)} is damaged") from exc
    if found != FORMAT:
        raise UsageError(f"{root} has store format {found}; this version of cozyfs knows {FORMAT}")


def _write(root: str) -> None:
    temporary = os.path.join(root, f"{MARKER}.{secrets.token_hex(4)}")
    with open(temporary, "w", encoding="utf-8") as file:
        json.dump({"format": FORMAT}, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, os.path.join(root, MARKER))

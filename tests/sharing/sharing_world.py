"""Several machines for a test: each has a state directory of its own, all one store.

The harness and its rules are in tests/fuse/mounting.py.
"""

from __future__ import annotations

import contextlib

from mounting import DOMAIN, Mounts, eventually, run

LEASE_S = 2
"""A lease that a test can wait for; whoever takes it over waits five seconds more."""

# What the log of a writer says that was overtaken on purpose.
OVERTAKEN = ["the lease was taken", "changes stay on this machine"]


class Machines:
    """Machines that share one store. Called with a name, it gives that machine."""

    def __init__(self, folder, fs_url, stack):
        self._folder = folder
        self.fs_url = fs_url
        self._stack = stack
        self._known = {}

    def __call__(self, name, fs_url=None):
        if name not in self._known:
            machine = Mounts(self._folder / name, fs_url or self.fs_url)
            machine.env["COZYFS_LEASE_SECONDS"] = str(LEASE_S)
            self._known[name] = self._stack.enter_context(contextlib.closing(machine))
        return self._known[name]


def follow(machine, **named):
    """A read-only mount that looks often."""
    return machine.start("--read-only", "--refresh", "0.2", create=False, **named)


def refused(machine, *options):
    """What a mount that is refused says, in one line."""
    done = machine.cozyfs("mount", "-f", *options, DOMAIN, machine.new_path(), timeout_s=60)
    assert done.code == 1, done.err
    return done.err.strip().splitlines()[-1]


def fs_url_of(store, folder, request):
    if store == "file":
        return f"file://{folder}/store"
    return request.getfixturevalue("s3_server").url()


def shows(mount, script, wanted, *args):
    """Within three seconds; *script* starts in the mount and may fail until then."""

    def look():
        done = run("bash", "-c", f'cd "$1"; {script}', "sh", mount.path, *args)
        return done.out == wanted

    eventually(look, timeout_s=6)

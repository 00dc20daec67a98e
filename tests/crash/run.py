"""Many rounds of crashes: ``python -m tests.crash.run --rounds 200 --seed S``.

On the S3 server of the tests (``--store file``: on a folder). Rounds alternate between a mount
that finds its state directory again and one that has only the bucket. After every tenth, and the
last, ``cozyfs fsck`` has to find nothing. Exit code 1 with what differs, at the first round where
something does; the same seed makes the same choices, though not at the same microsecond.
"""

from __future__ import annotations

import argparse
import contextlib
import secrets
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.crash.rounds import MODES, Differs, Rounds
from tests.servers import main_server


def main() -> int:
    parser = argparse.ArgumentParser(description="kill -9 a mount, mount it again, compare")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", default=None)
    parser.add_argument("--store", choices=("s3", "file"), default="s3")
    parser.add_argument("--work", type=float, default=1.0, help="longest work of a round, in s")
    parser.add_argument("--mode", choices=MODES, default=None, help="this one only")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))  # so that what is mounted is unmounted
    seed = options.seed or secrets.token_hex(4)
    folder = Path(tempfile.mkdtemp(prefix="cozyfs-crash-"))
    print(f"seed {seed}, {options.store}, in {folder}", flush=True)
    with contextlib.ExitStack() as stack:
        if options.store == "s3":
            url = stack.enter_context(main_server(folder / "s3")).url()
        else:
            url = f"file://{folder}/store"
        rounds = Rounds(folder, url, seed, work_s=options.work)
        stack.callback(rounds.end)
        began = time.monotonic()
        for number in range(options.rounds):
            mode = options.mode or MODES[number % len(MODES)]
            try:
                print(f"{number:4} {rounds.round(mode)}", flush=True)
            except (Differs, AssertionError) as exc:
                print(f"round {number} ({mode}) of seed {seed}: {exc}", flush=True)
                return 1
        try:
            rounds.check()
        except (Differs, AssertionError) as exc:
            print(f"after the rounds of seed {seed}: {exc}", flush=True)
            return 1
        took = time.monotonic() - began
        print(f"{options.rounds} rounds, {rounds.steps} steps, {took:.0f} s: nothing differs")
    return 0


if __name__ == "__main__":
    sys.exit(main())

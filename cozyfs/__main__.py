"""``python -m cozyfs``: the same as the command ``cozyfs``."""

from __future__ import annotations

from cozyfs.cli import main

if __name__ == "__main__":
    main()

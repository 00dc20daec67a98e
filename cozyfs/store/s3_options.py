"""What an S3 store is opened with. Kept from `cozyfs.store.s3`, which loads minio: half of what a
command or a mount without S3 would take to start.
"""

from __future__ import annotations

from dataclasses import dataclass

READ_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class TlsOptions:
    """The ``fs.*`` keys about TLS: paths of PEM files, and whether to trust anyone."""

    root_ca: str | None = None
    client_cert: str | None = None
    client_key: str | None = None
    insecure_skip_validation: bool = False

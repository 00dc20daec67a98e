"""Apps and konnectors: their files in the store, and what is installed on an instance.

::

    layout        names: kinds, slugs, versions, object keys
    sources       where an app comes from  (contents, tar, folder, download: its parts)
    encoding      how a file is stored: content type, brotli, and back
    copier        writes a version: all of its files, then the marker that makes it visible
    files         reads versions: lists, opens and streams files
    serving       the same as answers to HTTP requests  (negotiation: their headers)
    tarball       a version as one tar.gz, and its cache
    documents     what is installed on an instance
    install       all of the above, for one app on one instance

The files of a version are objects ``<slug>/<version>[-<shasum>]/<path>``, shared by all
instances, in a bucket per kind. They are final once the empty object
``<slug>/<version>[-<shasum>].cozy-installed`` is there, and count for nothing before: that alone
makes an install atomic. Layout and rules are the Cozy server's (cozyfs-storage(5)).

What reaches the network or the disk is async and goes through a `cozyfs.threads.Caller`;
contents are streamed through temporary files and never held whole.
"""

from __future__ import annotations

from cozyfs.side.apps.contents import SourceFile
from cozyfs.side.apps.copier import Copier
from cozyfs.side.apps.documents import AppDocument, Documents
from cozyfs.side.apps.files import AppFile, AppFiles, StoredFile
from cozyfs.side.apps.install import Installed, install
from cozyfs.side.apps.layout import KINDS, KONNECTORS, WEBAPPS, Kind
from cozyfs.side.apps.serving import Request, Response, serve
from cozyfs.side.apps.sources import open_source
from cozyfs.side.apps.tarball import code_tarball

__all__ = [
    "KINDS",
    "KONNECTORS",
    "WEBAPPS",
    "AppDocument",
    "AppFile",
    "AppFiles",
    "Copier",
    "Documents",
    "Installed",
    "Kind",
    "Request",
    "Response",
    "SourceFile",
    "StoredFile",
    "code_tarball",
    "install",
    "open_source",
    "serve",
]

"""What makes an idle daemon small. Called by `serve` before anything of it is imported; nothing depends on it.

Rules (`make bench-footprint` measures them):

1. One arena of the C library. With one for each thread, and a daemon has seven, what one has freed no other can use: 1.3 MiB.
2. aiohttp reads all certificates of the machine twice as it is imported, for contexts of its client that we never use:
   notify/reach.py makes its own when an address with https is first called. Meanwhile there are none to read: what these contexts
   trust is then nobody. 1.2 MiB and 40 ms.
"""

from __future__ import annotations

import contextlib
import os

ARENA_MAX = -8
"""M_ARENA_MAX of <malloc.h>."""
_CERTIFICATES = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def prepare() -> None:
    """Once, in a process that will be a daemon, before it has threads."""
    _share_one_arena()
    _import_client_without_certificates()


def _share_one_arena() -> None:
    with contextlib.suppress(ImportError, OSError, AttributeError):  # another C library has other means
        import ctypes

        ctypes.CDLL(None).mallopt(ARENA_MAX, 1)


def _import_client_without_certificates() -> None:
    kept = {name: os.environ.get(name) for name in _CERTIFICATES}
    os.environ.update(dict.fromkeys(_CERTIFICATES, os.devnull))
    try:
        import aiohttp as aiohttp
    finally:
        for name, value in kept.items():
            del os.environ[name]
            if value is not None:
                os.environ[name] = value

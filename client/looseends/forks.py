"""Am I still the process that opened this? A page that the kernel wipes in every child, for forks that run no Python hook.

Rules: `os.register_at_fork` sees forks made by Python. A fork made in C (a server that embeds Python, an extension) runs no hook,
and its child would go on writing into its parent's journal. Reading this page costs 20 ns; asking for the pid costs 140.
Where the system knows no such page, the answer is always yes and the hook alone protects.
"""

from __future__ import annotations

import mmap

MADV_WIPEONFORK = 18
"""Linux 4.14 and later; the `mmap` module has no name for it before Python 3.13."""


def canary() -> mmap.mmap | bytes:
    """Something whose first byte is 1 in this process and 0 in its children."""
    try:
        page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        page.madvise(MADV_WIPEONFORK)
    except (OSError, ValueError, AttributeError):
        return b"\1"
    page[0] = 1
    return page

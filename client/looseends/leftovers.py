"""What dead processes of this user left in the spool, sent by a command that lives too briefly to do it on the side.

Rules: after our own goodbye was taken, so that a daemon is there; only folders older than a minute, since a daemon that
watches this spool is faster and has nothing left to ask; LEFTOVERS_S in all, the rest is for whoever comes next.
"""

from __future__ import annotations

import os
import time

from . import journal as journals
from . import trouble
from .adoption import ORPHAN_S, Adoption
from .journal import Journal
from .sender import HOLD
from .settings import Settings
from .transport import Answer, Transport

AGE_S_MIN = 60.0
LEFTOVERS_S = 5.0


def send_leftovers(journal: Journal, settings: Settings) -> None:
    """Adopt and send, after `journal` itself is gone. Never raises."""
    try:
        if not os.path.exists(journal.folder) and any(_is_left(folder) for folder in journals.folders(journal.spool)):
            _send(journal, settings)
    except Exception as error:  # noqa: BLE001 - they are kept for whoever comes next
        trouble.note("what others left could not be sent", error)


def _is_left(folder: str) -> bool:
    try:
        return time.time() - os.stat(folder).st_mtime > AGE_S_MIN and not journals.is_taken(folder)
    except OSError:  # somebody else has just adopted it
        return False


def _send(journal: Journal, settings: Settings) -> None:
    transport = Transport(settings, journal.spool)
    until = time.monotonic() + LEFTOVERS_S

    def hold(answer: Answer) -> bool:
        return answer.status < 400 or answer.status in HOLD or answer.status >= 500 or time.monotonic() > until

    adoption, now = Adoption(journal, transport, hold), time.monotonic()
    try:
        adoption.look_around(now, False)  # it adopts what it saw free twice, this far apart
        while time.monotonic() <= until and adoption.look_around(now + ORPHAN_S, True):
            continue
    finally:
        adoption.close()
        transport.close()

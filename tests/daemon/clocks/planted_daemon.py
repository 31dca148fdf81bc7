"""`looseends` with a fault planted in it, so that a test can be seen to notice: planted_daemon.py FAULT serve ...

late_judges  at a stop the doors close first, and whoever judges goes on behind them
gullible     a connection that ended and was not opened again in 2 s is a death, whatever else there is to be seen
"""

from __future__ import annotations

import sys

from looseends_daemon import cli
from looseends_daemon.app import Daemon
from looseends_daemon.core import presence


def late_judges() -> None:
    """As it was before."""
    in_order = Daemon.close

    async def close(self: Daemon) -> None:
        if self.listener is not None:
            await self.listener.close(self.settings.server.shutdown_timeout)
        await in_order(self)

    Daemon.close = close  # type: ignore[method-assign]


def gullible() -> None:
    """As it was before."""
    assert callable(presence._is_over), "there is nothing of that name to replace"
    presence._is_over = lambda departure, now, trying: now - departure.since >= int(presence.REOPEN_S * presence.NS)


FAULTS = {"late_judges": late_judges, "gullible": gullible}

if __name__ == "__main__":
    FAULTS[sys.argv[1]]()
    sys.exit(cli.main(sys.argv[2:]))

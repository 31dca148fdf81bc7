"""The one entry point, `looseends`: what needs only the client is done here, the rest is the daemon's command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from .lifecycle import VERSION


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command. -> 0 done, 1 failed, 2 wrong usage (or the daemon's part is not installed)."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    if arguments in (["version"], ["--version"]):
        print(VERSION)
        return 0
    try:
        from looseends_daemon.cli import main as daemon_main
    except ModuleNotFoundError as error:
        print(f'looseends: {error.name} is not installed; pip install "looseends[daemon]"', file=sys.stderr)
        return 2
    return int(daemon_main(arguments) or 0)


if __name__ == "__main__":
    sys.exit(main())

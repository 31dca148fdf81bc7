"""`looseends` with smaller bounds of its storage, so that a test reaches them: bounded.py NAME=VALUE ... -- serve ..."""

from __future__ import annotations

import sys

from looseends_daemon import cli
from looseends_daemon.store import checkpoints, files

if __name__ == "__main__":
    end = sys.argv.index("--")
    for setting in sys.argv[1:end]:
        name, _, value = setting.partition("=")
        module = checkpoints if hasattr(checkpoints, name) else files
        setattr(module, name, type(getattr(module, name))(float(value)))
    sys.exit(cli.main(sys.argv[end + 1 :]))

"""A service whose journal is looked at: begins and ends tasks as its standard input says, and never reaches any daemon.

lines: `begin NAME` `end` `many N` `fork` ; SIGKILL does the rest. The spool is LOOSEENDS_SPOOL_DIR.
"""

from __future__ import annotations

import contextlib
import sys

import looseends


def main() -> None:
    """Do as told; every line is answered with `ok`."""
    looseends.init(service="shop")
    print("ready", flush=True)
    open_tasks = contextlib.ExitStack()
    for line in sys.stdin:
        word, _, rest = line.strip().partition(" ")
        if word == "begin":
            open_tasks.enter_context(looseends.track(rest, {"order_id": 7}))
        elif word == "end":
            open_tasks.close()
        elif word == "many":
            for n in range(int(rest)):
                with looseends.track("many", {"n": n}):
                    pass
        print("ok", flush=True)


if __name__ == "__main__":
    main()

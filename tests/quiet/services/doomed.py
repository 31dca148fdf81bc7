"""A service that is killed in the middle of its work: doomed.py SERVICE KIND=KEY...   Kinds: killed, captured.

It ends some tasks well first, begins one for each key, says "at work" and waits for its end.
"""

from __future__ import annotations

import sys
import threading

import looseends
from looseends import record
from looseends.spec import Spec

WELL = 10
begun = threading.Semaphore(0)


@looseends.task(name="doomed.well", replay=True)
def well(number: int) -> int:
    """Ends well, and must not be taken for lost."""
    return number


@looseends.task(name="loss.killed", key="key", deadline="never")
def killed(key: str) -> None:
    """Hangs until its process is killed."""
    begun.release()
    threading.Event().wait()


def captured(key: str) -> None:
    """Captured work, begun in a request, without a deadline: no loop."""
    spec = Spec("loss.captured", None, source="asyncio", declared=False)
    record.begin(spec, "{}", None, extra={"key": key, "request": "POST /work"})
    begun.release()
    threading.Event().wait()


looseends.init(service=sys.argv[1])
for number in range(WELL):
    well(number)
for kind, _, key in (word.partition("=") for word in sys.argv[2:]):
    threading.Thread(target=globals()[kind], args=(key,), daemon=True).start()
for _ in sys.argv[2:]:
    begun.acquire()
print("at work", flush=True)
threading.Event().wait()

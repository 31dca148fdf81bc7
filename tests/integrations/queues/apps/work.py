"""What the tasks of every system do, and the receipts they write by themselves: the truth our rows are compared with."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from typing import Any


def plant_faults() -> None:
    """With PLANTED set, every hook of looseends raises inside, as soon as it does anything."""
    from looseends.integrations import queues

    def planted(*args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("planted in a hook")

    if os.environ.get("PLANTED"):
        for name in ("kind_of", "raw_id", "id_of", "parent_id", "schedule", "start", "report", "finish", "fail", "handed"):
            setattr(queues, name, planted)


def receipt(job: str, what: str, **more: Any) -> None:
    """One line, whole and at once, whoever else writes: `job` is the library's own id."""
    line = json.dumps({"job": job, "what": what, "pid": os.getpid(), "at": time.time(), **more}) + "\n"
    fd = os.open(os.environ["RECEIPTS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def is_first(job: str) -> bool:
    """Whether this is the first time that this job is here, in whichever process."""
    path = os.path.join(os.path.dirname(os.environ["RECEIPTS"]), f"seen-{job}")
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        return False
    return True


def mixed(job: str, attempt: int, kind: str) -> None:
    """One of many: ends well, fails once, fails every time, or takes its process with it the first time that it is here."""
    receipt(job, "began", attempt=attempt)
    if kind == "dies" and is_first(job):
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "bad" or (kind == "flaky" and attempt == 1):
        receipt(job, "failed", attempt=attempt)
        raise ValueError(f"planted in try {attempt}")
    receipt(job, "ended", attempt=attempt)


def kind_of(n: int, dies_every: int) -> str:
    """Which kind the nth of many is."""
    if dies_every and n % dies_every == dies_every // 2:
        return "dies"
    return {3: "flaky", 7: "bad"}.get(n % 10, "ok")


def place() -> tuple[int, int]:
    """Where the record of the task that runs here lies, by which its stack is found."""
    import looseends

    task = looseends.current()
    assert task is not None and task.segment is not None
    return id(task.segment), task.at


def lines_at(where: tuple[int, int]) -> list[str]:
    """What somebody outside sees of a task."""
    from looseends.stacks import Look

    lines, _ = Look().stacks([where])[where]
    return lines


def looked_at(job: str) -> None:
    """Have another thread look where this task is."""
    where, seen = place(), []
    looker = threading.Thread(target=lambda: seen.extend(lines_at(where)))
    looker.start()
    looker.join()
    receipt(job, "ended", lines=seen)


def slowly(job: str) -> None:
    """Say that it began and stay, as long as somebody takes to kill it; the second time it ends at once."""
    first = is_first(job)
    receipt(job, "began")
    if first:
        time.sleep(120)
    receipt(job, "ended")

"""Real processes for tests: each in a group of its own, waited for with a deadline, always ended, never left behind.

Rules: a test waits for a line or a condition, never for a time; every wait has a deadline and shows what the process
said when it passes; only what a test started is ever signalled, known by its group and by a mark in its environment.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MARK = "TEST_PROCESS_MARK"
"""Every process that a test starts, and every child of it, carries this name in its environment."""
WAIT_S = 45.0
LINES_MAX = 20_000
# Python's own helper processes live as long as the interpreter that started them, which is pytest.
NOT_OURS = (b"multiprocessing.resource_tracker", b"multiprocessing.forkserver")


class WaitedTooLong(AssertionError):
    """A deadline passed; the message says what was waited for and what was heard meanwhile."""


def wait_until(condition: Callable[[], object], what: str, timeout_s: float = WAIT_S) -> object:
    """Poll `condition` until it is true and give back its value. Raises WaitedTooLong after `timeout_s` seconds."""
    deadline = time.monotonic() + timeout_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise WaitedTooLong(f"waited {timeout_s:g} s for {what}")
        time.sleep(0.01)


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nothing listens on. Use it soon: nobody keeps it free."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Process:
    """A started program. `lines` holds what it printed (both streams, newest LINES_MAX lines) in order."""

    def __init__(self, args: Sequence[str | Path], env: Mapping[str, str], cwd: Path = ROOT, stdin: bool = False) -> None:
        self.args = [str(arg) for arg in args]
        self.lines: list[str] = []
        self._news: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._seen = 0
        self._child = subprocess.Popen(
            self.args,
            env=dict(env),
            cwd=cwd,
            stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            start_new_session=True,
        )
        self.pid = self._child.pid
        self._reader = threading.Thread(target=self._read, name=f"output of {self.pid}", daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        with self._child.stdout as stream:
            for line in stream:
                self.lines.append(line.rstrip("\n"))
                del self.lines[:-LINES_MAX]
                with contextlib.suppress(queue.Full):
                    self._news.put_nowait(line)
        with contextlib.suppress(queue.Full):
            self._news.put_nowait(None)

    @property
    def output(self) -> str:
        """Everything it has printed so far."""
        return "\n".join(self.lines)

    @property
    def running(self) -> bool:
        """Whether the process itself (not its children) still lives."""
        return self._child.poll() is None

    def wait_for(self, pattern: str, timeout_s: float = WAIT_S) -> re.Match[str]:
        """The first match of `pattern` in a line not yet waited for. Raises WaitedTooLong, at once if it has ended."""
        wanted = re.compile(pattern)
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                line = self._news.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise WaitedTooLong(self._report(f"no line matched {pattern!r} within {timeout_s:g} s")) from None
            if line is None:
                raise WaitedTooLong(self._report(f"ended before a line matched {pattern!r}"))
            match = wanted.search(line)
            if match is not None:
                return match

    def say(self, line: str) -> None:
        """Write one line to its standard input (start it with stdin=True)."""
        assert self._child.stdin is not None, "started without stdin=True"
        self._child.stdin.write(line + "\n")
        self._child.stdin.flush()

    def hang_up(self) -> None:
        """Close its standard input."""
        assert self._child.stdin is not None, "started without stdin=True"
        self._child.stdin.close()

    def wait(self, timeout_s: float = WAIT_S) -> int:
        """Its exit code (negative: the signal that ended it). Raises WaitedTooLong."""
        try:
            code = self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise WaitedTooLong(self._report(f"did not end within {timeout_s:g} s")) from None
        self._reader.join(1.0)  # a child that keeps the stream open must not hold us up
        return code

    def signal(self, number: int) -> None:
        """Send a signal to the process alone."""
        self._child.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to its whole group, and wait until the process is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.wait()

    def stop(self, timeout_s: float = 5.0) -> int:
        """SIGTERM, then SIGKILL after `timeout_s` seconds; its exit code. Safe to repeat."""
        if self.running:
            self.signal(signal.SIGTERM)
            with contextlib.suppress(WaitedTooLong):
                return self.wait(timeout_s)
        self.kill()
        return self.wait()

    def _report(self, what: str) -> str:
        said = "\n  ".join(self.lines[-60:])
        return f"{' '.join(self.args)} {what} (exit code {self._child.poll()}). It said:\n  {said}"


class Processes:
    """What one test starts. `start` takes the arguments of Process; `env` is added to a clean environment."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self.env = dict(env)
        self.started: list[Process] = []

    def start(self, *args: str | Path, env: Mapping[str, str] | None = None, cwd: Path = ROOT, stdin: bool = False) -> Process:
        """Start a program; it ends with the test, however that ends."""
        process = Process(args, {**self.env, **(env or {})}, cwd, stdin)
        self.started.append(process)
        return process

    def end_all(self) -> None:
        """End everything that is still there, newest first."""
        for process in reversed(self.started):
            process.stop()


def marked(mark: str) -> Iterator[tuple[int, str]]:
    """(pid, command) of every living process, this one apart, that carries `mark` in its environment (Linux)."""
    wanted = f"{MARK}={mark}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        pid = int(folder.name)
        try:
            carries = pid != os.getpid() and wanted in (folder / "environ").read_bytes().split(b"\0")
            command = (folder / "cmdline").read_bytes() if carries else b""
        except OSError:  # it ended while we looked, or belongs to somebody else: not ours either way
            continue
        if command and not any(helper in command for helper in NOT_OURS):
            yield pid, command.replace(b"\0", b" ").decode(errors="replace").strip()


def end_leftovers(mark: str, patience_s: float = 5.0) -> list[str]:
    """What still lives with this mark after `patience_s` seconds; it is named and then killed."""
    deadline = time.monotonic() + patience_s
    while left := list(marked(mark)):
        if time.monotonic() > deadline:
            for pid, _ in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            return [f"{pid}: {command}" for pid, command in left]
        time.sleep(0.02)
    return []

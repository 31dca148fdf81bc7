"""What a command writes, passed on as it comes, its end kept.

Rules:

1. Where our own output is a terminal the command gets a terminal (same size, same settings), else a pipe; where its two
   streams lead to one place they stay one stream, in order.
2. What goes to a file of its own, apart from the errors, is taken for data (a dump) and not for a report: it is not looked at.
3. Nothing is held back, changed or waited for: a reader that leaves is felt by the command (SIGPIPE), a slow one slows it.
4. The command ended, and something it left behind still writes: that goes on through `cat`, and we end.
5. At most OUTPUT_BYTES_MAX are kept in memory, the last ones.
"""

from __future__ import annotations

import fcntl
import os
import re
import select
import signal
import stat
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

OUTPUT_BYTES_MAX = 8 << 10
READ_BYTES = 64 << 10
DRAIN_BYTES_MAX = 2 << 20  # twice what a pipe can be made to hold
SAY_S = 5.0
_FIRST_FD = 10  # ours stay away from 0, 1 and 2, any of which may be closed
_ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")


class Channel(NamedTuple):
    """One stream: read at `source`, passed on to `target`; `inner` is the command's end of it, put at `places`."""

    source: int
    inner: int
    target: int
    places: tuple[int, ...]
    is_terminal: bool


KEPT = ("all", "errors", "none")


def channels(kept: str | None) -> list[Channel]:
    """The streams between a command and our own standard output and error, of which `kept` is one of KEPT, or None: as rule 2
    has it. For the others the command has our own. Raises OSError: no more descriptors."""
    places = [fd for fd in (1, 2) if _is_open(fd)]
    if kept in ("none", "errors"):
        return [_channel(2, (2,))] if kept == "errors" and 2 in places else []
    if len(places) == 2 and os.path.samestat(os.fstat(1), os.fstat(2)):
        return [_channel(1, (1, 2))]
    if kept is None and 1 in places and stat.S_ISREG(os.fstat(1).st_mode):
        places.remove(1)
    return [_channel(fd, (fd,)) for fd in places]


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _channel(target: int, places: tuple[int, ...]) -> Channel:
    is_terminal = os.isatty(target)
    ends = _terminal(target) if is_terminal else None
    source, inner = map(_away, ends or os.pipe())
    os.set_blocking(source, False)
    return Channel(source, inner, target, places, ends is not None)


def _terminal(like: int) -> tuple[int, int] | None:
    """A terminal of the same settings, except that it writes what it is given: the outer one turns line ends already.

    None where this system gives no more of them (a container without /dev/ptmx).
    """
    import termios

    try:
        master, slave = os.openpty()
    except OSError:
        return None
    settings: list[Any] = termios.tcgetattr(like)
    settings[1] &= ~termios.OPOST
    termios.tcsetattr(slave, termios.TCSANOW, settings)
    resize(like, master)
    return master, slave


def resize(like: int, terminal: int) -> None:
    """Give a terminal the size of another one."""
    import termios

    try:
        size = fcntl.ioctl(like, termios.TIOCGWINSZ, bytes(8))
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, size)
    except OSError:  # it was closed meanwhile; nobody sees its size
        return


def _away(fd: int) -> int:
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _FIRST_FD)
    os.close(fd)
    return moved


class Tail:
    """The last bytes of everything written, and how many there were."""

    def __init__(self, cleaned: Callable[[str], str] = str) -> None:
        """`cleaned` takes out of a text what nobody may see."""
        self.total = 0
        self._cleaned = cleaned
        self._kept = bytearray()

    def add(self, data: bytes) -> None:
        """Take in what was written."""
        self.total += len(data)
        self._kept += data[-OUTPUT_BYTES_MAX:]
        del self._kept[:-OUTPUT_BYTES_MAX]

    def text(self) -> str:
        """As a person reads it: no colours, of a line that was written over and over its last form."""
        text = _ESCAPES.sub("", bytes(self._kept).decode("utf-8", "replace"))
        if self.total > len(self._kept) and "\n" in text:
            text = "...\n" + text.partition("\n")[2]  # the first line is likely half a line
        lines = [line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n")]
        return self._cleaned(_CONTROLS.sub("", "\n".join(lines)).rstrip())

    def last_line(self) -> str:
        """The last line that says anything."""
        return next((line for line in reversed(self.text().split("\n")) if line.strip()), "")


class Relay:
    """The thread that passes on what a command writes."""

    def __init__(self, streams: list[Channel], tail: Tail, said: Callable[[str], None], every_s: float = SAY_S) -> None:
        """`said` is told the last line, at most once in `every_s` seconds."""
        self._open = {stream.source: stream for stream in streams}
        self._tail, self._said, self._every_s = tail, said, every_s
        self._said_at = time.monotonic()
        self._ended, self._wake = os.pipe()
        self._waiting = 0
        self.done = not streams
        self._thread = threading.Thread(target=self._run, name="looseends-relay", daemon=True)

    def start(self) -> None:
        """Begin; what the caller holds of the command's ends must be closed by then. Raises RuntimeError: no thread."""
        if not self.done:
            self._thread.start()

    def finish(self) -> bool:
        """The command has ended: whether all it wrote was passed on. When it is, this thread gets a SIGCHLD."""
        if not self._waiting:
            self._waiting = threading.get_ident()
            os.close(self._wake)
        return self.done

    def resized(self) -> None:
        """Our own terminal has another size."""
        for stream in list(self._open.values()):
            if stream.is_terminal:
                resize(stream.target, stream.source)

    def _run(self) -> None:
        try:
            self._pass_on()
            for source in list(self._open):
                self._hand_over(source)
        finally:
            select.select([self._ended], [], [])  # a command may close its streams long before it ends
            self.done = True
            signal.pthread_kill(self._waiting, signal.SIGCHLD)

    def _pass_on(self) -> None:
        """Until every stream is closed, or the command has ended and what it wrote was read: nothing is left, or more comes
        than a pipe holds, so that somebody goes on writing."""
        poll = select.poll()
        for fd in (*self._open, self._ended):
            poll.register(fd, select.POLLIN)
        end_at = None
        while self._open:
            ready = [fd for fd, _ in poll.poll()]
            for fd in [fd for fd in ready if fd in self._open]:
                if not self._copy(self._open[fd]):
                    poll.unregister(fd)
                    os.close(fd)
                    del self._open[fd]
            if self._ended in ready and end_at is None:
                end_at = self._tail.total + DRAIN_BYTES_MAX
            if ready == [self._ended] or (end_at is not None and self._tail.total > end_at):
                return

    def _copy(self, stream: Channel) -> bool:
        """Pass on what is there. -> whether there may be more."""
        try:
            data = os.read(stream.source, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError:  # EIO: how a terminal says that nobody has it open any more
            return False
        if not data:
            return False
        self._tail.add(data)
        now = time.monotonic()
        if now - self._said_at >= self._every_s:
            self._said_at = now
            self._said(self._tail.last_line())
        return _write(stream.target, data)

    def _hand_over(self, source: int) -> None:
        """Somebody whom the command left behind still has this stream: let `cat` pass it on for as long as that takes."""
        target = self._open.pop(source).target
        os.set_blocking(source, True)
        actions = [
            (os.POSIX_SPAWN_DUP2, source, 0),
            (os.POSIX_SPAWN_DUP2, target, 1),
            (os.POSIX_SPAWN_OPEN, 2, os.devnull, os.O_WRONLY, 0),
        ]
        try:
            os.posix_spawnp("cat", ["cat"], os.environ, file_actions=actions, setsigmask=[], setsigdef=[signal.SIGPIPE])
        except OSError:  # no cat: the stream ends here
            return
        finally:
            os.close(source)


def _write(fd: int, data: bytes) -> bool:
    """Whether all of it was taken; not where nobody reads any more, or the disk is full."""
    left = memoryview(data)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()
        except OSError:
            return False
    return True

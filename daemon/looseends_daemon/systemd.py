"""What systemd is told: ready, reloading, alive, stopping. A datagram each to the socket in NOTIFY_SOCKET; without it, nothing.

Rules: a socket that is gone is no reason to stop, so a failed datagram is logged once and forgotten. "Alive" is said only while
every loop of the daemon goes round, failing or not: a restart mends what hangs, and mends no disk that is full or broken.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Mapping

log = logging.getLogger("looseends")
BEATS = 3
"""Datagrams in one watchdog interval, so that a slow second costs nothing."""
EVERY_S_MIN = 0.1


class Systemd:
    """The service manager as this process's environment names it. Every method returns at once and never raises."""

    def __init__(self, environ: Mapping[str, str], pid: int) -> None:
        address = environ.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self._said_so = False
        self.watchdog_s = _watchdog_s(environ, pid) if address[:1] in ("/", "@") else None
        """How often to say that all goes round (s); None: nobody waits for it."""
        if address[:1] not in ("", "/", "@"):
            log.warning('NOTIFY_SOCKET is %r, which is no path and no "@name"; nobody is notified', address)
            self._address = ""

    def ready(self, status: str) -> None:
        """The doors are open, or a reload has ended."""
        self._send(f"READY=1\nSTATUS={_line(status)}")

    def reloading(self) -> None:
        """A reload begins. The time lets systemd tell this from an earlier one."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def alive(self) -> None:
        """Every loop goes round."""
        self._send("WATCHDOG=1")

    def stopping(self) -> None:
        """The end has begun."""
        self._send("STOPPING=1")

    def _send(self, words: str) -> None:
        if not self._address:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(words.encode(), self._address)
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
            if not self._said_so:
                log.warning("systemd cannot be notified: %s", error)
            self._said_so = True


class Watchdog:
    """The loop body: says "alive" while nothing hangs. `hanging` names the loops that do."""

    def __init__(self, systemd: Systemd, hanging: Callable[[], list[str]]) -> None:
        self._systemd, self._hanging = systemd, hanging
        self._silent = False

    async def run_once(self, now: int) -> int | None:
        """Say it, or be silent and log why, once; when to look again is the loop's own idle time."""
        hanging = self._hanging()
        if not hanging:
            self._systemd.alive()
        elif not self._silent:
            log.error("%s: hanging; systemd's watchdog is not fed until this ends", ", ".join(hanging))
        self._silent = bool(hanging)
        return None


def _watchdog_s(environ: Mapping[str, str], pid: int) -> float | None:
    """A third of WATCHDOG_USEC, unless it is meant for another process."""
    if environ.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    told = environ.get("WATCHDOG_USEC", "")
    if not (told.isascii() and told.isdigit() and int(told) > 0):
        return None
    return max(EVERY_S_MIN, int(told) / 1e6 / BEATS)


def here() -> Systemd:
    """The one of this process."""
    return Systemd(os.environ, os.getpid())


def _line(text: str) -> str:
    """One line: a newline would begin another assignment."""
    return " ".join(text.split())[:200]

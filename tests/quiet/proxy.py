"""A proxy on TCP that takes every n-th answer of the daemon and closes instead of passing it on: the answer is lost, the
request was not. It can be stalled: then everything waits, and arrives late.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time

CHUNK_BYTES = 1 << 16
CUT_EVERY = 5
REOPEN_S = 1.0


class Proxy:
    """Listens on `port` for one daemon; `cut` counts the answers that were lost."""

    def __init__(self, daemon_port: int, cut_every: int = CUT_EVERY) -> None:
        self._daemon_port, self._cut_every = daemon_port, cut_every
        self._answers = itertools.count(1)
        self.cut, self.stalls = 0, 0
        self._cutting, self._open = True, threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def stall(self, seconds: float) -> None:
        """Pass nothing on for so long, in either direction.

        No answer is lost just before: by the daemon's rules a connection that ended and was not opened again in 2 s is a death.
        """
        self.stalls += 1
        self._cutting = False
        time.sleep(REOPEN_S)
        self._open.clear()
        try:
            time.sleep(seconds)
        finally:
            self._open.set()
            self._cutting = True

    def close(self) -> None:
        """Take no new connection."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                daemon = socket.create_connection(("127.0.0.1", self._daemon_port))
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._pass, args=(client, daemon, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(daemon, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._open.wait()
                if answers and self._cutting and next(self._answers) % self._cut_every == 0:
                    self.cut += 1
                    break
                target.sendall(data)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

"""Something in between on TCP, as bad as networks are: it loses answers, stalls and then passes on what is old, cuts connections
that are in use, and shuts its door.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time

CHUNK_BYTES = 1 << 16
CUT_EVERY = 5


class Proxy:
    """Listens on `port` for one daemon. Every `cut_every`-th answer is taken and its connection closed (0: none): the answer is
    lost, the request was not. `cut` counts those; `swallow` is how many of the next answers go the same way; while it is `shut`
    nobody gets in; `opened` counts who did.
    """

    def __init__(self, daemon_port: int, cut_every: int = CUT_EVERY) -> None:
        self._daemon_port, self._cut_every = daemon_port, cut_every
        self._answers = itertools.count(1)
        self.cut, self.stalls, self.opened, self.swallow, self.shut = 0, 0, 0, 0, False
        self._open = threading.Event()
        self._open.set()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()

    def stall(self, seconds: float) -> None:
        """Pass nothing on for so long, in either direction; who connects meanwhile gets through to the daemon, and no further."""
        self.stalls += 1
        self._open.clear()
        try:
            time.sleep(seconds)
        finally:
            self._open.set()

    def cut_all(self) -> None:
        """Close every connection, on both sides."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _end(*pair)

    def close(self) -> None:
        """Take no new connection, and end those that are open."""
        _end(self._listener)
        self._listener.close()
        self._open.set()
        self.cut_all()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if self.shut:
                    raise ConnectionRefusedError("shut")
                daemon = socket.create_connection(("127.0.0.1", self._daemon_port))
            except OSError:
                client.close()
                continue
            self.opened += 1
            self._pairs = [*(pair for pair in self._pairs if pair[0].fileno() >= 0), (client, daemon)]
            threading.Thread(target=self._pass, args=(client, daemon, False), daemon=True).start()
            threading.Thread(target=self._pass, args=(daemon, client, True), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, answers: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK_BYTES):
                self._open.wait()
                if answers and self._is_lost():
                    self.cut += 1
                    break
                target.sendall(data)
        _end(source, target)
        source.close()

    def _is_lost(self) -> bool:
        if self.swallow:
            self.swallow -= 1
            return True
        return bool(self._cut_every) and next(self._answers) % self._cut_every == 0


def _end(*ends: socket.socket) -> None:
    for end in ends:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)

"""One HTTP exchange over a real socket pair: answers in any pieces are read, and what is no answer is an OSError."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterable

import pytest

from looseends.exchange import HEAD_BYTES_MAX, NoAnswer, Reply, exchange

BYTES_MAX = 1 << 16


def ask(pieces: Iterable[bytes], headers: dict[str, str] | None = None, body: bytes | None = None) -> tuple[Reply, bytes]:
    """What is read where the other end sends these pieces and hangs up; and what it was sent."""
    mine, other = socket.socketpair()
    heard: list[bytes] = []

    def answer() -> None:
        with other:
            heard.append(other.recv(1 << 16))
            for piece in pieces:
                other.sendall(piece)

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        with mine:
            mine.settimeout(10)
            return exchange(mine, "POST /api/v1/events", headers or {}, body, BYTES_MAX), b"".join(heard)
    finally:
        thread.join()


PLAIN = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nLooseends-Takes:  journal \r\n\r\n{}"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\n[1,2,\r\n3\r\n 3]\r\n0\r\nX: trailer\r\n\r\n"
CASES: list[tuple[bytes, int, bytes, bool]] = [
    (PLAIN, 200, b"{}", True),
    (CHUNKED, 200, b"[1,2, 3]", True),
    (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", 204, b"", True),
    (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: Close\r\n\r\n", 503, b"", False),
    (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n7", 200, b"7", False),
    (b"HTTP/1.1 200 OK\r\n\r\nuntil it hangs up", 200, b"until it hangs up", False),
    (PLAIN + b"HTTP/1.1 200 what nobody asked for", 200, b"{}", False),
    (b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n" + b"x" * BYTES_MAX, 200, b"x" * BYTES_MAX, False),
]


@pytest.mark.parametrize(("answer", "status", "body", "keeps"), CASES, ids=range(len(CASES)))
def test_an_answer_is_read_whole_and_in_pieces(answer: bytes, status: int, body: bytes, keeps: bool) -> None:
    whole, _ = ask([answer])
    assert (whole.status, whole.body, whole.keeps) == (status, body, keeps)
    if len(answer) < 500:
        torn, _ = ask([answer[at : at + 1] for at in range(len(answer))])
        assert (torn.status, torn.body) == (status, body)


def test_header_names_are_read_in_any_case_and_the_request_says_what_it_should() -> None:
    reply, sent = ask([PLAIN], {"Host": "localhost"}, b"body")
    assert reply.headers["looseends-takes"] == "journal"
    assert sent == b"POST /api/v1/events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nbody"


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Le",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 two hundred\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nfffffffff\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 2 * HEAD_BYTES_MAX,
        bytes(range(256)) * 10,
    ],
)
def test_what_is_no_answer_is_said_to_be_none(answer: bytes) -> None:
    with pytest.raises(OSError, match=r".+"):
        ask([answer])


def test_a_header_that_http_cannot_carry_is_never_sent() -> None:
    mine, other = socket.socketpair()
    with mine, other:
        other.settimeout(0)
        with pytest.raises(NoAnswer, match="control character"):
            exchange(mine, "GET /", {"Authorization": "Bearer a\r\nX: y"}, None, BYTES_MAX)
        with pytest.raises(BlockingIOError):
            other.recv(1)

"""Odd methods, ids, parameters, headers and types of content: what a request may carry outside of its body."""

from __future__ import annotations

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUERY", "get", "G\x80T", "X" * 40)
ODD_IDS = (
    *(
        "x",
        "0",
        "-1",
        "01890000-0000-8000-8000-00000000000",
        "018900000000800080000000000000ff",
        "rpl_",
        "inc_0",
        "msg_x",
        "%2e%2e",
        "..",
    ),
    *(
        "%00",
        "%ff",
        "%",
        "%zz",
        "%2f",
        "%ed%a0%80",
        "%F0%9F%98%80",
        "%0d%0aX:%20y",
        "x" * 300,
        "x" * 7_000,
        "9" * 400,
        "%27--",
        "*",
        "~",
    ),
    *("\xe9", "\xff\xfe", "{id}", "a%20b", ";a=b", "%C2%A0", "%E2%80%AE", "null", "%3Cscript%3E"),
)
ODD_VALUES = (
    *(
        "%",
        "%ff",
        "%00",
        "%ed%a0%80",
        "+",
        "\xff",
        "9" * 400,
        "-1",
        "0",
        "501",
        "1e9",
        "NaN",
        "x" * 2_000,
        "%C2%B2",
        "%D9%A3",
        "1.5",
    ),
    *("2026-02-30T00:00:00Z", "2026-11-20T14:05:31+00:00", "9223372036854775808", "[]", "%27%20OR%201=1", "%F0%9F%98%80"),
)
QUERIES = (
    *(
        "is:loose",
        "is:gap",
        "-is:open name:mail.*",
        "state:failed,running",
        "verdict:lost",
        "service:shop",
        "key:order-7",
        "older:5m",
        "receipt",
    ),
    *(
        "took:>2s",
        "attempt:>1",
        'id:018f* "a b"',
        "instance:*",
        "host:x release:2026.*",
        "incident:inc_1",
        "is:ran_twice",
        "is:overlap",
    ),
    *(
        "state:faild",
        "took:>",
        "older:" + "9" * 30 + "w",
        "attempt:>9999999999999999999999",
        '"',
        "-",
        ":",
        "is:",
        "a" * 1_001,
        "x " * 40,
        "a,b,,",
    ),
    *(
        "name:*",
        "name:%_*",
        "*",
        "-*",
        "\u202e",
        "id:\x00",
        "took:<0.5ms",
        "older:0s",
        "é",
        "source:x",
        "name:a\\",
        "(",
        "is:loose is:loose",
    ),
)
ODD_HEADERS = (
    *(
        (name, value)
        for name in ("Accept", "Cookie", "Idempotency-Key", "If-None-Match", "Range", "Origin", "X-Request-Id", "User-Agent")
        for value in (b"", b"x" * 8_000, b"\xff\xfe", b"\xc3\xa9", b"a, b;c=d", b'"', b"null")
    ),
    *(("Host", value) for value in (b"", b"evil.example", b"localhost:1:2", b"[::1", b"localhost.", b"LOCALHOST", b"\xff")),
    *(("Content-Encoding", value) for value in (b"br", b"gzip", b"gzip, gzip", b"identity", b"\xff", b"")),
    *(("Sec-Fetch-Site", value) for value in (b"cross-site", b"same-origin", b"none", b"\xff", b"")),
    *(("Expect", value) for value in (b"100-continue", b"200-maybe")),
    *(("Connection", value) for value in (b"close", b"keep-alive", b"Upgrade", b"x")),
    *(
        ("Upgrade", b"websocket"),
        ("Via", b"1.1 x"),
        ("X-Forwarded-For", b"1.2.3.4"),
        ("Accept", b"text/html"),
        ("Accept-Encoding", b"gzip"),
    ),
    *(
        ("Content-Length", b"-1"),
        ("Content-Length", b"x"),
        ("Transfer-Encoding", b"x"),
        ("Bad Name", b"x"),
        ("", b"x"),
        ("X", b"a\x00b"),
    ),
)
KINDS = (
    *(
        b"application/json",
        b"application/x-ndjson",
        b"application/x-www-form-urlencoded",
        b"text/plain",
        b"application/json; charset=utf-16",
    ),
    *(
        b"application/json; charset=no-such",
        b"multipart/form-data; boundary=x",
        b"multipart/form-data",
        b"",
        b"/",
        b"\xff",
        b'a/b; c="',
        b"text/html",
    ),
)

"""A service that is careless with secrets in every way that a service can be; each way has a canary of its own.

Rules: `WAYS` is the list: a name, and what is done with the canary. A canary is made from the seed in CANARY_SEED and the
name; GET /plant goes every way once and answers with all of them. CANARY_CONTROL=1 switches redaction off, in this process
alone: what searches must then find them all.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import attrs
import msgspec
import pydantic
from fastapi import BackgroundTasks, FastAPI


def canary(way: str) -> str:
    """What this way plants: no form of its own that a pattern could know."""
    seed = os.environ["CANARY_SEED"]
    return "cnry" + hashlib.sha256(f"{seed} {way}".encode()).hexdigest()[:14].translate(str.maketrans("0123456789", "ghijklmnop"))


def switch_redaction_off() -> None:
    """The control: everything is written as it comes."""
    import looseends
    from looseends.values import Walk

    assert looseends
    for name, module in list(sys.modules.items()):
        if name.split(".")[0] == "looseends":
            for part, off in (("is_secret", False), ("is_card", False), ("is_secret_class", False)):
                if hasattr(module, part):
                    setattr(module, part, lambda *_, off=off: off)
            if callable(getattr(module, "scrub", None)):
                module.scrub = lambda text, hidden=(): text  # type: ignore[attr-defined]
    Walk._hide = lambda self, value, depth: None  # type: ignore[method-assign]


if os.environ.get("CANARY_CONTROL") == "1":
    switch_redaction_off()

import looseends  # noqa: E402

looseends.init(service="careless")
looseends.install("starlette")
app = FastAPI()


class Account(NamedTuple):
    user: str
    password: str


@dataclass
class Login:
    user: str
    api_key: str
    deep: dict[str, Any] = field(default_factory=dict)


@attrs.define
class Session:
    user: str
    _token: str


class Form(pydantic.BaseModel):
    user: str
    password: str = ""
    key: pydantic.SecretStr = pydantic.SecretStr("")


class Packet(msgspec.Struct):
    user: str
    client_secret: str


class Strict(pydantic.BaseModel):
    user: int
    password: int


@looseends.task(name="careless.login", key="user", redact=("nickname",), deadline="1h")
def login(user: Any, password: Any = "", *rest: Any, **options: Any) -> None:
    """Every way in passes here."""


@looseends.task(name="careless.fails", key="user", deadline="1h")
def fails(user: Any, password: Any = "", error: Any = None) -> None:
    raise error() if error else RuntimeError(f"cannot sign {user} in with {password}")


@looseends.task(name="careless.hangs", key="user", deadline="1s")
def hangs(user: Any, password: Any = "", **options: Any) -> None:
    """Never ends: its loose end brings the arguments into a notice."""
    task = looseends.current()
    assert task is not None
    task.progress(0.1, f"waiting with {password}")
    threading.Event().wait()


def raising(kind: Callable[..., Exception], *said: Any) -> None:
    class Error:
        def __call__(self) -> Exception:
            return kind(*said)

    with contextlib.suppress(ValueError, OSError):
        fails("ada", error=Error())


def chained(c: str) -> None:
    @looseends.task(name="careless.chained")
    def work(token: str) -> None:
        try:
            raise KeyError(token)
        except KeyError as error:
            error.add_note(f"it was {token}")
            raise ValueError("worse") from error

    with contextlib.suppress(ValueError):
        work(c)


def invalid(c: str) -> None:
    with contextlib.suppress(pydantic.ValidationError):
        _validates(json.dumps({"user": "x", "password": c}))


@looseends.task(name="careless.validates")
def _validates(body: str) -> None:
    Strict.model_validate_json(body)


def tracked(c: str, **options: Any) -> None:
    with looseends.track("careless.tracked", {"n": 1}, **options):
        pass


def progress(c: str) -> None:
    with looseends.track("careless.progress", {"secret": c}) as task:
        task.progress(0.5, f"halfway with {c}")


def failing(user: Any, c: str) -> None:
    with contextlib.suppress(RuntimeError):
        fails(user, c)


def refused(login: Any, c: str) -> None:
    with contextlib.suppress(RuntimeError), looseends.track("careless.refused", {"login": login}):
        raise RuntimeError(f"the server refused {c}")


def hanging(*args: Any) -> None:
    threading.Thread(target=hangs, args=args, daemon=True).start()


WAYS: dict[str, Callable[[str], None]] = {
    "positional": lambda c: login("ada", c),
    "keyword": lambda c: login("ada", password=c),
    "keyword beyond the parameters": lambda c: login("ada", "p", api_key=c),
    "named by the author": lambda c: login("ada", "p", nickname=c),
    "nested dict": lambda c: login("ada", "p", {"deep": [{"headers": {"Authorization": f"Bearer {c}"}}]}),
    "dict with keys of all kinds": lambda c: login("ada", "p", {(1, 2): {"secret": c}}),
    "bytes": lambda c: login("ada", c.encode()),
    "json text": lambda c: login(json.dumps({"user": "ada", "password": c})),
    "json text in json text": lambda c: login(json.dumps({"body": json.dumps({"token": c})})),
    "json bytes": lambda c: login(json.dumps({"user": "ada", "password": c}).encode()),
    "url with a password": lambda c: login(f"postgres://ada:{c}@db:5432/shop"),
    "url with a token": lambda c: login(f"https://host/reset?token={c}&next=/"),
    "header text": lambda c: login(f"Cookie: theme=dark; session={c}"),
    "command line": lambda c: login(["mysql", f"--password={c}"]),
    "a long text": lambda c: login("x" * 1_000 + f" password={c} " + "y" * 20_000),
    "key of a dict": lambda c: login({f"password={c}": 1}),
    "namedtuple": lambda c: login(Account("ada", c)),
    "dataclass": lambda c: login(Login("ada", c)),
    "inside a dataclass": lambda c: login(Login("ada", "k", {"cookie": c})),
    "attrs": lambda c: login(Session("ada", c)),
    "pydantic": lambda c: login(Form(user="ada", password=c)),
    "pydantic secret": lambda c: refused(Form(user="ada", key=pydantic.SecretStr(c)), c),
    "msgspec": lambda c: login(Packet("ada", c)),
    "github token": lambda c: login("ghp_" + (c * 2)[:36]),
    "github token in bytes": lambda c: login(b"x ghp_" + (c * 2)[:36].encode()),
    "url in a message": lambda c: raising(ConnectionError, f"GET https://host/x?api_key={c} timed out"),
    "dsn in a message": lambda c: raising(OSError, f"cannot reach redis://:{c}@cache:6379/0"),
    "assignment in a message": lambda c: raising(ValueError, f"bad settings: password={c}"),
    "repr in a message": lambda c: raising(ValueError, f"bad {Login('ada', c)!r}"),
    "dict in an exception": lambda c: raising(ValueError, {"user": "ada", "password": c}),
    "sql parameters": lambda c: raising(ValueError, f"IntegrityError\n[SQL: INSERT]\n[parameters: ('ada', '{c}')]"),
    "bare in a message, from an argument": lambda c: failing("ada", c),
    "bare in a message, from a dataclass": lambda c: refused(Login("u", c), c),
    "in a cause and a note": chained,
    "validation error": invalid,
    "progress note": progress,
    "key": lambda c: tracked(c, key=f"token={c}"),
    "tag": lambda c: tracked(c, tags={"token": c}),
    "tag's text": lambda c: tracked(c, tags={"dsn": f"amqp://u:{c}@h/"}),
    "expectation": lambda c: looseends.expect("careless.never", within="1s", key=f"pw={c}", args={"password": c}),
    "hanging task": lambda c: hanging("bob", c),
    "hanging task's url": lambda c: hanging(f"https://u:{c}@host/", "p"),
}
IN_REQUESTS = ("request path", "background task")


@app.get("/plant")
def plant() -> dict[str, str]:
    """Go every way once; the two ways in a request go through /reset/."""
    for name, go in WAYS.items():
        go(canary(name))
    return {name: canary(name) for name in (*WAYS, *IN_REQUESTS)}


@app.get("/reset/{rest:path}")
def reset(rest: str, background: BackgroundTasks) -> str:
    """A path that holds a secret is the label of the tasks begun in its request."""
    background.add_task(login, "ada", canary("background task"))
    return "ok"

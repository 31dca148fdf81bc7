"""From the lines of a stack to the few words of a reason, and which tasks an instance is asked about: the daemon's side."""

from __future__ import annotations

import msgspec
import pytest

from looseends.wire import NS
from looseends_daemon.core.detect import InstanceNow, World, judge
from looseends_daemon.core.facts import Cells, fold
from looseends_daemon.core.places import CHARS_MAX, frame_of, place_of_stack
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import InstanceRef, Task
from looseends_daemon.core.titles import Scene, title_of
from looseends_daemon.core.view import view_of
from looseends_daemon.core.wishes import WISH_S, WISHES_MAX, Wishes

START = 1_760_000_000 * NS
SEND = "/srv/shop/mail.py:88 send"
READ = "httpx/_client.py:120 Client.read [httpx]"


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([SEND], "mail.py:88 send"),
        (["/srv/shop/web.py:10 handle", SEND, READ], "mail.py:88 send -> httpx Client.read"),
        ([SEND, READ, "/usr/lib/my app/x.py:1 f"], "x.py:1 f"),
        ([SEND, READ, "ssl.py:1166 SSLSocket.read [ssl]"], "mail.py:88 send -> httpx -> ssl SSLSocket.read"),
        ([SEND, "asyncio/tasks.py:5 wait_for [asyncio]", "asyncio/locks.py:9 wait [asyncio]"], "mail.py:88 send -> asyncio wait"),
        (["/srv/a.py:5 outer.<locals>.inner"], "a.py:5 inner"),
        (["/srv/a.py:5 <lambda>"], "a.py:5 <lambda>"),
        (["<string>:3 <module>"], "<string>:3 <module>"),
        (["C:\\shop\\mail.py:3 send"], "C:\\shop\\mail.py:3 send"),
        ([READ], "_client.py:120 Client.read"),
        (["(its event loop has not turned for 3.1 s)", SEND], "mail.py:88 send; its event loop has not turned for 3.1 s"),
        (["(no frame of this task was found)"], None),
        (["as somebody else writes it", "", "a:b c", "mail.py:٣ send", f"x.py:{'9' * 5000} f", ":1 f", "x.py:1 "], None),
        ([], None),
    ],
)
def test_the_place_is_the_innermost_line_of_own_code_and_what_it_waits_in(lines: list[str], words: str | None) -> None:
    assert place_of_stack(lines) == words


def test_a_place_has_a_bound_whatever_the_lines_are() -> None:
    hostile = ["/srv/" + "a" * 1_900 + ":1 f", *[":" * 1_990 + "1 f"] * 39]
    assert len(place_of_stack(hostile) or "") <= CHARS_MAX
    assert frame_of("]" * 2_000) is None


def judged(*events: dict[str, object], lag: float | None = None, at: float = 30) -> str:
    """The reason of the verdict on one task of a live instance."""
    cells: Cells = {}
    for event in events:
        fold(cells, {"task": "t", "attempt": 1, "name": "mail", "service": "shop", "environment": "production", **event}, "i1")
    who = InstanceNow(id="i1", state="alive", loop_lag_ms=lag)
    world = World(now=START + int(at * NS), ready_at=START, instances={"i1": who})
    return judge(view_of(cells), world, Policy()).reason


STARTED = {"type": "started", "at": START, "deadline": 30.0}


def stack(at: float, *lines: str) -> dict[str, object]:
    return {"type": "progress", "at": START + int(at * NS), "stack": list(lines)}


def test_the_reason_tells_the_place_and_how_old_the_look_is() -> None:
    assert judged(STARTED) == "no end within 30 s; its process is alive"
    told = judged(STARTED, stack(29.5, SEND, READ))
    assert told == "stuck in mail.py:88 send -> httpx Client.read; no end within 30 s; its process is alive"
    old = judged(STARTED, stack(15, SEND))
    assert old.startswith("stuck in mail.py:88 send (seen at ") and old.endswith("); no end within 30 s; its process is alive")
    unread = judged(STARTED, stack(29.5, "as somebody else writes it"))
    assert unread == "no end within 30 s; its process is alive"


def test_a_title_says_the_problem_once() -> None:
    detail = judged(STARTED, stack(29.5, SEND))
    title = title_of(Scene(problem="stuck", service="shop", count=1, name="mail.send", detail=detail))
    assert title == "mail.send of shop is stuck: mail.py:88 send; no end within 30 s; its process is alive"


def test_the_lag_of_the_loop_is_told_where_the_stack_does_not_tell_it_better() -> None:
    assert judged(STARTED, lag=999.0) == "no end within 30 s; its process is alive"
    assert judged(STARTED, lag=3_200.0) == "no end within 30 s; its process is alive; its event loop was held up for 3.2 s"
    both = judged(STARTED, stack(29.5, "(its event loop has not turned for 3.1 s; a.py:5 f holds it)", SEND), lag=3_200.0)
    assert both.count("event loop") == 1


def test_a_stalled_task_is_told_with_its_place_and_a_stack_is_no_progress() -> None:
    started = {**STARTED, "deadline": "never", "progress_within": 10.0}
    told = judged({**started, "deadline": -1.0}, stack(9.5, SEND), at=10)
    assert told == "stalled in mail.py:88 send; no progress within 10 s of its start"


def running(task: str, instance: str = "i1", *, state: str = "running", alive: bool = True) -> Task:
    """A task as a page shows it, only what a wish looks at."""
    where = InstanceRef(id=instance, host="h", pid=1, release=None, alive=alive)
    return msgspec.convert(
        {
            **dict.fromkeys(("name", "service", "environment"), "any"),
            "id": task,
            "state": state,
            "attempt": 1,
            "began_at": START,
            "instance": msgspec.to_builtins(where),
        },
        Task,
        strict=False,
    )


def test_a_wish_is_told_once_to_its_own_instance_and_not_for_ever() -> None:
    wishes = Wishes()
    for task in (running("t1"), running("t1"), running("t2"), running("t3", "i2")):
        wishes.opened(task, START)
    for task in (running("t4", state="succeeded"), running("t5", alive=False)):
        wishes.opened(task, START)
    assert wishes.fetched("i1", START + NS) == ["t1", "t2"]
    assert wishes.fetched("i1", START + NS) == []
    assert wishes.fetched("i2", START + int((WISH_S + 1) * NS)) == [], "whoever asked has gone"


def test_wishes_have_a_bound() -> None:
    wishes = Wishes()
    for number in range(WISHES_MAX + 10):
        wishes.opened(running(f"t{number}"), START)
    found = wishes.fetched("i1", START)
    assert len(found) == WISHES_MAX and found[-1] == f"t{WISHES_MAX + 9}"

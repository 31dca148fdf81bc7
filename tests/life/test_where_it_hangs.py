"""Where does it hang: the verdict's reason names file, line and function, whatever it hangs in, with a real daemon."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECRET = "whsec_" + base64.b64encode(bytes(range(32))).decode()
SOURCE = Path(__file__).with_name("services") / "hanging.py"


def line_of(kind: str) -> int:
    """The line of services/hanging.py at which this kind hangs."""
    lines = SOURCE.read_text().splitlines()
    return 1 + next(n for n, line in enumerate(lines) if line.endswith(f"# HERE {kind}"))


def is_judged(task: dict[str, Any]) -> bool:
    return task["verdict"] is not None


STUCK = [
    ("awaiting", "deeper -> asyncio Event.wait"),
    ("timed", "deep_in_a_task"),
    ("reading", "reading"),
    ("fetching", "fetching -> urllib -> socket SocketIO.readinto"),
    ("tracked", "tracked -> threading Condition.wait"),
    ("stacked", "stacked -> threading Condition.wait"),
    ("tracked_async", "tracked_in_a_coroutine -> asyncio Event.wait"),
    ("spawned", "spawned -> asyncio Event.wait"),
    ("deep", "recurse -> concurrent -> threading Condition.wait"),
]


def test_the_reason_names_file_line_and_function_of_every_kind_of_work_that_hangs(house: Any) -> None:
    service = house.service("hanging.py", *[kind for kind, _ in STUCK], "stalled")
    service.wait_for("at work")
    for kind, words in STUCK:
        task = house.task(f"hang.{kind}", is_judged, "judged")
        place = f"stuck in hanging.py:{line_of(kind)} {words}; no end within 1 s; its process is alive"
        assert (task["verdict"], task["reason"]) == ("stuck", place), kind
        assert any(f"{SOURCE}:{line_of(kind)} " in line for line in task["progress"]["stack"])
        assert len(task["progress"]["stack"]) <= 40
        assert not any("/client/looseends/" in line for line in task["progress"]["stack"]), "our own frames are of no use"
    print(task["reason"])


def test_a_loop_that_is_blocked_by_work_is_named_in_the_reasons_of_all_that_wait_in_it(house: Any) -> None:
    service = house.service("hanging.py", "held_up", "computing")
    service.wait_for("at work")
    guilty = house.task("hang.computing", is_judged, "judged")
    assert guilty["reason"].startswith(f"stuck in hanging.py:{line_of('computing')} crunch; no end within 2 s"), guilty["reason"]
    innocent = house.task("hang.held_up", is_judged, "judged")
    said = re.fullmatch(
        rf"stuck in hanging\.py:{line_of('held_up')} held_up -> asyncio sleep; its event loop has not turned for [\d.]+ s;"
        rf" hanging\.py:(\d+) crunch holds it; no end within 2 s; its process is alive",
        innocent["reason"],
    )
    assert said is not None, innocent["reason"]
    assert abs(int(said[1]) - line_of("computing")) <= 1, "in its `while`, or in what that repeats"


def test_a_task_that_stalls_is_named_with_its_place(open_house: Callable[..., Any]) -> None:
    house = open_house('[[task]]\nmatch = "life/hang.far_away"\ndeadline = "6s"')
    service = house.service("hanging.py", "stalled", "far_away")
    service.wait_for("at work")
    task = house.task("hang.stalled", is_judged, "judged")
    assert task["verdict"] == "stalled"
    assert task["reason"].startswith(f"stalled in hanging.py:{line_of('stalled')} stalled -> threading"), task["reason"]


def test_of_a_deadline_that_only_the_daemon_knows_it_asks_in_time(open_house: Callable[..., Any]) -> None:
    house = open_house('[[task]]\nmatch = "life/hang.configured"\ndeadline = "3s"')
    service = house.service("hanging.py", "configured")
    service.wait_for("at work")
    task = house.task("hang.configured", is_judged, "judged")
    place = f"stuck in hanging.py:{line_of('configured')} configured -> threading Condition.wait; no end within 3 s"
    assert task["reason"].startswith(place), task["reason"]


def test_who_opens_the_page_of_a_running_task_sees_where_it_is(house: Any) -> None:
    service = house.service("hanging.py", "far_away")
    service.wait_for("at work")
    task = house.task("hang.far_away", lambda one: one["state"] == "running", "running")
    assert task["progress"] is None, "nobody asked, nobody looked"
    house.ask(f"/tasks/{task['id']}")
    seen = house.task("hang.far_away", lambda one: one["progress"], "looked at")
    assert seen["verdict"] is None and seen["progress"]["done"] is None
    assert f"{SOURCE}:{line_of('far_away')} far_away" in seen["progress"]["stack"]


def test_the_webhook_tells_the_place_too(open_house: Callable[..., Any], sink: Any) -> None:
    endpoint = f'[[endpoint]]\nname = "sink"\nurl = "{sink.url}"\nsecrets = ["{SECRET}"]'
    house = open_house(f'[alerts]\ngroup_wait = "100ms"\n{endpoint}')
    service = house.service("hanging.py", "awaiting")
    service.wait_for("at work")
    notice = json.loads(sink.bodies.get(timeout=20))
    [told] = notice["data"]["tasks"]
    assert told["reason"].startswith(f"stuck in hanging.py:{line_of('awaiting')} deeper -> asyncio Event.wait; "), told

"""Orders: taken only from a proven daemon, run once, as new tasks whose id is the order's."""

from __future__ import annotations

import asyncio
import enum
import threading
import uuid
from typing import Any

import pytest

import looseends
from looseends import replay, trouble
from looseends.lifecycle import PROCESS
from looseends.spec import REGISTRY, Spec
from looseends.wire import order_mac

RAN: list[Any] = []
SEEN = threading.Condition()


def ran(value: Any) -> None:
    with SEEN:
        RAN.append(value)
        SEEN.notify_all()


def wait_ran(count: int) -> None:
    with SEEN:
        assert SEEN.wait_for(lambda: len(RAN) >= count, 15), RAN


class Tier(enum.Enum):
    GOLD = 1


@pytest.fixture(autouse=True)
def functions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(REGISTRY, "functions", {})
    monkeypatch.setattr(REGISTRY, "version", 0)
    RAN.clear()

    @looseends.task(name="mail.send", replay=True)
    def send(order_id: int, tier: Tier = Tier.GOLD) -> None:
        task = looseends.current()
        assert task is not None
        ran((order_id, tier, task.id, task.is_replay, task.replay_of, task.idempotency_key))
        if order_id < 0:
            raise ValueError("negative")

    @looseends.task(name="mail.fetch", replay="ask", caution="mails again")
    async def fetch(number: int) -> None:
        ran((number, id(asyncio.get_running_loop()), threading.current_thread().name))

    def legacy(text: str) -> None:
        task = looseends.current()
        ran((text, task.id if task else None))

    looseends.register(legacy, name="legacy.job")


def order(name: str, args: dict[str, Any], **more: Any) -> dict[str, Any]:
    number = str(uuid.uuid4())
    found = {"id": number, "name": name, "args": args, "replay_of": str(uuid.uuid4()), "idempotency_key": f"key-{number}"}
    return {**found, "signature": REGISTRY.functions[name].signature() if name in REGISTRY.functions else None, **more}


def give(receiver: Any, *orders: dict[str, Any]) -> None:
    with receiver.changed:
        receiver.orders.update({o["id"]: o for o in orders})
    looseends.init()


def test_functions_are_made_known_with_their_signatures(receiver: Any) -> None:
    looseends.init()
    receiver.wait(lambda r: any(path.endswith("/functions") for _, path, *_ in r.calls))
    body = next(call[2] for call in receiver.calls if call[1].endswith("/functions"))
    by_name = {entry["name"]: entry for entry in body}
    assert set(by_name) == {"mail.send", "mail.fetch", "legacy.job"}
    assert by_name["mail.fetch"]["replay"] == "ask" and by_name["mail.fetch"]["caution"] == "mails again"
    assert by_name["mail.send"]["signature"] == "(order_id: 'int', tier: 'Tier' = <Tier.GOLD: 1>) -> 'None'"
    assert len(by_name["mail.send"]["code"]) == 16 and by_name["legacy.job"]["via"] is None


def test_an_order_runs_as_a_new_task_with_the_orders_id(receiver: Any) -> None:
    wanted = order("mail.send", {"order_id": 7, "tier": {"$t": "enum", "class": f"{Tier.__module__}:Tier", "v": "GOLD"}})
    give(receiver, wanted)
    wait_ran(1)
    assert [(7, Tier.GOLD, wanted["id"], True, wanted["replay_of"], wanted["idempotency_key"])] == RAN
    receiver.wait(lambda r: r.types("mail.send") == ["scheduled", "started", "finished"])
    events = receiver.of("mail.send")
    assert {event["task"] for event in events} == {wanted["id"]}
    assert events[0]["replay_of"] == wanted["replay_of"] and events[0]["args"]["order_id"] == 7
    assert receiver.results[wanted["id"]] == {"fence": 7, "outcome": "started", "detail": None}


def test_a_failing_replay_is_a_failed_task(receiver: Any) -> None:
    wanted = order("mail.send", {"order_id": -1})
    give(receiver, wanted)
    receiver.wait(lambda r: r.types("mail.send") == ["scheduled", "started", "failed"])


def test_a_registered_plain_function_is_a_task_while_it_is_replayed(receiver: Any) -> None:
    wanted = order("legacy.job", {"text": "x"})
    give(receiver, wanted)
    receiver.wait(lambda r: r.types("legacy.job") == ["scheduled", "started", "finished"])
    assert [("x", wanted["id"])] == RAN


async def test_async_functions_run_on_the_services_own_loop(receiver: Any) -> None:
    wanted = order("mail.fetch", {"number": 5})
    give(receiver, wanted)
    await asyncio.to_thread(wait_ran, 1)
    assert [(5, id(asyncio.get_running_loop()), threading.main_thread().name)] == RAN


def test_async_functions_run_in_a_thread_where_no_loop_runs(receiver: Any) -> None:
    PROCESS.loop = None
    give(receiver, order("mail.fetch", {"number": 6}))
    wait_ran(1)
    assert RAN[0][0] == 6 and RAN[0][2] == "looseends-replay"


def test_an_order_runs_once_even_if_it_is_offered_again(receiver: Any) -> None:
    wanted = order("mail.send", {"order_id": 1})
    give(receiver, wanted)
    wait_ran(1)
    receiver.wait(lambda r: wanted["id"] in r.results)
    with receiver.changed:
        receiver.results.clear()
        heartbeats = len(receiver.calls)
    receiver.wait(lambda r: sum(p.endswith("/orders") for _, p, *_ in r.calls[heartbeats:]) >= 1)
    receiver.wait(lambda r: sum(p.endswith("/heartbeat") for _, p, *_ in r.calls[heartbeats:]) >= 2)
    assert len(RAN) == 1


@pytest.mark.parametrize(
    ("name", "args", "more", "words"),
    [
        ("nobody.here", {}, {}, "no function is registered here as 'nobody.here'"),
        ("mail.send", {"order_id": 1}, {"signature": "(order_id)"}, "its signature changed: (order_id) was asked for"),
        ("mail.send", {"order_id": {"$t": "redacted"}}, {}, "argument order_id was not recorded (redacted)"),
        ("mail.send", {"order_id": {"$t": "enum", "class": "os:system", "v": "x"}}, {}, "is a os:system, which this service"),
        ("mail.send", {"number": 1}, {}, "its arguments do not fit"),
    ],
)
def test_what_cannot_run_is_refused_in_words(receiver: Any, name: str, args: Any, more: Any, words: str) -> None:
    wanted = order(name, args, **more)
    give(receiver, wanted)
    receiver.wait(lambda r: wanted["id"] in r.results)
    result = receiver.results[wanted["id"]]
    assert result["outcome"] == "refused" and words in result["detail"] and RAN == []


@pytest.mark.parametrize(
    ("token", "key", "runs"),
    [
        ("i.s.orderkey", "orderkey", True),
        ("i.s.orderkey", "wrong", False),
        ("i.s.orderkey", None, False),
        ("i.s", "orderkey", False),
    ],
)
def test_over_tcp_only_a_valid_mac_runs_anything(
    tcp_receiver: Any, monkeypatch: pytest.MonkeyPatch, token: str, key: str | None, runs: bool
) -> None:
    monkeypatch.setenv("LOOSEENDS_TOKEN", token)
    tcp_receiver.sign = lambda order, instance: order_mac(key, order, instance) if key else None
    wanted = order("mail.send", {"order_id": 3})
    give(tcp_receiver, wanted)
    if runs:
        wait_ran(1)
        return
    tcp_receiver.wait(lambda r: sum(path.endswith("/heartbeat") for _, path, *_ in r.calls) >= 3)
    assert RAN == [] and trouble.COUNTS["an order was not taken; replay is off"] == 1
    claims = [path for _, path, *_ in tcp_receiver.calls if path.endswith("/claim")]
    assert bool(claims) == token.endswith("orderkey"), "without an order key nothing is even claimed"


def test_no_more_run_at_once_than_this_process_may(receiver: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOSEENDS_REPLAY_CONCURRENCY", "2")
    free, inside = threading.Event(), []

    def slow(n: int) -> None:
        inside.append(n)
        ran(n)
        free.wait(15)

    looseends.register(slow, name="slow.job")
    give(receiver, *(order("slow.job", {"n": n}) for n in range(5)))
    wait_ran(2)
    receiver.wait(lambda r: sum(path.endswith("/heartbeat") for _, path, *_ in r.calls) >= 3)
    assert len(inside) == 2
    free.set()
    wait_ran(5)
    assert sorted(inside) == [0, 1, 2, 3, 4]


def test_shutdown_waits_for_what_runs_and_takes_nothing_more(receiver: Any) -> None:
    free = threading.Event()

    def slow(n: int) -> None:
        ran(n)
        free.wait(15)

    looseends.register(slow, name="slow.job")
    give(receiver, order("slow.job", {"n": 1}))
    wait_ran(1)
    ending = threading.Thread(target=looseends.shutdown)
    ending.start()
    with receiver.changed:
        late = order("slow.job", {"n": 2})
        receiver.orders[late["id"]] = late
    receiver.wait(lambda r: sum(path.endswith("/heartbeat") for _, path, *_ in r.calls) >= 2)
    assert ending.is_alive() and RAN == [1]
    free.set()
    ending.join(15)
    assert not ending.is_alive() and receiver.types("slow.job")[-1] == "finished" and RAN == [1]


def test_a_pace_is_kept_and_what_was_not_claimed_costs_nothing() -> None:
    runs = replay.Runs(at_once=100, per_second=2.0)
    assert runs.begin() and not runs.begin()
    runs.unclaimed()
    assert runs.begin() and not runs.begin() and runs.running == 1


@pytest.mark.parametrize(("text", "value"), [("4", 4), ("", 8), ("0", 8), ("65", 8), ("many", 8), ("nan", 8), ("1e999", 8)])
def test_a_wrong_limit_is_noted_and_not_used(text: str, value: float) -> None:
    before = trouble.COUNTS.get("a setting is wrong", 0)
    assert replay.limit("CONCURRENCY", {"LOOSEENDS_REPLAY_CONCURRENCY": text}, 8) == value
    assert trouble.COUNTS.get("a setting is wrong", 0) - before == (value == 8 and text != "")


def test_arguments_are_bound_by_name_to_every_kind_of_parameter() -> None:
    def f(a: int, /, b: int, *rest: int, c: int, **more: int) -> None: ...

    values = {"b": 2, "a": 1, "rest": (3,), "c": 4, "more": {"d": 5}, "e": 6}
    made = replay.bind(Spec("f", f, source="task"), values)
    assert made == ((1, 2, 3), {"c": 4, "d": 5, "e": 6})

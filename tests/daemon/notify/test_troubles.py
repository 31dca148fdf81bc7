"""Incidents about the daemon itself, and the switch outside that notices when it cannot speak any more."""

from __future__ import annotations

import asyncio
import json
from typing import Any

from looseends_daemon.core.delivery import Outcome
from looseends_daemon.core.endpoints import Endpoint
from looseends_daemon.core.incidents import AlertRules, EndpointRule
from looseends_daemon.core.matchers import matcher
from looseends_daemon.core.policy import Policy
from looseends_daemon.core.resources import BlindWindow
from looseends_daemon.core.troubles import AWAY_S_MIN, SHOWN_S, SUBJECTS_MAX, Behind, Trouble, troubles
from looseends_daemon.services.pulse import Pulse
from looseends_daemon.store import troubles as store
from looseends_daemon.store.questions import ask

NS = 10**9
NOW = 1_795_000_000 * NS
KEY = "whsec_" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="


def table(url: str, name: str, **more: Any) -> str:
    lines = [f"{key} = {value}" for key, value in more.items()]
    return "\n".join(["[[endpoint]]", f'name = "{name}"', f'url = "{url}"', f'secrets = ["{KEY}"]', *lines, ""])


def window(cause: str, seconds: float, *, ago: float = 0, missing: int = 0, instance: str | None = None) -> BlindWindow:
    to = NOW - round(ago * NS)
    service = None if instance is None else "shop-web"
    return BlindWindow(
        cause=cause, from_=to - round(seconds * NS), to=to, reason="said so", missing=missing, instance=instance, service=service
    )


# --- what counts as trouble ---------------------------------------------------------------------------------------


def test_a_failing_endpoint_is_trouble_and_one_that_a_person_disabled_is_not() -> None:
    def found(state: str, by: str | None = None) -> list[str]:
        shown = Endpoint(name="ops", kind="webhook", state=state, disabled_by=by, detail="answered 500")
        return [one.title for one in troubles(now=NOW, endpoints=[shown])]

    assert found("ok") == found("disabled", "anna") == []
    assert found("failing") == ["The endpoint ops fails, so nobody hears of incidents there: answered 500"]
    assert found("disabled") == ["The endpoint ops is disabled, so nobody hears of incidents there: answered 500"]


def test_a_restart_or_a_minute_of_freeze_is_no_trouble_and_a_long_absence_is() -> None:
    for cause in ("down", "frozen"):
        assert troubles(now=NOW, windows=[window(cause, 60)]) == []
        [one] = troubles(now=NOW, windows=[window(cause, AWAY_S_MIN)])
        assert (one.problem, one.severity) == ("blind_window", "warning")
        assert troubles(now=NOW, windows=[window(cause, 9_999, ago=SHOWN_S)]) == [], "it is told for an hour, then shown"
    assert troubles(now=NOW, windows=[window("clock", 9_999)]) == []


def test_missing_records_of_an_instance_are_one_trouble_however_often() -> None:
    windows = [window("records", 5, ago=n, missing=2, instance="i-1") for n in range(3)]
    [one] = troubles(now=NOW, windows=windows)
    assert (one.subject, one.service) == ("i-1", "shop-web")


def test_only_so_many_of_a_kind_are_told() -> None:
    late = [Behind(instance=str(n), service="s", environment="e", host=None, since=0, records=1) for n in range(300)]
    assert len(troubles(now=NOW, behind=late)) == SUBJECTS_MAX


def test_storage_is_critical() -> None:
    assert [one.severity for one in troubles(now=NOW, storage=["the disk is full", "and more"])] == ["critical"]


# --- in the database ----------------------------------------------------------------------------------------------


def rules(*endpoints: EndpointRule) -> AlertRules:
    return AlertRules(endpoints=endpoints or (EndpointRule(name="ops", fingerprint="1"),))


async def told(post: Any, found: list[Trouble], by: AlertRules, after_s: float = 0) -> bool:
    post.now += round(after_s * NS)
    answer: bool = await post.database.write(lambda conn: store.absorb(conn, post.now, found, by))
    return answer


async def types(post: Any, endpoint: str = "ops") -> list[str]:
    return [notice.type.rpartition(".")[2] for notice in await post.notices(endpoint)]


async def bodies(post: Any) -> list[Any]:
    async def read(conn: Any) -> list[Any]:
        rows = await conn.execute_fetchall("SELECT body FROM notice ORDER BY no")
        return [json.loads(bytes(row["body"]))["data"]["incident"] for row in rows]

    found: list[Any] = await post.database.read(read)
    return found


async def deliver(post: Any) -> None:
    async def yes(message: Any) -> Outcome:
        return Outcome(status=200)

    for name in post.endpoints:
        await post.dispatcher(name, yes).run_once(post.now)


FULL = Trouble(problem="storage", subject="storage", title="The storage of looseends: the disk is full")


async def test_it_opens_once_repeats_and_resolves(make_post: Any) -> None:
    post = await make_post()
    assert await told(post, [FULL], rules())
    await deliver(post)
    assert not await told(post, [FULL], rules(), after_s=60)
    assert await told(post, [FULL], rules(), after_s=14_400)
    await deliver(post)
    assert await told(post, [], rules(), after_s=60)
    await deliver(post)
    assert await types(post) == ["opened", "repeated", "resolved"]
    opened, repeated, resolved = await bodies(post)
    assert opened["labels"] == {"service": "looseends", "name": "storage", "instance": "storage", "environment": "looseends"}
    assert (opened["severity"], opened["state"], opened["problem"]) == ("critical", "open", "storage")
    assert repeated["reason"] == "repeat_interval"
    assert (resolved["state"], resolved["resolution"]) == ("resolved", "ended")
    assert resolved["title"].startswith("Settled: the storage of looseends is well again (was: ")
    assert not await told(post, [], rules(), after_s=60)


async def test_the_same_again_is_a_new_incident(make_post: Any) -> None:
    post = await make_post()
    for found in ([FULL], [], [FULL]):
        await told(post, found, rules(), after_s=10)
    assert len({one["id"] for one in await bodies(post)}) == 2


async def test_task_matchers_and_silences_do_not_hold_it_back_but_severity_does(make_post: Any) -> None:
    shop = EndpointRule(name="ops", fingerprint="1", match=(matcher('service="shop"'),))
    quiet = EndpointRule(name="quiet", fingerprint="1", min_severity="critical")
    post = await make_post("ops", "quiet")
    await told(post, [Trouble(problem="not_draining", subject="i-1", title="behind")], rules(shop, quiet))
    assert (await types(post), await types(post, "quiet")) == (["opened"], [])


async def test_the_machine_of_task_incidents_leaves_it_alone(make_post: Any) -> None:
    post = await make_post()
    await told(post, [FULL], rules())
    post.now += 30 * 86_400 * NS
    await post.incident()  # absorbs and advances everything that is due
    assert "resolved" not in await types(post)


async def test_a_restart_with_a_new_endpoint_tells_it_too(make_post: Any) -> None:
    post = await make_post()
    await told(post, [FULL], rules())
    new = EndpointRule(name="new", fingerprint="1")
    post.endpoints["new"] = new
    post.rules = rules(EndpointRule(name="ops", fingerprint="1"), new)
    await post.begin()
    assert await types(post, "new") == ["opened"]


async def test_an_instance_is_behind_after_ten_minutes_or_an_hour_while_it_falls(make_post: Any) -> None:
    post = await make_post()
    await post.incident()

    async def late(since_s: int, lowest_s: int) -> int:
        def work(conn: Any) -> int:
            conn.execute(
                "UPDATE instance SET backlog = 7, behind_since = ?, lowest_at = ?", (NOW - since_s * NS, NOW - lowest_s * NS)
            )
            return len(ask(conn, store.behind(NOW, 0, Policy())))

        answer: int = await post.database.write(work)
        return answer

    assert await late(599, 599) == 0
    assert await late(600, 600) == 1
    assert await late(3_000, 10) == 0, "it falls"
    assert await late(3_601, 10) == 1, "it falls, but for too long"


# --- end to end ---------------------------------------------------------------------------------------------------


async def test_a_failing_endpoint_is_told_to_the_others_and_resolves_when_it_works_again(living: Any, receivers: Any) -> None:
    bad, good = await receivers(), await receivers()
    bad.status = 500
    daemon = await living(table(bad.url, "bad"), table(good.url, "good", match="['service=\"nobody\"']"))
    for n in range(3):
        await daemon.fail(f"job.{n}")

    async def notices() -> list[Any]:
        return [json.loads(body) for _, body in good.requests]

    [opened] = await daemon.until(notices)
    incident = opened["data"]["incident"]
    assert (incident["problem"], incident["labels"]["instance"]) == ("endpoint_failing", "bad")
    assert incident["title"].startswith("The endpoint bad fails, so nobody hears of incidents there: answered 500")
    _, page = await daemon.ask("GET", "/api/v1/incidents?state=open")
    assert incident["id"] in {one["id"] for one in page["items"]}
    assert all(json.loads(body)["data"]["incident"]["problem"] == "failed" for _, body in bad.requests)
    bad.status = 200
    await daemon.ask("POST", "/api/v1/endpoints/bad/test")

    async def resolved() -> Any:
        return [one for one in await notices() if one["type"].endswith("resolved")]

    [told_so] = await daemon.until(resolved)
    assert told_so["subject"] == opened["subject"]


# --- the pulse ----------------------------------------------------------------------------------------------------


async def test_the_pulse_stops_when_something_stops() -> None:
    beats, wrong = [], []

    async def beat() -> Outcome:
        beats.append(1)
        return Outcome(status=200)

    pulse = Pulse(beat, 60.0, lambda: wrong)
    assert await pulse.run_once(NOW) == NOW + 60 * NS
    assert len(beats) == 1
    wrong.append("the detector has not run through lately")
    await pulse.run_once(NOW)
    assert len(beats) == 1
    assert pulse.notes == ["heartbeat withheld: the detector has not run through lately"]
    wrong.clear()
    await pulse.run_once(NOW)
    assert (len(beats), pulse.notes) == (2, [])


async def test_a_hung_loop_of_a_real_daemon_silences_the_heartbeat(living: Any, receiver: Any) -> None:
    daemon = await living(f'[heartbeat]\nurl = "{receiver.url}"\nevery = "5s"\n')
    await asyncio.wait_for(receiver.arrived.wait(), 20)
    loops = {loop.name: loop for loop in daemon.daemon.loops}
    assert "heartbeat" in loops
    hung = asyncio.Event()

    async def hang(now: int) -> int | None:
        hung.set()
        await asyncio.sleep(3600)
        return None

    detector = loops["detector"]
    detector._run_once = hang
    detector.wake()
    await asyncio.wait_for(hung.wait(), 20)
    detector.last_ok -= 60
    before = len(receiver.requests)
    await daemon.daemon.outgoing.pulse.run_once(NOW)
    assert len(receiver.requests) == before
    status, said = await daemon.ask("GET", "/readyz")
    assert (status, "the detector has not run through lately" in said) == (503, True)
    detector._task.cancel()


async def test_a_heartbeat_that_does_not_arrive_is_noted_and_the_address_is_not(living: Any, receiver: Any) -> None:
    receiver.status = 500
    daemon = await living(f'[heartbeat]\nurl = "{receiver.url}-secret"\nevery = "5s"\n')
    await asyncio.wait_for(receiver.arrived.wait(), 20)

    async def noted() -> Any:
        status, said = await daemon.ask("GET", "/readyz")
        return said if status == 200 and "note:" in said else None

    said = await daemon.until(noted)
    assert "the heartbeat did not arrive: answered 500" in said
    assert "secret" not in said


async def test_pages_and_acts_take_an_incident_without_tasks(living: Any, receivers: Any) -> None:
    """Its problem is none of the words that tasks have."""
    bad, good = await receivers(), await receivers()
    bad.status = 410
    daemon = await living(table(bad.url, "bad"), table(good.url, "good"))
    await daemon.fail("job.a")

    async def of_the_daemon() -> Any:
        _, page = await daemon.ask("GET", "/api/v1/incidents?state=open")
        return [one for one in page["items"] if one["problem"] == "endpoint_failing"]

    [incident] = await daemon.until(of_the_daemon)
    assert incident["counts"]["total"] == 0
    for path in ("/incidents", f"/incidents/{incident['id']}", "/endpoints", "/"):
        status, said = await daemon.ask("GET", path)
        assert status == 200, (path, said[:500])
    status, said = await daemon.ask("POST", f"/api/v1/incidents/{incident['id']}/acknowledge", {"note": "on it"})
    assert status in (200, 202), said
    await daemon.ask("POST", "/api/v1/endpoints/bad/enable")
    bad.status = 200

    async def resolved() -> Any:
        _, one = await daemon.ask("GET", f"/api/v1/incidents/{incident['id']}")
        return one if one["state"] == "resolved" else None

    done = await daemon.until(resolved)
    assert done["title"].startswith("Settled: the endpoint bad works again")

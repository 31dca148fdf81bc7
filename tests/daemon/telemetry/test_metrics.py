"""GET /metrics: right numbers, kept over a restart and over retention, bounded, and not for everybody."""

from __future__ import annotations

import time
import uuid
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as plain

from looseends.wire import NS
from looseends_daemon.core.counting import BOUNDS_S

OPENMETRICS = "application/openmetrics-text"
DAY_NS = 86_400 * NS


def event(kind: str, task: str, **fields: Any) -> dict[str, Any]:
    return {"type": kind, "task": task, "name": "mail.send", "at": time.time_ns() - NS, **fields}


def values(text: str, parse: Any = plain) -> dict[str, dict[tuple[str, ...], float]]:
    """Every series: name -> label values in the order of their names -> value."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in parse(text):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sample.labels[name] for name in sorted(sample.labels))] = sample.value
    return found


PLACE = ("staging", "mail.send", "shop-web")


async def test_each_fact_is_counted_once_however_often_it_is_told(open_house: Any) -> None:
    house = await open_house()
    tasks = [str(uuid.uuid4()) for _ in range(3)]
    batch = [event("scheduled", t) for t in tasks] + [event("started", t) for t in tasks]
    ends = [
        event("finished", tasks[0], duration=0.02),
        event("failed", tasks[1], duration=400.0, error={"type": "E", "message": "m"}),
        event("cancelled", tasks[2], reason="requested"),
    ]
    for _ in range(3):
        await house.tell(*batch)
        await house.tell(*ends)
    found = values(await house.scrape())
    assert found["looseends_task_scheduled_total"] == {PLACE: 3}
    assert found["looseends_task_started_total"] == {PLACE: 3}
    ended = found["looseends_task_finished_total"]
    assert {labels[2]: n for labels, n in ended.items()} == {"succeeded": 1, "failed": 1, "cancelled": 1}
    assert found["looseends_task_duration_seconds_sum"] == {PLACE: 400.02}
    buckets = {float(labels[1]): n for labels, n in found["looseends_task_duration_seconds_bucket"].items()}
    assert (buckets[0.01], buckets[0.025], buckets[300.0], buckets[1800.0], buckets[float("inf")]) == (0, 1, 1, 2, 2)
    assert sorted(buckets) == [*BOUNDS_S, float("inf")]
    assert found["looseends_ingest_events_total"] == {("accepted",): 9, ("duplicate",): 18}


async def test_a_batch_that_is_refused_counts_nothing_but_the_refusal(open_house: Any) -> None:
    house = await open_house()
    async with house.http.post(f"{house.url}/api/v1/events", json=[{"type": "started", "task": "x", "name": "n"}]) as answer:
        assert answer.status == 422
    found = values(await house.scrape())
    assert "looseends_task_started_total" not in found
    assert found["looseends_ingest_events_total"] == {("rejected",): 1}


async def test_a_restart_and_retention_reset_no_counter(open_house: Any) -> None:
    house = await open_house()
    task = str(uuid.uuid4())
    await house.tell(event("started", task), event("finished", task, duration=1.0))
    before = values(await house.scrape())
    house = await open_house()

    def forget(conn: Any) -> int:
        from looseends_daemon.core.retention import Rules
        from looseends_daemon.store import retention
        from looseends_daemon.store.codes import blob

        rules = Rules(finished=1, failed=1, size_bytes_max=1 << 40)
        return retention.remove(conn, [blob(task)], rules, time.time_ns() + DAY_NS).tasks

    assert await house.daemon.database.write(forget) == 1
    after = values(await house.scrape())
    counters = [name for name in before if name.startswith("looseends_task") and name.endswith(("_total", "_count", "_sum"))]
    assert len(counters) == 4
    assert {name: after[name] for name in counters} == {name: before[name] for name in counters}


async def test_lost_work_is_a_loose_end_until_it_is_settled_and_never_counted_as_finished(open_house: Any) -> None:
    house = await open_house()
    task = str(uuid.uuid4())
    await house.tell(event("started", task), event("dropped", task, reason="collected"))

    async def loose() -> dict[tuple[str, ...], float]:
        return values(await house.scrape()).get("looseends_loose_end_open", {})

    deadline = time.monotonic() + 10
    while not await loose():
        assert time.monotonic() < deadline
    found = values(await house.scrape())
    assert await loose() == {("staging", "mail.send", "lost", "shop-web"): 1}
    assert found["looseends_task_gap"] == {("staging", "mail.send", "shop-web", "lost"): 1}
    assert found["looseends_task_verdicts_total"] == {("staging", "mail.send", "shop-web", "lost"): 1}
    assert found["looseends_incident_open"] == {("lost", "critical"): 1}
    assert "looseends_task_finished_total" not in found
    other = str(uuid.uuid4())
    await house.tell(event("started", other), event("finished", other))
    assert sum((await loose()).values()) == 1  # another task's success settles nothing
    await house.tell(event("finished", task))
    while sum((await loose()).values()):
        assert time.monotonic() < deadline
    found = values(await house.scrape())
    assert found["looseends_loose_end_settled_total"] == {("staging", "mail.send", "shop-web", "finished_late"): 1}
    assert "looseends_task_gap" not in found


async def test_names_beyond_the_cap_are_counted_together_and_never_change_places(open_house: Any) -> None:
    house = await open_house("[metrics]\nmax_names = 2\n")
    for n in range(5):
        await house.tell({**event("started", str(uuid.uuid4())), "name": f"job-{n}"})
    await house.tell(
        {**event("started", str(uuid.uuid4())), "name": "elsewhere"},
        instance={"id": "i-2", "service": "other-service", "environment": "staging"},
    )
    for _ in range(2):
        started = values(await house.scrape())["looseends_task_started_total"]
        assert {labels[1:]: n for labels, n in started.items()} == {
            ("job-0", "shop-web"): 1,
            ("job-1", "shop-web"): 1,
            ("_other", "_other"): 4,
        }
        house = await open_house("[metrics]\nmax_names = 2\n")


@pytest.mark.parametrize(
    ("accept", "content_type", "parse"),
    [
        ("", "text/plain", plain),
        ("nonsense;;q=x", "text/plain", plain),
        (f"{OPENMETRICS};version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1", OPENMETRICS, openmetrics),
    ],
)
async def test_the_format_is_the_scrapers_choice(open_house: Any, accept: str, content_type: str, parse: Any) -> None:
    house = await open_house()
    await house.tell({**event("started", str(uuid.uuid4())), "name": 'odd "name"\\with\nlines'})
    house.daemon.meter._until = 0.0
    for encoding in ("identity", "gzip"):
        async with house.http.get(f"{house.url}/metrics", headers={"Accept": accept, "Accept-Encoding": encoding}) as answer:
            assert answer.headers["Content-Type"].startswith(content_type)
            assert answer.headers.get("Content-Encoding") == (None if encoding == "identity" else "gzip")
            found = values(await answer.text(), parse)
    assert list(found["looseends_task_started_total"]) == [("staging", 'odd "name"\\with\nlines', "shop-web")]


async def test_a_scrape_is_kept_for_a_second_so_that_many_cost_one(open_house: Any) -> None:
    house = await open_house()
    for _ in range(20):
        async with house.http.get(f"{house.url}/metrics") as answer:
            assert answer.status == 200
    assert house.daemon.meter.made <= 2


@pytest.mark.parametrize(
    ("headers", "query", "status", "words"),
    [
        ({}, "?name[]=up", 422, "unknown parameter"),
        ({"X-Forwarded-For": "10.0.0.1"}, "", 401, "viewer role"),
        ({"Authorization": "Bearer op_0000000000.wrong"}, "", 401, "not valid"),
        ({"Sec-Fetch-Site": "cross-site"}, "", 403, "another site"),
        ({"Host": "evil.example"}, "", 421, "not a name of this daemon"),
    ],
)
async def test_a_wrong_scrape_is_refused_in_words(
    open_house: Any, headers: dict[str, str], query: str, status: int, words: str
) -> None:
    house = await open_house()
    async with house.http.get(f"{house.url}/metrics{query}", headers=headers) as answer:
        assert answer.status == status
        assert words in (await answer.json(content_type=None))["detail"]


async def test_from_elsewhere_a_viewers_token_opens_it(open_house: Any) -> None:
    from looseends_daemon.store import access

    house = await open_house()
    made = await house.daemon.database.write(
        lambda conn: access.create_token(conn, role="viewer", service=None, name="prometheus", now=time.time_ns())
    )
    headers = {"X-Forwarded-For": "10.0.0.1", "Authorization": f"Bearer {made}"}
    async with house.http.get(f"{house.url}/metrics", headers=headers) as answer:
        assert answer.status == 200


async def test_metrics_can_be_turned_off(open_house: Any) -> None:
    house = await open_house("[metrics]\nprometheus = false\n")
    async with house.http.get(f"{house.url}/metrics") as answer:
        assert answer.status == 404

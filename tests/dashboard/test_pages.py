"""Every page over a full, an empty, a calm and a hostile store: valid HTML, nothing inline, nothing executed."""

from __future__ import annotations

import gzip
from collections.abc import Callable

import msgspec
import pytest

from dashboard import shop
from dashboard.checks import check, parsed
from dashboard.fakes import OPERATOR, VIEWER, FakeReader, Visit
from looseends_daemon.core.resources import Actor, Bucket
from looseends_dashboard import assets
from looseends_dashboard.routes import render_error, render_sign_in

STORES: dict[str, Callable[[], FakeReader]] = {
    "full": shop.full,
    "calm": shop.calm,
    "empty": shop.empty,
    "hostile": shop.hostile,
    "long": lambda: shop.hostile(shop.LONG),
}
PAGE_BYTES_MAX = 1_500_000
FIRST_VISIT_BYTES_MAX = 25_000
FIRST_VISIT_REQUESTS_MAX = 6


@pytest.mark.parametrize("store", STORES)
@pytest.mark.parametrize("actor", [OPERATOR, VIEWER], ids=["operator", "viewer"])
async def test_every_page_is_valid_and_inert(visit: Visit, store: str, actor: Actor) -> None:
    client = await visit(STORES[store](), actor=actor)
    for path in shop.PATHS:
        answer = await client.get(path)
        text = await answer.text()
        assert answer.status in (200, 404, 422), path
        assert len(text) <= PAGE_BYTES_MAX, path
        check(text)
        assert "script-src 'self'; style-src 'self'" in answer.headers["Content-Security-Policy"]
        assert answer.headers["Cache-Control"] == "no-store"


async def test_hostile_text_is_seen_and_never_obeyed(visit: Visit) -> None:
    client = await visit(shop.hostile())
    document = check(await (await client.get(f"/tasks/{shop.task_id(5)}")).text())
    seen = "".join(document.itertext())
    assert "<script>alert(1)</script>" in seen
    assert "{{ 7*7 }}" in seen
    assert "49" not in seen.replace("4903", "")
    assert "⟨U+202E⟩" in seen
    assert not document.findall(".//img")


async def test_a_planted_unsafe_filter_would_be_caught() -> None:
    evil = f"<!doctype html><html><head><title>x</title></head><body><h1>{shop.EVIL}</h1></body></html>"
    with pytest.raises(AssertionError):
        check(evil)


async def test_the_overview_says_the_ledger_as_an_equation_of_links(visit: Visit) -> None:
    client = await visit(shop.full())
    document = check(await (await client.get("/?window=1h")).text())
    items = document.findall(".//ul[@class='ledger']/li/a")
    numbers = [int((item.findtext("b") or "").replace(",", "")) for item in items]
    assert numbers[0] == sum(numbers[1:])
    assert [item.findtext("span") for item in items] == ["Began", "Succeeded", "Failed", "Cancelled", "In time", "Unaccounted"]
    for item in items:
        href = item.get("href") or ""
        assert (await client.get(href)).status == 200, href
    assert "q=is%3Agap&from=2026-11-20T13%3A11%3A00" in (items[-1].get("href") or "")


async def test_what_is_settled_is_said_beside_its_number_and_alarms_nobody(visit: Visit) -> None:
    document = check(await (await (await visit(shop.full())).get("/?window=24h")).text())
    last = document.findall(".//ul[@class='ledger']/li")[-1]
    assert ("".join(last.itertext())).split() == ["Unaccounted", "44", "5", "settled"]
    assert last.get("class") == "loose"
    reader = shop.calm()
    reader.buckets.append(Bucket(at=shop.NOW - shop.MINUTE, tasks=1, gap=1, settled_gap=1))
    page = check(await (await (await visit(reader)).get("/?window=1h")).text())
    assert page.findall(".//ul[@class='ledger']/li")[-1].get("class") == "loose zero"


async def test_the_title_counts_the_loose_ends(visit: Visit) -> None:
    client = await visit(shop.full())
    document = check(await (await client.get("/?window=1h")).text())
    assert document.findtext(".//title") == "(38) loose ends · looseends"


async def test_a_good_day_says_that_all_is_accounted_for(visit: Visit) -> None:
    client = await visit(shop.calm())
    text = await (await client.get("/?window=1h")).text()
    assert "All 1,180 tasks accounted for." in text
    assert "2 s ago" in text


async def test_a_daemon_in_its_first_hour_shows_that_hour_and_a_choice_stands(visit: Visit) -> None:
    young = await visit(shop.calm())
    assert "in the last hour" in await (await young.get("/")).text()
    assert "in the last 24 hours" in await (await young.get("/?window=24h")).text()
    assert "in the last 24 hours" in await (await (await visit(shop.full())).get("/")).text()


async def test_an_old_loose_end_keeps_a_quiet_window_from_calling_itself_calm(visit: Visit) -> None:
    reader = shop.calm()
    reader.all_tasks = [task for task in shop.full().all_tasks if task.loose]
    text = await (await (await visit(reader)).get("/?window=1h")).text()
    assert "tasks accounted for" not in text
    assert "3 tasks lost with process 4121 on web-2" in text


async def test_before_the_first_event_the_overview_is_the_setup_page_and_looks_again(visit: Visit) -> None:
    client = await visit(shop.empty())
    answer = await client.get("/")
    text = await answer.text()
    assert "Waiting for the first event" in text
    assert "http://127.0.0.1:3637/api/v1/events" in text
    assert answer.headers["Refresh"] == "10"
    assert "Refresh" not in (await client.get("/setup?refresh=off")).headers
    assert "Refresh" not in (await (await visit(shop.full())).get("/setup")).headers


async def test_an_unknown_window_names_the_allowed_ones(visit: Visit) -> None:
    answer = await (await visit(shop.full())).get("/?window=3d")
    assert answer.status == 422
    assert "window is one of 1h, 6h, 24h, 7d, 30d." in await answer.text()


async def test_a_bad_query_points_at_its_column_and_lists_what_is_allowed(visit: Visit) -> None:
    answer = await (await visit(shop.full())).get("/tasks?q=is:loose+stat:x")
    text = await answer.text()
    assert answer.status == 422
    document = check(text)
    assert "did you mean state:?" in text
    assert document.findtext(".//div[@id='q-problem']/pre") == "is:loose stat:x\n         ^"
    assert "verdict:" in [code.text for code in document.findall(".//div[@id='q-problem']//code")]


@pytest.mark.parametrize("asked", ["from=yesterday", "to=2026-13-01T00:00:00Z", "from=" + "9" * 30, "q=" + "x" * 2000])
async def test_a_bad_parameter_is_answered_on_the_page(visit: Visit, asked: str) -> None:
    answer = await (await visit(shop.full())).get(f"/tasks?{asked}")
    assert answer.status == 422
    check(await answer.text())


@pytest.mark.parametrize("path", ["/tasks", "/incidents", "/replays", "/instances"])
async def test_a_made_up_cursor_is_answered_on_a_page(visit: Visit, path: str) -> None:
    answer = await (await visit(shop.full())).get(f"{path}?cursor=nonsense")
    assert answer.status == 422
    check(await answer.text())


async def test_pages_of_tasks_follow_one_another_without_gap_or_repeat(visit: Visit) -> None:
    reader = shop.full()
    client = await visit(reader)
    path, seen = "/tasks", []
    while path:
        document = check(await (await client.get(path)).text())
        rows = document.findall(".//table[@class='tasks']/tbody/tr")
        assert len(rows) <= 50
        seen += [row.find(".//td[@class='what']/a").get("href") for row in rows]  # type: ignore[union-attr]
        following = document.find(".//nav[@class='pager']/a[@rel='next']")
        path = following.get("href") or "" if following is not None else ""
    assert seen == [f"/tasks/{task.id}" for task in reader.all_tasks]


async def test_a_missing_task_says_never_seen_or_past_retention(visit: Visit) -> None:
    answer = await (await visit(shop.full())).get("/tasks/nobody")
    assert answer.status == 404
    assert "never seen here, or it is past retention" in await answer.text()


async def test_the_task_page_tells_verdict_meaning_and_history_in_order(visit: Visit) -> None:
    text = await (await (await visit(shop.full())).get(f"/tasks/{shop.task_id(1)}")).text()
    document = check(text)
    assert document.findtext(".//p[@class='said']/strong") == "Lost: process killed; last heard 14:05:31"
    steps = [step.findtext("span/b") for step in document.findall(".//ol[@class='steps']/li")]
    assert steps == ["Scheduled", "Started", "Judged lost", "Became a loose end"]
    assert f'href="/api/v1/tasks/{shop.task_id(1)}"' in text


async def test_lineage_is_linked_both_ways(visit: Visit) -> None:
    client = await visit(shop.full())
    old = await (await client.get(f"/tasks/{shop.task_id(8)}")).text()
    new = await (await client.get(f"/tasks/{shop.task_id(9)}")).text()
    assert f'Run again as <a href="/tasks/{shop.task_id(9)}"' in old
    assert f'Runs again <a href="/tasks/{shop.task_id(8)}"' in new


async def test_a_running_replay_looks_again_by_itself_until_told_to_stop(visit: Visit) -> None:
    reader = shop.full()
    client = await visit(reader)
    again = '<noscript><meta http-equiv="refresh" content="3"></noscript>'
    assert again not in await (await client.get("/replays/rep_1")).text(), "it is done"
    assert again not in await (await client.get("/replays/rep_2")).text(), "somebody may be typing what became of it"
    moving = msgspec.structs.replace(reader.all_replays[1], state="running", counts={"total": 1, "claimed": 1})
    reader.all_replays[1] = moving
    text = await (await client.get("/replays/rep_1")).text()
    assert again in text and 'href="/replays/rep_1?refresh=off"' in text
    assert again not in await (await client.get("/replays/rep_1?refresh=off")).text()


async def test_a_viewer_sees_a_reason_instead_of_the_button(visit: Visit) -> None:
    client = await visit(shop.full(), actor=VIEWER)
    document = check(await (await client.get(f"/tasks/{shop.task_id(1)}")).text())
    assert not [form for form in document.iter("form") if "/replay" in form.get("action", "")]
    assert "Replay is for operators" in "".join(document.itertext())


async def test_every_delivery_attempt_is_shown_with_status_and_next_try(visit: Visit) -> None:
    document = check(await (await (await visit(shop.full())).get("/incidents/inc_lost")).text())
    seen = " ".join("".join(document.itertext()).split())
    assert "503: upstream is down, next try in 20 s" in seen
    assert "no answer" in seen
    assert "503" in seen
    assert "31 ms" in seen


async def test_an_incident_lists_its_own_tasks_only(visit: Visit) -> None:
    document = check(await (await (await visit(shop.full())).get("/incidents/inc_failed")).text())
    links = [a.get("href") for a in document.findall(".//table[@class='tasks']/tbody//a")]
    assert links == [f"/tasks/{shop.task_id(5)}", f"/tasks/{shop.task_id(6)}"]


async def test_pages_that_act_on_unknown_states_still_stand(visit: Visit) -> None:
    reader = shop.full()
    reader.all_tasks = [msgspec.structs.replace(task, state="dreaming", verdict="odd") for task in reader.all_tasks]
    client = await visit(reader)
    for path in shop.PATHS:
        check(await (await client.get(path)).text())


def test_error_and_sign_in_pages_stand_alone() -> None:
    evil = check(render_error(403, shop.EVIL, shop.EVIL))
    assert "<script>" in "".join(evil.itertext())
    page = parsed(render_sign_in("That token is not known.", '/tasks?q="><script>'))
    field = page.find(".//input[@name='next']")
    assert field is not None
    assert field.get("value") == '/tasks?q="><script>'
    assert page.find(".//form[@action='/sign-in']") is not None
    assert "That token is not known." in "".join(page.itertext())


async def test_the_first_visit_stays_small(visit: Visit) -> None:
    client = await visit(shop.full())
    wire = [len(gzip.compress(await (await client.get("/")).read(), 6))]
    wire += [len(asset.packed) for asset in assets.assets().values()]
    assert sum(wire) <= FIRST_VISIT_BYTES_MAX
    assert len(wire) <= FIRST_VISIT_REQUESTS_MAX


async def test_a_page_is_packed_for_who_can_unpack_it(visit: Visit) -> None:
    client = await visit(shop.full())
    packed = await client.get("/", headers={"Accept-Encoding": "gzip"})
    assert packed.headers["Content-Encoding"] == "gzip"
    plain = await client.get("/", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers


async def test_static_files_are_kept_for_ever_under_their_hash(visit: Visit) -> None:
    client = await visit(FakeReader())
    for name, asset in assets.assets().items():
        answer = await client.get(assets.href(name))
        assert await answer.read() == asset.plain
        assert "immutable" in answer.headers["Cache-Control"]
        assert answer.content_type == asset.type
        old = await client.get(f"/static/0123456789/{name}")
        assert (old.status, old.headers["Cache-Control"]) == (200, "no-cache")
    for bad in ("nothing.css", "..%2f..%2frender.py", "app.css%00"):
        assert (await client.get(f"/static/{assets.version_hash()}/{bad}")).status == 404


def test_a_template_cannot_point_at_a_file_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        assets.href("gone.css")


def test_the_style_keeps_its_promises() -> None:
    css = assets.assets()["app.css"].plain.decode()
    for needed in ("prefers-reduced-motion", "forced-colors: active", "@media print", ":focus-visible", "light-dark("):
        assert needed in css
    assert "url(" not in css
    assert "@import" not in css

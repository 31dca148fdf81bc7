"""Overview and task list as text: windows, selection, marks, environments, facets, exports."""

from __future__ import annotations

import csv
import io
import json
import re
from typing import Any

import msgspec
import pytest

from dashboard import shop
from dashboard.checks import check
from dashboard.fakes import VIEWER, FakeReader, Visit
from looseends.wire import NS
from looseends_daemon.core.front import Choice, Facet, Happened
from looseends_daemon.core.resources import BlindWindow, Bucket, Ledger
from looseends_dashboard import asked, assets, beside, charts, export, links, search, windows, words

NOW, MINUTE = shop.NOW, shop.MINUTE


def text_of(element: Any) -> str:
    return " ".join("".join(element.itertext()).split())


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", windows.WINDOWS)
def test_a_named_window_is_whole_bars_and_holds_this_moment(name: str) -> None:
    shown = windows.named(name, NOW)
    assert shown.from_ < NOW < shown.to
    assert shown.to - NOW <= shown.bar_s * NS
    assert (shown.to - shown.from_) % (shown.bar_s * NS) == 0
    assert shown.from_ % (shown.bar_s * NS) == 0, "the ledger's groups begin where the bars do"
    assert (shown.to - shown.from_) // (shown.bar_s * NS) <= charts.BARS_MAX


@pytest.mark.parametrize("minutes", [1, 7, 59, 61, 600, 601, 1440, 5000, 43_201, 400 * 1440])
def test_a_drawn_window_grows_to_whole_bars_and_never_has_too_many(minutes: int) -> None:
    begin = NOW - minutes * MINUTE
    shown = windows.drawn(begin, NOW, NOW)
    assert shown.from_ <= begin < NOW <= shown.to
    assert (shown.to - shown.from_) // (shown.bar_s * NS) <= charts.BARS_MAX
    assert shown.from_ % (shown.bar_s * NS) == 0


@pytest.mark.parametrize(
    ("query", "words_"),
    [
        ({"window": "3d"}, "window is one of 1h, 6h, 24h, 7d, 30d"),
        ({"from": "2026-11-20T14:00:00Z"}, "to is missing"),
        ({"from": "2026-11-20T14:00:00Z", "to": "2026-11-20T13:00:00Z"}, "from must lie before to"),
        ({"from": "2020-11-20T14:00:00Z", "to": "2026-11-20T13:00:00Z"}, "at most 400 days"),
        ({"from": "noon", "to": "2026-11-20T13:00:00Z"}, "RFC 3339"),
    ],
)
def test_a_window_that_cannot_be_shown_says_why(query: dict[str, str], words_: str) -> None:
    with pytest.raises(asked.BadParameter) as refused:
        windows.shown(query, NOW)
    assert words_ in refused.value.detail


async def test_what_cannot_be_shown_is_a_page_with_the_way_out(visit: Visit) -> None:
    client = await visit(shop.full())
    for bad in ("sel_from=x&sel_to=y", "sel_from=2026-11-20T14:00:00Z", "environment=nowhere", "window=1h&part=picked&sel_to=1"):
        answer = await client.get(f"/?{bad}")
        assert answer.status == 422, bad
        check(await answer.text())


# --- the picture --------------------------------------------------------------------------------------------------


async def test_the_line_under_the_picture_is_the_ledger_of_the_selection(visit: Visit) -> None:
    reader = shop.full()
    client = await visit(reader)
    begin, end = "2026-11-20T14:00:00Z", "2026-11-20T14:10:00Z"
    document = check(await (await client.get(f"/?window=1h&sel_from={begin}&sel_to={end}")).text())
    line = document.find(".//p[@class='picked']")
    ledger = await reader.ledger(NOW - 10 * MINUTE, NOW)
    said = text_of(line)
    assert said.startswith(f"14:00 to 14:10: {ledger.tasks} began, {ledger.gap} unaccounted, {ledger.failed} failed")
    assert f"Replay {ledger.gap - ledger.settled['gap']}…" in said
    part = await (await client.get(f"/?part=picked&window=1h&sel_from={begin}&sel_to={end}")).text()
    assert "<html" not in part
    assert f"{ledger.tasks} began" in part


async def test_a_viewer_is_offered_no_replay_and_no_boxes_to_tick(visit: Visit) -> None:
    client = await visit(shop.full(), actor=VIEWER)
    for path in ("/", "/tasks?q=is:loose"):
        text = await (await client.get(path)).text()
        assert "/replays/new" not in re.sub(r'<form id="selected-form"[^>]*>', "", text)
        assert 'name="task"' not in text


def test_marks_of_one_bar_are_one_mark_that_names_them() -> None:
    where: dict[str, Any] = {"service": "shop", "environment": "production"}
    deaths = [Happened(what="death", at=NS * n, host=f"w{n}", pid=n, **where) for n in range(5)]
    marks = beside.gathered([*deaths, Happened(what="release", at=61 * NS, release="2", **where)], 0, 60)
    assert [(mark.what, mark.place, len(mark.said)) for mark in marks] == [("death", 0, 5), ("release", 1, 1)]
    assert marks[0].words.endswith("and 2 more")
    assert "process 0 on w0 of shop ended without a goodbye" in marks[0].words


def test_hostile_names_beside_the_tasks_stay_text() -> None:
    evil = Happened(what="release", at=0, service=shop.EVIL, environment="x", release="</title><script>x</script>")
    blind = [BlindWindow(cause="down", from_=0, to=NS, reason="<b>\x1b")]
    svg = charts.gap_picture(Ledger(from_=0, to=3600 * NS), 60, marks=beside.gathered([evil], 0, 60), blind=blind)
    assert "<script>" not in svg
    assert "<b>" not in svg
    assert "\x1b" not in svg


def test_a_blind_window_is_hatched_where_it_was_and_clipped_to_the_picture() -> None:
    blind = [BlindWindow(cause="down", from_=-NS, to=360 * NS, reason="the daemon was not running")]
    svg = charts.gap_picture(Ledger(from_=0, to=3600 * NS), 60, blind=blind)
    assert re.search(r'class="blind"[^>]*x="0\.000%" width="10\.000%"', svg)
    assert 'id="hatch"' in svg
    assert "hatch" not in charts.gap_picture(Ledger(from_=0, to=3600 * NS), 60)


async def test_marks_and_blind_windows_are_listed_for_who_cannot_see_them(visit: Visit) -> None:
    document = check(await (await (await visit(shop.full())).get("/?window=24h")).text())
    said = " ".join(text_of(part) for part in document.findall(".//ul[@class='beside']"))
    assert "process 4121 on web-2 of shop-web ended without a goodbye" in said
    assert "first sight of release 2026.11.3" in said
    assert "the daemon was not running" in said


async def test_an_environment_is_a_switch_that_goes_into_every_link(visit: Visit) -> None:
    reader = shop.full()
    reader.all_tasks.append(msgspec.structs.replace(reader.all_tasks[0], id=shop.task_id(500), environment="staging"))
    client = await visit(reader)
    document = check(await (await client.get("/?window=1h&environment=staging")).text())
    assert document.find(".//nav[@aria-label='Environment']") is not None
    for item in document.findall(".//ul[@class='ledger']/li/a"):
        assert "environment%3Astaging" in (item.get("href") or "")
    for link in document.findall(".//nav[@aria-label='Window']/a"):
        assert "environment=staging" in (link.get("href") or "")
    assert 'aria-label="Environment"' not in await (await (await visit(shop.full())).get("/")).text(), "one needs no switch"


# --- the list -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("q", "word", "rest", "chosen"),
    [
        ("", "state", "", []),
        ("is:loose state:failed", "state", "is:loose", ["failed"]),
        ("state:failed,succeeded is:loose", "state", "is:loose", ["failed", "succeeded"]),
        ("-state:failed is:loose", "state", "-state:failed is:loose", []),
        ('name:"two words" x', "name", "x", ["two words"]),
        ("name:mail.*", "name", "", []),
        ("tag.x:1 name:a", "name", "tag.x:1", ["a"]),
    ],
)
def test_a_facet_takes_its_own_word_out_of_a_query_and_leaves_the_rest(q: str, word: str, rest: str, chosen: list[str]) -> None:
    assert search.without(q, word) == (rest, chosen)


def test_a_facet_with_nothing_to_choose_is_left_out() -> None:
    one = [Facet(word="service", choices=[Choice(value="shop", count=3)])]
    assert search.facet_links(one, "", None, None) == []
    assert search.facet_links(one, "service:shop", None, None)[0].links[0].on


def test_a_value_that_no_query_can_hold_is_no_link() -> None:
    choices = [Choice(value='a"b', count=1), Choice(value="c d", count=1), Choice(value="e", count=1)]
    made = search.facet_links([Facet(word="name", choices=choices)], "", None, None)
    assert [link.href for link in made[0].links] == [links.href('name:"c d"'), links.href("name:e")]


async def test_counts_that_took_too_long_are_said_and_the_list_is_there(visit: Visit) -> None:
    reader = shop.full()
    reader.slow = True
    text = await (await (await visit(reader)).get("/tasks?q=is:loose")).text()
    assert "took too long" in text
    assert text.count("<tr data-id") == 7


async def test_suggestions_are_bounded_and_bad_places_are_the_end(visit: Visit) -> None:
    client = await visit(shop.full())
    for asked_for in ("q=na&pos=abc", "q=na&pos=-1", "q=na&pos=999999999", "q=na", "pos=1", f"q={'x' * 5000}"):
        answer = await client.get(f"/suggest?{asked_for}")
        assert answer.status == 200, asked_for
        assert len((await answer.json())["items"]) <= 10


# --- exports ------------------------------------------------------------------------------------------------------

FORMULAS = ("=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", " =1", "＝1", "|cmd", "\n=1", "%0A=1", "=cmd|' /C calc'!A0")


@pytest.mark.parametrize("formula", FORMULAS)
def test_what_looks_like_a_formula_becomes_text(formula: str) -> None:
    cell = export.inert(formula)
    assert cell.startswith("'") or words.visible(formula) != formula
    assert not cell.lstrip().startswith(("=", "+", "-", "@", "\t", "\r"))


def test_plain_text_and_numbers_of_ours_stay_as_they_are() -> None:
    for plain in ("mail.send", "order-7", "3.5", "a=b", ""):
        assert export.inert(plain) == plain


async def test_a_csv_of_hostile_tasks_is_whole_and_inert(visit: Visit) -> None:
    client = await visit(shop.hostile('=1+1\n\x1b[31m\u202e,";'))
    answer = await client.get("/tasks.csv")
    assert answer.content_type == "text/csv"
    assert answer.headers["Content-Disposition"] == 'attachment; filename="tasks.csv"'
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    text = await answer.text()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert tuple(rows[0]) == export.COLUMNS
    assert len(rows) == len(shop.full().all_tasks) + 1
    assert not [cell for row in rows[1:] for cell in row if cell.startswith(("=", "+", "-", "@"))]
    assert not set("\x1b\u202e") & set(text)


async def test_ndjson_is_the_resource_of_the_api_line_by_line(visit: Visit) -> None:
    reader = shop.full()
    text = await (await (await visit(reader)).get("/tasks.ndjson?q=is:loose")).text()
    told = [json.loads(line) for line in text.splitlines()]
    assert [task["id"] for task in told] == [task.id for task in reader.all_tasks if task.loose]
    assert told[0]["args"] == [task for task in reader.all_tasks if task.loose][0].args


async def test_a_file_that_is_cut_says_so_before_its_first_byte(visit: Visit, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "PAGE_ROWS", 10)
    monkeypatch.setattr(export, "ROWS_MAX", 25)
    answer = await (await visit(shop.full())).get("/tasks.ndjson")
    assert len((await answer.text()).splitlines()) == 25
    assert answer.headers["Looseends-More"] == "at most the newest 25 rows"
    assert "newest-25" in answer.headers["Content-Disposition"]


@pytest.mark.parametrize("path", ["/tasks.csv?q=stat:x", "/tasks.ndjson?from=noon"])
async def test_a_bad_question_is_answered_instead_of_half_a_file(visit: Visit, path: str) -> None:
    answer = await (await visit(shop.full())).get(path)
    assert answer.status == 422
    assert answer.content_type == "text/html"


# --- the script ---------------------------------------------------------------------------------------------------


def test_the_script_is_all_its_parts_each_in_a_block_of_its_own() -> None:
    script = assets.assets()["app.js"].plain.decode()
    assert script.count("\n{\n") + script.startswith("{\n") >= len(assets.PARTS + assets.LATER)
    lines = sum(asset.plain.count(b"\n") for name, asset in assets.assets().items() if name.endswith(".js"))
    assert lines <= 900
    assert sum(len(asset.packed) for name, asset in assets.assets().items() if name.endswith(".js")) <= 12_000
    for forbidden in ("innerHTML =", "eval(", "insertAdjacentHTML", "document.write", "new Function"):
        assert forbidden not in script, forbidden


async def test_a_quiet_store_still_draws_its_week(visit: Visit) -> None:
    reader = FakeReader(last=NOW, buckets=[Bucket(at=NOW - 90_000 * MINUTE, tasks=1, succeeded=1)])
    for name in windows.WINDOWS:
        check(await (await (await visit(reader)).get(f"/?window={name}")).text())

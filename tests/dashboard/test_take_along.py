"""What is made of a record on its page: code to copy, a traceback in parts, a picture of what happened when."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from dashboard import shop
from dashboard.checks import check
from dashboard.fakes import FakeReader, Visit
from looseends.wire import NS
from looseends_daemon.core.resources import Children, HistoryEntry, Task
from looseends_dashboard import take, trace
from looseends_dashboard.waterfall import waterfall


def task(**more: Any) -> Task:
    base: dict[str, Any] = {"id": "t1", "name": "shop.mail.send", "service": "shop", "environment": "e", "state": "running"}
    return Task(**(base | {"began_at": 0, "started_at": 0} | more))


ARGS = (
    None,
    {},
    {"order_id": 7, "to": ["a", None, True, 1.5], "nested": {"x": {"y": [1]}}},
    {"not a name": 1, "class": 2, "quote\"'\n": "\u202e\x00"},
    {
        "card": {"$t": "redacted"},
        "when": {"$t": "datetime", "v": "2026-11-20T14:00:00+00:00"},
        "n": {"$t": "decimal", "v": "1.50"},
    },
    {
        "t": {"$t": "tuple", "v": [1]},
        "e": {"$t": "tuple", "v": []},
        "s": {"$t": "set", "v": []},
        "o": {"$t": "opaque", "class": "a\nb:C"},
    },
    {"long": "x" * 50_000},
    {"$t": "cut", "v": "abc", "chars": 9},
    [1, 2],
    shop.EVIL,
)


@pytest.mark.parametrize("args", ARGS, ids=range(len(ARGS)))
@pytest.mark.parametrize("name", ["shop.mail.send", "send", "odd name\n", "import.os", shop.EVIL])
def test_what_is_copied_is_python_whatever_was_recorded(args: Any, name: str) -> None:
    for text in (take.as_python(task(args=args, name=name)), take.as_pytest(task(args=args, name=name))):
        ast.parse(text)
        assert len(text) < 30_000


def test_a_copied_call_holds_the_recorded_values_and_says_what_is_missing() -> None:
    text = take.as_python(task(args={"order_id": 7, "card": {"$t": "redacted"}, "n": {"$t": "decimal", "v": "1.50"}}))
    assert "from shop.mail import send  # a guess" in text
    assert "from decimal import Decimal" in text
    assert "    order_id=7,\n" in text
    assert "    card=...,  # redacted before it left the process" in text
    assert "    n=Decimal('1.50'),\n" in text


TRACEBACK = """Traceback (most recent call last):
  File "/srv/shop/jobs.py", line 88, in deliver
    response = client.post(url)
               ^^^^^^^^^^^^^^^^
  File "/srv/venv/lib/python3.12/site-packages/httpx/_client.py", line 1, in post
    return self.request()
  File "/usr/lib/python3.12/ssl.py", line 2, in read
    return self._sslobj.read()
TimeoutError: no answer

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/srv/shop/mail.py", line 9, in send
    raise Gone from None
Gone"""


def test_frames_of_libraries_are_folded_and_nothing_is_left_out() -> None:
    parts = trace.parts(TRACEBACK)
    assert [(part.folded, part.frames) for part in parts if part.folded] == [(True, 2)]
    assert "\n".join(part.text for part in parts) == TRACEBACK
    assert all("httpx" not in part.text for part in parts if not part.folded)
    assert "Gone" in parts[-1].text


def test_a_text_without_frames_is_one_part_and_megabytes_are_bounded() -> None:
    assert [part.text for part in trace.parts("no space left\non device")] == ["no space left\non device"]
    many = '  File "/srv/a.py", line 1, in f\n    g()\n' * 50_000
    assert sum(len(part.text) for part in trace.parts(many)) < 30_000


def test_a_stack_of_the_client_is_folded_by_its_marks() -> None:
    parts = trace.stack_parts(["/srv/shop/mail.py:88 send", "httpx/_client.py:120 read [httpx]"])
    assert [part.folded for part in parts] == [False, True]


def fact(what: str, at: float, attempt: int = 1, instance: str = "i") -> HistoryEntry:
    return HistoryEntry(at=round(at * NS), kind="fact", what=what, attempt=attempt, instance=instance)


def test_each_execution_is_a_row_and_an_unknown_end_is_drawn_open() -> None:
    verdict = HistoryEntry(at=40 * NS, kind="judgement", what="verdict", verdict="lost")
    history = [fact("scheduled", 0), fact("started", 1), fact("failed", 3), fact("started", 9, attempt=2, instance="j"), verdict]
    drawn = waterfall(task(verdict="lost", due_at=39 * NS), history, 10_000 * NS)
    assert drawn is not None
    assert [row.label for row in drawn.rows] == [
        "attempt 1: waited 1.00 s, ran 2.00 s, failed",
        "attempt 2: no end in 31.0 s",
        "judged: lost",
    ]
    assert 'class="loose open"' in drawn.rows[1].svg
    assert 'class="failed"' in drawn.rows[0].svg
    assert drawn.due == 39 * NS
    assert drawn.end < 60 * NS


def test_what_is_drawn_stays_inside_the_picture() -> None:
    history = [fact("scheduled", -900), fact("started", 0), fact("progress", 5), fact("finished", 0.0001)]
    drawn = waterfall(task(state="succeeded", ended_at=1), history, 0)
    assert drawn is not None
    for row in drawn.rows:
        assert all(0 <= float(place) <= 100 for place in re.findall(r'(?:x|x1|cx)="([\d.-]+)%"', str(row.svg)))


def test_one_moment_makes_no_picture() -> None:
    assert waterfall(task(state="cancelled", ended_at=0), [fact("cancelled", 0)], 0) is None
    assert waterfall(task(), [], 5) is None


async def test_a_page_lists_children_with_how_many_ended(visit: Visit) -> None:
    reader: FakeReader = shop.full()
    parent, child = reader.all_tasks[0], reader.all_tasks[1]
    changed = {"id": parent.id, "children": Children(total=9, ended=8)}
    reader.all_tasks[0] = Task(**({f: getattr(parent, f) for f in parent.__struct_fields__} | changed))
    reader.all_tasks[1] = Task(**({f: getattr(child, f) for f in child.__struct_fields__} | {"parent": parent.id}))
    document = check(await (await (await visit(reader)).get(f"/tasks/{parent.id}")).text())
    seen = " ".join("".join(document.itertext()).split())
    assert "8 of 9 ended" in seen
    assert "Shown: 1 of 9." in seen

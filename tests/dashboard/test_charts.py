"""The gap picture, read as the text it is."""

from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest

from looseends.wire import NS
from looseends_daemon.core.resources import Bucket, Ledger
from looseends_dashboard import charts

START = 1_790_000_040 * NS
MINUTE = 60 * NS
TERMS = ("tasks", "succeeded", "failed", "cancelled", "in_time", "gap")


def ledger(*rows: Bucket, minutes: int = 60) -> Ledger:
    sums = {term: sum(getattr(row, term) for row in rows) for term in TERMS}
    return Ledger(from_=START, to=START + minutes * MINUTE, buckets=list(rows), **sums)


def at(minute: int, **terms: int) -> Bucket:
    return Bucket(at=START + minute * MINUTE, **terms)


def needle_heights(svg: str, kind: str) -> list[int]:
    path = re.search(rf'class="needle {kind}" d="([^"]*)"', svg)
    return [int(height) for height in re.findall(r"v-(\d+)", path[1])] if path else []


def test_one_lost_task_among_a_million_is_still_drawn_seven_pixels_high() -> None:
    rows = [at(0, tasks=500_000, succeeded=400_000, gap=100_000), at(30, tasks=500_000, succeeded=499_999, gap=1)]
    heights = needle_heights(charts.gap_picture(ledger(*rows), 60), "loose")
    assert heights == [92, charts.NEEDLE_PX_MIN]


def test_a_single_loss_does_not_fill_its_lane() -> None:
    heights = needle_heights(charts.gap_picture(ledger(at(3, tasks=1, gap=1)), 60), "loose")
    assert heights == [46]


def test_bars_add_up_to_the_ledger_however_wide_they_are() -> None:
    rows = [at(minute, tasks=minute, succeeded=minute - 1, gap=1) for minute in range(1, 60)]
    for width in (60, 180, 600):
        drawn = charts.bars(ledger(*rows), width)
        assert sum(bar.tasks for bar in drawn) == sum(row.tasks for row in rows)
        assert sum(bar.gap for bar in drawn) == 59
        assert len(drawn) == 3600 // width


def test_what_is_in_time_is_dashed_and_never_a_needle() -> None:
    svg = charts.gap_picture(ledger(at(59, tasks=9, succeeded=2, in_time=7)), 60)
    assert 'class="intime"' in svg
    assert needle_heights(svg, "loose") == []


def test_what_is_settled_is_hollow_and_what_is_not_is_full() -> None:
    half = charts.gap_picture(ledger(at(1, tasks=4, gap=4, settled_gap=4)), 60)
    assert half.count('class="needle loose"') == 1
    assert 'class="hollow"' in half
    assert 'class="hollow"' not in charts.gap_picture(ledger(at(1, tasks=4, gap=4)), 60)


def test_the_picture_is_well_formed_and_says_its_totals_in_words() -> None:
    svg = charts.gap_picture(ledger(at(1, tasks=1200, succeeded=1196, failed=3, gap=1)), 60)
    ElementTree.fromstring(str(svg))
    assert "1,200 tasks began: 1,196 succeeded, 3 failed" in svg
    assert "style=" not in svg


def test_an_empty_window_is_drawn_without_a_needle() -> None:
    svg = charts.gap_picture(ledger(), 60)
    ElementTree.fromstring(str(svg))
    assert "needle" not in svg


def test_a_label_at_an_edge_is_not_clipped() -> None:
    svg = charts.gap_picture(ledger(minutes=60), 60)
    labels = re.findall(r'class="tick([^"]*)" x="([\d.]+)%"', svg)
    for kind, place in labels:
        if float(place) < 3:
            assert "start" in kind
        if float(place) > 97:
            assert "end" in kind


def test_more_bars_than_can_be_drawn_are_refused_with_the_number() -> None:
    with pytest.raises(ValueError, match="at most 600 are drawn"):
        charts.bars(ledger(minutes=1440), 60)

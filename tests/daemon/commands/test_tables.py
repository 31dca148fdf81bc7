"""Tables on terminals: nothing wider than the terminal, no id cut, nothing left out where it is a pipe."""

from __future__ import annotations

import sys

import pytest

from looseends_daemon.commands.tables import table

HEADS = ("STATE", "BEGAN (UTC)", "TOOK", "NAME", "SERVICE", "KEY", "ID", "WHY")
ID = "01a1f9a5-e815-8000-8037-fef4d25a96e1"
ROWS = [
    (
        "lost",
        "15:50:02",
        "-",
        "mail.send_welcome",
        "shop-web",
        "a@b.c",
        ID,
        "process ended without saying goodbye: killed or crashed",
    ),
    ("failed", "15:50:02", "0.4 s", "nightly.backup", "cron", None, ID, ""),
]


def shown(monkeypatch: pytest.MonkeyPatch, columns: int, terminal: bool = True) -> list[str]:
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal, raising=False)
    return table(HEADS, ROWS).splitlines()


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 160, 240])
def test_no_line_is_wider_than_the_terminal_and_every_id_is_whole(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, columns)
    assert [line for line in lines if len(line) > columns] == []
    assert "\n".join(lines).count(ID) == 2


def test_at_eighty_columns_a_row_has_a_second_line_and_at_two_hundred_none(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow, wide = shown(monkeypatch, 80), shown(monkeypatch, 200)
    assert (len(narrow), len(wide)) == (6, 3)
    assert narrow[1].split() == ["ID", "WHY"] and narrow[1].index("WHY") == narrow[3].index("process")
    assert narrow[3].endswith("…") and wide[1].endswith("killed or crashed")
    assert len({line.index(word) for line, word in zip(wide, ("ID ", ID, ID), strict=True)}) == 1


def test_a_pipe_gets_every_row_on_one_line_with_nothing_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown(monkeypatch, 40, terminal=False)
    assert len(lines) == 3 and lines[1].endswith("killed or crashed")

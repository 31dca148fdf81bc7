"""Figures of speed are printed by benchmarks and by nobody else: docs/performance.md is put together from bench/results."""

from __future__ import annotations

import re
import runpy
from collections.abc import Iterator

import pytest

from harness import ROOT

MEASURED = re.compile(
    r"(?<![\w.`])(\d[\d.,]*) (µs|us|microseconds|ms|milliseconds)(?![\w`])"
    r"|(?<![\w.`])(\d[\d.,]*) ?(?:events|tasks|requests|posts)(?:/s| a second| per second)"
    r"|(?:memory|idle|RSS)[^|\n.]{0,60}[| ]+(\d[\d.,]*) ?(MiB)"
)
"""A time under a second, a rate, or an amount of memory that is in use. Times and sizes that are limits or settings are whole
seconds, or stand in code or as `500ms`."""
BOUNDS = {
    "docs/guarantees.md": {"2,000 tasks a second"},
}
"""Rates that say what is tested, not how fast it was."""


def results() -> str:
    return "\n".join(path.read_text(encoding="utf-8") for path in sorted((ROOT / "bench" / "results").glob("*.md")))


def prose(text: str) -> str:
    """A document without its blocks of code."""
    return re.sub(r"^( *)```.*?^\1```$", "", text, flags=re.MULTILINE | re.DOTALL)


def unmeasured(path: str, text: str, printed: str) -> Iterator[str]:
    """The figures of a document that no benchmark printed."""
    for found in MEASURED.finditer(prose(text)):
        number = next(group for group in found.groups() if group is not None and group[0].isdigit())
        known = re.search(rf"(?<![\d.,]){re.escape(number.rstrip('.,'))}(?![\d])", printed)
        if not known and found[0] not in BOUNDS.get(path, set()):
            yield f"{path}: {found[0].strip()}"


def test_every_figure_of_readme_and_docs_is_one_that_a_benchmark_printed() -> None:
    printed = results()
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    found = [line for path in paths for line in unmeasured(str(path.relative_to(ROOT)), path.read_text(), printed)]
    assert found == []


PLANTED = [
    "An audited call takes 1.7 µs.",
    "It answers within 0.9 ms.",
    "A core takes 98,765 events/s.",
    "It takes 98,765 events a second.",
    "| memory at the start | 54.3 MiB |",
]


@pytest.mark.parametrize("text", PLANTED)
def test_a_figure_that_nobody_printed_is_found(text: str) -> None:
    assert list(unmeasured("docs/planted.md", text, "| memory | 49.0 MiB | 12,345 events/s |"))
    assert not list(unmeasured("docs/planted.md", text, text))


def test_the_page_is_what_the_benchmarks_wrote(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    page = runpy.run_path(str(ROOT / "bench" / "collect.py"))["page"]()
    assert (ROOT / "docs" / "performance.md").read_text(encoding="utf-8") == page, "run: .venv/bin/python bench/collect.py"

"""Puts bench/results/*.md together as docs/performance.md: every figure there is one that a benchmark printed.

.venv/bin/python bench/collect.py
"""

from __future__ import annotations

import sys

from kit import ROOT

RESULTS = ROOT / "bench" / "results"
PAGE = ROOT / "docs" / "performance.md"
ORDER = ("ingest", "burst", "detection", "footprint", "soak", "scale")
HEAD = """\
# Performance

Every figure on this page was printed by a benchmark of `bench/` and put here by `bench/collect.py`: none is written by hand. Each
part names its command, so that you can run it on a machine of yours. `make bench` runs all of them in a short form.

A ratio compares two things measured in turn in one run; it says more than a figure that depends on the machine, and on what else
it did. The spread (least to most) and the number of takes (n) stand beside it. "MISSED" marks a goal that is not reached.
"""


def page() -> str:
    """The whole page."""
    found = {path.stem: path.read_text(encoding="utf-8").strip() for path in RESULTS.glob("*.md")}
    names = [*(name for name in ORDER if name in found), *sorted(name for name in found if name not in ORDER)]
    return "\n\n".join([HEAD.strip(), *(found[name] for name in names)]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.exit(0)

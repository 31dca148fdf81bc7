"""How `--help` is laid out: within the width of the terminal, with examples left as they are.

Rules: imports are made when help is asked for. Flush-left lines are prose and are filled anew; lines that are indented are
examples and stay. Every command shows one (tests/daemon/commands/test_help.py).
"""

from __future__ import annotations

import argparse

WIDTH_MAX = 100
NARROWEST = 40


class Help(argparse.HelpFormatter):
    """The formatter of every command."""

    def __init__(self, prog: str) -> None:
        import shutil

        width = max(NARROWEST, min(WIDTH_MAX, shutil.get_terminal_size().columns))
        super().__init__(prog, max_help_position=26, width=width)
        self._columns = width

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):
            self._action_max_length += 2  # argparse forgets that these are indented once more

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        import textwrap

        lines: list[str] = []
        prose: list[str] = []
        for line in [*text.splitlines(), ""]:
            if line and not line.startswith(" "):
                prose.append(line)
                continue
            if prose:
                lines += textwrap.wrap(" ".join(prose), self._columns, break_on_hyphens=False)
                prose = []
            lines.append(line)
        return "\n".join(lines).rstrip("\n")

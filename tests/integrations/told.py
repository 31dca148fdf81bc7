"""What a program under capture left in its journal: tests read it there, without a daemon."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

from harness import Process, wait_until
from looseends import journal

NOBODY = "unix:/nonexistent/looseends.sock"


class Told:
    """One task as its process left it in the journal."""

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events, self.first = events, events[0]
        self.name = str(self.first["name"])
        self.kinds = [
            ":".join([e["type"], *(str(e[more]) for more in ("reason", "handled") if more in e and e[more] is not None)])
            for e in events
        ]
        self.id, self.parent, self.args = self.first["task"], self.first.get("parent"), self.first.get("args")

    def __repr__(self) -> str:
        return f"{self.name} {self.kinds}"


class Run:
    """A program that has ended: its output, and every task it recorded, in the order they were begun."""

    def __init__(self, process: Process, spool: Path) -> None:
        self.code = process.wait()
        self.output = process.output
        by_task: dict[str, list[dict[str, Any]]] = {}
        for folder in journal.folders(str(spool)):
            orphan: Any = wait_until(functools.partial(journal.adopt, folder), "the program's children to end too")
            for batch in orphan.batches():
                for event in batch:
                    by_task.setdefault(event["task"], []).append(event)
            orphan.close()
        self.tasks = [Told(events) for events in by_task.values()]

    def of(self, name: str) -> list[Told]:
        """Tasks of this function, by the end of its name."""
        return [task for task in self.tasks if task.name == name or task.name.endswith(f".{name}")]

    def one(self, name: str) -> Told:
        """The only task of this function."""
        found = self.of(name)
        assert len(found) == 1, f"{name} is told {len(found)} times; tasks: {self.tasks}; output: {self.output}"
        return found[0]

    def kinds(self, name: str) -> list[str]:
        """What became of the only task of this function."""
        return self.one(name).kinds

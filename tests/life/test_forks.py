"""A child is another instance, however it was forked, and never touches what is its parent's."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from harness import wait_until
from looseends import forks

SERVICES = Path(__file__).with_name("services")


@pytest.mark.parametrize("how", ["works", "ends"])
def test_a_fork_in_c_that_runs_no_hook_loses_nothing_and_ends_nothing_of_its_parent(house: Any, how: str) -> None:
    parent = house.service("c_fork.py", how, stdin=True)
    parent.wait_for("forked")
    keys = {f"{who}-{n}" for who in ("before", "parent", *(["child"] if how == "works" else [])) for n in range(50)}
    found = {task["key"]: task for task in house.tasks("name:c.task")}
    assert found.keys() == keys
    assert {task["state"] for task in found.values()} == {"succeeded"}
    by = {who: {t["instance"]["pid"] for k, t in found.items() if k.startswith(who)} for who in ("before", "child", "parent")}
    assert by["before"] == by["parent"] == {parent.pid}
    assert parent.pid not in by["child"]
    [still] = house.tasks("name:c.open")
    assert (still["state"], still["verdict"]) == ("running", None), "a goodbye of the child must not end the parent's tasks"
    parent.hang_up()
    assert parent.wait() == 0


def test_the_page_is_wiped_in_a_child_and_stays_in_the_parent(processes: Any) -> None:
    source = """
import ctypes, os, sys
from looseends.forks import canary
page = canary()
child = ctypes.PyDLL(None).fork()
if child == 0:
    os._exit(page[0])
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), page[0], flush=True)
"""
    script = processes.start(sys.executable, "-c", source)
    assert script.wait() == 0
    assert script.lines == ["0 1"]


def test_where_the_system_knows_no_such_page_the_answer_is_always_yes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forks, "MADV_WIPEONFORK", 999)
    assert forks.canary()[0] == 1


def test_a_planted_client_without_the_page_loses_tasks_in_the_same_harness(house: Any, tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    blind = "import looseends.journal\nlooseends.journal.canary = lambda: b'\\1'\n"
    planted.write_text(blind + (SERVICES / "c_fork.py").read_text().replace("from __future__ import annotations\n", ""))
    service = house.processes.start(sys.executable, planted, "works", env={"LOOSEENDS_SERVICE": "planted"}, stdin=True)
    wait_until(lambda: len(house.tasks("name:c.task")) >= 50, "the first tasks")
    wait_until(lambda: house.tasks("name:c.open"), "the open task")
    keys = {task["key"] for task in house.tasks("name:c.task")}
    assert len(keys) < 150, "parent and child wrote into the same slots, and nothing was lost?"
    service.wait_for("forked", 40)  # its child, which knows nothing of the fork, waits for a thread that it does not have
    service.hang_up()
    service.wait()

"""SIGHUP: a real daemon goes on by a changed configuration, keeps the old one where the new is bad, and never stops for it."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from harness import Process, free_port, wait_until
from looseends_daemon.config import Settings, load
from looseends_daemon.reload import AT_START, OUTGOING, changed_sections, changes_outgoing, merge
from receivers import Books, Door, configuration, endpoint

PLANTED = """
import sys
from looseends_daemon.app import Daemon
async def forgets(self, settings): self.settings = settings
Daemon.adopt = forgets
from looseends.cli import main
sys.exit(main(sys.argv[1:]))
"""
"""A daemon that says it reloaded and goes on as before."""


class Running:
    """A daemon whose configuration a test changes."""

    def __init__(self, processes: Any, folder: Path, program: tuple[str, str] = ("-m", "looseends.cli")) -> None:
        self.folder, self.port = folder, free_port()
        self.file = configuration(folder, self.port)
        self.process: Process = processes.start(sys.executable, *program, "serve", "-c", self.file)
        self.process.wait_for("looseends is running", 60)
        self.door = Door(folder, self.port)

    def reload(self, text: str, expect: str) -> str:
        """Write this configuration, send SIGHUP, wait for a line that says so; returns what it said."""
        self.file.write_text(text)
        self.process.signal(signal.SIGHUP)
        return str(json.loads(self.process.wait_for(rf'^\{{.*"message": "{expect}.*', 30).string)["message"])

    def incidents(self) -> list[Any]:
        return list(self.door.ask("GET", "/api/v1/incidents")["items"])


@pytest.fixture
def running(processes: Any, state_dir: Path) -> Running:
    return Running(processes, state_dir)


def test_a_task_rule_counts_from_the_reload_on_and_no_longer_once_it_is_gone(running: Running) -> None:
    plain = running.file.read_text()
    said = running.reload(f'{plain}\n[[task]]\nmatch = "shop-web/quiet.*"\nfailures = "ledger"\n', "reloaded")
    assert said == "reloaded: task changed"
    running.door.fail(["quiet.one", "loud.one"])
    wait_until(lambda: "loud.one" in json.dumps(running.incidents()), "the incident of the other")
    assert "quiet.one" not in json.dumps(running.incidents())
    assert running.reload(plain, "reloaded") == "reloaded: task changed"
    running.door.fail(["quiet.two"])
    wait_until(lambda: "quiet.two" in json.dumps(running.incidents()), "the failure to count again")


def test_a_daemon_that_only_says_so_is_caught(processes: Any, state_dir: Path) -> None:
    with pytest.raises(AssertionError):
        test_a_task_rule_counts_from_the_reload_on_and_no_longer_once_it_is_gone(Running(processes, state_dir, ("-c", PLANTED)))


def test_a_bad_file_changes_nothing_and_is_named_with_its_line(running: Running) -> None:
    plain = running.file.read_text()
    bad = plain.replace('group_wait = "0s"', 'group_wait = "0s"\ngroup_wiat = "1s"') + '\n[log]\nlevel = "error"\n'
    line = 1 + bad.splitlines().index('group_wiat = "1s"')
    said = running.reload(bad, "reload refused")
    assert f"{running.file}:{line}: " in said
    assert "group_wait" in said.partition("did you mean")[2]
    assert "\n" not in said
    running.file.unlink()
    running.process.signal(signal.SIGHUP)
    assert "cannot be read" in running.process.wait_for("reload refused.*").group()
    assert running.reload(plain, "reloaded") == "reloaded: nothing changed", "the level of a refused file would hide this line"


def test_what_waits_for_a_restart_is_named_and_the_page_shows_what_is_in_force(running: Running) -> None:
    plain = running.file.read_text()
    text = plain.replace(f":{running.port}", f":{free_port()}").replace("ends.db", "other.db") + '\n[log]\nlevel = "debug"\n'
    said = running.reload(text, "reloaded")
    assert said == "reloaded: log changed; needs a restart, the old value stays in force: server.listen, storage.path"
    shown = running.door.ask("GET", "/api/v1/status")["configuration"]
    assert f"127.0.0.1:{running.port}" in shown
    assert "other.db" not in shown
    assert 'level = "debug"' in shown


async def test_an_endpoint_of_a_reload_hears_of_what_is_open_and_of_what_comes(processes: Any, state_dir: Path) -> None:
    running = await asyncio.to_thread(Running, processes, state_dir)
    plain = running.file.read_text()
    await asyncio.to_thread(running.door.fail, ["before"])
    await asyncio.to_thread(wait_until, running.incidents, "the first incident")
    first, second = Books(), Books()
    one = f"{plain}\n{endpoint(await first.open(), 'one')}"
    said = await asyncio.to_thread(running.reload, one, "reloaded")
    assert said == "reloaded: endpoint changed"
    await first.until(lambda books: any(b"before" in body for _, _, body in books.arrived), 20)
    await asyncio.to_thread(running.door.fail, ["between"])
    await first.until(lambda books: any(b"between" in body for _, _, body in books.arrived), 20)

    heard = len(first.arrived)
    two = f"{plain}\n{endpoint(await second.open(), 'two')}"
    await asyncio.to_thread(running.reload, two, "reloaded")
    await asyncio.to_thread(running.door.fail, ["after"])
    await second.until(lambda books: any(b"after" in body for _, _, body in books.arrived), 20)
    assert len(first.arrived) == heard, "an endpoint that is gone hears nothing more"
    assert list(await asyncio.to_thread(running.door.endpoints)) == ["two"]
    assert await asyncio.to_thread(running.process.stop) == 0
    await first.close()
    await second.close()


def test_a_storm_of_signals_is_survived_and_a_stop_goes_before_them(running: Running) -> None:
    for _ in range(200):
        running.process.signal(signal.SIGHUP)
    running.process.wait_for("reloaded: nothing changed")
    running.process.signal(signal.SIGHUP)
    running.process.signal(signal.SIGTERM)
    assert running.process.wait(20) == 0


# --- the decision -------------------------------------------------------------------------------------------------


def test_every_key_of_the_table_exists() -> None:
    for section, keys in AT_START.items():
        assert set(keys) <= set(getattr(Settings(), section).__struct_fields__), section
    assert all(hasattr(Settings(), name) for name in OUTGOING)


def test_a_merge_keeps_what_was_read_once_and_takes_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text('[server]\nlisten = ["127.0.0.1:0"]\n[alerts]\ngroup_wait = "9s"\n[heartbeat]\nevery = "7s"\n')
    old, new = load(None, {}), load(str(file), {})
    merged, waiting = merge(old, new)
    assert (merged.server, merged.alerts, waiting) == (old.server, new.alerts, ["server.listen"])
    assert changed_sections(old, merged) == ["alerts", "heartbeat"]
    assert changes_outgoing(old, merged)
    assert merge(merged, merged) == (merged, [])

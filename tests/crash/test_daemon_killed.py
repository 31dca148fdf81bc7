"""A daemon that is killed under load loses nothing it acknowledged and counts nothing twice.

Each check is proven on a daemon with the fault it looks for.
"""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import harness
from crash import books
from crash.daemons import Daemon
from crash.load import STATE_OF, Answered, Writer, post
from crash.storm import Figures, Storm

INSIDE_MIN = 5
KILLS_MAX = 100
KILLS_PLANTED = 4
SHOWN = 40
TERM_OF = {"running": "in_time"}


def struck(daemon: Daemon, seed: int, kills: int, inside: int = 0) -> Storm:
    """So many kills, and more (KILLS_MAX at most) until `inside` of them fell inside a commit; then the whole account."""
    storm = Storm(daemon, seed)
    storm.begin()
    while storm.figures.kills < kills or storm.figures.kills_inside < inside and storm.figures.kills < KILLS_MAX:
        storm.strike()
    storm.end()
    return storm


def test_a_killed_daemon_loses_nothing_it_acknowledged_and_counts_nothing_twice(
    processes: harness.Processes, state_dir: Path, port: int, kills: int, seed: int, say: Callable[[str], None]
) -> None:
    daemon = Daemon(processes, state_dir / "looseends", port)
    storm = struck(daemon, seed, kills, INSIDE_MIN)
    figures = storm.figures
    say(str(figures))
    assert not figures.lost, books.some(figures.lost)
    assert not figures.torn, books.some(figures.torn)
    assert not figures.wrong, books.some(figures.wrong)
    assert figures.kills_inside >= INSIDE_MIN, f"only {figures.kills_inside} kills fell inside a commit: kill more often"
    what_is_known_changes_nothing(storm)
    the_front_door_says_the_same(storm)
    assert daemon.stop() == 0
    assert not daemon.bad_lines, books.some(daemon.bad_lines)


def what_is_known_changes_nothing(storm: Storm) -> None:
    """Every batch that ever went unanswered, once more."""
    with storm.daemon.look() as conn:
        before = books.counted(conn), books.ledger(conn)
    for writer in storm.writers:
        again = [said for said in writer.answered if said.again]
        with contextlib.closing(writer.connect()) as connection:
            for said in again:
                _is_all_known(writer, said, post(connection, writer.plan.body(said.batch)))
    with storm.daemon.look() as conn:
        assert (books.counted(conn), books.ledger(conn)) == before


def _is_all_known(writer: Writer, said: Answered, answer: tuple[int, dict[str, object]]) -> None:
    size = len(writer.plan.told(said.batch))
    status, body = answer
    assert (status, body["accepted"], body["duplicates"]) == (200, 0, size), f"{writer.name}, batch {said.batch}: {answer}"


def the_front_door_says_the_same(storm: Storm) -> None:
    """The ledger over the API, and some tasks as they are shown."""
    expected: Counter[str] = Counter()
    for writer in storm.writers:
        expected += books.states_of(len(writer.answered))
    ledger = storm.daemon.get("ledger")
    terms = {TERM_OF.get(state, state): count for state, count in expected.items()}
    assert {term: ledger[term] for term in terms} == terms
    assert (ledger["tasks"], ledger["gap"], ledger["loose"]) == (expected.total(), 0, expected["failed"])
    chance = random.Random(storm.figures.seed)
    for _ in range(SHOWN):
        writer = chance.choice(storm.writers)
        told = chance.choice(writer.plan.told(chance.randrange(len(writer.answered))))
        shown = storm.daemon.get(f"tasks/{told.event()['task']}")
        assert shown["args"] == {"number": told.task.number}
        assert not told.end or shown["state"] == STATE_OF[told.task.end]
        assert shown["verdict"] is None and shown["flags"] == []


def planted(processes: harness.Processes, state_dir: Path, port: int, fault: str, seed: int) -> Figures:
    """What the same harness says of a daemon with a fault."""
    return struck(Daemon(processes, state_dir / "looseends", port, fault), seed, KILLS_PLANTED).figures


def test_a_daemon_that_answers_before_the_commit_is_caught(
    processes: harness.Processes, state_dir: Path, port: int, seed: int, say: Callable[[str], None]
) -> None:
    figures = planted(processes, state_dir, port, "answers-early", seed)
    say(f"planted: {figures}")
    assert figures.lost, f"an acknowledged event must have been missed; {figures}"


def test_a_daemon_that_stores_half_a_batch_is_caught(
    processes: harness.Processes, state_dir: Path, port: int, seed: int, say: Callable[[str], None]
) -> None:
    figures = planted(processes, state_dir, port, "stores-halves", seed)
    say(f"planted: {figures}")
    assert figures.torn, f"a batch must have been found torn; {figures}"
    assert not figures.lost, "this fault loses nothing"


def test_a_daemon_that_counts_a_task_in_two_terms_is_caught(
    processes: harness.Processes, state_dir: Path, port: int, seed: int
) -> None:
    figures = planted(processes, state_dir, port, "counts-again", seed)
    assert any(words.startswith("ledger cell") for words in figures.wrong), figures.wrong
    assert not figures.lost, "this fault loses nothing"

"""What a service's own tests use: the fixture, its assertions, and what they leave behind, which is nothing."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

import looseends
from looseends import testing
from looseends.lifecycle import PROCESS
from looseends.testing import recorded


@looseends.task(name="mail.send", key="order_id")
def send(order_id: int, card: str = "", fail: str = "") -> None:
    if fail:
        raise ConnectionError(fail)


def test_what_ended_well_is_found_by_name_key_and_arguments(spool: str) -> None:
    with recorded() as tasks:
        send(7)
        send(8, card="4111")
        assert [seen.key for seen in tasks.assert_finished("mail.send", times=2)] == ["7", "8"]
        [one] = tasks.assert_finished("mail.send", times=1, key=8, args={"order_id": 8})
        assert one.args["card"] == {"$t": "redacted"} and one.source == "task" and one.attempt == 1
        tasks.assert_no_loose_ends()
        tasks.assert_not_begun("mail.send", key=9)


def test_a_failure_is_found_by_its_class_or_its_words(spool: str) -> None:
    with recorded() as tasks:
        with pytest.raises(ConnectionError):
            send(7, fail="relay is down")
        for error in (None, "ConnectionError", "relay is down"):
            tasks.assert_failed("mail.send", error=error, times=1)
        with pytest.raises(AssertionError, match="failed with TimeoutError"):
            tasks.assert_failed("mail.send", error="TimeoutError")


def test_a_failed_assertion_lists_what_was_seen(spool: str) -> None:
    with recorded() as tasks:
        send(7)
        with pytest.raises(ConnectionError):
            send(8, fail="relay is down")
        with pytest.raises(AssertionError) as told:
            tasks.assert_finished("mail.send", times=2)
        assert str(told.value) == (
            "mail.send: 2 finished expected, 1 finished. Recorded of this name:\n"
            "  mail.send key=7 succeeded with order_id=7\n"
            "  mail.send key=8 failed (ConnectionError: relay is down) with order_id=8, fail='relay is down'"
        )
        with pytest.raises(
            AssertionError, match=r"mail.sned: at least one .* None of this name was recorded. Recorded instead:\n  mail.send"
        ):
            tasks.assert_finished("mail.sned")
        with pytest.raises(AssertionError, match="1 without a good end:\n  mail.send key=8 failed"):
            tasks.assert_no_loose_ends()
        with pytest.raises(AssertionError, match="with key 7 was not to begin, and did"):
            tasks.assert_not_begun("mail.send", key=7)
    with recorded() as tasks, pytest.raises(AssertionError, match="No task at all was recorded"):
        tasks.assert_finished("mail.send")


def test_a_long_list_is_cut_in_words(spool: str) -> None:
    with recorded() as tasks:
        for number in range(testing.SHOWN_MAX + 5):
            send(number)
        with pytest.raises(AssertionError, match="and 5 more"):
            tasks.assert_failed("mail.send")


async def test_work_that_runs_on_is_waited_for(spool: str) -> None:
    with recorded() as tasks:
        go = threading.Event()

        def wait() -> None:
            with looseends.track("slow"):
                go.wait(10)

        thread = threading.Thread(target=wait)
        thread.start()
        with pytest.raises(AssertionError, match="slow running"):
            tasks.assert_finished("slow", within=0.05)
        threading.Timer(0.05, go.set).start()
        tasks.assert_finished("slow", times=1, within=10)
        thread.join()


async def test_what_was_cancelled_dropped_or_never_started_is_told_apart(spool: str) -> None:
    async def sleep(name: str) -> None:
        await asyncio.sleep(60)

    with recorded() as tasks:
        begun = looseends.spawn(sleep("a"), name="begun")
        await asyncio.sleep(0.01)
        begun.cancel()
        await asyncio.wait([begun])
        tasks.assert_cancelled("begun", times=1)
        left = looseends.spawn(sleep("b"), name="left")
        await asyncio.sleep(0.01)
        waiting = looseends.spawn(sleep("c"), name="waiting")
        tasks.assert_never_started("waiting", times=1)
        PROCESS.drop_open(set())
        tasks.assert_dropped("left", reason="exit", times=1)
        tasks.assert_dropped("waiting", times=1)
        tasks.assert_never_started("waiting", times=1)
        for task in (left, waiting):
            task.cancel()
        await asyncio.wait([left, waiting])


def test_captured_work_is_seen_and_a_failure_that_was_dealt_with_is_no_loose_end(tmp_path: Path, spool: str) -> None:
    done = pytest_run(
        tmp_path,
        conftest='pytest_plugins = ["looseends.testing"]\nimport looseends; looseends.install("asyncio")',
        test_shop="""
        import asyncio, gc, pytest

        async def fails(name): raise ConnectionError(name)

        async def dealt_with():
            task = asyncio.create_task(fails("dealt with"))
            with pytest.raises(ConnectionError): await task

        async def forgotten():
            asyncio.create_task(fails("forgotten"))
            await asyncio.sleep(0.01)

        def test_dealt_with(looseends_tasks):
            asyncio.run(dealt_with())
            looseends_tasks.assert_failed("test_shop.fails", error="ConnectionError", args={"name": "dealt with"}, times=1)
            looseends_tasks.assert_no_loose_ends()

        def test_forgotten(looseends_tasks):
            asyncio.run(forgotten())
            gc.collect()
            with pytest.raises(AssertionError, match="1 without a good end"):
                looseends_tasks.assert_no_loose_ends()
        """,
    )
    assert "2 passed" in done.stdout, done.stdout


def test_an_expectation_that_nothing_met_is_a_loose_end(spool: str) -> None:
    with recorded() as tasks:
        looseends.expect("mail.send", key=7)
        tasks.assert_not_begun("mail.send")
        with pytest.raises(AssertionError, match="mail.send key=7 expected"):
            tasks.assert_no_loose_ends()
        send(8)
        with pytest.raises(AssertionError, match="key=7"):
            tasks.assert_no_loose_ends()
        send(7)
        tasks.assert_no_loose_ends()


def test_it_leaves_nothing_behind_and_the_process_is_as_it_was(
    spool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(place))
    send(1)
    journal, sender, threads = PROCESS.journal, PROCESS.sender, threading.active_count()
    with recorded() as tasks:
        send(2)
        assert threading.active_count() == threads and list(place.iterdir())
        assert [seen.key for seen in tasks.all()] == ["2"]
    assert (PROCESS.journal, PROCESS.sender) == (journal, sender)
    assert list(place.iterdir()) == []
    send(3)
    with recorded() as tasks:
        assert tasks.all() == []


def test_a_service_that_shuts_looseends_down_stays_in_the_recording(spool: str) -> None:
    with recorded() as tasks:
        send(1)
        assert looseends.flush() == 0
        looseends.shutdown()
        send(2)
        tasks.assert_finished("mail.send", times=2)
    assert not Path(spool).exists()


def test_switched_off_by_the_environment_it_records_all_the_same(spool: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOOSEENDS_DISABLED", "1")
    send(1)
    assert PROCESS.disabled
    with recorded() as tasks:
        send(2)
        tasks.assert_finished("mail.send", times=1, key=2)
    assert PROCESS.disabled and not Path(spool).exists()


def test_a_forked_childs_tasks_are_seen_once_it_has_ended(spool: str) -> None:
    with recorded() as tasks:
        send(1)
        pid = os.fork()
        if pid == 0:
            send(2)
            os._exit(0)
        os.waitpid(pid, 0)
        assert [seen.key for seen in tasks.assert_finished("mail.send", times=2)] == ["1", "2"]


def test_more_tasks_than_one_segment_holds_are_all_seen(spool: str) -> None:
    with recorded() as tasks:
        for number in range(2_000):
            send(number)
        tasks.assert_finished("mail.send", times=2_000)


def test_recordings_lie_within_one_another(spool: str) -> None:
    with recorded() as outer:
        send(1)
        with recorded() as inner:
            send(2)
            testing.assert_finished("mail.send", times=1, key=2)
        assert [seen.key for seen in inner.all()] == []
        send(3)
        testing.assert_finished("mail.send", times=2)
        assert [seen.key for seen in outer.all()] == ["1", "3"]


def test_a_task_that_outlives_its_recording_ends_in_silence(spool: str) -> None:
    from looseends import trouble

    with recorded():
        task = looseends.track("outlives")
        task.__enter__()
    task.__exit__(None, None, None)
    assert trouble.COUNTS == {}


def test_outside_a_recording_the_functions_say_what_is_missing() -> None:
    with pytest.raises(RuntimeError, match="ask for the fixture looseends_tasks"):
        testing.assert_finished("mail.send")


def pytest_run(folder: Path, *args: str, **files: str) -> subprocess.CompletedProcess[str]:
    for name, text in files.items():
        (folder / f"{name}.py").write_text(textwrap.dedent(text))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *args]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=60, env={**os.environ, "HOME": str(folder)}
    )


def test_a_project_uses_it_as_a_plugin(tmp_path: Path, spool: str) -> None:
    done = pytest_run(
        tmp_path,
        conftest='pytest_plugins = ["looseends.testing"]',
        test_shop="""
        import looseends
        from looseends.testing import assert_finished

        @looseends.task(name="a")
        def a(): ...

        def test_good(looseends_tasks):
            a()
            looseends_tasks.assert_finished("a", times=1)
            assert_finished("a")

        def test_bad(looseends_tasks):
            looseends_tasks.assert_finished("a")
        """,
    )
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    assert "AssertionError: a: at least one finished expected, none finished." in done.stdout
    assert "recording.py" not in done.stdout and "testing.py:" not in done.stdout, "the traceback ends in the test's own line"
    assert not Path(spool).exists()


def test_who_does_not_ask_for_it_pays_nothing(tmp_path: Path) -> None:
    done = pytest_run(tmp_path, test_plain="import sys\ndef test_it(): assert 'looseends' not in sys.modules")
    assert "1 passed" in done.stdout, done.stdout


def test_every_function_of_it_is_an_assertion_of_the_fixture_too() -> None:
    names = {name for name in testing.__all__ if name.startswith("assert_")}
    assert names == {name for name in dir(testing.Tasks) if name.startswith("assert_")}


def test_another_test_runner_needs_no_pytest(tmp_path: Path) -> None:
    (tmp_path / "pytest.py").write_text("raise ImportError('no pytest here')")
    code = (
        "import looseends\nfrom looseends.testing import recorded\n"
        "with recorded() as t:\n with looseends.track('a'): pass\n t.assert_finished('a')"
    )
    env: dict[str, Any] = {**os.environ, "PYTHONPATH": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], check=True, timeout=20, env=env)

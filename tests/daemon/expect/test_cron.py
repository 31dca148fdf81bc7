"""Due minutes: over changes of the clocks, after a time in which the daemon was down, and what a wrong line is told."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from itertools import islice
from pathlib import Path

import pytest

from looseends.wire import format_time, parse_time
from looseends_daemon import config
from looseends_daemon.config import Settings
from looseends_daemon.core.expect import CronRule
from looseends_daemon.core.policy import Policy
from looseends_daemon.services.expecter import CATCH_UP_S, Expecter, due_minutes
from looseends_daemon.store.connection import Database

S = 1_000_000_000


def rule(cron: str, tz: str = "UTC") -> CronRule:
    return CronRule(environment="production", service="cron", name="backup", cron=cron, tz=tz, within=60)


def minutes(cron: str, tz: str, after: str, count: int) -> list[str]:
    return [format_time(at)[:16] for at in islice(due_minutes(rule(cron, tz), parse_time(after)), count)]


def test_a_minute_is_an_instant_of_its_zone() -> None:
    assert minutes("0 2 * * *", "Europe/Berlin", "2026-01-10T12:00:00Z", 1) == ["2026-01-11T01:00"]
    assert minutes("0 2 * * *", "Europe/Berlin", "2026-07-10T12:00:00Z", 1) == ["2026-07-11T00:00"]
    assert minutes("0 2 * * *", "America/New_York", "2026-07-10T12:00:00Z", 1) == ["2026-07-11T06:00"]


def test_in_the_hour_that_is_skipped_a_daily_job_is_due_once_right_after_it() -> None:
    found = minutes("30 2 * * *", "Europe/Berlin", "2026-03-28T12:00:00Z", 2)
    assert found == ["2026-03-29T01:00", "2026-03-30T00:30"]


def test_in_the_hour_that_is_repeated_a_daily_job_is_due_once() -> None:
    found = minutes("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2)
    assert found == ["2026-10-25T00:30", "2026-10-26T01:30"]


def test_what_is_due_each_half_hour_is_due_in_both_of_the_repeated_hours() -> None:
    found = minutes("*/30 * * * *", "Europe/Berlin", "2026-10-24T23:45:00Z", 5)
    assert found == ["2026-10-25T00:00", "2026-10-25T00:30", "2026-10-25T01:00", "2026-10-25T01:30", "2026-10-25T02:00"]


def test_the_minute_itself_is_not_after_itself() -> None:
    assert minutes("0 * * * *", "UTC", "2026-11-20T14:00:00Z", 1) == ["2026-11-20T15:00"]
    assert minutes("0 * * * *", "UTC", "2026-11-20T13:59:59.5Z", 1) == ["2026-11-20T14:00"]


# --- the loop -----------------------------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Database]:
    database = await Database.open(str(folder / "x.db"))
    try:
        yield database
    finally:
        await database.close()


async def made(database: Database) -> list[str]:
    rows = await database.write(lambda conn: conn.execute("SELECT at FROM expectation ORDER BY at").fetchall())
    return [format_time(row["at"])[5:16] for row in rows]


async def test_each_due_minute_is_made_once_and_the_next_one_is_known(tmp_path: Path) -> None:
    start = parse_time("2026-11-20T14:10:00Z")
    async with opened(tmp_path) as database:
        expecter = Expecter(database, (rule("0 * * * *"),), Policy())
        assert await expecter.run_once(start) == parse_time("2026-11-20T15:00:00Z")
        assert await made(database) == [], "a new rule does not reach back"
        for later in (3000, 3001, 3002):
            assert await expecter.run_once(start + later * S) == parse_time("2026-11-20T16:00:00Z")
        assert await made(database) == ["11-20T15:00"]


async def test_minutes_of_a_time_in_which_the_daemon_was_down_are_made_at_its_return(tmp_path: Path) -> None:
    one, other = rule("0 */6 * * *"), rule("30 3 * * *")
    start = parse_time("2026-11-20T14:10:00Z")
    async with opened(tmp_path) as database:
        await Expecter(database, (one, other), Policy()).run_once(start)
    async with opened(tmp_path) as database:
        await Expecter(database, (one, other), Policy()).run_once(start + 12 * 3600 * S)
        assert await made(database) == ["11-20T18:00", "11-21T00:00"]


async def test_a_rule_that_was_taken_out_begins_anew(tmp_path: Path) -> None:
    one, other = rule("0 */6 * * *"), rule("30 3 * * *")
    start = parse_time("2026-11-20T14:10:00Z")
    async with opened(tmp_path) as database:
        for hours, rules in ((0, (one, other)), (12, (one,)), (24, (one, other))):
            await Expecter(database, rules, Policy()).run_once(start + hours * 3600 * S)
        assert await made(database) == ["11-20T18:00", "11-21T00:00", "11-21T06:00", "11-21T12:00"]


async def test_nothing_is_made_for_a_time_of_which_nobody_can_tell_any_more(tmp_path: Path) -> None:
    rules = (rule("*/10 * * * *"),)
    start = parse_time("2026-10-20T14:00:00Z")
    back = start + 30 * 86_400 * S
    async with opened(tmp_path) as database:
        await Expecter(database, rules, Policy()).run_once(start)
        expecter = Expecter(database, rules, Policy())
        passes = [await expecter.run_once(back) for _ in range(3)]
        assert len(await made(database)) == CATCH_UP_S // 600
    assert passes[0] is not None and passes[0] <= back, "in steps, each its own commit"
    assert passes[-1] == back + 600 * S


# --- the configuration ---------------------------------------------------------------------------------------------


def settings(tmp_path: Path, text: str) -> Settings:
    file = tmp_path / "config.toml"
    file.write_text(text)
    return config.load(str(file), {"HOME": str(tmp_path)})


def test_both_kinds_of_rule_are_read(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        """
        [[expect]]
        name = "backup"
        service = "cron"
        cron = "0 2 * * *"
        tz = "Europe/Berlin"
        within = "30m"
        [[expect]]
        name = "mail.send_receipt"
        after = "order.create"
        by = "key"
        within = "60s"
        environment = "staging"
        """,
    )
    (cron,) = config.cron_rules(found)
    assert (cron.service, cron.cron, cron.tz, cron.within, cron.environment) == (
        *("cron", "0 2 * * *", "Europe/Berlin", 1800.0, "production"),
    )
    (after,) = config.policy(found).after
    assert (after.after, after.by, after.within, after.environment, after.service) == (
        "order.create",
        "key",
        60.0,
        "staging",
        None,
    )


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        ('cron = "0 2 * *"\nservice = "s"', '4: expect.cron = "0 2 * *": must be five fields "minute hour day month weekday"'),
        ('cron = "0 2 30 2 *"\nservice = "s"', "of a time that comes"),
        ('cron = "61 2 * * *"\nservice = "s"', "must be five fields"),
        ('cron = "0 2 * * *"\nservice = "s"\ntz = "Berlin"', '6: expect.tz = "Berlin": must be the name of a time zone'),
        ('cron = "0 2 * * *"', "4: expect.cron needs a service: the one that is told when nothing began"),
        ("", '2: expect.name needs cron = "0 2 * * *" or after = "order.create"'),
        ('after = "a"', '4: expect.after needs by = "key", "parent" or "trace"'),
        ('after = "a"\nby = "time"', '5: expect.by = "time": must be one of "key", "parent", "trace"'),
        ('after = "a"\nby = "key"\ncron = "0 2 * * *"', "4: expect.after is set beside cron; keep one"),
        ('cron = "0 2 * * *"\nservice = "s"\nby = "key"', "6: expect.by belongs to after, not to cron"),
    ],
)
def test_a_wrong_rule_is_told_where_and_what_instead(lines: str, said: str) -> None:
    (error,) = config.check(f'[[expect]]\nname = "backup"\nwithin = "30m"\n{lines}\n')
    assert said in error, error


def test_the_same_rule_twice_is_refused_and_two_times_for_one_name_are_not() -> None:
    one = '[[expect]]\nname = "backup"\nservice = "s"\nwithin = "30m"\ncron = "0 2 * * *"\n'
    assert config.check(one + one.replace("0 2", "0 14")) == []
    (error,) = config.check(one + one)
    assert error.endswith('7: expect.name = "backup": another one says the same')

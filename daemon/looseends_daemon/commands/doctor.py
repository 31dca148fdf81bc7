"""`looseends doctor`: one line per thing that can be wrong with storage, clock, disk, spools, tokens and daemon.

Rules: it reads and changes nothing, with the daemon running or not. A finding is `fine`, a `note` (nothing to do, good to know)
or `trouble` (somebody has to act); exit code 1 if anything is trouble. A check that cannot be made is trouble itself.
"""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable, Iterator
from typing import Any

from looseends import journal
from looseends.errors import LooseEndsError
from looseends.wire import NS, format_time
from looseends_daemon.commands.asking import ask
from looseends_daemon.config import Settings, retention_rules
from looseends_daemon.core.resources import Value, encode
from looseends_daemon.core.retention import forecast, size_text
from looseends_daemon.store import backup, checkup
from looseends_daemon.store.checkpoints import WAL_BYTES_MAX, wal_bytes
from looseends_daemon.store.files import holder
from looseends_daemon.store.token_file import token_path

FINE, NOTE, TROUBLE = "fine", "note", "trouble"
CLOCK_SAMPLE_S = 0.2
CLOCK_SLIP_S_MAX = 0.05
AHEAD_NS_MAX = 60 * NS
LIVE_SHOWN_MAX = 20


class Finding(Value, frozen=True):
    """What one check found: its name, how bad, in words, the way out, and the figures behind it."""

    check: str
    state: str
    words: str
    hint: str = ""
    data: Any = None


Check = Callable[[Settings], Iterator[Finding]]


def run(settings: Settings, as_json: bool) -> int:
    """Make every check and print what was found; returns the exit code."""
    found = list(examine(settings))
    bad = sum(finding.state == TROUBLE for finding in found)
    if as_json:
        print(json.dumps({"fine": not bad, "checks": encode(found)}, indent=1))
    else:
        for finding in found:
            hint = f"\n{'':20}-> {finding.hint}" if finding.hint else ""
            print(f"{finding.state:<8} {finding.check:<10} {finding.words}{hint}")
        print(f"\n{bad} in trouble" if bad else "\nnothing is wrong")
    return 1 if bad else 0


def examine(settings: Settings) -> Iterator[Finding]:
    """Every finding, in the order in which they are shown."""
    for name, check in CHECKS.items():
        try:
            yield from check(settings)
        except LooseEndsError as error:
            yield Finding(check=name, state=TROUBLE, words=str(error), hint=error.hint or "")
        except OSError as error:
            yield Finding(check=name, state=TROUBLE, words=f"cannot be looked at: {error}")


# --- the file -----------------------------------------------------------------------------------------------------


def _database(settings: Settings) -> Iterator[Finding]:
    path = settings.storage.path
    with backup.reading(path) as conn:
        version, known = checkup.schema_version(conn)
        missing = checkup.missing_schema(conn) if version == known else []
    words = f"{path}, schema {version}"
    if version != known:
        hint = "start `looseends serve` once" if version < known else "upgrade looseends"
        yield Finding(check="database", state=TROUBLE, words=f"{words}, while this looseends has {known}", hint=hint)
    elif missing:
        yield Finding(check="database", state=TROUBLE, words=f"{words}, without {', '.join(missing)}", hint="restore a backup")
    else:
        yield Finding(check="database", state=FINE, words=words, data={"path": path, "schema": version})
    yield from _private("database", path)


def _integrity(settings: Settings) -> Iterator[Finding]:
    with backup.reading(settings.storage.path) as conn:
        damage = checkup.damage(conn)
    if damage:
        hint = "stop the daemon and restore a backup; keep the damaged file"
        yield Finding(check="integrity", state=TROUBLE, words="; ".join(damage), hint=hint, data=damage)
    else:
        yield Finding(check="integrity", state=FINE, words="every page is where it belongs")


def _indexes(settings: Settings) -> Iterator[Finding]:
    with backup.reading(settings.storage.path) as conn:
        slow = checkup.slow_plans(conn)
    if slow:
        yield Finding(check="indexes", state=TROUBLE, words=f"read the whole table: {', '.join(slow)}", hint="restore a backup")
    else:
        yield Finding(check="indexes", state=FINE, words=f"{len(checkup.PLANS)} questions are answered by theirs")


def _wal(settings: Settings) -> Iterator[Finding]:
    size = wal_bytes(settings.storage.path)
    words = f"{size_text(size)} of {size_text(WAL_BYTES_MAX)}"
    if size > 2 * WAL_BYTES_MAX:
        hint = "something reads the file for a long time: a backup, or a sqlite3 shell left open"
        yield Finding(check="wal", state=TROUBLE, words=f"{words}: it cannot be cut", hint=hint, data={"bytes": size})
    else:
        yield Finding(check="wal", state=FINE, words=words, data={"bytes": size})


def _disk(settings: Settings) -> Iterator[Finding]:
    rules, now = retention_rules(settings), time.time_ns()
    with backup.reading(settings.storage.path) as conn:
        sizes, growth = checkup.sizes(conn, settings.storage.path), checkup.growth(conn, now)
    ahead = forecast(sizes, rules, growth)
    level = f"levels off at about {size_text(ahead.levels_off_at)}"
    goes = level if ahead.days_left is None else f"{ahead.days_left:.1f} days left"
    if not ahead.bytes_per_task and ahead.days_left is None:
        goes = "too few tasks for a forecast"
    words = (
        f"{size_text(sizes.used)} used of {size_text(ahead.limit)}, {size_text(sizes.disk_free)} free on the disk;"
        f" grows {size_text(int(ahead.bytes_per_day))} a day, {goes}"
    )
    data = {**checkup.as_dict(sizes), **checkup.as_dict(ahead)}
    hint = "raise [storage] max_size, shorten retain_finished, or free the disk" if ahead.is_near else ""
    yield Finding(check="disk", state=TROUBLE if ahead.is_near else FINE, words=words, hint=hint, data=data)


# --- around it ----------------------------------------------------------------------------------------------------


def _clock(settings: Settings) -> Iterator[Finding]:
    wall, steady = time.time_ns(), time.monotonic_ns()
    time.sleep(CLOCK_SAMPLE_S)
    slip = abs((time.time_ns() - wall) - (time.monotonic_ns() - steady)) / NS
    with backup.reading(settings.storage.path) as conn:
        newest, skewed = checkup.newest_event_at(conn), checkup.skewed(checkup.running(conn))
    if slip > CLOCK_SLIP_S_MAX:
        words = f"the wall clock moved {slip:.2f} s against the monotonic one in {CLOCK_SAMPLE_S:g} s"
        yield Finding(check="clock", state=TROUBLE, words=words, hint="is something setting the time? see `timedatectl`")
    elif newest is not None and newest > wall + AHEAD_NS_MAX:
        words = f"the newest event arrived at {format_time(newest)}, which this clock has not reached: it was set back"
        yield Finding(check="clock", state=TROUBLE, words=words, hint="set the time of this host right")
    else:
        yield Finding(check="clock", state=FINE, words="wall and monotonic time agree")
    for one in skewed[:LIVE_SHOWN_MAX]:
        words = f"{one.service} on {one.host or 'an unnamed host'} is {one.skew:+.1f} s off; its times are corrected"
        yield Finding(check="clock", state=NOTE, words=words, data=checkup.as_dict(one))


def _spools(settings: Settings) -> Iterator[Finding]:
    served = holder(settings.storage.path) is not None
    for spool in settings.detect.spools:
        if not os.path.isdir(spool):
            words = f"{spool} is not there: no service of its user has recorded anything yet"
            yield Finding(check="spool", state=NOTE, words=words)
            continue
        yield from _private("spool", spool)
        yield _journals(spool, served)


def _journals(spool: str, served: bool) -> Finding:
    owner, me = os.stat(spool).st_uid, os.geteuid()
    if me not in (0, owner):
        hint = "run the daemon as that user, or take it out of [detect] spools"
        return Finding(check="spool", state=TROUBLE, words=f"{spool} belongs to uid {owner}, this is uid {me}", hint=hint)
    folders = journal.folders(spool)
    held = [folder for folder in folders if journal.is_held(folder)]
    orphans = [folder for folder in folders if folder not in held and time.time() - os.stat(folder).st_mtime > 60]
    words = f"{spool}: {len(held)} journals of live processes, {len(orphans)} left by dead ones"
    data = {"held": len(held), "orphans": orphans[:LIVE_SHOWN_MAX]}
    if orphans and served:
        hint = "the daemon should have adopted them: its log says why not"
        return Finding(check="spool", state=TROUBLE, words=words, hint=hint, data=data)
    return Finding(check="spool", state=NOTE if orphans else FINE, words=words, data=data)


def _tokens(settings: Settings) -> Iterator[Finding]:
    path = token_path(settings.storage.path)
    with backup.reading(settings.storage.path) as conn:
        counts = checkup.token_counts(conn)
    if not os.path.lexists(path):
        yield Finding(check="tokens", state=NOTE, words=f"{path} is not there; the next start of the daemon makes a new one")
    else:
        yield from _private("tokens", path)
    words = ", ".join(f"{count} {role}" for role, count in counts.items()) or "none"
    yield Finding(check="tokens", state=FINE, words=f"hold: {words}", data=counts)


def _private(check: str, path: str) -> Iterator[Finding]:
    """Trouble where others than its owner may read; nothing where all is well."""
    facts = os.lstat(path)
    mode = stat.S_IMODE(facts.st_mode)
    if mode & 0o077:
        right = "700" if stat.S_ISDIR(facts.st_mode) else "600"
        hint = f"chmod {right} {path}, and change what it holds if others use this host"
        yield Finding(check=check, state=TROUBLE, words=f"{path} has mode {mode:04o}: others may read it", hint=hint)


def _daemon(settings: Settings) -> Iterator[Finding]:
    pid = holder(settings.storage.path)
    if pid is None:
        yield Finding(check="daemon", state=NOTE, words="is not running on this database", hint="looseends serve")
        return
    ask(settings, "GET", "/readyz")
    figures = ask(settings, "GET", "/api/v1/storage")
    counts = figures.get("checkpoints", {})
    words = (
        f"runs as pid {pid} and is ready; {figures.get('commits', 0):,} commits, {counts.get('passive', 0):,} checkpoints,"
        f" {counts.get('stops', 0)} stops of the writer for one, {counts.get('blocked', 0)} put off by a reader"
    )
    yield Finding(check="daemon", state=FINE, words=words, data=figures)


def _instances(settings: Settings) -> Iterator[Finding]:
    with backup.reading(settings.storage.path) as conn:
        running = checkup.running(conn)
    if not running:
        yield Finding(check="instances", state=NOTE, words="no instance is alive")
    for one in running[:LIVE_SHOWN_MAX]:
        where = (one.host or "an unnamed host") + (f", pid {one.pid}" if one.pid else "")
        what = f"client {one.client or 'unknown'}, Python {one.python or 'unknown'}"
        words = f"{one.service} {one.release or '(no release)'}: {what}, on {where}"
        yield Finding(check="instances", state=FINE, words=words, data=checkup.as_dict(one))
    if len(running) > LIVE_SHOWN_MAX:
        yield Finding(check="instances", state=NOTE, words=f"and {len(running) - LIVE_SHOWN_MAX} more")


CHECKS: dict[str, Check] = {
    "database": _database,
    "integrity": _integrity,
    "indexes": _indexes,
    "wal": _wal,
    "disk": _disk,
    "clock": _clock,
    "spool": _spools,
    "tokens": _tokens,
    "daemon": _daemon,
    "instances": _instances,
}

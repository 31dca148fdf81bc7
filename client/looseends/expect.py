"""`expect`: "this must begin". What an early return never reached is then missed, and says so.

Rules: nothing here raises into the program. It is one record in the journal like every other, so a kill right after it loses
nothing; it ends with its own making, since whether something begins is not for this process to see.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from . import record, trouble
from .errors import UsageError
from .slots import EXPECTS
from .spec import duration
from .task import key_text, named_args, runtime_spec
from .wire import DURATION_S_MAX

WITHIN_S = 60.0


def expect(
    name: str,
    *,
    within: float | str = WITHIN_S,
    key: object = None,
    args: Mapping[str, Any] | None = None,
    redact: Iterable[str] = (),
) -> None:
    """Say that a task of this name must begin within this time ("90s", "5m", seconds), from now on. Never raises, never waits.

    key: the task must have the same one. args: what to replay it with when it is missed. What cannot be used is counted.
    """
    try:
        text, problem = ("", None) if args is None else named_args(args, redact)
        extra = {"within": _seconds(name, within), "key": None if key is None else key_text(key)}
        spec = runtime_spec(name, EXPECTS, {})
        record.end(record.begin(spec, text, problem, scheduled=True, extra=extra), None)
    except Exception as error:  # noqa: BLE001 - the one promise to every caller
        trouble.note("an expectation could not be recorded", error)


def _seconds(name: object, within: object) -> float:
    try:
        found = duration(within, f"looseends.expect({name!r}): within")
        if isinstance(found, float | int) and 0 < found <= DURATION_S_MAX:
            return float(found)
        trouble.note("an option was left out", f"looseends.expect({name!r}): within is a time that ends, such as '5m'")
    except UsageError as error:
        trouble.note("an option was left out", error)
    return WITHIN_S

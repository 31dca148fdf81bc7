"""`expect` and `expects`: "this must begin". What an early return never reached is then missed, and says so.

Rules: nothing here raises into the program. It is one record in the journal like every other, so a kill right after it loses
nothing; it ends with its own making, since whether something begins is not for this process to see.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from . import record, trouble
from .errors import UsageError
from .slots import EXPECTS
from .spec import checked_name, duration
from .task import key_text, named_args, runtime_spec
from .wire import DURATION_S_MAX

F = TypeVar("F", bound=Callable[..., Any])
WITHIN_S = 60.0
EXPECTED_OF = "__looseends_expects__"
"""The attribute of an endpoint that names what each of its requests must begin."""
NAMES_MAX = 100
_watching: list[str] = []


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


def expects(*names: str) -> Callable[[F], F]:
    """Say what each request of this endpoint must begin: `@looseends.expects("mail.send_receipt")`, above or below the route.

    A request that is answered well (status below 400) and began no task of such a name is `missed`. Needs `install("starlette")`.
    The function itself stays as it is. Raises UsageError: no names, or something that is no name, or no function.
    """
    place = "looseends.expects"
    if not 0 < len(names) <= NAMES_MAX:
        raise UsageError(f'{place} takes 1 to {NAMES_MAX} names of tasks, such as "mail.send_receipt"; it got {len(names)}')
    if len(names) == 1 and callable(names[0]):
        raise UsageError(f'{place} takes names of tasks first: @{place}("mail.send_receipt")')
    wanted = tuple(checked_name(name, place) for name in names)

    def mark(endpoint: F) -> F:
        try:
            setattr(endpoint, EXPECTED_OF, (*getattr(endpoint, EXPECTED_OF, ()), *wanted))
        except AttributeError:
            raise UsageError(f"{place} stands on an endpoint, not on {type(endpoint).__name__}") from None
        _watch()
        return endpoint

    return mark


def _watch() -> None:
    """From the first endpoint on that expects something, note what requests begin."""
    if not _watching:
        from .integrations.requests import note

        _watching.append(note.__name__)
        record.observe(note)

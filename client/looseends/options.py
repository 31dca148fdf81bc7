"""The words of a command that runs another one: our options, then theirs. Pure; argparse would cost each cron job 10 ms.

Rules: options end at `--` or at the first word that is none; what follows is not looked at. A wrong one is a UsageError that
names it and what is allowed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .errors import UsageError


def split(
    command: str, arguments: Sequence[str], known: Iterable[str], flags: Iterable[str] = ()
) -> tuple[dict[str, list[str]], list[str]]:
    """`--name value`, `--name=value` and flags -> (values by name, the words of the inner command).

    `known` take a value, `flags` none (theirs is ""). Raises UsageError.
    """
    known, flags = tuple(known), tuple(flags)
    found: dict[str, list[str]] = {}
    left = list(arguments)
    while left and left[0].startswith("-") and left[0] != "-":
        word = left.pop(0)
        if word == "--":
            break
        name, equals, value = word.partition("=")
        if name in flags and not equals:
            found.setdefault(name, []).append("")
            continue
        if name not in known:
            raise UsageError(f"looseends {command}: {unknown(name, (*known, *flags))}")
        if not equals:
            if not left or left[0] == "--":
                raise UsageError(f"looseends {command}: {name} needs a value")
            value = left.pop(0)
        found.setdefault(name, []).append(value)
    return found, left


def unknown(name: str, allowed: Sequence[str]) -> str:
    """What to say of a word nobody knows, with the nearest one that somebody does."""
    import difflib

    near = difflib.get_close_matches(name, allowed, 1)
    meant = f"; did you mean {near[0]}?" if near else f"; allowed are {', '.join(allowed)}"
    return f"there is no {name}{meant}"


def one(found: dict[str, list[str]], name: str, command: str) -> str | None:
    """The value of an option that may be given once. Raises UsageError."""
    values = found.get(name, [])
    if len(values) > 1:
        raise UsageError(f"looseends {command}: {name} was given {len(values)} times")
    if values and not values[0]:
        raise UsageError(f"looseends {command}: {name} needs a value")
    return values[0] if values else None

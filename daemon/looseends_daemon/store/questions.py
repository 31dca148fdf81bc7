"""A read written once and asked on either kind of connection.

Rules: a *question* is a generator that yields `(SQL, parameters)`, is sent the rows, and returns its answer. The writer asks it
inside its transaction (`ask`), the readers on theirs (`ask_async`), so that both are sure to decide from the same statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Sequence
from typing import Any, TypeVar

import aiosqlite

from looseends.wire import INT_MAX

T = TypeVar("T")
NO_CURSOR = "cursor is no next_cursor of this list; leave it out to begin anew"
Statement = tuple[str, Sequence[Any]]
Question = Generator[Statement, list[sqlite3.Row], T]


def ask(conn: sqlite3.Connection, question: Question[T]) -> T:
    """The answer, read on this thread."""
    try:
        statement = next(question)
        while True:
            statement = question.send(conn.execute(*statement).fetchall())
    except StopIteration as done:
        value: T = done.value
        return value


async def ask_async(conn: aiosqlite.Connection, question: Question[T]) -> T:
    """The answer, read on the connection's own thread."""
    try:
        statement = next(question)
        while True:
            statement = question.send(list(await conn.execute_fetchall(*statement)))
    except StopIteration as done:
        value: T = done.value
        return value


async def ask_apart(conn: aiosqlite.Connection, question: Question[T]) -> T:
    """The same with all its computing on that thread, not to hold up the loop: fifty tasks are 200 statements, each a hop."""
    answer: T = await conn._execute(lambda: ask(conn._conn, question))  # type: ignore[no-untyped-call]  # there is no public one
    return answer


def page_mark(cursor: str | None) -> int:
    """The row number a cursor stands for; without one, beyond every row. Raises ValueError in words for a made-up cursor."""
    if cursor is None:
        return INT_MAX
    try:
        return whole(int(cursor, 36))
    except ValueError:
        raise ValueError(NO_CURSOR) from None


def whole(number: int) -> int:
    """A number the database can hold, as every number in a cursor of ours is. Raises ValueError for others."""
    if not 0 <= number <= INT_MAX:
        raise ValueError("out of range")
    return number


def mark_of(row_no: int) -> str:
    """The cursor that goes on after this row."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    text = ""
    while row_no:
        row_no, digit = divmod(row_no, 36)
        text = digits[digit] + text
    return text or "0"

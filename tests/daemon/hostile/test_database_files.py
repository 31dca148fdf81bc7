"""Paths nobody should give as a database: one sentence at once, never a traceback, never a wait without end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from looseends_daemon.store.connection import Database, StoreError
from looseends_daemon.store.token_file import ensure_operator_token, token_path


async def refused(path: Path) -> str:
    with pytest.raises(StoreError) as caught:
        async with asyncio.timeout(5):
            await Database.open(str(path))
    return str(caught.value)


async def test_a_pipe_for_a_database_is_refused_at_once(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.db"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDWR | os.O_NONBLOCK)  # so that even a daemon that opens it ends, and the test with it
    os.write(reader, b"x" * 100)
    try:
        assert "no regular file" in await refused(pipe)
    finally:
        os.close(reader)


async def test_a_second_daemon_is_refused_whatever_link_it_came_by(tmp_path: Path) -> None:
    first = await Database.open(str(tmp_path / "x.db"))
    (tmp_path / "link.db").symlink_to("x.db")
    try:
        assert "already served" in await refused(tmp_path / "link.db")
    finally:
        await first.close()


async def test_a_folder_in_the_way_of_a_new_database_is_said(tmp_path: Path) -> None:
    (tmp_path / "x.db.new").mkdir()
    assert "cannot be made" in await refused(tmp_path / "x.db")


async def test_a_folder_in_the_place_of_the_operator_token_is_said(tmp_path: Path) -> None:
    database = await Database.open(str(tmp_path / "x.db"))
    path = token_path(database.path)
    os.mkdir(path)
    try:
        with pytest.raises(StoreError, match="no regular file"):
            await database.write(lambda conn: ensure_operator_token(conn, path, now=1))
    finally:
        await database.close()

"""Addresses: what is opened, with which rights, and what is refused in one clear sentence."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from looseends_daemon.http.errors import ListenError
from looseends_daemon.http.listen import listen


async def refusal(*addresses: str, **options: Any) -> ListenError:
    with pytest.raises(ListenError) as caught:
        await listen(web.Application(), list(addresses), **options)
    assert caught.value.hint
    return caught.value


async def test_the_unix_socket_belongs_to_its_user_from_the_first_moment(state_dir: Path) -> None:
    path = state_dir / "deep" / "er" / "s.sock"
    before = os.umask(0o022)
    try:
        listener = await listen(web.Application(), [f"unix:{path}"])
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
    mode = path.stat().st_mode
    assert stat.S_ISSOCK(mode) and stat.S_IMODE(mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert listener.addresses == [f"unix:{path}"]
    await listener.close(0.1)
    assert not path.exists()


async def test_the_socket_file_of_a_dead_daemon_is_replaced_and_a_live_one_is_not(state_dir: Path) -> None:
    path = state_dir / "s.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    listener = await listen(web.Application(), [f"unix:{path}"])
    assert "something listens there already" in str(await refusal(f"unix:{path}"))
    assert path.exists()
    await listener.close(0.1)


async def test_closing_leaves_a_socket_that_is_not_ours(state_dir: Path) -> None:
    path = state_dir / "s.sock"
    listener = await listen(web.Application(), [f"unix:{path}"])
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        await listener.close(0.1)
        assert path.exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
async def test_what_is_no_socket_is_never_removed(state_dir: Path, kind: str) -> None:
    path = state_dir / "s.sock"
    if kind == "file":
        path.write_text("mine")
    elif kind == "link":
        path.symlink_to(state_dir / "elsewhere")
    else:
        path.mkdir()
    assert "no socket" in str(await refusal(f"unix:{path}"))
    assert path.name in os.listdir(path.parent)


async def test_a_path_too_long_for_a_socket_is_said(state_dir: Path) -> None:
    assert "too long" in str(await refusal(f"unix:{state_dir}/{'x' * 120}"))


async def test_a_port_in_use_is_one_clear_error_and_nothing_stays_open(state_dir: Path, port: int) -> None:
    first = await listen(web.Application(), [f"127.0.0.1:{port}"])
    error = await refusal(f"unix:{state_dir}/s.sock", f"127.0.0.1:{port}")
    assert f"cannot listen on 127.0.0.1:{port}" in str(error) and "something listens there already" in error.hint
    assert not (state_dir / "s.sock").exists()
    await first.close(0.1)


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
async def test_beyond_loopback_needs_tokens_that_somebody_made(address: str) -> None:
    error = await refusal(address)
    assert "refusing to listen" in str(error)
    assert "looseends token create --role ingest --service NAME" in error.hint
    listener = await listen(web.Application(), [address], made_tokens=True)
    assert listener.addresses[0].startswith("http://")
    await listener.close(0.1)


@pytest.mark.parametrize("address", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:99999", ":80", "no such host:1"])
async def test_what_is_no_address_is_refused(address: str) -> None:
    await refusal(address)


async def test_several_addresses_are_open_at_once(state_dir: Path) -> None:
    listener = await listen(web.Application(), ["127.0.0.1:0", "[::1]:0", f"unix:{state_dir}/s.sock"])
    assert [address.partition(":")[0] for address in listener.addresses] == ["http", "http", "unix"]
    assert listener.addresses[1].startswith("http://[::1]:")
    await listener.close(0.1)

"""`looseends config check --probe`, as a person runs it."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

from standardwebhooks import Webhook as Verifier

from harness import ROOT, free_port

KEY = "whsec_" + "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="


async def check(state_dir: Path, processes: Any, text: str, *flags: str) -> tuple[int, list[str]]:
    """(exit code, lines) of `config check`."""
    file = state_dir / "config.toml"
    file.write_text(f'[server]\ninstance = "test"\n[storage]\npath = "{state_dir}/ends.db"\n{text}')

    def run() -> tuple[int, list[str]]:
        process = processes.start(sys.executable, "-m", "looseends.cli", "config", "check", *flags, file, cwd=ROOT)
        return process.wait(60), process.lines

    return await asyncio.to_thread(run)


def webhook(url: str, name: str) -> str:
    return f'[[endpoint]]\nname = "{name}"\nurl = "{url}"\nsecrets = ["{KEY}"]\ntimeout = "1s"\n'


async def test_every_endpoint_is_tried_for_real_and_the_exit_code_says_so(
    state_dir: Path, processes: Any, receivers: Any
) -> None:
    good, bad, slow = await receivers(), await receivers(), await receivers()
    bad.status, bad.body = 401, b"who are you"
    slow.behave = slow.hang
    text = webhook(good.url, "good") + webhook(bad.url, "bad") + webhook(slow.url, "slow")
    text += f'[[endpoint]]\nname = "am"\nkind = "alertmanager"\nurl = "http://127.0.0.1:{free_port()}"\n'
    text += f'[heartbeat]\nurl = "{good.url}-alive"\n'
    code, lines = await check(state_dir, processes, text, "--probe")
    said = {line.split("  ")[0].strip(): line for line in lines[1:]}
    assert code == 1
    assert "works  answered 200: thanks" in said["endpoint good"]
    assert "FAILS  answered 401: who are you" in said["endpoint bad"]
    assert "FAILS  no answer within 1 s" in said["endpoint slow"]
    assert "FAILS  cannot connect" in said["endpoint am"]
    assert "works" in said["heartbeat"]
    headers, body = next(one for one in good.requests if one[1])
    assert Verifier(KEY).verify(body.decode(), headers)["type"] == "looseends.endpoint.test"
    assert not (state_dir / "ends.db").exists(), "a probe stores nothing"


async def test_without_the_flag_nothing_is_sent_and_without_endpoints_there_is_nothing_to_try(
    state_dir: Path, processes: Any, receiver: Any
) -> None:
    assert (await check(state_dir, processes, webhook(receiver.url, "good")))[0] == 0
    assert receiver.requests == []
    code, lines = await check(state_dir, processes, "", "--probe")
    assert (code, lines[-1]) == (0, "nothing to probe: there is no [[endpoint]] and no [heartbeat] url")


async def test_a_wrong_address_of_apprise_is_found_with_line_and_suggestion(state_dir: Path, processes: Any) -> None:
    code, lines = await check(state_dir, processes, '[[endpoint]]\nname = "m"\nkind = "apprise"\nurl = "slak://a/b/secret"\n')
    assert code == 2
    assert 'config.toml:8: endpoint.url begins with slak://, which Apprise does not know, did you mean "slack://"?' in lines[0]
    assert "secret" not in "".join(lines)

"""The texts to copy: each runs as it stands."""

from __future__ import annotations

import ast
import json
import subprocess

import pytest

from looseends import wire
from looseends_dashboard.snippets import SERVICE, Addresses, Snippets, curl, snippets

WHERE = {
    "socket and port": Addresses(http_url="http://127.0.0.1:3637", socket="/run/user/1000/looseends.sock"),
    "socket only": Addresses(http_url="", socket="/run/user/1000/with 'blank/x.sock".replace("'", "")),
    "token": Addresses(http_url="https://ends.example", token_needed=True),
}
SHOW = 'curl() { while [ $# -gt 0 ]; do [ "$1" = -d ] && printf "%s\\n" "$2"; shift; done; }\n'


def sent(block: str) -> dict[str, object]:
    """The body that a shell hands to curl when the block is pasted into it."""
    shell = subprocess.run(["sh", "-c", f"TASK=backup-1\n{SHOW}{block}"], capture_output=True, text=True, timeout=10, check=True)
    body: dict[str, object] = json.loads(shell.stdout)
    return body


@pytest.mark.parametrize("where", WHERE)
@pytest.mark.parametrize("name", ["start", "finish", "fail"])
def test_each_curl_block_sends_an_event_that_is_accepted(where: str, name: str) -> None:
    body = sent(getattr(snippets(WHERE[where]), name))
    batch = wire.check_batch(body, now=1_790_000_000 * wire.NS)
    assert (batch.rejected, batch.warnings) == ([], [])
    assert batch.events[0]["external_id"].startswith("backup-")


def test_the_same_task_is_started_finished_and_failed() -> None:
    blocks = snippets(WHERE["token"])
    now = 1_790_000_000 * wire.NS
    start = sent(blocks.start.split("\n", 1)[1])
    ids = {wire.check_batch(body, now=now).events[0]["task"] for body in (start, sent(blocks.finish), sent(blocks.fail))}
    assert len(ids) == 1


def test_the_service_is_python_and_marks_its_background_work() -> None:
    ast.parse(SERVICE)
    assert "@looseends.task(" in SERVICE and 'looseends.install("starlette")' in SERVICE


def test_the_service_is_killed_in_the_middle_of_its_task() -> None:
    shown = 'uvicorn() { exec sleep 30; }\ncurl() { :; }\nsleep() { [ "$1" = 30 ] && command sleep 30; :; }\n'
    block = snippets(WHERE["socket and port"]).run
    shell = subprocess.run(["bash", "-c", f"{shown}{block}\nwait $!"], capture_output=True, text=True, timeout=20)
    assert shell.returncode == 137, "the one killed is the service that the block started"


def all_of(blocks: Snippets) -> str:
    """Every text of the page as one."""
    return "\n".join(str(getattr(blocks, name)) for name in blocks.__struct_fields__)


def test_the_socket_is_preferred_because_it_proves_the_daemon() -> None:
    text = all_of(snippets(WHERE["socket and port"]))
    assert "LOOSEENDS_URL='unix:/run/user/1000/looseends.sock'" in text
    assert "LOOSEENDS_TOKEN" not in text


def test_a_daemon_that_asks_for_a_token_says_where_it_comes_from() -> None:
    text = all_of(snippets(WHERE["token"]))
    assert "looseends token create --role ingest" in text
    assert "https://ends.example/api/v1/events" in text


def test_a_daemon_without_a_port_is_reached_through_its_socket() -> None:
    text = all_of(snippets(WHERE["socket only"]))
    assert "--unix-socket '/run/user/1000/with blank/x.sock' http://localhost/api/v1/events" in text
    assert curl(WHERE["socket only"], "/api/v1/tasks/1").startswith("curl -sS --unix-socket '/run")


def test_the_command_to_take_along_reads_the_token_from_the_file_that_serve_made() -> None:
    told = curl(Addresses(http_url="http://127.0.0.1:3637", token_file="/var/lib/my ends/looseends.db.token"), "/api/v1/tasks/1")
    assert told == (
        "curl -sS http://127.0.0.1:3637/api/v1/tasks/1 -H \"Authorization: Bearer $(cat '/var/lib/my ends/looseends.db.token')\""
    )

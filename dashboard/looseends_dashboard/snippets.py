"""The setup page's texts to copy, filled in with this daemon's own address.

Rules: every block runs as it stands when pasted; nothing in them is secret, since a page may be seen over a shoulder.
"""

from __future__ import annotations

import shlex

from looseends_daemon.core.resources import Task, Value
from looseends_dashboard.ping_snippets import Pings, pings
from looseends_dashboard.words import visible

SERVICE = """\
import time
import looseends
from fastapi import BackgroundTasks, FastAPI

looseends.init(service="shop-web")
looseends.install("starlette")  # BackgroundTasks are seen from the moment they are scheduled
app = FastAPI()

@looseends.task(name="mail.send_welcome", deadline="30s", replay=True)
def send_welcome(email: str) -> None:
    time.sleep(20)  # long enough to be killed in the middle of it

@app.post("/register")
def register(email: str, background: BackgroundTasks) -> dict[str, bool]:
    background.add_task(send_welcome, email)
    return {"ok": True}
"""


class Addresses(Value, frozen=True):
    """Where this daemon is reached: `http_url` without a path ("" where it only has a socket), the unix socket's path,
    whether ingest over HTTP asks for a token, and the file with the operator token."""

    http_url: str
    socket: str | None = None
    token_needed: bool = False
    token_file: str = "<database>.token"


class Way(Value, frozen=True):
    """How another kind of program reports its work: what it is, in a sentence what happens, and the text to copy."""

    title: str
    words: str
    label: str
    text: str


WAYS = (
    Way(
        title="asyncio",
        words="Every create_task is seen; spawn holds on to its task, so that it cannot vanish.",
        label="worker.py",
        text="""\
import asyncio
import looseends

looseends.init(service="shop-worker")
looseends.install("asyncio")

@looseends.task(name="mail.send_receipt", deadline="30s")
async def send_receipt(order_id: int) -> None:
    await asyncio.sleep(1)

async def main() -> None:
    await looseends.spawn(send_receipt(42))

asyncio.run(main())
""",
    ),
    Way(
        title="Threads and pools",
        words="Every thread, timer and executor call is seen, with what it raised.",
        label="threads.py",
        text="""\
import threading
import time
import looseends

looseends.init(service="shop-threads")
looseends.install("threading", "futures")

def resize(picture: str) -> None:
    time.sleep(1)

thread = threading.Thread(target=resize, args=("cat.png",))
thread.start()
thread.join()
""",
    ),
    Way(
        title="Celery",
        words="Workers and producers: what waits in the queue, what began, and what a killed worker took with it.",
        label="celery_app.py",
        text="""\
import looseends
from celery import Celery

looseends.init(service="shop-celery")
looseends.install("celery")
app = Celery("shop", broker="redis://127.0.0.1:6379/0")

@app.task(name="mail.send_receipt")
def send_receipt(order_id: int) -> None:
    ...
""",
    ),
    Way(
        title="Cron and commands",
        words="The command runs as it did before; its exit code, its last output and its absence are seen.",
        label="crontab",
        text="0 2 * * *  looseends exec --name backup.nightly --deadline 2h -- /usr/local/bin/backup.sh\n",
    ),
    Way(
        title="Any Python program, without a change",
        words="Everything it starts in the background is seen; replay needs the decorator.",
        label="Shell: instrument",
        text="looseends instrument -- uvicorn shop:app --port 8000\n",
    ),
)


class Snippets(Value, frozen=True):
    """The blocks of the setup page."""

    install: str
    service: str
    run: str
    run_note: str
    start: str
    finish: str
    fail: str
    pings: Pings
    ways: tuple[Way, ...] = WAYS


def snippets(addresses: Addresses) -> Snippets:
    """All blocks for a daemon at these addresses."""
    event = _poster(addresses)
    task = '"task":"\'"$TASK"\'","service":"shell"'
    start = f'{{"type":"started",{task},"name":"backup","deadline":5}}'
    finish = f'{{"type":"finished",{task}}}'
    fail = f'{{"type":"failed",{task},"error":{{"type":"DiskFull","message":"no space left"}}}}'
    return Snippets(
        install="pip install looseends fastapi uvicorn",
        service=SERVICE,
        run=_run(addresses),
        run_note=_run_note(addresses),
        start=f"TASK=backup-$(date +%s)\n{event} -d '{start}'",
        finish=f"{event} -d '{finish}'",
        fail=f"{event} -d '{fail}'",
        pings=pings(addresses.http_url, addresses.socket, addresses.token_needed),
    )


def curl(addresses: Addresses, path: str) -> str:
    """The command that reads a path of the API, on the daemon's host: the operator token comes from its file."""
    token = shlex.quote(addresses.token_file)
    return f'curl -sS {_target(addresses)}{path} -H "Authorization: Bearer $(cat {token})"'


def command_line(task: Task) -> str | None:
    """What `looseends exec` ran, as a shell takes it; None for other tasks. Redacted words stay redacted."""
    found = task.args.get("command") if task.source == "exec" and isinstance(task.args, dict) else None
    if not isinstance(found, list) or not found or not all(isinstance(word, str) for word in found):
        return None
    return visible(shlex.join(found))


def _target(addresses: Addresses) -> str:
    return addresses.http_url or f"--unix-socket '{addresses.socket}' http://localhost"


def _poster(addresses: Addresses) -> str:
    token = ' -H "Authorization: Bearer $LOOSEENDS_TOKEN"' if addresses.token_needed else ""
    return f"curl -sS {_target(addresses)}/api/v1/events -H 'Content-Type: application/json'{token} \\\n "


def _run(addresses: Addresses) -> str:
    url = f"unix:{addresses.socket}" if addresses.socket else addresses.http_url
    setting = f"export LOOSEENDS_URL='{url}'\n"
    token = "export LOOSEENDS_TOKEN=...   # from: looseends token create --role ingest --service shop-web\n"
    needed = token if addresses.token_needed and not addresses.socket else ""
    call = "curl -X POST 'http://127.0.0.1:8000/register?email=a@example.com'"
    return f"{setting}{needed}uvicorn shop:app --port 8000 &\nsleep 2; {call}\nsleep 1; kill -9 $!"


def _run_note(addresses: Addresses) -> str:
    killed = "The last line kills the service in the middle of its task, which is lost. Start it again to replay what was lost. "
    if addresses.socket:
        elsewhere = f" From elsewhere use {addresses.http_url} and an ingest token." if addresses.http_url else ""
        return f"{killed}Over the socket this daemon is known to be yours, so the service also takes replays from it.{elsewhere}"
    return f"{killed}Replay needs a proven daemon: give the service an ingest token (looseends token create --role ingest)."

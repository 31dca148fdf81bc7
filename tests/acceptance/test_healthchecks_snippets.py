"""What Healthchecks documents for shell and Python, run as it stands there but for the host, against a real daemon.

PING_URL is what its pages put in: an address with a UUID, or with a key and a slug. The programs that the pages run (certbot,
pg_dump) are stood in for by scripts of these names, since they must neither be installed nor do anything here.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest
from watchers import Watched, fetch

from harness import Processes

UUID = str(uuid.UUID(int=7))
CURL = {
    "curl": ("curl -m 10 --retry 5 PING_URL", ["succeeded"]),
    "silent": ("curl -fsS -m 10 --retry 5 -o /dev/null PING_URL", ["succeeded"]),
    "exit status": ("certbot renew\ncurl -m 10 --retry 5 PING_URL/$?", ["failed"]),
    "pipeline": ("set -o pipefail\nfalse | cat\ncurl -m 10 --retry 5 PING_URL/$?", ["failed"]),
    "output": ('m=$(certbot renew 2>&1)\ncurl -fsS -m 10 --retry 5 --data-raw "$m" PING_URL', ["succeeded"]),
    "output and fail": (
        "url=PING_URL\n\nm=$(certbot renew 2>&1)\n\nif [ $? -ne 0 ]; then url=$url/fail; fi\n"
        'curl -fsS --retry 3 -X POST --data-raw "$m" $url',
        ["failed"],
    ),
    "one line": (
        'm=$(certbot renew 2>&1); curl -fsS -X POST --data-raw "$m" "PING_URL$([ $? -ne 0 ] && echo -n /fail)"',
        ["failed"],
    ),
    "run ids": (
        "RID=`uuidgen`\n\n# Send a start ping, specify rid parameter:\ncurl -m 10 --retry 5 PING_URL/start?rid=$RID\n\n"
        "# Send a success ping, use the same rid parameter:\ncurl -m 10 --retry 5 PING_URL?rid=$RID",
        ["succeeded"],
    ),
    "create": ("URL=PING_URL?create=1\n\ncurl -m 10 --retry 5 $URL", ["succeeded"]),
}
PYTHON = {
    "requests": (
        'import requests\n\ntry:\n    requests.get("PING_URL", timeout=10)\nexcept requests.RequestException as e:\n'
        '    # Log ping failure here...\n    print("Ping failed: %s" % e)',
        ["succeeded"],
    ),
    "urllib": ('import urllib.request\nurllib.request.urlopen("PING_URL")', ["succeeded"]),
    "body": ('import requests\nrequests.post("PING_URL", data="temperature=-7")', ["succeeded"]),
    "start": (
        'import requests\nURL = "PING_URL"\ntry:\n    requests.get(URL + "/start", timeout=5)\n'
        "except requests.exceptions.RequestException:\n    pass\nrequests.get(URL)",
        ["succeeded"],
    ),
}
CERTBOT = "#!/bin/sh\necho renewing\necho no route to host\nexit 1\n"
UUIDGEN = f"#!{sys.executable}\nimport uuid\nprint(uuid.uuid4())\n"


@pytest.fixture(scope="module")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bin")
    for name, text in (("certbot", CERTBOT), ("uuidgen", UUIDGEN)):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    return folder


def tasks(daemon: Watched) -> list[dict[str, Any]]:
    token = (daemon.folder / "looseends.db.token").read_text().strip()
    _, body = fetch(f"{daemon.url}/api/v1/tasks", headers={"Authorization": f"Bearer {token}"})
    found: list[dict[str, Any]] = json.loads(body)["items"]
    return found


def run(command: list[str], folder: Path) -> None:
    env = {"PATH": f"{folder}:/usr/bin:/bin"}
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_the_documented_snippets_run_unchanged_but_for_the_host(state_dir: Path, processes: Processes, stand_ins: Path) -> None:
    daemon = Watched(state_dir, processes)
    wanted: dict[str, list[str]] = {}
    snippets = [(f"sh-{n}", text, "bash", states) for n, (text, states) in enumerate(CURL.values())]
    snippets += [(f"py-{n}", text, "python", states) for n, (text, states) in enumerate(PYTHON.values())]
    for slug, text, language, states in snippets:
        program = text.replace("PING_URL", f"{daemon.url}/ping/{slug}")
        run(["bash", "-c", program] if language == "bash" else [sys.executable, "-c", program], stand_ins)
        wanted[slug] = states
    run(["bash", "-c", CURL["curl"][0].replace("PING_URL", f"{daemon.url}/ping/{UUID}")], stand_ins)
    wanted[UUID] = ["succeeded"]
    found: dict[str, list[str]] = {}
    for task in tasks(daemon):
        found.setdefault(task["name"], []).append(task["state"])
    assert found == wanted
    print(f"{len(wanted)} snippets of Healthchecks' documentation, {len(tasks(daemon))} tasks, every state right")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is missing")
def test_overlapping_runs_of_the_documented_script_are_kept_apart(state_dir: Path, processes: Processes, stand_ins: Path) -> None:
    daemon = Watched(state_dir, processes)
    url = f"{daemon.url}/ping/db-backup"
    script = f"RID=`uuidgen`; curl -fsS {url}/start?rid=$RID; sleep $1; curl -fsS {url}$2?rid=$RID"
    both = " & ".join(f"(set -- {nap} {end}; {script})" for nap, end in ((0.6, "/fail"), (0.1, ""), (0.3, "/0"))) + " & wait"
    run(["bash", "-c", both], stand_ins)
    assert sorted(task["state"] for task in tasks(daemon)) == ["failed", "succeeded", "succeeded"]
    assert len({task["id"] for task in tasks(daemon)}) == 3

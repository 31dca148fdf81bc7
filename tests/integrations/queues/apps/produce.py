"""The producer: a service of its own that sends what it is told to, one JSON object a line, and answers with the job's id."""

from __future__ import annotations

import importlib
import json
import sys

import work


def main() -> None:
    app = importlib.import_module(f"{sys.argv[1]}_app")
    print("ready", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked["do"] == "send":
            answer = [app.send(asked["name"], asked["args"], asked["kwargs"], asked["delay"])]
        elif asked["do"] == "mixed":
            kinds = [work.kind_of(n, asked["dies_every"]) for n in range(asked["count"])]
            answer = [app.send("mixed", [n, kind], {}, None) for n, kind in enumerate(kinds)]
        elif asked["do"] == "own":
            answer = [app.send_own("ok", asked["job"])]
        elif asked["do"] == "unknown":
            answer = [app.send_unknown(asked["name"])]
        else:
            answer = [app.revoke(asked["job"])]
        print("answer", json.dumps(answer), flush=True)


main()

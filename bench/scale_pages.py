"""How long every page and every question takes over ten million tasks: the part of bench/scale.py that reads."""

from __future__ import annotations

import random
import statistics
from collections.abc import Iterator
from urllib.parse import quote

from company import MOST
from house import House

from looseends.wire import NS, format_time, parse_time

P95_MS_MAX = 100.0
ROUNDS = 30
WARM = 3
Line = tuple[str, str, str, bool | None]


def paths(house: House, begin: int) -> dict[str, str]:
    """Everything a person looks at, by what it is."""
    some = house.ask("/api/v1/tasks?limit=1")["items"][0]
    end = parse_time(some["began_at"]) // (60 * NS) * 60 * NS + 60 * NS
    week = f"from={format_time(end - 7 * 86_400 * NS)}&to={format_time(end)}"
    day = f"from={format_time(end - 86_400 * NS)}&to={format_time(end)}"
    hour = f"from={format_time(end - 3_600 * NS)}&to={format_time(end)}"
    loose = house.ask("/api/v1/tasks?q=is%3Aloose&limit=1")["items"][0]
    incident = house.ask("/api/v1/incidents?limit=1")["items"][0]
    instance = some["instance"]["id"]
    found = {
        "overview, 1 hour": f"/?{hour}",
        "overview, 24 hours": f"/?{day}",
        "overview, 7 days": f"/?{week}",
        "tasks, newest": "/tasks",
        "tasks, newest of a week ago": f"/tasks?to={format_time(begin + 3_600 * NS)}",
        "task": f"/tasks/{some['id']}",
        "task, a loose end": f"/tasks/{loose['id']}",
        "types, 24 hours": "/types?window=24h",
        "types, 7 days": "/types?window=7d",
        "type, 7 days": f"/types/{some['service']}/{some['name']}?window=7d",
        "incidents": "/incidents",
        "incident": f"/incidents/{incident['id']}",
        "replays": "/replays",
        "instances": "/instances",
        "instance": f"/instances/{instance}",
        "silences": "/silences",
        "endpoints": "/endpoints",
        "status": "/status",
        "audit": "/audit",
        "setup": "/setup",
        "API ledger, 7 days by ten minutes": f"/api/v1/ledger?{week}&bucket=10m",
        "API ledger, 7 days by hour, one service": f"/api/v1/ledger?{week}&bucket=1h&service=service-3",
        "API ledger, 24 hours by minute, one service": f"/api/v1/ledger?{day}&bucket=1m&service=service-3",
        "API types, 7 days": f"/api/v1/types?{week}",
        "API storage": "/api/v1/storage",
        "metrics": "/metrics",
    }
    queries = (
        *("is:loose", "is:gap", "is:open", "state:failed", "state:cancelled", "state:succeeded", "verdict:stuck", "verdict:lost"),
        *(
            f"name:{some['name']}",
            "name:service-3.job_24",
            "name:service-3.*",
            "service:service-5",
            "name:service-3.job_24 state:failed",
        ),
        *(
            f"key:order-{MOST // 2}",
            "key:order-99999*",
            f"id:{some['id']}",
            f"instance:{instance}",
            "host:host-3",
            "took:>5s",
            "took:>1h",
        ),
        *("-state:succeeded", "attempt:>1", "source:asyncio", "queue:mail", "tag.tier:gold", "is:ran_twice", "older:3d is:open"),
        *(
            "error:TimeoutError",
            "error:ValueError",
            f"args.order_id:{MOST - 777}",
            f"args.order_id:{MOST // 3}",
            "nowhere-to-be-found",
        ),
    )
    return found | {f"tasks, {query}": f"/tasks?q={quote(query)}" for query in queries}


def measure(house: House, begin: int) -> Iterator[Line]:
    """Rounds over all of them, in an order of their own each."""
    asked = paths(house, begin)
    took: dict[str, list[float]] = {what: [] for what in asked}
    line, order = house.connection(), list(asked)
    for number in range(-WARM, ROUNDS):
        random.shuffle(order)
        for what in order:
            seconds, _ = house.get(line, asked[what])
            if number >= 0:
                took[what].append(seconds * 1000)
    worst = 0.0
    for what, values in took.items():
        p50, p95 = statistics.median(values), statistics.quantiles(values, n=20)[18]
        worst = max(worst, p95)
        yield f"page: {what}", f"p50 {p50:.1f} ms, p95 {p95:.1f} ms", f"p95 {P95_MS_MAX:g} ms", p95 <= P95_MS_MAX
    yield f"slowest page, p95 (n {ROUNDS} each)", f"{worst:.1f} ms", f"{P95_MS_MAX:g} ms", worst <= P95_MS_MAX

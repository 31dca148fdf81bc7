"""Planning a replay on pages: what is chosen, what stands in the way of each task, how it is to be run; then the run itself.

Rules: nothing runs before somebody has seen the plan; every step is a plain form; what is refused is answered on the page it came
from, with nothing lost that was typed; a page shows at most ROWS_MAX tasks, however many were chosen.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from aiohttp import web

from looseends.wire import NOTE_CHARS_MAX, format_time
from looseends_daemon.core import pace
from looseends_daemon.core.orders import COUNTED
from looseends_daemon.core.plans import (
    ANSWERS,
    NAMED_TASKS_MAX,
    UNHEARD,
    Plan,
    PlanCommands,
    PlanReader,
    RunItem,
    Selection,
    Wish,
)
from looseends_daemon.core.query import QUERY_CHARS_MAX, QueryError
from looseends_daemon.core.replay import CONFIRMABLE
from looseends_daemon.core.resources import CommandRefused, Replay, Value
from looseends_dashboard import acts, asked, links, views
from looseends_dashboard.marks import Mark, spoken

if TYPE_CHECKING:
    from looseends_dashboard.site import Site

ROWS_MAX = 50
STEERS = ("pause", "resume", "cancel")
_ANSWERS = {
    "ready": Mark(glyph="✓", word="ready", kind="ended"),
    "confirm": Mark(glyph="?", word="confirm", kind="running"),
    "blocked": Mark(glyph="⊘", word="blocked", kind="failed"),
}
NUMBERS = {
    "canary": ("Canary: so many first", 0, pace.CANARY_MAX, int),
    "per_second": ("Then so many a second", pace.PER_SECOND_MIN, pace.PER_SECOND_MAX, float),
    "in_flight": ("At most so many at once", 1, pace.IN_FLIGHT_MAX, int),
    "stop_after_failures": ("Stop after so many failures (0: never)", 0, pace.STOP_AFTER_MAX, int),
}


class Field(Value, frozen=True):
    """One number of the form that starts a run."""

    name: str
    label: str
    low: float
    high: float
    value: str
    step: str


class ItemRow(Value, frozen=True):
    """One task of a run with its mark, and both sides in a few words. `id` stays the same while its order comes and goes.

    `heard`: there is a new task to look at.
    """

    id: str
    item: RunItem
    mark: Mark
    old: str
    new: str
    heard: bool


class Chosen(Value, frozen=True):
    """What a plan was made of: words, and what stands after them on the page. Times in ns."""

    words: str
    query: str | None = None
    incident: str | None = None
    from_: int | None = None
    to: int | None = None


class Planning:
    """The handlers, around the site they belong to."""

    def __init__(self, site: Site, acts: PlanCommands, reader: PlanReader) -> None:
        self.site, self.acts, self.reader = site, acts, reader

    async def new(self, request: web.Request) -> web.Response:
        """GET /replays/new?q=&from=&to=, ?task=.., ?incident=: what is chosen, before a plan is made of it."""
        typed = {name: request.query.get(name, "").strip() for name in ("q", "from", "to", "incident")}
        typed |= {name: typed[name].replace(".000000Z", "Z") for name in ("from", "to")}
        tasks = request.query.getall("task", [])[:NAMED_TASKS_MAX]
        return self._new(request, typed, tasks)

    def _new(
        self, request: web.Request, typed: dict[str, str], tasks: list[str], *, status: int = 200, problem: Any = None
    ) -> web.Response:
        return self.site.page(
            request,
            "plan_new.html",
            status=status,
            back="/replays/new",
            here="Replays",
            typed=typed,
            tasks=tasks,
            problem=problem,
        )

    async def make(self, request: web.Request) -> web.Response:
        """POST /replays/new: a plan, and its page."""
        form = await request.post()
        typed = {name: _text(form.get(name)).strip() for name in ("q", "from", "to", "incident", "args")}
        tasks = [_text(task) for task in form.getall("task", [])]
        try:
            made = await self.acts.make_plan(_selection(typed, tasks), request["actor"])
        except QueryError as error:
            return self._new(request, typed, tasks, status=422, problem=asked.query_problem(typed["q"], error))
        except asked.BadParameter as error:
            return self._new(request, typed, tasks, status=422, problem=asked.of_parameter(error))
        except CommandRefused as error:
            problem = asked.QueryProblem(title=f"{error.title}.", detail=" ".join(error.reasons))
            return self._new(request, typed, tasks, status=error.status, problem=problem)
        return acts.see(f"/plans/{quote(made.id, safe='')}")

    async def plan(self, request: web.Request) -> web.Response:
        """GET /plans/{id}?answer=&cursor=."""
        return await self._plan(request)

    async def _plan(self, request: web.Request, typed: dict[str, Any] | None = None, refused: Any = None) -> web.Response:
        plan = await self.reader.plan(request.match_info["id"])
        if plan is None:
            return self.site.missing(request, "plan")
        answer = request.query.get("answer") or None
        if answer is not None and answer not in ANSWERS:
            raise asked.BadParameter("answer", f"answer is one of {', '.join(ANSWERS)}.")
        cursor = request.query.get("cursor") or None
        page = await asked.listed(self.reader.plan_items(plan.id, answer=answer, limit=ROWS_MAX, cursor=cursor))  # type: ignore[arg-type]
        assert page is not None
        here = f"/plans/{quote(plan.id, safe='')}"
        confirm = (typed or {}).get("confirm", [])
        return self.site.page(
            request,
            "plan.html",
            status=refused.status if refused else 200,
            back=here,
            here="Replays",
            api=f"/api/v1/replay-plans/{plan.id}",
            plan=plan,
            refused=refused,
            marks=_ANSWERS,
            answer=answer,
            answers=[(word, links.address(here, {"answer": word}), plan.counts[word]) for word in ANSWERS],
            items=page.items,
            said={reason.words for reason in plan.reasons},
            first=links.address(here, {"answer": answer} if answer else {}) if cursor else None,
            next=_next(here, answer, page.next_cursor),
            fields=_fields(typed or {}),
            note=(typed or {}).get("note", ""),
            confirm=confirm,
            chosen=chosen(plan),
            again=[(name, value) for name, value in _again(plan)],
            args_text=json.dumps(plan.args, ensure_ascii=False) if plan.args is not None else "",
        )

    async def start(self, request: web.Request) -> web.Response:
        """POST /plans/{id}/run: the one run of this plan."""
        form = await request.post()
        typed: dict[str, Any] = {name: _text(form.get(name)).strip() for name in (*NUMBERS, "note", "digest")}
        typed["confirm"] = [name for name in map(_text, form.getall("confirm", [])) if name in CONFIRMABLE]
        try:
            replay = await self.acts.start_replay(_wish(request.match_info["id"], typed), request["actor"])
        except CommandRefused as error:
            if error.status == 404:
                return self.site.missing(request, "plan")
            return await self._plan(request, typed, error)
        return acts.see(f"/replays/{quote(replay.id, safe='')}")

    async def back_to_plan(self, request: web.Request) -> web.Response:
        """GET where only a form leads: back to the plan."""
        return acts.see(f"/plans/{quote(request.match_info['id'], safe='')}")

    async def steer(self, request: web.Request) -> web.Response:
        """POST /replays/{id}/steer: pause, resume or cancel."""
        replay_id, act = request.match_info["id"], _text((await request.post()).get("act"))
        try:
            if act not in STEERS:
                raise CommandRefused(422, "Nothing to do", [f"act is one of {', '.join(STEERS)}"])
            await self.acts.steer(replay_id, act, request["actor"])
        except CommandRefused as error:
            if error.status == 404:
                return self.site.missing(request, "replay")
            refused = _refused(error)
            return await self.site.replay_page(request, replay_id, refused=refused, status=error.status)
        return acts.see(f"/replays/{quote(replay_id, safe='')}")

    async def back_to_replay(self, request: web.Request) -> web.Response:
        """GET where only a form leads: back to the replay."""
        return acts.see(f"/replays/{quote(request.match_info['id'], safe='')}")


async def run_values(reader: PlanReader | None, request: web.Request, replay: Replay) -> dict[str, Any]:
    """What a replay's page shows of a planned run: its items of one state, page by page. Raises asked.BadParameter."""
    if reader is None or replay.run is None:
        return {"items": None, "state": None, "states": [], "older": None, "newest": None}
    state = request.query.get("state") or None
    if state is not None and state not in COUNTED:
        raise asked.BadParameter("state", f"state is one of {', '.join(COUNTED)}.")
    cursor = request.query.get("cursor") or None
    page = await asked.listed(reader.run_items(replay.id, state=state, limit=ROWS_MAX, cursor=cursor))  # type: ignore[arg-type]
    here = f"/replays/{quote(replay.id, safe='')}"
    only = {"state": state} if state else {}
    return {
        "items": _rows(page.items) if page else [],
        "state": state,
        "states": [(word, links.address(here, {"state": word}), n) for word, n in replay.counts.items() if n and word != "total"],
        "older": links.address(here, {**only, "cursor": page.next_cursor}) if page and page.next_cursor else None,
        "newest": links.address(here, only) if cursor else None,
    }


def _rows(items: Sequence[RunItem]) -> list[ItemRow]:
    """Each with its mark; the second order of an item stands below the first, as `n.2`."""
    rows: list[ItemRow] = []
    orders: Counter[int] = Counter()
    for item in items:
        orders[item.n] += 1
        glyph, kind, _ = views.ORDERS.get(item.state, ("⊘", "ended", ""))
        mark = Mark(glyph=glyph, word=spoken(item.state), kind=kind)
        heard = item.new is not None and item.new.state != UNHEARD
        old, new = _was(item.old), _came(item.new)
        rows.append(ItemRow(id=f"{item.n}.{orders[item.n]}", item=item, mark=mark, old=old, new=new, heard=heard))
    return rows


def _came(side: Any) -> str:
    """What came of one side: its error or its result."""
    if side is None:
        return ""
    came = side.error["message"] or side.error["type"] if side.error else side.result
    return "" if came is None else came if isinstance(came, str) else json.dumps(came, ensure_ascii=False)


def _was(side: Any) -> str:
    """How the recorded task stood, and what came of it."""
    return "" if side is None else ": ".join(filter(None, (spoken(side.verdict or side.state), _came(side))))


def _selection(typed: dict[str, str], tasks: list[str]) -> Selection:
    """What a form chose. Raises BadParameter, CommandRefused."""
    edit = acts.arguments(typed["args"]) if typed["args"] else None
    if tasks:
        return Selection(tasks=tuple(tasks), edit=edit)
    if typed["incident"]:
        return Selection(incident=typed["incident"], edit=edit)
    from_, to = asked.time_of(typed["from"], "from"), asked.time_of(typed["to"], "to")
    return Selection(q=typed["q"][: QUERY_CHARS_MAX + 1], from_=from_, to=to, edit=edit)


def _wish(plan_id: str, typed: dict[str, Any]) -> Wish:
    """What a form asked for. Raises CommandRefused 422 with what is allowed."""
    numbers: dict[str, Any] = {}
    for name, (_, low, high, kind) in NUMBERS.items():
        if typed[name]:
            try:
                numbers[name] = kind(typed[name])
            except ValueError:
                raise CommandRefused(422, "This cannot be run", [f"{spoken(name)} is a number from {low} to {high}"]) from None
    return Wish(
        plan=plan_id,
        digest=typed["digest"],
        confirm=tuple(typed["confirm"]),
        rule=pace.Rule(**numbers),
        note=typed["note"][:NOTE_CHARS_MAX],
    )


def _fields(typed: dict[str, Any]) -> list[Field]:
    usual = pace.Rule()
    return [
        Field(
            name=name,
            label=label,
            low=low,
            high=high,
            value=str(typed.get(name) or f"{getattr(usual, name):g}"),
            step="any" if kind is float else "1",
        )
        for name, (label, low, high, kind) in NUMBERS.items()
    ]


def chosen(plan: Plan) -> Chosen:
    """What a plan was made of, in words."""
    asked_for = plan.selection
    if "tasks" in asked_for:
        return Chosen(words="tasks that were picked by hand" if len(asked_for["tasks"]) > 1 else "one task")
    if "incident" in asked_for:
        return Chosen(words="the open loose ends of", incident=asked_for["incident"])
    words, query = ("what fits", asked_for["q"]) if asked_for.get("q") else ("all tasks", None)
    return Chosen(words=words, query=query, from_=asked_for.get("from_at"), to=asked_for.get("to_at"))


def _again(plan: Plan) -> list[tuple[str, str]]:
    """The hidden fields that make the same plan anew."""
    asked_for = plan.selection
    named = [("task", task) for task in asked_for.get("tasks", [])]
    window = [(name, format_time(asked_for[key])) for name, key in (("from", "from_at"), ("to", "to_at")) if key in asked_for]
    return [*named, *((name, asked_for[name]) for name in ("q", "incident") if name in asked_for), *window]


def _next(here: str, answer: str | None, cursor: str | None) -> str | None:
    if cursor is None:
        return None
    return links.address(here, {**({"answer": answer} if answer else {}), "cursor": cursor})


def _refused(error: CommandRefused) -> Any:
    from looseends_dashboard import access

    return access.refusal(error, [], "steer")


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""

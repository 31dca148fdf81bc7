"""Acts on incidents, endpoints and types over plain lists: they keep what was asked and refuse what they are told to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from looseends.wire import NS
from looseends_daemon.core.endpoints import Endpoint, Resent
from looseends_daemon.core.marks import Dismissal, Frozen, Preview, Silence
from looseends_daemon.core.resources import Actor, CommandRefused, Incident, Notice, Page
from looseends_daemon.core.task_types import TaskType, TypeStory


@dataclasses.dataclass
class FakeAlerts:
    """core/marks.Alerts over the lists of a FakeReader; acts change these lists."""

    reader: Any
    now: int = 0
    asked: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    refusal: CommandRefused | None = None

    def _ask(self, **asked: Any) -> None:
        self.asked.append(asked)
        if self.refusal is not None:
            raise self.refusal

    async def acknowledge(self, incident_id: str, actor: Actor, *, note: str, expires: float | None = None) -> Incident:
        self._ask(acknowledged=incident_id, note=note, expires=expires, actor=actor.name)
        found: Incident | None = await self.reader.incident(incident_id)
        if found is None:
            raise CommandRefused(404, "No such incident")
        return found

    async def silence(
        self, actor: Actor, *, matchers: Sequence[str], comment: str, ends_at: int, starts_at: int | None = None
    ) -> Silence:
        self._ask(silenced=list(matchers), comment=comment, ends_at=ends_at, actor=actor.name)
        made = Silence(
            id="sil_9",
            state="active",
            matchers=list(matchers),
            author=actor.name,
            comment=comment,
            created_at=self.now,
            starts_at=self.now,
            ends_at=ends_at,
        )
        self.reader.all_silences.append(made)
        return made

    async def preview_silence(self, *, matchers: Sequence[str], ends_at: int, starts_at: int | None = None) -> Preview:
        if self.refusal is not None:
            raise self.refusal
        items = self.reader.all_incidents[:2]
        return Preview(matchers=list(matchers), starts_at=self.now, ends_at=ends_at, hides=len(items), items=items)

    async def end_silence(self, silence_id: str, actor: Actor) -> Silence:
        self._ask(ended=silence_id)
        found: Silence = next(one for one in self.reader.all_silences if one.id == silence_id)
        self.reader.all_silences.remove(found)
        return found

    async def freeze(self, *, q: str | None = None, incident: str | None = None) -> Frozen:
        return Frozen(what=f"incident {incident}", digest="d" * 32, count=3)

    async def dismiss(
        self, actor: Actor, *, note: str, digest: str, q: str | None = None, incident: str | None = None
    ) -> Dismissal:
        self._ask(dismissed=incident, note=note, digest=digest)
        made = Dismissal(
            id="dis_9",
            state="done",
            at=self.now,
            by=actor.name,
            note=note,
            what=f"incident {incident}",
            digest=digest,
            total=3,
            dismissed=3,
            undone=0,
            undo_until_at=self.now + 600 * NS,
        )
        self.reader.all_dismissals.append(made)
        return made

    async def undo_dismissal(self, dismissal_id: str, actor: Actor) -> Dismissal:
        self._ask(undone=dismissal_id)
        found = await self.dismissal(dismissal_id)
        if found is None:
            raise CommandRefused(404, "No such dismissal")
        return found

    async def silences(self, state: str | None = None, limit: int = 50, cursor: str | None = None) -> Page[Silence]:
        return Page(items=[one for one in self.reader.all_silences if state in (None, one.state)][:limit])

    async def silence_of(self, silence_id: str) -> Silence | None:
        return next((one for one in self.reader.all_silences if one.id == silence_id), None)

    async def dismissals(self, limit: int = 50, cursor: str | None = None) -> Page[Dismissal]:
        return Page(items=self.reader.all_dismissals[:limit])

    async def dismissal(self, dismissal_id: str) -> Dismissal | None:
        return next((one for one in self.reader.all_dismissals if one.id == dismissal_id), None)

    async def dismissal_of(self, task_id: str) -> Dismissal | None:
        return next((one for one in self.reader.all_dismissals if one.what == f"task {task_id}"), None)


@dataclasses.dataclass
class FakeEndpoints:
    """core/endpoints.EndpointActs over the same lists."""

    reader: Any
    asked: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    async def endpoints(self) -> list[Endpoint]:
        return list(self.reader.all_endpoints)

    async def _act(self, act: str, name: str) -> Endpoint:
        self.asked.append((act, name))
        found: Endpoint | None = next((one for one in self.reader.all_endpoints if one.name == name), None)
        if found is None:
            raise CommandRefused(404, "No such endpoint", [f"there is no endpoint {name[:100]!r}"])
        return found

    async def test_endpoint(self, name: str, actor: Actor) -> Notice:
        await self._act("test", name)
        found: Notice = self.reader.all_notices[0]
        return found

    async def enable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        return await self._act("enable", name)

    async def disable_endpoint(self, name: str, actor: Actor) -> Endpoint:
        return await self._act("disable", name)

    async def resend_notice(self, notice_id: str, actor: Actor) -> Notice:
        self.asked.append(("resend", notice_id))
        found: Notice | None = await self.reader.notice(notice_id)
        if found is None:
            raise CommandRefused(404, "No such notice")
        return found

    async def resend_notices(self, from_: int, to: int, endpoint: str | None, actor: Actor) -> Resent:
        return Resent(items=[])


@dataclasses.dataclass
class FakeTypes:
    """core/task_types.Types over a list of stories."""

    reader: Any

    async def types(
        self, from_: int, to: int, *, environment: str | None = None, limit: int = 50, cursor: str | None = None
    ) -> Page[TaskType]:
        return Page(items=[story.type for story in self.reader.all_stories][:limit])

    async def type_of(self, service: str, name: str, from_: int, to: int, *, environment: str | None = None) -> TypeStory | None:
        stories: list[TypeStory] = self.reader.all_stories
        return next((one for one in stories if (one.type.service, one.type.name) == (service, name)), None)

"""The dashboard's doors, each with the role it asks for."""

from __future__ import annotations

from looseends_daemon.core.routing import Route
from looseends_dashboard import acts, assets, export, plans
from looseends_dashboard.alert_acts import AlertActs
from looseends_dashboard.alert_pages import AlertPages
from looseends_dashboard.daemon_pages import DaemonPages
from looseends_dashboard.render import render_error, render_sign_in
from looseends_dashboard.search import Search
from looseends_dashboard.site import Pages, Site
from looseends_dashboard.snippets import Addresses
from looseends_dashboard.type_pages import TypePages

__all__ = ["Addresses", "Pages", "render_error", "render_sign_in", "routes"]


def routes(pages: Pages) -> list[Route]:
    """All doors of the dashboard."""
    site = Site(pages)
    acting = acts.Acts(site)
    search = Search(site)
    alerting, typed, running = AlertPages(site), TypePages(site), DaemonPages(site)
    looks = {
        "/": site.overview,
        "/tasks": search.tasks,
        "/tasks/{id}": site.task,
        "/types": typed.listing,
        "/types/{service}/{name}": typed.one,
        "/incidents": alerting.incidents,
        "/incidents/{id}": alerting.incident,
        "/dismissals/{id}": alerting.dismissal,
        "/silences": alerting.silences,
        "/endpoints": alerting.endpoints,
        "/notices/{id}": alerting.notice,
        "/replays": site.replays,
        "/replays/{id}": site.replay,
        "/instances": running.instances,
        "/instances/{id}": running.instance,
        "/status": running.status,
        "/audit": running.audit,
        "/setup": running.setup,
    }
    looking = [
        Route(method="GET", path=path, role="viewer", handler=site.answered(handler), page=True)
        for path, handler in looks.items()
    ]
    return [
        *_planning(site, pages),
        *_alerting(AlertActs(site, alerting)),
        *looking,
        *[
            Route(method="GET", path=f"/tasks.{kind}", role="viewer", handler=site.answered(search.export), page=True)
            for kind in export.KINDS
        ],
        Route(method="GET", path="/suggest", role="viewer", handler=search.suggest),
        Route(method="POST", path="/tasks/{id}/replay", role="operator", handler=acting.replay, page=True, acts=True),
        Route(method="GET", path="/tasks/{id}/replay", role="viewer", handler=acting.back_to_task, page=True),
        Route(method="POST", path="/tasks/{id}/dismiss", role="operator", handler=acting.dismiss, page=True, acts=True),
        Route(method="GET", path="/tasks/{id}/dismiss", role="viewer", handler=acting.back_to_task, page=True),
        Route(
            method="POST",
            path="/replays/{id}/orders/{order}/resolve",
            role="operator",
            handler=acting.resolve,
            page=True,
            acts=True,
        ),
        Route(method="POST", path="/theme", role="viewer", handler=acting.theme, page=True),
        Route(method="GET", path="/static/{hash}/{name}", role="open", handler=assets.serve),
    ]


def _planning(site: Site, pages: Pages) -> list[Route]:
    """Plans and runs, where they are handed in."""
    if pages.plans is None or pages.plan_acts is None:
        return []
    doors = plans.Planning(site, pages.plan_acts, pages.plans)
    return [
        Route(method="GET", path="/replays/new", role="viewer", handler=site.answered(doors.new), page=True),
        Route(method="POST", path="/replays/new", role="operator", handler=doors.make, page=True, acts=True),
        Route(method="GET", path="/plans/{id}", role="viewer", handler=site.answered(doors.plan), page=True),
        Route(method="POST", path="/plans/{id}/run", role="operator", handler=doors.start, page=True, acts=True),
        Route(method="GET", path="/plans/{id}/run", role="viewer", handler=doors.back_to_plan, page=True),
        Route(method="POST", path="/replays/{id}/steer", role="operator", handler=doors.steer, page=True, acts=True),
        Route(method="GET", path="/replays/{id}/steer", role="viewer", handler=doors.back_to_replay, page=True),
    ]


def _alerting(acting: AlertActs) -> list[Route]:
    """The forms about incidents, silences, endpoints and notices. Each has a GET beside it that leads back, as after a reload."""
    forms = {
        "/incidents/{id}/acknowledge": acting.acknowledge,
        "/incidents/{id}/dismiss": acting.dismiss,
        "/dismissals/{id}/undo": acting.undo,
        "/silences/{id}/end": acting.end_silence,
        "/endpoints/{name}/{act}": acting.endpoint,
        "/notices/{id}/resend": acting.resend,
        "/setup/lose": acting.lose,
    }
    return [
        Route(method="POST", path="/silences", role="operator", handler=acting.silence, page=True, acts=True),
        *[Route(method="POST", path=path, role="operator", handler=act, page=True, acts=True) for path, act in forms.items()],
        *[Route(method="GET", path=path, role="viewer", handler=acting.back, page=True) for path in forms],
    ]

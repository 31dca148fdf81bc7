"""The dashboard's doors, each with the role it asks for."""

from __future__ import annotations

from looseends_daemon.core.routing import Route
from looseends_dashboard import acts, assets
from looseends_dashboard.render import render_error, render_sign_in
from looseends_dashboard.site import Pages, Site
from looseends_dashboard.snippets import Addresses

__all__ = ["Addresses", "Pages", "render_error", "render_sign_in", "routes"]


def routes(pages: Pages) -> list[Route]:
    """All doors of the dashboard."""
    site = Site(pages)
    acting = acts.Acts(site)
    looks = {
        "/": site.overview,
        "/tasks": site.tasks,
        "/tasks/{id}": site.task,
        "/incidents": site.incidents,
        "/incidents/{id}": site.incident,
        "/replays": site.replays,
        "/replays/{id}": site.replay,
        "/instances": site.instances,
        "/instances/{id}": site.instance,
        "/setup": site.setup,
    }
    looking = [
        Route(method="GET", path=path, role="viewer", handler=site.answered(handler), page=True)
        for path, handler in looks.items()
    ]
    return [
        *looking,
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

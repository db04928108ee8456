"""The dashboard: versions beside each other while they serve, by audience where asked.

    GET  /dashboard                         the page
    GET  /api/dashboard?window=day&by=version
         {"window", "by", "since", "at", "minutes", "rows": [{alias, digest, version, cohort, figures, series, held_out}]}

window: hour, day, week, month. held_out: what the newest report says of the version, {"what", "value", "low", "high", "n",
"report"}: a reward's accuracy, else a policy's win rate; null where no report does. Open to whom the operator's page is open.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from fastapi import APIRouter, Request
from sqlalchemy import Connection, select
from starlette.responses import HTMLResponse

from rlhf.people import Actor
from rlhf.serving import dashboards
from rlhf.store import Workspace
from rlhf.store.tables import reports, versions
from rlhf.web import doors
from rlhf.web.pages import render

_REPORTS = 500  # the newest ones that are looked through
_HELD_OUT = {"accuracy": "accuracy", "win_rate": "win rate"}


def routes(workspace: Workspace) -> APIRouter:
    """Look."""
    router = APIRouter()

    @router.get("/dashboard")
    def page(request: Request) -> HTMLResponse:
        actor = _looker(request)
        return render(
            request,
            "dashboard.html",
            {"may_label": "label" in actor.scopes, "has_board": doors.is_open(doors.BOARD, actor)},
        )

    @router.get("/api/dashboard")
    def figures(request: Request, window: dashboards.Window = "day", by: dashboards.By = "version") -> dict[str, Any]:
        _looker(request)
        with workspace.read() as connection:
            told = dashboards.read(connection, window, by)
            names = _names(connection, {row["digest"] for row in told["rows"]})
            held_out = _held_out(connection, names.values())
        for row in told["rows"]:
            row["version"] = names.get(row["digest"], "the bare base" if not row["digest"] else row["digest"][:12])
            row["held_out"] = held_out.get(row["version"])
        return told

    return router


def _names(connection: Connection, digests: Iterable[str]) -> dict[str, str]:
    """Digest -> name@number."""
    v = versions.c
    query = select(v.digest, v.name, v.number).where(v.digest.in_(set(digests)))
    return {row.digest: f"{row.name}@{row.number}" for row in connection.execute(query)}


def _held_out(connection: Connection, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Version -> the figure of the newest report that has one of it."""
    wanted = set(names)
    found: dict[str, dict[str, Any]] = {}
    query = select(reports.c.digest, reports.c.figures).order_by(reports.c.created_at.desc()).limit(_REPORTS)
    for digest, stored in connection.execute(query) if wanted else ():
        for name, figures in json.loads(stored).items():
            key = next((key for key in _HELD_OUT if figures.get(key) is not None), None)
            if name in wanted and name not in found and key is not None:
                low, high = figures.get(f"{key}_low"), figures.get(f"{key}_high")
                told = {"what": _HELD_OUT[key], "value": figures[key], "low": low, "high": high}
                found[name] = {**told, "n": figures.get("n"), "report": digest}
        if len(found) == len(wanted):
            break
    return found


def _looker(request: Request) -> Actor:
    actor: Actor = request.state.actor
    doors.require(doors.OPERATE, actor)
    return actor

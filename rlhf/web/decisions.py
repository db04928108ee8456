"""The regular review: what came in since the last one, what was decided, what it changed, what is overdue.

    GET  /decisions                       the page
    GET  /api/decisions                   {"review", "last", "came_in", "decided", "changed", "overdue", "may", "me", "at"}
    GET  /api/decisions/NUMBER            {"decision"}: one with its figures, gate, sign-offs and data
    POST /api/decisions/NUMBER/revoke     {why} → {"decision"}: the alias's rollback, as a decision of its own
    POST /api/reviews                     {seen, notes} → {"decision"}; seen: the number of the last decision that one has read, so
                                          that nobody holds a review of what they didn't see

Open to who has the permission `evaluate`, `promote` or `roll_back`; a review is held by who may `sign` or `promote`, and a decision
taken back by who may `roll_back`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import HTMLResponse

from rlhf.ids import now_text
from rlhf.people import Actor
from rlhf.registry import decisions
from rlhf.store import Workspace
from rlhf.web import doors, since
from rlhf.web.pages import render

_Number = Annotated[int, Path(ge=1, le=2**31 - 1)]
_Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
_Notes = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=decisions.MAX_NOTES, pattern=r"^[^\x00]*$")
]


class Held(BaseModel):
    """The body of POST /api/reviews."""

    model_config = ConfigDict(extra="forbid")

    seen: Annotated[int, Field(ge=0, le=2**31 - 1)]
    notes: _Notes


class Revoked(BaseModel):
    """The body of POST /api/decisions/NUMBER/revoke."""

    model_config = ConfigDict(extra="forbid")

    why: _Why


def routes(workspace: Workspace) -> APIRouter:
    """Look, hold a review, and take back."""
    router = APIRouter()

    @router.get("/decisions")
    def page(request: Request) -> HTMLResponse:
        actor = _looker(request)
        links = {"may_label": "label" in actor.scopes, "has_board": doors.is_open(doors.BOARD, actor)}
        return render(request, "decisions.html", links)

    @router.get("/api/decisions")
    def review(request: Request) -> dict[str, Any]:
        actor = _looker(request)
        may = {"review": doors.is_open(doors.REVIEW, actor), "revoke": "roll_back" in actor.scopes}
        told = since.gathered(workspace.as_actor(actor.name))
        return {**told, "may": [word for word, is_open in may.items() if is_open], "me": actor.name, "at": now_text()}

    @router.get("/api/decisions/{number}")
    def one(request: Request, number: _Number) -> dict[str, Any]:
        _looker(request)
        return {"decision": decisions.show(workspace, number).as_json(whole=True)}

    @router.post("/api/decisions/{number}/revoke")
    def revoke(request: Request, number: _Number, body: Revoked) -> dict[str, Any]:
        actor: Actor = request.state.actor
        actor.require("roll_back")
        moved = decisions.revoke(workspace.as_actor(actor.name), number, why=body.why)
        return {"decision": decisions.list_decisions(workspace, alias=moved.alias)[-1].as_json()}

    @router.post("/api/reviews")
    def hold(request: Request, body: Held) -> dict[str, Any]:
        actor: Actor = request.state.actor
        doors.require(doors.REVIEW, actor)
        held = decisions.hold_review(workspace.as_actor(actor.name), body.notes, seen=body.seen)
        return {"decision": held.as_json(whole=True)}

    return router


def _looker(request: Request) -> Actor:
    actor: Actor = request.state.actor
    doors.require(doors.OPERATE, actor)
    return actor

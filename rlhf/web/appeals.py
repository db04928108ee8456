"""Who is paused, and the reviewer's decision.

    GET  /appeals              the page
    GET  /api/appeals          {"paused": [{"labeler", "seq", "log": [{action, who, why, at}]}], "me"}; who appealed comes first
    POST /api/appeals/LABELER  {seen, decision: resume or uphold, why} → {"paused": false or true}; seen: the number of the last
                               entry that one has read, so that nobody decides about a text that they didn't see

Open to who has the permission `review`; nobody decides about themselves.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import HTMLResponse

from rlhf import labeling
from rlhf.people import Actor
from rlhf.store import Workspace
from rlhf.web.pages import render

_Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]


class Decided(BaseModel):
    """The body of POST /api/appeals/LABELER."""

    model_config = ConfigDict(extra="forbid")

    seen: Annotated[int, Field(ge=1, le=2**31 - 1)]
    decision: Literal["resume", "uphold"]
    why: _Why


def routes(workspace: Workspace) -> APIRouter:
    """Look, and decide."""
    router = APIRouter()

    @router.get("/appeals")
    def page(request: Request) -> HTMLResponse:
        actor = _reviewer(request)
        return render(request, "appeals.html", {"may_label": "label" in actor.scopes})

    @router.get("/api/appeals")
    def waiting(request: Request) -> dict[str, Any]:
        actor = _reviewer(request)
        logs = sorted(labeling.paused(workspace), key=lambda log: log[-1].action != "appeal")
        shown = [
            {
                "labeler": log[-1].labeler,
                "seq": log[-1].seq,
                "log": [{"action": e.action, "who": e.who, "why": e.why, "at": e.at} for e in log],
            }
            for log in logs
        ]
        return {"paused": shown, "me": actor.name}

    @router.post("/api/appeals/{labeler}")
    def decide(request: Request, labeler: str, body: Decided) -> dict[str, Any]:
        actor = _reviewer(request)
        entry = labeling.decide(workspace.as_actor(actor.name), labeler, body.decision, body.why, expect=body.seen)
        return {"paused": entry.action != "resume"}

    return router


def _reviewer(request: Request) -> Actor:
    actor: Actor = request.state.actor
    actor.require("review")
    return actor

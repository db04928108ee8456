"""The operator's page: what each alias points at, rollouts with their arms beside each other, and the way back.

    GET  /operate                           the page
    GET  /api/operate                       {"aliases": [{alias, version, digest, since, who, why, seq, back, gate, lately, effect,
                                            rollout}], "minutes", "may", "room", "at"}
    GET  /api/operate/NAME@ALIAS            {"history", "returns", "rollout"}: the newest 200 entries of each log, newest first
    POST /api/operate/NAME@ALIAS/rollback   {seen, why, to} → {"alias", "from", "to", "seq", "seconds"}
    POST /api/operate/rollouts/ID/VERB      {seen, why, arm} → {"rollout", "seconds"}; VERB: advance, pause, complete, rollback

seen: the number of the last entry that one has read, so that nobody undoes what they didn't see. Open to who has the permission
`evaluate`, `promote` or `roll_back`; what each deed takes says `rollouts.PERMISSION_OF`. A version's files are read where an alias
moves to it; torch is never loaded.
"""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import HTMLResponse

from rlhf import registry
from rlhf.ids import now_text
from rlhf.people import Actor
from rlhf.registry import aliases
from rlhf.serving import lately, rollouts
from rlhf.store import Workspace
from rlhf.web import doors, standing
from rlhf.web.pages import render

_Why = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000, pattern=r"^[^\x00]*$")]
_Seen = Annotated[int, Field(ge=1, le=2**31 - 1)]
_Word = Annotated[str, StringConstraints(min_length=1, max_length=250, pattern=r"^[^\x00]*$")]
Verb = Literal["advance", "pause", "complete", "rollback"]


class TakenBack(BaseModel):
    """The body of POST /api/operate/NAME@ALIAS/rollback. to: a version that it pointed at before; null = the one before."""

    model_config = ConfigDict(extra="forbid")

    seen: _Seen
    why: _Why
    to: _Word | None = None


class Stepped(BaseModel):
    """The body of POST /api/operate/rollouts/ID/VERB. arm: with which to complete."""

    model_config = ConfigDict(extra="forbid")

    seen: _Seen
    why: _Why
    arm: _Word | None = None


def routes(workspace: Workspace) -> APIRouter:
    """Look, take back, and step."""
    router = APIRouter()
    figures = standing.Figures(workspace)

    @router.get("/operate")
    def page(request: Request) -> HTMLResponse:
        actor = _looker(request)
        return render(
            request,
            "operate.html",
            {"may_label": "label" in actor.scopes, "has_board": doors.is_open(doors.BOARD, actor)},
        )

    @router.get("/api/operate")
    def stands(request: Request) -> dict[str, Any]:
        actor = _looker(request)
        return {
            "aliases": standing.of_all(workspace, figures),
            "minutes": lately.MINUTES,
            "may": [permission for permission in ("promote", "roll_back") if permission in actor.scopes],
            "room": figures.room().as_json(),
            "at": now_text(),
        }

    @router.get("/api/operate/{alias}")
    def one(request: Request, alias: str) -> dict[str, Any]:
        _looker(request)
        return standing.of_alias(workspace, alias)

    @router.post("/api/operate/{alias}/rollback")
    def take_back(request: Request, alias: str, body: TakenBack) -> dict[str, Any]:
        actor = _doer(request, "rollback")
        began = time.perf_counter()
        moved = aliases.roll_back(workspace.as_actor(actor.name), alias, to=body.to, why=body.why, expect=body.seen)
        seconds = time.perf_counter() - began
        left, there = (str(registry.resolve(workspace, f"sha256:{d}")) for d in (moved.from_digest, moved.to_digest))
        return {"alias": alias, "from": left, "to": there, "seq": moved.seq, "seconds": seconds}

    @router.post("/api/operate/rollouts/{rollout}/{verb}")
    def step(request: Request, rollout: str, verb: Verb, body: Stepped) -> dict[str, Any]:
        actor = _doer(request, verb)
        of_actor = workspace.as_actor(actor.name)
        began = time.perf_counter()
        if verb == "complete":
            stood = rollouts.complete(of_actor, rollout, why=body.why, arm=body.arm, expect=body.seen)
        else:
            deed = {"advance": rollouts.advance, "pause": rollouts.pause, "rollback": rollouts.roll_back}[verb]
            stood = deed(of_actor, rollout, why=body.why, expect=body.seen)
        seconds = time.perf_counter() - began
        return {"rollout": standing.of_rollout(workspace, stood), "seconds": seconds}

    return router


def _looker(request: Request) -> Actor:
    actor: Actor = request.state.actor
    doors.require(doors.OPERATE, actor)
    return actor


def _doer(request: Request, verb: Verb) -> Actor:
    actor: Actor = request.state.actor
    actor.require(rollouts.PERMISSION_OF[verb])
    return actor

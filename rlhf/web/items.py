"""A labeler's reports: sent from the pair on the screen, and what became of them.

    POST /api/items       {lease, kind, text}: kind safety or bug, of the pair that was given under the lease → {"item"}
    GET  /api/items       {"items"}: one's own, the newest first
    GET  /api/items/ID    {"item"}: one of one's own; another's, and one that never was, are the same 404

An item here has its id, kind, status, text, time and `told`: what became of it in plain words. It names no person and no pair.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints

from rlhf import board
from rlhf.errors import NotFound
from rlhf.people import Actor
from rlhf.store import Workspace

_MOST = 50
# NUL can't be stored by every database; a lone surrogate is refused by pydantic itself.
_Words = Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000, pattern=r"^[^\x00]*$")]


class Reported(BaseModel):
    """The body of POST /api/items."""

    model_config = ConfigDict(extra="forbid")

    lease: Annotated[str, StringConstraints(max_length=40)]
    kind: Literal["safety", "bug"]
    text: _Words | None = None


def routes(workspace: Workspace) -> APIRouter:
    """Report, and look."""
    router = APIRouter()

    @router.post("/api/items")
    def report(request: Request, body: Reported) -> dict[str, Any]:
        made = board.report(workspace, _labeler(request), body.lease, body.kind, body.text)
        return {"item": _told([made])[0]}

    @router.get("/api/items")
    def own(request: Request) -> dict[str, Any]:
        return {"items": _told(board.list_items(workspace, given_by=_labeler(request), limit=_MOST))}

    @router.get("/api/items/{item}")
    def one(request: Request, item: str) -> dict[str, Any]:
        found = board.list_items(workspace, given_by=_labeler(request), item=item, limit=1)
        if not found:
            raise NotFound("no report of yours has this id", fix="see your reports: GET /api/items")
        return {"item": _told(found)[0]}

    def _told(found: Any) -> list[dict[str, Any]]:
        became = board.outcomes(workspace, found)
        with workspace.read() as connection:
            return [
                {
                    "id": item.id,
                    "kind": item.kind,
                    "status": item.status,
                    "text": item.text,
                    "at": item.created_at,
                    "told": board.told(item, board.log(connection, item.id), became[item.id]),
                }
                for item in sorted(found, key=lambda item: item.id, reverse=True)
            ]

    return router


def _labeler(request: Request) -> str:
    actor: Actor = request.state.actor
    actor.require("label")
    return actor.name

"""The board: every item by impact and effort, for who reviews and for who decides what is served.

    GET  /board           the page
    GET  /api/board       ?kind=&status=&status=&held=&open= → {"items", "n_shown", "counts", "people", "me", "may_review"}
    GET  /api/board/ID    {"item", "prompt", "replies", "log", "snapshots", "versions", "told"}
    POST /api/board/ID    {seen, why, and any of kind, risk, impact, effort, status, owner, cleared} → {"item"}; seen: the number of
                          the last entry that one has read, so that nobody's change is lost; done, declined and cleared want why

Open to who has the permission `review` or `promote`; to clear what a safety item holds takes `review`, and somebody else than
who reported it.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.responses import HTMLResponse

from rlhf import board, people
from rlhf.errors import NotFound
from rlhf.people import Actor
from rlhf.store import Workspace
from rlhf.web import doors
from rlhf.web.pages import render

_MOST = 500
_SNIPPET = 300  # characters of a text that a card shows
_Scale = Annotated[int, Field(ge=1, le=5, strict=True)]


class Moved(BaseModel):
    """The body of POST /api/board/ID."""

    model_config = ConfigDict(extra="forbid")

    seen: Annotated[int, Field(ge=1, le=2**31 - 1)]
    why: Annotated[str, StringConstraints(strip_whitespace=True, max_length=2000, pattern=r"^[^\x00]*$")] | None = None
    kind: board.ItemKind | None = None
    risk: board.Risk | None = None
    impact: _Scale | None = None
    effort: _Scale | None = None
    status: board.Status | None = None
    owner: Annotated[str, StringConstraints(max_length=100)] | None = None
    cleared: Literal[True] | None = None


def routes(workspace: Workspace) -> APIRouter:
    """Look, and move."""
    router = APIRouter()

    @router.get("/board")
    def page(request: Request) -> HTMLResponse:
        actor = _mover(request)
        may = {"may_label": "label" in actor.scopes, "may_review": "review" in actor.scopes}
        return render(request, "board.html", {**may, "may_operate": doors.is_open(doors.OPERATE, actor)})

    @router.get("/api/board")
    def cards(
        request: Request,
        kind: board.ItemKind | None = None,
        status: Annotated[list[board.Status], Query(max_length=5)] = [],  # noqa: B006
        held: bool | None = None,
        open: bool | None = None,
    ) -> dict[str, Any]:
        actor = _mover(request)
        found = board.list_items(workspace, kind=kind, statuses=status, is_held=held, is_open=open, limit=_MOST)
        known = [account for account in people.list_accounts(workspace) if account.disabled_at is None]
        return {
            "items": [{**item.as_json(), "text": item.text and item.text[:_SNIPPET]} for item in found],
            "n_shown": len(found),
            "counts": board.count(workspace),
            "people": [a.name for a in known if any(word in a.permissions for word in doors.BOARD)],
            "me": actor.name,
            "may_review": "review" in actor.scopes,
        }

    @router.get("/api/board/{item}")
    def card(request: Request, item: str) -> dict[str, Any]:
        _mover(request)
        found = _item(item)
        became = board.outcomes(workspace, [found])[found.id]
        with workspace.read() as connection:
            events = board.log(connection, found.id)
            prompt, replies = board.words_about(connection, found)
        return {
            "item": found.as_json(),
            "prompt": [turn.as_json() for turn in prompt],
            "replies": list(replies),
            "log": [event.as_json() for event in events],
            **became.as_json(),
            "told": board.told(found, events, became),
        }

    @router.post("/api/board/{item}")
    def move(request: Request, item: str, body: Moved) -> dict[str, Any]:
        actor = _mover(request)
        found = _item(item)
        changes = body.model_dump(exclude_unset=True, exclude={"seen", "why"})
        if found.is_held and (body.cleared or body.kind not in (None, "safety")):
            actor.require("review")  # the token's; `change` asks the person's
        changed = board.change(workspace.as_actor(actor.name), found.id, changes, why=body.why, expect=body.seen)
        return {"item": changed.as_json()}

    def _item(item: str) -> board.Item:
        found = board.list_items(workspace, item=item, limit=1)
        if not found:
            raise NotFound("there is no such item", fix="load the board again")
        return found[0]

    return router


def _mover(request: Request) -> Actor:
    actor: Actor = request.state.actor
    doors.require(doors.BOARD, actor)
    return actor

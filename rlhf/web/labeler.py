"""The labeler's page and its API.

    GET  /               the page
    GET  /api/task       {"task": {lease, prompt, left, right, expires_at} or null, "progress": {...}}
    POST /api/judgements {lease, answer, seconds, strength, note, reason} → {"judgement", "progress"}
    POST /api/undo       {} → {"task", "progress"}
    GET  /api/progress   {"labeler", "progress": {n_done_today, n_done, n_skipped, n_left}}

A 200 to a judgement or an undo is sent after its transaction has committed: what was acknowledged is durable. The JSON
names neither the pair, nor its source, nor which reply is `a`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.responses import HTMLResponse

from rlhf import labeling
from rlhf.people import Actor
from rlhf.store import Workspace
from rlhf.web.pages import render

# NUL can't be stored by every database; a lone surrogate is refused by pydantic itself.
Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00]*$")]


class Submitted(BaseModel):
    """The body of POST /api/judgements."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lease: Annotated[str, StringConstraints(max_length=40)]
    answer: labeling.Answer
    seconds: float | None = None
    strength: int | None = None
    note: Annotated[Text, StringConstraints(max_length=4000)] | None = None
    reason: Annotated[Text, StringConstraints(max_length=500)] | None = None


def routes(workspace: Workspace, overlap: int) -> APIRouter:
    """The routes of this page. overlap: people wanted a pair."""
    router = APIRouter()

    @router.get("/")
    def page(request: Request) -> HTMLResponse:
        _labeler(request)
        return render(request, "label.html", {})

    @router.get("/api/task")
    def task(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        given = labeling.next_task(workspace, labeler, overlap=overlap)
        progress = given.progress if given else labeling.progress(workspace, labeler, overlap=overlap)
        return {"task": given.as_json() if given else None, "progress": progress.as_json()}

    @router.post("/api/judgements")
    def judge(request: Request, body: Submitted) -> dict[str, Any]:
        labeler = _labeler(request)
        judgement = labeling.answer(
            workspace,
            labeler,
            body.lease,
            body.answer,
            seconds=body.seconds,
            strength=body.strength,
            note=body.note,
            reason=body.reason,
        )
        return {"judgement": judgement, "progress": labeling.progress(workspace, labeler, overlap=overlap).as_json()}

    @router.post("/api/undo")
    def undo(request: Request) -> dict[str, Any]:
        given = labeling.undo(workspace, _labeler(request), overlap=overlap)
        return {"task": given.as_json(), "progress": given.progress.as_json()}

    @router.get("/api/progress")
    def progress(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        return {"labeler": labeler, "progress": labeling.progress(workspace, labeler, overlap=overlap).as_json()}

    return router


def _labeler(request: Request) -> str:
    """The name under which answers are kept. Raises Forbidden without the scope `label`."""
    actor: Actor = request.state.actor
    actor.require("label")
    return actor.name

"""The labeler's page and its API.

    GET  /               the page
    GET  /api/tasks/next       {"task": {lease, prompt, left, right, expires_at, nodes} or null, "progress": {...}}; nodes: the same
                         texts read as Markdown (`markdown.py`), null where one is to be shown as it is
    POST /api/judgements {lease, answer, seconds, strength, note, reason} → {"judgement", "progress"}; with next=true "task" too:
                         the next pair comes with the acknowledgement of this one
    POST /api/undo       {} → {"task", "progress"}
    POST /api/heartbeat  {lease} → {"expires_at"}: the pair stays on this labeler's screen
    GET  /api/progress   {"labeler", "progress": {n_done_today, n_done, n_skipped, n_left}}
    GET  /api/texts      {"guideline", "consent", "agreement"}
    POST /api/agree      {guideline, consent}: the digests of the texts that were read → {"agreement"}
    POST /api/withdraw   {} → {"agreement"}

Pairs are given to who has agreed to the guideline and the consent text of today; before that the answer is the error
`agreement_wanted`.

A 200 to a judgement or an undo is sent after its transaction has committed: what was acknowledged is durable. The JSON
names neither the pair, nor its source, nor which reply is `a`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.responses import HTMLResponse

from rlhf import labeling, people
from rlhf.errors import RlhfError
from rlhf.people import Actor
from rlhf.store import Workspace
from rlhf.web.markdown import nodes_of
from rlhf.web.pages import render

# NUL can't be stored by every database; a lone surrogate is refused by pydantic itself.
Text = Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[^\x00]*$")]


class AgreementWanted(RlhfError):
    """Nobody labels under texts that they haven't read."""

    code = "agreement_wanted"
    http_status = 403


class Agreed(BaseModel):
    """The body of POST /api/agree: the digests of what was read."""

    model_config = ConfigDict(extra="forbid")

    guideline: Annotated[str, StringConstraints(max_length=64)]
    consent: Annotated[str, StringConstraints(max_length=64)]


class Beat(BaseModel):
    """The body of POST /api/heartbeat."""

    model_config = ConfigDict(extra="forbid")

    lease: Annotated[str, StringConstraints(max_length=40)]


class Submitted(BaseModel):
    """The body of POST /api/judgements."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    lease: Annotated[str, StringConstraints(max_length=40)]
    answer: labeling.Answer
    seconds: float | None = None
    strength: int | None = None
    note: Annotated[Text, StringConstraints(max_length=4000)] | None = None
    reason: Annotated[Text, StringConstraints(max_length=500)] | None = None
    next: bool = False


def routes(workspace: Workspace, overlap: int) -> APIRouter:
    """The routes of this page. overlap: people wanted a pair."""
    router = APIRouter()

    @router.get("/")
    def page(request: Request) -> HTMLResponse:
        _labeler(request)
        return render(request, "label.html", {})

    @router.get("/api/tasks/next")
    def task(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        _agreement(workspace, labeler)
        return _next(labeler)

    @router.post("/api/judgements")
    def judge(request: Request, body: Submitted) -> dict[str, Any]:
        labeler = _labeler(request)
        agreed = _agreement(workspace, labeler)
        judgement = labeling.answer(
            workspace,
            labeler,
            body.lease,
            body.answer,
            seconds=body.seconds,
            strength=body.strength,
            note=body.note,
            reason=body.reason,
            guideline=agreed.guideline,
            consent=agreed.scopes,
        )
        if not body.next:
            return {
                "judgement": judgement,
                "progress": labeling.progress(workspace, labeler, overlap=overlap).as_json(),
            }
        return {"judgement": judgement, **_next(labeler)}

    @router.post("/api/undo")
    def undo(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        _agreement(workspace, labeler)
        given = labeling.undo(workspace, labeler, overlap=overlap)
        return {"task": _shown(given), "progress": given.progress.as_json()}

    @router.get("/api/progress")
    def progress(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        return {"labeler": labeler, "progress": labeling.progress(workspace, labeler, overlap=overlap).as_json()}

    def _next(labeler: str) -> dict[str, Any]:
        given = labeling.next_task(workspace, labeler, overlap=overlap)
        progress = given.progress if given else labeling.progress(workspace, labeler, overlap=overlap)
        return {"task": _shown(given) if given else None, "progress": progress.as_json()}

    @router.post("/api/heartbeat")
    def heartbeat(request: Request, body: Beat) -> dict[str, Any]:
        return {"expires_at": labeling.keep(workspace, _labeler(request), body.lease)}

    @router.get("/api/texts")
    def texts(request: Request) -> dict[str, Any]:
        guideline, consent = people.current_texts(workspace)
        with workspace.read() as connection:
            agreed = people.agreement_of(connection, _labeler(request))
        said = agreed.as_json() if agreed else None
        return {"guideline": guideline.as_json(), "consent": consent.as_json(), "agreement": said}

    @router.post("/api/agree")
    def agree(request: Request, body: Agreed) -> dict[str, Any]:
        agreed = people.agree(workspace, _labeler(request), body.guideline, body.consent)
        return {"agreement": agreed.as_json()}

    @router.post("/api/withdraw")
    def withdraw(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        return {"agreement": people.withdraw(workspace.as_actor(labeler), labeler).as_json()}

    return router


def _shown(task: labeling.Task) -> dict[str, Any]:
    nodes = {
        "prompt": [nodes_of(turn.content) for turn in task.prompt],
        "left": nodes_of(task.left),
        "right": nodes_of(task.right),
    }
    return {**task.as_json(), "nodes": nodes}


def _agreement(workspace: Workspace, labeler: str) -> people.Agreement:
    """What the labeler agreed to. Raises AgreementWanted where it isn't in force."""
    with workspace.read() as connection:
        agreed = people.agreement_of(connection, labeler)
    if agreed is None or not agreed.is_in_force:
        seen = "you have not agreed to the guidelines and the consent text"
        if agreed is not None:
            seen = (
                "you took your consent back"
                if agreed.is_withdrawn
                else "the guidelines or the consent text have changed"
            )
        raise AgreementWanted(seen, fix="read both and agree: GET /api/texts, POST /api/agree")
    return agreed


def _labeler(request: Request) -> str:
    """The name under which answers are kept. Raises Forbidden without the scope `label`."""
    actor: Actor = request.state.actor
    actor.require("label")
    return actor.name

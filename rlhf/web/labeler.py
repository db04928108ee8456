"""The labeler's page and its API.

    GET  /               the page; who doesn't label is sent to the board or the operator's page, where they may see one
    GET  /api/tasks/next       {"task": {lease, prompt, left, right, expires_at, nodes} or null, "progress": {...}}; nodes: the same
                         texts read as Markdown (`markdown.py`), null where one is to be shown as it is
    POST /api/judgements {lease, answer, seconds, strength, note, reason} → {"judgement", "progress"}; with next=true "task" too:
                         the next pair comes with the acknowledgement of this one
    POST /api/undo       {} → {"task", "progress", "before"}; before: {lease, note} of the answer that was taken back, null where
                         no lease tells of it. Its strength isn't told: kept for judgements alone, it would tell which were checks
    POST /api/heartbeat  {lease} → {"expires_at"}: the pair stays on this labeler's screen
    GET  /api/progress   {"labeler", "progress": {n_done_today, n_done, n_skipped, n_left}}
    GET  /api/texts      {"guideline", "consent", "agreement", "rules"}; rules: how pairs are asked and labelers checked, in words
    POST /api/agree      {guideline, consent}: the digests of the texts that were read → {"agreement"}
    POST /api/withdraw   {} → {"agreement"}
    GET  /api/appeal     {"pause": null, or {since, reason, appeal, decision}}: why this labeler is paused, and how that stands
    POST /api/appeal     {text} → the same

Pairs are given to who has agreed to the guideline and the consent text of today; before that the answer is the error
`agreement_wanted`. Who is paused gets the error `paused` in its place; the answer that led to it is acknowledged, with
"task" null and "paused" true. A task has "review": true where people disagree on the pair and the labeler reviews it.

A 200 to a judgement or an undo is sent after its transaction has committed: what was acknowledged is durable. The JSON
names neither the pair, nor its source, nor which reply is `a`.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, StringConstraints
from starlette.responses import RedirectResponse, Response

from rlhf import labeling, people
from rlhf.errors import RlhfError
from rlhf.people import Actor
from rlhf.store import Workspace
from rlhf.web import doors
from rlhf.web.markdown import nodes_of, readable
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


class Appealed(BaseModel):
    """The body of POST /api/appeal."""

    model_config = ConfigDict(extra="forbid")

    text: Annotated[Text, StringConstraints(min_length=1, max_length=labeling.MAX_APPEAL)]


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
    def page(request: Request) -> Response:
        actor: Actor = request.state.actor
        if "label" not in actor.scopes and (elsewhere := doors.first_page(actor)) is not None:
            return RedirectResponse(elsewhere, status_code=303)
        _labeler(request)
        return render(request, "label.html", {"has_board": doors.is_open(doors.BOARD, actor)})

    @router.get("/api/tasks/next")
    def task(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        _agreement(workspace, labeler)
        return _next(labeler, _may_review(request))

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
        try:
            return {"judgement": judgement, **_next(labeler, _may_review(request))}
        except labeling.Paused:  # this very answer was kept, and must be acknowledged
            progress = labeling.progress(workspace, labeler, overlap=overlap)
            return {"judgement": judgement, "task": None, "progress": progress.as_json(), "paused": True}

    @router.post("/api/undo")
    def undo(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        _agreement(workspace, labeler)
        given = labeling.undo(workspace, labeler, overlap=overlap)
        with workspace.read() as connection:
            before = labeling.said_before(connection, labeler, given)
        return {"task": _shown(given), "progress": given.progress.as_json(), "before": before and before.as_json()}

    @router.get("/api/progress")
    def progress(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        return {"labeler": labeler, "progress": labeling.progress(workspace, labeler, overlap=overlap).as_json()}

    def _next(labeler: str, may_review: bool) -> dict[str, Any]:
        given = labeling.next_task(workspace, labeler, overlap=overlap, may_review=may_review)
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
        rules = labeling.in_words(labeling.rules_of(workspace).rules, overlap)
        return {"guideline": readable(guideline), "consent": readable(consent), "agreement": said, "rules": rules}

    @router.post("/api/agree")
    def agree(request: Request, body: Agreed) -> dict[str, Any]:
        agreed = people.agree(workspace, _labeler(request), body.guideline, body.consent)
        return {"agreement": agreed.as_json()}

    @router.post("/api/withdraw")
    def withdraw(request: Request) -> dict[str, Any]:
        labeler = _labeler(request)
        return {"agreement": people.withdraw(workspace.as_actor(labeler), labeler).as_json()}

    @router.get("/api/appeal")
    def pause(request: Request) -> dict[str, Any]:
        return {"pause": _paused(workspace, _labeler(request))}

    @router.post("/api/appeal")
    def appeal(request: Request, body: Appealed) -> dict[str, Any]:
        labeler = _labeler(request)
        labeling.appeal(workspace, labeler, body.text)
        return {"pause": _paused(workspace, labeler)}

    return router


def _paused(workspace: Workspace, labeler: str) -> dict[str, Any] | None:
    """Why and since when, what the labeler said to it, and what a reviewer said; who decided is not told."""
    said = {entry.action: entry for entry in labeling.pause_of(workspace, labeler)}
    if not said:
        return None
    return {
        "since": said["pause"].at,
        "reason": said["pause"].why,
        "appeal": said["appeal"].why if "appeal" in said else None,
        "decision": said["uphold"].why if "uphold" in said else None,
    }


def _may_review(request: Request) -> bool:
    return "review" in request.state.actor.scopes


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

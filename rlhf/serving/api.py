"""The application: OpenAI's routes over versions, and what an operator and a monitor ask.

GET  /v1/models[/MODEL]                        aliases and versions that may be named; MODEL: a bare name or a digest, too
POST /v1/chat/completions  /v1/completions     replies, whole or by server-sent events
POST /v1/score                                 {model, prompt, reply | reply_a, reply_b} → reward, doubt, P(a beats b)
POST /v1/feedback                              what a user said of a reply, by its request id
POST /v1/aliases/NAME@ALIAS/actions/rollback   {why, to?} → {"alias", "from", "to", "seconds"}
GET  /health  /ready                           the process is alive; it takes requests, or why not. Open to everybody
GET  /metrics                                  Prometheus' text format
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, PlainTextResponse, Response

from rlhf import registry
from rlhf.errors import BadUsage, NotFound, RlhfError
from rlhf.registry import aliases
from rlhf.serving import capture, completions, metrics, readiness, scores
from rlhf.serving.asked import ChatAsked, ScoreAsked, TextAsked
from rlhf.serving.capture import FeedbackAsked
from rlhf.serving.guard import Guard
from rlhf.serving.refusals import UnknownModel, response_to
from rlhf.serving.router import DEFAULT_ALIAS
from rlhf.serving.service import Service
from rlhf.store import Workspace


class RollbackAsked(BaseModel):
    """The body of a rollback."""

    model_config = ConfigDict(extra="forbid")

    why: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1, max_length=2000)]
    to: Annotated[str, StringConstraints(max_length=300)] | None = None
    expect: int | None = Field(None, ge=0)


def create_app(
    service: Service,
    *,
    hosts: Sequence[str] = (),
    is_local: bool = True,
) -> FastAPI:
    """The ASGI application. hosts: further names by which it may be called. is_local: only this machine reaches it."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        dropped = [*service.shadows, *service.judgings]
        for task in dropped:
            task.cancel()
        await asyncio.gather(*dropped, return_exceptions=True)

    app = FastAPI(title="rlhf", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    for router in (_asking(service), _operating(service)):
        app.router.routes.extend(router.routes)  # flat, so that a test can walk them all
    for kind in (RlhfError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer_error)
    app.add_middleware(Guard, service=service, hosts=hosts, is_local=is_local)
    return app


def _asking(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": await run_in_threadpool(list_models, service)}

    @router.get("/v1/models/{model:path}")
    async def model(model: str) -> dict[str, Any]:
        return await run_in_threadpool(model_named, service, model)

    @router.post("/v1/chat/completions")
    async def chat(request: Request, asked: ChatAsked) -> Response:
        return await completions.answer(service, request, asked)

    @router.post("/v1/completions")
    async def complete(request: Request, asked: TextAsked) -> Response:
        return await completions.answer(service, request, asked)

    @router.post("/v1/score")
    async def score(request: Request, asked: ScoreAsked) -> Response:
        return await scores.answer(service, request, asked)

    @router.post("/v1/feedback")
    async def feedback(asked: FeedbackAsked) -> dict[str, Any]:
        return await capture.take(service, asked)

    return router


def _operating(service: Service) -> APIRouter:
    router = APIRouter()

    @router.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @router.get("/ready")
    async def ready() -> Response:
        told = readiness.status(service)
        return JSONResponse(told, status_code=200 if told["status"] == "ready" else 503)

    @router.get("/metrics")
    async def measured() -> Response:
        return PlainTextResponse(service.metrics.text(), media_type=metrics.TYPE)

    @router.post("/v1/aliases/{alias}/actions/rollback")
    async def rollback(request: Request, alias: str, asked: RollbackAsked) -> dict[str, Any]:
        workspace = service.workspace.as_actor(request.state.actor.name)
        return await run_in_threadpool(roll_back, service, workspace, alias, asked)

    return router


def roll_back(service: Service, workspace: Workspace, alias: str, asked: RollbackAsked) -> dict[str, Any]:
    """One append, in force here when it returns; the command's answer. seconds: the whole call, commit included."""
    began = time.perf_counter()
    move = aliases.roll_back(workspace, alias, to=asked.to, why=asked.why, expect=asked.expect)
    service.router.apply(move)
    seconds = time.perf_counter() - began
    service.metrics.rollback.observe(seconds)
    names = {digest: str(registry.resolve(workspace, f"sha256:{digest}")) for digest in _digests(move)}
    return {
        "alias": move.alias,
        "from": names.get(move.from_digest or ""),
        "to": names[move.to_digest],
        "from_digest": move.from_digest,
        "to_digest": move.to_digest,
        "seq": move.seq,
        "seconds": round(seconds, 6),
    }


def list_models(service: Service) -> list[dict[str, Any]]:
    """Aliases and versions on this server's base that aren't retired."""
    named = set(service.router.models())
    found = []
    for row in registry.list_versions(service.workspace):
        if row.retired_at is not None or row.manifest["base"]["digest"] != service.base.digest:
            continue
        created = int(datetime.fromisoformat(row.created_at).timestamp())
        about = {"version": str(row.ref), "digest": row.ref.digest, "role": row.ref.role, "kind": row.kind}
        for name in sorted({str(row.ref), *row.aliases} & named):
            found.append(
                {
                    "id": name,
                    "object": "model",
                    "created": created,
                    "owned_by": row.manifest["base"]["name"],
                    "rlhf": about,
                }
            )
    return sorted(found, key=lambda one: str(one["id"]))


def model_named(service: Service, name: str) -> dict[str, Any]:
    """What `GET /v1/models` says of it, under the name that was asked for: everything that a request may name. Raises UnknownModel,
    Retired, Unavailable."""
    listed = {one["id"]: one for one in list_models(service)}
    bare = f"{name}@{DEFAULT_ALIAS}"
    if (found := listed.get(name) or listed.get(bare)) is None and name.startswith("sha256:"):
        try:
            route = service.router.resolve(name)
        except (NotFound, BadUsage) as error:
            raise UnknownModel(error.message, fix=error.fix) from None
        found = listed.get(route.version)
    if found is None:
        raise UnknownModel(f"there is no model {name[:300]}", fix="see: GET /v1/models")
    return {**found, "id": name}


def _digests(move: Any) -> set[str]:
    return {digest for digest in (move.from_digest, move.to_digest) if digest}


async def _answer_error(_: Request, error: Exception) -> Response:
    return response_to(error)

"""The application and its server."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import anyio.to_thread
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from rlhf import people
from rlhf.errors import BadInput, Forbidden, NotFound, RlhfError
from rlhf.serving.listening import address_of, bind, is_loopback
from rlhf.store import Workspace
from rlhf.web import appeals, board, dashboard, decisions, items, labeler, operate, session
from rlhf.web.guard import Guard, error_response
from rlhf.web.pages import HERE

_THREADS = 4


def create_app(workspace: Workspace, *, overlap: int = 1, hosts: Sequence[str] = ()) -> FastAPI:
    """The ASGI application over one workspace.

    overlap: people wanted a pair. hosts: names by which the server may be called, besides loopback, the machine's own
    name and plain addresses.
    """
    app = FastAPI(title="rlhf", docs_url=None, redoc_url=None, openapi_url=None, lifespan=_few_threads)
    rooms = (
        session.routes(workspace),
        labeler.routes(workspace, overlap),
        items.routes(workspace),
        board.routes(workspace),
        appeals.routes(workspace),
        operate.routes(workspace),
        dashboard.routes(workspace),
        decisions.routes(workspace),
    )
    for router in rooms:
        app.router.routes.extend(router.routes)  # flat, so that a test can walk them all
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    for kind in (RlhfError, HTTPException, RequestValidationError):
        app.add_exception_handler(kind, _answer)
    app.add_middleware(Guard, workspace=workspace, hosts=hosts)
    return app


@contextlib.asynccontextmanager
async def _few_threads(_: FastAPI) -> AsyncIterator[None]:
    """Requests wait in order for one of a few threads: forty at once would only wait for each other, at the interpreter's lock
    and at the database's."""
    anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
    yield


def serve(
    workspace: Workspace,
    host: str = "127.0.0.1",
    port: int = 8765,
    *,
    overlap: int = 1,
    hosts: Sequence[str] = (),
    on_listen: Callable[[str], None] | None = None,
) -> None:
    """Serve the pages until interrupted. on_listen: called once with the address, when it is bound.

    Raises Forbidden where the host is reachable from other machines and nobody is known here, Conflict where the port is
    taken, BadUsage for a number that is no port, BadInput where the host is none of this machine's.
    """
    import uvicorn

    if not is_loopback(host) and not people.list_accounts(workspace):
        raise Forbidden(
            f"{host} can be reached from other machines, and nobody is known here yet",
            fix="invite somebody first: rlhf people invite --role admin",
        )
    with bind(host, port) as bound, contextlib.suppress(KeyboardInterrupt):  # Ctrl-C is how a server is meant to end
        if on_listen is not None:
            on_listen(address_of(host, bound))
        app = create_app(workspace, overlap=overlap, hosts=(host, *hosts))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=5
        )
        uvicorn.Server(config).run(sockets=[bound])


async def _answer(request: Request, error: Exception) -> Response:
    return error_response(request, _refusal(error))


def _refusal(error: Exception) -> Exception:
    """The framework's refusals in our words."""
    if isinstance(error, RequestValidationError):
        said = "; ".join(f"{'.'.join(map(str, e['loc'][1:])) or 'body'}: {e['msg']}" for e in error.errors())
        return BadInput(f"the request can't be taken: {said}", fix="send the fields that the route's description names")
    if isinstance(error, HTTPException):
        if isinstance(error.__cause__, RlhfError):  # FastAPI wraps what is raised while it reads a body
            return error.__cause__
        refusal: RlhfError
        if error.status_code == 404:
            refusal = NotFound("there is nothing at this address", fix="go back to the first page, at /")
        elif error.status_code == 405:
            refusal = RlhfError("this address takes another method", fix="see the route's description")
        else:
            refusal = RlhfError(str(error.detail), fix="correct the request")
        refusal.http_status = error.status_code
        return refusal
    return error

"""Logging in: a token posted once becomes a cookie that scripts can't read and other sites can't send.

    GET  /login   a form; a link's `#token=…` is read by the page's script, never sent in an address
    POST /login   token=… → the cookie and on to /
    POST /logout  the cookie goes

The cookie holds the token itself: it ends when the token does, outlives a restart, and needs no second secret.
"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from rlhf import people
from rlhf.errors import Forbidden
from rlhf.store import Workspace
from rlhf.web.guard import cookie_name, wants_page
from rlhf.web.pages import render

_KEEP_S = 30 * 86_400


def routes(workspace: Workspace) -> APIRouter:
    """Log in and out."""
    router = APIRouter()
    name = cookie_name(workspace)

    @router.get("/login")
    def login_form(request: Request) -> HTMLResponse:
        return render(request, "login.html", {"error": None})

    @router.post("/login")
    def log_in(request: Request, token: Annotated[str, Form(max_length=200)]) -> Response:
        try:
            people.actor_of(workspace, token.strip())
        except Forbidden as error:
            if wants_page(request):
                return render(request, "login.html", {"error": error}, status=error.http_status)
            raise
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            name, token.strip(), max_age=_KEEP_S, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(name, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return response

    return router

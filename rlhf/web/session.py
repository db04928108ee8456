"""Coming in and going out: a token or an invitation, posted once, becomes a session whose word is the cookie.

    GET  /login            a form; a link's `#token=…` is read by the page's script, never sent in an address
    POST /login            token=… → a new session's cookie and on to /
    POST /logout           the session ends on the server, and the cookie goes
    GET  /invite           the page of an invitation; its link's `#code=…` is read by the script alone
    POST /invite           code=… → {"roles", "guideline", "consent"}: what who follows it is asked to agree to
    POST /invite/accept    code=…, guideline=…, consent=… (the digests that were read) → the account, the cookie and on to /

The cookie can't be read by scripts nor sent by other sites. Each log-in makes a new session and ends the one before it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from rlhf import people
from rlhf.errors import Forbidden
from rlhf.store import Workspace
from rlhf.web.guard import cookie_name, wants_page
from rlhf.web.markdown import readable
from rlhf.web.pages import render

_KEEP_S = 30 * 86_400
Word = Annotated[str, Form(max_length=200)]


def routes(workspace: Workspace) -> APIRouter:
    """Log in, be invited, log out."""
    router = APIRouter()
    name = cookie_name(workspace)

    @router.get("/login")
    def login_form(request: Request) -> HTMLResponse:
        return render(request, "login.html", {"error": None})

    @router.post("/login")
    def log_in(request: Request, token: Word) -> Response:
        try:
            word = people.begin(workspace, token.strip())
        except Forbidden as error:
            if wants_page(request):
                return render(request, "login.html", {"error": error}, status=error.http_status)
            raise
        return _come_in(request, word)

    @router.post("/logout")
    def log_out(request: Request) -> Response:
        people.end(workspace, request.cookies.get(name, ""))
        response = RedirectResponse("/login", status_code=303)
        response.delete_cookie(name, httponly=True, samesite="strict", secure=request.url.scheme == "https")
        return response

    @router.get("/invite")
    def invitation(request: Request) -> HTMLResponse:
        return render(request, "invite.html", {})

    @router.post("/invite")
    def look(code: Word) -> dict[str, Any]:
        invited = people.look(workspace, code.strip())
        guideline, consent = people.current_texts(workspace)
        return {"roles": list(invited.roles), "guideline": readable(guideline), "consent": readable(consent)}

    @router.post("/invite/accept")
    def accept(request: Request, code: Word, guideline: Word, consent: Word) -> Response:
        with workspace.as_actor("invitation").write() as write:
            account = people.accept_in(write, code.strip())
            if "label" in account.permissions:
                people.agree_in(write, account.name, guideline, consent)
            word = people.begin_in(write, account.name)
        return _come_in(request, word)

    def _come_in(request: Request, word: str) -> Response:
        people.end(workspace, request.cookies.get(name, ""))
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(
            name, word, max_age=_KEEP_S, httponly=True, samesite="strict", secure=request.url.scheme == "https"
        )
        return response

    return router

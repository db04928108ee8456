"""Refusals as OpenAI's clients read them: {"error": {"message", "type", "param", "code"}} with the status that they act on.

A client of that kind tries 408, 409, 429 and 5xx again by itself and waits as long as `Retry-After` says. So what was retired is
410. A version that is damaged or failed its checks is the server's fault, whatever is asked, and stays a 5xx, on which monitors and
proxies act; `x-should-retry: false` tells the client that another try a second later gets the same, or, past the deadline, that it
would be the same work once more for a server that has too much of it.
"""

from __future__ import annotations

import logging
import math
from typing import Any

from fastapi.exceptions import RequestValidationError
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from rlhf.errors import BadInput, Damaged, NotFound, RlhfError
from rlhf.serving.doorway import TooOften
from rlhf.serving.routes import Unavailable
from rlhf.serving.wording import said_of
from rlhf.store.database import refusal_of

_log = logging.getLogger("rlhf.serving")
_ADDRESSES = (
    "GET /v1/models; POST /v1/chat/completions, /v1/completions, /v1/score, /v1/feedback, "
    "/v1/aliases/NAME@ALIAS/actions/rollback; GET /health, /ready, /metrics"
)
_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "timeout_error",
    409: "conflict_error",
    410: "not_found_error",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


class BadField(BadInput):
    """A field of the request that can't be taken, by name. Ignoring it would change the answer in silence."""

    def __init__(self, message: str, *, param: str | None, fix: str, code: str = "unsupported_parameter") -> None:
        super().__init__(message, fix=fix)
        self.param, self.code = param, code


class UnknownModel(NotFound):
    """No version has this name; nothing answers in its place."""

    code = "model_not_found"

    def __init__(self, message: str, *, fix: str, param: str = "model") -> None:
        super().__init__(message, fix=fix)
        self.param = param


class Busy(RlhfError):
    """The queue is full, or the server is going: come again."""

    code = "overloaded"
    http_status = 429

    def __init__(self, message: str, wait_s: float) -> None:
        self.retry_after = str(max(1, math.ceil(wait_s)))
        super().__init__(message, fix=f"try again in {self.retry_after} s")


class Draining(Busy):
    """The server ends what it has begun and takes nothing new."""

    code = "draining"
    http_status = 503

    @classmethod
    def cut_off(cls) -> Draining:
        """Of a request that was under way when the server's time for that was over."""
        return cls("this server was stopped before the answer was whole", 5.0)


class TooLate(RlhfError):
    """The request's own deadline passed."""

    code = "deadline_exceeded"
    http_status = 504


class NotRecorded(RlhfError):
    """What was served couldn't be written to the store, so it wasn't served."""

    code = "not_recorded"
    http_status = 503


class NotServable(RlhfError):
    """A version that is there and can't answer just now: every slot is in use."""

    code = "version_unavailable"
    http_status = 503


class DoesNotFit(RlhfError):
    """A version that this server can't hold as it was started: whoever asks for it is not at fault."""

    code = "version_unavailable"
    http_status = 503


def response_to(error: Exception) -> Response:
    """Any error as the response that it gets."""
    refusal = as_refusal(error)
    headers = {"retry-after": refusal.retry_after} if isinstance(refusal, Busy | TooOften) else {}
    if isinstance(refusal, Damaged | Unavailable | DoesNotFit | TooLate):
        headers["x-should-retry"] = "false"
    if refusal.http_status == 401:
        headers["www-authenticate"] = "Bearer"
    return JSONResponse(body_of(refusal), status_code=refusal.http_status, headers=headers)


def body_of(error: Exception) -> dict[str, Any]:
    """OpenAI's error object."""
    refusal = as_refusal(error)
    status = refusal.http_status
    kind = _TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    said = f"{refusal.message}; {refusal.fix}"
    return {"error": {"message": said, "type": kind, "param": getattr(refusal, "param", None), "code": refusal.code}}


def as_refusal(error: Exception) -> RlhfError:
    """The framework's and the database's refusals in our words; what we did not foresee is logged and tells nothing."""
    if isinstance(error, RlhfError):
        return error
    if isinstance(error, RequestValidationError):
        return _invalid(error)
    if isinstance(error, HTTPException):
        return _of_framework(error)
    if isinstance(error, SQLAlchemyError) and (known := refusal_of(error)) is not None:
        known.http_status = 503
        return known
    _log.error("a request failed", exc_info=error)
    unforeseen = RlhfError(
        "something went wrong on the server",
        fix="try again; if it stays, whoever runs it finds the cause in its log",
    )
    unforeseen.code, unforeseen.http_status = "server_error", 500
    return unforeseen


def _invalid(error: RequestValidationError) -> RlhfError:
    said, field = said_of(error.errors(), error.body)
    fix = "send a JSON object" if field is None else "correct what is named"
    return BadField(f"the request can't be taken: {said[:1000]}", param=field, fix=fix, code="invalid_value")


def _of_framework(error: HTTPException) -> RlhfError:
    if isinstance(error.__cause__, RlhfError):  # FastAPI wraps what is raised while it reads a body
        return error.__cause__
    refusal: RlhfError
    if error.status_code == 404:
        refusal = NotFound("there is nothing at this address", fix=f"here are {_ADDRESSES}")
    elif error.status_code == 405:
        refusal = RlhfError("this address takes another method", fix="GET what lists, POST what asks for something")
        refusal.code = "method_not_allowed"
    else:
        refusal = RlhfError(str(error.detail), fix="correct the request")
        refusal.code = "invalid_value"
    refusal.http_status = error.status_code
    return refusal

"""One error root: what was seen, what was wanted, what to do.

Every refusal that a user can meet is an `RlhfError`. The command line prints it as one line and its fix, the web answers with
`as_json`, and nothing else catches it on the way. Our own mistakes stay `AssertionError` and friends.
"""

from __future__ import annotations

from typing import Any


class RlhfError(Exception):
    """A refusal in the user's words.

    message: what was seen and what was wanted, one line. fix: what to do, one line.
    code: a stable slug for programs. exit_status: 1 refused or failed, 2 wrong usage.
    """

    code = "refused"
    exit_status = 1
    http_status = 400

    def __init__(self, message: str, *, fix: str) -> None:
        super().__init__(message)
        self.message = " ".join(message.split())
        self.fix = " ".join(fix.split())

    def as_json(self) -> dict[str, Any]:
        """The one JSON shape of an error, on the command line and over HTTP."""
        return {"error": {"message": self.message, "fix": self.fix, "code": self.code}}


class BadInput(RlhfError):
    """A file, line or value that can't be taken."""

    code = "bad_input"


class BadUsage(RlhfError):
    """A command or setting spelled wrongly."""

    code = "bad_usage"
    exit_status = 2


class NotFound(RlhfError):
    """A name that nothing answers to. Never replaced by the base (promise 5)."""

    code = "not_found"
    http_status = 404


class Conflict(RlhfError):
    """Somebody else was first, or it already is as it can't be twice."""

    code = "conflict"
    http_status = 409


class Damaged(RlhfError):
    """Stored bytes that no longer match their digest (promise 8)."""

    code = "damaged"
    http_status = 500


class Forbidden(RlhfError):
    """The actor may not do this."""

    code = "forbidden"
    http_status = 403


class Interrupted(RlhfError):
    """Stopped by the user; the last good state is kept and the fix says how to go on."""

    code = "interrupted"

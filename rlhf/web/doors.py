"""Who sees which page, by permissions: one of these words is enough. Headers link to what is open."""

from __future__ import annotations

from rlhf.people import Actor

BOARD = ("review", "promote")
OPERATE = ("evaluate", "promote", "roll_back")
REVIEW = ("sign", "promote")  # to hold the regular review of what was decided


def is_open(door: tuple[str, ...], actor: Actor) -> bool:
    return any(permission in actor.scopes for permission in door)


def require(door: tuple[str, ...], actor: Actor) -> None:
    """Raises Forbidden, naming the first of the permissions."""
    if not is_open(door, actor):
        actor.require(door[0])


def first_page(actor: Actor) -> str | None:
    """Where somebody goes who doesn't label; None = nowhere, as for a client."""
    pages = (("/board", BOARD), ("/operate", ("roll_back",)), ("/decisions", OPERATE))  # who may promote has the board
    return next((path for path, door in pages if is_open(door, actor)), None)

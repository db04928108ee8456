"""Roles: what a person is here for, as the permissions that doors ask for one by one.

A permission is a word that a door asks for; a role is a set of them with a name. Who may publish doesn't sign, and who signs
doesn't move aliases, unless a person was given both roles; and who moves
them doesn't change their gates. A client is a program that asks for replies and scores (`serve`) and says what its users thought of
them (`feedback`).
"""

from __future__ import annotations

from collections.abc import Iterable

from rlhf.errors import BadUsage

PERMISSIONS = (
    "label",
    "review",
    "evaluate",
    "publish",
    "sign",
    "promote",
    "roll_back",
    "gate",
    "erase",
    "people",
    "serve",
    "feedback",
)
ROLES: dict[str, tuple[str, ...]] = {
    "labeler": ("label",),
    "reviewer": ("label", "review"),
    "evaluator": ("evaluate", "sign"),
    "researcher": ("evaluate", "publish"),
    "operator": ("evaluate", "promote", "roll_back"),
    "client": ("serve", "feedback"),
    "admin": PERMISSIONS,
}


def check(roles: Iterable[str]) -> tuple[str, ...]:
    """The roles, sorted, each once. Raises BadUsage on none, or on one that isn't known."""
    asked = sorted(set(roles))
    unknown = [role for role in asked if role not in ROLES]
    if unknown or not asked:
        seen = (
            f"no role is called {', '.join(map(repr, unknown))}"
            if unknown
            else "a person without a role can do nothing"
        )
        raise BadUsage(seen, fix=f"the roles are {', '.join(ROLES)}")
    return tuple(asked)


def permissions_of(roles: Iterable[str]) -> tuple[str, ...]:
    """Everything that these roles may, sorted. A role that isn't known any more gives nothing."""
    return tuple(sorted({permission for role in roles for permission in ROLES.get(role, ())}))


def roles_for(permissions: Iterable[str]) -> tuple[str, ...]:
    """For each permission the role with the fewest that has it, sorted. Raises KeyError for one that isn't known."""
    least = {
        p: min((role for role in ROLES if p in ROLES[role]), key=lambda role: len(ROLES[role])) for p in PERMISSIONS
    }
    return tuple(sorted({least[permission] for permission in permissions}))

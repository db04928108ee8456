"""Roles: separate duties, each a set of permissions that doors ask for one by one."""

from __future__ import annotations

import pytest

from rlhf.errors import BadUsage
from rlhf.people.roles import PERMISSIONS, ROLES, check, permissions_of, roles_for


def test_duties_are_separate() -> None:
    for one, other in (("publish", "sign"), ("sign", "promote"), ("publish", "promote"), ("erase", "label")):
        assert not any({one, other} <= set(held) for role, held in ROLES.items() if role != "admin"), (one, other)
    assert set(ROLES["admin"]) == set(PERMISSIONS) == set().union(*ROLES.values())


@pytest.mark.parametrize("permission", PERMISSIONS)
def test_the_least_role_of_a_permission_has_it(permission: str) -> None:
    (role,) = roles_for([permission])
    assert permission in ROLES[role]
    assert not any(permission in held and len(held) < len(ROLES[role]) for held in ROLES.values())


def test_roles_are_checked_and_an_unknown_one_gives_nothing() -> None:
    assert check(["labeler", "admin", "labeler"]) == ("admin", "labeler")
    with pytest.raises(BadUsage, match="'boss'"):
        check(["boss"])
    with pytest.raises(BadUsage, match="without a role"):
        check([])
    assert permissions_of(["boss"]) == () and permissions_of(["labeler", "operator"]) == (
        "evaluate", "label", "promote", "roll_back",
    )  # fmt: skip

"""The audit log is a chain: nothing in it changes or goes missing without a trace."""

from __future__ import annotations

import pytest
from sqlalchemy import text

from rlhf.errors import Damaged
from rlhf.store import Workspace, audit


@pytest.fixture
def logged(workspace: Workspace) -> Workspace:
    for number in range(4):
        with workspace.as_actor(f"actor-{number}").write() as write:
            write.audit("thing.done", f"subject-{number % 2}", {"number": number, "text": "ä\u2028"})
    return workspace


def test_entries_come_in_order_with_actor_and_details(logged: Workspace) -> None:
    with logged.read() as connection:
        assert audit.verify(connection) == 5
        entries = audit.entries(connection, action="thing.done")
        assert [(e["seq"], e["actor"], e["details"]["number"]) for e in entries] == [
            (n + 2, f"actor-{n}", n) for n in range(4)
        ]
        assert [e["seq"] for e in audit.entries(connection, subject="subject-1")] == [3, 5]


@pytest.mark.parametrize(
    "statement",
    [
        "update audit set actor = 'mallory' where seq = 3",
        "update audit set at = '2020-01-01T00:00:00.000000+00:00' where seq = 3",
        "update audit set details = '{}' where seq = 3",
        "update audit set hash = previous where seq = 3",
        "update audit set previous = hash where seq = 3",
        "delete from audit where seq = 3",
        "delete from audit where seq = 1",
        "update audit set seq = 30 where seq = 3",
    ],
)
def test_tampering_is_found(logged: Workspace, statement: str) -> None:
    with logged.write() as write:
        write.connection.execute(text(statement))
    with logged.read() as connection, pytest.raises(Damaged, match="audit entry"):
        audit.verify(connection)


def test_an_entry_is_there_with_its_deed_or_not_at_all(logged: Workspace) -> None:
    with pytest.raises(RuntimeError), logged.write() as write:
        write.audit("thing.undone", "subject")
        raise RuntimeError
    with logged.read() as connection:
        assert audit.entries(connection, action="thing.undone") == [] and audit.verify(connection) == 5

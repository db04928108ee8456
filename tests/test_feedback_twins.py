"""Two implementations agree: PostgreSQL keeps of an import what SQLite keeps (promise 12)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine, make_url, text

from rlhf import feedback
from rlhf.store import Workspace

ROWS: list[dict[str, Any] | str] = [
    *(
        {"prompt": f"q {n}", "chosen": f"good {n}", "rejected": f"bad {n} é", "labeler": f"u{n % 3}", "seconds": n}
        for n in range(30)
    ),
    {"prompt": "q 1", "chosen": "good 1", "rejected": "bad 1 é", "labeler": "u1"},
    "oops",
    {"prompt": "q\x00", "chosen": "a", "rejected": "b"},
    {"prompt": "q", "chosen": "a\ud800", "rejected": "b"},
]
RATINGS = [
    {"prompt": "q", "reply": reply, "rating": value, "labeler": "u1"}
    for reply, value in (("one", 5), ("two", 2), ("three", 5))
]


def told(workspace: Workspace, folder: Path) -> tuple[Any, ...]:
    """Everything of two imports and their repetition that isn't an id or a time."""
    prefs, ratings = folder / "prefs.jsonl", folder / "ratings.jsonl"
    prefs.write_text("".join((r if isinstance(r, str) else json.dumps(r)) + "\n" for r in ROWS))
    ratings.write_text("".join(json.dumps(r) + "\n" for r in RATINGS))
    receipts = []
    for path in (prefs, ratings, prefs, ratings):
        receipt = feedback.import_files(workspace, [path]).as_json()
        receipts.append({key: value for key, value in receipt.items() if key != "import"})
    with workspace.read() as connection:
        return (
            receipts,
            list(feedback.read_pairs(connection, batch=7)),
            [j for _, j in feedback.current_judgements(connection)],
        )


@pytest.mark.postgres
def test_postgresql_keeps_what_sqlite_keeps(workspace: Workspace, tmp_path: Path, postgres_url: str) -> None:
    url = make_url(postgres_url).set(drivername="postgresql+psycopg")
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text("CREATE DATABASE feedback_twin"))  # the server is shared by the session
    engine.dispose()
    database = url.set(database="feedback_twin", drivername="postgresql").render_as_string(hide_password=False)
    other = Workspace.create(tmp_path / "ws-pg", database=database, actor="tester")
    assert told(other, tmp_path) == told(workspace, tmp_path)
    assert told(other, tmp_path)[0][0]["accepted"] == 0
    other.close()

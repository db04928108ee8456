"""Worths that a reward writes: votes move them at once, a vote taken back leaves no trace, and the queue draws by them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from preferences import cut_polite
from sqlalchemy import select
from typer.testing import CliRunner

from rlhf import reward
from rlhf.cli import web
from rlhf.engine import add_from_dir
from rlhf.errors import BadInput, BadUsage
from rlhf.labeling import answer, next_task, undo
from rlhf.reward.ranking import Ranking, follow
from rlhf.store import Workspace
from rlhf.store.tables import leases, pair_worths

HEAD = {"name": "instant", "kind": "head", "snapshot": "polite", "base": "tiny", "dtype": "float32"}


@pytest.fixture
def headed(workspace: Workspace, tmp_path: Path, tiny_folder: Path) -> Iterator[Workspace]:
    add_from_dir(workspace, "tiny", tiny_folder)
    cut_polite(workspace, tmp_path)
    reward.train(workspace, reward.RewardSettings(**HEAD))  # type: ignore[arg-type]
    yield workspace


def doubts(workspace: Workspace) -> dict[str, float]:
    with workspace.read() as connection:
        return {row[0]: row[1] for row in connection.execute(select(pair_worths.c.pair_id, pair_worths.c.doubt))}


def test_votes_move_the_rows_and_an_undo_takes_them_back(headed: Workspace) -> None:
    ranking = Ranking(headed, "instant@1", overlap=2)
    assert ranking.write() > 10
    before, n_before = doubts(headed), ranking.n_votes
    task = next_task(headed, "ada")
    assert task is not None
    with headed.read() as connection:
        p = connection.execute(select(leases.c.acquisition_p)).scalar_one()
    assert 0.0 < p < 1.0 and p != pytest.approx(1 / len(before))
    answer(headed, "ada", task.lease, "left", seconds=2.0)
    ranking.write()
    assert ranking.n_votes == n_before + 1
    assert doubts(headed)[task.pair_id] != pytest.approx(before[task.pair_id], rel=1e-6)
    undo(headed, "ada")
    ranking.write()
    assert ranking.n_votes == n_before
    assert doubts(headed) == pytest.approx(before)


def test_following_writes_when_a_vote_came_and_rests_when_none_did(headed: Workspace) -> None:
    ranking = Ranking(headed, "instant@1", overlap=2)
    n_votes: list[int] = []

    def written(_: int) -> None:
        n_votes.append(ranking.n_votes)
        if len(n_votes) == 3:
            raise KeyboardInterrupt
        task = next_task(headed, "ada", overlap=2)
        assert task is not None
        answer(headed, "ada", task.lease, "left", seconds=2.0)

    with pytest.raises(KeyboardInterrupt):
        follow(ranking, written, every_s=0.01)
    assert n_votes == [n_votes[0] + i for i in range(3)]

    rests: list[float] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rlhf.reward.ranking.time.sleep", lambda s: rests.append(s) if len(rests) < 5 else _end())
        with pytest.raises(KeyboardInterrupt):
            follow(ranking, lambda n: n_votes.append(n), every_s=7.0)
    assert rests == [7.0] * 5 and len(n_votes) == 4, "written once, then looked at five times"


def _end() -> None:
    raise KeyboardInterrupt


def test_a_ranking_begun_again_goes_on_from_the_store(headed: Workspace) -> None:
    first = Ranking(headed, "instant@1", overlap=4)
    first.write()
    assert first.n_votes == 0  # what the snapshot holds was trained on, or is held out
    task = next_task(headed, "ada")
    assert task is not None
    answer(headed, "ada", task.lease, "left", seconds=2.0)
    first.write()
    told = doubts(headed)
    again = Ranking(headed, "instant@1", overlap=4)
    again.write()
    assert again.n_votes == first.n_votes == 1
    assert doubts(headed) == pytest.approx(told)


def test_a_pair_with_all_its_answers_has_no_row(headed: Workspace) -> None:
    ranking = Ranking(headed, "instant@1")
    n = ranking.write()
    task = next_task(headed, "ada")
    assert task is not None
    answer(headed, "ada", task.lease, "left", seconds=2.0)
    assert ranking.write() == n - 1
    assert task.pair_id not in doubts(headed)


def test_the_command_ranks_and_forgets(headed: Workspace) -> None:
    app = typer.Typer()
    web.register(app)

    def call(*words: str) -> Any:
        return CliRunner().invoke(app, ["label", "rank", *words, "--workspace", str(headed.root), "--json"])

    told = json.loads(call("--reward", "instant@1").stdout)
    assert told == {"pairs": len(doubts(headed)), "votes": 0, "version": "instant@1"} and told["pairs"] > 10
    assert json.loads(call("--forget").stdout) == {"forgotten": told["pairs"]}
    assert doubts(headed) == {}
    assert isinstance(call().exception, BadUsage)
    assert isinstance(call("--forget", "--watch").exception, BadUsage)


def test_an_ensemble_ranks_by_its_members_and_one_lora_is_refused(headed: Workspace) -> None:
    settings = {"name": "hh", "snapshot": "polite", "base": "tiny", "dtype": "float32", "members": 2, "max_steps": 1}
    reward.train(headed, reward.RewardSettings(**settings))  # type: ignore[arg-type]
    assert Ranking(headed, "hh@1").write() > 10
    told = doubts(headed).values()
    assert all(0.0 <= doubt <= 1.0 for doubt in told) and len(set(told)) > 10
    with pytest.raises(BadInput, match="says nothing of its doubt"):
        Ranking(headed, "hh.1@1")

"""A live reward: votes move it at once, near to what a refit gives, and it knows which pair would tell it most."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from preferences import cut_polite

from rlhf import reward, snapshots
from rlhf.engine import add_from_dir
from rlhf.errors import BadInput
from rlhf.records import Message, Pair
from rlhf.reward import head
from rlhf.reward.live import LiveReward, open_live
from rlhf.reward.material import open_material
from rlhf.store import Workspace

HEAD = {"name": "instant", "kind": "head", "snapshot": "polite", "base": "tiny", "dtype": "float32"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Iterator[Workspace]:
    """A workspace with a head version; these tests only read it."""
    root = tmp_path_factory.mktemp("live")
    workspace = Workspace.create(root / "ws", actor="tester")
    add_from_dir(workspace, "tiny", tiny_folder)
    cut_polite(workspace, root)
    reward.train(workspace, reward.RewardSettings(**HEAD))  # type: ignore[arg-type]
    yield workspace
    workspace.close()


@pytest.fixture
def live(trained: Workspace) -> LiveReward:
    return open_live(trained, "instant@1")


def fresh_pairs(n: int = 12) -> list[Pair]:
    return [
        Pair.of([Message("user", f"What of {i}?")], f"Blue is {i} then", f"Nine or {i * i} red, I say, and more")
        for i in range(n)
    ]


def test_an_outlook_says_what_the_version_scores(live: LiveReward, trained: Workspace) -> None:
    pairs = [row.pair for row in snapshots.open_snapshot(trained, "polite").rows("test")]
    scored = reward.score_pairs(trained, live.ref, pairs)
    for outlook, row in zip(live.look(pairs), scored, strict=True):
        assert row.score_a is not None and row.score_b is not None
        assert outlook.margin == pytest.approx(row.score_a - row.score_b, abs=1e-3)
        assert outlook.p_a is not None and outlook.doubt is not None and outlook.information is not None
        assert (outlook.p_a > 0.5) == (outlook.margin > 0)
        assert outlook.doubt > 0 and 0 <= outlook.information <= np.log(2)


def test_a_vote_moves_the_pair_it_is_on_and_takes_from_its_doubt(live: LiveReward) -> None:
    pair = fresh_pairs(1)[0]
    before = live.look([pair])[0]
    assert live.vote(pair, "a") and live.vote(pair, "a")
    after = live.look([pair])[0]
    assert after.margin > before.margin and after.doubt < before.doubt  # type: ignore[operator]
    assert live.n_votes == 2
    assert not live.vote(pair, "skip")
    with pytest.raises(BadInput, match="weight"):
        live.vote(pair, "a", weight=0)


def test_votes_taken_in_one_by_one_are_near_a_refit_on_all(live: LiveReward, trained: Workspace) -> None:
    settings = reward.RewardSettings(**HEAD, head_prior=5.0)  # type: ignore[arg-type]
    material = open_material(trained, settings, 1, lambda _text: None)
    reading, groups = live.states.reading, head.groups_of(material)
    states = live.states.of(material.rows)
    n = 25
    begun = head.fit(states[:n], material.rows[:n], groups[:n], reading, settings.head_prior)
    refit = head.fit(states, material.rows, groups, reading, settings.head_prior).head.posterior
    one_by_one = LiveReward(live.ref, begun.head, live.states, live.renderer)
    rows = {row.pair.id: row for row in material.snapshot.rows("train")}
    for row in material.rows[n:]:
        assert one_by_one.vote(rows[row.pair_id].pair, rows[row.pair_id].judgements[0].choice)
    differences = states[:, 0] - states[:, 1]
    off = np.abs(one_by_one.posterior.logits(differences) - refit.logits(differences)).mean()
    stale = np.abs(begun.head.posterior.logits(differences) - refit.logits(differences)).mean()
    assert off < 0.25 * stale


def test_the_most_telling_pair_comes_first_and_is_told_after_its_votes(live: LiveReward) -> None:
    pairs = fresh_pairs()
    first = live.most_telling(pairs)[0]
    known = {outlook.pair_id: outlook.information for outlook in live.look(pairs)}
    assert known[first.id] == max(known.values())  # type: ignore[type-var]
    for _ in range(20):
        live.vote(first, "b")
    assert live.most_telling(pairs)[0].id != first.id


def test_a_pair_that_cannot_be_rendered_has_no_outlook_and_comes_last(live: LiveReward) -> None:
    long = Pair.of([Message("user", "x" * 5000)], "yes", "no")
    assert live.look([long])[0].p_a is None
    assert live.most_telling([long, *fresh_pairs(2)])[-1].id == long.id
    assert not live.vote(long, "a")


def test_a_vote_on_a_seen_pair_takes_milliseconds(live: LiveReward) -> None:
    pair = fresh_pairs(1)[0]
    live.look([pair])
    start = time.perf_counter()
    live.vote(pair, "a")
    assert time.perf_counter() - start < 0.05


def test_only_a_head_can_be_live(policies: Workspace) -> None:
    with pytest.raises(BadInput, match="kind lora"):
        open_live(policies, "r@1")

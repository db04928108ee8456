"""Kept scores: computed once, the same bits whatever was computed before, and never taken from a damaged line."""

from __future__ import annotations

import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import copy_of
from snapshot_rows import pair_of

from rlhf import registry
from rlhf.reward import kept, score_pairs
from rlhf.reward.score import PairScore
from rlhf.store import Workspace

PAIRS = [pair_of(i) for i in range(60)]


@pytest.fixture
def trained(tmp_path: Path, trained_root: Path) -> Any:
    made = Workspace.open(copy_of(trained_root, tmp_path / "trained"), actor="tester")
    shutil.rmtree(made.root / kept.FOLDER, ignore_errors=True)  # what its own evaluations kept
    yield made
    made.close()


def count_scored(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many pairs each call of the scorer computes."""
    counted: list[int] = []
    real = kept.score_with

    def counting(model: Any, renderer: Any, pairs: Any) -> Any:
        counted.append(len(pairs))
        return real(model, renderer, pairs)

    monkeypatch.setattr(kept, "score_with", counting)
    return counted


def file_of(workspace: Workspace) -> Path:
    (file,) = (workspace.root / kept.FOLDER).glob("*.jsonl")
    return file


def test_what_was_scored_is_read_and_one_pair_more_costs_one_chunk(
    trained: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted = count_scored(monkeypatch)
    first = score_pairs(trained, "hh@1", PAIRS[:50])
    assert sum(counted) == 50
    told: list[tuple[int, int]] = []
    assert score_pairs(trained, "hh@1", PAIRS[:50][::-1], lambda *n: told.append(n)) == first[::-1]
    assert sum(counted) == 50 and told == [(50, 50)]
    more = score_pairs(trained, "hh@1", PAIRS[:51])
    assert sum(counted) - 50 <= max(map(len, kept.chunks_of(PAIRS[:51])))
    for one, other in zip(first, more, strict=False):
        assert one.score_a == pytest.approx(other.score_a, abs=1e-4)
    score_pairs(trained, "hh@2", PAIRS[:3])
    assert len(list((trained.root / kept.FOLDER).glob("*.jsonl"))) == 2


def test_scores_after_a_torn_or_changed_line_are_the_uninterrupted_ones(
    trained: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = score_pairs(trained, "hh@1", PAIRS)
    file = file_of(trained)
    lines = file.read_bytes().splitlines(keepends=True)
    assert len(lines) > 2
    file.write_bytes(lines[0] + lines[1].replace(b"false", b"true ", 1) + lines[2][:40])  # changed, then torn
    counted = count_scored(monkeypatch)
    assert score_pairs(trained, "hh@1", PAIRS) == whole
    assert len(counted) == len(lines) - 1
    assert score_pairs(trained, "hh@1", PAIRS) == whole and len(counted) == len(lines) - 1


def test_chunks_hold_every_pair_once_and_do_not_hang_on_the_order() -> None:
    chunks = kept.chunks_of(PAIRS)
    assert sorted(i for chunk in chunks for i in chunk) == list(range(60))
    ids = [[PAIRS[i].id for i in chunk] for chunk in chunks]
    turned = PAIRS[::-1]
    assert ids == [[turned[i].id for i in chunk] for chunk in kept.chunks_of(turned)] and kept.chunks_of([]) == []


def test_scores_that_are_no_numbers_are_given_and_not_kept(trained: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = [PairScore(float("nan"), 0.0, 9, False)]
    with monkeypatch.context() as patch:
        patch.setattr(kept, "score_with", lambda *_: broken)
        (found,) = score_pairs(trained, "hh@1", PAIRS[:1])
    assert found is broken[0] and math.isfinite(score_pairs(trained, "hh@1", PAIRS[:1])[0].score_a or 0.0)


def test_a_damaged_version_is_refused_though_all_its_scores_are_kept(trained: Workspace) -> None:
    from rlhf.errors import Damaged

    score_pairs(trained, "hh@1", PAIRS[:4])
    path = trained.root / "artifacts" / "versions" / "hh" / "1" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\x00")
    with pytest.raises(Damaged):
        score_pairs(trained, registry.resolve(trained, "hh@1"), PAIRS[:4])

"""Labels as they are: ties, trust in labelers, smoothing and length, from votes to weights."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from preferences import cut_polite
from safetensors.torch import load_file

from rlhf import feedback, registry, reward, snapshots
from rlhf.engine.bases import Base
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput
from rlhf.measures import length
from rlhf.measures.reliability import Reliability
from rlhf.records import Judgement, Message, Pair, SnapshotRow
from rlhf.reward import head
from rlhf.reward.carried import Carried
from rlhf.reward.material import open_material
from rlhf.reward.rows import TrainRow, training_rows
from rlhf.reward.settings import OF_STEPS
from rlhf.reward.targets import Target, training_target
from rlhf.store import Workspace

QUICK = {
    "name": "r", "snapshot": "crowd", "base": "tiny", "dtype": "float32", "learning_rate": 3e-3, "pairs_per_step": 8,
    "lora_r": 4, "lora_alpha": 8, "epochs": 1, "baseline": False, "set_aside": 0, "test_pairs": 0,
}  # fmt: skip
ALL = {"labels": "reliability", "ties": "davidson", "smoothing": 0.1, "length_penalty": 1.0}


def settings(**more: object) -> reward.RewardSettings:
    return reward.RewardSettings(**{**QUICK, **more})  # type: ignore[arg-type]


def judged(*choices: str, labelers: str = "xyzuvw") -> list[Judgement]:
    return [Judgement("p", c, "s", who) for c, who in zip(choices, labelers, strict=False)]  # type: ignore[arg-type]


@pytest.fixture
def crowd(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    """48 pairs, four votes each: politer wins, careful sees it, a quarter are ties, one guesses. The longer reply is politer."""
    draw, lines = random.Random(0), []
    for i in range(48):
        yes, no = f"Yes {'thanks ' * draw.randint(2, 6)}", f"No {'x' * draw.randint(0, 12)}"
        for who, right in (("careful", 1.0), ("average", 0.8), ("other", 0.8), ("guesser", 0.4)):
            vote = "tie" if draw.random() < 0.25 else "a" if draw.random() < right else "b"
            lines.append({"prompt": f"Question {i}?", "a": yes, "b": no, "labeler": who, "vote": vote})
    file = tmp_path / "crowd.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    feedback.import_files(workspace, [file])
    snapshots.cut(workspace, "crowd", holdout=0.1)
    return workspace


def weights(workspace: Workspace, trained: reward.Trained) -> dict[str, torch.Tensor]:
    return load_file(registry.open_version(workspace, trained.version).folder / "adapter_model.safetensors")


def learned(workspace: Workspace, trained: reward.Trained) -> dict[str, object]:
    found: dict[str, object] = registry.show(workspace, trained.version).manifest["details"]["learned"]
    return found


@pytest.mark.parametrize(
    ("choices", "ties", "soft", "majority"),
    [
        (("a", "a", "tie", "b"), "half", Target(0.625, 0.25), Target(1.0)),
        (("a", "a", "tie", "b"), "drop", Target(2 / 3), Target(1.0)),
        (("a", "both_bad"), "davidson", Target(0.75, 0.5), Target(1.0)),
        (("tie", "skip"), "half", Target(0.5, 1.0), Target(0.5, 1.0)),
        (("tie", "skip"), "drop", "dropped", "dropped"),
        (("a", "b"), "drop", Target(0.5), "dropped"),
        (("skip",), "drop", "undecided", "undecided"),
    ],
)
def test_a_target_keeps_ties_apart(choices: tuple[str, ...], ties: str, soft: object, majority: object) -> None:
    assert training_target(judged(*choices), "soft", ties) == soft  # type: ignore[arg-type]
    assert training_target(judged(*choices), "majority", ties) == majority  # type: ignore[arg-type]


def test_a_trusted_labelers_vote_counts_more_and_so_does_their_pair() -> None:
    trust = Reliability({"s\nx": 1.5, "s\ny": 0.5}, 1.0, {}, None, 0, 0)
    both = training_target(judged("a", "b"), "reliability", "half", trust)
    alone = training_target(judged("b", labelers="y"), "reliability", "half", trust)
    unknown = training_target([Judgement("p", "b", "s", None)], "reliability", "half", trust)
    assert (both, alone, unknown) == (Target(0.75, 0.0, 1.0), Target(0.0, 0.0, 0.5), Target(0.0, 0.0, 1.0))


def test_dropped_ties_are_counted_and_smoothing_leaves_ties_alone(tiny_folder: Path) -> None:
    renderer = Renderer(Base("tiny", "0" * 64, tiny_folder, "", "", {}, {}).tokenizer(), 200)
    rows = []
    for prompt, choice in (("p", "a"), ("q", "tie"), ("r", "b"), ("s", "skip")):
        pair = Pair.of([Message("user", prompt)], "yes", "not at all")
        judgement = Judgement(pair.id, choice, "s", "x")  # type: ignore[arg-type]
        rows.append(SnapshotRow(pair, (judgement,), "train", ("s",), pair.id))
    taken, counts = training_rows(rows, renderer, "soft", 0.0, ties="drop", smoothing=0.2)
    assert (counts.pairs, counts.trained_on, counts.dropped, counts.undecided, counts.ties) == (4, 2, 1, 1, 0)
    assert [row.target for row in taken] == [pytest.approx(0.9)] * 2
    taken, counts = training_rows(rows, renderer, "soft", 0.0, ties="davidson", smoothing=0.2)
    assert (counts.trained_on, counts.dropped, counts.ties) == (3, 0, 1)
    assert [(row.target, row.tie) for row in taken] == [(0.9, 0.0), (0.5, 1.0), (0.9, 0.0)]


def test_a_rows_length_is_its_signed_rank_chosen_first(tiny_folder: Path) -> None:
    renderer = Renderer(Base("tiny", "0" * 64, tiny_folder, "", "", {}, {}).tokenizer(), 500)
    rows, wanted = [], {}
    for i, (one, other) in enumerate((("y", "no"), ("y", "nothing"), ("yes sir", "n"), ("ab", "cd"))):
        pair = Pair.of([Message("user", str(i))], one, other)
        choice = pair.side_of(one)
        rows.append(SnapshotRow(pair, (Judgement(pair.id, choice, "s", "x"),), "train", ("s",), pair.id))
        wanted[pair.id] = len(one) - len(other)
    taken, _ = training_rows(rows, renderer, "soft", 0.0)
    assert [row.length for row in taken] == pytest.approx(
        length.signed_ranks([wanted[row.pair_id] for row in taken]).tolist()
    )


def test_without_ties_every_way_with_ties_gives_the_same_weights(
    workspace: Workspace, tiny_base: object, tmp_path: Path
) -> None:
    cut_polite(workspace, tmp_path, 24)
    found = [
        weights(workspace, reward.train(workspace, settings(name=f"r-{i}", snapshot="polite", max_steps=2, ties=ties)))
        for i, ties in enumerate(("half", "davidson", "drop"))
    ]
    for other in found[1:]:
        assert all(torch.equal(other[name], tensor) for name, tensor in found[0].items())


def test_the_budget_changes_no_weight_whatever_the_labels_and_the_penalty(crowd: Workspace) -> None:
    one = reward.train(crowd, settings(token_budget=100_000, **ALL))
    many = reward.train(crowd, settings(name="cut", token_budget=16, **ALL))
    expected = weights(crowd, one)
    for name, tensor in weights(crowd, many).items():
        assert torch.allclose(tensor, expected[name], atol=1e-4), name
    ours, theirs = learned(crowd, one), learned(crowd, many)
    for key in ("tie_parameter", "length_correlation"):
        assert ours[key] == pytest.approx(theirs[key], abs=1e-4)
    assert ours["labelers"]["labelers"] == 4  # type: ignore[index]
    assert "careful" not in json.dumps(ours)


def test_ties_and_length_resume_as_if_uninterrupted(crowd: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """Promise 10 for what is carried beside the weights."""
    whole = reward.train(crowd, settings(name="whole", save_steps=2, **ALL))
    from rlhf.reward import trainer

    step = trainer.PackedRewardTrainer.training_step

    def broken(self: object, *args: object, **kwargs: object) -> torch.Tensor:
        if self.state.global_step == 3:  # type: ignore[attr-defined]
            raise RuntimeError("power cut")
        return step(self, *args, **kwargs)  # type: ignore[arg-type]

    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="power cut"):
        patch.setattr(trainer.PackedRewardTrainer, "training_step", broken)
        reward.train(crowd, settings(name="cut", save_steps=2, **ALL))
    resumed = reward.train(crowd, settings(name="cut", save_steps=2, **ALL), resume=True)
    assert resumed.version == whole.version
    assert learned(crowd, resumed) == learned(crowd, whole)


def test_a_length_penalty_leaves_the_scores_less_of_length(crowd: Workspace) -> None:
    """In this crowd the politer reply is the longer one, so every reward goes with length."""
    free = reward.train(crowd, settings(name="free", epochs=4))
    held = reward.train(crowd, settings(name="held", epochs=4, length_penalty=20.0))
    pairs = [row.pair for row in snapshots.open_snapshot(crowd, "crowd").rows("train")]
    longer = [len(pair.reply_a) - len(pair.reply_b) for pair in pairs]
    found = [
        length.pearson_both_ways(
            [(s.score_a or 0.0) - (s.score_b or 0.0) for s in reward.score_pairs(crowd, trained.version, pairs)], longer
        )
        for trained in (free, held)
    ]
    assert found[0] > 0.5
    assert abs(found[1]) < found[0] - 0.2


def test_an_instant_head_gives_up_its_length_exactly(crowd: Workspace) -> None:
    material = open_material(crowd, settings(kind="head", **_of_head()), 1, lambda _text: None)
    reading = head.reading_of(material.base, material.settings)
    states = head.pooled(crowd, material.base, material.place, reading).of(material.rows)
    ranks = [row.length for row in material.rows]

    def correlation(penalty: float) -> float:
        fitted = head.fit(states, material.rows, head.groups_of(material), reading, 0.1, penalty)
        return length.pearson_both_ways(fitted.head.posterior.logits(states[:, 0] - states[:, 1]), ranks)

    assert correlation(0.0) > 0.3
    assert abs(correlation(1e9)) < 1e-3


def test_a_version_records_what_became_of_its_ties(crowd: Workspace) -> None:
    """A head's fit knows no third outcome: what it records is half a vote, whatever the default."""
    instant = reward.train(crowd, settings(kind="head", name="h", **_of_head()))
    assert registry.show(crowd, instant.version).manifest["settings"]["ties"] == "half"
    trained = reward.train(crowd, settings(max_steps=1))
    assert registry.show(crowd, trained.version).manifest["settings"]["ties"] == "davidson"
    assert learned(crowd, trained)["ties"] == "davidson"
    assert float(str(learned(crowd, trained)["tie_parameter"])) > 0


def _of_head() -> dict[str, object]:
    """The settings of steps, which a head refuses, as they are by default."""
    plain = reward.RewardSettings.model_fields
    return {name: plain[name].default for name in QUICK if name in OF_STEPS}


def test_the_tie_parameter_settles_where_the_ties_are() -> None:
    """Equal scores and a fifth of ties in the steps, started from twice as many: Davidson's nu comes to 2 s / (1 - s)."""
    row = TrainRow("p", (), (1,), (2,), 0.5, 0.0, tie=0.4)
    carried = Carried([row], "davidson")
    nothing = torch.zeros(20)

    class Alone:
        def reduce(self, tensor: torch.Tensor, _how: str) -> torch.Tensor:
            return tensor

    for step in range(400):
        carried.start_step("cpu")
        columns = {"target": nothing + 0.5, "tie": nothing + 0.2, "margin": nothing}
        carried.losses(nothing, nothing, columns, 0.0).mean().backward()
        carried.end_step(Alone(), step)
    assert carried.as_json()["tie_parameter"] == pytest.approx(0.5, abs=0.01)
    assert np.isfinite(carried.tau)


@pytest.mark.parametrize("kind", ["lora", "head"])
def test_pairs_that_are_all_ties_teach_nothing(
    workspace: Workspace, tiny_base: object, tmp_path: Path, kind: str
) -> None:
    rows = [
        {"prompt": f"Question {i}?", "a": f"Yes {i}", "b": f"No {i}", "labeler": "x", "vote": "tie"} for i in range(9)
    ]
    file = tmp_path / "ties.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    feedback.import_files(workspace, [file])
    snapshots.cut(workspace, "ties", holdout=0.1)
    own = _of_head() if kind == "head" else {}
    with pytest.raises(BadInput, match="are ties: nothing says which reply is the better one"):
        reward.train(workspace, settings(snapshot="ties", kind=kind, **own))
    assert not registry.list_versions(workspace)

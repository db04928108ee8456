"""The proof before publication: what isn't what was trained is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from preferences import cut_polite

from rlhf import registry, reward
from rlhf.errors import BadInput
from rlhf.store import Workspace, runs

SETTINGS: dict[str, Any] = {
    "name": "polite", "snapshot": "polite", "base": "tiny", "lora_r": 4, "pairs_per_step": 8, "max_steps": 3, "learning_rate": 3e-3,
}  # fmt: skip


@pytest.fixture
def ready(workspace: Workspace, tiny_base: object, tmp_path: Path) -> Workspace:
    cut_polite(workspace, tmp_path)
    return workspace


def refused(workspace: Workspace, match: str, **more: Any) -> None:
    with pytest.raises(BadInput, match=match):
        reward.train(workspace, reward.RewardSettings(**{**SETTINGS, "dtype": "float32", **more}))
    assert not registry.list_versions(workspace), "nothing may be published"
    assert runs.list_runs(workspace)[-1].state == "failed"


@pytest.mark.parametrize("head_start", [False, True])
def test_a_head_that_was_never_trained_is_refused(
    ready: Workspace, monkeypatch: pytest.MonkeyPatch, head_start: bool
) -> None:
    from rlhf.engine import rewards

    fresh = rewards.fresh

    def frozen(*args: Any, **kwargs: Any) -> Any:
        model = fresh(*args, **kwargs)
        for name, parameter in model.named_parameters():
            if "score" in name:
                parameter.requires_grad_(False)
        return model

    monkeypatch.setattr(rewards, "fresh", frozen)
    refused(ready, "as it was before training", head_start=head_start, baseline=False)


def test_a_tensor_that_saving_loses_is_refused(ready: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is on both sides of PEFT's own extraction: only the live modules know."""
    import peft
    from peft import peft_model

    extract = peft_model.get_peft_model_state_dict

    def lossy(*args: Any, **kwargs: Any) -> Any:
        return {name: tensor for name, tensor in extract(*args, **kwargs).items() if ".layers.2." not in name}

    monkeypatch.setattr(peft_model, "get_peft_model_state_dict", lossy)
    monkeypatch.setattr(peft, "get_peft_model_state_dict", lossy)
    refused(ready, "trained tensors are not in the saved folder")


def test_a_bfloat16_training_is_proved_in_float32(ready: Workspace) -> None:
    trained = reward.train(ready, reward.RewardSettings(**{**SETTINGS, "dtype": "bfloat16"}))
    probe = registry.open_version(ready, trained.version).manifest["probe"]
    assert probe["largest_difference"] <= 1e-4
    again = reward.score_items(ready, trained.version, [])
    assert list(again) == []


def test_a_pair_that_the_template_cannot_tell_apart_is_counted(ready: Workspace, tiny_folder: Path) -> None:
    """A template that trims: the two replies differ in space at the end only."""
    from rlhf.engine.bases import Base
    from rlhf.engine.rendering import Renderer
    from rlhf.records import Judgement, Message, Pair, SnapshotRow
    from rlhf.reward.rows import training_rows

    tokenizer = Base("tiny", "0" * 64, tiny_folder, "", "", {}, {}).tokenizer()
    tokenizer.chat_template = tokenizer.chat_template.replace("message['content']", "message['content'] | trim")
    renderer = Renderer(tokenizer, 500)
    rows = []
    for prompt, one, other in (([Message("user", "p")], "yes", "yes "), ([Message("user", "q")], "yes", "no")):
        pair = Pair.of(prompt, one, other)
        rows.append(SnapshotRow(pair, (Judgement(pair.id, "a", "s"),), "train", ("s",), pair.id))
    taken, counts = training_rows(rows, renderer, "soft", 0.0)
    assert (counts.same, counts.trained_on, len(taken)) == (1, 1, 1)
    tokenizer.chat_template = "{{ raise_exception('no such turns') }}"
    _, counts = training_rows(rows, Renderer(tokenizer, 500), "soft", 0.0)
    assert (counts.refused, counts.trained_on) == (2, 0)


def test_from_keeps_the_parents_shape(ready: Workspace) -> None:
    first = reward.train(ready, reward.RewardSettings(**{**SETTINGS, "dtype": "float32"}))
    chosen = {**SETTINGS, "dtype": "float32", "lora_r": 64, "from_version": str(first.version)}
    second = reward.train(ready, reward.RewardSettings(**chosen))
    assert registry.open_version(ready, second.version).manifest["settings"]["lora_r"] == 4


def test_a_learning_rate_of_the_first_step_trains(ready: Workspace) -> None:
    """A linear warm-up begins at 0: in a run of one step nothing would be learnt."""
    trained = reward.train(ready, reward.RewardSettings(**{**SETTINGS, "dtype": "float32", "max_steps": 1}))
    opened = registry.open_version(ready, trained.version)
    from safetensors.torch import load_file

    tensors = load_file(opened.folder / "adapter_model.safetensors")
    assert any(torch.count_nonzero(tensor) for name, tensor in tensors.items() if "lora_B" in name)


def test_settings_that_cannot_work_are_refused_before_a_run_starts(ready: Workspace) -> None:
    from pydantic import ValidationError

    from rlhf.errors import BadUsage

    with pytest.raises(BadUsage, match="no tracker"):
        reward.train(ready, reward.RewardSettings(**{**SETTINGS, "report_to": "nosuch"}))
    with pytest.raises(BadUsage, match="tiny has 3 layers"):
        reward.train(ready, reward.RewardSettings(**{**SETTINGS, "top_layers": 100}))
    with pytest.raises(ValidationError, match="seed"):
        reward.RewardSettings(**{**SETTINGS, "seed": 10**20})
    assert not list(runs.list_runs(ready))


def test_the_same_training_under_another_name_says_that_it_is_there(ready: Workspace) -> None:
    first = reward.train(ready, reward.RewardSettings(**SETTINGS))
    again = reward.train(ready, reward.RewardSettings(**{**SETTINGS, "name": "other"}))
    assert (first.is_new, again.is_new) == (True, False)
    assert again.version == first.version

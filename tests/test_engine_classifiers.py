"""Other decoders than Llama, and bases that are not whole: packed where that is right, padded where not, refused where neither."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from rlhf.engine import classifiers, rewards, scoring
from rlhf.engine.bases import Base
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.errors import BadInput

CPU = Placement("cpu", "float32", "test")
SMALL = {
    "vocab_size": 259,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}
GROUPED = {**SMALL, "num_key_value_heads": 2}
KINDS: dict[str, tuple[str, dict[str, Any], str]] = {
    "qwen2": ("Qwen2", GROUPED, "packed"),
    "qwen3": ("Qwen3", {**GROUPED, "head_dim": 8}, "packed"),
    "phi3": ("Phi3", {**GROUPED, "pad_token_id": 2}, "packed"),
    "mistral, sliding": ("Mistral", {**GROUPED, "sliding_window": 4}, "sdpa"),
    "gemma2, soft caps": ("Gemma2", {**GROUPED, "head_dim": 8}, "eager"),
    "gpt2, Conv1D": (
        "GPT2",
        {"vocab_size": 259, "n_embd": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 1, "eos_token_id": 2},
        "packed",
    ),
}


def base_of(folder: Path, tiny: Path, kind: str, options: dict[str, Any]) -> Base:
    """A tiny random model of that architecture beside the tiny tokenizer."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**options)
    name = f"{kind}LMHeadModel" if kind == "GPT2" else f"{kind}ForCausalLM"
    getattr(transformers, name)(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(tiny / file, folder / file)
    return Base(kind, "0" * 64, folder, "", "", {"architecture": name}, {})


@pytest.mark.parametrize("name", KINDS)
def test_other_decoders_score_together_as_alone(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    kind, options, attention = KINDS[name]
    base = base_of(tmp_path / "base", tiny_folder, kind, options)
    model = rewards.fresh(base, CPU, rewards.LoraShape(4, 8, 0.0, 0), seed=1)
    for parameter_name, parameter in model.named_parameters():
        if "lora_B" in parameter_name or "score.modules_to_save" in parameter_name:
            torch.nn.init.normal_(parameter, std=0.5)
    assert scoring.attention_of(model) == attention
    groups = [Group((1, 7, 8, 9, 3), ((9, 4, 2, 6), (9, 5))), Group((5,), ((6,), (7, 8, 11, 12, 13)))]
    together = [score for row in scoring.score(model, groups) for score in row]
    alone = [scoring.score(model, [Group(g.prefix, (r,))])[0][0] for g in groups for r in g.replies]
    assert together == pytest.approx(alone, abs=1e-4)
    assert len(set(together)) == 4


def test_a_base_that_lacks_tensors_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """transformers would draw them at random and say so in a report that everybody has learnt to pass over."""
    shutil.copytree(tiny_folder, tmp_path / "holed")
    weights = load_file(tmp_path / "holed" / "model.safetensors")
    del weights["model.layers.1.mlp.down_proj.weight"]
    save_file(weights, tmp_path / "holed" / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(BadInput, match=r"lacks 1 tensors.*down_proj"):
        classifiers.classifier(Base("holed", "0" * 64, tmp_path / "holed", "", "", {}, {}), CPU, seed=0)


def test_a_model_that_drops_the_packing_is_padded(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.models.llama import modeling_llama

    forward = modeling_llama.LlamaAttention.forward

    def deaf(self: Any, *args: Any, packing: Any = None, **kwargs: Any) -> Any:
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(modeling_llama.LlamaAttention, "forward", deaf)
    model = classifiers.classifier(Base("tiny", "0" * 64, tiny_folder, "", "", {}, {}), CPU, seed=0)
    assert scoring.attention_of(model) == "sdpa"


def test_a_bfloat16_body_scores_near_float32_and_answers_stock_calls(tiny_folder: Path) -> None:
    base = Base("tiny", "0" * 64, tiny_folder, "", "", {}, {})
    group = [Group((1, 7, 8), ((9, 4, 2), (9, 5)))]
    wide, narrow = (
        rewards.fresh(base, Placement("cpu", dtype, "test"), rewards.LoraShape(4, 8, 0.0, 0), seed=1)
        for dtype in ("float32", "bfloat16")
    )
    assert scoring.score(narrow, group)[0] == pytest.approx(scoring.score(wide, group)[0], abs=5e-3)
    assert scoring.scores_of(narrow, group).dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in narrow.parameters() if p.requires_grad)
    with torch.no_grad():
        assert narrow(input_ids=torch.tensor([[1, 7, 8]])).logits.shape == (1, 1)

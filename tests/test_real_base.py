"""The real base and real preferences: the same promises where the traps are (pad == eos, a template with a system message)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from peft import AutoPeftModelForSequenceClassification
from transformers import AutoTokenizer

from rlhf import engine, evaluation, feedback, registry, reward, snapshots
from rlhf.engine import packing, rewards, scoring
from rlhf.engine.exporting import stock_tokenizer
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.rendering import Renderer
from rlhf.records import Message, Pair
from rlhf.registry import aliases
from rlhf.store import Workspace

pytestmark = [pytest.mark.real, pytest.mark.slow]
FOLDER = Path(__file__).parent.parent / ".bases" / "smollm2-135m"
CPU = Placement("cpu", "float32", "test")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with SmolLM2-135M-Instruct in it."""
    if not (FOLDER / "config.json").exists():
        pytest.skip("the real base is not there: run scripts/setup")
    workspace = Workspace.create(tmp_path_factory.mktemp("real") / "ws", actor="tester")
    engine.add_from_dir(workspace, "smollm2-135m", FOLDER)
    yield workspace
    workspace.close()


PAIRS = [
    Pair.of([Message("user", "Name three rivers.")], "The Nile, the Danube and the Amazon.", "No."),
    Pair.of(
        [Message("system", "Be brief."), Message("user", "How do I boil an egg?")],
        "Seven minutes in boiling water.",
        "I don't know",
    ),
    Pair.of(
        [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "Tell me a joke.")],
        "Knock knock.",
        "Knock knock, who's there?",
    ),
]


def test_packed_equals_padded_on_the_real_base(real: Workspace) -> None:
    """Promise 3: scores to 1e-4, gradients to 1e-4 of their norm, in float32."""
    base = engine.get(real, "smollm2-135m")
    renderer = Renderer(base.tokenizer(), 1024)
    groups = [Group(r.prefix, (r.a, r.b)) for pair in PAIRS if (r := renderer.pair(pair))]
    model = rewards.fresh(base, CPU, rewards.LoraShape(16, 32, 0.0, 0), seed=1)
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.02)
    found = []
    for attention in (packing.NAME, "sdpa"):
        model.get_base_model().set_attn_implementation(attention)
        model.zero_grad()
        scores = scoring.scores_of(model, groups)
        scores.square().sum().backward()
        found.append((scores.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])))
    (packed_scores, packed_gradient), (padded_scores, padded_gradient) = found
    assert torch.allclose(packed_scores, padded_scores, atol=1e-4)
    assert (packed_gradient - padded_gradient).norm() <= 1e-4 * padded_gradient.norm()


def test_prompt_and_reply_are_scored_where_stock_code_scores_them(real: Workspace) -> None:
    """The template ends in a newline after the end token, which is the pad token: the last rendered token is read."""
    base = engine.get(real, "smollm2-135m")
    renderer = Renderer(base.tokenizer(), 1024)
    rendered = renderer.pair(PAIRS[0])
    assert rendered is not None
    text = renderer.tokenizer.decode(rendered.prefix + rendered.a)
    assert text.endswith("<|im_end|>\n")
    assert "You are a helpful AI assistant named SmolLM" in text
    assert renderer.tokenizer.pad_token_id == renderer.tokenizer.eos_token_id


@pytest.mark.shared
def test_real_preferences_become_a_trusted_version(real: Workspace, shared_data: Path, tmp_path: Path) -> None:
    """Import, snapshot, a few steps, publication, stock PEFT, evaluation, alias, rollback: the main job, cut short."""
    receipt = feedback.import_files(real, [shared_data / "hh_harmless.jsonl.gz"])
    assert receipt.accepted + receipt.duplicates + receipt.rejected == receipt.rows == 1769
    snapshot = snapshots.cut(real, "hh", holdout=0.03)
    settings = {
        "name": "hh",
        "snapshot": "hh",
        "base": "smollm2-135m",
        "top_layers": 2,
        "pairs_per_step": 4,
        "max_length": 256,
    }
    first = reward.train(real, reward.RewardSettings(**settings, max_steps=3))
    second = reward.train(real, reward.RewardSettings(**settings, max_steps=6))
    assert snapshot.splits["test"] > 20

    item = reward.score_items(real, second.version, [reward_item()])
    score = next(iter(item))["score"]
    base = engine.get(real, "smollm2-135m")
    folder = registry.export_folder(
        real, second.version, tmp_path / "out", base_path=str(base.folder), extra_files=stock_tokenizer(base)
    )
    stock = AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels=1).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.pad_token_id != tokenizer.eos_token_id
    stock.config.pad_token_id = tokenizer.pad_token_id
    chats = [
        [{"role": "user", "content": "How do I boil an egg?"}, {"role": "assistant", "content": reply}]
        for reply in (
            "Seven minutes in boiling water.",
            "I do not know, and I would rather talk about something else entirely.",
        )
    ]
    batch = tokenizer(
        [tokenizer.apply_chat_template(chat, tokenize=False) for chat in chats],
        add_special_tokens=False,
        padding=True,
        return_tensors="pt",
    )
    with torch.no_grad():
        assert stock(**batch).logits[0].item() == pytest.approx(score, abs=1e-3)

    report = evaluation.evaluate(real, [str(first.version), str(second.version)], "hh")
    assert {str(first.version), str(second.version)} == set(report.figures)
    aliases.move(real, "hh@champion", str(first.version), why="first")
    aliases.move(real, "hh@champion", str(second.version), why="second")
    assert aliases.roll_back(real, "hh@champion", why="to test it").to_digest == first.version.digest
    assert registry.resolve(real, "hh@champion") == first.version


def reward_item() -> object:
    from rlhf.reward.score import Item

    return Item("egg", (Message("user", "How do I boil an egg?"),), "Seven minutes in boiling water.")

"""Replies of a policy in training: from its own distribution, with its own log-probabilities, never from weights of before."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import MethodType
from typing import Any

import numpy as np
import pytest
import torch
from live_versions import CPU, base_in, drawn
from peft import LoraConfig, get_peft_model
from scipy.stats import chisquare
from test_engine_classifiers import KINDS, base_of

from rlhf.engine import on_policy, policies
from rlhf.engine.bases import Base
from rlhf.engine.on_policy import OnPolicy, Reply
from rlhf.engine.placement import Placement
from rlhf.engine.rewards import LoraShape
from rlhf.engine.sampling import Sampling
from rlhf.errors import BadInput

SAME = 1e-4
PROMPTS = [[5, 9, 30, 31, 32, 33, 34, 35, 36, 37], [7, 8], [7, 8, 100, 101], [7, 8], [7, 8]]
SEEDS = list(range(len(PROMPTS)))


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


def policy_on(base: Base, place: Placement = CPU, *, seed: int = 1, std: float = 0.3, top_layers: int = 0) -> Any:
    return drawn(policies.fresh(base, place, LoraShape(4, 8, 0.1, top_layers), seed=seed), seed, std)


def said_by(model: Any, prompt: Sequence[int], reply: Sequence[int], temperature: float = 1.0) -> torch.Tensor:
    """Log-probabilities of a reply's tokens by a plain forward of the PEFT model."""
    with torch.no_grad():
        logits = model.eval()(input_ids=torch.tensor([[*prompt, *reply]])).logits[0, len(prompt) - 1 : -1]
    logp: torch.Tensor = (logits.float() / temperature).log_softmax(-1)
    return logp.gather(1, torch.tensor([list(reply)]).T)[:, 0]


def farthest(model: Any, replies: Sequence[Reply], temperature: float = 1.0) -> float:
    pairs = zip(PROMPTS, replies, strict=True)
    return max(float((said_by(model, p, r.ids, temperature) - torch.tensor(r.logps)).abs().max()) for p, r in pairs)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.7, 0.8)])
@pytest.mark.parametrize("top_layers", [0, 1])
def test_replies_have_the_policys_own_log_probabilities_before_and_after_it_moved(
    base: Base, temperature: float, top_p: float, top_layers: int
) -> None:
    """And none has those of the weights of before: of the same chance come other replies, which the old weights rate otherwise."""
    model = policy_on(base, std=0.0, top_layers=top_layers)
    engine = OnPolicy(model)
    sampling = Sampling(12, temperature, top_p)
    first = engine.draw(PROMPTS, SEEDS, sampling, ())
    assert farthest(model, first, temperature) < SAME
    drawn(model, 2)
    second = engine.draw(PROMPTS, SEEDS, sampling, ())
    assert farthest(model, second, temperature) < SAME
    assert farthest(model, first, temperature) > 0.1, "the weights moved"
    assert all(len(reply.ids) == len(reply.logps) == 12 for reply in (*first, *second))


@pytest.mark.parametrize("name", KINDS)
def test_other_decoders_say_the_same_or_are_refused(name: str, tiny_folder: Path, tmp_path: Path) -> None:
    kind, options, _ = KINDS[name]
    model = policy_on(base_of(tmp_path / "base", tiny_folder, kind, options))
    if "sliding" in name:
        with pytest.raises(BadInput, match="the base takes 4"):
            OnPolicy(model)
    else:
        assert farthest(model, OnPolicy(model).draw(PROMPTS, SEEDS, Sampling(6), ())) < SAME


def test_a_bfloat16_policy_speaks_in_bfloat16(base: Base) -> None:
    model = policy_on(base, Placement("cpu", "bfloat16", "tests"), std=0.1)
    engine = OnPolicy(model)
    assert engine.batch.keys.like.dtype == torch.bfloat16
    assert farthest(model, engine.draw(PROMPTS, SEEDS, Sampling(6), ())) < 0.1


def test_a_reply_depends_on_its_prompt_and_its_seed_alone(base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    """Alone, beside others, in another order, and where there is room for two at a time."""
    engine = OnPolicy(policy_on(base))
    together = engine.draw(PROMPTS, SEEDS, Sampling(10), (40, 41, 42))
    alone = [engine.draw([p], [s], Sampling(10), (40, 41, 42))[0] for p, s in zip(PROMPTS, SEEDS, strict=True)]
    backwards = engine.draw(PROMPTS[::-1], SEEDS[::-1], Sampling(10), (40, 41, 42))[::-1]
    monkeypatch.setattr(on_policy, "_ROWS", 2)
    by_two = engine.draw(PROMPTS, SEEDS, Sampling(10), (40, 41, 42))
    for other in (alone, backwards, by_two):
        assert [reply.ids for reply in other] == [reply.ids for reply in together]
    assert together[1].ids != together[3].ids, "equal prompts, other seeds"


def test_a_reply_ends_with_its_first_end_token_or_is_cut_off(base: Base) -> None:
    engine = OnPolicy(policy_on(base))
    whole = engine.draw(PROMPTS, SEEDS, Sampling(12), ())
    end = whole[0].ids[3]
    for reply, full in zip(engine.draw(PROMPTS, SEEDS, Sampling(12), (end,)), whole, strict=True):
        stop = full.ids.index(end) + 1 if end in full.ids else 12
        assert reply.ids == full.ids[:stop] and reply.logps == pytest.approx(full.logps[:stop], abs=SAME)


def test_nothing_of_a_draw_is_kept_for_the_next(base: Base) -> None:
    engine = OnPolicy(policy_on(base))
    engine.draw(PROMPTS, SEEDS, Sampling(4), ())
    assert not engine.batch.rows and engine.batch.keys.k.numel() == 0
    assert not any(engine.batch.prefixes.has(None, prompt) for prompt in PROMPTS)


def test_the_policy_itself_is_untouched_and_a_trainers_patch_is_not_taken_over(base: Base) -> None:
    model = policy_on(base)
    plain = model.get_base_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    wanted, attention = said_by(model, PROMPTS[0], [3, 4, 5]), plain.config._attn_implementation

    def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError("the trainer's model ran")

    plain.forward = MethodType(patched, plain)
    twin = on_policy.beside(model)
    del plain.forward
    twin(input_ids=torch.tensor([[1, 2]]))
    assert twin.get_input_embeddings().weight is model.get_input_embeddings().weight
    OnPolicy(model).draw(PROMPTS, SEEDS, Sampling(3), ())
    after = model.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    assert torch.equal(said_by(model, PROMPTS[0], [3, 4, 5]), wanted)
    assert plain.config._attn_implementation == attention


@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings")
def test_more_than_a_lora_on_linear_layers_is_refused(base: Base) -> None:
    for more in ({"use_dora": True}, {"target_modules": ["q_proj", "embed_tokens"]}):
        config = LoraConfig(**{"r": 2, "target_modules": ["q_proj"], "task_type": "CAUSAL_LM", **more})
        with pytest.raises(BadInput):
            OnPolicy(get_peft_model(policies.bare(base, CPU), config))


# The distribution


def shares(logits: torch.Tensor, temperature: float, top_p: float, n: int = 20_000) -> torch.Tensor:
    """How often each token is drawn where chance is an even grid."""
    chance = (torch.arange(n, dtype=torch.float64) + 0.5) / n
    tokens = torch.cat(
        [on_policy.drawn(logits.expand(len(part), -1), part, temperature, top_p)[0] for part in chance.split(2000)]
    )
    return tokens.bincount(minlength=logits.shape[-1]) / n


@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("n_words", [7, 256, 700])
def test_tokens_are_drawn_with_their_probabilities(n_words: int, temperature: float) -> None:
    logits = 3 * torch.randn(1, n_words, generator=torch.Generator().manual_seed(n_words))
    logits[0, ::5] = -torch.inf
    found, wanted = shares(logits, temperature, 1.0), (logits[0] / temperature).softmax(-1)
    assert (found - wanted).abs().max() < 1.1e-4
    assert found[wanted == 0].sum() == 0


@pytest.mark.parametrize("n_words", [7, 700])
def test_top_p_leaves_the_likeliest_that_hold_it(n_words: int) -> None:
    logits = torch.randn(1, n_words, generator=torch.Generator().manual_seed(n_words))
    share, order = logits[0].softmax(-1).sort(descending=True)
    kept = share.cumsum(0) - share < 0.9
    wanted = torch.zeros(n_words).scatter(0, order, share * kept / share[kept].sum())
    found = shares(logits, 1.0, 0.9)
    assert (found - wanted).abs().max() < 1.1e-4 and found[wanted == 0].sum() == 0


def test_the_ends_of_chance_draw_tokens_that_can_be_drawn() -> None:
    logits = torch.full((2, 600), -torch.inf)
    logits[:, [3, 300]] = 0.0
    tokens, logps = on_policy.drawn(logits, torch.tensor([0.0, np.nextafter(1.0, 0.0)]), 1.0, 1.0)
    assert tokens.tolist() == [3, 300] and logps.tolist() == pytest.approx([np.log(0.5)] * 2)


def test_first_tokens_are_distributed_as_the_policy_says(base: Base) -> None:
    """2,000 replies of one token to one prompt against the softmax of a plain forward, chi-square, seeded."""
    model = policy_on(base)
    replies = OnPolicy(model).draw([PROMPTS[0]] * 2000, range(2000), Sampling(1), ())
    with torch.no_grad():
        share = model.eval()(input_ids=torch.tensor([PROMPTS[0]])).logits[0, -1].double().softmax(-1).numpy()
    seen = np.bincount([reply.ids[0] for reply in replies], minlength=len(share))
    often = share * 2000 >= 5
    found, wanted = [*seen[often], seen[~often].sum()], [*share[often], share[~often].sum()]
    assert often.sum() > 10 and chisquare(found, np.array(wanted) / np.sum(wanted) * 2000).pvalue > 0.01

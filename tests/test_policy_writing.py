"""Replies: the same seed the same replies, whoever stands beside them; the best of several; never another's answer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from policies import manifest

from rlhf import policy, registry, reward
from rlhf.engine import bases, generation
from rlhf.engine import policies as engine_policies
from rlhf.engine.placement import Placement
from rlhf.errors import BadInput, BadUsage, Damaged, NotFound, RlhfError
from rlhf.policy import Prompt, Sampling
from rlhf.records import Message
from rlhf.registry import aliases
from rlhf.reward.score import Item
from rlhf.store import Workspace

CPU = Placement("cpu", "float32", "tests")
FEW = Sampling(max_new_tokens=10, seed=4)


def asked(*texts: str) -> list[Prompt]:
    return [Prompt(f"id{i}", (Message("user", text),)) for i, text in enumerate(texts)]


PROMPTS = asked("Hi?", "Question 3 about red and blue?", "Why?", "A longer question, of which the end is not near?")


def test_the_same_seed_gives_the_same_replies_whatever_stands_beside_them(policies: Workspace) -> None:
    together = policy.replies(policies, "start@1", PROMPTS, FEW)
    assert [reply.prompt for reply in together] == PROMPTS
    turned = policy.replies(policies, "start@1", PROMPTS[::-1], FEW)[::-1]
    alone = [policy.replies(policies, "start@1", [prompt], FEW)[0] for prompt in PROMPTS[:2]]
    for one, other in [*zip(together, turned, strict=True), *zip(together, alone, strict=False)]:
        assert (one.text, one.n_tokens, one.cut_off) == (other.text, other.n_tokens, other.cut_off)
        assert (one.logp, one.logp_base) == pytest.approx((other.logp, other.logp_base), abs=1e-4)
    assert len({reply.text for reply in together}) == 4
    other_seed = policy.replies(policies, "start@1", PROMPTS, Sampling(10, seed=5))
    assert all(one.text != other.text for one, other in zip(together, other_seed, strict=True))


def test_log_probabilities_are_those_of_the_writer_and_of_the_base(policies: Workspace) -> None:
    base = bases.get(policies, "tiny")
    version = engine_policies.load(
        registry.open_version(policies, registry.resolve(policies, "start@1")).folder, base, CPU
    )
    drawn: list[Any] = []
    generate = generation.generate
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generation, "generate", lambda *a, **k: drawn.append((a[1], generate(*a, **k))) or drawn[-1][1])
        found = policy.replies(policies, "start@1", PROMPTS, FEW)
    ((ids, sampled),) = drawn
    tokens = [s.ids for s in sampled]
    own = generation.log_probabilities(version, ids, tokens)
    bare = generation.log_probabilities(engine_policies.bare(base, CPU), ids, tokens)
    assert [reply.logp for reply in found] == pytest.approx(own, abs=1e-4)
    assert [reply.logp_base for reply in found] == pytest.approx(bare, abs=1e-4)
    assert max(abs(a - b) for a, b in zip(own, bare, strict=True)) > 0.05
    assert [reply.n_tokens for reply in found] == [len(row) for row in tokens]


def test_the_bare_base_answers_by_its_own_name_alone(policies: Workspace) -> None:
    found = policy.replies(policies, "base:tiny", PROMPTS, FEW)
    assert all(reply.logp == reply.logp_base for reply in found)
    by_policy = policy.replies(policies, "start@1", PROMPTS, FEW)
    assert [reply.text for reply in found] != [reply.text for reply in by_policy]
    ref = policy.resolve_policy(policies, "base:tiny")
    assert (
        ref.is_base and ref.text == "base:tiny" and ref.digest == ref.base_digest == bases.get(policies, "tiny").digest
    )


def test_a_policy_is_named_by_number_alias_or_digest(policies: Workspace) -> None:
    aliases.move(policies, "start@champion", "start@1", why="the first")
    version = registry.resolve(policies, "start@1")
    texts = set()
    for name in ("start@1", "start@champion", f"sha256:{version.digest[:12]}"):
        ref = policy.resolve_policy(policies, name)
        assert (ref.text, ref.digest, ref.ref, ref.is_base) == ("start@1", version.digest, version, False)
        assert ref.base_digest == manifest(policies, version)["base"]["digest"]
        texts.add(policy.replies(policies, name, PROMPTS[:1], FEW)[0].text)
    assert len(texts) == 1


@pytest.mark.parametrize("n", [2, 5])
def test_best_of_n_is_the_reply_with_the_most_points(policies: Workspace, n: int) -> None:
    """The points are `reward score`'s of the kept text, the first sample is one of the n, and more samples never do worse."""
    best = policy.replies(policies, "start@1", PROMPTS, FEW, best_of=n, reward="r@1")
    plain = policy.replies(policies, "start@1", PROMPTS, FEW)
    score = lambda replies: [  # noqa: E731
        row["score"]
        for row in reward.score_items(
            policies, "r@1", [Item(i, r.prompt.messages, r.text) for i, r in enumerate(replies)]
        )
    ]
    assert [reply.points for reply in best] == pytest.approx(score(best), abs=1e-4)
    assert all(points >= first - 1e-4 for points, first in zip(score(best), score(plain), strict=True))
    assert any(points > first + 1e-3 for points, first in zip(score(best), score(plain), strict=True))
    assert {reply.points for reply in plain} == {None}


def test_best_of_n_looks_at_all_n(policies: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge sees n replies to each prompt, and whichever it prefers is kept: the last one too, an unscorable one never."""
    from rlhf.policy.scored import Rewards, Scored

    seen: list[list[str]] = []
    for wanted in range(3):

        def score(self: Rewards, replies: Any, wanted: int = wanted) -> list[Scored]:
            seen.append([reply.text for reply in replies])
            row = lambda i: (-1.0 if i % 3 == wanted else -2.0) if i % 3 != (wanted + 1) % 3 else None  # noqa: E731
            return [Scored(row(i), (row(i),)) for i in range(len(replies))]

        monkeypatch.setattr(Rewards, "score", score)
        found = policy.replies(policies, "start@1", PROMPTS, FEW, best_of=3, reward="r@1")
        assert [reply.text for reply in found] == seen[-1][wanted::3]
    assert seen[0] == seen[1] == seen[2] and len(set(seen[0])) == 12


def test_best_of_n_by_the_bare_base(policies: Workspace) -> None:
    best = policy.replies(policies, "base:tiny", PROMPTS, FEW, best_of=3, reward="r@1")
    items = [Item(i, reply.prompt.messages, reply.text) for i, reply in enumerate(best)]
    scores = [row["score"] for row in reward.score_items(policies, "r@1", items)]
    assert [reply.points for reply in best] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("r@1", BadInput),
        ("start@9", NotFound),
        ("nobody@1", NotFound),
        ("start@champion", NotFound),
        ("base:huge", NotFound),
        ("sha256:" + "0" * 12, NotFound),
        ("start", RlhfError),
        ("tiny", RlhfError),
        ("base:", RlhfError),
    ],
)
def test_an_unknown_name_or_a_reward_is_never_answered_by_another(
    policies: Workspace, name: str, error: type[Exception]
) -> None:
    with pytest.raises(error):
        policy.replies(policies, name, PROMPTS, FEW)
    with pytest.raises(error):
        policy.resolve_policy(policies, name)


def test_a_changed_byte_is_no_answer(policies: Workspace) -> None:
    path = registry.open_version(policies, registry.resolve(policies, "start@1")).folder / "adapter_model.safetensors"
    raw = path.read_bytes()
    path.write_bytes(raw[:-4] + b"\x00\x00\x00\x01")
    with pytest.raises(Damaged):
        policy.replies(policies, "start@1", PROMPTS, FEW)


def test_a_retired_version_still_writes_what_it_wrote(policies: Workspace) -> None:
    before = policy.replies(policies, "start@1", PROMPTS[:2], FEW)
    registry.retire(policies, "start@1")
    assert policy.replies(policies, "start@1", PROMPTS[:2], FEW) == before


def test_a_prompt_that_is_too_long_is_refused_and_named(policies: Workspace) -> None:
    with pytest.raises(BadInput, match=r"1 of 2 prompts .*1 too long for 4096 tokens.* first id1") as refused:
        policy.replies(policies, "start@1", asked("short?", "x" * 5000), FEW)
    assert "--max-new-tokens" in (refused.value.fix or "")


@pytest.mark.parametrize(
    ("more", "sampling"),
    [
        ({"best_of": 3}, FEW),
        ({"reward": "r@1"}, FEW),
        ({"best_of": 2, "reward": "r@1"}, Sampling(4, temperature=0.0)),
    ],
)
def test_best_of_n_without_sense_is_wrong_usage(policies: Workspace, more: dict[str, Any], sampling: Sampling) -> None:
    with pytest.raises(BadUsage):
        policy.replies(policies, "start@1", PROMPTS, sampling, **more)


def test_what_chooses_the_best_must_be_a_reward(policies: Workspace) -> None:
    with pytest.raises(BadInput, match="reward"):
        policy.replies(policies, "start@1", PROMPTS, FEW, best_of=2, reward="start@1")


def test_no_prompt_is_no_reply(policies: Workspace) -> None:
    assert policy.replies(policies, "start@1", [], FEW) == []


def test_progress_is_told_in_parts(policies: Workspace, tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    prompts = asked(*(f"{i}?" for i in range(33)))
    policy.replies(policies, "base:tiny", prompts, Sampling(1), on_progress=lambda done, n: told.append((done, n)))
    assert told == [(32, 33), (33, 33)]

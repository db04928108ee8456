"""Replies by a published policy or a bare base, each naming what wrote it; the best of several by a reward, if asked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf import registry
from rlhf.engine import bases, generation, policies
from rlhf.engine.placement import Placement, choose
from rlhf.engine.policies import switched
from rlhf.engine.rendering import Renderer
from rlhf.engine.sampling import Sampling
from rlhf.errors import BadInput, BadUsage, NotFound
from rlhf.policy.naming import PolicyRef, resolve_policy
from rlhf.policy.prompts import Prompt, RenderedPrompt, rendered
from rlhf.policy.scored import Drawn, Points, Rewards
from rlhf.store import Workspace

Progress = Callable[[int, int], None]
_CHUNK = 32
MAX_LENGTH = 4096  # tokens of prompt and reply together, or the base's own limit if that is less


@dataclass(frozen=True, slots=True)
class Reply:
    """One sampled reply. logp: sum of its tokens' log-probabilities (nats, temperature 1) under what wrote it; logp_base: under
    the bare base. Their difference estimates the KL to the base from one sample. points: by the reward that chose it, if one did.
    """

    prompt: Prompt
    text: str
    n_tokens: int
    cut_off: bool
    logp: float
    logp_base: float
    points: float | None = None


@dataclass(frozen=True)
class OpenPolicy:
    """A policy on its base, ready to write. model: a PEFT model, or the bare base."""

    ref: PolicyRef
    base: bases.Base
    model: Any
    renderer: Renderer


def open_policy(
    workspace: Workspace, text: str, place: Placement | None = None, *, max_length: int = MAX_LENGTH
) -> OpenPolicy:
    """Load it, every byte checked. On a CPU the body runs in float32 unless `place` says otherwise. max_length: tokens of
    prompt and reply together."""
    ref = resolve_policy(workspace, text)
    base = bases.by_digest(workspace, ref.base_digest)
    bases.check(workspace, base)
    place = place or choose("auto", "float32")
    if ref.ref is None:
        model = policies.bare(base, place)
    else:
        model = policies.load(registry.open_version(workspace, ref.ref).folder, base, place)
    return OpenPolicy(ref, base, model, _renderer(base, max_length))


def fitting(workspace: Workspace, text: str, prompts: Sequence[Prompt], max_new_tokens: int) -> list[Prompt]:
    """The prompts that this policy or base can answer with a reply of that length, in the order given; loads no model.

    All of them where the base isn't in the workspace: opening it is what says so.
    """
    try:
        base = bases.by_digest(workspace, resolve_policy(workspace, text).base_digest)
    except NotFound:
        return list(prompts)
    fits, _ = rendered(prompts, _renderer(base, MAX_LENGTH), max_new_tokens)
    return [one.prompt for one in fits]


def _renderer(base: bases.Base, max_length: int) -> Renderer:
    config = json.loads((base.folder / "config.json").read_text("utf-8"))
    return Renderer(base.tokenizer(), min(max_length, config.get("max_position_embeddings", max_length)))


def replies(
    workspace: Workspace,
    version: str,
    prompts: Sequence[Prompt],
    sampling: Sampling | None = None,
    *,
    best_of: int = 1,
    reward: str | None = None,
    place: Placement | None = None,
    on_progress: Progress | None = None,
) -> list[Reply]:
    """One reply to each prompt, in the order given. version: `name@7`, `name@alias`, `sha256:…` or `base:NAME`.

    best_of: that many are sampled and the one that `reward` gives most points is kept. The same seed gives the same replies,
    whatever stands beside them. Raises BadInput where a prompt doesn't fit or the template refuses it.
    """
    return list(
        iterate(
            workspace, version, prompts, sampling, best_of=best_of, reward=reward, place=place, on_progress=on_progress
        )
    )


def iterate(
    workspace: Workspace,
    version: str,
    prompts: Sequence[Prompt],
    sampling: Sampling | None = None,
    *,
    best_of: int = 1,
    reward: str | None = None,
    place: Placement | None = None,
    on_progress: Progress | None = None,
) -> Iterator[Reply]:
    """`replies`, each as soon as its part of the prompts is written."""
    sampling = sampling or Sampling()
    if (best_of > 1) != (reward is not None):
        raise BadUsage(
            "best-of-n wants a number above 1 and a reward that chooses", fix="give both --best-of N and --reward V"
        )
    if best_of > 1 and sampling.temperature == 0:
        raise BadUsage("at temperature 0 all replies are the same; there is no best of them", fix="raise --temperature")
    policy = open_policy(workspace, version, place)
    fits, counts = rendered(prompts, policy.renderer, sampling.max_new_tokens)
    if len(fits) < len(prompts):
        known = {id(one.prompt) for one in fits}
        lost = next(prompt for prompt in prompts if id(prompt) not in known)
        raise BadInput(
            f"{len(prompts) - len(fits)} of {len(prompts)} prompts can't be answered ({counts['too_long']} too long for "
            f"{policy.renderer.max_length} tokens with the reply, {counts['refused']} refused by the template), first {lost.id}",
            fix="shorten them or lower --max-new-tokens",
        )
    judge = _judge(workspace, policy, reward) if reward is not None else None
    done = 0
    for start in range(0, len(fits), _CHUNK):
        chunk = fits[start : start + _CHUNK]
        yield from _written(policy, chunk, sampling, best_of, judge)
        done += len(chunk)
        if on_progress:
            on_progress(done, len(fits))


def _judge(workspace: Workspace, policy: OpenPolicy, reward: str) -> Rewards:
    """The reward on the policy's own base where it fits there (a bare base carries no adapters: then beside it)."""
    from rlhf.reward.opening import shared_on
    from rlhf.reward.score import open_reward

    opened = registry.open_version(workspace, registry.resolve(workspace, reward, role="reward"))
    max_length = int(opened.manifest["settings"].get("max_length", 1024))
    renderer = Renderer(policy.base.tokenizer(), max_length)
    if policy.ref.is_base or opened.manifest["base"]["digest"] != policy.base.digest:
        alone = open_reward(workspace, opened.ref)
        return Rewards([(alone, alone.renderer)], Points((1.0,)), 4096)
    shared = shared_on(policy.model, workspace, opened, "reward0")
    return Rewards([(shared, renderer)], Points((1.0,)), 4096)


def _written(
    policy: OpenPolicy, prompts: Sequence[RenderedPrompt], sampling: Sampling, best_of: int, judge: Rewards | None
) -> Iterator[Reply]:
    rows = [(prompt, k) for prompt in prompts for k in range(best_of)]
    seeds = [generation.seed_of(sampling.seed, "reply", prompt.prompt.digest, str(k)) for prompt, k in rows]
    sampled = generation.generate(policy.model, [prompt.ids for prompt, _ in rows], seeds, sampling)
    decode = policy.renderer.tokenizer.decode
    drawn = [
        Drawn(prompt.kept, decode(s.ids, skip_special_tokens=True), len(s.ids), s.cut_off)
        for (prompt, _), s in zip(rows, sampled, strict=True)
    ]
    points: list[float | None] = [None] * len(rows)
    if judge is not None:
        points = [scored.points for scored in judge.score(drawn)]
    chosen = [
        max(range(i * best_of, (i + 1) * best_of), key=lambda row: (points[row] is not None, points[row] or 0.0, -row))
        for i in range(len(prompts))
    ]
    ids = [prompt.ids for prompt in prompts]
    tokens = [sampled[row].ids for row in chosen]
    own = generation.log_probabilities(policy.model, ids, tokens)
    base = own
    if not policy.ref.is_base:
        with switched(policy.model, None):
            base = generation.log_probabilities(policy.model, ids, tokens)
    for prompt, row, logp, logp_base in zip(prompts, chosen, own, base, strict=True):
        reply = drawn[row]
        yield Reply(prompt.prompt, reply.text, reply.n_tokens, reply.cut_off, logp, logp_base, points[row])

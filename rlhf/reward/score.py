"""Scores by a published reward version: single replies, and both sides of pairs. All through the one scorer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf import registry
from rlhf.engine import bases, rewards, scoring
from rlhf.engine.packing import Group, share
from rlhf.engine.placement import Placement, choose
from rlhf.engine.rendering import RenderedPair, Renderer, Unrendered
from rlhf.errors import BadInput
from rlhf.records import Message, Pair, VersionRef
from rlhf.reward.opening import model_of
from rlhf.store import Workspace

Progress = Callable[[int, int], None]
_CHUNK = 64
_TOKEN_BUDGET = 4096


@dataclass(frozen=True, slots=True)
class PairScore:
    """Scores of both sides; None = can't be scored, and `unscored` says why. n_tokens: of the packed row.

    truncated: oldest turns were dropped. doubt: sd of each score, where the version gives one.
    """

    score_a: float | None
    score_b: float | None
    n_tokens: int
    truncated: bool
    unscored: Unrendered | None = None
    doubt_a: float | None = None
    doubt_b: float | None = None


@dataclass(frozen=True, slots=True)
class Item:
    """One reply to score."""

    id: Any
    prompt: tuple[Message, ...]
    reply: str


@dataclass(frozen=True, slots=True)
class OpenReward:
    """A reward version on its base, ready to score."""

    ref: VersionRef
    model: Any
    renderer: Renderer

    def score(self, groups: Sequence[Group], *, token_budget: int = _TOKEN_BUDGET) -> list[list[float]]:
        """Scores of each group's replies, in the order given; see `engine.scoring.score`."""
        return scoring.score(self.model, groups, token_budget=token_budget)


def open_reward(workspace: Workspace, version: VersionRef | str, place: Placement | None = None) -> OpenReward:
    """Load a version (every byte checked) on its base. On a CPU the body runs in float32 unless `place` says otherwise.

    Raises NotFound, Damaged, or BadInput where it is no reward or doesn't fit its base.
    """
    ref = registry.resolve(workspace, version, role="reward") if isinstance(version, str) else version
    opened = registry.open_version(workspace, ref)
    base = bases.by_digest(workspace, opened.manifest["base"]["digest"])
    bases.check(workspace, base)
    place = place or choose("auto", "float32")
    model = rewards.merged(model_of(workspace, opened, base, place))
    max_length = int(opened.manifest["settings"].get("max_length", 1024))
    return OpenReward(ref, model, Renderer(base.tokenizer(), max_length))


def score_pairs(
    workspace: Workspace,
    version: VersionRef | str,
    pairs: Sequence[Pair],
    on_progress: Progress | None = None,
    dtype: str = "float32",
) -> list[PairScore]:
    """Both sides of each pair, in the order given; what was computed before is read (`reward.kept`). on_progress(done, all). dtype:
    of the body, as `placement.choose` takes it."""
    from rlhf.reward.kept import kept_scores

    ref = registry.resolve(workspace, version, role="reward") if isinstance(version, str) else version
    return kept_scores(workspace, ref, pairs, on_progress, dtype)


def score_with(
    model: Any, renderer: Renderer, pairs: Sequence[Pair], on_progress: Progress | None = None
) -> list[PairScore]:
    """`score_pairs` with a model that is loaded already."""
    rendered = [renderer.pair(pair) for pair in pairs]
    out = [PairScore(None, None, 0, False, r if isinstance(r, str) else None) for r in rendered]
    fits = [(i, r) for i, r in enumerate(rendered) if isinstance(r, RenderedPair)]
    for start in range(0, len(fits), _CHUNK):
        chunk = fits[start : start + _CHUNK]
        scores = scoring.score_with_doubt(model, [Group(r.prefix, (r.a, r.b)) for _, r in chunk])
        for (i, r), ((score_a, doubt_a), (score_b, doubt_b)) in zip(chunk, scores, strict=True):
            out[i] = PairScore(score_a, score_b, r.n_tokens, r.n_dropped_turns > 0, doubt_a=doubt_a, doubt_b=doubt_b)
        if on_progress:
            on_progress(start + len(chunk), len(fits))
    return out


def score_items(
    workspace: Workspace, version: VersionRef | str, items: Sequence[Item], place: Placement | None = None
) -> Iterator[Mapping[str, Any]]:
    """`{"id", "score", "version", "digest"}` for each item in order, and `doubt` where the version gives one.

    Replies to one prompt share its tokens in the forward, wherever in `items` they stand. A reply that can't be scored has score
    null and `unscored`: "too_long", or "refused" by the chat template.
    """
    yield from score_with_open(open_reward(workspace, version, place), items)


def score_with_open(reward: OpenReward, items: Sequence[Item]) -> Iterator[Mapping[str, Any]]:
    """`score_items` with a version that is open already."""
    found: dict[int, dict[str, Any]] = {}
    n_given = 0
    for chunk in _by_prompt(items):
        found.update(zip(chunk, _scored(reward, [items[i] for i in chunk]), strict=True))
        while n_given in found:
            named = {"id": items[n_given].id, "version": str(reward.ref), "digest": reward.ref.digest}
            yield {**named, **found.pop(n_given)}
            n_given += 1


def _by_prompt(items: Sequence[Item]) -> Iterator[list[int]]:
    """Indices of the items in chunks of about `_CHUNK`, those with one prompt together, prompts as they first come by."""
    together: dict[tuple[Message, ...], list[int]] = {}
    for i, item in enumerate(items):
        together.setdefault(item.prompt, []).append(i)
    chunk: list[int] = []
    for indices in together.values():
        chunk += indices
        if len(chunk) >= _CHUNK:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _scored(reward: OpenReward, items: Sequence[Item]) -> list[dict[str, Any]]:
    """What `score_items` says of each item beside its name."""
    rendered = [reward.renderer.reply(item.prompt, item.reply) for item in items]
    rows: list[dict[str, Any]] = [
        {"score": None, "unscored": r} if isinstance(r, str) else {"dropped_turns": r[1]} if r[1] else {}
        for r in rendered
    ]
    fits = [(i, r) for i, r in enumerate(rendered) if not isinstance(r, str)]
    prompts = [(items[i].prompt, r[1]) for i, r in fits]  # a prompt that lost turns renders otherwise
    shared = share(prompts, [r[0] for _, r in fits], _TOKEN_BUDGET)
    scores = scoring.score_with_doubt(reward.model, [group for group, _ in shared], token_budget=_TOKEN_BUDGET)
    for (_, owners), row in zip(shared, scores, strict=True):
        for own, (score, doubt) in zip(owners, row, strict=True):
            said = {"score": score} if doubt is None else {"score": score, "doubt": doubt}
            for n in own:
                rows[fits[n][0]] = {**said, **rows[fits[n][0]]}
    return rows


def item_of(record: Any, number: int, file: str = "") -> Item:
    """An item from one JSON object `{"id", "prompt": [messages] or text, "reply": text}`. id: the line's number unless it
    says one. Raises BadInput naming the line, and the file where it is given."""
    place, shape = place_of(number, file), '{"id", "prompt": text or [{"role", "content"}], "reply": text}'
    if not isinstance(record, Mapping):
        raise BadInput(f"{place} is a {type(record).__name__}; wanted {shape}", fix="mend the line")
    prompt = record.get("prompt")
    if isinstance(prompt, str):
        prompt = [{"role": "user", "content": prompt}]
    turns: list[Any] = prompt if isinstance(prompt, list) else []
    sound = bool(turns) and all(
        isinstance(m, Mapping) and isinstance(m.get("role"), str) and isinstance(m.get("content"), str) for m in turns
    )
    if not sound:
        raise BadInput(f"{place} has no prompt that can be read; wanted {shape}", fix="mend the line")
    messages = tuple(Message(m["role"], m["content"]) for m in turns)
    return Item(record.get("id", number), messages, reply_of(record, "reply", place, shape))


def place_of(number: int, file: str) -> str:
    """How errors call a line."""
    return f"{file} line {number}".strip()


def reply_of(record: Mapping[str, Any], key: str, place: str, shape: str) -> str:
    """The reply under `key`. Raises BadInput saying what stands there instead."""
    reply = record.get(key)
    if isinstance(reply, str) and reply.strip():
        return reply
    seen = (
        f"an empty {key}" if isinstance(reply, str) else f"a {key} that is {reply!r}" if key in record else f"no {key}"
    )
    raise BadInput(f"{place} has {seen}; wanted {shape}", fix="mend the line")

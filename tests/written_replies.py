"""Two policies and what they write, without a model: replies drawn from the prompt and the version's own habits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from adapter_folders import published
from snapshot_rows import judged, pair_of, put

from rlhf import snapshots
from rlhf.evaluation.judges import Verdict
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.ids import chance
from rlhf.policy import Prompt, Reply, Sampling
from rlhf.records import Message, VersionRef
from rlhf.store import Workspace

GOOD = ("you", "can", "take", "two", "steps", "for", "your", "plan", "today")
POOR = ("unquestionably", "consideration", "furthermore", "notwithstanding", "methodology")


def prompt_of(i: int, text: str = "") -> Prompt:
    messages = (Message("user", text or f"Tell me about matter {i}, please."),)
    return Prompt(f"p{i}", messages)


def reply_of(prompt: Prompt, text: str, *, kl: float = 0.0, cut_off: bool = False) -> Reply:
    n = max(1, len(text.split()))
    return Reply(prompt=prompt, text=text, n_tokens=n, cut_off=cut_off, logp=kl - 2.0 * n, logp_base=-2.0 * n)


class Writer:
    """Writes in the place of `policy.replies`: a version of odd number or `good` writes short plain words, the others
    long ones. Remembers what it was asked."""

    def __init__(self, good: Iterable[str] = ("demo@1",), *, same: bool = False, kl: float = 3.0) -> None:
        self.good, self.same, self.kl = set(good), same, kl
        self.asked: list[tuple[str, int]] = []

    def __call__(
        self, _: Workspace, version: str, prompts: Sequence[Prompt], sampling: Sampling, *, on_progress: Any = None
    ) -> list[Reply]:
        self.asked.append((version, len(prompts)))
        found = []
        for prompt in prompts:
            dice = chance(sampling.seed, "" if self.same else version, prompt.digest)
            words = GOOD if version in self.good or self.same else POOR
            text = " ".join(dice.choice(words) for _ in range(dice.randint(4, 14))) + "."
            kl = 0.0 if version.startswith("base:") else self.kl
            found.append(reply_of(prompt, text, kl=kl, cut_off=dice.random() < 0.2))
        if on_progress:
            on_progress(len(prompts), len(prompts))
        return found


def score_plain(_: Workspace, version: VersionRef, items: Sequence[Any]) -> Iterable[Mapping[str, Any]]:
    """In the place of `reward.score_items`: short words score high, with some noise; a reply with `unscored` none."""
    for item in items:
        letters = [len(word) for word in item.reply.split()] or [20]
        noise = chance(version.number, item.reply, str(item.prompt)).gauss(0, 2.0)
        unscored = "unscored" in item.reply
        score = None if unscored else noise - sum(letters) / len(letters)
        yield {"id": item.id, "version": str(version), "digest": version.digest, "score": score}


def two_policies(workspace: Workspace, scratch: Path, n: int = 60, **draft: Any) -> tuple[VersionRef, ...]:
    """hh@1 trained on s@1 (n prompts, half of them held out), demo@1 and demo@2 trained on hh@1. draft: of all three."""
    put(workspace, [judged(pair_of(i), "a" if i % 3 else "b") for i in range(n)])
    cut = snapshots.cut(workspace, "s", holdout=0.5)
    reward = published(workspace, scratch, snapshot_digest=cut.digest, **draft)
    own = {**draft, "parents": (("reward", reward.digest),)}
    return reward, *(published(workspace, scratch, i, "demo", head=False, **own) for i in (1, 2))


def pairs_of(texts: Sequence[tuple[str, str]], *, group: str = "") -> list[ReplyPair]:
    """One pair of replies a prompt; group: the same opening turn for all of them."""
    prompts = [prompt_of(i, group) for i in range(len(texts))]
    return [ReplyPair(p, reply_of(p, a, kl=1.5), reply_of(p, b)) for p, (a, b) in zip(prompts, texts, strict=True)]


def verdicts_of(wins: Sequence[float | None]) -> list[Verdict]:
    return [Verdict(win, None if win is None else win - 0.5) for win in wins]

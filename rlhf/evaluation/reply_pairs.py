"""What two versions wrote to the same prompts, side by side, and kept: judged again, it is the same text.

A side's replies lie in the workspace's cache under the digest of who wrote what how, so that a comparison that people
are still judging goes on with the texts that they saw, and a third version is compared without writing twice.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.errors import BadInput
from rlhf.ids import canonical_json, digest_of, new_id
from rlhf.records import Pair
from rlhf.store import Workspace

if TYPE_CHECKING:
    from rlhf.policy import PolicyRef, Prompt, Reply, Sampling

Write = Callable[..., "Sequence[Reply]"]
Progress = Callable[[int, int], None]
_FIELDS = ("text", "n_tokens", "cut_off", "logp", "logp_base")


@dataclass(frozen=True)
class ReplyPair:
    """One prompt and what both sides wrote to it."""

    prompt: Prompt
    a: Reply
    b: Reply

    @property
    def is_same(self) -> bool:
        """Both wrote the same text: nobody is asked, it is a tie."""
        return self.a.text == self.b.text

    @cached_property
    def pair(self) -> Pair:
        return Pair.of(self.prompt.messages, self.a.text, self.b.text)

    @property
    def group(self) -> str:
        """What is resampled together: the conversation's opening turn."""
        return self.pair.group

    @property
    def length_difference(self) -> int:
        """Characters of a's reply minus those of b's; tokens of two bases are not of one size."""
        return len(self.a.text) - len(self.b.text)


def written(
    workspace: Workspace,
    sides: Sequence[PolicyRef],
    prompts: Sequence[Prompt],
    sampling: Sampling,
    write: Write,
    on_progress: Progress | None = None,
) -> list[ReplyPair]:
    """Both sides' replies, in the order of the prompts; what was written before is read. on_progress(done, all) counts
    both sides' replies."""
    n, found = len(prompts), []
    for place, side in enumerate(sides):

        def tell(done: int, _: int, before: int = place * n) -> None:
            if on_progress:
                on_progress(before + done, len(sides) * n)

        found.append(written_by(workspace, side, prompts, sampling, write, tell))
    return [ReplyPair(prompt, a, b) for prompt, a, b in zip(prompts, *found, strict=True)]


def written_by(
    workspace: Workspace,
    side: PolicyRef,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    write: Write,
    tell: Progress,
) -> Sequence[Reply]:
    """One side's replies, in the order of the prompts. Raises BadInput for a reply of no finite likelihood."""
    key = digest_of({"writer": side.digest, "prompts": [p.digest for p in prompts], **asdict(sampling)})
    file = workspace.root / "cache" / "replies" / f"{key}.json"
    if (kept := _read(file, prompts)) is not None:
        tell(len(prompts), len(prompts))
        return kept
    replies = write(workspace, side.text, prompts, sampling, on_progress=tell)
    assert len(replies) == len(prompts), "a writer gives one reply a prompt"
    for reply in replies:
        if not (math.isfinite(reply.logp) and math.isfinite(reply.logp_base)):
            raise BadInput(
                f"{side.text} wrote a reply with the log-probabilities {reply.logp} and {reply.logp_base}; wanted "
                "finite numbers",
                fix="the version is broken: check it with rlhf adapter verify",
            )
    _keep(file, replies)
    return replies


def _keep(file: Path, replies: Sequence[Reply]) -> None:
    """Appears whole or not at all."""
    rows = [{name: getattr(reply, name) for name in _FIELDS} for reply in replies]
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(f"{file.name}.{new_id()}")
    staged.write_bytes(canonical_json({"digest": digest_of(rows), "replies": rows}))
    staged.replace(file)


def _read(file: Path, prompts: Sequence[Prompt]) -> list[Reply] | None:
    """What was kept; None where there is nothing, or not what was put there: then it is written anew."""
    from rlhf.policy import Reply

    try:
        kept: Mapping[str, Any] = json.loads(file.read_bytes())
        rows = kept["replies"]
        if len(rows) != len(prompts) or digest_of(rows) != kept["digest"]:
            return None
        return [Reply(prompt=prompt, **row) for prompt, row in zip(prompts, rows, strict=True)]
    except (OSError, ValueError, KeyError, TypeError):
        return None

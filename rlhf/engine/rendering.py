"""Chats to tokens and spans: what exactly is scored.

The chat template of prompt + reply; the score is read at the last token that the template renders, so that stock code
(template, forward, last token) gets the same number. Two replies share the longest common token prefix of their renderings.
Too long: whole oldest turns go first, the system message and the last user turn stay; if that isn't enough it is `too_long`.
Replies are never cut.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rlhf.errors import BadInput
from rlhf.records import Message, Pair, SnapshotRow
from rlhf.store import Workspace

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, slots=True)
class RenderedPair:
    """Token ids of a pair: `prefix` + `a` and `prefix` + `b` are the two full renderings. Ends are their last tokens."""

    prefix: tuple[int, ...]
    a: tuple[int, ...]
    b: tuple[int, ...]
    n_dropped_turns: int

    @property
    def n_tokens(self) -> int:
        """Tokens in a packed row: the prefix counts once."""
        return len(self.prefix) + len(self.a) + len(self.b)

    @property
    def longest(self) -> int:
        return len(self.prefix) + max(len(self.a), len(self.b))


# Why a reply or a pair can't be scored: longer than the limit; the template refuses its turns; both renderings are the same.
Unrendered = Literal["too_long", "refused", "same"]


class Renderer:
    """Renders chats with one tokenizer and one length limit (tokens a full rendering may have)."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, max_length: int) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of the template's rendering of the whole chat. Raises BadInput where the template refuses it."""
        return self._ids(messages)

    def _ids(self, messages: Sequence[Message], **options: Any) -> list[int]:
        try:
            text = self.tokenizer.apply_chat_template([m.as_json() for m in messages], tokenize=False, **options)
        except Exception as error:  # jinja's own errors, and whatever a template raises
            raise BadInput(
                f"the chat template refuses these turns ({' '.join(m.role for m in messages)}): {error}",
                fix="use a base whose template takes them",
            ) from None
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def opening(self, messages: Sequence[Message]) -> list[int]:
        """Token ids up to where the reply begins. Raises BadInput where the template refuses the chat."""
        return self._ids(messages, add_generation_prompt=True)

    def reply(self, prompt: Sequence[Message], reply: str) -> tuple[list[int], int] | Unrendered:
        """Token ids of prompt + reply and how many turns were dropped, or why there are none."""
        for kept, n_dropped in shortened(prompt):
            try:
                ids = self.ids((*kept, Message("assistant", reply)))
            except BadInput:
                return "refused"
            if len(ids) <= self.max_length:
                return ids, n_dropped
        return "too_long"

    def pair(self, pair: Pair) -> RenderedPair | Unrendered:
        """Both replies after the same, equally shortened prompt, or why they can't be compared.

        A template may strip what two replies differ in (space at the end, a thinking part): then there is nothing to learn.
        """
        for kept, n_dropped in shortened(pair.prompt):
            try:
                a, b = (self.ids((*kept, Message("assistant", reply))) for reply in (pair.reply_a, pair.reply_b))
            except BadInput:
                return "refused"
            if a == b:
                return "same"
            if max(len(a), len(b)) <= self.max_length:
                return split_at_common_prefix(a, b, n_dropped)
        return "too_long"


def split_at_common_prefix(a: Sequence[int], b: Sequence[int], n_dropped: int = 0) -> RenderedPair:
    """Longest common prefix, but each side keeps at least one token of its own: its end is where it is scored."""
    limit = min(len(a), len(b)) - 1
    n = next((i for i in range(limit) if a[i] != b[i]), limit)
    return RenderedPair(tuple(a[:n]), tuple(a[n:]), tuple(b[n:]), n_dropped)


def shortened(prompt: Sequence[Message]) -> Any:
    """The prompt, then the prompt without its oldest turns, one more gone each time, as (messages, turns gone).

    The system message and everything from the last user turn on stay; after a cut a chat begins with a user turn.
    """
    head = [m for m in prompt[:1] if m.role == "system"]
    turns = list(prompt[len(head) :])
    last_user = max((i for i, m in enumerate(turns) if m.role == "user"), default=0)
    for start in range(last_user + 1):
        if start == 0 or turns[start].role == "user":
            yield (*head, *turns[start:]), start


def token_counter(workspace: Workspace, base_name: str) -> Callable[[SnapshotRow], int]:
    """Counts the tokens of the longer full rendering of a snapshot's row with a base's tokenizer and template."""
    from rlhf.engine.bases import get

    renderer = Renderer(get(workspace, base_name).tokenizer(), max_length=2**31)

    def count(row: SnapshotRow) -> int:
        rendered = renderer.pair(row.pair)
        return rendered.longest if isinstance(rendered, RenderedPair) else 0

    return count

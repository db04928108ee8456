"""What is answered, in OpenAI's shapes: whole, and as server-sent events. Pure: records in, plain JSON values out.

`id` is the request's id, `model` the version by name, `system_fingerprint` its digest; `rlhf` says how the request came to it.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.engine.wanted import Finish, Piece, TokenLogprob

DONE = b"data: [DONE]\n\n"


@dataclass(frozen=True, slots=True)
class Head:
    """What every part of an answer repeats. created: seconds since the epoch. served: the `rlhf` object."""

    id: str
    created: int
    model: str
    digest: str
    served: dict[str, Any]
    is_chat: bool

    def of(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.digest,
            "rlhf": self.served,
        }


@dataclass(slots=True)
class Written:
    """A reply as far as it has come. prompt: which of the request's; points: of the reward that chose among them, where one did."""

    prompt: int = 0
    text: str = ""
    n_tokens: int = 0
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish: Finish | None = None
    points: float | None = None

    def add(self, piece: Piece) -> None:
        self.text += piece.text
        self.n_tokens += piece.n_tokens
        self.logprobs += piece.logprobs
        self.finish = piece.finish or self.finish


def whole(head: Head, replies: Sequence[Written], tokens_in: int, tokens_out: int, *, with_logprobs: bool) -> Any:
    """The answer to a request that wants no stream. tokens_out: of all that were computed, those not chosen too."""
    choices = []
    for index, reply in enumerate(replies):
        said = _logprobs(head, reply.logprobs, 0) if with_logprobs else None
        body: dict[str, Any] = {"message": {"role": "assistant", "content": reply.text, "refusal": None}}
        choice = {"index": index, **(body if head.is_chat else {"text": reply.text})}
        choice |= {"logprobs": said, "finish_reason": reply.finish}
        if reply.points is not None:
            choice["rlhf"] = {"points": reply.points}
        choices.append(choice)
    kind = "chat.completion" if head.is_chat else "text_completion"
    return {**head.of(kind), "choices": choices, "usage": usage(tokens_in, tokens_out)}


def opening(head: Head, index: int) -> bytes | None:
    """A chat's first event of a choice: who speaks. A completion has none."""
    if not head.is_chat:
        return None
    return event(_chunk(head, index, {"delta": {"role": "assistant", "content": ""}}, None, None))


def part(head: Head, index: int, piece: Piece, at_char: int, *, with_logprobs: bool) -> bytes:
    """One piece of a reply. at_char: where its text begins in the reply."""
    said = _logprobs(head, piece.logprobs, at_char) if with_logprobs and piece.logprobs else None
    if not head.is_chat:
        return event(_chunk(head, index, {"text": piece.text}, said, piece.finish))
    delta = {"content": piece.text} if piece.text or piece.finish is None else {}
    return event(_chunk(head, index, {"delta": delta}, said, piece.finish))


def closing(head: Head, tokens_in: int, tokens_out: int) -> bytes:
    """The event that `stream_options: {"include_usage": true}` asks for."""
    return event({**head.of(_chunk_kind(head)), "choices": [], "usage": usage(tokens_in, tokens_out)})


def event(value: Any) -> bytes:
    """One server-sent event. JSON has no raw line end, so that a reply can't begin an event of its own."""
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def usage(tokens_in: int, tokens_out: int) -> dict[str, int]:
    return {"prompt_tokens": tokens_in, "completion_tokens": tokens_out, "total_tokens": tokens_in + tokens_out}


def version_headers(digest: str | None) -> dict[str, str]:
    """Which version it was, spelled as `digest` in `--json`."""
    return {"x-adapter-digest": str(digest)}


def _chunk_kind(head: Head) -> str:
    return "chat.completion.chunk" if head.is_chat else "text_completion"


def _chunk(head: Head, index: int, body: dict[str, Any], logprobs: Any, finish: str | None) -> dict[str, Any]:
    choice = {"index": index, **body, "logprobs": logprobs, "finish_reason": finish}
    return {**head.of(_chunk_kind(head)), "choices": [choice]}


def _logprobs(head: Head, tokens: Sequence[TokenLogprob], at_char: int) -> dict[str, Any]:
    if head.is_chat:
        content = [
            {**_token(t.text, t.logprob), "top_logprobs": [_token(text, logprob) for _, text, logprob in t.top]}
            for t in tokens
        ]
        return {"content": content, "refusal": None}
    offsets = []
    for token in tokens:
        offsets.append(at_char)
        at_char += len(token.text)
    return {
        "tokens": [t.text for t in tokens],
        "token_logprobs": [t.logprob for t in tokens],
        "top_logprobs": [{text: logprob for _, text, logprob in t.top} for t in tokens],
        "text_offset": offsets,
    }


def _token(text: str, logprob: float) -> dict[str, Any]:
    return {"token": text, "logprob": logprob, "bytes": list(text.encode("utf-8", "replace"))}

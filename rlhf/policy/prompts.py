"""Prompts: from a file, or from a snapshot's side; and which of them fit and can be rendered."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from rlhf import snapshots
from rlhf.engine.rendering import Renderer, shortened
from rlhf.errors import BadInput
from rlhf.ids import digest_of
from rlhf.records import ROLES, Message
from rlhf.store import Workspace


@dataclass(frozen=True, slots=True)
class Prompt:
    """A conversation that ends where the reply begins. id: its own in its file, else the messages' digest. given: its own id as
    it was written (a number, say), None where it had none."""

    id: str
    messages: tuple[Message, ...]
    given: Any = None

    @property
    def digest(self) -> str:
        return digest_of([message.as_json() for message in self.messages])

    @property
    def group(self) -> str:
        """What a split keeps together: the opening turn, as `records.Pair.group` folds it."""
        from rlhf.records import Pair

        return Pair(self.digest, self.messages, "", "").group


@dataclass(frozen=True, slots=True)
class RenderedPrompt:
    """A prompt's messages as they were kept, and their token ids up to where the reply begins."""

    prompt: Prompt
    kept: tuple[Message, ...]
    ids: tuple[int, ...]


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a JSONL file, one `{"prompt": text or messages, "id"?: text}` a line. Raises BadInput naming the line."""
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise BadInput(f"no prompts file at {path}", fix="check the path given to --prompts") from None
    except OSError as error:
        raise BadInput(f"{path} can't be read: {error}", fix="give a UTF-8 JSONL file") from None
    return prompts_in(raw, path.name)


def prompts_in(raw: bytes, name: str) -> list[Prompt]:
    """`read_prompts` of a file's bytes; name: what an error calls it."""
    try:
        lines = raw.decode("utf-8-sig").split("\n")  # not splitlines: JSON strings may hold U+2028 and its like
    except UnicodeDecodeError as error:
        raise BadInput(f"{name} can't be read: {error}", fix="give a UTF-8 JSONL file") from None
    found = [_prompt(line, f"{name} line {n}") for n, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise BadInput(f"{name} holds no prompt", fix='write one {"prompt": "..."} a line')
    seen: set[str] = set()
    for at, prompt in enumerate(found):
        if prompt.id in seen and prompt.given is not None:
            raise BadInput(
                f"{name} has the id {prompt.id!r} twice", fix="give each prompt its own id, or leave ids out"
            )
        if prompt.id in seen:  # the same prompt again, without an id: a reply of its own all the same
            found[at] = prompt = replace(prompt, id=f"{prompt.id}#{at + 1}")
        seen.add(prompt.id)
    return found


def prompts_of(workspace: Workspace, snapshot: str, split: Literal["train", "test"] = "train") -> list[Prompt]:
    """The distinct prompts of a snapshot's side whose judgements' consent covers training (train) or evaluation (test).

    In order of digest, so that the first n are a fair sample.
    """
    cut = snapshots.open_snapshot(workspace, snapshot)
    found = {}
    for row in cut.rows(split):
        if row.pair.prompt and row.pair.prompt[-1].role != "assistant":
            prompt = Prompt("", row.pair.prompt)
            found[prompt.digest] = row.pair.prompt
    return [Prompt(digest, found[digest]) for digest in sorted(found)]


def rendered(
    prompts: Sequence[Prompt], renderer: Renderer, max_new_tokens: int
) -> tuple[list[RenderedPrompt], dict[str, int]]:
    """Prompts as token ids that leave room for a reply; whole oldest turns go first. And how many: shortened, too_long, refused."""
    counts = {"prompts": len(prompts), "shortened": 0, "too_long": 0, "refused": 0}
    fits = []
    for prompt in prompts:
        for kept, n_dropped in shortened(prompt.messages):
            try:
                ids = renderer.opening(kept)
            except BadInput:
                counts["refused"] += 1
                break
            if len(ids) + max_new_tokens <= renderer.max_length:
                counts["shortened"] += n_dropped > 0
                fits.append(RenderedPrompt(prompt, tuple(kept), tuple(ids)))
                break
        else:
            counts["too_long"] += 1
    return fits, counts


def _prompt(line: str, where: str) -> Prompt:
    wanted = 'wanted {"prompt": text or [{"role", "content"}], "id"?: text}'
    try:
        record = json.loads(line)
    except ValueError:
        raise BadInput(f"{where} is no JSON; {wanted}", fix="mend the line") from None
    if not isinstance(record, dict):
        raise BadInput(f"{where} is a {type(record).__name__}; {wanted}", fix="mend the line")
    turns = _turns(record.get("prompt"))
    if not turns:
        raise BadInput(f"{where} has no prompt that can be read; {wanted}", fix="mend the line")
    if turns[-1].role == "assistant":
        raise BadInput(f"{where} ends with the assistant's turn; a prompt ends before it", fix="drop the last turn")
    made = Prompt("", turns)
    own = record.get("id")
    return Prompt(str(own) if own is not None else made.digest, turns, own)


def _turns(value: Any) -> tuple[Message, ...]:
    """The messages; none where they can't be read."""
    if isinstance(value, str):
        value = [{"role": "user", "content": value}]
    sound = isinstance(value, list) and all(
        isinstance(m, dict) and m.get("role") in ROLES and isinstance(m.get("content"), str) for m in value
    )
    turns = tuple(Message(m["role"], m["content"]) for m in value) if sound else ()
    if any(0xD800 <= ord(letter) < 0xE000 for m in turns for letter in m.content):  # half a character: no UTF-8 has it
        return ()
    return turns if any(m.role == "user" and m.content.strip() for m in turns) else ()

"""States of replies at inner layers, pooled: what a linear head reads.

States are numbered as transformers numbers `hidden_states`: k = after k layers, the last one after the final norm too. The
forward stops at the highest layer that is read: the layers above it don't run. A reply's states depend on its own tokens alone,
whatever it is packed or padded with: also its mean is over the tokens of the last assistant turn, which begins after the last
`opening` in the full rendering, and not over what differs from the reply that it happens to be packed with.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from rlhf.engine import scoring
from rlhf.engine.packing import NAME, Group, Packing, pack, pad_rows
from rlhf.engine.rendering import Renderer
from rlhf.errors import BadInput
from rlhf.records import Message

LAST, MEAN = "last", "mean"


@dataclass(frozen=True, slots=True)
class Reading:
    """What is read of a reply. layers: rising, from 1; pooling: of `last` (its last token) and `mean` (over its tokens).

    opening: the token ids that open an assistant turn whatever it says (see `opening_of`).
    """

    layers: tuple[int, ...]
    pooling: tuple[str, ...]
    opening: tuple[int, ...]

    def n_features(self, hidden: int) -> int:
        return len(self.layers) * len(self.pooling) * hidden


def opening_of(renderer: Renderer) -> tuple[int, ...]:
    """Token ids that the template puts before every reply: what renderings of unlike replies share after the prompt.

    A tokenizer may melt the last character of a header into the reply's first word: such a token isn't in it.
    """
    asked = (Message("user", "a"),)
    prompt = renderer.ids(asked)
    replies = [renderer.ids((*asked, Message("assistant", text))) for text in ("a", "\n\nb", "  c", "1")]
    n = 0
    while all(len(ids) > n and ids[n] == replies[0][n] for ids in replies):
        n += 1
    return tuple(replies[0][len(prompt) : n])


def states(model: Any, reading: Reading, groups: Sequence[Group], *, token_budget: int = 4096) -> torch.Tensor:
    """(R, D) in float32 on the CPU: the pooled states of all replies, in the order given. model: a whole model, in eval mode.

    D = layers x pooling x hidden, in that order. Computed in batches of at most `token_budget` tokens (a longer group alone).
    """
    found: dict[int, torch.Tensor] = {}
    device = next(model.parameters()).device
    body = getattr(model, model.base_model_prefix)
    with torch.inference_mode():
        for batch in scoring.batches([group.n_tokens for group in groups], token_budget):
            some = [groups[i] for i in batch]
            if scoring.attention_of(model) == NAME:
                arguments = pack(some, device).arguments()
            else:
                rows = [[*group.prefix, *reply] for group in some for reply in group.replies]
                arguments = pad_rows(rows, model.config.pad_token_id or 0, device)
            pooled = pooled_states(body, reading, **arguments).cpu()
            parts = pooled.split([len(group.replies) for group in some])
            found.update(zip(batch, parts, strict=True))
    return torch.cat([found[i] for i in range(len(groups))])


def pooled_states(
    body: Any,
    reading: Reading,
    *,
    input_ids: torch.Tensor,
    ends: torch.Tensor,
    packing: Packing | None = None,
    **inputs: Any,
) -> torch.Tensor:
    """One forward's pooled states (R, D), float32. Arguments: those of a packed row, or of a padded batch with its `ends`."""
    if packing is not None:
        inputs["packing"] = packing
    with _caught(body, reading.layers) as caught:
        try:
            out = body(input_ids=input_ids, **inputs, use_cache=False)
            caught[n_layers(body)] = out.last_hidden_state
        except _Reached:
            pass
    rows = torch.zeros_like(ends) if packing is not None else torch.arange(len(ends), device=ends.device)
    spans = _replies(input_ids, ends, packing, reading.opening) if MEAN in reading.pooling else []
    parts = []
    for layer in reading.layers:
        hidden = caught[layer]
        for how in reading.pooling:
            parts.append(hidden[rows, ends].float() if how == LAST else _means(hidden, spans))
    return torch.cat(parts, dim=1)


def decoder_layers(body: Any) -> torch.nn.ModuleList:
    """The body's layers, lowest first. Raises BadInput where there isn't one list of them."""
    wanted = body.config.num_hidden_layers
    found = [part for part in body.children() if isinstance(part, torch.nn.ModuleList) and len(part) == wanted]
    if len(found) != 1:
        raise BadInput(
            f"{type(body).__name__} has no list of its {wanted} layers: inner states can't be read",
            fix="train a reward of kind lora on this base",
        )
    return found[0]


def n_layers(body: Any) -> int:
    return len(decoder_layers(body))


class _Reached(Exception):
    """The highest layer that is read has its states: nothing above needs to run."""


@contextmanager
def _caught(body: Any, layers: Sequence[int]) -> Iterator[dict[int, torch.Tensor]]:
    """Collects the states that enter the layers' successors while the block runs, and stops the forward at the last one."""
    modules, caught = decoder_layers(body), {}
    if not layers or min(layers) < 1 or max(layers) > len(modules):
        raise BadInput(
            f"layers {', '.join(map(str, layers))} are read, the base has 1 to {len(modules)}", fix="name layers it has"
        )

    def catch(layer: int) -> Any:
        def hook(_module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            caught[layer] = args[0] if args else kwargs["hidden_states"]
            if layer == max(layers):
                raise _Reached

        return hook

    with ExitStack() as stack:
        for layer in layers:
            if layer < len(modules):
                handle = modules[layer].register_forward_pre_hook(catch(layer), with_kwargs=True)
                stack.callback(handle.remove)
        yield caught


def _replies(
    input_ids: torch.Tensor, ends: torch.Tensor, packing: Packing | None, opening: Sequence[int]
) -> list[tuple[int, list[tuple[int, int]]]]:
    """Of each reply its row and the stretches of it that hold its last assistant turn."""
    found: list[tuple[int, list[tuple[int, int]]]] = []
    if packing is None:
        for row, end in enumerate(ends.tolist()):
            ids = input_ids[row, : end + 1].tolist()
            found.append((row, [(_after(ids, opening), len(ids))]))
        return found
    flat = input_ids[0].tolist()
    for spans in packing.groups:
        for span in spans:
            n = span.prefix_stop - span.prefix_start
            start = _after(flat[span.prefix_start : span.prefix_stop] + flat[span.start : span.stop], opening)
            in_prefix = [(span.prefix_start + start, span.prefix_stop)] if start < n else []
            found.append((0, [*in_prefix, (span.start + max(start - n, 0), span.stop)]))
    return found


def _after(ids: Sequence[int], opening: Sequence[int]) -> int:
    """Where the last occurrence of the opening ends; 0 where there is none, and where nothing would be left."""
    n, wanted = len(opening), list(opening)
    if n:
        for start in range(len(ids) - n - 1, -1, -1):
            if ids[start] == wanted[0] and list(ids[start : start + n]) == wanted:
                return start + n
    return 0


def _means(hidden: torch.Tensor, spans: Sequence[tuple[int, list[tuple[int, int]]]]) -> torch.Tensor:
    """(R, hidden): the mean over each reply's stretches, in float32."""
    return torch.stack(
        [torch.cat([hidden[row, start:stop] for start, stop in parts]).float().mean(dim=0) for row, parts in spans]
    )

"""How much memory a training will take, part by part, before anything is loaded.

What a step keeps for its gradients is a formula over layers and widths, checked against autograd in
`tests/test_engine_estimate.py`; the whole against measured runs in `scripts/bench_estimate.py` (on a CPU it was 0.86 to 1.08 of
the peak; nothing was measured on a GPU). Texts are taken to be as long as `max_length` and a forward as full as `token_budget`
allows; what shorter texts take is less.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rlhf.engine.architecture import Shape
from rlhf.engine.placement import choose

Role = Literal["reward", "policy"]
_GIB = 2**30
_BYTES = {"float32": 4.0, "bfloat16": 2.0}
# Dettmers et al. 2023: 4 bits a weight, an 8-bit scale for 64 weights, a 32-bit one for 256 of these.
NF4_BYTES = (4 + 8 / 64 + 32 / (64 * 256)) / 8
LORA_BYTES = 4 + 4 + 8  # a trained LoRA weight, its gradient, AdamW's two moments, all float32
# Measured on Linux: Python with torch, transformers, PEFT, TRL and datasets, 0.55 when all is imported, 0.62 after a first step.
LIBRARIES = 0.62 * _GIB
# Measured with glibc: of a step's activations, freed block by block, it keeps this share in its heap and can't use it again.
HEAP_KEEPS = 0.55
MARGIN = (
    1.2  # what must be free for each estimated byte before we say that it fits: estimates were down to 0.86 of the peak
)
CUDA_CONTEXT = 0.6 * _GIB  # kernels and the allocator's slack on one GPU; not measured
_ROWS = 32  # replies that are sampled at one time (engine.generation)
_MEASURED = 1024  # positions whose logits are held at one time (engine.generation)
_TILE = (4096, 32768)  # tokens and words of TRL's fused head


@dataclass(frozen=True, slots=True)
class Plan:
    """What of a training's settings decides its memory. tokens: in the largest forward; row: in the longest sequence;
    sampled: replies sampled at one time (0 = none); measured: whether log-probabilities of replies are taken;
    adapters: frozen ones beside the trained one; reordered: whether the engine keeps the base's linear maps a second time."""

    role: Role
    device: str
    dtype: str
    quantize: str
    r: int
    top_layers: int
    checkpointing: bool
    tokens: int
    row: int
    new: int
    sampled: int
    measured: bool
    adapters: int
    reordered: bool = False

    @staticmethod
    def of(role: Role, settings: Mapping[str, Any], device: str, dtype: str) -> Plan:
        """From the settings of a reward or policy training, for one process. device, dtype: as chosen, not `auto`."""
        row, budget = settings["max_length"], settings["token_budget"]
        common = {"r": settings["lora_r"], "top_layers": settings["top_layers"], "row": row}
        common |= {"checkpointing": settings["gradient_checkpointing"], "device": device.split(":")[0], "dtype": dtype}
        n = settings["pairs_per_step"]
        if role == "reward":
            tokens = min(max(budget, 2 * row), n * 2 * row)
            return Plan(
                "reward", tokens=tokens, quantize="none", new=0, sampled=0, measured=False, adapters=0, **common
            )
        adapters = len(settings["reward"]) + bool(settings["from_version"])
        watched = 2 * settings["watch_prompts"] if settings["watch_steps"] else 0
        sampled = min(_ROWS, watched)
        if settings["method"] == "dpo":
            tokens = min(max(budget, 2 * row), n * 2 * row)
            if settings["pairs"] == "sampled":
                sampled = _ROWS
        else:
            tokens = min(max(budget, row), n * settings["samples"] * row)
            sampled = max(sampled, n * settings["samples"])
        return Plan(
            "policy",
            tokens=tokens,
            quantize=settings["quantize"],
            new=settings["max_new_tokens"],
            sampled=sampled,
            measured=bool(settings["watch_steps"]),
            adapters=adapters,
            reordered=settings["method"] != "dpo"
            and settings["rollouts"] != "trl"
            and settings["quantize"] == "none"
            and device == "cpu",
            **common,
        )


@dataclass(frozen=True, slots=True)
class Part:
    """bytes of one use of memory. where: device or host; when: always, or the phase that it is taken in: phases follow one
    another, so that the largest of them counts."""

    name: str
    bytes: float
    where: Literal["device", "host"]
    when: str = "always"

    def as_json(self) -> dict[str, Any]:
        return {"part": self.name, "gib": round(self.bytes / _GIB, 3), "where": self.where, "when": self.when}


@dataclass(frozen=True, slots=True)
class Estimate:
    """Parts and their sums; on a CPU device and host are one memory, and all stands under host."""

    parts: tuple[Part, ...]

    def bytes(self, where: str) -> float:
        """What lies there always and in the largest phase."""
        always = sum(part.bytes for part in self.parts if part.where == where and part.when == "always")
        return always + max((total for _, total in self.phases(where)), default=0.0)

    def phases(self, where: str) -> Iterator[tuple[str, float]]:
        """(phase, bytes) beside what lies there always."""
        for when in dict.fromkeys(part.when for part in self.parts if part.where == where and part.when != "always"):
            yield when, sum(part.bytes for part in self.parts if part.where == where and part.when == when)

    def gib(self, where: str) -> float:
        return self.bytes(where) / _GIB


def estimate(shape: Shape, plan: Plan) -> Estimate:
    """Bytes of one process's training, part by part."""
    where: Literal["device", "host"] = "host" if plan.device == "cpu" else "device"
    parts = [
        Part("base, frozen", _weights(shape, plan), where),
        Part("LoRA with gradient and AdamW", shape.lora(plan.r, plan.top_layers) * LORA_BYTES, where),
    ]
    if plan.adapters:
        frozen = plan.adapters * shape.lora(plan.r, plan.top_layers) * 4
        parts.append(Part(f"{plan.adapters} frozen adapters (reward, reference), taken to be as large", frozen, where))
    if plan.reordered:
        again = _BYTES[plan.dtype] * (shape.linear + shape.vocabulary * shape.hidden)
        parts.append(Part("the base's linear maps again, in the engine's order", again, where))
    parts += [
        Part("activations kept for the gradient", activations(shape, plan), where, "step"),
        Part("one layer at work", _layer_at_work(shape, plan, plan.tokens), where, "step"),
    ]
    if plan.device == "cpu":
        kept = HEAP_KEEPS * activations(shape, plan)
        parts.append(Part("what the C library's heap keeps of the step before", kept, where, "step"))
    if plan.role == "policy":
        parts.append(Part("logits, a tile at a time", _tile(shape, plan), where, "step"))
    if plan.sampled:
        prompt = plan.sampled * max(plan.row - plan.new, 1)
        cache = plan.sampled * plan.row * shape.layers * 2 * shape.keys * _BYTES[plan.dtype]
        parts += [
            Part(f"key-value cache of {plan.sampled} replies", cache, where, "sampling"),
            Part("one layer at work on their prompts", _layer_at_work(shape, plan, prompt), where, "sampling"),
        ]
    if plan.measured:  # the logits, their float32 copy and its log-softmax
        logits = _MEASURED * shape.vocabulary * (_BYTES[plan.dtype] + 4 + 4)
        parts.append(Part("logits of measured replies", logits, where, "measuring"))
    return Estimate((*parts, *_of_process(shape, plan)))


def activations(shape: Shape, plan: Plan) -> float:
    """Bytes that autograd keeps of a forward over `plan.tokens` tokens, of a decoder with gated MLPs and LoRA on all linears.

    A layer and token keep the inputs of the two norms and of the seven LoRAs (some shared), q, k, v (repeated to all heads), the
    attention's output, the four inner products of the MLP, and a row of the attention's mask. Layers below the lowest LoRA keep
    nothing. Checkpointing keeps a layer's input, and one layer's rest at a time.
    """
    d = _BYTES[plan.dtype]
    values = 4 * shape.hidden + 4 * shape.attention + 4 * shape.intermediate + 7 * plan.r + plan.row
    layer = d * values + 4 * shape.heads
    n_layers = plan.top_layers if 0 < plan.top_layers < shape.layers else shape.layers
    if plan.checkpointing:
        return plan.tokens * (n_layers * shape.hidden * d + layer)
    return plan.tokens * n_layers * layer


def _weights(shape: Shape, plan: Plan) -> float:
    """The frozen base; in 4 bits only the decoder's linear maps are: embeddings, norms and head stay in the body's type."""
    d = _BYTES[plan.dtype]
    other = shape.other - (shape.head if plan.role == "reward" else 0)
    if plan.quantize == "none":
        return d * (shape.linear + other)
    return NF4_BYTES * shape.linear + d * other


def _layer_at_work(shape: Shape, plan: Plan, tokens: int) -> float:
    """What one layer holds while it computes: the MLP's products and what comes in and goes out, and one unpacked 4-bit map."""
    d = _BYTES[plan.dtype]
    unpacked = max((n_in * n_out for _, n_in, n_out in shape.linears), default=0) if plan.quantize != "none" else 0
    return d * (tokens * (3 * shape.intermediate + 3 * shape.hidden) + unpacked)


def _tile(shape: Shape, plan: Plan) -> float:
    """TRL's fused head in its backward: on CUDA one tile, elsewhere also its torch twin's five float32 copies of it, two more for
    a moment, and a mask."""
    n_values = min(plan.tokens, _TILE[0]) * min(shape.vocabulary, _TILE[1])
    copies = 0 if plan.device == "cuda" else 7 * 4 + 1
    return n_values * (_BYTES[plan.dtype] + copies) + 4 * plan.tokens * shape.hidden


def _of_process(shape: Shape, plan: Plan) -> list[Part]:
    """What lies on the host whatever trains where: the libraries, and the base once more when the version is proved."""
    base = 4.0 * (shape.parameters - (shape.head if plan.role == "reward" else 0))
    parts = [
        Part("Python and its libraries", LIBRARIES, "host"),
        Part("the base again in float32, to prove the version", base, "host", "publishing"),
    ]
    if plan.device != "cpu":
        parts.append(Part("CUDA's context", CUDA_CONTEXT, "device"))
        parts.append(Part("the base's file while it is loaded", base / 4 * 2, "host", "loading"))
    return parts


def place_of(device: str, dtype: str) -> tuple[str, str]:
    """Device and type as a training would choose them; a CUDA device need not be here."""
    if device.startswith("cuda"):
        return device, "bfloat16" if dtype == "auto" else dtype
    chosen = choose(device, dtype)
    return chosen.device, chosen.dtype


def memory_here() -> dict[str, float | None]:
    """Bytes of this machine by where: host (what a container may use, if it is one), device (the first GPU; None = none here)."""
    import os

    import torch

    host = float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    limit = Path("/sys/fs/cgroup/memory.max")
    if limit.exists() and (text := limit.read_text("utf-8").strip()).isdigit():
        host = min(host, float(text))
    device = float(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else None
    return {"host": host, "device": device}


def as_table(found: Estimate, here: Mapping[str, float | None]) -> str:
    """Part by part, the sums, and whether they fit here."""
    lines = []
    for where in ("device", "host"):
        own = [part for part in found.parts if part.where == where]
        if not own:
            continue
        own.sort(key=lambda part: (part.when != "always", part.when))
        lines += [f"{where:<6}  {part.when:<10}  {part.bytes / _GIB:8.3f} GiB  {part.name}" for part in own]
        lines.append(f"{where:<6}  {'in all':<10}  {found.gib(where):8.3f} GiB  {verdict(found, where, here)}")
    return "\n".join(lines)


def verdict(found: Estimate, where: str, here: Mapping[str, float | None]) -> str:
    there = here[where]
    if there is None:
        return "no CUDA device is visible here to compare with"
    word = "fits" if fits(found, where, here) else "does NOT fit"
    return f"{word} with a fifth to spare into the {there / _GIB:.1f} GiB of this {'GPU' if where == 'device' else 'machine'}"


def fits(found: Estimate, where: str, here: Mapping[str, float | None]) -> bool | None:
    """Whether it fits with the margin; None where there is nothing to compare with."""
    there = here[where]
    return None if there is None else MARGIN * found.bytes(where) <= there

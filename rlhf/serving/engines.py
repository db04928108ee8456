"""Which engine answers: the embedded one, or vLLM's processes behind the same router."""

from __future__ import annotations

from collections.abc import Mapping

from rlhf.engine.bases import Base
from rlhf.engine.placement import Placement
from rlhf.engine.vllm.addresses import KEY, Addresses
from rlhf.errors import BadUsage
from rlhf.serving.bounds import ServeSettings
from rlhf.serving.holding import Engine
from rlhf.store import Workspace


def addresses_of(
    engine: str, generate: str | None, score: str | None, environment: Mapping[str, str]
) -> Addresses | None:
    """What was asked for in words: None = the embedded engine. Raises BadUsage where the words don't go together."""
    if engine not in ("embedded", "vllm"):
        raise BadUsage(f"engine '{engine}' is unknown", fix="use embedded or vllm")
    if engine == "embedded":
        if generate or score:
            raise BadUsage("vLLM's addresses are for --engine vllm", fix="add --engine vllm, or leave them out")
        return None
    if not generate:
        raise BadUsage(
            "vLLM's address is missing", fix="start it (scripts/try_vllm shows how) and give --vllm-generate URL"
        )
    return Addresses(generate, score, environment.get(KEY))


def vllm_placement(dtype: str | None) -> Placement:
    """What vLLM was started in, which it doesn't tell: None = float32, in which a probe's score must be the published one."""
    if dtype not in (None, "float32", "bfloat16"):
        raise BadUsage(f"dtype '{dtype}' is unknown", fix="say what vLLM's own --dtype is: float32 or bfloat16")
    return Placement("vllm", dtype or "float32", "")


def engine_for(
    workspace: Workspace, base: Base, place: Placement, bounds: ServeSettings, vllm: Addresses | None
) -> tuple[Engine, str]:
    """The engine, and where it computes, in words. Raises what the engines raise."""
    if vllm is None:
        from rlhf.engine.live import LiveEngine

        return LiveEngine(base, place, slots=bounds.slots, max_rank=bounds.max_rank, rows=bounds.rows), place.why
    from rlhf.engine.vllm.engine import VllmEngine

    scratch = workspace.root / "cache"
    scratch.mkdir(exist_ok=True)
    engine = VllmEngine(base, vllm, scratch, slots=bounds.slots, max_rank=bounds.max_rank, rows=bounds.rows)
    return engine, f"{engine.why}; {place.dtype}"

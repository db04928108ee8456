"""Where a model runs and in which type, chosen once, with the reason in words.

CUDA if it is there. bfloat16 on CUDA; on a CPU only where a measurement of about a second shows that it pays: processors
without bfloat16 instructions emulate it and a training step takes minutes.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from rlhf.errors import BadUsage

if TYPE_CHECKING:
    import torch

_PAYS = 1.3  # bfloat16 must be at least this much faster than float32 on the measured product


@dataclass(frozen=True, slots=True)
class Placement:
    """device: 'cpu', 'cuda', 'cuda:1' ...; dtype: 'float32' or 'bfloat16'; why: the reason, for people."""

    device: str
    dtype: str
    why: str

    @property
    def torch_dtype(self) -> torch.dtype:
        import torch

        return torch.bfloat16 if self.dtype == "bfloat16" else torch.float32


def choose(device: str = "auto", dtype: str = "auto") -> Placement:
    """Device and dtype for a model. Raises BadUsage where the wanted device isn't there."""
    import torch

    if device != "auto" and device.split(":")[0] not in ("cpu", "cuda"):
        raise BadUsage(f"device '{device}' is unknown", fix="use auto, cpu, cuda or cuda:N")
    if dtype not in ("auto", "float32", "bfloat16"):
        raise BadUsage(f"dtype '{dtype}' is unknown", fix="use auto, float32 or bfloat16")
    has_cuda = torch.cuda.is_available() and not (device == "auto" and wants_cpu(device))
    if device.startswith("cuda") and not has_cuda:
        raise BadUsage("no CUDA device is visible", fix="use device=cpu, or run where a GPU is")
    if device == "auto":
        device, reason = ("cuda", "a CUDA device is there") if has_cuda else ("cpu", "no CUDA device is there")
    else:
        reason = "as asked"
    if dtype != "auto":
        return Placement(device, dtype, f"{device} ({reason}), {dtype} (as asked)")
    if device.startswith("cuda"):
        chosen = "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
        return Placement(
            device, chosen, f"{device} ({reason}), {chosen} ({'' if chosen == 'bfloat16' else 'no '}bfloat16 support)"
        )
    speedup = bfloat16_speedup()
    chosen = "bfloat16" if speedup >= _PAYS else "float32"
    return Placement(
        device, chosen, f"cpu ({reason}), {chosen} (bfloat16 measured {speedup:.1f} times as fast as float32)"
    )


def wants_cpu(device: str) -> bool:
    """Whether the CPU is asked for, by the setting or by `accelerate launch --cpu` (which PartialState itself doesn't read)."""
    return device == "cpu" or (
        device == "auto" and os.environ.get("ACCELERATE_USE_CPU", "").lower() in ("1", "true", "yes")
    )


@lru_cache(maxsize=1)
def bfloat16_speedup(budget_s: float = 1.0) -> float:
    """How many times as fast a 512x576x1536 product is in bfloat16 as in float32 on this CPU, measured once a process."""
    import torch

    rates = {}
    for kind in (torch.float32, torch.bfloat16):
        left, right = torch.ones(512, 576, dtype=kind), torch.ones(576, 1536, dtype=kind)
        torch.mm(left, right)
        n_done, start = 0, time.perf_counter()
        while time.perf_counter() - start < budget_s / 2:
            torch.mm(left, right)
            n_done += 1
        rates[kind] = n_done / (time.perf_counter() - start)
    return rates[torch.bfloat16] / rates[torch.float32]

"""Reading safetensors files without torch: names, digests, values and finiteness of what is inside.

The file is an 8-byte little-endian header length, a JSON header, then the tensors' bytes. A digest over tensors, not over the
file, is the same whichever library wrote them and in whatever order.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from rlhf.errors import BadInput
from rlhf.ids import digest_of

_MAX_HEADER = 100_000_000
_NUMPY = {"F64": "<f8", "F32": "<f4", "F16": "<f2"}
FLOATS = (*_NUMPY, "BF16")  # a bfloat16 has no numpy type: it is looked at as the upper half of a float32


@dataclass(frozen=True, slots=True)
class Tensor:
    """Where one tensor lies in its file. dtype as safetensors spells it ('F32', 'BF16', ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int  # bytes from the beginning of the file
    stop: int


def tensors_in(path: Path) -> list[Tensor]:
    """The tensors of one file, by name. Raises BadInput where the file is no sound safetensors file."""
    try:
        with open(path, "rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
            n_bytes = path.stat().st_size
            found = []
            for name, entry in header.items():
                if name == "__metadata__":
                    continue
                start, stop = entry["data_offsets"]
                if not 0 <= start <= stop <= n_bytes - 8 - length:
                    raise ValueError(f"tensor {name} lies outside the file")
                found.append(Tensor(name, entry["dtype"], tuple(entry["shape"]), 8 + length + start, 8 + length + stop))
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"{path.name} is no sound safetensors file: {error}", fix="save it again as safetensors"
        ) from None
    return sorted(found, key=lambda tensor: tensor.name)


def tensors_digest(paths: list[Path]) -> str:
    """Digest over (name, dtype, shape, SHA-256 of the bytes) of every tensor in the files, by name."""
    rows = []
    for path in paths:
        with open(path, "rb") as file:
            for tensor in tensors_in(path):
                file.seek(tensor.start)
                hasher, left = hashlib.sha256(), tensor.stop - tensor.start
                while left:
                    chunk = file.read(min(left, 1 << 22))
                    hasher.update(chunk)
                    left -= len(chunk)
                rows.append([tensor.name, tensor.dtype, list(tensor.shape), hasher.hexdigest()])
    return digest_of(sorted(rows))


def values_of(path: Path, tensor: Tensor) -> NDArray[np.float32]:
    """One floating-point tensor of the file as float32, in its shape."""
    kind = "<u2" if tensor.dtype == "BF16" else _NUMPY[tensor.dtype]
    raw = np.fromfile(path, kind, math.prod(tensor.shape), offset=tensor.start)
    if tensor.dtype == "BF16":
        raw = (raw.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return raw.astype(np.float32).reshape(tensor.shape)


def non_finite(path: Path) -> list[str]:
    """Names of the floating-point tensors that hold a NaN or an infinity."""
    bad = []
    for tensor in tensors_in(path):
        raw = np.memmap(path, dtype=np.uint8, mode="r", offset=tensor.start, shape=(tensor.stop - tensor.start,))
        if tensor.dtype == "BF16":  # all exponent bits set is NaN or infinity
            finite = bool(((raw.view("<u2") & 0x7F80) != 0x7F80).all())
        elif tensor.dtype in _NUMPY:
            finite = bool(np.isfinite(raw.view(_NUMPY[tensor.dtype])).all())
        else:
            continue
        if not finite:
            bad.append(tensor.name)
    return bad

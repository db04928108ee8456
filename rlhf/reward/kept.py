"""Scores of pairs, kept as they are computed, so that an interrupt costs a chunk and the same question again costs nothing.

A score's last bits depend on what it was computed beside, so pairs are computed in chunks that their ids alone decide, and a chunk
is kept whole: what a resumed run gives is, bit for bit, what an uninterrupted one gives. A chunk ends at an id whose last digit is
0, so that one pair more in a set moves one chunk. The file is a line a chunk under the version's digest; a line that a killed
process left half, or that was changed, is no line. It holds ids and numbers, no text; it may be removed at any time.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from rlhf.engine.placement import choose
from rlhf.ids import digest_of
from rlhf.records import Pair, VersionRef
from rlhf.reward.score import PairScore, open_reward, score_with
from rlhf.store import Workspace

FOLDER = Path("cache") / "scores"
_LAST, _MOST = "0", 64  # one id in sixteen ends a chunk


class KeptScores:
    """What one version scored on one kind of device in one type."""

    def __init__(self, workspace: Workspace, version: VersionRef, device: str, dtype: str) -> None:
        self._identity = [version.digest, device, dtype]
        self.file = workspace.root / FOLDER / f"{version.digest[:24]}-{device}-{dtype}.jsonl"
        self._known = self._read()

    def get(self, pairs: Sequence[Pair]) -> list[PairScore] | None:
        """The scores of this chunk; None where it wasn't computed yet."""
        return self._known.get(self._key(pairs))

    def put(self, pairs: Sequence[Pair], scores: Sequence[PairScore]) -> None:
        """One write of one line, so that several processes may keep at once. Scores that are no numbers aren't kept: whoever
        asked is told that the version is broken."""
        if not all(math.isfinite(value) for score in scores for value in (score.score_a or 0.0, score.score_b or 0.0)):
            return
        rows = [list(astuple(score)) for score in scores]
        line = {"key": self._key(pairs), "scores": rows}
        raw = json.dumps({**line, "digest": digest_of(line)}, allow_nan=False).encode() + b"\n"
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with open(self.file, "ab", buffering=0) as out:
            out.write(raw if self._ends_whole() else b"\n" + raw)

    def _key(self, pairs: Sequence[Pair]) -> str:
        return digest_of([*self._identity, [pair.id for pair in pairs]])

    def _ends_whole(self) -> bool:
        with open(self.file, "rb") as file:
            if file.seek(0, os.SEEK_END) == 0:
                return True
            file.seek(-1, os.SEEK_END)
            return file.read(1) == b"\n"

    def _read(self) -> dict[str, list[PairScore]]:
        found = {}
        lines = self.file.read_bytes().split(b"\n") if self.file.is_file() else []
        for raw in lines:
            try:
                line: dict[str, Any] = json.loads(raw)
                if line.pop("digest") == digest_of(line):
                    found[line["key"]] = [PairScore(*row) for row in line["scores"]]
            except (ValueError, KeyError, TypeError, AttributeError):
                continue
        return found


def chunks_of(pairs: Sequence[Pair]) -> list[list[int]]:
    """Indices of the pairs in order of their ids, cut after each id that ends in `_LAST`, and at `_MOST`."""
    chunks: list[list[int]] = [[]]
    for i in sorted(range(len(pairs)), key=lambda i: pairs[i].id):
        chunks[-1].append(i)
        if pairs[i].id.endswith(_LAST) or len(chunks[-1]) == _MOST:
            chunks.append([])
    return [chunk for chunk in chunks if chunk]


def kept_scores(
    workspace: Workspace,
    version: VersionRef,
    pairs: Sequence[Pair],
    on_progress: Callable[[int, int], None] | None = None,
    dtype: str = "float32",
) -> list[PairScore]:
    """Both sides of each pair, in the order given; only what isn't kept is computed. on_progress(done, all)."""
    from rlhf import registry

    place = choose("auto", dtype)
    kept = KeptScores(workspace, version, place.device.partition(":")[0], place.dtype)
    out: list[PairScore | None] = [None] * len(pairs)
    missing = []
    for chunk in chunks_of(pairs):
        known = kept.get([pairs[i] for i in chunk])
        if known is None:
            missing.append(chunk)
            continue
        for i, score in zip(chunk, known, strict=True):
            out[i] = score
    done = len(pairs) - sum(map(len, missing))
    if not missing:
        registry.open_version(workspace, version)  # every byte of it is checked all the same
    reward = open_reward(workspace, version, place) if missing else None
    for chunk in missing:
        assert reward is not None
        own = [pairs[i] for i in chunk]
        scores = score_with(reward.model, reward.renderer, own)
        kept.put(own, scores)
        for i, score in zip(chunk, scores, strict=True):
            out[i] = score
        done += len(chunk)
        if on_progress:
            on_progress(done, len(pairs))
    if not missing and on_progress:
        on_progress(done, len(pairs))
    return [score for score in out if score is not None]


def all_kept(workspace: Workspace, version: VersionRef, pairs: Sequence[Pair]) -> Iterator[list[PairScore]]:
    """What was kept of all these pairs, in the order given, once for each kind of device and type that has them whole; nothing is
    computed."""
    for file in sorted((workspace.root / FOLDER).glob(f"{version.digest[:24]}-*.jsonl")):
        device, _, dtype = file.stem[25:].partition("-")
        kept = KeptScores(workspace, version, device, dtype)
        out: list[PairScore | None] = [None] * len(pairs)
        for chunk in chunks_of(pairs):
            known = kept.get([pairs[i] for i in chunk])
            for i, score in zip(chunk, known or (), strict=bool(known)):
                out[i] = score
        whole = [score for score in out if score is not None]
        if len(whole) == len(pairs):
            yield whole

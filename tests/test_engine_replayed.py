"""Steps of fixed shape say what the others say, whoever comes and goes, and are recorded once for a size."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from live_versions import CPU, base_in, policy_folder

from rlhf.engine import lora_files, policies
from rlhf.engine.bases import Base
from rlhf.engine.decoding import ContinuousBatch, Row
from rlhf.engine.placement import Placement
from rlhf.engine.replayed import LENGTH, ROWS, Replayed
from rlhf.engine.slots import BASE, Slot, SlotBank

SLOTS = 3


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Base:
    return base_in(tmp_path_factory.mktemp("base"), tiny_folder)


@pytest.fixture(scope="module")
def folders(base: Base, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    root = tmp_path_factory.mktemp("versions")
    return [policy_folder(base, root / f"p{i}", i, r=2 + i % 3, top_layers=i % 2) for i in range(SLOTS + 1)]


def batch_on(base: Base, place: Placement = CPU) -> ContinuousBatch:
    model = policies.bare(base, place)
    return ContinuousBatch(model, SlotBank(model, slots=SLOTS, max_rank=8), prefix_tokens=0)


def put(batch: ContinuousBatch, folder: Path) -> Slot:
    weights = lora_files.read(folder)
    slot = batch.bank.reserve(weights)
    batch.bank.write(slot, weights)
    return slot


def run_again(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], Any], torch.Tensor]:
    """A recording without a GPU: the same run over the same buffers."""
    found = run()
    return lambda: found.copy_(run()), found


def both_ways(plain: ContinuousBatch, fixed: ContinuousBatch, folders: list[Path]) -> None:
    """The same rows in both batches while versions take each other's slots; the logits are the same at each step."""
    drawn = random.Random(0)
    slots = [[put(batch, folder) for folder in folders[:SLOTS]] for batch in (plain, fixed)]
    rows: list[tuple[Row, Row]] = []

    def join(version: int, n: int) -> None:
        tokens = [drawn.randrange(3, 60) for _ in range(n)]
        two = [Row(list(tokens), f"{version}", BASE if version < 0 else of[version], n + 40) for of in slots]
        rows.append((two[0], two[1]))
        for batch, row in zip((plain, fixed), two, strict=True):
            batch.join([[row]])

    def step() -> None:
        tokens = [drawn.randrange(3, 60) for _ in plain.rows]
        wanted, found = plain.step(tokens), fixed.step(tokens)
        assert found.shape == wanted.shape and torch.allclose(found, wanted, atol=1e-4, rtol=1e-4)

    for version, n in ((0, 5), (1, 9), (-1, 3), (2, 6), (0, 4)):
        join(version, n)
        step()
    for batch, row in zip((plain, fixed), rows.pop(1), strict=True):
        batch.leave(row, keep=False)
    step()
    for batch, of in zip((plain, fixed), slots, strict=True):  # another version where the second was
        batch.bank.free(of[1])
        of[1] = put(batch, folders[SLOTS])
    join(1, 7)
    step()
    step()


def test_logits_are_those_of_plain_steps_while_versions_come_and_go(base: Base, folders: list[Path]) -> None:
    plain, fixed = batch_on(base), batch_on(base)
    assert fixed._quick is not None and fixed._replayed is None, "without a GPU nothing is recorded"
    made: list[int] = []

    def counted(run: Callable[[], torch.Tensor]) -> tuple[Callable[[], Any], torch.Tensor]:
        made.append(1)
        return run_again(run)

    fixed._replayed = Replayed(fixed._quick, fixed.bank, counted)
    with torch.inference_mode():
        both_ways(plain, fixed, folders)
    assert len(made) == 1 and list(fixed._replayed.recordings) == [(ROWS, LENGTH)], (
        "no change of versions is a new recording"
    )


def test_a_block_that_grows_is_recorded_anew(base: Base, folders: list[Path]) -> None:
    plain, fixed = batch_on(base), batch_on(base)
    assert fixed._quick is not None
    fixed._replayed = Replayed(fixed._quick, fixed.bank, run_again)
    with torch.inference_mode():
        both_ways(plain, fixed, folders)
        (before,) = fixed._replayed.recordings.values()
        more = [[Row([5, 6, 7 + i], None, BASE, 40) for i in range(ROWS)] for _ in (plain, fixed)]
        for batch, new in zip((plain, fixed), more, strict=True):
            batch.join([[row] for row in new])
        tokens = [9] * len(plain.rows)
        assert torch.allclose(fixed.step(tokens), plain.step(tokens), atol=1e-4, rtol=1e-4)
    assert (
        list(fixed._replayed.recordings) == [(2 * ROWS, LENGTH)] and before not in fixed._replayed.recordings.values()
    )


@pytest.mark.cuda
def test_a_cuda_graph_says_what_plain_steps_say(base: Base, folders: list[Path]) -> None:
    place = Placement("cuda", "float32", "tests")
    plain, fixed = batch_on(base, place), batch_on(base, place)
    plain._replayed = None
    assert fixed._replayed is not None
    with torch.inference_mode():
        both_ways(plain, fixed, folders)

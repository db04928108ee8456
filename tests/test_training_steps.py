"""A step is a fixed number of items, whoever shares it, in an order that seed and epoch alone decide."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from rlhf.training.steps import StepLoader, StepSampler


@given(st.integers(1, 50), st.integers(1, 16), st.integers(1, 4), st.integers(0, 3))
def test_processes_share_each_step_and_lose_no_pair(n: int, per_step: int, n_processes: int, epoch: int) -> None:
    shares = []
    for rank in range(n_processes):
        sampler = StepSampler(n, per_step, seed=7, rank=rank, n_processes=n_processes)
        sampler.set_epoch(epoch)
        shares.append(list(sampler))
    assert len({len(share) for share in shares}) == 1
    for step in zip(*shares, strict=True):
        assert 1 <= sum(i >= 0 for share in step for i in share) <= per_step
    assert sorted(i for share in shares for step in share for i in step if i >= 0) == list(range(n))


def steps(seed: int = 0, epoch: int = 0, **more: bool) -> list[list[int]]:
    sampler = StepSampler(10, 4, seed=seed, rank=0, n_processes=1, **more)
    sampler.set_epoch(epoch)
    assert len(sampler) == len(list(sampler))
    return list(sampler)


def test_seed_and_epoch_alone_decide_the_order() -> None:
    assert steps() == steps() and [len(step) for step in steps()] == [4, 4, 2]
    assert steps(seed=1) != steps() != steps(epoch=1)
    assert steps(epoch=1, in_order=True) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_the_loader_passes_its_epoch_on() -> None:
    loader = StepLoader(list(range(10)), batch_sampler=StepSampler(10, 4, 0, 0, 1), collate_fn=list)
    first = list(loader)
    loader.set_epoch(1)
    assert first == steps() and list(loader) == steps(epoch=1)

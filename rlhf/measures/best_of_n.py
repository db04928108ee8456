"""Best of n by a proxy: what the truth says of the reply that a learnt score would pick, as n grows.

The more replies a score may choose from, the more its mistakes are what is chosen (Gao et al. 2023). The expectation over all
draws of n from a pool is exact, so that no chance is added to the curve.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import comb, log

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def best_of_n(proxy_PN: ArrayLike, truth_PN: ArrayLike, ns: Sequence[int]) -> Floats:
    """(P, len(ns)): for each prompt, the expected truth of the reply with the highest proxy among n drawn without replacement.

    proxy, truth: (P, N), a pool of N replies for each of P prompts. The i-th best by the proxy (from 0) is picked from
    C(N - 1 - i, n - 1) of the C(N, n) draws; replies of equal proxy share their truths' mean. Raises ValueError for an n
    outside 1 to N.
    """
    proxy, truth = np.asarray(proxy_PN, dtype=np.float64), np.asarray(truth_PN, dtype=np.float64)
    if proxy.ndim != 2 or proxy.shape != truth.shape:
        raise ValueError(f"shapes {proxy.shape} and {truth.shape}; wanted two of prompts by replies")
    size = proxy.shape[1]
    if any(not 1 <= n <= size for n in ns):
        raise ValueError(f"ns = {list(ns)}; wanted 1 to {size}, the replies of a prompt")
    shares = np.array([[comb(size - 1 - i, n - 1) / comb(size, n) for n in ns] for i in range(size)])
    return np.stack([_ranked(own, true) @ shares for own, true in zip(proxy, truth, strict=True)])


def best_of_n_over_starts(proxy_PM: ArrayLike, wins_PMM: ArrayLike, ns: Sequence[int]) -> Floats:
    """(P, len(ns)): as `best_of_n` where the truth is the win over one more reply, averaged over which of the M replies that is, so
    that its luck isn't in the curve and best of 1 is a half. wins: (P, M, M), of the reply of the row over that of the column."""
    proxy, wins = np.asarray(proxy_PM, dtype=np.float64), np.asarray(wins_PMM, dtype=np.float64)
    size = proxy.shape[-1]
    if wins.shape != (*proxy.shape, size):
        raise ValueError(f"shapes {proxy.shape} and {wins.shape}; wanted prompts by replies, and by replies again")
    others = [np.delete(np.arange(size), start) for start in range(size)]
    found = [best_of_n(proxy[:, own], wins[:, own, start], ns) for start, own in enumerate(others)]
    means: Floats = np.mean(found, axis=0)
    return means


def best_of_n_kl(n: int) -> float:
    """KL of best-of-n from the policy that was sampled, nats a reply: at most log n - (n - 1) / n (Beirami et al. 2024)."""
    return log(n) - (n - 1) / n


def _ranked(proxy_N: Floats, truth_N: Floats) -> Floats:
    """The truths from the highest proxy down; within a run of equal proxies their mean."""
    _, inverse = np.unique(-proxy_N, return_inverse=True)
    means = np.bincount(inverse, weights=truth_N) / np.bincount(inverse)
    return means[np.sort(inverse)]

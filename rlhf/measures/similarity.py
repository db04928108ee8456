"""Which texts are nearly the same: MinHash and banding find the candidates, the true Jaccard similarity decides.

Comparing all pairs of n texts is n²/2 set intersections; MinHash signatures (Broder 1997) put likely pairs in the same
bucket with locality-sensitive banding (Leskovec et al., Mining of Massive Datasets, ch. 3), in time linear in the text.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from rlhf.ids import chance

_WORD = re.compile(r"\w+|[^\w\s]")
_MIX = np.uint64(0x9E3779B97F4A7C15)
# In a bucket each text is compared with so many following ones, so that thousands of texts of one template stay linear.
_NEIGHBOURS = 200
_SHINGLES_AT_ONCE = 500_000

Hashes = NDArray[np.uint64]


def near_duplicates(
    texts: Sequence[str], threshold: float = 0.8, *, shingle_words: int = 3, n_hashes: int = 128, seed: int = 0
) -> list[tuple[int, int, float]]:
    """Pairs (i, j, jaccard) with i < j and Jaccard similarity of their word shingles >= threshold, sorted.

    Case, spacing and the order of repeated shingles don't count. A text shorter than `shingle_words` is one shingle;
    texts without words pair with nothing. k texts of equal shingles give k - 1 pairs (each with the first), not
    k(k-1)/2. Every pair returned is verified; of the pairs at exactly the threshold some 0.5 % may be missed, above it
    fewer.
    """
    if not 0 < threshold <= 1:
        raise ValueError(f"threshold = {threshold}; wanted above 0 and at most 1")
    sets = list(shingles(texts, shingle_words))
    found, firsts = _equal_sets(sets)
    distinct = [sets[i] for i in firsts]
    if threshold < 1.0 and len(distinct) > 1:
        signatures = _signatures(distinct, n_hashes, seed)
        for left, right in _candidates(signatures, _rows_per_band(threshold, n_hashes)):
            similarity = jaccard(distinct[left], distinct[right])
            if similarity >= threshold:
                found.append((firsts[left], firsts[right], similarity))
    return sorted(found)


def jaccard(one: Hashes, other: Hashes) -> float:
    """|intersection| / |union| of two sorted arrays without repetition; 0.0 where both are empty."""
    both = np.intersect1d(one, other, assume_unique=True).size
    either = one.size + other.size - both
    return both / either if either else 0.0


def shingles(texts: Iterable[str], n_words: int) -> Iterator[Hashes]:
    """Each text as the sorted 64-bit hashes of its runs of `n_words` words; stable over processes and machines."""
    known: dict[str, int] = {}
    for text in texts:
        words = _WORD.findall(text.casefold())
        for word in words:
            if word not in known:
                known[word] = int.from_bytes(hashlib.blake2b(word.encode("utf-8"), digest_size=8).digest(), "big")
        hashed = np.fromiter((known[word] for word in words), dtype=np.uint64, count=len(words))
        width = min(n_words, len(words))
        runs = np.zeros(len(words) - width + 1 if words else 0, dtype=np.uint64)
        for place in range(width):
            runs = _mixed(runs * _MIX + hashed[place : place + runs.size])
        yield np.unique(runs)


def _mixed(x: Hashes) -> Hashes:
    """splitmix64's finaliser: every input bit reaches every output bit, as multiply-and-add hashing below needs."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _equal_sets(sets: Sequence[Hashes]) -> tuple[list[tuple[int, int, float]], list[int]]:
    """(first, copy, 1.0) of texts with equal shingles, and the index of each distinct non-empty one's first."""
    first_of: dict[bytes, int] = {}
    copies = []
    for i, one in enumerate(sets):
        if one.size:
            first = first_of.setdefault(hashlib.sha256(one.tobytes()).digest(), i)
            if first != i:
                copies.append((first, i, 1.0))
    return copies, list(first_of.values())


def _signatures(sets: Sequence[Hashes], n_hashes: int, seed: int) -> Hashes:
    """MinHash signatures (len(sets), n_hashes): the least value of each of n_hashes multiply-add hashes."""
    draw = chance(seed, "minhash")
    factors = [np.uint64(draw.getrandbits(64) | 1) for _ in range(n_hashes)]
    shifts = [np.uint64(draw.getrandbits(64)) for _ in range(n_hashes)]
    signatures = np.empty((len(sets), n_hashes), dtype=np.uint64)
    begin = 0
    while begin < len(sets):
        end, n = begin + 1, sets[begin].size
        while end < len(sets) and n + sets[end].size <= _SHINGLES_AT_ONCE:
            n += sets[end].size
            end += 1
        flat = np.concatenate(sets[begin:end])
        starts = np.cumsum([0, *(s.size for s in sets[begin : end - 1])])
        for k in range(n_hashes):
            signatures[begin:end, k] = np.minimum.reduceat(flat * factors[k] + shifts[k], starts)
        begin = end
    return signatures


def _rows_per_band(threshold: float, n_hashes: int) -> int:
    """The most rows a band (fewest false candidates) that still find a pair at the threshold with p >= 0.995."""
    rows = 1
    while (bands := n_hashes // (rows + 1)) and 1 - (1 - threshold ** (rows + 1)) ** bands >= 0.995:
        rows += 1
    return rows


def _candidates(signatures: Hashes, rows: int) -> Iterator[tuple[int, int]]:
    """Pairs whose signatures share a whole band of `rows` hashes, each pair once."""
    n, n_hashes = signatures.shape
    seen: set[tuple[int, int]] = set()
    for band in range(n_hashes // rows):
        buckets: dict[bytes, list[int]] = {}
        part = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        for i in range(n):
            buckets.setdefault(part[i].tobytes(), []).append(i)
        for members in buckets.values():
            for place, left in enumerate(members):
                for right in members[place + 1 : place + 1 + _NEIGHBOURS]:
                    if (left, right) not in seen:
                        seen.add((left, right))
                        yield left, right

"""How a reply repeats itself, and how alike the replies of one writer are: shares over n-grams of words.

A word is a run of letters and digits, case folded; each punctuation mark, and each Chinese or Japanese character (these
scripts have no spaces), is one of its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import chain

_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]+|[^\w\s]")


def words(text: str) -> list[str]:
    """The words of a text in order."""
    return _WORD.findall(text.casefold())


def repetition(text: str, n: int = 4) -> float:
    """Share of a reply's n-grams that stood in it before: 1 - distinct / all (Welleck et al. 2020's seq-rep-n), in
    [0, 1); 0.0 where it has fewer than n words. Long texts repeat more by themselves: compare at similar lengths.
    """
    grams = _grams(words(text), n)
    return 1.0 - len(set(grams)) / len(grams) if grams else 0.0


def distinct(texts: Iterable[str], n: int = 2) -> float:
    """Distinct n-grams over all n-grams of the replies taken together (Li et al. 2016's distinct-n), in [0, 1].

    Near 0 where the same reply is given to every prompt. It falls with the amount of text, so compare it over the same
    prompts only. 0.0 where no reply has n words.
    """
    grams = list(chain.from_iterable(_grams(words(text), n) for text in texts))
    return len(set(grams)) / len(grams) if grams else 0.0


def _grams(tokens: Sequence[str], n: int) -> list[tuple[str, ...]]:
    if n < 1:
        raise ValueError(f"n = {n}; wanted at least 1")
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]

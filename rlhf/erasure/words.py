"""Words: does a text hold a passage of what is erased?

A passage is 24 characters in a row, with spaces and case folded, so that an excerpt in a report is found by its beginning or its
end. A shorter text is found where it stands alone (a JSON value, a cell, the text between two tags), not inside other words.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

MARK = "[erased]"
_PASSAGE = 24
_ALONE = 12  # characters, or two words: less ("yes", "mean") may be any value of any file


class Words:
    """The erased texts, ready to be looked for."""

    def __init__(self, texts: Iterable[str], names: Iterable[str] = ()) -> None:
        """names: found where they stand alone, however short."""
        folded = {_folded(text) for text in texts} - {""}
        self._whole = {text for text in folded if len(text) >= _ALONE or " " in text}
        self._whole |= {_folded(name) for name in names} - {""}
        self._passages = {text[i : i + _PASSAGE] for text in folded for i in range(len(text) - _PASSAGE + 1)}

    def __bool__(self) -> bool:
        return bool(self._whole or self._passages)

    def are_in(self, text: str) -> bool:
        """The text is one of them, or has a passage with one in common."""
        said = _folded(text)
        if not said:
            return False
        passages = self._passages
        return said in self._whole or (
            bool(passages) and any(said[i : i + _PASSAGE] in passages for i in range(len(said) - _PASSAGE + 1))
        )

    def without(self, value: Any) -> Any:
        """A JSON value with every string that holds them replaced by the mark, keys too; the same object where none does."""
        if isinstance(value, str):
            return MARK if self.are_in(value) else value
        if isinstance(value, list):
            made = [self.without(item) for item in value]
            return made if any(new is not old for new, old in zip(made, value, strict=True)) else value
        if isinstance(value, dict):
            pairs = {self.without(key): self.without(item) for key, item in value.items()}
            same = len(pairs) == len(value) and all(key in pairs and pairs[key] is item for key, item in value.items())
            return value if same else pairs
        return value


def _folded(text: str) -> str:
    return " ".join(text.casefold().split())

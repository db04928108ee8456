"""Names of people, where a spaCy model is asked for: `RLHF_NAMES_MODEL` is the name of an installed one, or its folder.

Names are beyond patterns. Unset, none is looked for; set to what isn't there, the door stays shut, for text that was
to be masked may not be stored unmasked. Nothing is downloaded. What a model finds depends on it: another model, or
none, gives other masks, and so other pairs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cache
from typing import Any

from rlhf.errors import BadUsage

Span = tuple[int, int, str]

MODEL = "RLHF_NAMES_MODEL"
_LABELS = ("PERSON", "PER", "persName")  # English; German, French and their kin; Polish
_PLACEHOLDER = re.compile(r"<[A-Z]{2,7}>")
_CHARS = 100_000  # a model's memory grows with its text: long ones are read in parts


def check() -> None:
    """Raises BadUsage where names were asked for and can't be found."""
    if name := os.environ.get(MODEL):
        _model(name)


def names(text: str) -> Iterator[Span]:
    """Where a person is named; nothing where no model was asked for. Raises BadUsage like `check`."""
    if not (name := os.environ.get(MODEL)) or not text.strip():
        return
    for offset in range(0, len(text), _CHARS):
        part = text[offset : offset + _CHARS]
        masked = [m.span() for m in _PLACEHOLDER.finditer(part)]
        for entity in _model(name)(part).ents:
            begin, end = entity.start_char, entity.end_char
            if entity.label_ in _LABELS and not any(b < end and begin < e for b, e in masked):
                yield offset + begin, offset + end, "name"


@cache
def _model(name: str) -> Any:
    try:
        import spacy
    except ImportError:
        raise BadUsage(
            f"{MODEL} asks for names to be masked, and spaCy is not installed",
            fix="pip install 'rlhf[names]' and a model of spaCy's, or unset it: names are then stored as they are",
        ) from None
    try:
        return spacy.load(name)
    except (OSError, ValueError):
        raise BadUsage(
            f"{MODEL} is '{name[:200]}', and spaCy has no such model here",
            fix="install that model or name one that is (python -m spacy info), or unset it: names are then stored as they are",
        ) from None

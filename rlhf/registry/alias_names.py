"""What may be an alias: `name@word`, where the word can't be read as a number, a digest or a snapshot's newest cut."""

from __future__ import annotations

import re

from rlhf.errors import BadInput, BadUsage

_ALIAS = re.compile(r"[A-Za-z0-9_.][A-Za-z0-9_.-]{0,99}")  # with a dash before it a name reads as an option
_SNAPSHOTS_WORD = "latest"
_HEX = re.compile(r"[0-9a-fA-F]{12,64}")


def name_of(alias: str) -> str:
    """The name before the `@`; refuses an alias that could be read as a number, a digest or two names."""
    name, at, label = alias.partition("@")
    if not at or not name or not _ALIAS.fullmatch(label) or not label.strip("."):
        raise BadUsage(
            f"'{alias}' is no alias: wanted name@alias, with letters, digits, - _ or . after the @",
            fix="write for instance hh@champion",
        )
    if label.isdigit() or _HEX.fullmatch(label):
        raise BadUsage(
            f"'{label}' can't be an alias: it reads as a version's {'number' if label.isdigit() else 'digest'}",
            fix="choose a word, for instance champion",
        )
    return name


def require_free_word(alias: str) -> None:
    """Refused at a move only, so that an alias of this name from before still has its history and its way back."""
    if alias.partition("@")[2].lower() == _SNAPSHOTS_WORD:
        raise BadUsage(
            f"'{_SNAPSHOTS_WORD}' can't be an alias: name@{_SNAPSHOTS_WORD} means a snapshot's newest cut",
            fix="choose another word, for instance newest or champion",
        )


def require_why(why: str, what: str = "the alias moves") -> None:
    if not why.strip():
        raise BadInput(f"why {what} is not said", fix="say it with --why, for whoever reads the history")

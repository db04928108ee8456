"""Consent: what a judgement may be used for: train, evaluate, publish, or nothing (`none`)."""

from __future__ import annotations

from collections.abc import Iterable

from rlhf.errors import BadUsage
from rlhf.records import CONSENT_SCOPES


def scopes(words: str | Iterable[str]) -> tuple[str, ...]:
    """Sorted scopes from words or a comma-separated text; `none` alone is (). Raises BadUsage on any other word."""
    parts = words.split(",") if isinstance(words, str) else [part for word in words for part in word.split(",")]
    named = {part.strip() for part in parts} - {""}
    if unknown := named - {*CONSENT_SCOPES, "none"}:
        raise BadUsage(f"'{min(unknown)}' is no consent scope", fix=f"use some of {', '.join(CONSENT_SCOPES)}, or none")
    if "none" in named and len(named) > 1:
        raise BadUsage("consent is none and something else", fix="name the scopes, or none alone")
    return tuple(sorted(named - {"none"}))


def as_column(consent: Iterable[str]) -> str:
    return ",".join(sorted(consent))


def from_column(text: str) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()

"""Erasing from suites: a person's rows and judgements, in suites of any name; the digests stay, so the root verifies.

A suite's rows aren't in the store's tables, so who stands in a suite alone is found here. A subject's rows are those that name
them, and those whose prompt goes on from a conversation of theirs.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import select

from rlhf.errors import BadInput
from rlhf.feedback.erasing import Target, What, own_texts
from rlhf.feedback.pseudonyms import person_of
from rlhf.snapshots.erasing import erase_in, folder_of, holds
from rlhf.snapshots.rows import ERASED, read_columns
from rlhf.store import Workspace
from rlhf.store.tables import pairs
from rlhf.suites.names import SuiteEntry, list_suites

_COLUMNS = ("pair_id", "prompt", "reply_a", "reply_b", "judgements", "subject")


@dataclass(frozen=True, slots=True)
class _Row:
    pair_id: str
    texts: frozenset[str]
    turns: list[Any]
    people: frozenset[tuple[str, str]]  # (source, labeler) of its judgements
    subject: str


def find(workspace: Workspace, what: What, value: str, source: str | None) -> Target | None:
    """What there is to erase in suites of somebody, or something, that the tables don't know; None where suites don't either.

    Raises BadInput where a labeler's name stands in several sources and none was given.
    """
    name = value if what == "pair" else person_of(workspace.key, value)
    rows = [row for entry in list_suites(workspace) for row in _rows(workspace, entry)]
    if what == "pair":
        ids = {row.pair_id for row in rows if len(value) >= 12 and row.pair_id.startswith(value.lower())}
        return Target("pair", next(iter(ids)), "", frozenset(ids), 0, frozenset()) if len(ids) == 1 else None
    if what == "labeler":
        sources = sorted({s for row in rows for s, labeler in row.people if labeler == name and source in (None, s)})
        if len(sources) > 1:
            raise BadInput(
                f"this name stands in {len(sources)} sources, and may be another person in each: {', '.join(sources)}",
                fix="give one with --source, and run it once for each that is meant",
            )
        return Target("labeler", name, sources[0], frozenset(), 0, frozenset()) if sources else None
    is_known = any(row.subject == name for row in rows)
    return Target("subject", name, "", frozenset(), 0, frozenset()) if is_known else None


def extended(workspace: Workspace, target: Target) -> Target:
    """The target with the rows of suites that it reaches, and their texts that stand in no other row or living pair."""
    entries = list_suites(workspace)
    if not entries or target.what == "labeler":
        return target
    rows = [row for entry in entries for row in _rows(workspace, entry)]
    ids = set(target.pair_ids)
    if target.what == "subject":
        theirs = [row.turns for row in rows if row.turns and (row.pair_id in ids or row.subject == target.value)]
        theirs += _prompts(workspace, ids)
        ids |= {row.pair_id for row in rows if row.subject == target.value or _goes_on(row.turns, theirs)}
    texts = {text for row in rows if row.pair_id in ids for text in row.texts}
    with workspace.read() as connection:
        texts = set(target.texts) | own_texts(connection, texts, ids)
    for row in rows:
        if row.pair_id not in ids:
            texts -= row.texts
    return replace(target, pair_ids=frozenset(ids), texts=frozenset(texts))


def touched(workspace: Workspace, target: Target, labeler: tuple[str, str] | None) -> list[SuiteEntry]:
    """The suites that hold it."""
    return [entry for entry in list_suites(workspace) if holds(workspace, entry, target.pair_ids, labeler)]


def erase(workspace: Workspace, entry: SuiteEntry, target: Target, labeler: tuple[str, str] | None) -> int:
    """Rewrite the suite's shards; gives how many rows were changed."""
    return erase_in(workspace, entry, target.pair_ids, labeler)


def _rows(workspace: Workspace, entry: SuiteEntry) -> Iterator[_Row]:
    folder = folder_of(workspace, entry)
    for pair_id, prompt, a, b, said, subject in read_columns(sorted(folder.glob("rows-*.parquet")), _COLUMNS):
        turns = json.loads(prompt) if prompt is not None else []
        texts = {a, b, *(turn["content"] for turn in turns)}
        people = {(j["source"], j["labeler"]) for j in json.loads(said) if ERASED not in j and j["labeler"]}
        yield _Row(pair_id, frozenset(t for t in texts if t and t.strip()), turns, frozenset(people), subject)


def _prompts(workspace: Workspace, ids: set[str]) -> list[Any]:
    """Prompts of the store's pairs that are erased: a suite may hold their words with other replies."""
    query = select(pairs.c.id, pairs.c.prompt).where(pairs.c.prompt.is_not(None))
    with workspace.read() as connection:
        rows = connection.execute(query.execution_options(yield_per=1000)) if ids else ()
        return [json.loads(row.prompt) for row in rows if row.id in ids]


def _goes_on(turns: list[Any], prompts: list[Any]) -> bool:
    return any(prompt and turns[: len(prompt)] == prompt for prompt in prompts)

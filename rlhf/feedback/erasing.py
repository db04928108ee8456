"""Erasing from the tables: a pair, a subject's pairs, all that a labeler said, or what sources may no longer keep. First nothing
uses it, last its text goes.

Between the two lies the work on files, which needs the words to know them; a crash in between is made good by running the same
erasure again. What stays: digests, so that roots verify; counts; and a keyed tombstone that refuses a re-import. In SQL an erased
judgement is a skip without labeler, consent, note or time: no snapshot, count or export takes one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select

from rlhf.errors import BadInput, NotFound
from rlhf.feedback import served_words, tombstones
from rlhf.feedback.pseudonyms import person_of
from rlhf.feedback.rated import prompt_digest
from rlhf.feedback.reading import NOBODY, UNDO
from rlhf.ids import now_text
from rlhf.records import PAGE_SOURCE, Message
from rlhf.store import Write
from rlhf.store.tables import (
    checks,
    comments,
    imports,
    item_events,
    items,
    judgements,
    leases,
    pair_sources,
    pairs,
    pauses,
    rejected_rows,
)

What = Literal["labeler", "subject", "pair", "expired"]
_CHUNK = 500


@dataclass(frozen=True, slots=True)
class Target:
    """What is to be erased, found. source: of a labeler, '' else. texts: their words that stand nowhere else in the store;
    comments: digests of those that go beside what the rest names."""

    what: What
    value: str
    source: str
    pair_ids: frozenset[str]
    n_judgements: int
    texts: frozenset[str]
    comments: frozenset[str] = frozenset()


def find(connection: Connection, workspace_key: str, what: What, value: str, source: str | None = None) -> Target:
    """What there is to erase; of one that was erased halfway, what is left.

    Raises NotFound where nothing is known by this name and nothing was erased under it, BadInput where a labeler's name stands
    in several sources and none was given, or a pair's digits name several.
    """
    value = _as_kept(connection, workspace_key, value) if what != "pair" else value
    if what == "labeler":
        source = _source_of(connection, workspace_key, value, source)
        mine = select(judgements.c.note, judgements.c.reason).where(_by(value, source))
        said = connection.execute(mine).all()
        bodies = connection.scalars(
            select(comments.c.body).where(comments.c.labeler == value, comments.c.source == source)
        )
        own = connection.scalars(select(items.c.body).where(_given_by(value, source)))
        return Target(
            what, value, source, frozenset(), len(said), _plain(t for r in (*said, (*bodies, *own)) for t in r)
        )
    if what == "pair":
        found = _the_pair(connection, value)
        return Target(what, found, "", frozenset({found}), *_of_pairs(connection, [found]))
    ids = _of_subject(connection, value)
    is_known = ids or tombstones.buried(connection, workspace_key, [("subject", value, "")])
    if not is_known and not served_words.was_served(connection, value):
        raise NotFound("no prompt here is known to hold this subject's words", fix="see the sources' subject column")
    return Target(what, value, "", frozenset(ids), *_of_pairs(connection, ids))


def find_expired(connection: Connection, before: Mapping[str, str]) -> Target:
    """What came before its source's moment (source: ISO 8601) and still has its words, also of an erasure that was cut short.

    A pair that stands in several sources goes when none of them may keep it; that people judged it on the page keeps nothing.
    """
    came = func.coalesce(imports.c.created_at, pairs.c.created_at)
    standing = (
        select(pair_sources.c.pair_id, pair_sources.c.source, came.label("at"))
        .join(pairs, pairs.c.id == pair_sources.c.pair_id)
        .outerjoin(imports, imports.c.id == pair_sources.c.import_id)
        .where(pairs.c.prompt.is_not(None), pair_sources.c.source != PAGE_SOURCE)
    )
    over: set[str] = set()
    kept: set[str] = set()
    for pair_id, source, at in connection.execute(standing.execution_options(yield_per=1000)):
        (over if source in before and at < before[source] else kept).add(pair_id)
    old = [and_(comments.c.source == source, comments.c.created_at < at) for source, at in before.items()]
    said = connection.execute(select(comments).where(or_(*old), _has_words())).all() if old else []
    n, texts = _of_pairs(connection, sorted(over - kept))
    texts |= _plain(text for row in said for text in (row.body, row.reply))
    return Target("expired", "", "", frozenset(over - kept), n, texts, frozenset(row.digest for row in said))


def known_sources(connection: Connection) -> set[str]:
    """Sources that pairs or comments came from."""
    return {
        *connection.scalars(select(pair_sources.c.source).distinct()),
        *connection.scalars(select(comments.c.source).distinct()),
    }


def _has_words() -> ColumnElement[bool]:
    return or_(comments.c.prompt.is_not(None), comments.c.reply.is_not(None), comments.c.body.is_not(None))


def bury(write: Write, target: Target) -> None:
    """From here on nothing uses it and nothing brings it back. Its text is still there."""
    named = [("pair", pair_id, "") for pair_id in target.pair_ids]
    if target.what != "expired":
        named.append((target.what, target.value, target.source))
    if target.what == "labeler":
        judged = write.connection.scalars(
            select(judgements.c.pair_id).where(_by(target.value, target.source)).distinct()
        )
        named += [tombstones.vote(pair_id, target.value) for pair_id in judged]
    at = now_text()
    keys = {tombstones.key(write.key, what, value, source): what for what, value, source in named}
    rows = [{"key": key, "what": what, "created_at": at} for key, what in keys.items()]
    write.insert_new(tombstones.tombstones, rows)
    for some in _chunks(sorted(target.pair_ids)):
        write.connection.execute(
            pairs.update().values(erased_at=at).where(pairs.c.id.in_(some), pairs.c.erased_at.is_(None))
        )
    if target.what == "labeler":
        write.connection.execute(judgements.update().values(consent="").where(_by(target.value, target.source)))


def null(write: Write, target: Target) -> dict[str, int]:
    """The text goes. Gives how many pairs, judgements, comments and served replies held some."""
    counts = {"pairs": 0, "judgements": 0, "comments": 0, "served": 0}
    if target.what == "subject" or target.source == served_words.SERVED:
        counts["served"] += served_words.null_user(write, target.value)
    for some in _chunks(sorted(target.pair_ids)):
        counts["comments"] += _null_comments_on(write, some)
        counts["served"] += served_words.null_on(write, some)
        counts["pairs"] += write.connection.execute(
            pairs.update()
            .values(prompt=None, reply_a=None, reply_b=None)
            .where(pairs.c.id.in_(some), pairs.c.prompt.is_not(None))
        ).rowcount
        write.connection.execute(
            pair_sources.update().values(subject=None, details=None).where(pair_sources.c.pair_id.in_(some))
        )
        write.connection.execute(judgements.update().values(note=None).where(judgements.c.pair_id.in_(some)))
        write.connection.execute(checks.update().values(note=None, reason=None).where(checks.c.pair_id.in_(some)))
        quoting = and_(judgements.c.pair_id.in_(some), judgements.c.choice == "skip", judgements.c.reason != UNDO)
        write.connection.execute(judgements.update().values(reason=None).where(quoting))
        _null_items(write, items.c.pair_id.in_(some))
    for some in _chunks(sorted(target.comments)):
        counts["comments"] += write.connection.execute(
            comments.update()
            .values(prompt=None, reply=None, body=None, consent="")
            .where(comments.c.digest.in_(some), _has_words())
        ).rowcount
    if target.what == "labeler":
        counts["judgements"] = _null_labeler(write, target)
        counts["comments"] += write.connection.execute(
            comments.update()
            .values(prompt=None, reply=None, body=None, labeler=None, value=None, consent="")
            .where(comments.c.labeler == target.value, comments.c.source == target.source)
        ).rowcount
    for text in (text for text in target.texts if len(text) >= _LONG):
        holds = rejected_rows.c.reason.contains(text, autoescape=True)
        write.connection.execute(rejected_rows.update().values(reason=NOBODY).where(holds))
    return counts


def tombstone_of(workspace_key: str, target: Target) -> str:
    """Under which key it is buried: what the audit log may say. '' where each pair has its own."""
    if target.what == "expired":
        return ""
    return tombstones.key(workspace_key, target.what, target.value, target.source)


_LONG = 12  # characters; a shorter text is erased where it stands, and not looked for in other people's words


def _null_labeler(write: Write, target: Target) -> int:
    """Each judgement becomes an empty skip under a key of its own: the old one could be guessed from the name."""
    ids = write.connection.scalars(select(judgements.c.id).where(_by(target.value, target.source))).all()
    gone: dict[str, Any] = {"choice": "skip", "reason": NOBODY, "consent": "", "actor": NOBODY}
    gone |= dict.fromkeys(("labeler", "strength", "seconds", "note", "cohort", "submitted_at", "guideline"))
    for judgement_id in ids:
        own = {**gone, "once": f"{NOBODY}:{judgement_id}"}
        write.connection.execute(judgements.update().values(**own).where(judgements.c.id == judgement_id))
    if target.source == PAGE_SOURCE:  # an account's name; in another source it may be another person's
        write.connection.execute(
            leases.update().values(labeler=NOBODY, judgement_id=NOBODY).where(leases.c.labeler == target.value)
        )
        for table in (checks, pauses):
            write.connection.execute(table.delete().where(table.c.labeler == target.value))
        for column in (item_events.c.who, item_events.c.owner):
            of_theirs = {column: NOBODY} if column is item_events.c.owner else {column: NOBODY, item_events.c.why: None}
            write.connection.execute(item_events.update().values(of_theirs).where(column == target.value))
        write.connection.execute(items.update().values(actor=NOBODY).where(items.c.actor == target.value))
    theirs = _given_by(target.value, target.source)
    _null_items(write, theirs)
    for item in write.connection.scalars(select(items.c.id).where(theirs)).all():
        own = {"given_by": NOBODY, "once": f"{NOBODY}:{item}"}  # the old key could be guessed from the name
        write.connection.execute(items.update().values(**own).where(items.c.id == item))
    return len(ids)


def _given_by(name: str, source: str) -> ColumnElement[bool]:
    """Items by this person: a source's comments under its own names, whatever a person said here under an account's."""
    channel = items.c.rule.is_(None) if source == PAGE_SOURCE else items.c.channel == source
    return and_(items.c.given_by == name, channel)


def _null_items(write: Write, which: ColumnElement[bool]) -> None:
    """What was said of it on the board, and why something was done: both may quote. What they hold stays held."""
    write.connection.execute(
        item_events.update().values(why=None).where(item_events.c.item_id.in_(select(items.c.id).where(which)))
    )
    write.connection.execute(items.update().values(body=None).where(which))


def _null_comments_on(write: Write, pair_ids: Sequence[str]) -> int:
    """Free feedback on the same words: a rated reply lies here as a comment too."""
    n = 0
    for row in write.connection.execute(select(pairs).where(pairs.c.id.in_(pair_ids), pairs.c.prompt.is_not(None))):
        prompt = [Message(turn["role"], turn["content"]) for turn in json.loads(row.prompt)]
        same = and_(
            comments.c.prompt_digest == prompt_digest(prompt),
            or_(comments.c.reply.in_([row.reply_a, row.reply_b]), comments.c.reply.is_(None)),
            comments.c.prompt.is_not(None),
        )
        n += write.connection.execute(
            comments.update().values(prompt=None, reply=None, body=None, consent="").where(same)
        ).rowcount
    return n


def _as_kept(connection: Connection, workspace_key: str, name: str) -> str:
    """The pseudonym of somebody whom a file named by an e-mail address, unless the address itself is kept from earlier days."""
    kept = person_of(workspace_key, name)
    columns = judgements.c.labeler, comments.c.labeler, pair_sources.c.subject
    plain = kept == name or any(connection.scalar(select(c).where(c == name).limit(1)) for c in columns)
    return name if plain else kept


def _by(labeler: str, source: str) -> ColumnElement[bool]:
    return and_(judgements.c.labeler == labeler, judgements.c.source == source)


def _source_of(connection: Connection, workspace_key: str, labeler: str, source: str | None) -> str:
    query = select(judgements.c.source).where(judgements.c.labeler == labeler).distinct()
    said = select(comments.c.source).where(comments.c.labeler == labeler).distinct()
    served = [served_words.SERVED] if served_words.was_served(connection, labeler) else []
    known = sorted({*connection.scalars(query), *connection.scalars(said), *served})
    if source is not None and source in known:
        return source
    if source is not None and tombstones.buried(connection, workspace_key, [("labeler", labeler, source)]):
        return source
    if source is None and not known:
        names = [("labeler", labeler, one) for one in sorted(known_sources(connection) | {PAGE_SOURCE})]
        if gone := tombstones.buried(connection, workspace_key, names):
            return min(gone)[2]  # erased already: the same again is no mistake
    if source is not None or not known:
        where = f" in the source '{source}'" if source is not None else ""
        raise NotFound(f"nobody known by this name has judged anything{where}", fix="see: rlhf feedback list")
    if len(known) > 1:
        raise BadInput(
            f"this name stands in {len(known)} sources, and may be another person in each: {', '.join(known)}",
            fix="give one with --source, and run it once for each that is meant",
        )
    return known[0]


def _the_pair(connection: Connection, text: str) -> str:
    if not 12 <= len(text) <= 64:
        raise BadInput(f"'{text:.70}' is no pair's id to erase by", fix="give at least 12 of its hex digits")
    found = connection.scalars(
        select(pairs.c.id).where(pairs.c.id.startswith(text.lower(), autoescape=True)).limit(2)
    ).all()
    if len(found) != 1:
        raise NotFound(
            f"{'two pairs' if found else 'no pair'} here begin{'' if found else 's'} with '{text}'",
            fix="see: rlhf feedback list",
        )
    return str(found[0])


def _of_subject(connection: Connection, subject: str) -> list[str]:
    """Pairs marked with the subject, and those whose prompt begins with the same conversation: other replies to it, or its going
    on."""
    marked = set(connection.scalars(select(pair_sources.c.pair_id).where(pair_sources.c.subject == subject)))
    rows = [row for some in _chunks(sorted(marked)) for row in connection.execute(_texts(pairs.c.id.in_(some)))]
    prompts = [json.loads(row.prompt) for row in rows if row.prompt is not None]
    groups = sorted({row.group_digest for row in rows})
    for some in _chunks(groups):
        for row in connection.execute(_texts(pairs.c.group_digest.in_(some))):
            turns = json.loads(row.prompt) if row.prompt is not None else []
            if any(turns[: len(prompt)] == prompt for prompt in prompts):
                marked.add(row.id)
    return sorted(marked)


def _of_pairs(connection: Connection, ids: Sequence[str]) -> tuple[int, frozenset[str]]:
    """How many judgements are on them, and their texts that no living pair has."""
    texts: set[str | None] = set()
    n = 0
    for some in _chunks(sorted(ids)):
        for row in connection.execute(_texts(pairs.c.id.in_(some))):
            texts |= _said(row)
        for judged in connection.execute(
            select(judgements.c.note, judgements.c.reason).where(judgements.c.pair_id.in_(some))
        ):
            n += 1
            texts |= {judged.note, judged.reason if judged.reason != UNDO else None}
    return n, frozenset(own_texts(connection, texts, ids))


def own_texts(connection: Connection, texts: Iterable[str | None], ids: Iterable[str]) -> set[str]:
    """Those of the texts that no living pair has, but for the pairs `ids`."""
    own, erased = set(_plain(texts)), set(ids)
    for row in connection.execute(_texts(pairs.c.erased_at.is_(None)).execution_options(yield_per=1000)):
        if row.id not in erased:
            own -= _said(row)
    return own


def _texts(where: ColumnElement[bool]) -> Any:
    return select(pairs.c.id, pairs.c.prompt, pairs.c.reply_a, pairs.c.reply_b, pairs.c.group_digest).where(where)


def _said(row: Any) -> set[str | None]:
    return {row.reply_a, row.reply_b, *(turn["content"] for turn in json.loads(row.prompt or "[]"))}


def _plain(texts: Iterable[str | None]) -> frozenset[str]:
    return frozenset(text for text in texts if text and text.strip())


def _chunks(values: Sequence[str]) -> Iterable[Sequence[str]]:
    return (values[start : start + _CHUNK] for start in range(0, len(values), _CHUNK))

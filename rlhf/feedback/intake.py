"""Intake: the one door for the rows of an import. Every row is accepted, a duplicate or rejected, exactly once.

Rows are checked and masked as they come and stored a batch a transaction: what a batch acknowledged survives a crash,
and running the import again finds it as duplicates. A batch holds at most `BATCH_ROWS` rows and about `BATCH_CHARS`
of text.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import func, not_, select

from rlhf.feedback import tombstones
from rlhf.feedback.anonymise import mask
from rlhf.feedback.appending import add_judgements, add_pairs, add_sources, existing, once
from rlhf.feedback.drafts import Draft, KeyedVote, PairDraft, Rating, Rejected
from rlhf.feedback.keys import KeyIndex, Known
from rlhf.feedback.rated import comment_row, pairs_from
from rlhf.feedback.resolve import Defaults, Ready, judgement_of, resolve_pair, resolve_rating
from rlhf.ids import now_text
from rlhf.records import Comment, Judgement, RejectedRow
from rlhf.store import Workspace, Write
from rlhf.store.tables import comments, imports, judgements, pair_sources, rejected_rows

# Bigger batches touch each index page fewer times (5,000 rows: a fifth faster than 2,000), and a crash repeats more.
BATCH_ROWS, BATCH_CHARS = 5_000, 16_000_000
_DETAILS = ("pairs", "pairs_merged", "judgements", "comments", "pair_errors", "unjudged")
ERRORS_IN_RECEIPT = 1_000  # all are stored; a receipt shows this many


class Intake:
    """One import under way. units: what a file's rows are counted in, where that isn't lines. trial: look at every row
    and store nothing but what is wrong (`--strict`)."""

    def __init__(
        self,
        workspace: Workspace,
        import_id: str,
        defaults: Defaults,
        *,
        units: Mapping[str, str] | None = None,
        trial: bool = False,
        on_progress: Callable[[int], None] | None = None,
    ) -> None:
        self.workspace, self.import_id, self.defaults, self.trial = workspace, import_id, defaults, trial
        self.counts: Counter[str] = Counter()  # rows, accepted, duplicates, rejected, and those of _DETAILS
        self.masked: Counter[str] = Counter()
        self.errors: list[RejectedRow] = []
        self.keys = KeyIndex()
        self._units = units or {}
        self._on_progress = on_progress
        self._batch: list[Ready] = []
        self._rejected: list[RejectedRow] = []
        self._chars = 0
        self._has_described = False  # pairs came without votes

    def take(self, file: str, line: int, draft: Draft) -> None:
        """One row; it may be rejected here, or later as erased."""
        try:
            ready = self._resolved(file, line, draft)
        except Rejected as verdict:
            self.reject(
                file,
                line,
                str(verdict),
                draft.key if isinstance(draft, PairDraft) else None,
                counted=not isinstance(draft, PairDraft) or bool(draft.votes),
            )
            return
        self._batch.append(ready)
        self._chars += _size(draft)
        if len(self._batch) >= BATCH_ROWS or self._chars >= BATCH_CHARS:
            self.flush()

    def reject(self, file: str, line: int, reason: str, key: str | None = None, *, counted: bool = True) -> None:
        """One row that isn't taken; votes that name its key are told where it was."""
        if key is not None:
            self.keys.put(
                key,
                Known("", False, line, f"its pair {key!r} was rejected at {self._at(file, line)} of {file}: {reason}"),
            )
        self._note(RejectedRow(file, line, reason), counted)
        if len(self._rejected) >= BATCH_ROWS:
            self.flush()

    def flush(self, state: str = "open") -> None:
        """Store what is waiting, with the counts so far, in one transaction."""
        before = (self.counts.copy(), self.masked.copy(), len(self.errors), len(self._rejected))
        try:
            with self.workspace.write() as write:
                self._store(write, self._batch)
                write.insert_new(
                    rejected_rows,
                    [
                        {"import_id": self.import_id, "file": row.file[-500:], "line": row.line, "reason": row.reason}
                        for row in self._rejected
                    ],
                )
                if state == "done" and self._has_described:
                    self.counts["unjudged"] = self._n_unjudged(write)
                if not self.trial or state != "open":  # a trial under way has stored no row: nothing to claim
                    write.connection.execute(
                        imports.update().where(imports.c.id == self.import_id).values(state=state, **self.columns())
                    )
                if state != "open":
                    write.audit(
                        f"feedback.import.{state}", self.import_id, {**self.columns(), "source": self.defaults.source}
                    )
        except BaseException:  # nothing of it is stored: what the user is told must not count it
            self.counts, self.masked = before[:2]
            del self.errors[before[2] :], self._rejected[before[3] :]
            raise
        self._batch, self._rejected, self._chars = [], [], 0
        if self._on_progress:
            self._on_progress(self.counts["rows"])

    def refuse(self) -> None:
        """Close a trial that found something: every row is rejected, since none is taken."""
        self.counts.update(
            accepted=-self.counts["accepted"],
            duplicates=-self.counts["duplicates"],
            rejected=self.counts["rows"] - self.counts["rejected"],
        )
        self.masked.clear()
        self.flush("refused")

    def columns(self) -> dict[str, Any]:
        """The counts as columns of `imports`."""
        details = {name: self.counts[name] for name in _DETAILS}
        return {
            **{name: self.counts[name] for name in ("rows", "accepted", "duplicates", "rejected")},
            "details": json.dumps({**details, "masked": dict(self.masked)}, sort_keys=True),
        }

    def _resolved(self, file: str, line: int, draft: Draft) -> Ready:
        if isinstance(draft, Rating):
            return resolve_rating(file, line, draft, self.defaults)
        if isinstance(draft, KeyedVote):
            known = self.keys.get(draft.key)
            if known is None:
                raise Rejected(f"no pair with the pair_id {draft.key!r} in the files of this call")
            if known.problem:
                raise Rejected(known.problem)
            masked: Counter[str] = Counter()
            judgement = judgement_of(known.pair_id, known.first_is_a, draft.vote, self.defaults, masked)
            return Ready(file, line, judgement.source, judgements=[judgement], masked=masked)
        ready = resolve_pair(file, line, draft, self.defaults)
        assert ready.pair is not None
        if draft.key is not None:
            known = self.keys.get(draft.key)
            if known is not None and known.pair_id != ready.pair.id:
                raise Rejected(
                    f"the pair_id {draft.key!r} stands at {self._at(file, known.line)} already, for another pair"
                )
            self.keys.put(draft.key, Known(ready.pair.id, ready.pair.reply_a == _first(ready, draft), line, ""))
        return ready

    def _at(self, file: str, number: int) -> str:
        return f"{self._units.get(file, 'line')} {number}"

    def _note(self, row: RejectedRow, counted: bool) -> None:
        row = replace(row, reason=mask(row.reason)[0])  # it may quote the row
        self._rejected.append(row)
        if len(self.errors) < ERRORS_IN_RECEIPT:
            self.errors.append(row)
        self.counts.update(["rows", "rejected"] if counted else ["pair_errors"])

    def _store(self, write: Write, batch: Sequence[Ready]) -> None:
        live = self._unburied(write, batch)
        new_judgements, new_comments = self._sorted_out(write, live)
        if self.trial:
            return
        at = now_text()
        described = [ready.pair for ready in live if ready.pair and not ready.counted]
        self._has_described = self._has_described or bool(described)
        new_pairs = add_pairs(write, described, at)
        self.counts["pairs_merged"] += len(described) - new_pairs
        new_pairs += add_pairs(write, [ready.pair for ready in live if ready.pair and ready.counted], at)
        self.counts["pairs"] += new_pairs
        add_sources(
            write,
            [(ready.pair.id, ready.source, ready.subject, ready.details) for ready in live if ready.pair],
            self.import_id,
        )
        self.counts["judgements"] += add_judgements(write, new_judgements, self.import_id, at)
        if new_comments:
            self._store_ratings(write, list(new_comments.values()), at)

    def _n_unjudged(self, write: Write) -> int:
        """Of the pairs that this import brought, those that nobody has judged, here or elsewhere."""
        judged = select(judgements.c.id).where(judgements.c.pair_id == pair_sources.c.pair_id).exists()
        brought = select(func.count()).where(pair_sources.c.import_id == self.import_id, not_(judged))
        return write.connection.execute(brought).scalar_one()

    def _unburied(self, write: Write, batch: Sequence[Ready]) -> list[Ready]:
        """The rows that no tombstone names; of several judgements in a row only the erased labelers' go."""
        things = [(ready, _things(ready)) for ready in batch]
        buried = tombstones.buried(write.connection, self.workspace.key, (t for _, names in things for t in names))
        if not buried:
            return list(batch)
        live = []
        for ready, names in things:
            kept = [j for j in ready.judgements if not buried & set(_things_of(j))]
            whole = {t for t in names if t[0] not in ("labeler", "vote") or ready.comment}
            if buried & whole or (ready.judgements and not kept):
                self._note(
                    RejectedRow(ready.file, ready.line, "erased: this person or pair was erased and is not taken back"),
                    ready.counted,
                )
                continue
            ready.judgements = kept
            live.append(ready)
        return live

    def _sorted_out(self, write: Write, live: Sequence[Ready]) -> tuple[dict[str, Judgement], dict[str, Comment]]:
        """Count each row as accepted or duplicate; returns the judgements and comments that are new, by their unique
        key.
        """
        named = [[(once(j), j) for j in ready.judgements] for ready in live]
        known = existing(write.connection, judgements.c.once, (name for names in named for name, _ in names))
        said = [(ready.comment.digest, ready.comment) if ready.comment else None for ready in live]
        known |= existing(write.connection, comments.c.digest, (entry[0] for entry in said if entry))
        new_judgements: dict[str, Judgement] = {}
        new_comments: dict[str, Comment] = {}
        for ready, names, comment in zip(live, named, said, strict=True):
            fresh = {name: j for name, j in names if name not in known}
            new_judgements.update(fresh)
            known.update(fresh)
            if comment and comment[0] not in known:
                new_comments[comment[0]] = comment[1]
                known.add(comment[0])
                fresh_row = True
            else:
                fresh_row = bool(fresh)
            if ready.counted:
                self.counts.update(["rows", "accepted" if fresh_row else "duplicates"])
            if fresh_row and ready.masked:
                self.masked.update(ready.masked)
        return new_judgements, new_comments

    def _store_ratings(self, write: Write, fresh: Sequence[Comment], at: str) -> None:
        rows = [comment_row(comment, self.import_id, write.actor, at) for comment in fresh]
        self.counts["comments"] += write.insert_new(comments, rows)
        made = list(pairs_from(write.connection, fresh))
        dead = tombstones.buried(write.connection, self.workspace.key, (("pair", pair.id, "") for pair, _ in made))
        made = [(pair, j) for pair, j in made if ("pair", pair.id, "") not in dead]
        self.counts["pairs"] += add_pairs(write, [pair for pair, _ in made], at)
        add_sources(write, [(pair.id, j.source, None, {}) for pair, j in made], self.import_id)
        self.counts["judgements"] += add_judgements(write, {once(j): j for _, j in made}, self.import_id, at)


def _things(ready: Ready) -> list[tuple[str, str, str]]:
    """What a tombstone could name in this row."""
    names = {("pair", j.pair_id, "") for j in ready.judgements}
    names |= {thing for j in ready.judgements for thing in _things_of(j)}
    if ready.pair:
        names.add(("pair", ready.pair.id, ""))
    if ready.subject:
        names.add(("subject", ready.subject, ""))
    if ready.comment and ready.comment.labeler:
        names.add(("labeler", ready.comment.labeler, ready.comment.source))
    return sorted(names)


def _first(ready: Ready, draft: PairDraft) -> str:
    """The draft's first reply as it is stored, that is, masked."""
    return mask(draft.first)[0] if ready.masked else draft.first


def _size(draft: Draft) -> int:
    if isinstance(draft, KeyedVote):
        return 200
    texts = (draft.first, draft.second) if isinstance(draft, PairDraft) else (draft.reply,)
    return sum(map(len, texts)) + sum(len(turn.content) for turn in draft.prompt)


def _things_of(judgement: Judgement) -> tuple[tuple[str, str, str], ...]:
    """Its labeler in its source; and this vote in whatever source, for a file comes back under another name too."""
    if not judgement.labeler:
        return ()
    vote = tombstones.vote(judgement.pair_id, judgement.labeler)
    return ("labeler", judgement.labeler, judgement.source), vote

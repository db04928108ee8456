"""Cutting: a rule over the store becomes frozen rows with a digest.

A row's side is a hash of (seed, group), never a shuffle: pairs with the same opening turn are on one side, and a later
cut with the same seed and holdout never moves a row. The rows stream from the store to the shards in order of pair id,
so a cut of any size takes the same memory (and 32 bytes a row for the Merkle root).
"""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, func, select
from sqlalchemy.exc import IntegrityError

from rlhf.errors import BadInput, BadUsage, Conflict, NotFound
from rlhf.feedback import read_pairs
from rlhf.feedback.holds import held_pairs
from rlhf.ids import canonical_json, merkle_root, now_text, unit_interval
from rlhf.records import KINDS, Judgement, SnapshotRow
from rlhf.snapshots.card import card_text, masked_counts
from rlhf.snapshots.names import check_name
from rlhf.snapshots.opening import SCHEMA_VERSION, Snapshot, open_snapshot
from rlhf.snapshots.rows import Split, judgements_of, read_columns, row_of, write_shards
from rlhf.snapshots.tally import LEFT_OUT, Tally
from rlhf.store import Workspace, Write
from rlhf.store.tables import pair_sources, snapshots, tombstones

# Consent that a judgement must carry to stand on a side.
NEEDED_CONSENT: dict[Split, str] = {"train": "train", "test": "evaluate"}
_ATTEMPTS = 20  # cuts of one name that may win the next number before us (PostgreSQL; SQLite's writers queue)


@dataclass(frozen=True, slots=True)
class Rule:
    """How a snapshot is cut. sources, kinds: empty = all. holdout: share of the groups on the test side, in [0, 1)."""

    sources: tuple[str, ...]
    kinds: tuple[str, ...]
    holdout: float
    seed: int

    def side_of(self, group: str) -> Split:
        return "test" if unit_interval(self.seed, group) < self.holdout else "train"

    def as_json(self) -> dict[str, Any]:
        return {
            "sources": list(self.sources),
            "kinds": list(self.kinds),
            "holdout": self.holdout,
            "seed": self.seed,
            "split": "test where unit_interval(seed, group) < holdout; group = first user turn, case and space folded",
            "consent": dict(NEEDED_CONSENT),
        }


def cut(
    workspace: Workspace,
    name: str,
    *,
    sources: Sequence[str] = (),
    holdout: float = 0.1,
    seed: int = 0,
    kinds: Sequence[str] = (),
) -> Snapshot:
    """Freeze the judged pairs of `sources` (empty = all) as `name@1`, or the next number where `name` was cut before.

    A row is a pair with at least one judgement in force, other than a skip, whose consent covers its side, and that no open
    safety item holds. The rest is counted in the manifest. Raises BadUsage (name, holdout, kinds), NotFound (a source), BadInput
    where no pair would be in it.
    """
    check_name(name)
    rule = _checked_rule(sources, holdout, seed, kinds)
    tally = Tally()
    with workspace.artifacts.staging() as folder:
        with workspace.read() as connection:
            _check_sources(connection, rule)
            erased_before = n_tombstones(connection)
            digests = bytearray()
            shards = write_shards(folder, _counted(_rows(connection, rule, tally), tally, digests))
            masked = masked_counts(connection, tuple(tally.sources))
        if not tally.n_pairs:
            raise BadInput(_nothing(name, tally), fix="import or label feedback first; see: rlhf feedback list")
        digest = merkle_root(digests[i : i + 32].hex() for i in range(0, len(digests), 32))
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "digest": digest,
            "rule": rule.as_json(),
            **tally.as_json(),
            "masked": masked,
            "shards": shards,
        }
        number = publish(workspace, folder, name, manifest, erased_before)
    return open_snapshot(workspace, f"{name}@{number}")


def count_new(
    workspace: Workspace,
    since: str | None,
    *,
    sources: Sequence[str] = (),
    holdout: float = 0.1,
    seed: int = 0,
    kinds: Sequence[str] = (),
) -> int:
    """How many judgements a cut by this rule would hold on its train side now, skips apart, that the snapshot `since` (None =
    nothing) doesn't hold. Nothing is written; both are read once, side by side, in flat memory.

    Raises what `cut` raises for its rule, NotFound for an unknown snapshot.
    """
    rule = _checked_rule(sources, holdout, seed, kinds)
    shards = [] if since is None else open_snapshot(workspace, since).shards
    held = iter(read_columns(shards, ("pair_id", "judgements")))
    n_new, before = 0, next(held, None)
    with workspace.read() as connection:
        _check_sources(connection, rule)
        for row in _rows(connection, rule, Tally()):
            while before is not None and before[0] < row.pair.id:
                before = next(held, None)
            if row.split != "train":
                continue
            known = judgements_of(before[1], before[0]) if before is not None and before[0] == row.pair.id else ()
            said = Counter(j.digest for j in row.judgements if j.choice != "skip")
            n_new += (said - Counter(j.digest for j in known)).total()
    return n_new


def _rows(connection: Connection, rule: Rule, tally: Tally) -> Iterator[SnapshotRow]:
    held = held_pairs(connection)
    for pair, judgements, sources in read_pairs(connection, sources=rule.sources):
        split = rule.side_of(pair.group)
        allowed = _allowed(judgements, rule, split, tally)
        if allowed and pair.id in held:
            tally.left_out["pairs_awaiting_safety_review"] += 1
        elif allowed:
            yield row_of(pair, allowed, split, sources)


def _allowed(judgements: Sequence[Judgement], rule: Rule, split: Split, tally: Tally) -> list[Judgement]:
    """The judgements that may stand in the row; empty where the pair stays out, with the reason counted."""
    of_kind = [j for j in judgements if not rule.kinds or j.kind in rule.kinds]
    tally.left_out["judgements_of_other_kinds"] += len(judgements) - len(of_kind)
    allowed = [j for j in of_kind if NEEDED_CONSENT[split] in j.consent]
    tally.left_out["judgements_without_consent"] += len(of_kind) - len(allowed)
    if any(j.choice != "skip" for j in allowed):
        return allowed
    if any(j.choice != "skip" for j in of_kind):
        tally.left_out["pairs_without_consent"] += 1
    else:
        tally.left_out["pairs_only_skipped" if of_kind else "pairs_without_judgement"] += 1
    return []


def _counted(rows: Iterator[SnapshotRow], tally: Tally, digests: bytearray) -> Iterator[SnapshotRow]:
    for row in rows:
        tally.add(row)
        digests += bytes.fromhex(row.digest)
        yield row


def n_tombstones(connection: Connection) -> int:
    """How many erasures there were: what was read before another one must not be published after it."""
    return connection.execute(select(func.count()).select_from(tombstones)).scalar_one()


def publish(workspace: Workspace, folder: Path, name: str, manifest: dict[str, Any], erased_before: int) -> int:
    """Take the next number and make the folder appear under it, in one transaction. erased_before: `n_tombstones` when its rows
    were read. Raises Conflict where something was erased since."""
    for _ in range(_ATTEMPTS):
        try:
            with workspace.write() as write:
                if n_tombstones(write.connection) != erased_before:
                    raise Conflict(f"something was erased while {name} was being cut", fix="run the same command again")
                return _publish_next(workspace, write, folder, name, manifest)
        except IntegrityError:  # somebody else took the number between our look and our insert
            continue
    raise Conflict(f"others keep cutting {name}", fix="run the same command again")


def _publish_next(workspace: Workspace, write: Write, folder: Path, name: str, manifest: dict[str, Any]) -> int:
    last = write.connection.execute(select(func.max(snapshots.c.number)).where(snapshots.c.name == name)).scalar()
    number, cut_at = (last or 0) + 1, now_text()
    path = f"snapshots/{name}/{number}"
    manifest = {**manifest, "name": name, "number": number}
    # The row goes first: its key is the lock, and only who holds it may touch the folder of that number.
    write.connection.execute(
        snapshots.insert().values(
            name=name,
            number=number,
            digest=manifest["digest"],
            path=path,
            rule=canonical_json(manifest["rule"]).decode(),
            n_pairs=manifest["pairs"],
            n_train=manifest["splits"]["train"],
            n_test=manifest["splits"]["test"],
            actor=write.actor,
            created_at=cut_at,
        )
    )
    (folder / "manifest.json").write_bytes(canonical_json(manifest) + b"\n")
    (folder / "card.md").write_text(card_text(manifest, cut_at), "utf-8")
    workspace.artifacts.publish(write.connection, folder, path)
    details = {"digest": manifest["digest"], "pairs": manifest["pairs"], "rule": manifest["rule"]}
    write.audit("snapshot.cut", f"{name}@{number}", details)
    return number


def _checked_rule(sources: Sequence[str], holdout: float, seed: int, kinds: Sequence[str]) -> Rule:
    if not 0 <= holdout < 1:
        raise BadUsage(f"holdout = {holdout}; wanted a share from 0 to below 1", fix="for instance --holdout 0.1")
    unknown = sorted(set(kinds) - set(KINDS))
    if unknown:
        raise BadUsage(f"unknown kind of judgement: {', '.join(unknown)}", fix=f"the kinds are {', '.join(KINDS)}")
    return Rule(tuple(sorted(set(sources))), tuple(sorted(set(kinds))), float(holdout), int(seed))


def _check_sources(connection: Connection, rule: Rule) -> None:
    if not rule.sources:
        return
    known = sorted(connection.execute(select(pair_sources.c.source).distinct()).scalars())
    for source in rule.sources:
        if source not in known:
            near = difflib.get_close_matches(source, known, n=1)
            hint = f" (nearest: '{near[0]}')" if near else ""
            there = ", ".join(known) if known else "none yet: rlhf feedback import FILE"
            raise NotFound(f"no pairs have the source '{source}'{hint}", fix=f"the sources are {there}")


def _nothing(name: str, tally: Tally) -> str:
    why = "; ".join(f"{n} {LEFT_OUT[reason]}" for reason, n in tally.left_out.items() if n)
    return f"{name} would hold no pairs" + (f": {why}" if why else ": the workspace has no judged pairs")

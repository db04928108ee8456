"""Rows become `name@1`, or the next number: written, digested, published in one transaction; and a suite cut from a snapshot."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError

from rlhf.errors import BadInput, BadUsage, Conflict
from rlhf.feedback.holds import held_pairs
from rlhf.ids import canonical_json, merkle_root, now_text
from rlhf.snapshots.cutting import n_tombstones
from rlhf.snapshots.names import check_name
from rlhf.snapshots.opening import open_snapshot
from rlhf.snapshots.rows import SPLITS
from rlhf.store import Workspace, Write
from rlhf.store.tables import suites
from rlhf.suites.names import is_train_side
from rlhf.suites.opening import SCHEMA_VERSION, Suite, open_suite
from rlhf.suites.rows import SuiteRow, row_of, write_shards

_ATTEMPTS = 20  # imports of one name that may win the next number before us (PostgreSQL; SQLite's writers queue)


def cut(workspace: Workspace, name: str, *, snapshot: str, split: str = "test", held_out: bool = True) -> Suite:
    """Freeze the judged pairs of a snapshot's side as a suite; strata are the sources. A train side is never held out.

    Without judgements whose consent doesn't cover evaluation, pairs that are left without any, and pairs that a safety item holds.
    Raises BadUsage (name, split), NotFound, BadInput where no pair is left.
    """
    check_name(name, "suite")
    if split not in SPLITS:
        raise BadUsage(f"a snapshot has no split '{split}'", fix="use --split test (held out) or --split train")
    whole = open_snapshot(workspace, snapshot)
    with workspace.read() as connection:
        held, erased_before = held_pairs(connection), n_tombstones(connection)
    rows, left_out = [], Counter[str]()
    for row in whole.rows("train" if split == "train" else "test"):
        allowed = [j for j in row.judgements if "evaluate" in j.consent]
        if row.pair.id in held:
            left_out["awaiting_safety_review"] += 1
        elif all(j.choice == "skip" for j in allowed):
            left_out["without_consent_or_verdict"] += 1
        else:
            rows.append(row_of(row.pair, allowed, sources=row.sources, strata=row.sources))
    if not rows:
        raise BadInput(
            f"{whole.ref} has no pair in its {split} split that may be measured on",
            fix="cut it with a larger --holdout, or name another snapshot",
        )
    origin = {"snapshot": whole.ref, "snapshot_digest": whole.digest, "split": split}
    is_unseen = held_out and not is_train_side(origin)
    return freeze(
        workspace, name, rows, held_out=is_unseen, origin=origin, left_out=left_out, erased_before=erased_before
    )


def freeze(
    workspace: Workspace,
    name: str,
    rows: Iterable[SuiteRow],
    *,
    held_out: bool,
    origin: Mapping[str, Any],
    left_out: Mapping[str, int],
    erased_before: int,
) -> Suite:
    """Publish the rows under the next number of the name. erased_before: `n_tombstones` when they were read. Raises Conflict where
    something was erased since."""
    ordered = sorted(rows, key=lambda row: row.pair.id)
    with workspace.artifacts.staging() as folder:
        manifest = {
            "schema_version": SCHEMA_VERSION,
            "digest": merkle_root(row.digest for row in ordered),
            "held_out": held_out,
            **_counts(ordered),
            "left_out": dict(sorted(left_out.items())),
            "origin": dict(origin),
            "shards": write_shards(folder, ordered),
        }
        for _ in range(_ATTEMPTS):
            try:
                with workspace.write() as write:
                    if n_tombstones(write.connection) != erased_before:
                        raise Conflict(
                            f"something was erased while {name} was being read", fix="run the same command again"
                        )
                    number = _publish_next(workspace, write, folder, name, manifest)
                return open_suite(workspace, f"{name}@{number}")
            except IntegrityError:  # somebody else took the number between our look and our insert
                continue
    raise Conflict(f"others keep importing {name}", fix="run the same command again")


def _counts(rows: Sequence[SuiteRow]) -> dict[str, Any]:
    def counted(values: Iterable[str]) -> dict[str, int]:
        return dict(sorted(Counter(values).items()))

    return {
        "pairs": sum(not row.is_prompt for row in rows),
        "prompts": sum(row.is_prompt for row in rows),
        "openings": len({row.pair.group for row in rows}),
        "strata": counted(name for row in rows for name in row.strata),
        "styles": counted(cell for row in rows for cell in row.styles),
        "tags": {
            attribute: counted(value for row in rows for name, value in row.tags if name == attribute)
            for attribute in sorted({name for row in rows for name, _ in row.tags})
        },
        "templates": len({row.template.rpartition("/")[0] for row in rows if row.template}),
        "sources": counted(source for row in rows for source in row.sources),
        "kinds": counted(j.kind for row in rows for j in row.judgements),
        "cohorts": counted(j.cohort for row in rows for j in row.judgements if j.cohort),
    }


def _publish_next(workspace: Workspace, write: Write, folder: Path, name: str, manifest: dict[str, Any]) -> int:
    last = write.connection.execute(select(func.max(suites.c.number)).where(suites.c.name == name)).scalar()
    number = (last or 0) + 1
    path = f"suites/{name}/{number}"
    # The row goes first: its key is the lock, and only who holds it may touch the folder of that number.
    write.connection.execute(
        suites.insert().values(
            name=name,
            number=number,
            digest=manifest["digest"],
            path=path,
            held_out=int(manifest["held_out"]),
            n_pairs=manifest["pairs"],
            n_prompts=manifest["prompts"],
            origin=canonical_json(manifest["origin"]).decode(),
            actor=write.actor,
            created_at=now_text(),
        )
    )
    (folder / "manifest.json").write_bytes(canonical_json({**manifest, "name": name, "number": number}) + b"\n")
    workspace.artifacts.publish(write.connection, folder, path)
    write.audit(
        "suite.freeze",
        f"{name}@{number}",
        {key: manifest[key] for key in ("digest", "pairs", "prompts", "held_out", "origin")},
    )
    return number

"""The whole product on one page: what the command line does, as calls that a notebook can make.

    from rlhf import loop
    workspace = loop.Workspace.create("workspace")
    loop.engine.add_from_dir(workspace, "smollm2-135m", ".bases/smollm2-135m")
    turn = loop.turn(workspace, ["preferences.jsonl"], name="hh", base="smollm2-135m")
    loop.promote(workspace, turn, why="better on held-out pairs")

Feedback comes in through one door, is frozen as a snapshot, trains a reward version, is measured on pairs that the version
never saw, and is promoted by moving an alias, which can be taken back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf import engine, evaluation, feedback, registry, reward, snapshots
from rlhf.records import AliasMove, Kind, Receipt, VersionRef
from rlhf.registry import aliases
from rlhf.snapshots import Snapshot
from rlhf.store import Workspace

__all__ = ["Turn", "Workspace", "engine", "export", "promote", "take_back", "turn"]

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Turn:
    """One time round: what came in, what it was frozen as, what it trained, and how good that is."""

    receipt: Receipt
    snapshot: Snapshot
    trained: reward.Trained
    report: evaluation.Report


def turn(
    workspace: Workspace,
    files: Sequence[str | Path],
    *,
    name: str,
    base: str,
    source: str | None = None,
    kind: Kind = "human",
    holdout: float = 0.1,
    against: Sequence[str] = (),
    say: Say | None = None,
    **settings: Any,
) -> Turn:
    """Files in, a measured reward version out. `against`: versions that are measured on the same pairs, beside the new one.

    settings: those of `reward.RewardSettings`. Raises what its rooms raise; what was done before stays done, and the same call
    again adds no feedback twice.
    """
    receipt = feedback.import_files(workspace, files, source=source, kind=kind)
    snapshot = snapshots.cut(workspace, name, sources=[receipt.source], holdout=holdout)
    chosen = reward.RewardSettings(name=name, snapshot=snapshot.ref, base=base, **settings)
    trained = reward.train(workspace, chosen, say=say)
    report = evaluation.evaluate(workspace, [str(trained.version), *against], snapshot.ref)
    return Turn(receipt, snapshot, trained, report)


def promote(workspace: Workspace, done: Turn, *, why: str, alias: str = "champion") -> AliasMove:
    """Point `name@alias` at the turn's version, with its report as the evidence."""
    version = done.trained.version
    return aliases.move(
        workspace, f"{version.name}@{alias}", str(version), why=why, evidence={"report": done.report.digest}
    )


def take_back(workspace: Workspace, alias: str, *, why: str) -> tuple[AliasMove, float]:
    """Roll `name@alias` back to the entry before the one in force; returns the move and the seconds it took."""
    start = time.perf_counter()
    move = aliases.roll_back(workspace, alias, why=why)
    return move, time.perf_counter() - start


def export(workspace: Workspace, version: VersionRef, folder: Path) -> Path:
    """Write the version as a folder that stock PEFT loads, with a tokenizer that batches safely."""
    from rlhf.engine import bases
    from rlhf.engine.exporting import stock_tokenizer

    base = bases.by_digest(workspace, registry.open_version(workspace, version).manifest["base"]["digest"])
    return registry.export_folder(
        workspace, version, folder, base_path=str(base.folder), extra_files=stock_tokenizer(base)
    )

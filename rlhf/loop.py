"""The whole product on one page: what the command line does, as calls that a notebook can make.

    from rlhf import loop
    workspace = loop.Workspace.create("workspace")
    loop.engine.add_from_dir(workspace, "smollm2-135m", ".bases/smollm2-135m")
    turn = loop.turn(workspace, ["preferences.jsonl"], name="hh", base="smollm2-135m")
    loop.promote(workspace, turn, why="better on held-out pairs")

    better = loop.improve(workspace, "hh@champion", name="assistant", base="smollm2-135m", method="dpo", max_steps=20)
    loop.promote(workspace, better, why="preferred on held-out prompts")
    print(loop.answer(workspace, "assistant@champion", "How do I keep basil alive?").text)

Feedback comes in through one door, is frozen as a snapshot, trains a reward version, is measured on pairs that the version
never saw, and is promoted by moving an alias, which can be taken back. The reward trains a policy, which is compared by its
replies to prompts that it never saw, and is promoted and taken back in the same way.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf import engine, evaluation, feedback, policy, registry, reward, rounds, snapshots
from rlhf.records import AliasMove, Kind, Message, Receipt, VersionRef
from rlhf.registry import aliases
from rlhf.serving import trial_of
from rlhf.snapshots import Snapshot
from rlhf.store import Workspace

__all__ = [
    "Improvement",
    "Turn",
    "Workspace",
    "answer",
    "engine",
    "export",
    "improve",
    "promote",
    "round_once",
    "take_back",
    "turn",
]

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


@dataclass(frozen=True, slots=True)
class Improvement:
    """A policy version and its comparison, by the replies of both, with what it is to be better than."""

    trained: policy.Trained
    report: evaluation.Report

    @property
    def figures(self) -> Mapping[str, Any]:
        """The comparison's figures of the new version: win_rate and so on."""
        return self.report.figures[str(self.trained.version)]


def improve(
    workspace: Workspace,
    reward_version: str,
    *,
    name: str,
    base: str,
    method: policy.Method,
    against: str | None = None,
    judge: str | None = None,
    sampling: policy.Sampling | None = None,
    say: Say | None = None,
    **settings: Any,
) -> Improvement:
    """Train a policy on the reward and compare it with `against` (None = what it went on from, else the bare base).

    judge: who decides the comparison; None = the reward that trained it, which flatters it. settings: those of
    `policy.PolicySettings`. Raises what its rooms raise; a training that was published stays so.
    """
    chosen = policy.PolicySettings(name=name, reward=[reward_version], base=base, method=method, **settings)
    trained = policy.train(workspace, chosen, say=say)
    other = against or chosen.from_version or f"base:{base}"
    report = evaluation.compare(workspace, str(trained.version), other, judge=judge, sampling=sampling)
    return Improvement(trained, report)


def answer(
    workspace: Workspace, version: str, question: str, *, sampling: policy.Sampling | None = None
) -> policy.Reply:
    """One reply to one question by a policy version, an alias or `base:NAME`."""
    prompt = policy.Prompt("question", (Message("user", question),))
    found: policy.Reply = policy.replies(workspace, version, [prompt], sampling)[0]
    return found


def promote(workspace: Workspace, done: Turn | Improvement, *, why: str, alias: str = "champion") -> AliasMove:
    """Point `name@alias` at the version, with its report as the evidence. Raises Conflict where its gate isn't met."""
    version = done.trained.version
    evidence = {"report": done.report.digest}
    return aliases.move(workspace, f"{version.name}@{alias}", str(version), why=why, evidence=evidence, trials=trial_of)


def round_once(workspace: Workspace, settings: rounds.LoopSettings, *, say: Say | None = None) -> rounds.Outcome:
    """The same by itself: go on with the unfinished round, or begin one if enough judgements are new, up to its decision
    record. Nothing moves past an alias's gate. See `rounds.once`."""
    return rounds.once(workspace, settings, say=say)


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

"""The prompts of a comparison: given, a suite's, a snapshot's test side, or those behind the sides; each once, n by hash."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rlhf.errors import BadInput, BadUsage
from rlhf.evaluation.seen import require_unseen
from rlhf.evaluation.sides import Side
from rlhf.ids import digest_of, unit_interval
from rlhf.snapshots import Snapshot, open_snapshot
from rlhf.store import Workspace
from rlhf.suites import Suite, open_suite

if TYPE_CHECKING:
    from rlhf.policy import Prompt, Sampling


@dataclass(frozen=True, slots=True)
class Asked:
    """The prompts of a comparison. snapshot: name and digest where they are its test side; n_unfit: of these, how many leave no
    room for a reply on either side, and are left out.
    """

    prompts: tuple[Prompt, ...]
    n_given: int
    n_repeated: int
    n_unfit: int
    snapshot: tuple[str, str] | None

    def as_json(self) -> dict[str, Any]:
        name, digest = self.snapshot or (None, None)
        return {
            "n": len(self.prompts),
            "n_given": self.n_given,
            "n_repeated": self.n_repeated,
            "n_unfit": self.n_unfit,
            "snapshot": name,
            "snapshot_digest": digest,
            "digest": digest_of([prompt.digest for prompt in self.prompts]),
        }


@dataclass(frozen=True)
class Where:
    """Where the prompts of a curve come from, and how many; as in a comparison."""

    prompts: Sequence[Prompt] | None = None
    snapshot: str | None = None
    suite: str | None = None
    n: int = 100

    def __post_init__(self) -> None:
        if sum(given is not None for given in (self.prompts, self.snapshot, self.suite)) > 1:
            raise BadUsage(
                "prompts are given in two ways", fix="leave out all but one of --prompts, --snapshot and --suite"
            )

    def draw(self, workspace: Workspace, sides: Sequence[Side], sampling: Sampling, seed: int) -> Asked:
        cut = open_cut(workspace, sides, self.snapshot, self.suite)
        return draw(workspace, sides, self.prompts, cut, self.n, seed, sampling)


def draw(
    workspace: Workspace,
    sides: Sequence[Side],
    prompts: Sequence[Prompt] | None,
    cut: Snapshot | Suite | None,
    n: int,
    seed: int,
    sampling: Sampling,
) -> Asked:
    """n prompts of those given, each text once; drawn by hash, so that a file in order of topic gives all its topics."""
    from rlhf import policy

    snapshot, n_held_out = None, 0
    if prompts is None:
        prompts, snapshot = _held_out(workspace, sides) if cut is None else _test_side(workspace, cut)
        n_held_out = len(prompts)
        for side in sides:
            prompts = policy.fitting(workspace, side.ref.text, prompts, sampling.max_new_tokens)
    n_unfit = max(0, n_held_out - len(prompts))
    once = {prompt.digest: prompt for prompt in reversed(prompts)}
    if not once:
        raise BadInput("there are no prompts to write replies to", fix="give a file with --prompts FILE")
    drawn = set(sorted(once, key=lambda digest: unit_interval(seed, digest))[:n])
    used = tuple(p for d, p in reversed(once.items()) if d in drawn)
    return Asked(used, len(prompts) + n_unfit, len(prompts) - len(once), n_unfit, snapshot)


def open_cut(
    workspace: Workspace, sides: Sequence[Side], snapshot: str | None, ref: str | None
) -> Snapshot | Suite | None:
    """What the prompts are of, where it is named; a suite that is held out must be unseen by both sides."""
    if ref is None:
        return None if snapshot is None else open_snapshot(workspace, snapshot)
    suite = open_suite(workspace, ref)
    if suite.entry.held_out:
        for side in sides:
            if side.lineage is not None:
                require_unseen(workspace, side.ref.text, side.lineage, suite.ref, list(suite.groups()))
    return suite


def _test_side(workspace: Workspace, cut: Snapshot | Suite) -> tuple[Sequence[Prompt], tuple[str, str]]:
    from rlhf import policy

    if isinstance(cut, Suite):
        if not (rows := cut.prompts()):
            raise BadInput(f"suite {cut.ref} has no prompt that a reply can follow", fix="name another suite")
        return [policy.Prompt(row.pair.id, row.pair.prompt) for row in rows], (f"suite:{cut.ref}", cut.digest)
    if not (prompts := policy.prompts_of(workspace, cut.ref, "test")):
        raise BadInput(f"the test side of {cut.ref} is empty", fix="name another snapshot")
    return prompts, (cut.ref, cut.digest)


def _held_out(workspace: Workspace, sides: Sequence[Side]) -> tuple[Sequence[Prompt], tuple[str, str]]:
    """The test side of the nearest snapshot behind either, a's first."""
    from rlhf import policy

    seen = []
    for side in sides:
        for origin in side.lineage.snapshots if side.lineage else ():
            if origin.names:
                seen.append(origin.names[-1])
                if prompts := policy.prompts_of(workspace, f"sha256:{origin.digest}", "test"):
                    return prompts, (origin.names[-1], origin.digest)
    names = " and ".join(side.ref.text for side in sides)
    why = f"the test side of {', '.join(dict.fromkeys(seen))} is empty" if seen else "no snapshot is behind them here"
    raise BadInput(f"no prompts to compare {names} on: {why}", fix="give a file with --prompts FILE")

"""What versions are measured on: the judged rows of a snapshot's side, or of a suite, and what became of the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rlhf.errors import BadInput, BadUsage
from rlhf.evaluation.judged_by import FILE, TEMPLATE
from rlhf.evaluation.scored import PairScore, Row, ScoredPair, scored_pair
from rlhf.records import Judgement, Pair
from rlhf.snapshots import open_snapshot
from rlhf.store import Workspace
from rlhf.suites import open_suite

SPLITS = ("train", "test")
NOT_HELD_OUT = "not held out"  # the split of a suite that says so; a gate wants `test`


@dataclass(frozen=True, slots=True)
class Used:
    """A row with a verdict. p_a: P(a better), the mean of the judgements that may be used."""

    row: Row
    p_a: float
    judgements: tuple[Judgement, ...]
    strata: tuple[str, ...] = ()
    styles: tuple[str, ...] = ()
    tags: tuple[tuple[str, str], ...] = ()
    template: str = ""

    def scored(self, score: PairScore) -> ScoredPair:
        of_suite = {"strata": self.strata, "styles": self.styles, "tags": self.tags, "template": self.template}
        return scored_pair(self.row, self.p_a, self.judgements, score, **of_suite)  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class Material:
    """kind: snapshot or suite; ref, digest: which; split: test, train or NOT_HELD_OUT. labelers: kinds of judgements, TEMPLATE or
    FILE, see `judged_by`. must_be_unseen: an overlap with a version's training is refused, not only told."""

    kind: str
    ref: str
    digest: str
    split: str
    rows: tuple[Used, ...]
    n_undecided: int
    n_no_consent: int
    labelers: tuple[str, ...]
    must_be_unseen: bool = False

    @property
    def name(self) -> str:
        """As reports and gates name it: a suite's name may be a snapshot's too."""
        return f"suite:{self.ref}" if self.kind == "suite" else self.ref

    @property
    def title(self) -> str:
        return f"suite {self.ref}" if self.kind == "suite" else f"snapshot {self.ref} ({self.split})"

    @property
    def pairs(self) -> list[Pair]:
        return [used.row.pair for used in self.rows]

    def as_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "name": self.name,
            "digest": self.digest,
            "split": self.split,
            "pairs": len(self.rows),
            "without_verdict": self.n_undecided,
            "without_consent": self.n_no_consent,
        }


def material(workspace: Workspace, snapshot: str | None, suite: str | None, split: str) -> Material:
    """Raises BadUsage unless one of the two is named, and for an unknown split; NotFound; BadInput where no pair is judged."""
    if (snapshot is None) == (suite is None):
        raise BadUsage(
            "what to measure on is not said, or twice", fix="give --snapshot S or --suite NAME, one of the two"
        )
    if suite is not None:
        return _of_suite(workspace, suite)
    if split not in SPLITS:
        raise BadUsage(f"a snapshot has no split '{split}'", fix="use --split test (held out) or --split train")
    assert snapshot is not None
    cut = open_snapshot(workspace, snapshot)
    used, n_undecided, n_no_consent, kinds = _judged(cut.rows("train" if split == "train" else "test"))
    if not used:
        raise BadInput(
            f"{cut.ref} has no judged pair in its {split} split "
            f"({n_undecided} without a verdict, {n_no_consent} without consent to evaluate)",
            fix="cut one with a larger --holdout, or name another snapshot",
        )
    return Material("snapshot", cut.ref, cut.digest, split, used, n_undecided, n_no_consent, kinds)


def _of_suite(workspace: Workspace, ref: str) -> Material:
    suite = open_suite(workspace, ref)
    rows = suite.pairs()
    by_pair = {row.pair.id: row for row in rows}
    used, n_undecided, n_no_consent, kinds = _judged(rows)
    if not used:
        raise BadInput(
            f"suite {suite.ref} has no judged pair ({suite.entry.n_prompts} prompts alone)",
            fix="rewards are measured on pairs; policies are compared on prompts: rlhf compare A B --suite",
        )
    stratified = tuple(
        Used(u.row, u.p_a, u.judgements, own.strata, own.styles, own.tags, own.template)
        for u in used
        if (own := by_pair[u.row.pair.id])
    )
    if all(one.template for one in stratified):
        kinds = (TEMPLATE,)
    elif "snapshot" not in suite.entry.origin:  # a cut's rows were judged here; a file's say who judged them, or don't
        kinds = tuple(sorted({_judge(j) for one in stratified for j in one.judgements}))
    split = "test" if suite.entry.held_out else NOT_HELD_OUT
    held_out = suite.entry.held_out
    return Material("suite", suite.ref, suite.digest, split, stratified, n_undecided, n_no_consent, kinds, held_out)


def _judge(judgement: Judgement) -> str:
    """Its kind, or FILE where the file says nothing of who judged: it is read as people's alone for want of a better word."""
    named = judgement.kind != "human" or judgement.labeler or judgement.cohort
    return judgement.kind if named else FILE


def _judged(rows: Iterable[Row]) -> tuple[tuple[Used, ...], int, int, tuple[str, ...]]:
    """Only judgements whose labeler agreed to evaluation count; a pair that is left without any is counted, not
    forgotten."""
    from rlhf.reward.targets import target_of

    used, n_undecided, n_no_consent, kinds = [], 0, 0, set()
    for row in rows:
        allowed = tuple(j for j in row.judgements if "evaluate" in j.consent)
        target = target_of(allowed, "soft") if allowed else None
        if target is None:
            n_no_consent += bool(row.judgements) and not allowed
            n_undecided += bool(allowed) or not row.judgements
            continue
        used.append(Used(row, float(target), allowed))
        kinds |= {j.kind for j in allowed}
    return tuple(used), n_undecided, n_no_consent, tuple(sorted(kinds))

"""People as the judge: a blind job in the labeling queue, and the answers that came back.

Both replies of a pair come in through the feedback door, in the order of their digests and under a source that names
the job and not the versions, so neither the page nor the stored pair tells who wrote which. The queue offers them before
anything else, and their answers may be used to evaluate only. The same comparison again finds its job by its digest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, select

from rlhf.errors import RlhfError
from rlhf.evaluation.judges import COIN, PEOPLE, TIE, Judged, Verdict
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.feedback import current_judgements, import_files
from rlhf.feedback.anonymise import mask
from rlhf.ids import canonical_json, digest_of, new_id
from rlhf.labeling.comparisons import COMPARISON, CONSENT
from rlhf.measures.votes import majority
from rlhf.records import Judgement, Message, Pair
from rlhf.store import Workspace
from rlhf.store.tables import imports, pairs

_CHUNK = 500


class Waiting(RlhfError):
    """People haven't judged enough pairs yet. job: its source; wanted: pairs that this comparison needs judged; so_far: of one that
    stops when it is decided, what it knew before."""

    code = "waiting"

    def __init__(self, job: str, n_judged: int, wanted: int, n_pairs: int) -> None:
        enough = "" if wanted == n_pairs else f" (this comparison goes on at {wanted:,})"
        super().__init__(
            f"{n_judged:,} of {n_pairs:,} pairs are judged{enough}: the job {job} is in the labeling queue, ahead of "
            "other pairs",
            fix="label them, then the same command again: rlhf web shows them (a token: rlhf people token NAME); "
            "or take what is there with --min-judged N",
        )
        self.job, self.n_judged, self.wanted, self.n_pairs = job, n_judged, wanted, n_pairs
        self.so_far: Mapping[str, Any] | None = None

    @property
    def why(self) -> str:
        """What is waited for and what to do, for a command to which waiting is no failure."""
        return f"{self.message}; {self.fix}"

    def progress(self) -> dict[str, Any]:
        return {
            "why": self.why,
            "job": self.job,
            "judged": self.n_judged,
            "wanted": self.wanted,
            "pairs": self.n_pairs,
            **({} if self.so_far is None else {"sequential": dict(self.so_far)}),
        }


@dataclass(frozen=True)
class PeopleJudge:
    """min_judged: go on once so many pairs are judged; None = all. The others are then left out, and counted."""

    workspace: Workspace
    versions: tuple[str, ...]  # digests
    min_judged: int | None = None
    kind: Literal["people"] = "people"
    name: str = PEOPLE

    def judge(self, pairs: Sequence[ReplyPair]) -> Judged:
        """Raises Waiting until enough is judged; the first call puts the job into the queue."""
        offered = {i: clean for i, pair in enumerate(pairs) if not pair.is_same and (clean := _clean(pair)) is not None}
        job = self._job(offered)
        self._offer(job, offered)
        with self.workspace.read() as connection:
            live = _live(connection, [clean.id for clean in offered.values()])
            said = _said(connection, sorted(live))
        asked = {i: clean for i, clean in offered.items() if clean.id in live}
        sides = {clean.id: majority(j.choice for j in said.get(clean.id, ())) for clean in asked.values()}
        n_judged = sum(side is not None for side in sides.values())
        wanted = len(sides) if self.min_judged is None else min(self.min_judged, len(sides))
        if n_judged < wanted:
            raise Waiting(job, n_judged, wanted, len(sides))
        verdicts = [
            TIE if pair.is_same else COIN if i not in asked else _verdict(pair, asked[i], sides[asked[i].id])
            for i, pair in enumerate(pairs)
        ]
        used = [judgement for judgements in said.values() for judgement in judgements]
        labelers = frozenset((j.source, j.labeler) for j in used if j.labeler)
        facts = {"job": job, "n_judgements": len(used), "n_labelers": len(labelers)}
        return Judged(verdicts, digest_of({"people": sorted(j.digest for j in used)}), facts, labelers)

    def _job(self, offered: Mapping[int, Pair]) -> str:
        content = {"versions": sorted(self.versions), "pairs": sorted(clean.id for clean in offered.values())}
        return f"{COMPARISON}{digest_of(content)[:16]}"

    def _offer(self, job: str, offered: Mapping[int, Pair]) -> None:
        """Put the pairs through the feedback door, unless this job's import is done already."""
        done = select(imports.c.id).where(imports.c.source == job, imports.c.state == "done").limit(1)
        with self.workspace.read() as connection:
            if not offered or connection.execute(done).first() is not None:
                return
        file = self.workspace.root / "cache" / f"{job.removeprefix(COMPARISON)}.{new_id()}.jsonl"
        rows = sorted({clean.id: clean for clean in offered.values()}.items())
        file.write_bytes(b"".join(canonical_json(_row(clean)) + b"\n" for _, clean in rows))
        try:
            import_files(self.workspace, [file], format="votes", source=job, consent=CONSENT)
        finally:
            file.unlink()


def _row(pair: Pair) -> dict[str, Any]:
    prompt = [message.as_json() for message in pair.prompt]
    return {"prompt": prompt, "reply_a": pair.reply_a, "reply_b": pair.reply_b}


def _clean(pair: ReplyPair) -> Pair | None:
    """The pair as it is stored, personal data replaced; None where the replies then don't differ or one is blank."""
    prompt = [Message(turn.role, mask(turn.content)[0]) for turn in pair.prompt.messages]
    a, b = mask(pair.a.text)[0], mask(pair.b.text)[0]
    return None if a == b or not a.strip() or not b.strip() else Pair.of(prompt, a, b)


def _verdict(pair: ReplyPair, clean: Pair, side: Literal["a", "b", "tie"] | None) -> Verdict:
    if side is None:
        return Verdict(None)
    if side == "tie":
        return Verdict(0.5)
    return Verdict(float(clean.side_of(mask(pair.a.text)[0]) == side))


def _live(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Which of the pairs are in the store with their text: the door may have refused one, or a person was erased."""
    found: set[str] = set()
    for start in range(0, len(ids), _CHUNK):
        some = pairs.c.id.in_(ids[start : start + _CHUNK])
        found.update(connection.scalars(select(pairs.c.id).where(some, pairs.c.erased_at.is_(None))))
    return found


def _said(connection: Connection, ids: Sequence[str]) -> dict[str, list[Judgement]]:
    """People's judgements in force on these pairs, by pair; skips too, which say nothing."""
    said: dict[str, list[Judgement]] = {}
    for _, judgement in current_judgements(connection, pair_ids=ids):
        if judgement.kind == "human" and "evaluate" in judgement.consent and judgement.choice != "skip":
            said.setdefault(judgement.pair_id, []).append(judgement)
    return said

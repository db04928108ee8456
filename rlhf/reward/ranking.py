"""What a vote on each pair is worth, by a reward: rows that the queue's draw reads, so that the page needs no model.

A head takes in every vote in force that may train and that its snapshot doesn't hold, one by one (`LiveReward`); an ensemble says
what its members think as they are. The votes are in the store and the rows are written all or none, so that a stop at any moment
loses nothing: the same command begins where the store is.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from rlhf import feedback, registry, snapshots
from rlhf.errors import BadInput
from rlhf.labeling import choosing
from rlhf.labeling.choosing import Worth
from rlhf.labeling.comparisons import COMPARISON
from rlhf.measures import bayes_logistic
from rlhf.records import Judgement, Pair, VersionRef
from rlhf.reward.live import LiveReward, Outlook, open_live
from rlhf.reward.score import OpenReward, open_reward, score_with
from rlhf.store import Workspace

Key = tuple[str, str, str | None, str]
_LOT = 256  # pairs looked at together


class Ranking:
    """A reward that ranks a workspace's open pairs, again and again. n_votes: taken in beyond the version's own.

    overlap: people wanted a pair. Raises BadInput where the version says nothing of its doubt.
    """

    def __init__(self, workspace: Workspace, version: VersionRef | str, *, overlap: int = 1) -> None:
        self.workspace, self.overlap = workspace, overlap
        self.ref = registry.resolve(workspace, version, role="reward") if isinstance(version, str) else version
        opened = registry.open_version(workspace, self.ref)
        if opened.kind not in ("head", "ensemble"):
            raise BadInput(
                f"{self.ref} is a reward of kind {opened.kind}, which says nothing of its doubt",
                fix="rank by an instant head (reward train NAME kind=head) or an ensemble (members=5)",
            )
        self.live = open_live(workspace, self.ref) if opened.kind == "head" else None
        self._members: OpenReward | None = None if self.live else open_reward(workspace, self.ref)
        self._begun = self.live.posterior if self.live else None
        self._known = _held_by_snapshot(workspace, opened.manifest) if self.live else frozenset()
        self._taken: dict[Key, None] = {}

    @property
    def n_votes(self) -> int:
        return len(self._taken)

    def write(self) -> int:
        """Take in what is new and write the row of every open pair. Gives their number."""
        with self.workspace.read() as connection:
            rows = [(pair, said) for pair, said, _ in feedback.read_pairs(connection)]
        if self.live:
            self._take_in(self.live, rows)
        return choosing.keep_worths(self.workspace, self._worths(rows), by=self.ref.digest, n_votes=self.n_votes)

    def _take_in(self, live: LiveReward, rows: Sequence[tuple[Pair, tuple[Judgement, ...]]]) -> None:
        """A vote that was undone, changed or withdrawn can't be taken out of a posterior: all others are taken in anew."""
        votes = {
            _key(vote): (pair, vote)
            for pair, said in rows
            for vote in said
            if "train" in vote.consent and not vote.source.startswith(COMPARISON) and _key(vote) not in self._known
        }
        if self._taken.keys() - votes.keys():
            assert self._begun is not None
            live.posterior, self._taken = self._begun, {}
        for key, (pair, vote) in votes.items():
            if key not in self._taken:
                live.vote(pair, vote.choice)
                self._taken[key] = None

    def _worths(self, rows: Sequence[tuple[Pair, tuple[Judgement, ...]]]) -> Iterator[Worth]:
        effort = choosing.effort(self.workspace)
        judged = Counter(pair.group for pair, said in rows if any(vote.choice != "skip" for vote in said))
        may = choosing.may_be_drawn(self.workspace, self.overlap)
        open_rows = [(pair, said) for pair, said in rows if may(pair.id, said)]
        for start in range(0, len(open_rows), _LOT):
            lot = open_rows[start : start + _LOT]
            for (pair, said), outlook in zip(lot, self._look([pair for pair, _ in lot]), strict=True):
                characters = len(pair.reply_a) + len(pair.reply_b) + sum(len(turn.content) for turn in pair.prompt)
                yield Worth(
                    pair.id,
                    None if outlook.information is None else outlook.information / float(np.log(2)),
                    choosing.disagreement(Counter(vote.choice for vote in said)),
                    1 / (1 + judged[pair.group]),
                    effort.seconds(characters),
                    outlook.p_a,
                )

    def _look(self, pairs: Sequence[Pair]) -> list[Outlook]:
        if self.live:
            return self.live.look(pairs)
        assert self._members is not None
        return [
            Outlook(pair.id, None)
            if row.score_a is None or row.score_b is None
            else _of_margin(pair.id, row.score_a - row.score_b, (row.doubt_a or 0.0) ** 2 + (row.doubt_b or 0.0) ** 2)
            for pair, row in zip(pairs, score_with(self._members.model, self._members.renderer, pairs), strict=True)
        ]


def follow(ranking: Ranking, on_written: Callable[[int], None], *, every_s: float = 5.0) -> None:
    """Write the rows whenever votes have come in, until Ctrl-C."""
    seen = -1
    while True:
        there = choosing.n_judgements(ranking.workspace)
        if there != seen:
            on_written(ranking.write())
            seen = there
        time.sleep(every_s)


def _of_margin(pair_id: str, margin: float, variance: float) -> Outlook:
    """Of an ensemble: the members' doubts of the two replies as if they were independent, which is too large where they move
    together."""
    p_a = float(bayes_logistic.chances([margin], [variance])[0])
    return Outlook(pair_id, p_a, margin, variance**0.5, float(bayes_logistic.information([margin], [variance])[0]))


def _key(vote: Judgement) -> Key:
    return vote.pair_id, vote.source, vote.labeler, vote.choice


def _held_by_snapshot(workspace: Workspace, manifest: Mapping[str, Any]) -> frozenset[Key]:
    """Votes that the version's snapshot holds: trained on, or held out for measuring."""
    digest = manifest.get("snapshot_digest")
    if not digest:
        return frozenset()
    snapshot = snapshots.open_snapshot(workspace, f"sha256:{digest}")
    return frozenset(_key(vote) for row in snapshot.rows() for vote in row.judgements)

"""What went into a cut and what was left out, counted while the rows stream by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.measures.agreement import krippendorff_alpha
from rlhf.records import Judgement, SnapshotRow

LEFT_OUT = {
    "pairs_without_judgement": "pairs that nobody has judged (within the rule's sources and kinds)",
    "pairs_only_skipped": "pairs that were only skipped",
    "pairs_without_consent": "pairs whose judgements may not be used on their side (train or test)",
    "pairs_awaiting_safety_review": "pairs that a safety item holds until an expert has cleared it (see: rlhf board list)",
    "judgements_without_consent": "judgements whose consent doesn't cover their side",
    "judgements_of_other_kinds": "judgements of kinds that the rule doesn't name",
}


@dataclass
class Tally:
    """Counts over rows; memory grows with the number of labelers, not of pairs."""

    n_pairs: int = 0
    n_judgements: int = 0
    splits: Counter[str] = field(default_factory=Counter)
    sources: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    choices: Counter[str] = field(default_factory=Counter)
    consents: Counter[str] = field(default_factory=Counter)
    cohorts: Counter[str] = field(default_factory=Counter)
    guidelines: Counter[str] = field(default_factory=Counter)
    per_pair: Counter[int] = field(default_factory=Counter)
    turns: Counter[int] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    judgements_of: Counter[str] = field(default_factory=Counter)  # by source
    unknown_of: Counter[str] = field(default_factory=Counter)  # by source: judgements without a labeler
    _labelers: set[tuple[str, str]] = field(default_factory=set)
    _votes: Counter[tuple[str, ...]] = field(default_factory=Counter)  # multisets of choices: few, however many pairs

    def add(self, row: SnapshotRow) -> None:
        self.n_pairs += 1
        self.splits[row.split] += 1
        self.sources.update(row.sources)
        self.turns[len(row.pair.prompt)] += 1
        votes = [j for j in row.judgements if j.choice != "skip"]
        self.per_pair[len(votes)] += 1
        self._votes[tuple(sorted(j.choice for j in votes))] += 1
        for judgement in row.judgements:
            self._add_judgement(judgement)

    def _add_judgement(self, judgement: Judgement) -> None:
        self.n_judgements += 1
        self.judgements_of[judgement.source] += 1
        self.kinds[judgement.kind] += 1
        self.choices[judgement.choice] += 1
        self.consents[",".join(judgement.consent)] += 1
        if judgement.cohort:
            self.cohorts[judgement.cohort] += 1
        if judgement.guideline:
            self.guidelines[judgement.guideline] += 1
        if judgement.labeler is None:
            self.unknown_of[judgement.source] += 1
        else:
            self._labelers.add((judgement.source, judgement.labeler))

    def agreement(self) -> dict[str, Any]:
        """Krippendorff's alpha (nominal; a, b, tie and both_bad are labels, skips are missing) and on how many
        pairs."""
        n_pairs = sum(n for votes, n in self._votes.items() if len(votes) > 1)
        return {"krippendorff_alpha": krippendorff_alpha(self._votes.elements()), "pairs": n_pairs}

    def _by_source(self) -> dict[str, dict[str, int]]:
        """Every source of a pair or a judgement; one labeler in two sources is two, for names are a source's own."""
        known = Counter(source for source, _ in self._labelers)
        return {
            source: {
                "pairs": self.sources[source],
                "judgements": self.judgements_of[source],
                "labelers": known[source],
                "judgements_of_unknown": self.unknown_of[source],
            }
            for source in sorted(self.sources | self.judgements_of)
        }

    def as_json(self) -> dict[str, Any]:
        return {
            "pairs": self.n_pairs,
            "splits": {split: self.splits[split] for split in ("train", "test")},
            "judgements": self.n_judgements,
            "sources": _sorted(self.sources),
            "by_source": self._by_source(),
            "kinds": _sorted(self.kinds),
            "choices": _sorted(self.choices),
            "consents": _sorted(self.consents),
            "labelers": {"known": len(self._labelers), "judgements_of_unknown": self.unknown_of.total()},
            "cohorts": _sorted(self.cohorts),
            "guidelines": _sorted(self.guidelines),
            "votes_per_pair": {str(n): self.per_pair[n] for n in sorted(self.per_pair)},
            "prompt_messages": {str(n): self.turns[n] for n in sorted(self.turns)},
            "agreement": self.agreement(),
            "left_out": {reason: self.left_out[reason] for reason in LEFT_OUT},
        }


def _sorted(counts: Mapping[str, int]) -> dict[str, int]:
    return {key: counts[key] for key in sorted(counts)}

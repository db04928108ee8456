"""Which way of reading several labelers' votes gives the better reward? Held-out log-loss of each, side by side.

    OMP_NUM_THREADS=1 .venv/bin/python scripts/table_labels.py

The crowd of convarg (some five votes a pair, a quarter of them ties) votes on pairs of arguments. A linear reward on the base's
states (layer 18, last token and mean over the reply) is fitted to the train folds' votes, read in each way through the
training's own targets and losses, with the same ridge, and predicts the held-out folds' votes. Folds are whole prompts (topic
and stance). What is predicted is each single vote for a side, as it was cast: neither majorities nor shares nor weighted votes,
so that no choice is measured by a target that it made; ties, which P(a beats b) says nothing of, have a column of their own
(three outcomes a vote; where a choice has no tie model, ties get the train side's share whatever the scores). Differences to
`soft half` are paired, intervals are over prompts. Every choice is shown at every ridge; --votes N keeps N votes a pair.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize

from rlhf import feedback
from rlhf.engine.bases import Base
from rlhf.engine.rendering import RenderedPair, Renderer
from rlhf.ids import chance, digest_text, unit_interval
from rlhf.measures import intervals, ranking
from rlhf.measures.reliability import Reliability
from rlhf.records import Pair, SnapshotRow
from rlhf.reward.loss import outcomes, pair_loss, tau_at_even, tied_pair_loss
from rlhf.reward.targets import Labels, Target, Ties, smoothed, training_target, trust_in
from rlhf.store import Workspace

PROJECT = Path(__file__).parent.parent
DATA = PROJECT.parent / "shared" / "data"
RIDGES = (0.1, 0.3, 1.0, 3.0)
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Choice:
    """One way of reading votes: the training's settings of that name."""

    labels: Labels
    ties: Ties = "half"
    smoothing: float = 0.0

    def __str__(self) -> str:
        return f"{self.labels} {self.ties}" + (f" smoothing {self.smoothing:g}" if self.smoothing else "")


CHOICES = (
    Choice("soft"),
    Choice("majority"),
    Choice("reliability"),
    *(Choice(labels, ties) for ties in ("davidson", "rao_kupper", "drop") for labels in ("soft", "majority")),
    Choice("reliability", "davidson"),
    Choice("reliability", "drop"),
    Choice("soft", smoothing=0.1),
    Choice("majority", smoothing=0.1),
    Choice("majority", "drop", smoothing=0.2),
)


@dataclass(frozen=True)
class Judged:
    """Pairs with their votes, and the states of each distinct rendering: row i compares renderings a[i] and b[i]."""

    rows: list[SnapshotRow]
    states: Floats  # (renderings, D)
    a: NDArray[np.intp]
    b: NDArray[np.intp]

    @property
    def groups(self) -> list[str]:
        return [row.pair.group for row in self.rows]


@dataclass(frozen=True)
class Held:
    """What a fit says of held-out pairs: score differences (N,), and log-probabilities (N, 3) of a, b and a tie."""

    gaps: Floats
    logp: Floats


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    words.add_argument("--layer", type=int, default=18)
    words.add_argument("--folds", type=int, default=8)
    words.add_argument("--votes", type=int, default=0, help="keep this many votes a pair, drawn at random; 0 = all")
    words.add_argument("--cache", type=Path, help="folder that keeps the states for the next run")
    told = words.parse_args()
    torch.set_num_threads(1)
    start = time.perf_counter()
    files = [DATA / "convarg_pairs.jsonl.gz", DATA / "convarg_votes.csv.gz"]
    judged = with_states(read(files), told.base, told.layer, told.cache)
    if told.votes:
        judged = replace(judged, rows=[thinned(row, told.votes) for row in judged.rows])
    print(
        f"{len(judged.rows)} pairs, {sum(len(r.judgements) for r in judged.rows)} votes, {len(judged.states)} replies"
    )
    folds = folds_of(judged, told.folds)
    table = {choice: {ridge: held_out(judged, folds, choice, ridge) for ridge in RIDGES} for choice in CHOICES}
    print(json.dumps(printed(judged, table) | {"seconds": round(time.perf_counter() - start)}))


def read(files: Sequence[Path]) -> list[SnapshotRow]:
    """Every judged pair of the files, by the door that users' files come in through."""
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "w")
        feedback.import_files(workspace, list(files))
        with workspace.read() as connection:
            rows = [
                SnapshotRow(pair, judgements, "train", sources, pair.id)
                for pair, judgements, sources in feedback.read_pairs(connection)
            ]
        workspace.close()
    return rows


def thinned(row: SnapshotRow, n: int) -> SnapshotRow:
    """n of the row's votes, drawn by its digest."""
    kept = chance(0, "votes", row.pair.id).sample(row.judgements, min(n, len(row.judgements)))
    return replace(row, judgements=tuple(kept))


def with_states(rows: Sequence[SnapshotRow], folder: Path, layer: int, cache: Path | None) -> Judged:
    """Rows that can be rendered, and their replies' states: last token and mean over the reply, side by side."""
    base = Base("base", "0" * 64, folder, "", "", {}, {})
    renderer = Renderer(base.tokenizer(), 1024)
    taken, sides = [], []
    for row in rows:
        rendered = renderer.pair(row.pair)
        if isinstance(rendered, RenderedPair):
            taken.append(row)
            opening = len(rendered.prefix) if rendered.n_dropped_turns else len(renderer.opening(row.pair.prompt))
            sides.append(
                [((*rendered.prefix, *own), min(opening, len(rendered.prefix))) for own in (rendered.a, rendered.b)]
            )
    whole = sorted({side for pair in sides for side in pair}, key=lambda side: (len(side[0]), side))
    number = {side: i for i, side in enumerate(whole)}
    kept = cache / f"{digest_text(repr((whole, layer)))[:16]}.npy" if cache else None
    if kept and kept.exists():
        states = np.load(kept)
    else:
        states = np.stack(list(states_of(whole, folder, layer)))
        if kept:
            np.save(kept, states)
    a, b = (np.array([number[pair[side]] for pair in sides]) for side in (0, 1))
    return Judged(taken, states.astype(np.float64), a, b)


def states_of(whole: Sequence[tuple[tuple[int, ...], int]], folder: Path, layer: int) -> Iterator[NDArray[np.float32]]:
    """(2 hidden,) of each token sequence after `layer` layers of the bare base, in bfloat16; replies begin at the second number."""
    from transformers import AutoModel

    # One layer more than is read: the last one's output comes with the final norm on it.
    model = AutoModel.from_pretrained(folder, dtype=torch.bfloat16, num_hidden_layers=layer + 1).eval()
    with torch.inference_mode():
        for start in range(0, len(whole), 8):
            part = whole[start : start + 8]
            width = max(len(ids) for ids, _ in part)
            ids, seen = torch.zeros(2, len(part), width, dtype=torch.long)
            for i, (own, _) in enumerate(part):
                ids[i, : len(own)], seen[i, : len(own)] = torch.tensor(own), 1
            found = model(input_ids=ids, attention_mask=seen, output_hidden_states=True).hidden_states[layer].float()
            for i, (own, opening) in enumerate(part):
                yield torch.cat((found[i, len(own) - 1], found[i, opening : len(own)].mean(0))).numpy()


@dataclass(frozen=True)
class Fold:
    """train: (N,) whether a pair is trained on; the others are held out. trust: in the labelers, from the train side."""

    train: NDArray[np.bool_]
    trust: Reliability


def folds_of(judged: Judged, n: int) -> list[Fold]:
    """Whole prompts, by a hash."""
    number = np.array([int(unit_interval(0, f"fold {group}") * n) for group in judged.groups])
    trains = [number != k for k in np.unique(number)]
    return [Fold(t, trust_in(row for row, own in zip(judged.rows, t, strict=True) if own)) for t in trains]


def held_out(judged: Judged, folds: Sequence[Fold], choice: Choice, ridge: float) -> Held:
    """Every pair predicted by a fit that saw no pair of its prompt."""
    gaps, logp = np.zeros(len(judged.rows)), np.zeros((len(judged.rows), 3))
    for fold in folds:
        gaps[~fold.train], logp[~fold.train] = fitted(judged, fold, choice, ridge)
    return Held(gaps, logp)


def fitted(judged: Judged, fold: Fold, choice: Choice, ridge: float) -> tuple[Floats, Floats]:
    """Fit on the train side, predict the rest: (score differences, log-probabilities of a, b, tie)."""
    train, out = fold.train, ~fold.train
    rows = [row for row, own in zip(judged.rows, train, strict=True) if own]
    found = [training_target(row.judgements, choice.labels, choice.ties, fold.trust) for row in rows]
    is_one = np.array([isinstance(target, Target) for target in found])
    targets = [target for target in found if isinstance(target, Target)]
    seen = np.unique(np.r_[judged.a[train], judged.b[train]])
    mean, sd = judged.states[seen].mean(0), judged.states[seen].std(0) + 1e-6
    states = torch.from_numpy((judged.states - mean) / sd / np.sqrt(judged.states.shape[1]))
    a, b = (torch.from_numpy(side[train][is_one]) for side in (judged.a, judged.b))
    share = sum(target.tie for target in targets) / len(targets)
    loss = loss_of(targets, choice, share)

    def value(x: Floats) -> tuple[float, Floats]:
        at = torch.tensor(x, requires_grad=True)
        scores = states @ at[1:]
        total = loss(scores[a] - scores[b], at[0]) + ridge / 2 * (at[1:] ** 2).mean()
        total.backward()
        return total.item(), at.grad.numpy()

    tied = choice.ties in ("davidson", "rao_kupper")
    first = np.zeros(states.shape[1] + 1)
    first[0] = tau_at_even(share, choice.ties) if tied else 0.0
    best = minimize(value, first, jac=True, method="L-BFGS-B", options={"maxiter": 300, "gtol": 1e-6}).x
    scores = states.numpy() @ best[1:]
    gaps = scores[judged.a[out]] - scores[judged.b[out]]
    if tied:
        three = outcomes(torch.from_numpy(gaps), choice.ties, torch.tensor(best[0]))
        return gaps, np.stack([p.numpy() for p in three], axis=1)
    votes = [j.choice == "tie" for row in rows for j in row.judgements]
    s = sum(votes) / len(votes)
    sides = -np.logaddexp(0, np.stack((-gaps, gaps), axis=1)) + np.log(1 - s)
    return gaps, np.column_stack((sides, np.full(len(gaps), np.log(s))))


def loss_of(targets: Sequence[Target], choice: Choice, share: float) -> Any:
    """The training's loss over all pairs as a function of (score differences, tie parameter)."""
    columns = [[smoothed(t.p_a, choice.smoothing), t.tie, t.weight] for t in targets]
    target, tie, weight = torch.tensor(columns, dtype=torch.float64).T
    none = torch.zeros_like(target)

    def loss(gaps: torch.Tensor, tau: torch.Tensor) -> torch.Tensor:
        if choice.ties in ("davidson", "rao_kupper"):
            each = tied_pair_loss(gaps, none, target, tie, none, 0.0, choice.ties, tau)
        else:
            each = pair_loss(gaps, none, target, none, 0.0)
        return (weight * each).sum() / weight.sum()

    return loss


@dataclass(frozen=True)
class Votes:
    """Every vote: its pair's row, 0 = a, 1 = b, 2 = tie, and its prompt."""

    row: NDArray[np.intp]
    said: NDArray[np.intp]
    group: NDArray[Any]

    @staticmethod
    def of(judged: Judged) -> Votes:
        number = {"a": 0, "b": 1, "tie": 2, "both_bad": 2}
        every = [(i, number[j.choice], row.pair.group) for i, row in enumerate(judged.rows) for j in row.judgements]
        return Votes(np.array([v[0] for v in every]), np.array([v[1] for v in every]), np.array([v[2] for v in every]))

    def side_losses(self, held: Held) -> tuple[Floats, NDArray[Any]]:
        """(V,) nats of each vote for a side under P(a beats b) = sigmoid(difference), and its prompt."""
        on = self.said < 2
        signed = np.where(self.said[on] == 0, 1, -1) * held.gaps[self.row[on]]
        return ranking.log_losses(signed), self.group[on]

    def losses(self, held: Held) -> Floats:
        """(V,) nats of each vote, ties among them."""
        return -held.logp[self.row, self.said]


def printed(judged: Judged, table: dict[Choice, dict[float, Held]]) -> dict[str, Any]:
    """Print the table; give the last line's object. The main column is at the ridge that suits `soft half` best."""
    votes, usual = Votes.of(judged), CHOICES[0]
    mean = {c: {r: votes.side_losses(h)[0].mean() for r, h in by.items()} for c, by in table.items()}
    ridge = min(RIDGES, key=lambda r: mean[usual][r])
    gold = gold_sides(judged)
    print(
        f"\nheld-out nats a vote for a side (coin 0.6931), paired difference to {usual} [95 %] at ridge {ridge:g}; nats a"
    )
    print("vote of three outcomes; percent of the set's gold verdicts met; then nats a vote for a side at each ridge")
    head = f"{'choice':28} {'log-loss':>8}  {'difference to ' + str(usual):>28}  {'3 ways':>7} {'gold %':>6}"
    print(head + "".join(f"  r={r:<5g}" for r in RIDGES))
    base, groups = votes.side_losses(table[usual][ridge])
    lines = []
    for choice, by in table.items():
        losses = votes.side_losses(by[ridge])[0]
        off = intervals.bootstrap(losses - base, groups_N=groups)
        three = votes.losses(by[ridge]).mean()
        right = 100 * ranking.accuracy(np.where(gold > 0, 1, -1)[gold != 0] * by[ridge].gaps[gold != 0])
        line = {
            "choice": str(choice),
            "log_loss": round(float(losses.mean()), 5),
            "difference": [round(float(x), 5) for x in ((losses - base).mean(), off.low, off.high)],
            "three_way": round(float(three), 5),
            "gold_percent": round(right, 2),
            "by_ridge": {f"{r:g}": round(float(mean[choice][r]), 5) for r in RIDGES},
        }
        lines.append(line)
        d = line["difference"]
        told = f"{d[0]:+.4f} [{d[1]:+.4f}, {d[2]:+.4f}]"
        print(
            f"{choice!s:28} {losses.mean():8.4f}  {told:>28}  {three:7.4f} {right:6.2f}"
            + "".join(f"  {mean[choice][r]:.4f} " for r in RIDGES)
        )
    best = min(lines, key=lambda line: line["log_loss"])
    ours, peer = best["log_loss"], lines[0]["log_loss"]
    return {
        "name": "labels: held-out log-loss of the best choice; peer: soft half",
        "ours": ours,
        "peer": peer,
        "ratio": round(peer / ours, 4),
        "unit": "nats a vote",
        "best": best["choice"],
        "ridge": ridge,
        "votes": int((votes.said < 2).sum()),
        "prompts": len(set(judged.groups)),
        "table": lines,
    }


def gold_sides(judged: Judged) -> NDArray[np.int_]:
    """1 where the set's gold verdict is a, -1 where it is b, 0 where there is none."""
    import gzip

    verdict: dict[tuple[str, str], str] = {}
    with gzip.open(DATA / "convarg_pairs.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            told = json.loads(line)
            if told["gold"] in ("a", "b"):
                verdict[(told["a"].strip(), told["b"].strip())] = told["a" if told["gold"] == "a" else "b"].strip()

    def side(pair: Pair) -> int:
        a, b = pair.reply_a.strip(), pair.reply_b.strip()
        better = verdict.get((a, b)) or verdict.get((b, a))
        return 0 if better is None else 1 if better == a else -1

    return np.array([side(row.pair) for row in judged.rows])


if __name__ == "__main__":
    main()

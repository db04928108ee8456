"""Which pair to ask about next: a crowd's real votes replayed, chosen pairs against random ones.

    OMP_NUM_THREADS=2 .venv/bin/python scripts/table_choosing.py --cache FOLDER --page choosing.html

A pool of convarg pairs (2,000 of the train prompts) is labeled one vote at a time: a stretch of 200 of its pairs is drawn, as the
queue does it, one pair of it is chosen, one of that pair's real votes is taken without replacement, and the live instant reward,
which begins knowing nothing, takes it in. Ways of choosing: even among all; the queue's draw (`labeling.choosing`) by how near
P(a) is to 1/2, by what a vote tells the reward, by all parts of a worth, and these per expected second. Held-out accuracy is
against the crowd's majority on prompts of which no pair was in the pool. Every seed draws other prompts, pools and stretches;
differences to random are paired by seed and test pair, with intervals by bootstrap over prompts. Weighted by 1 / p, chosen votes
must give the pool's own share of votes for the longer reply. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from table_labels import DATA, PROJECT, Judged, read

from rlhf.engine.bases import Base
from rlhf.engine.rendering import RenderedPair, Renderer
from rlhf.ids import chance, digest_text, unit_interval
from rlhf.labeling.choosing import Worth, disagreement, line_of, shares
from rlhf.labeling.rules import LabelRules
from rlhf.measures import bayes_logistic, intervals
from rlhf.pages import Section, facts, page, plots
from rlhf.pages.run_report import write_page

STRETCH, AT = 200, (25, 50, 100, 150, 200, 300)
LAYER, LOT = 14, 32
DEFAULT = LabelRules.model_validate({})
ONE = LabelRules.model_validate({"disagreement_weight": 0, "coverage_weight": 0})
EVEN = LabelRules.model_validate({"floor": 1.0})
QUEUE = "the queue's default"
ARMS: dict[str, tuple[LabelRules, str, bool]] = {  # rules, what stands as doubt, whether benefit is divided by seconds
    "random": (EVEN, "", False),
    "near to 1/2": (ONE, "near", False),
    "doubt": (ONE, "information", False),
    "doubt per second": (ONE, "information", True),
    "all parts": (DEFAULT, "information", False),
    QUEUE: (DEFAULT, "information", True),
}
TARGET = {"a": 1.0, "b": 0.0, "tie": 0.5, "both_bad": 0.5}


@dataclass
class Replayed:
    """hits: (checkpoints, test pairs); seconds: at each checkpoint, as the crowd took; weighted, plain: share for the longer."""

    hits: NDArray[np.float64]
    seconds: list[float]
    weighted: float
    plain: float


def main() -> None:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    words.add_argument("--seeds", type=int, default=6)
    words.add_argument("--pool", type=int, default=2000)
    words.add_argument("--prompts", type=int, default=24, help="so many of the 24, by a hash; states take the time")
    words.add_argument("--cache", type=Path, help="folder that keeps the states for the next run")
    words.add_argument("--page", type=Path, help="write the plot here")
    told = words.parse_args()
    start = time.perf_counter()
    rows = read([DATA / "convarg_pairs.jsonl.gz", DATA / "convarg_votes.csv.gz"])
    first = sorted({row.pair.group for row in rows}, key=lambda group: unit_interval(0, group))[: told.prompts]
    rows = [row for row in rows if row.pair.group in first]
    judged = with_states(rows, told.base, told.cache)
    print(f"{len(judged.rows)} pairs, states after {time.perf_counter() - start:.0f} s", flush=True)
    found: dict[str, list[Replayed]] = {arm: [] for arm in ARMS}
    groups: list[str] = []
    truths = []
    for seed in range(told.seeds):
        pool, test, truth = split(judged, seed, told.pool)
        truths.append(truth)
        groups += [judged.rows[i].pair.group for i in test]
        for arm in ARMS:
            found[arm].append(replay(judged, pool, test, arm, seed))
        last = {arm: round(float(found[arm][-1].hits[-1].mean()), 4) for arm in ARMS}
        print(f"seed {seed}: {len(test)} test pairs, {time.perf_counter() - start:.0f} s, {last}", flush=True)
    told_rows = summary(found, groups, truths)
    if told.page:
        write_page(told.page, page_of(told_rows))
    ours, peer = (told_rows["arms"][arm]["accuracy"][-1] for arm in (QUEUE, "random"))
    head = {"name": "table_choosing", "ours": ours, "peer": peer, "ratio": round(ours / peer, 4)}
    print(json.dumps(head | {"unit": f"held-out accuracy after {AT[-1]} votes", **told_rows}))


def with_states(rows: Sequence[Any], folder: Path, cache: Path | None) -> Judged:
    """Rows that can be rendered, and the states of each distinct reply after 14 layers: last token and mean, side by side. A
    run that was stopped goes on in the cache."""
    base = Base("base", "0" * 64, folder, "", "", {}, {})
    renderer = Renderer(base.tokenizer(), 1024)
    taken, pairs = [], []
    groups: dict[tuple[tuple[int, ...], int], str] = {}
    for row in rows:
        rendered = renderer.pair(row.pair)
        if not isinstance(rendered, RenderedPair):
            continue
        opening = len(rendered.prefix) if rendered.n_dropped_turns else len(renderer.opening(row.pair.prompt))
        both = [((*rendered.prefix, *own), min(opening, len(rendered.prefix))) for own in (rendered.a, rendered.b)]
        taken.append(row)
        pairs.append(both)
        groups |= dict.fromkeys(both, row.pair.group)
    whole = sorted(groups, key=lambda side: (unit_interval(0, groups[side]), len(side[0]), side))
    kept = cache / f"{digest_text(repr((whole, LAYER)))[:16]}.npy" if cache else None
    found = [np.load(kept)] if kept and kept.exists() else []
    model = None
    for start in range(sum(len(part) for part in found), len(whole), LOT):
        model = model or trunk_of(folder)
        found.append(np.stack(list(states_of(whole[start : start + LOT], model))))
        if kept:
            np.save(kept, np.concatenate(found))
        print(f"states of {start + len(found[-1])} of {len(whole)} replies", flush=True)
    number = {side: i for i, side in enumerate(whole)}
    a, b = (np.array([number[both[side]] for both in pairs]) for side in (0, 1))
    return Judged(taken, np.concatenate(found).astype(np.float64), a, b)


def trunk_of(folder: Path) -> Any:
    from transformers import AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32, num_hidden_layers=LAYER).eval()
    model.norm = torch.nn.Identity()  # the states are those between two layers
    return model


def states_of(sides: Sequence[tuple[tuple[int, ...], int]], model: Any) -> Iterator[NDArray[np.float32]]:
    """(2 hidden,) of each token sequence; replies begin at the second number."""
    for start in range(0, len(sides), 8):
        part = sides[start : start + 8]
        ids, seen = torch.zeros(2, len(part), max(len(own) for own, _ in part), dtype=torch.long)
        for i, (own, _) in enumerate(part):
            ids[i, : len(own)], seen[i, : len(own)] = torch.tensor(own), 1
        with torch.inference_mode():
            states = model(input_ids=ids, attention_mask=seen, use_cache=False).last_hidden_state
        for i, (own, opening) in enumerate(part):
            yield torch.cat((states[i, len(own) - 1], states[i, opening : len(own)].mean(0))).numpy()


def split(judged: Judged, seed: int, n_pool: int) -> tuple[list[int], list[int], float]:
    """Pairs of the pool, decided pairs of a quarter of the prompts, and the pool's own share of votes for the longer reply."""
    held = {group for group in set(judged.groups) if unit_interval(seed, f"choosing {group}") < 0.25}
    inside = [i for i, row in enumerate(judged.rows) if row.pair.group not in held and row.judgements]
    pool = chance(seed, "pool").sample(inside, min(n_pool, len(inside)))
    test = [i for i, row in enumerate(judged.rows) if row.pair.group in held and majority(row) != 0]
    return (
        pool,
        test,
        float(np.mean([np.mean([for_longer(judged, i, j.choice) for j in judged.rows[i].judgements]) for i in pool])),
    )


def majority(row: Any) -> int:
    counts = Counter(judgement.choice for judgement in row.judgements)
    return int(np.sign(counts["a"] - counts["b"]))


def for_longer(judged: Judged, i: int, choice: str) -> float:
    pair = judged.rows[i].pair
    return TARGET[choice] if len(pair.reply_a) > len(pair.reply_b) else 1 - TARGET[choice]


def replay(judged: Judged, pool: Sequence[int], test: Sequence[int], arm: str, seed: int) -> Replayed:
    rules, doubt, per_second = ARMS[arm]
    dice = chance(seed, "replay", arm)
    x = (judged.states[judged.a[pool]] - judged.states[judged.b[pool]]).astype(np.float64)
    held = judged.states[judged.a[test]] - judged.states[judged.b[test]]
    scale = np.sqrt(np.mean(x**2, axis=0)) + 1e-9
    d = x.shape[1]
    belief = bayes_logistic.Posterior(np.zeros(d), scale, float(d), np.zeros((d, 0)))  # logits of variance 1 at first
    side = np.array([majority(judged.rows[i]) for i in test])
    left = [dice.sample(judged.rows[i].judgements, len(judged.rows[i].judgements)) for i in pool]
    said: list[Counter[str]] = [Counter() for _ in pool]
    of_prompt: Counter[str] = Counter()
    characters = [sum(map(len, (judged.rows[i].pair.reply_a, judged.rows[i].pair.reply_b))) for i in pool]
    known = [
        (characters[k], j.seconds) for k, i in enumerate(pool[:500]) for j in judged.rows[i].judgements if j.seconds
    ]
    line = line_of([(n, s) for n, s in known if s <= 1800])
    hits, seconds, spent, weighted, plain = [], [], 0.0, [], []
    for step in range(1, AT[-1] + 1):
        open_pairs = [k for k, votes in enumerate(left) if votes]
        stretch = dice.sample(open_pairs, min(STRETCH, len(open_pairs)))
        if rules.floor == 1.0:
            p = [1 / len(stretch)] * len(stretch)
        else:
            logits, variances = belief.logits(x[stretch]), belief.variances(x[stretch])
            told = bayes_logistic.information(logits, variances) / np.log(2)
            if doubt == "near":
                told = 1 - np.abs(2 * bayes_logistic.chances(logits, variances) - 1)
            p = shares(
                [
                    Worth(
                        str(k),
                        float(told[n]),
                        disagreement(said[k]),
                        1 / (1 + of_prompt[judged.rows[pool[k]].pair.group]),
                        line.seconds(characters[k]) if per_second else 1.0,
                    )
                    for n, k in enumerate(stretch)
                ],
                rules,
            )
        (n,) = dice.choices(range(len(stretch)), p)
        k = stretch[n]
        vote = left[k].pop()
        said[k][vote.choice] += 1
        of_prompt[judged.rows[pool[k]].pair.group] += 1
        spent += min(vote.seconds or 0.0, 1800.0)
        longer = for_longer(judged, pool[k], vote.choice)
        weighted.append(
            longer / (p[n] * len(stretch))
        )  # p of the lease is p[n] x stretch / open; the mean is over the open
        plain.append(longer)
        belief = bayes_logistic.updated(belief, x[k], TARGET[vote.choice])
        if step in AT:
            hits.append(np.where(belief.logits(held) * side > 0, 1.0, 0.0))
            seconds.append(spent)
    return Replayed(np.array(hits), seconds, float(np.mean(weighted)), float(np.mean(plain)))


def summary(found: dict[str, list[Replayed]], groups: Sequence[str], truths: Sequence[float]) -> dict[str, Any]:
    """Prints the table; gives what the last line says."""
    whole = {arm: np.concatenate([one.hits for one in ones], axis=1) for arm, ones in found.items()}
    arms: dict[str, Any] = {}
    for arm, ones in found.items():
        off = whole[arm] - whole["random"]
        differences = []
        for row in (*off, off.mean(axis=0)):
            around = intervals.bootstrap(row, groups_N=groups)
            differences.append([round(float(v), 4) for v in (row.mean(), around.low, around.high)])
        arms[arm] = {
            "accuracy": [round(float(v), 4) for v in whole[arm].mean(axis=1)],
            "less_random": differences[:-1],
            "less_random_over_all_checkpoints": differences[-1],
            "crowd_seconds_a_vote": round(float(np.mean([one.seconds[-1] for one in ones])) / AT[-1], 1),
            "longer_weighted": round(float(np.mean([one.weighted for one in ones])), 4),
            "longer_weighted_sd": round(float(np.std([one.weighted for one in ones], ddof=1)), 4),
            "longer_plain": round(float(np.mean([one.plain for one in ones])), 4),
        }
        print(
            f"{arm:30} " + " ".join(f"{v:.3f}" for v in arms[arm]["accuracy"]) + f"  mean difference {differences[-1]}"
        )
    return {"at": list(AT), "seeds": len(truths), "longer_in_pool": round(float(np.mean(truths)), 4), "arms": arms}


def page_of(told: dict[str, Any]) -> str:
    arms = told["arms"]
    queue = arms[QUEUE]
    both = [
        plots.Line("chosen by the queue's rules", told["at"], queue["accuracy"]),
        plots.Line("random", told["at"], arms["random"]["accuracy"], second=True),
    ]
    off = [
        plots.Line("chosen less random", told["at"], [d[0] for d in queue["less_random"]]),
        plots.Line("95 % low", told["at"], [d[1] for d in queue["less_random"]], faint=True),
        plots.Line("95 % high", told["at"], [d[2] for d in queue["less_random"]], faint=True),
    ]
    rows = [(arm, " ".join(f"{v:.3f}" for v in one["accuracy"])) for arm, one in arms.items()]
    return page(
        "Which pair next",
        [
            Section("Accuracy", plots.curves("accuracy", both, x_label="votes", y_label="held-out accuracy")),
            Section("Difference", plots.curves("off", off, x_label="votes", y_label="accuracy, paired", reference=0.0)),
            Section("All ways", facts([("votes", " ".join(f"{n:5d}" for n in told["at"])), *rows])),
        ],
        kicker="Replay of convarg's votes",
    )


if __name__ == "__main__":
    main()

"""Verdicts on pairs of replies to figures: who wins how often, and what the replies are like.

What is counted, once for all figures:
- a tie, which two identical replies always are, is half a win for each side; so is a pair that the judge could not
  judge, so that writing what can't be scored never helps;
- a pair that people have not judged is left out of the win rates, and counted;
- `n_judged` is what a judge has told apart or called a tie: neither coins nor equal texts, which are no evidence;
- everything else (lengths, KL, repetition) is over all replies;
- prompts of one opening turn are resampled together, and both sides' replies with them.

Side b's win rates are side a's turned round, to the last digit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.evaluation.estimates import LEVEL, Floats, estimate, mean, nothing, rounded
from rlhf.evaluation.judges import Verdict
from rlhf.evaluation.reply_pairs import ReplyPair
from rlhf.measures import controlled, intervals, text
from rlhf.measures.declining import declines

if TYPE_CHECKING:
    from rlhf.policy import Reply

N_BOOT = 1000  # of the ratios and of the length control, which are fitted anew in each resample
_WON = ("win_rate", "length_controlled_win_rate", "win_rate_longer", "win_rate_shorter")
_DISTINCT_N = (1, 2, 3)
DISTINCT = "distinct {0}-grams of words over all {0}-grams of the replies; no interval, for resampling repeats texts"
METHOD = {
    "win_rate": "share of judged pairs won, a tie or a coin counting half",
    "length_controlled_win_rate": f"{controlled.METHOD}; lengths in characters; bootstrap interval",
    "kl": "mean of log p(version) - log p(bare base) over its own replies, both at temperature 1, in nats a reply: "
    "an estimate from one sample a prompt",
    "log_likelihood_base": "log p(bare base) of the replies, nats a token: how ordinary the base finds them",
    "repetition": "share of 4-grams that stood in the reply before",
    "refusal": "share of replies whose first 200 characters decline, in English; other languages read as no refusal",
    **{f"distinct_{n}": DISTINCT.format(n) for n in _DISTINCT_N},
    "intervals": f"{LEVEL:.0%} percentile bootstrap over opening turns, paired, percentiles expanded for few; "
    "Wilson's of right and wrong one by one, and where all resamples are alike",
}


def figures(
    pairs: Sequence[ReplyPair], verdicts: Sequence[Verdict], *, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Side a's figures and side b's: finite floats, ints, texts and None only.

    Flat keys (`win_rate`, `win_rate_low`, ...) are for programs; `measures` holds the same with n, level and method. A
    figure of no pairs is None. Raises ValueError on none at all.
    """
    if not pairs:
        raise ValueError("no pairs to measure")
    won = _wins(pairs, verdicts, seed)
    counts = {
        "n": sum(v.win is not None for v in verdicts),
        "n_prompts": len(pairs),
        "n_groups": len({pair.group for pair in pairs}),
        "n_ties": sum(v.win == 0.5 and not v.coin for v in verdicts),
        "n_identical": sum(pair.is_same for pair in pairs),
        "n_coins": sum(v.coin for v in verdicts),
        "n_not_judged": sum(v.win is None for v in verdicts),
        "n_judged": sum(_is_judged(pair, v) for pair, v in zip(pairs, verdicts, strict=True)),
    }
    sides = []
    for turned in (False, True):
        replies = [pair.b if turned else pair.a for pair in pairs]
        scores = [v.score_b if turned else v.score_a for v in verdicts]
        measures = _turned(won["measures"]) if turned else won["measures"]
        measures = {**measures, **_writing(replies, [p.group for p in pairs], scores, seed)}
        flat = {k: v for name, m in measures.items() for k, v in _flat(name, m).items()}
        wins = {"n_wins": won["b"] if turned else won["a"], "n_losses": won["a"] if turned else won["b"]}
        why = {"length_controlled_why": won["why"]}
        sides.append(rounded({**counts, **wins, **flat, **why, "measures": measures, "seed": seed}))
    return sides[0], sides[1]


def difference(pairs: Sequence[ReplyPair], *, seed: int = 0) -> dict[str, Any]:
    """Side a minus side b over the same prompts, paired, for what the replies are like."""
    groups = [pair.group for pair in pairs]
    found = {
        "mean_tokens": _paired(pairs, lambda r: float(r.n_tokens)),
        "mean_characters": _paired(pairs, lambda r: float(len(r.text))),
        "cut_off": _paired(pairs, lambda r: float(r.cut_off)),
        "repetition": _paired(pairs, lambda r: text.repetition(r.text)),
        "refusal": _paired(pairs, lambda r: float(declines(r.text))),
    }
    measures = {name: mean(values, groups, seed) for name, values in found.items()}
    rows = np.array([[p.a.logp_base, p.a.n_tokens, p.b.logp_base, p.b.n_tokens] for p in pairs], dtype=np.float64)
    measures["log_likelihood_base"] = _interval(rows, lambda r: _ratio(r[:, :2]) - _ratio(r[:, 2:]), groups, seed)
    result: dict[str, Any] = rounded(measures)
    return result


def _wins(pairs: Sequence[ReplyPair], verdicts: Sequence[Verdict], seed: int) -> dict[str, Any]:
    judged = [(pair, v.win) for pair, v in zip(pairs, verdicts, strict=True) if v.win is not None]
    told = np.array(
        [_is_judged(p, v) for p, v in zip(pairs, verdicts, strict=True) if v.win is not None], dtype=np.bool_
    )
    wins = np.array([win for _, win in judged], dtype=np.float64)
    lengths = np.array([pair.length_difference for pair, _ in judged], dtype=np.float64)
    groups = np.array([pair.group for pair, _ in judged])
    fit = controlled.length_controlled(wins, lengths, groups_N=groups, n_boot=N_BOOT, level=LEVEL, seed=seed)
    at_length = {**nothing(), "method": fit.why or ""}
    if fit.win_rate is not None:
        low, high = (fit.interval.low, fit.interval.high) if fit.interval else (None, None)
        at_length = {
            "value": fit.win_rate, "low": low, "high": high, "n": fit.n,
            "level": LEVEL if fit.interval else None, "method": controlled.METHOD,
        }  # fmt: skip
    parts = {"win_rate": np.full(len(wins), True), "win_rate_longer": lengths > 0, "win_rate_shorter": lengths < 0}
    measures = {name: mean(wins[part], groups[part], seed, share=True) for name, part in parts.items()}
    counted = {**parts, "length_controlled_win_rate": parts["win_rate"]}
    measures["length_controlled_win_rate"] = at_length
    return {
        "a": int((wins == 1).sum()),
        "b": int((wins == 0).sum()),
        "why": fit.why,
        "measures": {name: {**measures[name], "n_judged": int(told[counted[name]].sum())} for name in _WON},
    }


def _is_judged(pair: ReplyPair, verdict: Verdict) -> bool:
    return verdict.win is not None and not verdict.coin and not pair.is_same


def _turned(measures: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The other side's: it wins what this one loses, and is the longer where this one is the shorter."""
    swap = {"win_rate_longer": "win_rate_shorter", "win_rate_shorter": "win_rate_longer"}

    def mirror(m: dict[str, Any]) -> dict[str, Any]:
        low, high = m["low"], m["high"]
        bounds = {"low": None if high is None else 1 - high, "high": None if low is None else 1 - low}
        return {**m, "value": None if m["value"] is None else 1 - m["value"], **bounds}

    return {name: mirror(measures[swap.get(name, name)]) for name in _WON}


def _writing(
    replies: Sequence[Reply], groups: Sequence[str], scores: Sequence[float | None], seed: int
) -> dict[str, dict[str, Any]]:
    """What one side's replies are like."""
    kl = np.array([r.logp - r.logp_base for r in replies])
    tokens = np.array([r.n_tokens for r in replies], dtype=np.float64)
    base = np.array([r.logp_base for r in replies])
    found = {
        "mean_tokens": mean(tokens, groups, seed),
        "mean_characters": mean(np.array([float(len(r.text)) for r in replies]), groups, seed),
        "cut_off": mean(np.array([float(r.cut_off) for r in replies]), groups, seed, share=True),
        "repetition": mean(np.array([text.repetition(r.text) for r in replies]), groups, seed, share=True),
        "refusal": mean(np.array([float(declines(r.text)) for r in replies]), groups, seed, share=True),
        **{f"distinct_{n}": _distinct(replies, n) for n in _DISTINCT_N},
        "kl": mean(kl, groups, seed),
        "kl_per_token": _interval(np.column_stack((kl, tokens)), _ratio, groups, seed),
        "log_likelihood_base": _interval(np.column_stack((base, tokens)), _ratio, groups, seed),
    }
    scored = [(score, group) for score, group in zip(scores, groups, strict=True) if score is not None]
    if scored:
        found["mean_score"] = mean(np.array([score for score, _ in scored]), [group for _, group in scored], seed)
    return found


def _distinct(replies: Sequence[Reply], n: int) -> dict[str, Any]:
    value = text.distinct((r.text for r in replies), n)
    return {**nothing(), "value": value, "n": len(replies), "method": DISTINCT.format(n)}


def _interval(rows: Floats, statistic: Any, groups: Sequence[str], seed: int) -> dict[str, Any]:
    interval = intervals.bootstrap(rows, statistic, groups_N=groups, n_boot=N_BOOT, level=LEVEL, seed=seed)
    return estimate(float(statistic(rows)), interval, len(rows))


def _ratio(rows_N2: Floats) -> float:
    """Sum over sum: a token counts the same in a long reply and in a short one. Empty replies have no tokens."""
    return float(rows_N2[:, 0].sum() / max(rows_N2[:, 1].sum(), 1.0))


def _paired(pairs: Sequence[ReplyPair], value: Any) -> Floats:
    return np.array([value(pair.a) - value(pair.b) for pair in pairs], dtype=np.float64)


def _flat(name: str, measure: dict[str, Any]) -> dict[str, Any]:
    return {name: measure["value"], f"{name}_low": measure["low"], f"{name}_high": measure["high"]}

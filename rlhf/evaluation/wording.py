"""Figures as words: how a number is written, and what a reader must know before trusting it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from rlhf.evaluation.judged_by import as_they_did, limits_of_agreement

_LARGE = 0.3  # a rank correlation between score and length from which on length may be what is scored


def number(value: float | None, form: str) -> str:
    """form: '%' percent with one decimal, '3' three decimals, '2' two; '+' first = with its sign. None is a dash."""
    if value is None:
        return "–"
    sign = "+" if form.startswith("+") else ""
    text = f"{value * 100:{sign}.1f}" if form.endswith("%") else f"{value:{sign}.{form[-1]}f}"
    return text.replace("-", "−")


def percent(value: float) -> str:
    return number(value, "%")


def range_of(measure: Mapping[str, Any], form: str) -> str:
    """'0.62 to 0.70', or 'none' where no interval could be formed."""
    if measure["low"] is None:
        return "none"
    return f"{number(measure['low'], form)} to {number(measure['high'], form)}"


def value_of(measure: Mapping[str, Any], form: str) -> str:
    """'0.66 (0.62 to 0.70)'."""
    if measure["value"] is None:
        return "–"
    return f"{number(measure['value'], form)} ({range_of(measure, form)})"


def against_length(f: Mapping[str, Any]) -> str:
    """The version against the better of the two guesses that cost nothing, and whether its scores follow length."""
    said = f"Always guessing the {f['length_guess_side']} reply is right in {percent(f['length_guess'])} %"
    low, high = f["accuracy_minus_length_guess_low"], f["accuracy_minus_length_guess_high"]
    if low is None:
        same = f["accuracy_minus_length_guess"] == 0
        said += "; these pairs don't show that the version is better than that guess." if same else "."
    elif low > 0:
        said += f"; the version is better than that guess by {percent(low)} to {percent(high)} points."
    elif high < 0:
        said += f"; the version is worse than that guess by {percent(-high)} to {percent(-low)} points."
    else:
        said += "; these pairs don't show that the version is better than that guess."
    return " ".join((said, *_follows_length(f["measures"]["length_correlation"])))


def _follows_length(correlation: Mapping[str, Any]) -> Iterator[str]:
    """Nothing unless the whole interval lies beyond `_LARGE`: a remark made on noise would soon be read by nobody."""
    low, high = correlation["low"], correlation["high"]
    if low is not None and (low > _LARGE or high < -_LARGE):
        liked = "longer" if low > 0 else "shorter"
        yield (
            f"Caution: its scores may follow length; it prefers {liked} replies "
            f"(rank correlation {value_of(correlation, '+3')})."
        )


def better_or_not(d: Mapping[str, Any], labelers: Sequence[str]) -> str:
    """One of a report's differences in a sentence, its interval last."""
    a, b, m = d["a"], d["b"], d["accuracy"]
    if m["value"] is None:
        return f"{a} and {b} can't be compared: every pair is a tie."
    points = f"{number(m['value'], '+%')} points"
    if m["low"] is None:
        return f"{a} against {b}: {points}; no interval can be formed."
    points += f" ({range_of(m, '+%')})"
    if m["low"] <= 0 <= m["high"]:
        return f"No difference shown between {a} and {b}: {points}."
    return f"{a} ranks {'more' if m['low'] > 0 else 'fewer'} pairs {as_they_did(labelers)} than {b}: {points}."


def assumptions(content: Mapping[str, Any]) -> Iterator[str]:
    """What the report's figures rest on, and where they end, a sentence or two each. content: as in report.json."""
    snapshot, method = content["snapshot"], content["method"]
    yield f"Accuracy: {method['accuracy']}. {limits_of_agreement(content['labelers'])}"
    yield (
        f"Intervals: {method['intervals']}; seed {content['seed']}. They cover which conversations were drawn, "
        "not errors of those who judged and not the choice of the data."
    )
    yield (
        f"Calibration: {method['calibration']}, since stored pairs name the chosen reply first. The ECE's interval "
        "is shifted by the bias that resampling adds."
    )
    yield f"Length correlation: {method['length_correlation']}; lengths in characters."
    if snapshot["without_verdict"] or snapshot["without_consent"]:
        yield (
            f"Left out: {snapshot['without_verdict']:,} pairs without a verdict (skipped by all), "
            f"{snapshot['without_consent']:,} whose labelers did not agree to evaluation."
        )
    yield from _of_split(snapshot)
    for name, version in content["versions"].items():
        yield _seen(name, version, snapshot["split"])
    yield f"Precision: {method['precision']}. Risk-coverage: {method['risk_coverage']}. Worst stratum: {method['worst_stratum']}."
    yield f"Fairness: {method['fairness']}."
    yield "What the base model read before its adapter was trained is unknown; it may have met these conversations."


def cautions(content: Mapping[str, Any]) -> Iterator[str]:
    """Why the figures of an evaluation may be too good; nothing for held-out pairs that no version was trained on."""
    snapshot = content["snapshot"]
    yield from _of_split(snapshot)
    for name, version in content["versions"].items():
        if version["seen_openings"]:
            yield _seen(name, version, snapshot["split"])


def caution_of(split: str | None, n_seen: int | None) -> str:
    """The same in one sentence, of one version; split: of an evaluation, None of another report."""
    found = []
    if split in _NOT_HELD_OUT:
        found.append(f"measured on {_NOT_HELD_OUT[split]}")
    if n_seen:
        found.append(f"{n_seen:,} of these opening turns were in its training, so these figures are too good")
    elif found:
        found.append(
            "whether these opening turns were in its training can't be told"
            if n_seen is None
            else "of these opening turns none was in its training"
        )
    return f"Caution: {'; '.join(found)}." if found else ""


_NOT_HELD_OUT = {
    "train": "the train side of a snapshot, which is not held out",
    "not held out": "a suite that is not held out",
}


def _of_split(snapshot: Mapping[str, Any]) -> Iterator[str]:
    if snapshot["split"] in _NOT_HELD_OUT:
        which = f"the train side of {snapshot['name']}" if snapshot["split"] == "train" else snapshot["name"]
        yield (
            f"Caution: {which} is not held out: versions may have been trained on its rows, and where they were their figures are "
            "too good."
        )


def _seen(name: str, version: Mapping[str, Any], split: str) -> str:
    if version["seen_openings"] is None:
        return (
            f"{name}: a snapshot that it, or what it came from, was trained on is not in this workspace, so an overlap with these "
            "pairs can't be ruled out."
        )
    if version["seen_openings"] == 0:
        return f"{name} was trained on the snapshot {version['trained_on']}, on none of these opening turns."
    return (
        f"Caution: {version['seen_openings']:,} of these opening turns were in the training of {name} "
        f"(snapshot {version['trained_on']}): its figures on these pairs ({split}) are too good."
    )


def n_of(measures: Iterable[Mapping[str, Any]]) -> str:
    """Of how many the figures of a row are; one number where it is the same for all of them."""
    return " / ".join(dict.fromkeys(f"{m['n']:,}" for m in measures))


def lettered(methods: Iterable[str]) -> dict[str, str]:
    """Each method once, with the letter that stands for it in a table."""
    return {method: chr(ord("a") + i) for i, method in enumerate(dict.fromkeys(methods))}

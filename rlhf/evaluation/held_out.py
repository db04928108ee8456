"""Reward versions on held-out pairs, a snapshot's or a suite's: the main road from names to a published report."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rlhf.errors import BadInput
from rlhf.evaluation import fairness, reports, selection, stability
from rlhf.evaluation.estimates import LEVEL, MIN_SHOWN, N_BOOT, N_BOOT_SLOW
from rlhf.evaluation.figures import N_BINS, difference, figures
from rlhf.evaluation.judged_by import as_they_did
from rlhf.evaluation.learning import training_sections
from rlhf.evaluation.material import Material, material
from rlhf.evaluation.page import render
from rlhf.evaluation.reports import Report
from rlhf.evaluation.scored import PairScore, ScoredPair
from rlhf.evaluation.seen import Training, trainings
from rlhf.records import Pair, VersionRef
from rlhf.store import Workspace

Score = Callable[..., Sequence[PairScore]]
Progress = Callable[[int, int], None]
SCHEMA_VERSION = 1
_METHOD = {
    "accuracy": "share of decided pairs ranked {as_they_did}; one without scores, or with equal ones, counts 0.5",
    "intervals": f"{LEVEL:.0%} bootstrap, {N_BOOT} resamples of opening turns, percentiles expanded for few "
    f"({N_BOOT_SLOW} for ECE, length correlation and AURC); Wilson's where each pair is a group of its own or all are alike",
    "calibration": f"orientation drawn at random, {N_BINS} equal-mass bins; test: Kolmogorov-Smirnov on cumulative differences, "
    "least sure first, which takes pairs for independent",
    "length_correlation": "Spearman (linear: Pearson), each pair taken both ways round",
    "precision": "share that is right of the pairs on which max(P(a), P(b)) is at least the confidence; exact (Clopper-Pearson)",
    "risk_coverage": "errors among the surest share of all decided pairs; AURC is their mean over all coverages",
    "fairness": "groups by cohort, tag (else stratum) and two attributes crossed, cells of fewer than "
    f"{MIN_SHOWN} pairs hidden; differences and ratios: fairlearn, intervals by bootstrap-t over opening turns, or templates, "
    "simultaneous over the groups compared; a group against all others in accuracy: p-values Holm-corrected over the report",
    "worst_stratum": "the lowest accuracy of a stratum (of a snapshot: a source), Bonferroni over strata",
}


def evaluate(
    workspace: Workspace,
    versions: Sequence[str],
    snapshot: str | None = None,
    *,
    suite: str | None = None,
    split: str = "test",
    precision: Sequence[float] = selection.CONFIDENCES,
    n_stability: int = 0,
    dtype: str = "float32",
    out: Path | None = None,
    seed: int = 0,
    on_progress: Progress | None = None,
    score: Score | None = None,
) -> Report:
    """Score every judged pair of the snapshot's split, or of the suite, with each version and publish figures, differences and the
    page as a report.

    versions: reward versions (`name@7`, `name@alias`, `sha256:...`). precision: confidences at which it is given.
    n_stability: so many pairs are scored again under small changes of the chat and with their sides swapped
    (`stability.VARIANTS`); 0 = none. dtype: of the body, float32 or bfloat16 (faster where the processor has it, off by about
    1e-2), auto = what pays here. out: a folder that gets copies of report.json and report.html too. seed: of the
    resampling, the drawn orientation and the drawn pairs.
    score: another scorer than the reward room's `score_pairs(workspace, version, pairs, on_progress=...)`, which keeps what it
    computed: an interrupted evaluation goes on where it was.
    The same evaluation again returns the report that is there. Raises NotFound for an unknown version, snapshot or suite,
    BadInput for a version that is no reward, a repeated version or nothing judged, BadUsage for an unknown split or confidence, and
    `seen.Overlap` where a version was trained on rows of a suite that is held out.
    """
    refs = _rewards(workspace, versions)
    confidences = selection.check_confidences(precision)
    if out is not None:
        reports.check_out(out)
    data = material(workspace, snapshot, suite, split)
    trained = trainings(workspace, refs, data)
    score = score or _reward_scorer(dtype)
    scored, shaken = {}, {}
    for ref in refs:
        name = str(ref)
        scores = score(workspace, ref, data.pairs, on_progress=on_progress)
        scored[name] = _scored(ref, data, scores)
        shaken[name] = _stability(workspace, ref, data, scores, score, n_stability, seed)
    fair = fairness.measured(scored, seed)
    content: dict[str, Any] = {
        "kind": "evaluation",
        "schema_version": SCHEMA_VERSION,
        "title": f"{', '.join(scored)} on {data.title}",
        "versions": {
            str(ref): _version(workspace, ref, trained[str(ref)])
            | {
                "figures": figures(scored[str(ref)], seed=seed, confidences=confidences)
                | _stable_figures(shaken[str(ref)])
                | {"fairness": fair[str(ref)]}
            }
            for ref in refs
        },
        "differences": _differences(scored, seed),
        "snapshot": data.as_json(),
        "labelers": list(data.labelers),
        "seed": seed,
        "method": method(data.labelers),
    }
    content["simulated"] = "simulated" in data.labelers or any(v["simulated"] for v in content["versions"].values())
    content["digest"] = _content_digest(content)
    report = reports.publish(
        workspace, content, render(content, scored, training_sections(workspace, content["versions"]))
    )
    if out is not None:
        reports.copy(report, out)
    return report


def method(labelers: Sequence[str]) -> dict[str, str]:
    """How each figure is made, in words; labelers: see `judged_by`."""
    return _METHOD | {"accuracy": _METHOD["accuracy"].format(as_they_did=as_they_did(labelers))}


def _rewards(workspace: Workspace, versions: Sequence[str]) -> list[VersionRef]:
    from rlhf import registry

    if not versions:
        raise BadInput("no version to evaluate", fix="name at least one, such as hh@1")
    for text in versions:
        if text.startswith("base:"):
            raise BadInput(
                f"{text} has no trained reward head, so it gives no scores to evaluate",
                fix="name a reward version such as hh@1; bare bases are compared by the replies that they write",
            )
    refs = [registry.resolve(workspace, text, role="reward") for text in versions]
    if len({ref.digest for ref in refs}) < len(refs):
        raise BadInput(f"{', '.join(versions)} name one version twice", fix="name each version once")
    return refs


def _reward_scorer(dtype: str) -> Score:
    """The reward room's scorer; imported here, for it brings torch."""
    from rlhf.reward import score_pairs

    return score_pairs if dtype == "float32" else partial(score_pairs, dtype=dtype)


def _scored(ref: VersionRef, data: Material, scores: Sequence[PairScore]) -> list[ScoredPair]:
    assert len(scores) == len(data.rows), "a scorer gives one score a pair"
    found = [used.scored(one) for used, one in zip(data.rows, scores, strict=True)]
    if all(pair.margin is None for pair in found):
        raise BadInput(
            f"{ref} can score none of the {len(found)} judged pairs: they are longer than it reads, or its template refuses them",
            fix="train it with a larger max_length, or name another snapshot",
        )
    return found


def _stability(
    workspace: Workspace,
    ref: VersionRef,
    data: Material,
    scores: Sequence[PairScore],
    score: Score,
    n: int,
    seed: int,
) -> dict[str, Any] | None:
    """Of n pairs, drawn by hash; None where nobody asked."""
    if n < 1:
        return None
    by_pair = dict(zip((pair.id for pair in data.pairs), scores, strict=True))
    chosen = stability.drawn(data.pairs, n, seed)

    def rescore(pairs: Sequence[Pair]) -> Sequence[PairScore]:
        return score(workspace, ref, pairs, on_progress=None)

    return stability.measured(chosen, [by_pair[pair.id] for pair in chosen], rescore, seed)


def _stable_figures(found: dict[str, Any] | None) -> dict[str, Any]:
    """The whole, and flat for programs the share of preferences that the worst variant flips."""
    return {"stability": found, "most_flipped": found["most_flipped"] if found else None}


def _version(workspace: Workspace, ref: VersionRef, training: Training) -> dict[str, Any]:
    """A version's identity, and how many of the evaluated opening turns it, or what it came from, was trained on; None where a
    snapshot behind it can't be read in this workspace."""
    from rlhf import registry

    manifest = registry.show(workspace, ref).manifest
    return {
        "digest": ref.digest,
        "kind": manifest["kind"],
        "base": manifest["base"]["name"],
        "base_digest": manifest["base"]["digest"],
        "simulated": bool(manifest.get("simulated", False)),
        "trained_on": training.trained_on,
        "trained_on_digest": training.trained_on_digest,
        "seen_openings": training.openings,
    }


def _differences(scored: Mapping[str, Sequence[ScoredPair]], seed: int) -> list[dict[str, Any]]:
    """Every two versions, the later named minus the earlier: paired, as the pairs are the same."""
    names = list(scored)
    return [
        {"a": a, "b": b, **difference(scored[a], scored[b], seed=seed)}
        for i, b in enumerate(names)
        for a in names[i + 1 :]
    ]


def _content_digest(content: Mapping[str, Any]) -> str:
    """Over versions by digest, figures, snapshot or suite by digest, seed and method. Names and numbers are a workspace's
    own."""
    from rlhf.ids import digest_of

    name_to_digest = {name: v["digest"] for name, v in content["versions"].items()}
    return digest_of(
        {
            "kind": content["kind"],
            "versions": [
                {"digest": v["digest"], "figures": v["figures"], "seen_openings": v["seen_openings"]}
                for v in content["versions"].values()
            ],
            "differences": [
                d | {"a": name_to_digest[d["a"]], "b": name_to_digest[d["b"]]} for d in content["differences"]
            ],
            "snapshot": content["snapshot"]["digest"],
            "kind_of_data": content["snapshot"]["kind"],
            "split": content["snapshot"]["split"],
            "seed": content["seed"],
            "method": content["method"],
            "schema_version": content["schema_version"],
        }
    )

"""Does doubt help: best-of-n and policy training against one member, and against an ensemble's mean - k sd, by a rule unseen.

    .venv/bin/python scripts/table_overoptimisation.py --out out/overoptimisation

The demo's pairs are judged by its known rule and a quarter of the labels is flipped. Five members are trained on them
(SmolLM2-135M, LoRA on the top layers). The base writes a pool of replies to held-out prompts; each way to score picks the best
of n of them, and the rule says how good the pick is. Then policies are trained by dpo, round upon round, against one member,
another, the members' mean and mean - 1 sd, one run each, and the rule judges their replies to the same prompts. Writes a page with
the plots; last line: one JSON object, whose ours is the true quality at the largest n of mean - 1 sd and whose peer is that of one
member, averaged over the members.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
MEMBERS = 5
POLICIES = {"one member": "rule.1@1", "another member": "rule.2@1", "mean": "rule@2", "mean - 1 sd": "rule@1"}


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--out", type=Path, default=PROJECT / "out" / "overoptimisation", help="folder; it is emptied first"
    )
    parser.add_argument(
        "--go-on",
        action="store_true",
        help="keep the members and the pool that --out has from an earlier run with these words",
    )
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--pool", type=int, default=32, help="replies a prompt")
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--epochs", type=float, default=2.0)
    parser.add_argument("--top-layers", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=2, help="of policy training, each going on from the one before")
    parser.add_argument("--flipped", type=float, default=0.25, help="share of labels that say the opposite")
    words = parser.parse_args()
    out = words.out.absolute()
    begin = time.perf_counter()
    if words.go_on:
        from rlhf.store import Workspace

        workspace, found = Workspace.open(out / "workspace", actor="experiment"), np.load(out / "pool.npz")
        scores, truth = found["scores"], found["truth"]
    else:
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        workspace, names = trained(words, out)
        print(f"trained after {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        scores, truth = pool(words, workspace, names)
        print(f"sampled and scored after {time.perf_counter() - begin:.0f} s", file=sys.stderr)
        np.savez(out / "pool.npz", scores=scores, truth=truth)
    ns = [n for n in (1, 2, 4, 8, 16, 32, 64, 128) if n <= words.pool]
    found = curves(scores, truth, ns)
    summary = compared(found, ns)
    tuned = policies(words, workspace) if words.rounds else {}
    print(f"policies trained after {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    write_page(out / "report.html", found, ns, summary, tuned)
    for name, rows in found.items():
        print(f"{name:<18}" + " ".join(f"{value:6.2f}" for value in rows.mean(0)), file=sys.stderr)
    ours, peer = found["mean - 1 sd"][:, -1].mean(), found["one member"][:, -1].mean()
    print(
        json.dumps(
            {
                "name": "overoptimisation",
                "ours": round(float(ours), 3),
                "peer": round(float(peer), 3),
                "ratio": round(float(ours / peer), 3),
                "unit": f"points of the rule (0 to 10) at best of {ns[-1]}",
                "ns": ns,
                "curves": {name: [round(float(v), 3) for v in rows.mean(0)] for name, rows in found.items()},
                "over_one_member": summary,
                "policies": {name: [point.as_json() for point in points] for name, points in tuned.items()},
                "policy_over_one_member": policy_gains(tuned),
                "prompts": len(truth),
                "page": str(out / "report.html"),
            }
        )
    )


def trained(words: argparse.Namespace, out: Path) -> tuple[Any, list[str]]:
    """A workspace with five members trained on flipped labels; the members' versions."""
    from rlhf import demo, feedback, reward, snapshots
    from rlhf.engine import add_from_dir
    from rlhf.ids import chance
    from rlhf.store import Workspace

    rows = []
    for pair in demo.demo_pairs():
        side = demo.true_side(pair)
        if side == "tie":
            continue
        if chance(0, "flip", pair.id).random() < words.flipped:
            side = "b" if side == "a" else "a"
        chosen, rejected = (pair.reply_a, pair.reply_b) if side == "a" else (pair.reply_b, pair.reply_a)
        prompt = [message.as_json() for message in pair.prompt]
        rows.append(
            {
                "prompt": prompt,
                "chosen": [{"role": "assistant", "content": chosen}],
                "rejected": [{"role": "assistant", "content": rejected}],
            }
        )
    file = out / "flipped.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    workspace = Workspace.create(out / "workspace", actor="experiment")
    add_from_dir(workspace, "base", words.base)
    feedback.import_files(workspace, [file], kind="simulated")
    snapshots.cut(workspace, "flipped", holdout=0.2)
    reward.train(workspace, settings_of(words), say=said)
    return workspace, [f"rule.{i}" for i in range(1, MEMBERS + 1)]


def settings_of(words: argparse.Namespace) -> Any:
    """Of the ensemble rule@1, mean - 1 sd."""
    from rlhf import reward

    return reward.RewardSettings(
        name="rule",
        snapshot="flipped",
        base="base",
        members=MEMBERS,
        combine="mean_minus_sd",
        top_layers=words.top_layers,
        epochs=words.epochs,
        pairs_per_step=8,
        learning_rate=5e-4,
        max_length=512,
        set_aside=0.0,
        baseline=False,
        test_pairs=0,
    )


def said(text: str) -> None:
    print(text, file=sys.stderr)


def pool(words: argparse.Namespace, workspace: Any, names: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """(K, P, N) scores of the members and (P, N) points of the rule for a pool of the base's replies to held-out prompts."""
    from rlhf import demo, policy
    from rlhf.engine.placement import choose
    from rlhf.reward.score import Item, score_items

    place = choose("auto", "auto")
    prompts = policy.prompts_of(workspace, "flipped", "test")[: words.prompts]
    replies: list[list[str]] = [[] for _ in prompts]
    for seed in range(words.pool):
        sampling = policy.Sampling(max_new_tokens=words.tokens, temperature=1.0, seed=seed)
        for own, reply in zip(
            replies, policy.replies(workspace, "base:base", prompts, sampling, place=place), strict=True
        ):
            own.append(reply.text)
    truth = np.array(
        [[demo.quality(p.messages, text) for text in own] for p, own in zip(prompts, replies, strict=True)]
    )
    items = [Item(0, p.messages, text or " ") for p, own in zip(prompts, replies, strict=True) for text in own]
    columns = [[row["score"] for row in score_items(workspace, f"{name}@1", items, place)] for name in names]
    return np.array(columns, dtype=float).reshape(len(names), len(prompts), words.pool), truth


@dataclass(frozen=True)
class Point:
    """A policy after a round: KL to the base, nats a reply, and its replies' points by the rule, (P,) means over a prompt's."""

    kl: float
    truth_P: np.ndarray

    def as_json(self) -> dict[str, float]:
        return {"kl": round(self.kl, 2), "points": round(float(self.truth_P.mean()), 3)}


def policies(words: argparse.Namespace, workspace: Any) -> dict[str, list[Point]]:
    """Each way's policy at the start and after every round; the settings are the demo's. One that is there is not trained again."""
    from demo_policy import POLICY

    from rlhf import policy, registry
    from rlhf import reward as rewards

    mean = settings_of(words).model_copy(update={"combine": "mean"})
    rewards.train(workspace, mean, resume=True, say=said)  # rule@2, of the same members
    there = {str(row.ref) for row in registry.list_versions(workspace, role="policy")}
    found: dict[str, list[Point]] = {}
    start = asked(words, workspace, "base:base")
    for way, reward in POLICIES.items():
        points, parent = [start], None
        name = f"against-{reward.removesuffix('@1').replace('@', '-')}"
        for number in range(words.rounds):
            settings = policy.PolicySettings(
                name=name,
                reward=[reward],
                base="base",
                method="dpo",
                from_version=parent,
                max_prompts=64,
                seed=number,
                **{**POLICY, "watch_steps": 0, "max_new_tokens": words.tokens},
            )
            parent = f"{name}@{number + 1}"
            if parent not in there:
                assert str(policy.train(workspace, settings, say=said).version) == parent
            points.append(asked(words, workspace, parent))
            print(f"{way}, round {number + 1}: {points[-1].as_json()}", file=sys.stderr)
        found[way] = points
    return found


def asked(words: argparse.Namespace, workspace: Any, writer: str) -> Point:
    """The writer's replies to the held-out prompts, four each, judged by the rule."""
    from rlhf import demo, policy
    from rlhf.engine.placement import choose

    place = choose("auto", "auto")
    prompts = policy.prompts_of(workspace, "flipped", "test")[: words.prompts]
    truth, kl = [], []
    for seed in range(4):
        sampling = policy.Sampling(max_new_tokens=words.tokens, temperature=1.0, seed=1000 + seed)
        replies = policy.replies(workspace, writer, prompts, sampling, place=place)
        truth.append([demo.quality(p.messages, reply.text) for p, reply in zip(prompts, replies, strict=True)])
        kl += [reply.logp - reply.logp_base for reply in replies]
    return Point(float(np.mean(kl)), np.mean(truth, axis=0))


def policy_gains(tuned: Mapping[str, Sequence[Point]]) -> dict[str, dict[str, float]]:
    """What each way's last policy has over one member's, with paired 95 % bootstrap intervals over prompts."""
    from rlhf.measures.intervals import bootstrap

    gains = {}
    for way, points in tuned.items():
        over = points[-1].truth_P - tuned["one member"][-1].truth_P
        interval = bootstrap(over)
        values = {"gain": float(over.mean()), "low": interval.low, "high": interval.high}
        gains[way] = {key: round(value, 3) for key, value in values.items()}
    return gains


def curves(scores_KPN: np.ndarray, truth_PN: np.ndarray, ns: list[int]) -> dict[str, np.ndarray]:
    """(P, len(ns)) true quality of the best of n, for every way to score."""
    from rlhf.measures.best_of_n import best_of_n

    mean, sd = scores_KPN.mean(0), scores_KPN.std(0, ddof=1)
    ways = {"mean": mean, "min": scores_KPN.min(0), **{f"mean - {k} sd": mean - k * sd for k in (1, 2, 4)}}
    found = {"one member": np.mean([best_of_n(own, truth_PN, ns) for own in scores_KPN], axis=0)}
    found |= {name: best_of_n(own, truth_PN, ns) for name, own in ways.items()}
    return found | {"the rule itself": best_of_n(truth_PN, truth_PN, ns)}


def compared(found: Mapping[str, np.ndarray], ns: list[int]) -> dict[str, dict[str, float]]:
    """What each way gains over one member at the largest n, with a paired 95 % bootstrap interval over prompts."""
    from rlhf.measures.intervals import bootstrap

    gains = {}
    for name, rows in found.items():
        if name == "one member":
            continue
        difference = rows[:, -1] - found["one member"][:, -1]
        interval = bootstrap(difference)
        fall = rows.mean(0).max() - rows.mean(0)[-1]
        gains[name] = {
            "gain": round(float(difference.mean()), 3),
            "low": round(interval.low, 3),
            "high": round(interval.high, 3),
            "lost_since_its_best_n": round(float(fall), 3),
        }
    return gains


def write_page(
    file: Path,
    found: Mapping[str, np.ndarray],
    ns: list[int],
    summary: Mapping[str, Mapping[str, float]],
    tuned: Mapping[str, Sequence[Point]],
) -> None:
    from rlhf.measures.best_of_n import best_of_n_kl
    from rlhf.pages.page import Section, page, table
    from rlhf.pages.svg import drawing, inline

    with drawing(5.2, 3.6) as (figure, (axes,)):
        kls = [best_of_n_kl(n) for n in ns]
        for name, rows in found.items():
            axes.plot(kls, rows.mean(0), marker="o", markersize=3, label=name)
        axes.set(xlabel="KL of best-of-n from the base, nats a reply (at most)", ylabel="points of the rule, 0 to 10")
        axes.legend(fontsize=7)
        plot = inline(figure, "best-of-n", "True quality of the best of n by each way to score, as n grows")
    body = [
        [name, *(f"{value:.2f}" for value in rows.mean(0)), *gain_of(summary.get(name))] for name, rows in found.items()
    ]
    heads = ["scored by", *(f"n = {n}" for n in ns), "over one member", "95 %"]
    sections = [Section("Best of n", plot + table(heads, body, numeric=range(1, len(heads))))]
    if tuned:
        with drawing(5.2, 3.6) as (figure, (axes,)):
            for name, points in tuned.items():
                axes.plot(
                    [p.kl for p in points], [p.truth_P.mean() for p in points], marker="o", markersize=3, label=name
                )
            axes.set(xlabel="KL of the policy from the base, nats a reply", ylabel="points of the rule, 0 to 10")
            axes.legend(fontsize=7)
            plot = inline(
                figure, "policies", "True quality of policies as they move away from the base, round by round"
            )
        body = [
            [
                name,
                str(number),
                f"{p.kl:.1f}",
                f"{p.truth_P.mean():.2f}",
                *(gain_of(policy_gains(tuned)[name]) if is_last else ["", ""]),
            ]
            for name, points in tuned.items()
            for number, p in enumerate(points)
            for is_last in [name != "one member" and p is points[-1]]
        ]
        heads = ["trained against", "rounds", "KL, nats a reply", "points", "over one member", "95 %"]
        sections.append(Section("Policy training", plot + table(heads, body, numeric=range(1, len(heads)))))
    file.write_text(
        page(
            "An ensemble's doubt against one member",
            sections,
            kicker="over-optimisation",
            simulated="The labels are a known rule's, a quarter of them flipped: no person judged these replies.",
        ),
        "utf-8",
    )


def gain_of(row: Mapping[str, float] | None) -> list[str]:
    return ["", ""] if row is None else [f"{row['gain']:+.2f}", f"[{row['low']:+.2f}, {row['high']:+.2f}]"]


if __name__ == "__main__":
    main()

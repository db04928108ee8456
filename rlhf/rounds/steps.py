"""The steps of a round, each from what the steps before gave to what `state.json` keeps of it.

A step may be cut short anywhere and is then done again; each finds what it published the first time. Everything that a name could
mean differently tomorrow (a champion, a latest cut) is looked up once and kept by number and digest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from rlhf import registry, snapshots
from rlhf.errors import BadInput
from rlhf.records import VersionRef
from rlhf.registry import gates
from rlhf.rounds import asking, decision
from rlhf.rounds.measuring import compared, evaluated
from rlhf.rounds.settings import LoopSettings, Phase
from rlhf.rounds.state import Round
from rlhf.rounds.stopping import Stop
from rlhf.rounds.suites import cut_since, frozen_suite, seen_by
from rlhf.rounds.training import trained
from rlhf.rounds.verdicts import champion_of, verdict
from rlhf.store import Workspace, runs
from rlhf.store.heavy import heavy

Say = Callable[[str], None]
Result = dict[str, Any]


@dataclass(frozen=True)
class Work:
    """What every step is given."""

    workspace: Workspace
    round: Round
    stop: Stop
    say: Say

    @property
    def settings(self) -> LoopSettings:
        return self.round.settings

    def of(self, step: str) -> Result:
        """What an earlier step gave."""
        return self.round.results[step]


def look(work: Work) -> Result:
    """Whom the round's versions are held against: the champions of this moment."""
    settings = work.settings
    reward, policy = (champion_of(work.workspace, alias) for alias in (settings.reward_alias, settings.policy_alias))
    return {"reward": _named(reward), "policy": _named(policy)}


def cut(work: Work) -> Result:
    """Freeze what has been judged; and name the frozen suite, the test side of the first round's cut."""
    settings, workspace = work.settings, work.workspace
    rule: dict[str, Any] = {
        "sources": settings.sources,
        "kinds": settings.kinds,
        "holdout": settings.holdout,
        "seed": settings.seed,
    }
    made = cut_since(workspace, settings.name, runs.show(workspace, work.round.id).created_at, rule) or snapshots.cut(
        workspace, settings.name, **rule
    )
    if not made.splits["test"] or not made.splits["train"]:
        raise BadInput(
            f"{made.ref} has {made.splits['train']} pairs to train on and {made.splits['test']} held out; wanted both",
            fix="choose another holdout, or bring more feedback, and begin again with --anew",
        )
    first = frozen_suite(workspace, settings)
    suite = snapshots.open_snapshot(workspace, first) if first else made
    return {**_cut(made), "frozen": suite.ref, "frozen_digest": suite.digest}


def mix(work: Work) -> Result:
    """What the reward trains on: everything where it begins afresh, else new rows and the replayed share of the old."""
    settings, workspace = work.settings, work.workspace
    whole, champion = work.of("cut")["snapshot"], work.of("look")["reward"]
    seen = seen_by(workspace, champion["version"]) if champion else []
    if not seen:
        why = "its first training" if champion is None else "no snapshot of the champion is in this workspace"
        return {**work.of("cut"), "new": None, "replayed": None, "why": f"the whole train side: {why}"}
    made = snapshots.mix(workspace, settings.mix_name, of=whole, seen=seen, replay=settings.replay, seed=settings.seed)
    counts = made.rule["mix"]
    why = f"{counts['new']} new pairs and {counts['replayed']} of {counts['old']} that {champion['version']} has seen"
    return {**_cut(made), "new": counts["new"], "replayed": counts["replayed"], "why": why}


def train_reward(work: Work) -> Result:
    champion = work.of("look")["reward"]
    settings = work.settings.reward_settings(work.of("mix")["snapshot"], champion and champion["version"])
    return _trained(work, settings)


def measure(work: Work) -> Result:
    """The reward and its champion on the frozen suite and on the newest test side; the newest last, so that a gate that names no
    snapshot reads that one."""
    candidate, champion = work.of("reward")["version"], work.of("look")["reward"]
    names = [champion["version"]] if champion and champion["digest"] != work.of("reward")["digest"] else []
    suites = {"frozen": work.of("cut")["frozen"], "newest": work.of("cut")["snapshot"]}
    return {
        side: evaluated(work.workspace, [*names, candidate], suite, work.settings.seed, work.say)
        for side, suite in suites.items()
    }


def judge_reward(work: Work) -> Result:
    champion = work.of("look")["reward"]
    return verdict(
        work.workspace,
        work.settings,
        work.settings.reward_alias,
        work.of("reward")["version"],
        champion and champion["digest"],
        round_id=work.round.id,
        evidence={f"{side}_report": work.of("measure")[side]["report"] for side in ("frozen", "newest")},
        why=f"round {work.round.id}: trained on {work.of('mix')['snapshot']}",
    )


def choose_phase(work: Work) -> Result:
    """Explore or exploit; `auto` looks at what the champion (the new reward where there is none) still doesn't know."""
    settings = work.settings
    if settings.phase != "auto":
        return {"phase": settings.phase, "why": "the settings say so"}
    newest = work.of("measure")["newest"]["figures"]
    champion = work.of("look")["reward"] or work.of("reward")
    figures = newest[champion["version"]]
    low, high = figures["accuracy_low"], figures["accuracy_high"]
    if low is None or high - low > settings.auto_interval:
        width = "no interval" if low is None else f"an interval {high - low:.3f} wide"
        return {
            "phase": "explore",
            "why": f"{champion['version']}'s held-out accuracy has {width}, wanted {settings.auto_interval:g} at most",
        }
    doubt = _doubt(work.workspace, work.of("look")["policy"])
    if doubt is not None and doubt > settings.auto_doubt:
        return {"phase": "explore", "why": f"the reward's doubt is {doubt:.3f}, wanted {settings.auto_doubt:g} at most"}
    return {"phase": "exploit", "why": "accuracy interval and doubt are within what the settings want"}


def train_policy(work: Work) -> Result:
    reward = work.of("reward")["version"]
    if work.settings.policy_reward == "champion":
        in_force = champion_of(work.workspace, work.settings.reward_alias)
        reward = str(in_force) if in_force else reward
    champion = work.of("look")["policy"]
    start = champion["version"] if champion and work.settings.continue_policy else None
    phase: Phase = work.of("phase")["phase"]
    settings = work.settings.policy_settings(reward, start, phase)
    assert settings is not None
    made = _trained(work, settings)
    details = registry.show(work.workspace, made["version"]).manifest
    return {**made, "reward": reward, "from": start, "stopped": details["details"].get("stopped")}


def compare(work: Work) -> Result:
    """The new policy against its champion (the base where there is none), and against the base too where the gate wants that, on
    prompts of the newest test side; on those of the snapshot that the gate names, where it does."""
    candidate, champion = work.of("policy"), work.of("look")["policy"]
    if champion and champion["digest"] == candidate["digest"]:
        return {"against": [], "why": f"{champion['version']} is the champion already"}
    base = f"base:{work.settings.base}"
    gate = gates.gate_of(work.workspace, work.settings.policy_alias)
    others = [champion["version"] if champion else base]
    if gate is not None and gate.rules.against == "base" and base not in others:
        others.append(base)
    return {
        "against": [
            compared(work.workspace, work.settings, candidate, _suite(work, gate), other, work.say) for other in others
        ]
    }


def judge_policy(work: Work) -> Result:
    champion = work.of("look")["policy"]
    return verdict(
        work.workspace,
        work.settings,
        work.settings.policy_alias,
        work.of("policy")["version"],
        champion and champion["digest"],
        round_id=work.round.id,
        evidence={"reports": [one["report"] for one in work.of("compare")["against"]]},
        why=f"round {work.round.id}: trained on {work.of('policy')['reward']}",
    )


def ask(work: Work) -> Result:
    """Where the round explores: put the reply pairs that the reward is least sure of into the labeling queue."""
    if work.of("phase")["phase"] == "exploit" or not work.settings.explore.pairs:
        return {"source": None, "pairs": 0}
    writer = work.of("policy")["version"] if work.settings.policy else f"base:{work.settings.base}"
    with heavy(work.workspace, f"loop: {writer} writes what people are asked about", wait=True, say=work.say):
        return asking.ask(
            work.workspace,
            work.round,
            writer=writer,
            reward=work.of("reward")["version"],
            snapshot=work.of("mix")["snapshot"],
        )


def decide(work: Work) -> Result:
    return decision.record(work.workspace, work.round)


# In order. Those with False are for loops that train a policy.
STEPS: tuple[tuple[str, Callable[[Work], Result], bool], ...] = (
    ("look", look, True),
    ("cut", cut, True),
    ("mix", mix, True),
    ("reward", train_reward, True),
    ("measure", measure, True),
    ("reward_verdict", judge_reward, True),
    ("phase", choose_phase, True),
    ("policy", train_policy, False),
    ("compare", compare, False),
    ("policy_verdict", judge_policy, False),
    ("ask", ask, True),
    ("decision", decide, True),
)


def _trained(work: Work, settings: Any) -> Result:
    child = work.settings.processes == "child"
    return trained(work.workspace, settings, work.round, child=child, stop=work.stop, say=work.say)


def _suite(work: Work, gate: registry.Gate | None) -> str:
    """The snapshot that policies are compared on. One that the gate names and nobody has cut yet is for the gate to miss."""
    wanted = gate.rules.snapshot if gate is not None and gate.rules.report == "comparison" else None
    known = {one.ref for one in snapshots.list_snapshots(work.workspace)}
    return wanted if wanted in known else str(work.of("cut")["snapshot"])


def _doubt(workspace: Workspace, champion: Mapping[str, Any] | None) -> float | None:
    if champion is None:
        return None
    found = registry.show(workspace, champion["version"]).manifest["metrics"].get("doubt")
    return float(found) if found is not None else None


def _cut(made: snapshots.Snapshot) -> Result:
    return {"snapshot": made.ref, "digest": made.digest, "pairs": made.n_pairs, "splits": dict(made.splits)}


def _named(ref: VersionRef | None) -> Result | None:
    return None if ref is None else {"version": str(ref), "digest": ref.digest}

"""The demo: the whole loop on SIMULATED labelers' preferences, where the truth is known.

    scripts/demo            SmolLM2-135M-Instruct, at most 20 minutes on 2 cores
    scripts/demo --quick    a tiny random model, under a minute: the same steps, no quality to expect

Preferences train a reward, the reward trains a policy (dpo on ranked samples, twice), the policy is compared with its base by the
known rule, promoted through a gate, asked a question, and taken back. It writes into out/demo (emptied first), ends in a table,
and names the pages to open.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rlhf.cli.boundary import answer_for, quiet_libraries

PROJECT = Path(__file__).parent.parent
STEPS = 10
QUESTION = "How do I keep a basil plant alive on my windowsill?"
FULL = {
    "base": "smollm2-135m",
    "top_layers": 10,
    "learning_rate": 5e-4,
    "epochs": 1.0,
    "pairs_per_step": 8,
    "max_length": 512,
    "set_aside": 0.0,  # nothing here is calibrated
    "test_pairs": 0,  # the evaluation below measures all of them
}
QUICK = {
    "base": "tiny",
    "learning_rate": 3e-3,
    "epochs": 1.0,
    "pairs_per_step": 16,
    "max_length": 1024,
    "lora_r": 8,
    "dtype": "float32",
    "set_aside": 0.0,
    "test_pairs": 0,
}
# The policy: two rounds of ranked samples. The gate is the same rule for both; a random model can't be asked to write better.
POLICY: dict[str, Any] = {
    "samples": 4,
    "max_new_tokens": 64,
    "epochs": 2.0,
    "pairs_per_step": 8,
    "learning_rate": 5e-4,
    "beta": 0.05,
    "watch_steps": 12,
    "watch_prompts": 8,
    "max_length": 512,
}
PROMPTS = (96, 64)  # of the two rounds
POLICY_QUICK: dict[str, Any] = POLICY | {
    "samples": 2,
    "max_new_tokens": 12,
    "epochs": 1.0,
    "pairs_per_step": 4,
    "learning_rate": 3e-3,
    "watch_steps": 2,
    "watch_prompts": 4,
    "max_length": 1024,
    "dtype": "float32",
}
PROMPTS_QUICK = (8, 8)
GATE = {"above": 0.5, "min_n": 50}
GATE_QUICK = {"above": -1.0, "min_n": 10}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def step(number: int, title: str) -> None:
    say(f"\n[{number}/{STEPS}] {title}")


def main() -> int:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tiny model, under a minute")
    parser.add_argument(
        "--out", type=Path, default=PROJECT / "out" / "demo", help="folder to write into; it is emptied first"
    )
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    words = parser.parse_args()
    try:
        run(words.out.absolute(), quick=words.quick)
    except (Exception, KeyboardInterrupt) as error:
        return answer_for(error, sys.argv[1:])
    return 0


def run(out: Path, *, quick: bool) -> None:
    """The demo from top to bottom."""
    begin = time.perf_counter()
    from rlhf import demo, loop
    from rlhf.engine.placement import choose

    empty(out)
    settings = dict(QUICK if quick else FULL)
    base = str(settings.pop("base"))
    if not quick and choose().dtype == "bfloat16":
        settings["epochs"] = 2.0  # three times as fast, so there is time for a second pass
    workspace = loop.Workspace.create(out / "workspace", actor="demo")
    folder = tiny_base(out / "tiny") if quick else PROJECT / ".bases" / "smollm2-135m"
    loop.engine.add_from_dir(workspace, base, folder)

    step(
        1,
        "eight simulated labelers judge pairs of the base model's replies by a known rule, each more or less reliably",
    )
    facts = demo.write_preferences(out / "preferences.jsonl", n_pairs=400 if quick else None)
    say(f"{facts.n_pairs} pairs, {facts.judgements} judgements by {facts.n_labelers} SIMULATED labelers")

    def turn(against: tuple[str, ...] = (), **more: Any) -> Any:
        return loop.turn(
            workspace,
            [out / "preferences.jsonl"],
            name="demo",
            base=base,
            source="demo",
            kind="simulated",
            holdout=0.2,
            against=against,
            say=say,
            **{**settings, **more},
        )

    step(2, "import, snapshot, and a first reward from ten steps")
    first = turn(max_steps=10)
    step(3, "the reward from all of it, measured beside the first one on pairs that neither has seen")
    second = turn(against=(str(first.trained.version),))
    say(f"a second import of the same file: {second.receipt.duplicates} duplicates, {second.receipt.accepted} added")

    step(4, "how close the reward comes to the rule, which it never saw")
    truth = truth_of(workspace, second)

    step(5, "export as a stock PEFT folder")
    exported = loop.export(workspace, second.trained.version, out / "export")

    step(
        6,
        "promote: the alias demo@champion moves to the first version, then to the second; take it back, and promote it again",
    )
    loop.promote(workspace, first, why="the first there is")
    loop.promote(workspace, second, why="better on held-out pairs")
    move, seconds = loop.take_back(workspace, "demo@champion", why="to show that it can be taken back")
    assert move.to_digest == first.trained.version.digest
    loop.promote(workspace, second, why="it was better")

    policy = Policy(workspace, base, quick=quick)
    step(7, "a policy: replies to the train side's prompts, ranked by the learnt reward, best against worst (dpo)")
    policy.improve(from_version=None, seed=0)
    step(
        8,
        "a second round from there, on replies that the first one wrote; both are compared with the base by the known rule",
    )
    policy.improve(from_version=str(policy.rounds[0].trained.version), seed=1)
    step(
        9,
        "promote through the gate: the alias assistant@champion wants a win rate over the base that is surely above a half",
    )
    policy.promote()
    step(10, "ask it, and roll back")
    policy.ask()
    policy.roll_back()

    rows = reward_rows(facts, first, second, truth, seconds) + policy.rows()
    rows += [
        ("whole demo took", f"{(time.perf_counter() - begin) / 60:.1f} minutes"),
        ("stock PEFT folder", str(exported)),
        ("reward's report", str(second.report.path)),
        *policy.pages(),
    ]
    width = max(len(left) for left, _ in rows)
    print("\n" + "\n".join(f"{left:<{width}}  {right}" for left, right in rows))


class Policy:
    """The second half of the demo: two rounds of dpo, their comparisons, the gate, a reply, a rollback."""

    def __init__(self, workspace: Any, base: str, *, quick: bool) -> None:
        from rlhf import policy

        self.workspace, self.base, self.quick = workspace, base, quick
        self.settings = POLICY_QUICK if quick else POLICY
        self.sampling = policy.Sampling(self.settings["max_new_tokens"], temperature=0.7)
        self.rounds: list[Any] = []
        self.promoted: list[Any] = []
        self.rollback_ms: float | None = None

    def improve(self, *, from_version: str | None, seed: int) -> None:
        from rlhf import loop

        better = loop.improve(
            self.workspace,
            "demo@champion",
            name="assistant",
            base=self.base,
            method="dpo",
            judge="demo",
            against=f"base:{self.base}",
            sampling=self.sampling,
            say=say,
            from_version=from_version,
            seed=seed,
            max_prompts=(PROMPTS_QUICK if self.quick else PROMPTS)[len(self.rounds)],
            **self.settings,
        )
        self.rounds.append(better)
        self._truth_on_page(better)
        say(f"{better.trained.version}: true win rate over the base {rate(better.figures, 'win_rate')}")

    def promote(self) -> None:
        from rlhf import loop
        from rlhf.errors import Conflict
        from rlhf.registry import GateRules, gates

        rules = {
            "report": "comparison",
            "against": "base",
            "judge": "demo",
            "rules": [{"figure": "win_rate_low", **(GATE_QUICK if self.quick else GATE)}],
        }
        gates.set_gate(
            self.workspace, "assistant@champion", GateRules(**rules), why="no policy that isn't surely better"
        )
        for better in self.rounds:
            try:
                loop.promote(self.workspace, better, why="its replies win over the base's by the known rule")
                self.promoted.append(better)
            except Conflict as refusal:
                say(f"not promoted: {refusal}")

    def ask(self) -> None:
        from rlhf import loop

        writers = ["base:" + self.base] + (["assistant@champion"] if self.promoted else [])
        for writer in writers:
            reply = loop.answer(self.workspace, writer, QUESTION, sampling=self.sampling)
            say(f"{QUESTION}\n  {writer}: {' '.join(reply.text.split())}")

    def roll_back(self) -> None:
        from rlhf import loop

        if len(self.promoted) == 2:
            move, seconds = loop.take_back(
                self.workspace, "assistant@champion", why="to show that it can be taken back"
            )
            assert move.to_digest == self.promoted[0].trained.version.digest
            self.rollback_ms = 1000 * seconds

    def rows(self) -> list[tuple[str, str]]:
        """Lines of the table: both rounds, then the last one's curve."""
        rows = []
        for better in self.rounds:
            f, other = better.figures, better.report.figures[f"base:{self.base}"]
            rows += [
                (
                    f"{better.trained.version}: true win rate over base:{self.base}",
                    f"{rate(f, 'win_rate')}  n = {f['n']}",
                ),
                ("  at equal length", rate(f, "length_controlled_win_rate")),
                (
                    "  fluency (log-likelihood a token under the base)",
                    beside(f, other, "log_likelihood_base", "{:.2f}"),
                ),
                ("  repetition", beside(f, other, "repetition", "{:.3f}")),
                (
                    "  tokens, cut off",
                    f"{beside(f, other, 'mean_tokens', '{:.0f}')}; {beside(f, other, 'cut_off', '{:.2f}')}",
                ),
                ("  KL to the base, nats a token", f"{f['kl_per_token']:.3f}"),
            ]
        rows.append(("over the steps", "step  reward  true win rate over step 0  fluency  repetition  KL a token"))
        rows += [("", line) for line in self._curve()]
        rows.append(("promoted through the gate", ", ".join(str(b.trained.version) for b in self.promoted) or "none"))
        if self.rollback_ms is not None:
            rows.append(("rollback of assistant@champion took", f"{self.rollback_ms:.1f} ms"))
        return rows

    def _curve(self) -> list[str]:
        lines = []
        for better in self.rounds:
            for row in self._report(better)["watch"]:
                lines.append(
                    f"{better.trained.version} {row['step']:>3}  {row.get('reward', 0.0):>6.2f}  {row['true_win_rate']:>13.3f}  "
                    f"{row['logp_base']:>7.2f}  {row['repetition']:>10.3f}  {row['kl_token']:>10.3f}"
                )
        return lines

    def _report(self, better: Any) -> Any:
        return json.loads((better.trained.run_folder / "report.json").read_text("utf-8"))

    def _truth_on_page(self, better: Any) -> None:
        """The rule's opinion of the watch's replies goes beside the reward's, in the run's report and on its page."""
        from rlhf import demo, policy
        from rlhf.pages.policy_report import write_policy_report

        folder = better.trained.run_folder
        prompts = {p.id: p.messages for p in policy.prompts_of(self.workspace, "demo", "test")}
        lines = (folder / "replies.jsonl").read_text("utf-8").splitlines()
        truth = {row["step"]: row for row in demo.truth_over_steps(map(json.loads, lines), prompts)}
        report = self._report(better)
        report["watch"] = [row | truth[row["step"]] for row in report["watch"]]
        (folder / "report.json").write_text(json.dumps(report, indent=2, ensure_ascii=False), "utf-8")
        write_policy_report(folder, title=f"Policy training {better.trained.version}", report=report, simulated=True)

    def pages(self) -> list[tuple[str, str]]:
        last = self.rounds[-1]
        return [
            ("policy's comparison, replies side by side", str(last.report.path)),
            ("policy's training", str(last.trained.run_folder / "report.html")),
        ]


def rate(f: Any, name: str) -> str:
    """A share with its interval."""
    if f.get(name) is None:
        return "–"
    low, high = f.get(f"{name}_low"), f.get(f"{name}_high")
    return f"{f[name]:.3f}" + (f"  [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def beside(f: Any, other: Any, name: str, form: str) -> str:
    return f"{form.format(f[name])} (base {form.format(other[name])})"


def empty(out: Path) -> None:
    """Empty the demo's own folder; anything else there is left alone and refused."""
    from rlhf.errors import BadInput

    if (
        out.exists()
        and any(out.iterdir())
        and not (out / "workspace" / "workspace.yaml").exists()
        and not (out / ".demo").exists()
    ):
        raise BadInput(f"{out} holds something that is no demo", fix="name another folder with --out")
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / ".demo").touch()


def tiny_base(folder: Path) -> Path:
    from rlhf.engine.tiny import write_tiny_base

    return write_tiny_base(folder)


def truth_of(workspace: Any, turn: Any) -> dict[str, Any]:
    """Agreement with the rule, with the noisy labels, and the noise ceiling, on the held-out pairs."""
    from rlhf import demo, reward

    rows = list(turn.snapshot.rows("test"))
    scores = reward.score_pairs(workspace, turn.trained.version, [row.pair for row in rows])
    known = [
        demo.known_pair(row, s.score_a - s.score_b)
        for row, s in zip(rows, scores, strict=True)
        if s.score_a is not None
    ]
    return demo.truth_figures(known)


def reward_rows(facts: Any, first: Any, second: Any, truth: dict[str, Any], seconds: float) -> list[tuple[str, str]]:
    """What came out of the reward, a line a figure."""
    one, two = (second.report.figures[str(t.trained.version)] for t in (first, second))

    def percent(f: dict[str, Any]) -> str:
        return f"{f['accuracy']:.3f}  [{f['accuracy_low']:.3f}, {f['accuracy_high']:.3f}]  n = {f['n_decided']}"

    metrics = second.trained.metrics
    return [
        (
            "preferences (SIMULATED)",
            f"{facts.n_pairs} pairs, {facts.judgements} judgements, {facts.n_labelers} labelers",
        ),
        ("longer reply wins", f"{two['longer_wins']:.3f}"),
        (f"{first.trained.version}, {first.trained.metrics['steps']} steps: accuracy", percent(one)),
        (f"{second.trained.version}, {metrics['steps']} steps: accuracy", percent(two)),
        ("  log-loss, ECE", f"{two['log_loss']:.3f}, {two['ece']:.3f}"),
        ("  noise ceiling of the labels", f"{truth['noise_ceiling']:.3f}"),
        (
            "  agreement with the rule",
            f"{truth['truth_accuracy']:.3f}  [{truth['truth_accuracy_low']:.3f}, {truth['truth_accuracy_high']:.3f}]"
            f"  n = {truth['n_truths']}",
        ),
        ("  rank correlation with the rule", f"{truth['margin_spearman']:.3f}"),
        ("trained at", f"{metrics['pairs_per_s']:.1f} pairs/s, peak memory {metrics['peak_memory_gib']:.1f} GiB"),
        ("rollback of demo@champion took", f"{1000 * seconds:.1f} ms"),
    ]


if __name__ == "__main__":
    sys.exit(main())

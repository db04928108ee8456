"""The demo's second half: the reward trains a policy, twice; the policy is compared, promoted through a gate, asked, taken back.

`run_demo.py` walks through it; run the demo with scripts/demo.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

Say = Callable[[str], None]
QUESTION = "How do I keep a basil plant alive on my windowsill?"
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


class Policy:
    """The second half of the demo: two rounds of dpo, their comparisons, the gate, a reply, a rollback."""

    def __init__(self, workspace: Any, base: str, *, quick: bool, say: Say) -> None:
        from rlhf import policy

        self.workspace, self.base, self.quick, self.say = workspace, base, quick, say
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
            say=self.say,
            from_version=from_version,
            seed=seed,
            max_prompts=(PROMPTS_QUICK if self.quick else PROMPTS)[len(self.rounds)],
            **self.settings,
        )
        self.rounds.append(better)
        self._truth_on_page(better)
        self.say(f"{better.trained.version}: true win rate over the base {rate(better.figures, 'win_rate')}")

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
                self.say(f"not promoted: {refusal}")

    def ask(self) -> None:
        from rlhf import loop

        writers = ["base:" + self.base] + (["assistant@champion"] if self.promoted else [])
        for writer in writers:
            reply = loop.answer(self.workspace, writer, QUESTION, sampling=self.sampling)
            self.say(f"{QUESTION}\n  {writer}: {' '.join(reply.text.split())}")

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

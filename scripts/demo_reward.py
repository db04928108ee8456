"""The demo's first half: simulated labelers' preferences train a reward, which is measured, exported, promoted and taken back.

`run_demo.py` walks through it; run the demo with scripts/demo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

Say = Callable[[str], None]
PROJECT = Path(__file__).parent.parent
FULL = {
    "base": "smollm2-135m",
    "top_layers": 10,
    "learning_rate": 5e-4,
    "epochs": 1.0,
    "pairs_per_step": 8,
    "max_length": 512,
    "set_aside": 0.0,  # nothing here is calibrated
    "baseline": False,  # an instant reward beside it would cost a minute
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
    "baseline": False,
    "test_pairs": 0,
}


class Reward:
    """Preferences by a known rule, a reward from ten steps, one from all of them, and how close that comes to the rule."""

    def __init__(self, out: Path, *, quick: bool, say: Say) -> None:
        from rlhf import loop
        from rlhf.engine.placement import choose

        self.out, self.quick, self.say = out, quick, say
        self.settings: dict[str, Any] = dict(QUICK if quick else FULL)
        self.base = str(self.settings.pop("base"))
        if not quick and choose().dtype == "bfloat16":
            self.settings["epochs"] = 2.0  # three times as fast, so there is time for a second pass
        self.workspace = loop.Workspace.create(out / "workspace", actor="demo")
        folder = tiny_base(out / "tiny") if quick else PROJECT / ".bases" / "smollm2-135m"
        loop.engine.add_from_dir(self.workspace, self.base, folder)

    def write_preferences(self) -> None:
        from rlhf import demo

        file = self.out / "preferences.jsonl"
        self.facts = facts = demo.write_preferences(file, n_pairs=400 if self.quick else None)
        self.say(f"{facts.n_pairs} pairs, {facts.judgements} judgements by {facts.n_labelers} SIMULATED labelers")

    def train_first(self) -> None:
        self.first = self._turn(max_steps=10)

    def train_second(self) -> None:
        self.second = self._turn(against=(str(self.first.trained.version),))
        receipt = self.second.receipt
        self.say(f"a second import of the same file: {receipt.duplicates} duplicates, {receipt.accepted} added")

    def hold_against_the_rule(self) -> None:
        self.truth = truth_of(self.workspace, self.second)

    def export(self) -> None:
        from rlhf import loop

        self.exported = loop.export(self.workspace, self.second.trained.version, self.out / "export")

    def promote(self) -> None:
        """The first, the second, back to the first, and the second again."""
        from rlhf import loop

        loop.promote(self.workspace, self.first, why="the first there is")
        loop.promote(self.workspace, self.second, why="better on held-out pairs")
        move, seconds = loop.take_back(self.workspace, "demo@champion", why="to show that it can be taken back")
        assert move.to_digest == self.first.trained.version.digest
        self.rollback_ms = 1000 * seconds
        loop.promote(self.workspace, self.second, why="it was better")

    def _turn(self, against: tuple[str, ...] = (), **more: Any) -> Any:
        from rlhf import loop

        return loop.turn(
            self.workspace,
            [self.out / "preferences.jsonl"],
            name="demo",
            base=self.base,
            source="demo",
            kind="simulated",
            holdout=0.2,
            against=against,
            say=self.say,
            **{**self.settings, **more},
        )

    def rows(self) -> list[tuple[str, str]]:
        """What came out, a line a figure."""
        facts, first, second, truth = self.facts, self.first, self.second, self.truth
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
            ("rollback of demo@champion took", f"{self.rollback_ms:.1f} ms"),
        ]


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

"""The demo: one turn of the loop on SIMULATED labelers' preferences, where the truth is known.

    scripts/demo            SmolLM2-135M-Instruct, at most 10 minutes on 2 cores
    scripts/demo --quick    a tiny random model, under a minute: the same steps, no quality to expect

It writes into out/demo (emptied first), ends in a table, and names the page to open.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from rlhf.cli.boundary import answer_for, quiet_libraries

PROJECT = Path(__file__).parent.parent
FULL = {
    "base": "smollm2-135m",
    "top_layers": 10,
    "learning_rate": 5e-4,
    "epochs": 1.0,
    "pairs_per_step": 8,
    "max_length": 512,
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
    "test_pairs": 0,
}


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def step(number: int, title: str) -> None:
    say(f"\n[{number}/7] {title}")


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

    step(6, "promote: the alias demo@champion moves to the first version, then to the second")
    loop.promote(workspace, first, why="the first there is")
    loop.promote(workspace, second, why="better on held-out pairs")

    step(7, "take it back, and promote it again")
    move, seconds = loop.take_back(workspace, "demo@champion", why="to show that it can be taken back")
    assert move.to_digest == first.trained.version.digest
    loop.promote(workspace, second, why="it was better")

    print(table(facts, first, second, truth, exported, seconds, time.perf_counter() - begin))


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


def table(
    facts: Any, first: Any, second: Any, truth: dict[str, Any], exported: Path, seconds: float, total_s: float
) -> str:
    """What came out, a line a figure."""
    one, two = (second.report.figures[str(t.trained.version)] for t in (first, second))

    def percent(f: dict[str, Any]) -> str:
        return f"{f['accuracy']:.3f}  [{f['accuracy_low']:.3f}, {f['accuracy_high']:.3f}]  n = {f['n_decided']}"

    metrics = second.trained.metrics
    rows = [
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
        ("rollback took", f"{1000 * seconds:.1f} ms"),
        ("whole demo took", f"{total_s / 60:.1f} minutes"),
        ("stock PEFT folder", str(exported)),
        ("report", str(second.report.path)),
    ]
    width = max(len(left) for left, _ in rows)
    return "\n" + "\n".join(f"{left:<{width}}  {right}" for left, right in rows)


if __name__ == "__main__":
    sys.exit(main())

"""The demo: the whole loop on SIMULATED labelers' preferences, where the truth is known.

    scripts/demo            SmolLM2-135M-Instruct, at most 20 minutes on 2 cores
    scripts/demo --quick    a tiny random model, under a minute: the same steps, no quality to expect

Preferences train a reward, the reward trains a policy (dpo on ranked samples, twice), the policy is compared with its base by the
known rule, promoted through a gate, asked a question, and taken back. It writes into out/demo (emptied first), ends in a table,
and names the pages to open.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from pathlib import Path

from demo_policy import Policy
from demo_reward import Reward

from rlhf.cli.boundary import answer_for, quiet_libraries

PROJECT = Path(__file__).parent.parent
STEPS = 10


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
    empty(out)
    reward = Reward(out, quick=quick, say=say)
    step(
        1,
        "eight simulated labelers judge pairs of the base model's replies by a known rule, each more or less reliably",
    )
    reward.write_preferences()
    step(2, "import, snapshot, and a first reward from ten steps")
    reward.train_first()
    step(3, "the reward from all of it, measured beside the first one on pairs that neither has seen")
    reward.train_second()
    step(4, "how close the reward comes to the rule, which it never saw")
    reward.hold_against_the_rule()
    step(5, "export as a stock PEFT folder")
    reward.export()
    step(
        6,
        "promote: the alias demo@champion moves to the first version, then to the second; take it back, and promote it again",
    )
    reward.promote()

    policy = Policy(reward.workspace, reward.base, quick=quick, say=say)
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
    tell(reward, policy, minutes=(time.perf_counter() - begin) / 60)


def tell(reward: Reward, policy: Policy, *, minutes: float) -> None:
    """The table, and the pages to open."""
    rows = reward.rows() + policy.rows()
    rows += [
        ("whole demo took", f"{minutes:.1f} minutes"),
        ("stock PEFT folder", str(reward.exported)),
        ("reward's report", str(reward.second.report.path)),
        *policy.pages(),
    ]
    width = max(len(left) for left, _ in rows)
    print("\n" + "\n".join(f"{left:<{width}}  {right}" for left, right in rows))


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


if __name__ == "__main__":
    sys.exit(main())

"""Policies on the real base: one base, the reward's own scores, and each method to a published version that writes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from preferences import cut_polite

from rlhf import engine, policy, registry, reward
from rlhf.engine import policies, rewards, scoring
from rlhf.engine.packing import Group
from rlhf.engine.placement import Placement
from rlhf.engine.shared import SharedReward
from rlhf.store import Workspace

pytestmark = [pytest.mark.real, pytest.mark.slow]
FOLDER = Path(__file__).parent.parent / ".bases" / "smollm2-135m"
CPU = Placement("cpu", "float32", "test")


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workspace]:
    """A workspace with SmolLM2-135M-Instruct and a reward of two steps."""
    if not (FOLDER / "config.json").exists():
        pytest.skip("the real base is not there: run scripts/setup")
    folder = tmp_path_factory.mktemp("real")
    workspace = Workspace.create(folder / "ws", actor="tester")
    engine.add_from_dir(workspace, "smollm2-135m", FOLDER)
    cut_polite(workspace, folder, 40)
    settings = reward.RewardSettings(
        name="r", snapshot="polite", base="smollm2-135m", max_steps=2, pairs_per_step=4, top_layers=4, dtype="float32"
    )
    reward.train(workspace, settings)
    yield workspace
    workspace.close()


def test_a_shared_reward_gives_the_real_rewards_scores(real: Workspace) -> None:
    base = engine.get(real, "smollm2-135m")
    folder = registry.open_version(real, "r@1").folder
    renderer = engine.Renderer(base.tokenizer(), 1024)
    rendered = [renderer.reply(prompt.messages, "Yes, thanks.") for prompt in policy.prompts_of(real, "polite")[:4]]
    groups = [Group((), (tuple(one[0]),)) for one in rendered]
    alone = scoring.score(rewards.load(folder, base, CPU), groups)
    model = policies.fresh(base, CPU, rewards.LoraShape(8, 16, 0.0, 0), seed=0)
    shared = SharedReward(model, folder, "reward0").score(groups)
    assert [s for g in shared for s in g] == pytest.approx([s for g in alone for s in g], abs=1e-4)


@pytest.mark.parametrize("method", ["dpo", "grpo", "rloo"])
def test_each_method_trains_publishes_and_writes_on_the_real_base(real: Workspace, method: str) -> None:
    trained = policy.train(
        real,
        policy.PolicySettings(
            name=method,
            reward=["r@1"],
            base="smollm2-135m",
            method=method,
            max_steps=2,
            pairs_per_step=2,
            samples=2,
            max_new_tokens=8,
            top_layers=4,
            warmup=0.0,
            watch_steps=2,
            watch_prompts=2,
            guard_doubt=0.5,
        ),
    )
    rows = [json.loads(line) for line in (trained.run_folder / "replies.jsonl").read_text("utf-8").splitlines()]
    manifest = registry.open_version(real, trained.version).manifest
    assert [row for row in rows if row["phase"] == "watch"][-1]["adapter"] == manifest["weights_digest"]
    assert {relation for relation, _ in manifest["parents"]} == {"reward"}
    prompt = policy.prompts_of(real, "polite", "test")[0]
    (reply,) = policy.replies(real, str(trained.version), [prompt], policy.Sampling(max_new_tokens=8, temperature=0.0))
    assert reply.text.strip()

"""A workspace to try vLLM with: two drawn policies, kind@1 and terse@1, and a drawn reward, judge@1, each behind `champion`.

    python scripts/make_vllm_workspace.py WORKSPACE BASE_FOLDER

Its one line of output is the name under which vLLM must serve the base. The adapters aren't trained: they are drawn, large enough
that each says something of its own.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import torch

from rlhf import engine, registry
from rlhf.engine import policies, rewards
from rlhf.engine.bases import Base
from rlhf.engine.placement import Placement
from rlhf.engine.rewards import LoraShape
from rlhf.engine.vllm.addresses import served_name
from rlhf.registry import aliases
from rlhf.reward.probes import probe_digest, scores_from_disk
from rlhf.store import Workspace

CPU = Placement("cpu", "float32", "drawn in float32")
SHAPE = LoraShape(8, 16, 0.0, 10)
DRAWN = 0.02  # standard deviation of the B matrices


def main(root: Path, base_folder: Path) -> None:
    workspace = Workspace.create(root, actor="try_vllm")
    base = engine.add_from_dir(workspace, "smollm2-135m", base_folder)
    with tempfile.TemporaryDirectory() as scratch:
        for seed, name in enumerate(("kind", "terse")):
            publish(workspace, base, Path(scratch) / name, name, seed, is_reward=False)
        publish(workspace, base, Path(scratch) / "judge", "judge", 7, is_reward=True)
    workspace.close()
    print(served_name(base))


def publish(workspace: Workspace, base: Base, folder: Path, name: str, seed: int, *, is_reward: bool) -> None:
    model = (rewards if is_reward else policies).fresh(base, CPU, SHAPE, seed=seed)
    torch.manual_seed(seed)
    for key, parameter in model.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=DRAWN)
    model.save_pretrained(folder)
    draft = registry.VersionDraft(
        role="reward" if is_reward else "policy",
        kind="lora",
        name=name,
        base_name=base.name,
        base_digest=base.digest,
        tokenizer_digest=base.tokenizer_digest,
        template_digest=base.template_digest,
        seeds={"seed": seed},
    )
    evidence = None
    if is_reward:
        scores = scores_from_disk(workspace, folder, "lora", base)
        evidence = registry.Evidence(probe_digest(), scores, scores)
    registry.publish(workspace, folder, draft, evidence)
    aliases.move(workspace, f"{name}@champion", f"{name}@1", why="to try vLLM")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))

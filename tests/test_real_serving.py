"""The live engine on SmolLM2: what it says is what `generate` says, in whole characters."""

from __future__ import annotations

from pathlib import Path

import pytest
from live_versions import CPU, digest, engine_on, policy_folder

from rlhf.engine import add_from_dir, generation, policies
from rlhf.engine.sampling import Sampling
from rlhf.engine.wanted import Wanted
from rlhf.records import Message
from rlhf.store import Workspace

FOLDER = Path(__file__).parent.parent / ".bases" / "smollm2-135m"


@pytest.mark.real
@pytest.mark.skipif(not FOLDER.is_dir(), reason="SmolLM2-135M-Instruct is absent: scripts/setup")
def test_two_versions_of_a_real_base_say_what_generate_says(workspace: Workspace, tmp_path: Path) -> None:
    base = add_from_dir(workspace, "smollm2", FOLDER)
    folders = [policy_folder(base, tmp_path / f"p{i}", i, top_layers=10, std=0.02) for i in range(2)]
    with engine_on(base, slots=2) as engine:
        assert engine.batch._quick is not None
        for i, folder in enumerate(folders):
            engine.load(digest(i), folder)
        prompts = [
            tuple(engine.renderer.opening([Message("user", text)])) for text in ("Hi!", "Sing a song in 日本語.")
        ]
        wanted = [Wanted(p, digest(i), 16, temperature=0.7 * i, seed=3) for p in prompts for i in range(2)]
        found = ["".join(piece.text for piece in stream) for stream in engine.reply([*wanted])]
    for i, folder in enumerate(folders):
        model = policies.load(folder, base, CPU)
        for k, prompt in enumerate(prompts):
            (reply,) = generation.generate(model, [prompt], [3], Sampling(16, 0.7 * i))
            assert found[2 * k + i] == base.tokenizer().decode(reply.ids, skip_special_tokens=True)
        del model

"""Scoring speed: our scorer against transformers' `pipeline("text-classification")` on the exported model, in one run.

    .venv/bin/python scripts/bench_score.py             SmolLM2-135M, HH prompts from ../shared/data where they are there

A reward with a drawn LoRA on all layers and a drawn head is published and exported to stock PEFT. Ours is `rlhf reward score`
with the version open: rendering, tokens, and one packed forward a prompt's replies. The pipeline gets the rendered texts for
nothing; it runs with the LoRA merged or not, in float32 and bfloat16, with batches of 1, 8 and 16, and its fastest way counts.
Replies to a prompt: its own two, then other prompts' replies. Then the two sides score in turn, each in its fastest type, and
again both in float32, where the scores must be equal. Beside them an instant reward (kind=head, drawn, the default layers), whose
forward stops at its highest layer. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rlhf.cli.boundary import quiet_libraries

PROJECT = Path(__file__).parent.parent
SAME = 1e-3
DTYPES = ("float32", "bfloat16")


def main() -> None:
    quiet_libraries()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=8, help="prompts, whose first two replies are a pair")
    parser.add_argument("--replies", type=int, nargs="+", default=[2, 4, 8, 16], help="replies to each prompt")
    parser.add_argument("--repeats", type=int, default=3, help="turns that each side takes; the median counts")
    parser.add_argument("--base", type=Path, default=PROJECT / ".bases" / "smollm2-135m")
    words = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(compared(words, Path(folder))))


def compared(words: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from rlhf.engine.placement import bfloat16_speedup

    workspace, version = published(words, folder)
    pairs = pairs_of()
    items = {n: items_of(pairs, words.pairs, n) for n in words.replies}
    dtypes = DTYPES if bfloat16_speedup() >= 1.3 else DTYPES[:1]
    ours = {dtype: our_side(workspace, version, dtype) for dtype in dtypes}
    peers = {(dtype, merge): Pipeline(workspace, version, folder, dtype, merge) for dtype in dtypes for merge in (0, 1)}
    tried = items[min(words.replies)]
    seconds = {}
    for (dtype, merge), peer in peers.items():
        for batch in (1, 8, 16):
            seconds[dtype, merge, batch] = clocked(lambda: peer(tried, batch))[1]  # noqa: B023
            rate = len(tried) / seconds[dtype, merge, batch]
            print(f"pipeline {dtype:<9} merged={merge} batch={batch:<3} {rate:.2f} replies/s", file=sys.stderr)
    our_best = min(dtypes, key=lambda dtype: clocked(lambda: ours[dtype](tried))[1])
    fastest = {
        kind: min((k for k in seconds if k[0] in kind), key=seconds.__getitem__) for kind in (dtypes, DTYPES[:1])
    }
    found: dict[str, Any] = {}
    for n in words.replies:
        best, fast = turns(words, ours[our_best], peers[fastest[dtypes][:2]], fastest[dtypes][2], items[n])
        exact, slow = turns(words, ours["float32"], peers[fastest[DTYPES[:1]][:2]], fastest[DTYPES[:1]][2], items[n])
        best["off_float32"] = {side: off(a, b) for side, a, b in zip(("ours", "peer"), fast, slow, strict=True)}
        assert exact["score_difference"] <= SAME, f"{n} replies: scores differ by {exact['score_difference']}"
        found[str(n)] = {**best, "float32": exact}
        print(
            f"{n:>2} replies a prompt: ours {best['ours']:.1f} replies/s, pipeline {best['peer']:.1f}, "
            f"{best['ratio']:.2f} times; float32 {exact['ratio']:.2f} times, "
            f"scores within {exact['score_difference']:.0e}; {our_best} is off it by {best['off_float32']['ours']:.1e}, the "
            f"pipeline's {fastest[dtypes][0]} by {best['off_float32']['peer']:.1e}",
            file=sys.stderr,
        )
    instant, few = head_side(workspace, our_best), items[words.replies[0]]
    pairs_of_seconds = [
        (clocked(lambda: ours[our_best](few))[1], clocked(lambda: instant(few))[1]) for _ in range(words.repeats)
    ]
    head = {
        "replies_per_s": round(len(few) / statistics.median(b for _, b in pairs_of_seconds), 2),
        "times_lora": round(statistics.median(a / b for a, b in pairs_of_seconds), 2),
    }
    print(f"instant reward: {head['replies_per_s']} replies/s, {head['times_lora']} times the LoRA's", file=sys.stderr)
    workspace.close()
    first = found[str(words.replies[0])]
    dtype, merge, batch = fastest[dtypes]
    return {
        "name": "reward_scoring",
        "ours": round(first["ours"] / 2, 3),
        "peer": round(first["peer"] / 2, 3),
        "ratio": first["ratio"],
        "unit": f"pairs/s at {words.replies[0]} replies a prompt",
        "ratio_by_replies": {n: row["ratio"] for n, row in found.items()},
        "score_difference": max(row["float32"]["score_difference"] for row in found.values()),
        "ours_dtype": our_best,
        "peer_dtype": dtype,
        "peer_merged": bool(merge),
        "peer_batch": batch,
        "prompts": words.pairs,
        "head": head,
        "all": found,
    }


def published(words: argparse.Namespace, folder: Path) -> tuple[Any, str]:
    """A workspace with a reward version whose LoRA and head were drawn: it costs what a trained one costs."""
    import torch

    from rlhf import engine, reward
    from rlhf.engine import rewards
    from rlhf.engine.placement import Placement
    from rlhf.store import Workspace

    workspace = Workspace.create(folder / "workspace", actor="benchmark")
    base = engine.add_from_dir(workspace, "base", words.base)
    model = rewards.fresh(base, Placement("cpu", "float32", "benchmark"), rewards.LoraShape(16, 32, 0.0, 0), seed=0)
    chance = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.01, generator=chance)
            elif "score.modules_to_save" in name:
                parameter.normal_(std=0.05, generator=chance)
    model.save_pretrained(folder / "drawn")
    return workspace, str(reward.adopt(workspace, folder / "drawn", name="drawn", base="base"))


def pairs_of() -> list[Any]:
    """HH's pairs, else the demo's."""
    from rlhf import demo, feedback
    from rlhf.store import Workspace

    hh = PROJECT.parent / "shared" / "data" / "hh_harmless.jsonl.gz"
    if not hh.exists():
        return list(demo.demo_pairs())
    with tempfile.TemporaryDirectory() as folder:
        workspace = Workspace.create(Path(folder) / "w")
        feedback.import_files(workspace, [hh])
        with workspace.read() as connection:
            pairs = [pair for pair, _, _ in feedback.read_pairs(connection)]
        workspace.close()
    return pairs


def items_of(pairs: list[Any], n_prompts: int, n: int) -> list[Any]:
    """n replies to each of the prompts, drawn evenly over the data: its own two, then those of the prompts that follow."""
    from rlhf.reward.score import Item

    step = max(1, len(pairs) // n_prompts)
    items = []
    for start in range(0, step * n_prompts, step):
        following = [pairs[(start + k) % len(pairs)] for k in range((n + 1) // 2)]
        texts = [text for pair in following for text in (pair.reply_a, pair.reply_b)][:n]
        items += [Item(f"{start}:{i}", pairs[start].prompt, text) for i, text in enumerate(texts)]
    return items


def our_side(workspace: Any, version: str, dtype: str) -> Any:
    from rlhf.engine.placement import choose
    from rlhf.reward.score import open_reward, score_with_open

    opened = open_reward(workspace, version, choose("cpu", dtype))
    return lambda items: [row["score"] for row in score_with_open(opened, items)]


def head_side(workspace: Any, dtype: str) -> Any:
    """A head of drawn weights on the default layers, with a posterior as wide as 1,400 pairs make it."""
    import torch

    from rlhf.engine import bases
    from rlhf.engine.heads import Head, on_base
    from rlhf.engine.placement import choose
    from rlhf.engine.rendering import Renderer
    from rlhf.records import VersionRef
    from rlhf.reward import RewardSettings
    from rlhf.reward.head import reading_of
    from rlhf.reward.score import OpenReward, score_with_open

    base = bases.get(workspace, "base")
    reading = reading_of(base, RewardSettings(name="instant", snapshot="none", base="base", kind="head"))
    hidden = int(base.details["hidden_size"])
    n, chance = reading.n_features(hidden), torch.Generator().manual_seed(0)
    drawn = Head(
        reading,
        hidden,
        weight=torch.randn(n, generator=chance) / n,
        mean=torch.zeros(n),
        scale=torch.ones(n),
        prior_variance=torch.ones(1),
        shrink=torch.randn(n, min(n, 1400), generator=chance) / n,
    )
    model = on_base(drawn, base, choose("cpu", dtype))
    opened = OpenReward(VersionRef("instant", 1, "0" * 64, "reward"), model, Renderer(base.tokenizer(), 1024))
    return lambda items: [row["score"] for row in score_with_open(opened, items)]


class Pipeline:
    """transformers' pipeline on the export: stock PEFT, stock pooling, the export's own tokenizer and pad token."""

    def __init__(self, workspace: Any, version: str, folder: Path, dtype: str, merge: int) -> None:
        import torch
        from peft import AutoPeftModelForSequenceClassification
        from transformers import AutoTokenizer, pipeline

        from rlhf import registry
        from rlhf.engine import bases
        from rlhf.engine.exporting import stock_tokenizer

        out = folder / f"export-{dtype}-{merge}"
        base = bases.get(workspace, "base")
        registry.export_folder(workspace, version, out, base_path=str(base.folder), extra_files=stock_tokenizer(base))
        model = AutoPeftModelForSequenceClassification.from_pretrained(
            out, num_labels=1, dtype=getattr(torch, dtype)
        ).eval()
        if merge:
            model = model.merge_and_unload()
        self.tokenizer = AutoTokenizer.from_pretrained(out)
        model.config.pad_token_id = self.tokenizer.pad_token_id
        self.pipe = pipeline("text-classification", model=model, tokenizer=self.tokenizer, device="cpu")
        self.texts: dict[int, list[str]] = {}

    def __call__(self, items: list[Any], batch: int) -> list[float]:
        texts = self.texts.get(id(items))
        if texts is None:
            chats = [
                [*(m.as_json() for m in item.prompt), {"role": "assistant", "content": item.reply}] for item in items
            ]
            texts = self.texts[id(items)] = [self.tokenizer.apply_chat_template(c, tokenize=False) for c in chats]
        rows = self.pipe(texts, batch_size=batch, function_to_apply="none")
        return [row["score"] for row in rows]


def turns(
    words: argparse.Namespace, ours: Any, peer: Pipeline, batch: int, items: list[Any]
) -> tuple[dict[str, Any], tuple[list[float], list[float]]]:
    """Both sides in turn. Replies/s by the median, the ratio turn by turn, the largest difference of their scores; the scores."""
    mine, theirs = [], []
    for _ in range(words.repeats):
        scores, seconds = clocked(lambda: ours(items))
        mine.append(seconds)
        stock, seconds = clocked(lambda: peer(items, batch))
        theirs.append(seconds)
    row = {
        "ours": round(len(items) / statistics.median(mine), 2),
        "peer": round(len(items) / statistics.median(theirs), 2),
        "ratio": round(statistics.median(b / a for a, b in zip(mine, theirs, strict=True)), 2),
        "score_difference": off(scores, stock),
    }
    return row, (scores, stock)


def off(scores: list[float], others: list[float]) -> float:
    return float(f"{max(abs(a - b) for a, b in zip(scores, others, strict=True)):.1e}")


def clocked(work: Any) -> tuple[Any, float]:
    start = time.perf_counter()
    found = work()
    return found, time.perf_counter() - start


if __name__ == "__main__":
    main()

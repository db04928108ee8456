"""Sample the replies that the demo ships: several per prompt of `rlhf.demo.prompts`, from the base model.

    python scripts/make_demo_replies.py BASE_FOLDER [--out rlhf/demo/replies.jsonl.gz]

BASE_FOLDER holds SmolLM2-135M-Instruct as transformers saves it. The first line of the file says how it was made;
then one line a prompt: its opening turn and the replies, each with whether the model ended it itself (else it was cut
off). A reply that is not for shipping stands as an empty text. Takes about ten minutes on one core with bfloat16
matrix units. Samples differ between processors: the file that ships is the one that counts.
"""

from __future__ import annotations

import argparse
import gzip
import json
import re
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rlhf.demo.prompts import prompts
from rlhf.records import Message

# Contact details, which the feedback door masks, and words that no demo should show; broad, as one less costs little.
_UNFIT = re.compile(
    r"https?:|www\.|\w@\w|\d[\d .()-]{5,}\d|\b(?:kill(?:s|ed|ing)? (?:people|you|them|me)|suicid\w*|murder\w*"
    r"|sex\w*|nud\w*|nazi\w*|rap(?:e|ed|ist)|fuck\w*|shit\w*|cocaine|heroin|guns?|bombs?|terroris\w*|racis\w*)\b",
    re.IGNORECASE,
)


def sample(base: Path, n_samples: int, batch: int, seed: int, how: dict[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """(opening turn, [[reply, ended by the model], ...]) in the order of the prompts' length."""
    tokenizer = AutoTokenizer.from_pretrained(base, padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.bfloat16).eval()
    torch.manual_seed(seed)
    ordered = sorted(prompts(), key=lambda prompt: sum(len(message.content) for message in prompt))
    for start in range(0, len(ordered), batch):
        chunk = ordered[start : start + batch]
        texts = [_render(tokenizer, prompt) for prompt in chunk]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)  # (B, T), padded left
        with torch.inference_mode():
            out = model.generate(**inputs, do_sample=True, num_return_sequences=n_samples, **how)  # (B * n, T + new)
        replies = [_reply(tokenizer, row) for row in out[:, inputs["input_ids"].shape[1] :].tolist()]
        for i, prompt in enumerate(chunk):
            yield prompt[0].content, replies[i * n_samples : (i + 1) * n_samples]
        print(f"{start + len(chunk)}/{len(ordered)} prompts", file=sys.stderr, flush=True)


def _render(tokenizer: Any, prompt: Sequence[Message]) -> str:
    messages = [message.as_json() for message in prompt]
    return str(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))


def _reply(tokenizer: Any, tokens: list[int]) -> list[Any]:
    """The text up to the end token, and whether there was one (pad == eos here, so only the first one counts)."""
    ended = tokenizer.eos_token_id in tokens
    kept = tokens[: tokens.index(tokenizer.eos_token_id)] if ended else tokens
    text = tokenizer.decode(kept, skip_special_tokens=True).strip()
    return ["" if _UNFIT.search(text) else text, ended]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("--out", type=Path, default=Path("rlhf/demo/replies.jsonl.gz"))
    parser.add_argument("--samples", type=int, default=4, help="replies a prompt")
    parser.add_argument("--batch", type=int, default=24, help="prompts a batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    how = {"temperature": 0.8, "top_p": 0.95, "max_new_tokens": 64}
    began = time.monotonic()
    rows = dict(sample(arguments.base, arguments.samples, arguments.batch, arguments.seed, how))
    header = {"model": "SmolLM2-135M-Instruct", "licence": "Apache-2.0", "seed": arguments.seed, **how}
    lines = [header, *({"opening": p[0].content, "replies": rows[p[0].content]} for p in prompts())]
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    arguments.out.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))
    print(f"{len(rows)} prompts in {time.monotonic() - began:.0f} s: {arguments.out}", file=sys.stderr)


if __name__ == "__main__":
    main()

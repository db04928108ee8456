"""Tokenizer files for an exported adapter: stock code batches with a pad token that differs from the end token.

Stock pooling reads the rightmost token that isn't pad; where pad is the end token it can read another one. So an export carries
its own tokenizer, and its README sets `config.pad_token_id` from it.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from rlhf.engine.bases import Base


def stock_tokenizer(base: Base) -> dict[str, bytes]:
    """File name -> content of the base's tokenizer with a pad token unlike its end token.

    Empty where the tokenizer has fewer tokens than the model: stock PEFT would shrink the model's embeddings to it.
    """
    tokenizer = base.tokenizer()
    if len(tokenizer) != base.details.get("vocabulary"):
        return {}
    if tokenizer.pad_token_id in (None, tokenizer.eos_token_id):
        others = [
            t
            for t in (tokenizer.unk_token, tokenizer.bos_token, *tokenizer.all_special_tokens)
            if t and t != tokenizer.eos_token
        ]
        if not others:
            return {}
        tokenizer.pad_token = others[0]
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save_pretrained(folder)
        return {file.name: file.read_bytes() for file in sorted(Path(folder).iterdir())}

"""Engine: one base model in memory, many adapters; tokens in, scores and text out.

Takes: a workspace's bases, adapter folders, chats, wishes for replies. Gives: tokens with spans, scores in float32, text, at once
or in streams (`live.LiveEngine`, or `vllm.engine.VllmEngine` over vLLM's processes, asked through the records of `wanted`, which
need no torch). Writes: bases into the workspace; for vLLM, adapters into its cache while it serves. Never: trains, publishes,
searches for a pad token to find a reply's end, trusts remote code.

torch is imported when a function needs it, so that the command line can list bases without it.
"""

from rlhf.engine.base_sources import add_from_dir, add_from_gguf, add_from_hub
from rlhf.engine.bases import Base, get, list_bases
from rlhf.engine.rendering import Renderer, token_counter

__all__ = ["Base", "Renderer", "add_from_dir", "add_from_gguf", "add_from_hub", "get", "list_bases", "token_counter"]

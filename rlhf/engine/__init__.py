"""Engine: one base model in memory, many adapters; tokens in, scores and text out.

Takes: a workspace's bases, adapter folders, chats. Gives: tokens with spans, scores in float32, text.
Writes: bases into the workspace. Never: trains, publishes, searches for a pad token to find a reply's end, trusts remote code.

torch is imported when a function needs it, so that the command line can list bases without it.
"""

from rlhf.engine.base_sources import add_from_dir, add_from_gguf, add_from_hub
from rlhf.engine.bases import Base, get, list_bases
from rlhf.engine.rendering import Renderer, token_counter

__all__ = ["Base", "Renderer", "add_from_dir", "add_from_gguf", "add_from_hub", "get", "list_bases", "token_counter"]

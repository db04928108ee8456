"""Policy: a reward version and prompts in, a policy version out; and replies from it.

Takes: reward versions, prompts or human pairs, a base or a version to go on from, settings. Gives: a published policy version
with its curves; replies that name what wrote them. Writes: a run folder with every sampled reply, a version through the
registry. Never: patches TRL, holds a second base for the reward or the reference, lets a score touch the adapter in training,
answers for an unknown version.
"""

from typing import Any

from rlhf.policy.settings import Method, PolicySettings

__all__ = [
    "Method",
    "PolicyRef",
    "PolicySettings",
    "Prompt",
    "Reply",
    "Sampling",
    "Trained",
    "fitting",
    "prompts_of",
    "read_prompts",
    "replies",
    "resolve_policy",
    "train",
]

_LATER = {
    "train": "policy.training",
    "Trained": "policy.training",
    "replies": "policy.writing",
    "iterate": "policy.writing",
    "fitting": "policy.writing",
    "resolve_policy": "policy.naming",
    "PolicyRef": "policy.naming",
    "Reply": "policy.writing",
    "Prompt": "policy.prompts",
    "read_prompts": "policy.prompts",
    "prompts_of": "policy.prompts",
    "Sampling": "engine.sampling",
}


def __getattr__(name: str) -> Any:
    """Functions that need torch are imported when they are first asked for."""
    if name in _LATER:
        from importlib import import_module

        return getattr(import_module(f"rlhf.{_LATER[name]}"), name)
    raise AttributeError(name)

"""Where vLLM's processes listen, and what they must call the base. No torch here: the command line reads it."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from rlhf.engine.bases import Base
from rlhf.errors import BadUsage, Forbidden

KEY = "RLHF_VLLM_KEY"  # the environment's name for what vLLM takes as --api-key


@dataclass(frozen=True, slots=True)
class Addresses:
    """score: None = no process that pools, so no rewards. key: what both take as --api-key.

    Raises BadUsage for what is no address, Forbidden where another machine is asked without a key.
    """

    generate: str
    score: str | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        for url in filter(None, (self.generate, self.score)):
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise BadUsage(f"{url} is no address", fix="give one such as http://127.0.0.1:8101")
            if not self.key and not _is_loopback(parts.hostname):
                raise Forbidden(
                    f"{url} is another machine, and there is no key for it: whoever reaches it could load adapters",
                    fix=f"start vLLM with --api-key, and set {KEY} to the same",
                )


def served_name(base: Base) -> str:
    """The name under which vLLM must serve a base, so that no other model's replies are taken for its own."""
    return f"{base.name}-{base.digest[:12]}"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False

"""The guard: a run stops, and keeps its last good adapter, when a measured figure leaves its band.

The bands are about what a policy does when it has learnt to please its reward rather than people: it drifts from the reference
(KL), it writes much shorter or longer replies, it no longer ends them, or it goes where the reward is guessing (doubt).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rlhf.policy.settings import PolicySettings

_DOUBT_SLACK = 0.01  # a reward that knows little has a doubt near 1/2 from the start, which chance moves by about this


@dataclass(frozen=True, slots=True)
class Bands:
    """What may be; length as multiples of the first measurement's. See the `guard_*` settings."""

    kl: float
    length: tuple[float, float]
    cut_off: float
    doubt: float

    @staticmethod
    def of(settings: PolicySettings) -> Bands:
        return Bands(settings.guard_kl, settings.guard_length, settings.guard_cut_off, settings.guard_doubt)

    def broken(self, first: Mapping[str, float], now: Mapping[str, float]) -> str | None:
        """Why these figures are out of band, in words; None where all are in. first: of the run's first measurement.

        Share of cut-off replies and doubt count only once they are worse than at first: a base that never ends a reply, or a
        reward that knows nothing of the base's replies, is no fault of the training.
        """
        if self.kl and now["kl_token"] > self.kl:
            return f"the KL to the reference is {now['kl_token']:.3f} nats a token; guard_kl allows {self.kl:g}"
        low, high = (bound * first["tokens"] for bound in self.length)
        if not low <= now["tokens"] <= high:
            return (
                f"the mean reply has {now['tokens']:.0f} tokens where it had {first['tokens']:.0f} at first; "
                f"guard_length allows {low:.0f} to {high:.0f}"
            )
        if now["cut_off"] > max(self.cut_off, first["cut_off"]):
            return f"{now['cut_off']:.0%} of the replies are cut off; guard_cut_off allows {self.cut_off:.0%}"
        if now["doubt"] > max(self.doubt, first["doubt"] + _DOUBT_SLACK):
            return f"the reward's doubt is {now['doubt']:.3f}; guard_doubt allows {self.doubt:g}"
        return None

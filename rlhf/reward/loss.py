"""The loss of a pair. Pure; `tests/test_reward_loss.py` holds it against TRL's."""

from __future__ import annotations

import torch
from torch.nn.functional import logsigmoid


def pair_loss(
    chosen_P: torch.Tensor, rejected_P: torch.Tensor, target_P: torch.Tensor, margin_P: torch.Tensor, centring: float
) -> torch.Tensor:
    """Loss of each pair (P,), float32.

    With d = chosen - rejected - margin and t = P(chosen is better) in [0.5, 1]:

        loss = -t log sigmoid(d) - (1 - t) log sigmoid(-d) + centring (chosen + rejected)^2

    t = 1 is Bradley-Terry's negative log-likelihood as in TRL (its margin and its centring included); t = 0.5 is a tie, least at
    d = 0; in between, soft labels. Sources: Bradley and Terry 1952; margin: Touvron et al. 2023, section 3.2.2; centring:
    Eisenstein et al. 2023, equation 2.
    """
    d_P = chosen_P - rejected_P - margin_P
    ranking_P = -target_P * logsigmoid(d_P) - (1 - target_P) * logsigmoid(-d_P)
    return ranking_P + centring * (chosen_P + rejected_P) ** 2

"""The loss of a pair. Pure; `tests/test_reward_loss.py` holds it against TRL's, and each likelihood against its definition."""

from __future__ import annotations

import math
from typing import Literal

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


def tied_pair_loss(
    chosen_P: torch.Tensor,
    rejected_P: torch.Tensor,
    target_P: torch.Tensor,
    tie_P: torch.Tensor,
    margin_P: torch.Tensor,
    centring: float,
    ties: Literal["davidson", "rao_kupper"],
    tau: torch.Tensor,
) -> torch.Tensor:
    """Loss of each pair (P,) where a tie is a third outcome. tie: share of ties; target: share for chosen, ties half.

        loss = -(t - s/2) log P(chosen) - (1 - t - s/2) log P(rejected) - s log P(tie) + centring (chosen + rejected)^2

    with t = target, s = tie, and the probabilities of `outcomes` at d = chosen - rejected - margin. tau: its tie parameter.
    """
    won_P, lost_P, tied_P = outcomes(chosen_P - rejected_P - margin_P, ties, tau)
    ranking_P = -(target_P - tie_P / 2) * won_P - (1 - target_P - tie_P / 2) * lost_P - tie_P * tied_P
    return ranking_P + centring * (chosen_P + rejected_P) ** 2


def outcomes(
    d_P: torch.Tensor, ties: Literal["davidson", "rao_kupper"], tau: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities (P,) of won, lost and tied at a score difference d. tau: log of the tie parameter, a scalar.

    Davidson 1970, nu = exp(tau): won : lost : tied = exp(d/2) : exp(-d/2) : nu. Among the decided, P(won) = sigmoid(d) exactly.
    Rao and Kupper 1967, eta = exp(tau) (their log theta): P(won) = sigmoid(d - eta), P(lost) = sigmoid(-d - eta), the rest is
    tied: a difference below eta isn't noticed. There P(won | decided) is a little steeper than sigmoid(d).
    """
    if ties == "davidson":
        logits = torch.stack((d_P / 2, -d_P / 2, tau.expand_as(d_P)))
        won_P, lost_P, tied_P = logits.log_softmax(0)
        return won_P, lost_P, tied_P
    eta = tau.exp()
    won_P, lost_P = logsigmoid(d_P - eta), logsigmoid(-d_P - eta)
    # P(tied) = (1 - exp(-2 eta)) sigmoid(eta - d) sigmoid(eta + d); the difference of probabilities would cancel.
    tied_P = torch.log(-torch.expm1(-2 * eta)) + logsigmoid(eta - d_P) + logsigmoid(eta + d_P)
    return won_P, lost_P, tied_P


def tau_at_even(share: float, ties: Literal["davidson", "rao_kupper"]) -> float:
    """The tie parameter under which two equal scores are tied with chance `share`, in (0, 1): where a training starts.

    From P(tied | d = 0): Davidson nu / (2 + nu), Rao and Kupper tanh(eta / 2).
    """
    share = min(max(share, 1e-6), 1 - 1e-6)
    return math.log(2 * share / (1 - share)) if ties == "davidson" else math.log(2 * math.atanh(share))


def length_pull(
    gap_P: torch.Tensor, length_P: torch.Tensor, product: float, gap_square: float, length_square: float
) -> torch.Tensor:
    """(P,) terms whose mean has the gradient of corr² in the pairs' score differences, corr being that of score and length
    differences over the many pairs that the three moments are means of.

        corr² = A² / (B C), A = E[g l], B = E[g²], C = E[l²]:   d corr² / d g_i = (2 A l_i / (B C) - 2 A² g_i / (B² C)) / N

    The moments are numbers that stand still during a step, so the gradient is a sum over pairs: however the step is cut, it is
    the same. And being of earlier pairs, their noise isn't the step's own, which would show a correlation in any 16 pairs.
    """
    if gap_square <= 0 or length_square <= 0:
        return torch.zeros_like(gap_P)
    along = 2 * product / (gap_square * length_square)
    against = product**2 / (gap_square**2 * length_square)
    return along * length_P * gap_P - against * gap_P**2

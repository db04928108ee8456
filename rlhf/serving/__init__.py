"""Serving: a request to a reply from exactly one version.

Takes: requests of OpenAI's clients, what each names as its model, its unit and context; moves of aliases; rollouts' settings; what
users say of replies. Gives: the one version that answers, decided once and explained; its reply or score; rollouts with their arms'
figures; verdicts; an A/B's differences (`experiment.py`), what drifted (`drift.py`); served votes that were confirmed, to
`feedback`. Writes: rollouts and their log, exposures, outcomes, times to effect, items of drift on the board, alias moves at a
rollout's end, audit entries. Never: answers an unknown name with the base, imports torch (the engine is passed in), shows a
shadow's reply, keeps a raw user id.
"""

from rlhf.serving import guardrails, monitor, rollouts
from rlhf.serving.exposures import Exposure, Outcome, Recorder, Ticket, pseudonym
from rlhf.serving.following import Effect
from rlhf.serving.log import Rollout, RolloutEvent
from rlhf.serving.router import Router
from rlhf.serving.routes import Retired, Route, Shadow, Unavailable
from rlhf.serving.settings import RolloutSettings
from rlhf.serving.tending import Tender, tend
from rlhf.serving.trials import trial_of

__all__ = [
    "Effect",
    "Exposure",
    "Outcome",
    "Recorder",
    "Retired",
    "Rollout",
    "RolloutEvent",
    "RolloutSettings",
    "Route",
    "Router",
    "Shadow",
    "Tender",
    "Ticket",
    "Unavailable",
    "guardrails",
    "monitor",
    "pseudonym",
    "rollouts",
    "tend",
    "trial_of",
]

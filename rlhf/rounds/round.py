"""The loop, top to bottom: is there enough that is new? Then one round, step by step; and again.

`once` is the whole road. Whatever stops it (Ctrl-C, a killed process, people who have yet to judge), the same call goes on with
the step that was under way.
"""

from __future__ import annotations

from collections.abc import Callable

from rlhf import snapshots
from rlhf.rounds import decision, proposals, state
from rlhf.rounds.outcome import Outcome
from rlhf.rounds.settings import LoopSettings
from rlhf.rounds.steps import STEPS, Work
from rlhf.rounds.stopping import Stop
from rlhf.rounds.suites import require_same_split
from rlhf.rounds.verdicts import require_gates
from rlhf.store import Workspace, audit, runs

Say = Callable[[str], None]


def once(
    workspace: Workspace,
    settings: LoopSettings,
    *,
    anew: bool = False,
    say: Say | None = None,
    stop: Stop | None = None,
    again: str = state.AGAIN,
) -> Outcome:
    """Go on with the round that is unfinished, or begin one if enough judgements are new, and bring it to its decision.

    anew: give an unfinished round up. again: the command that this call was given by, for whoever goes on.

    Raises Conflict where another round is under way, an alias has no gate and the settings don't allow that, an unfinished round
    has other settings, or held-out rows would change sides; BadUsage for an unknown base or judge; Interrupted after Ctrl-C; and
    what the steps raise: the round is then `failed`, and the same call tries that step again.
    """
    say, stop = say or _silent, stop or Stop()
    with state.alone(workspace, settings.name):
        _require_ready(workspace, settings)
        current = state.unfinished(workspace, settings, anew=anew)
        if current is not None:
            say(f"going on with round {current.id}")
            current.again = again
            return _through(Work(workspace, current, stop, say))
        settled = proposals.settle(workspace, settings)
        new, since = _new(workspace, settings)
        if new < settings.min_new_judgements:
            return Outcome(
                "idle", new=new, wanted=settings.min_new_judgements, why=_missing(new, settings, since), settled=settled
            )
        current = state.start(workspace, settings, {"new": new, "since": since}, again)
        say(f"round {current.id}: {new} new judgements since {since or 'the beginning'}")
        return _through(Work(workspace, current, stop, say), new=new, settled=settled)


def watch(
    workspace: Workspace,
    settings: LoopSettings,
    *,
    anew: bool = False,
    say: Say | None = None,
    rounds: int | None = None,
    again: str = state.AGAIN,
) -> list[Outcome]:
    """`once`, again and again, looking every `poll_seconds`; Ctrl-C ends it between two steps. rounds: end after so many that came
    to a decision. Returns the outcomes that did something.
    """
    say = say or _silent
    came: list[Outcome] = []
    stop, told, seen = Stop(), "", -1
    with stop.listening():
        while not stop.asked:
            at = _audit_length(workspace)
            if at != seen:  # nothing is read again while nothing was written
                outcome = once(workspace, settings, anew=anew, say=say, stop=stop, again=again)
                anew, seen = False, -1 if outcome.state == "done" else _audit_length(workspace)
                if outcome.state == "done" or outcome.settled:
                    came.append(outcome)
                if outcome.text != told:
                    say(told := outcome.text)
                if rounds is not None and sum(one.state == "done" for one in came) >= rounds:
                    return came
            stop.sleep(settings.poll_seconds)
    return came


def _through(work: Work, new: int | None = None, settled: tuple[dict[str, object], ...] = ()) -> Outcome:
    """Every step that is not done yet, in order."""
    from rlhf.evaluation import Waiting

    one, workspace = work.round, work.workspace
    with state.under_way(workspace, one):
        for name, step, with_rewards_alone in STEPS:
            if name in one.results or not (with_rewards_alone or work.settings.policy is not None):
                continue
            work.stop.check(name, one.again)
            one.begin(name)
            work.say(f"round {one.id}: {name.replace('_', ' ')}")
            try:
                one.end(name, step(work))
            except Waiting as waiting:
                runs.finish(workspace, one.id, "interrupted", error=waiting.message)
                wanted = work.settings.min_new_judgements
                return Outcome("waiting", one.id, new, wanted, waiting.why, settled=settled)
        runs.finish(workspace, one.id, "done", version_digest=one.results["reward"]["digest"])
    return decision.outcome(workspace, one, new=new, settled=settled)


def _new(workspace: Workspace, settings: LoopSettings) -> tuple[int, str | None]:
    """How many judgements are new on the train side, and since which cut: the last finished round's."""
    last = next(iter(reversed(state.finished(workspace, settings))), None)
    since = None if last is None else str(last.results["cut"]["snapshot"])
    n_new = snapshots.count_new(
        workspace, since, sources=settings.sources, holdout=settings.holdout, seed=settings.seed, kinds=settings.kinds
    )
    return n_new, since


def _missing(new: int, settings: LoopSettings, since: str | None) -> str:
    wanted = settings.min_new_judgements
    return (
        f"{wanted - new} more judgements are missing: {new} of {wanted} are new on the train side since "
        f"{since or 'the beginning'}; nothing was done"
    )


def _require_ready(workspace: Workspace, settings: LoopSettings) -> None:
    """Everything that would stop the round later and can be known now."""
    from rlhf.engine import bases
    from rlhf.evaluation.judges import open_judge

    bases.get(workspace, settings.base)
    if settings.judge is not None:
        open_judge(workspace, settings.judge)
    require_gates(workspace, settings)
    require_same_split(workspace, settings)


def _audit_length(workspace: Workspace) -> int:
    with workspace.read() as connection:
        return audit.length(connection)


def _silent(_text: str) -> None:
    """Nobody listens."""

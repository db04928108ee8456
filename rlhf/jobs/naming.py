"""Runs and jobs are named by the beginning of their ids, which never meet: one word means one of either."""

from __future__ import annotations

from rlhf.errors import BadInput, NotFound
from rlhf.jobs.queue import Job, list_jobs
from rlhf.store import Workspace, runs
from rlhf.store.runs import RunRow


def named(workspace: Workspace, text: str) -> Job | RunRow:
    """The one job or run whose id begins so. Raises NotFound where there is none or more than one."""
    if not text:
        raise BadInput("an id is empty", fix="see: rlhf run list")
    every: list[Job | RunRow] = [*list_jobs(workspace), *runs.list_runs(workspace)]
    found = [one for one in every if one.id.startswith(text.lower())]
    if len(found) != 1:
        raise NotFound(
            f"there is {'more than one run or job' if found else 'no run or job'} {text}", fix="see: rlhf run list"
        )
    return found[0]

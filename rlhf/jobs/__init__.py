"""Jobs: queued commands that become child processes, one after the other.

Takes: words of the command line; a run's or a job's id. Gives: jobs with their state, log and answer. Writes: the table of
jobs, `runs/jobs/<id>/log` and `out`, how a cancelled run ended. Never: imports what a job does, runs a job twice, signals a
process that only has the number of the one that is meant.
"""

from rlhf.jobs.cancel import Cancelled, cancel
from rlhf.jobs.naming import named
from rlhf.jobs.queue import Job, enqueue, find, list_jobs, state_now
from rlhf.jobs.work import work

__all__ = ["Cancelled", "Job", "cancel", "enqueue", "find", "list_jobs", "named", "state_now", "work"]

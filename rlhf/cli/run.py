"""`rlhf run`: what was started and how it ended; the queue of jobs, its worker, and how to stop either."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.jobs import Job
    from rlhf.store import Workspace
    from rlhf.store.runs import RunRow

app = typer.Typer(no_args_is_help=True, help="Runs and jobs: list, show, queue, work, cancel.", rich_markup_mode=None)

_FILES = ("config", "prompts")  # options that Typer makes paths of when it calls the command

Named = Annotated[str, typer.Argument(help="Id of a run or a job, or its beginning.", metavar="R")]


@verb(app, "list")
def list_(run: Run) -> None:
    """Every run and every job, newest last; a run whose process is gone is `lost`."""
    from rlhf import jobs
    from rlhf.store import runs

    workspace = run.workspace()
    started = [_run_json(workspace, row) for row in runs.list_runs(workspace)]
    queued = [_job_json(job) for job in jobs.list_jobs(workspace)]
    lines = [f"{r['id']}  {r['kind']:<8} {r['name']:<20} {r['state']:<12} {r['created_at'][:19]}" for r in started]
    if queued:
        lines += ["jobs", *(f"{j['id']}  {j['state']:<12} rlhf {' '.join(j['words'])}" for j in queued)]
    lines += [f"fix: {one['fix']}" for one in (*started, *queued) if one["state"] == "lost"]
    run.result(
        {"runs": started, "jobs": queued},
        "\n".join(lines) or "no run yet: rlhf reward train NAME --snapshot S --base B",
    )


@verb(app, "show")
def show(run: Run, run_id: Named) -> None:
    """One run: its settings, its folder, how it ended. One job: its words, its answer, the end of its log."""
    import json

    from rlhf import jobs

    workspace = run.workspace()
    found = jobs.named(workspace, run_id)
    if isinstance(found, jobs.Job):
        shown = {**_job_json(found), "answer": found.answer, "log": found.log()}
    else:
        shown = _run_json(workspace, found)
    run.result(shown, json.dumps(shown, indent=2, ensure_ascii=False))


@verb(app, "queue")
def queue(
    run: Run,
    words: Annotated[list[str], typer.Argument(help="A command, behind a --, without `rlhf`.", metavar="-- WORDS…")],
) -> None:
    """Queue a command for a worker (`rlhf run work`). A misspelled one, or one with wrong settings, is refused now."""
    from rlhf import jobs

    workspace = run.workspace()
    _require_settings(workspace, *_parsed(words))
    job = jobs.enqueue(workspace, words, cwd=Path.cwd())
    run.result(_job_json(job), f"queued as {job.id}: rlhf {' '.join(words)}")


@verb(app, "work")
def work(
    run: Run,
    once: Annotated[bool, typer.Option("--once", help="End when nothing is queued any more.")] = False,
) -> None:
    """Run queued jobs, one after the other, each in a process of its own."""
    from rlhf import jobs

    ran = jobs.work(run.workspace(), once=once, say=run.say)
    lines = [f"{job.id}  {job.state:<10} rlhf {' '.join(job.words)}" for job in ran]
    run.result({"jobs": [_job_json(job) for job in ran]}, "\n".join(lines) or "nothing was queued")


@verb(app, "cancel")
def cancel(
    run: Run,
    run_id: Named,
    now: Annotated[bool, typer.Option("--now", help="Kill it; without, it finishes its step first.")] = False,
    timeout: Annotated[float, typer.Option(help="How long to wait for it to stop, in seconds.", min=0)] = 60.0,
) -> None:
    """Take a job off the queue, or stop a running one; a training leaves a checkpoint to go on from."""
    from rlhf import jobs

    done = jobs.cancel(run.workspace(), run_id, now=now, timeout_s=timeout)
    what = " of ".join([f"run {done.run}"] * bool(done.run) + [f"job {done.job}"] * bool(done.job))
    more = "; go on with the same command and --resume" if done.run and done.state != "done" else ""
    run.result(done.as_json(), f"{what}: {done.state}{more}")


def _parsed(words: list[str]) -> tuple[str, dict[str, Any]]:
    """The command and its values, read as the command line would, and nothing done: a job that can't be read fails before it
    waits."""
    from typer.core import TyperGroup

    from rlhf.cli import build
    from rlhf.errors import BadUsage

    command: Any = typer.main.get_command(build())
    context = command.make_context("rlhf", list(words))
    path: list[str] = []
    while isinstance(command, TyperGroup):
        rest = [*context._protected_args, *context.args]  # what a group's own `invoke` goes on with
        name, command, rest = command.resolve_command(context, rest)
        if isinstance(command, TyperGroup) and not rest:
            raise BadUsage(f"'{' '.join(words)}' is no whole command", fix=f"see: rlhf {' '.join(words)} --help")
        context = command.make_context(name, rest, parent=context)
        path.append(str(name))
    return " ".join(path), dict(context.params)


def _require_settings(workspace: Workspace, command: str, values: dict[str, Any]) -> None:
    """Raise what the command itself would on its settings. What they name may be made by a job before it: not looked up."""
    from inspect import signature

    from rlhf.cli import loop, policy, reward

    chooses: dict[str, Callable[..., Any]] = {
        "reward train": reward.chosen,
        "policy train": policy.chosen,
        "loop run": loop.chosen,
    }
    if (choose := chooses.get(command)) is None:
        return
    values |= {key: Path(value) for key, value in values.items() if key in _FILES and value is not None}
    values["root"] = workspace.root
    choose(**{key: values[key] for key in signature(choose).parameters})


def _run_json(workspace: Workspace, row: RunRow) -> dict[str, Any]:
    from rlhf.rounds.state import again as loop_again
    from rlhf.store import runs

    state = runs.state_now(workspace, row)
    again = f"rlhf {row.kind} train {row.name} --config {workspace.root / row.folder / 'config.yaml'} --resume"
    if row.kind == "reward" and row.settings.get("bootstrap") and (whole := row.name.rpartition(".")[0]):
        again = f"the command that trains {whole}, whose member {row.name} is, and --resume; the member alone: {again}"
    if row.kind == "loop":
        again = loop_again(workspace, row)
    if row.kind == "calibration":
        from rlhf.reward.settings import CalibrationSettings

        words = CalibrationSettings.words(row.settings)
        again = f"rlhf reward calibrate {row.settings['version']} --snapshot {row.settings['snapshot']} {words}".strip()
    fix = {"fix": f"run {row.id} lost its process; go on: {again}"} if state == "lost" else {}
    return {**row.as_json(), "state": state, **fix}


def _job_json(job: Job) -> dict[str, Any]:
    from rlhf.jobs import state_now

    state = state_now(job)
    fix = {"fix": f"job {job.id} lost its process; rlhf run work records how it ended"} if state == "lost" else {}
    return {**job.as_json(), "state": state, **fix}

"""`rlhf policy`: train a policy against a reward, write replies with it, see whether it was optimised too far."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rlhf.cli.boundary import Run, json_text, put, verb
from rlhf.cli.curve import curve
from rlhf.cli.known import require_known

if TYPE_CHECKING:
    from rlhf.policy.settings import PolicySettings
    from rlhf.records import Role

app = typer.Typer(no_args_is_help=True, help="Policies: train against a reward, write replies.", rich_markup_mode=None)
verb(app, "curve")(curve)


@verb(app, "train")
def train(
    run: Run,
    name: Annotated[str, typer.Argument(help="Name of the version to publish.", metavar="NAME")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(help="Settings as key=value; see: rlhf policy settings", metavar="[key=value …]"),
    ] = None,
    reward: Annotated[
        list[str] | None, typer.Option(help="Reward version; give it again for a weighted sum.", metavar="VERSION")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Base model in the workspace.", metavar="B")] = None,
    method: Annotated[str | None, typer.Option(help="grpo, rloo or dpo.", metavar="METHOD")] = None,
    from_version: Annotated[
        str | None, typer.Option("--from", help="Policy version to go on from.", metavar="VERSION")
    ] = None,
    prompts: Annotated[
        Path | None,
        typer.Option(help='JSONL of {"prompt"}; none = the train side of the reward\'s snapshot.', metavar="FILE"),
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(help="dpo: sampled (ranked by the reward) or human.", metavar="sampled|human")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file of settings.", metavar="FILE")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where this run was interrupted.")] = False,
) -> None:
    """Train a policy adapter against a reward and publish it as NAME's next version."""
    asked = chosen(name, settings, reward, base, method, from_version, prompts, pairs, config)
    workspace = run.workspace()
    wanted: list[tuple[str | None, Role]] = [(version, "reward") for version in asked.reward]
    require_known(workspace, name, asked.base, versions=[*wanted, (asked.from_version, "policy")])
    run.say("loading torch and TRL")
    from rlhf import policy

    trained = policy.train(workspace, asked, resume=resume, say=run.say)
    figures = "  ".join(
        f"{key} {value:.3f}" if isinstance(value, float) else f"{key} {value}" for key, value in trained.metrics.items()
    )
    word = "published" if trained.is_new else "the same training was published before, as"
    stopped = f"{trained.stopped}: the last good adapter is kept\n" if trained.stopped else ""
    run.result(
        trained.as_json(),
        f"{stopped}{word} {trained.version}  sha256:{trained.version.digest[:12]}\n{figures}\n"
        f"report: {trained.run_folder / 'report.html'}",
    )


def chosen(
    name: str,
    settings: list[str] | None,
    reward: list[str] | None,
    base: str | None,
    method: str | None,
    from_version: str | None,
    prompts: Path | None,
    pairs: str | None,
    config: Path | None,
) -> PolicySettings:
    """What `policy train` was told. Raises BadUsage for everything that is wrong with it."""
    from rlhf import config as configuration
    from rlhf.policy.settings import PolicySettings

    return configuration.load(
        PolicySettings,
        config,
        settings or (),
        name=name,
        reward=reward or None,
        base=base,
        method=method,
        from_version=from_version,
        prompts=prompts,
        pairs=pairs,
    )


@verb(app, "settings")
def settings(run: Run) -> None:
    """Every setting of a policy training with its default and its help."""
    from rlhf import config
    from rlhf.policy.settings import PolicySettings

    schema = PolicySettings.model_json_schema()["properties"]
    run.result(
        {name: {"default": field.get("default"), "help": field.get("description")} for name, field in schema.items()},
        config.describe(PolicySettings),
    )


@verb(app, "generate")
def generate(
    run: Run,
    version: Annotated[str, typer.Argument(help="name@7, name@alias, sha256:… or base:NAME", metavar="VERSION")],
    file: Annotated[Path, typer.Argument(help='JSONL of {"prompt", "id"}; - = standard input.', metavar="FILE")],
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Tokens that a reply may have.")] = 128,
    temperature: Annotated[float, typer.Option(min=0.0, max=10.0, help="0 = always the likeliest token.")] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0.01, max=1.0, help="Sample from the likeliest tokens of this sum.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Same seed, same replies.")] = 0,
    best_of: Annotated[int, typer.Option(min=1, max=256, help="Sample N, keep the one the reward likes best.")] = 1,
    reward: Annotated[str | None, typer.Option(help="Reward version that chooses.", metavar="V")] = None,
    dtype: Annotated[str, typer.Option(help="Type of the body: float32, bfloat16 or auto.")] = "float32",
) -> None:
    """Write a reply to each prompt: one JSON object a line, in the file's order, each naming the version that wrote it."""
    from rlhf.policy.prompts import prompts_in, read_prompts

    workspace = run.workspace()
    prompts = prompts_in(sys.stdin.buffer.read(), "standard input") if str(file) == "-" else read_prompts(file)
    from rlhf import registry
    from rlhf.engine.sampling import Sampling
    from rlhf.policy.naming import resolve_policy

    written = resolve_policy(workspace, version)
    if reward is not None:
        registry.resolve(workspace, reward, role="reward")
    from rlhf.engine.placement import choose
    from rlhf.policy.writing import iterate

    sampling = Sampling(max_new_tokens, temperature, top_p, seed)
    found = iterate(
        workspace,
        written.text,  # not `version`: an alias may move between the two
        prompts,
        sampling,
        best_of=best_of,
        reward=reward,
        place=choose("auto", dtype),
        on_progress=_told,
    )
    for reply in found:
        own = reply.prompt.given if reply.prompt.given is not None else reply.prompt.id
        row: dict[str, Any] = {"id": own, "reply": reply.text, "version": written.text, "digest": written.digest}
        row |= {"tokens": reply.n_tokens, "cut_off": reply.cut_off}
        if reply.points is not None:
            row["score"] = reply.points
        if not put(json_text(row)):
            break


def _told(done: int, total: int) -> None:
    print(f"wrote {done}/{total} replies", file=sys.stderr, flush=True)

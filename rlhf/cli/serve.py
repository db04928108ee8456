"""`rlhf serve`: replies and scores of versions over OpenAI's API."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from rlhf.cli.boundary import Run, verb

if TYPE_CHECKING:
    from rlhf.serving.serve import Listening


def register(app: typer.Typer) -> None:
    """Hang `serve` into the command tree."""
    verb(app, "serve")(serve)


def serve(
    run: Run,
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[KEY=VALUE]…",
            help="Limits: rows, slots, max_rank, queue, deadline_s, drain_s, body_bytes, per_s, burst, votes_per_unit; "
            "and max_tokens, the length of a reply that names none. See: rlhf serve --settings",
        ),
    ] = None,
    settings: Annotated[
        bool, typer.Option("--settings", help="List every setting with its default and its help, and start nothing.")
    ] = False,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; others than this machine's own want tokens.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="The port to listen on; 0 = any free one.")] = 8000,
    base: Annotated[
        str | None, typer.Option("--base", help="The base to hold in memory, where there are several.", metavar="NAME")
    ] = None,
    engine: Annotated[
        str, typer.Option("--engine", help="embedded: in this process; vllm: processes that run already.")
    ] = "embedded",
    vllm_generate: Annotated[
        str | None, typer.Option("--vllm-generate", help="The vLLM that writes replies.", metavar="URL")
    ] = None,
    vllm_score: Annotated[
        str | None,
        typer.Option(
            "--vllm-score", help="The vLLM that pools, for rewards; left out: no rewards are served.", metavar="URL"
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")] = "auto",
    dtype: Annotated[
        str | None,
        typer.Option(
            "--dtype",
            help="auto, float32 or bfloat16. Left out: float32 on a CPU, the device's best on CUDA. "
            "With vLLM: what it was started with; left out: float32.",
        ),
    ] = None,
    allow_host: Annotated[
        list[str],
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A name by which this server may be called (behind a proxy, say). May be repeated.",
        ),
    ] = [],  # noqa: B006
) -> None:
    """Answer OpenAI's clients with versions by name, alias, number or digest, until Ctrl-C or SIGTERM."""
    import os

    from rlhf import config
    from rlhf.engine.placement import choose
    from rlhf.errors import BadUsage
    from rlhf.serving.bounds import ServeSettings
    from rlhf.serving.engines import addresses_of, vllm_placement
    from rlhf.serving.serve import serve as run_server

    if settings:
        fields = ServeSettings.model_json_schema()["properties"]
        told = {name: {"default": one["default"], "help": one["description"]} for name, one in fields.items()}
        run.result(told, config.describe(ServeSettings))
        return
    bounds = config.load(ServeSettings, None, words or ())
    workspace = run.workspace()
    vllm = addresses_of(engine, vllm_generate, vllm_score, os.environ)
    if vllm is not None and device != "auto":
        raise BadUsage("--device is the embedded engine's", fix="leave it out: vLLM runs where it was started")
    place = None
    if vllm is not None:
        place = vllm_placement(dtype)
    elif dtype is not None or device != "auto":
        try:
            place = choose(device, dtype or "auto")
        except BadUsage as error:  # its fix is for settings' words
            raise BadUsage(error.message, fix=error.fix.replace("device=", "--device ")) from None

    def announce(listening: Listening) -> None:
        told = {
            "address": listening.address,
            "url": f"{listening.address}/v1",
            "base": listening.base,
            "wants_token": listening.wants_token,
        }
        key = "with a token of: rlhf people token NAME --scope serve" if listening.wants_token else "no token is wanted"
        run.result(told, f"serving versions on {listening.base} at {listening.address}/v1, {key}")
        run.say(f"{listening.placement}; stop with Ctrl-C, which lets replies under way end")

    run_server(
        workspace, host, port, base=base, place=place, vllm=vllm, hosts=allow_host, bounds=bounds, on_listen=announce
    )

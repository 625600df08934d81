"""`run`: one answer, or a conversation."""

from __future__ import annotations

import json as json_module
import sys
from pathlib import Path
from typing import Annotated

import typer

from edge.cli.catalog import DEFAULT_TOP_K, open_offer
from edge.cli.catalog import check_flags as check_catalog_flags
from edge.cli.execute import ExecuteOptions, check_flags, run_executing
from edge.cli.open_world import answer, check_open_world
from edge.cli.options import (
    DeviceProfileOption,
    EmbedModelOption,
    GpuLayersOption,
    JsonOption,
    KvTypeOption,
    ModelOption,
    NCtxOption,
    OpenWorldProfileOption,
    StateCacheOption,
    ThinkOption,
    ThreadsOption,
    VerboseOption,
)
from edge.cli.plan import open_planned
from edge.cli.progress import warn
from edge.cli.session import Settings, check_prompt, reply_document, set_up_logging
from edge.cli.state_cache import state_cache_options
from profiles.plan import Pins


def run_command(
    prompt: Annotated[
        str | None,
        typer.Argument(
            metavar="[PROMPT]", help="What to ask. Without it: standard input, or a conversation."
        ),
    ] = None,
    model: ModelOption = "demo",
    tools: Annotated[
        Path | None,
        typer.Option(metavar="FILE", envvar="SMOLTOOLS_EDGE_TOOLS", help="JSON list of OpenAI-style tools."),
    ] = None,
    catalog: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Many tools, as a JSON list or lines: those that fit the question are offered.",
        ),
    ] = None,
    top_k: Annotated[
        int | None,
        typer.Option(
            "--top-k",
            metavar="K",
            min=1,
            max=100,
            help="Offer the K tools that fit. Of a catalogue 5, else all.",
        ),
    ] = None,
    tool_budget: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="Tokens for the catalogue's tools. Default: a quarter of n_ctx."
        ),
    ] = None,
    embed_model: EmbedModelOption = None,
    open_world: Annotated[
        bool,
        typer.Option("--open-world", help="The model searches the catalogue by itself, as ToolOmni does."),
    ] = False,
    open_world_profile: OpenWorldProfileOption = None,
    simulate: Annotated[
        bool,
        typer.Option("--simulate", help="With --open-world: go on to the answer, with tools that pretend."),
    ] = False,
    tool_choice: Annotated[
        str, typer.Option(metavar="CHOICE", help="auto, none, required, or the name of a tool.")
    ] = "auto",
    system: Annotated[str | None, typer.Option(metavar="TEXT", help="System text.")] = None,
    max_tokens: Annotated[
        int,
        typer.Option(metavar="N", envvar="SMOLTOOLS_EDGE_MAX_TOKENS", help="Tokens of the answer at most."),
    ] = 512,
    temperature: Annotated[
        float | None,
        typer.Option(
            metavar="T",
            envvar="SMOLTOOLS_EDGE_TEMPERATURE",
            help="0 is greedy. Default: what suits the model.",
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Same seed, same answer.")] = None,
    n_ctx: NCtxOption = None,
    threads: ThreadsOption = None,
    kv_type: KvTypeOption = None,
    gpu_layers: GpuLayersOption = None,
    device_profile: DeviceProfileOption = None,
    state_cache: StateCacheOption = None,
    execute: Annotated[
        bool, typer.Option("--execute", help="Run the calls, within a policy, until there is an answer.")
    ] = False,
    workspace: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The folder of file tools and programs. Default: this one."),
    ] = None,
    builtin: Annotated[
        str | None,
        typer.Option(metavar="NAMES", help="Built-in tools, with commas between, or none. Default: all."),
    ] = None,
    tool_config: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML or JSON: limits, services, own command and HTTP tools."),
    ] = None,
    mcp: Annotated[
        Path | None, typer.Option("--mcp", metavar="FILE", help="JSON with mcpServers, whose tools are used.")
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="TOML: which calls are allowed, asked about, denied.")
    ] = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Allow what would be asked about. Denied calls stay denied.")
    ] = False,
    max_steps: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Answers with calls, at most. Default: 12.")
    ] = None,
    transcript: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Append what happens, as JSON lines; see `replay`.")
    ] = None,
    no_grammar: Annotated[
        bool, typer.Option("--no-grammar", help="Do not constrain calls; malformed ones are reported.")
    ] = False,
    think: ThinkOption = None,
    json: JsonOption = False,
    verbose: VerboseOption = False,
) -> None:
    """Ask a model, with tools that it may call.

    Example: smoltools-edge run --tools tools.json "What is the weather in Paris?"
    """
    from edge.grammar import read_tools

    set_up_logging(verbose)
    settings = Settings(
        tools=read_tools(tools) if tools else (),
        tool_choice=tool_choice,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        grammar=not no_grammar,
        think=think,
        **({} if seed is None else {"seed": seed}),
    )
    flags = ExecuteOptions(
        workspace=workspace, config=tool_config, builtin=builtin, mcp=mcp, policy=policy, yes=yes,
        max_steps=max_steps, transcript=transcript, top_k=top_k, tool_budget=tool_budget,
    )  # fmt: skip
    check_flags(flags, execute=execute, catalog=catalog, open_world=open_world)
    check_catalog_flags(catalog, execute=execute, top_k=top_k, budget=tool_budget, embed_model=embed_model)
    check_open_world(catalog, open_world=open_world, simulate=simulate, profile=open_world_profile)
    interactive = prompt is None and sys.stdin.isatty() and not json and not open_world
    text = None if interactive else check_prompt(_read_prompt(prompt))
    pins = Pins(n_ctx=n_ctx, n_threads=threads, kv_type=kv_type, n_gpu_layers=gpu_layers)
    engine, planned = open_planned(
        model, pins, profile_file=device_profile, state_cache=state_cache_options(state_cache)
    )
    with (
        engine,
        open_offer(
            catalog, engine, k=top_k or DEFAULT_TOP_K, budget=tool_budget, embed_model=embed_model
        ) as offer,
    ):
        if execute:
            warn(engine.model.path, engine.warnings)
            run_executing(engine, settings, flags, text, planned.plan if json else None)
            return
        if text is None:
            from edge.cli.repl import converse

            warn(engine.model.path, engine.warnings)
            converse(engine, settings, offer)
            return
        if open_world:
            assert offer is not None
            from edge.tools.open_world.profile import profile_for

            profile = profile_for(open_world_profile, str(engine.facts["name"]))
            answer(engine, offer.index, text, settings, profile, planned.plan, simulate=simulate, json=json)
            return
        request = settings.request([{"role": "user", "content": text}])
        request = offer.apply(request) if offer else request
        if json:
            document = reply_document(engine.chat(request), engine, settings, planned.plan)
            if offer:
                document["tools_offered"] = [tool.name for tool in offer.tools]
            warn(engine.model.path, engine.warnings)
            typer.echo(json_module.dumps(document, ensure_ascii=False, indent=2))
            return
        from edge.cli.render import make_renderer, show_all

        events = engine.stream(request)  # raises for a bad request, whose line then stands alone
        warn(engine.model.path, engine.warnings)
        show_all(events, make_renderer())


def _read_prompt(prompt: str | None) -> str:
    if prompt is not None and prompt != "-":
        return prompt
    return sys.stdin.buffer.read().decode("utf-8", "replace")

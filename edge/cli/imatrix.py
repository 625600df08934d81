"""`imatrix`: an importance matrix for quantizing, from conversations rendered with the model's own template."""

from __future__ import annotations

import json as json_module
import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

import typer

from edge.cli.convert import drawn_progress, translated_errors
from edge.cli.options import REF_HELP, JsonOption
from edge.cli.progress import tell
from edge.errors import RequestError


def imatrix_command(
    model: Annotated[str, typer.Argument(metavar="MODEL", help=REF_HELP + " Best the BF16 file.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="Importance matrix to write (.gguf).")],
    calibration: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON lines with messages and tools, or plain text. Default: 32 tool-calling conversations.",
        ),
    ] = None,
    n_ctx: Annotated[
        int, typer.Option("--n-ctx", metavar="N", min=16, help="Tokens evaluated at once.")
    ] = 512,
    threads: Annotated[int | None, typer.Option(metavar="N", min=1, help="Default: all cores.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    json: JsonOption = False,
) -> None:
    """Make an importance matrix. Example: smoltools-edge imatrix model-bf16.gguf --out model.imatrix.gguf"""
    if out.exists() and not force:
        raise RequestError(f"{out} exists; use --force to replace it")
    with translated_errors():
        from convert import Progress
        from convert.imatrix import make_imatrix
        from edge.models.store import resolve

        path = resolve(model, tell).path
        texts = calibration_texts(calibration, path)
        with drawn_progress() as on_progress:
            summary = make_imatrix(
                path,
                texts,
                out,
                dataset=calibration.name if calibration else "smoltools-edge tool calls",
                n_ctx=n_ctx,
                n_threads=threads or os.cpu_count() or 1,
                on_progress=lambda done, total: on_progress(Progress("imatrix", done, total)),
            )
    document = {
        "path": str(summary.path),
        "weights": summary.n_weights,
        "chunks": summary.n_chunks,
        "tokens": summary.n_tokens,
    }
    if json:
        typer.echo(json_module.dumps(document, indent=2))
    else:
        typer.echo(
            f"{summary.path}  {summary.n_weights} weights, {summary.n_tokens} tokens in {summary.n_chunks} pieces"
        )


def calibration_texts(calibration: Path | None, model: Path) -> list[str]:
    """The texts to run: conversations through the model's template, or the file as it is if it is not JSON lines.

    Raises RequestError for a file that cannot be read, ToolsError and TemplateError for conversations that fail.
    """
    if calibration is None:
        data = resources.files("convert") / "data"
        lines = (data / "calibration.jsonl").read_text(encoding="utf-8")
        tools = json_module.loads((data / "calibration_tools.json").read_text(encoding="utf-8"))
        return _rendered(lines, tools, model)
    try:
        text = calibration.read_text(encoding="utf-8")
    except OSError as exc:
        raise RequestError(f"the calibration file {calibration} cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise RequestError(f"the calibration file {calibration} is not UTF-8: {exc.reason}") from exc
    return _rendered(text, [], model) if text.lstrip().startswith("{") else [text]


def _rendered(lines: str, tools: list[Any], model: Path) -> list[str]:
    from edge.chat.template import ChatTemplate, hermes_template, render_prompt
    from edge.engine.gguf_header import read_gguf_header
    from edge.grammar import parse_tools

    stored = read_gguf_header(model).metadata.get("tokenizer.chat_template")
    template = ChatTemplate(stored, model.name) if isinstance(stored, str) else hermes_template()
    if template.tool_format == "none":  # it would leave the conversations' tools out
        template = hermes_template()
    by_name = {tool["function"]["name"]: tool for tool in tools}
    texts = []
    for number, line in enumerate(lines.splitlines(), 1):
        if not line.strip():
            continue
        case = _case(line, number)
        named = [
            by_name.get(tool, tool) if isinstance(tool, str) else tool for tool in case.get("tools") or []
        ]
        texts.append(render_prompt(template, case["messages"], parse_tools(named)).text)
    return texts


def _case(line: str, number: int) -> dict[str, Any]:
    try:
        case = json_module.loads(line)
    except (ValueError, RecursionError) as exc:
        raise RequestError(f"line {number} of the calibration file is not JSON: {exc}") from exc
    if not isinstance(case, dict) or not isinstance(case.get("messages"), list):
        raise RequestError(f"line {number} of the calibration file has no messages")
    return case

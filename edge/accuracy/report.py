"""Writes the report's files, each whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from edge.accuracy.check import CheckResult
from edge.accuracy.errors import CheckError
from edge.accuracy.report_text import to_markdown


def write_report(document: dict[str, Any], result: CheckResult, folder: Path) -> list[Path]:
    """report.html, report.json and report.md in `folder`; their paths. Raises CheckError."""
    from edge.accuracy.report_html import to_html

    texts = {
        "report.html": to_html(document, result),
        "report.json": json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False) + "\n",
        "report.md": to_markdown(document),
    }
    return [_write(folder / name, text) for name, text in texts.items()]


def _write(path: Path, text: str) -> Path:
    partial = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # A lone surrogate that a server sent is no reason to lose the report.
        partial.write_text(text, encoding="utf-8", errors="replace")
        os.replace(partial, path)  # noqa: PTH105 - atomic also over an existing file
    except OSError as exc:
        raise CheckError(f"{path} cannot be written: {exc.strerror or exc}") from exc
    return path

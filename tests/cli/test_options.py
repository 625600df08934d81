"""What several commands take is declared once."""

from __future__ import annotations

import ast
from collections import Counter
from pathlib import Path

import edge.cli


def declarations(folder):
    """The options and arguments that a folder's modules declare, each as source text without its layout."""
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("typer.Option", "typer.Argument"):
                yield ast.unparse(node)


def test_no_option_is_declared_twice():
    counts = Counter(declarations(Path(edge.cli.__file__).parent))
    assert len(counts) > 50
    assert [text for text, n in counts.items() if n > 1] == []


def test_a_declaration_is_found_however_it_is_laid_out(tmp_path):
    (tmp_path / "a.py").write_text('x = typer.Option("--x", help="X.")\n')
    (tmp_path / "b.py").write_text('y = typer.Option(\n    "--x",\n    help="X.",\n)\n')
    assert len(set(declarations(tmp_path))) == 1
    assert len(list(declarations(tmp_path))) == 2

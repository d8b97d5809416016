"""Comment-blind digests of the code behind each stage. `python -m tests.contract.pins` writes them anew."""

from __future__ import annotations

import ast
import hashlib
import json
from functools import cache
from pathlib import Path

import edgekit
from edgekit.stages import STAGES

PACKAGE = Path(edgekit.__file__).parent
PINS = Path(__file__).parent / "pins.json"
BEHIND = ("edgekit.nn", "edgekit.formats", "edgekit.tasks", "edgekit.stages")  # what can change a stage's result
BEHIND += ("edgekit.tokenizer_files", "edgekit.data.augment", "edgekit.data.tags")


@cache
def current() -> dict[str, dict[str, int | str]]:
    """Stage -> its version and the digest of its code."""
    modules = {name: f"edgekit.stages.{stage.module}" for name, stage in STAGES.items()}
    return {name: {"version": stage.version, "code": _digest(modules[name])} for name, stage in STAGES.items()}


def _digest(module: str) -> str:
    """sha256 over the syntax trees, without docstrings, of the module and of what it imports from BEHIND."""
    seen: dict[str, str] = {}
    todo = [module]
    while todo:
        name = todo.pop()
        file = PACKAGE.parent / f"{name.replace('.', '/')}.py"
        if name in seen or not file.is_file():
            continue
        tree = _without_docstrings(ast.parse(file.read_text(encoding="utf-8")))
        seen[name] = ast.dump(tree)
        todo += [
            n.module
            for n in ast.walk(tree)
            if isinstance(n, ast.ImportFrom) and n.module and n.module.startswith(BEHIND)
        ]
    return hashlib.sha256(json.dumps(seen, sort_keys=True).encode()).hexdigest()


def _without_docstrings(tree: ast.Module) -> ast.Module:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if (
            isinstance(body, list)
            and body
            and isinstance(body[0], ast.Expr)
            and isinstance(body[0].value, ast.Constant)
        ):
            body.pop(0)
    return tree


if __name__ == "__main__":
    PINS.write_text(json.dumps(current(), indent=2) + "\n", encoding="utf-8")

"""Real models and texts, where the checkout has them beside it; a chat template; a run that is killed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgekit.data.table import Table

DATA = Path(__file__).resolve().parents[4] / "shared" / "data"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def real_model(name: str) -> Path:
    """The folder of a model under shared/data/models; skips the test where there is none."""
    folder = DATA / "models" / name
    if not folder.is_dir():
        pytest.skip(f"needs the model {name} in shared/data/models beside the checkout")
    return folder


def shakespeare(first: int, count: int) -> Table:
    """Speeches of Tiny Shakespeare, about 150 characters each."""
    files = [p for p in (DATA / "sets" / "tinyshakespeare").glob("*.txt") if p.name != "SOURCE.txt"]
    if not files:
        pytest.skip("needs shared/data/sets/tinyshakespeare beside the checkout")
    speeches = files[0].read_text(encoding="utf-8").split("\n\n")
    return Table(tuple(speeches[first : first + count]), name="speeches")


def chatty(folder: Path, out: Path, template: str = CHATML) -> Path:
    """A copy of the model that has a chat template."""
    shutil.copytree(folder, out)
    out.chmod(0o755)
    (out / "chat_template.jinja").write_text(template, encoding="utf-8")
    return out

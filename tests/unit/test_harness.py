"""A task of lm-evaluation-harness on a file that ships, against our own score of the same sentences."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgekit.artifact import Artifact
from edgekit.data.table import Table
from edgekit.errors import UsageError
from edgekit.interrogate import Venue
from edgekit.zero_shot import blimp_score
from tests.conftest import bpe_spec
from tests.unit.tiny_lm import sealed, write_gguf, write_hf

pytest.importorskip("llama_cpp")
GOOD = ("my card is lost", "the money arrived", "where is my transfer", "the cards are lost", "it was not me")
BAD = ("my card are lost", "the money arrive", "where are my transfer", "the cards is lost", "it were not me")
TASK = """task: tiny_pairs
dataset_path: json
dataset_kwargs: {{data_files: {{test: "{file}"}}}}
test_split: test
output_type: multiple_choice
doc_to_text: ""
target_delimiter: ""
doc_to_choice: "{{{{[good, bad]}}}}"
doc_to_target: 0
metric_list: [{{metric: acc}}]
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Artifact, Artifact, Path]:
    """A tiny Llama, its GGUF with a tokenizer, and a folder with a task of ours."""
    home = tmp_path_factory.mktemp("lm")
    original = write_hf(home / "hf", bpe_spec([*GOOD, *BAD], 300), 301)  # with <mask>
    gguf = write_gguf(original, home / "gguf")
    shutil.copyfile(original.path / "tokenizer.json", gguf.path / "tokenizer.json")
    (gguf.path / "tokenizer_config.json").write_text(json.dumps({"bos_token": "<s>"}))
    (gguf.path / "manifest.json").unlink()
    data = home / "pairs.jsonl"
    data.write_text("".join(json.dumps({"good": g, "bad": b}) + "\n" for g, b in zip(GOOD, BAD, strict=True)))
    (home / "tasks").mkdir()
    (home / "tasks" / "tiny_pairs.yaml").write_text(TASK.format(file=data))
    return original, sealed(gguf.path, "gguf"), home / "tasks"


def test_the_harness_finds_what_we_find(files: tuple[Artifact, Artifact, Path]) -> None:
    pytest.importorskip("lm_eval")
    from edgekit.harness import FileModel, evaluate_tasks

    original, gguf, tasks = files
    venue = Venue(threads=1)
    found = evaluate_tasks(gguf, ["tiny_pairs"], include=tasks, venue=venue)
    alone = blimp_score(gguf, Table(GOOD, BAD), original.path, venue=venue)
    assert found["tiny_pairs"]["acc"] == pytest.approx(alone.accuracy.value)
    model = FileModel(gguf, venue)
    ids = model.tok_encode(GOOD[0])
    (told,) = model._loglikelihood_tokens([(("", GOOD[0]), [model.eot_token_id], ids)])
    assert told[0] == pytest.approx(alone.good[0], abs=1e-3)
    with pytest.raises(UsageError, match="no task 'absent'"):
        evaluate_tasks(gguf, ["absent"], include=tasks, venue=venue)


def test_without_the_extra_the_command_says_what_to_install(
    files: tuple[Artifact, Artifact, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import util

    from edgekit.cli.lm_eval import command
    from edgekit.errors import MissingExtraError

    monkeypatch.setattr(util, "find_spec", lambda name: None)
    done = CliRunner().invoke(command, [str(files[1].path), "--tasks", "tiny_pairs"])
    assert isinstance(done.exception, MissingExtraError)
    assert "pip install 'edgekit[lm-eval]'" in str(done.exception)

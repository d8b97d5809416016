from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import patch

import click
import pytest
import report_sample
import tiny_onnx
from click.testing import CliRunner

from edgekit.cli.console import Live
from edgekit.cli.main import COMMANDS, cli
from edgekit.cli.options import config_options
from edgekit.cli.run import show
from edgekit.stages import STAGES


def edgekit(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A real process, as a user starts it."""
    return subprocess.run([sys.executable, "-m", "edgekit.cli.main", *arguments], capture_output=True, text=True)


def test_help_imports_nothing_heavy() -> None:
    code = "import sys; from edgekit.cli.main import cli; from click.testing import CliRunner\n"
    code += "assert CliRunner().invoke(cli, ['--help']).exit_code == 0\n"
    code += "print([m for m in ('torch', 'onnx', 'transformers', 'pydantic', 'numpy', 'rich') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", list(COMMANDS))
def test_every_command_has_help_and_an_example(name: str) -> None:
    result = CliRunner().invoke(cli, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert f"edgekit {name}" in result.output


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_command_has_an_option_for_every_field(name: str) -> None:
    output = CliRunner().invoke(cli, [name, "--help"]).output
    for field, info in STAGES[name].config().model_fields.items():
        assert f"--{field.replace('_', '-')}" in output
        assert info.description, f"{name}.{field} has no description"


def test_options_take_what_the_config_takes() -> None:
    options = {option.name: option for option in config_options(STAGES["quantize"].config())}
    assert isinstance(options["method"].type, click.Choice)
    assert "q8_0" in options["method"].type.choices
    assert "int8-dynamic" in options["method"].type.choices
    assert options["exclude"].multiple
    assert options["per_channel"].secondary_opts == ["--no-per-channel"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["rnu"], "Did you mean 'run'?"),
        (["run", "text-clasifier", "--out", "x"], "did you mean 'text-classifier'?"),
        (["run", "text-classifier", "--out", "x"], "params.model: is required"),
        (["export", "nowhere/at/all", "out"], "no such folder: nowhere/at/all"),
        (["prune", "pkg:not_there/model", "out"], "the package 'not_there' is not installed"),
        (["gate", "nowhere.json"], "nowhere.json"),
        (["inspect", "ffff"], "0 artifacts start with 'ffff'"),
        (["inspect", "./ffff"], "no such folder: ./ffff"),
    ],
)
def test_a_mistake_gets_a_message_and_exit_code(arguments: list[str], message: str, tmp_path: Path) -> None:
    result = edgekit(*arguments)
    assert message in result.stderr
    assert "Traceback" not in result.stderr
    assert result.returncode in (2, 3)


@pytest.mark.parametrize("option", ["--rounds", "--batch", "--items"])
def test_a_workload_that_cannot_be_is_a_mistake_of_the_users(option: str, tmp_path: Path) -> None:
    folder = tiny_onnx.make(tmp_path / "tiny").path
    (tmp_path / "a.csv").write_text("text\non\n")
    done = edgekit("bench", str(folder), "--data", str(tmp_path / "a.csv"), option, "0")
    assert done.returncode == 2
    assert option in done.stderr and "unforeseen" not in done.stderr


def test_rounds_past_the_end_are_counted_without_one(capsys: pytest.CaptureFixture[str]) -> None:
    """Rounds go on until a rule is decided."""
    live = Live()
    with patch("edgekit.cli.console.LINE_EVERY", -1):
        assert len(list(live.track(range(4), "measuring", 3))) == 4
    told = capsys.readouterr().err
    assert "measuring: 3 of 3, about 0 s left" in told and "measuring: 4\n" in told and "of 3, about -" not in told


def test_a_folder_of_folders_is_told_what_is_in_it(tmp_path: Path) -> None:
    (tmp_path / "onnx-int8").mkdir()
    (tmp_path / "onnx-int8" / "manifest.json").write_text("{}")
    for command in ("inspect", "explain"):
        result = edgekit(command, str(tmp_path))
        assert "name one of the folders in it: onnx-int8" in result.stderr
        assert result.returncode in (2, 3)


def test_measuring_that_was_stopped_ends_with_the_code_of_an_interrupt(tmp_path: Path) -> None:
    whole = report_sample.sample()
    show(whole, tmp_path, as_json=False)
    with pytest.raises(click.Abort):
        show(whole.model_copy(update={"interrupted": True}), tmp_path, as_json=False)


def test_recipes_list_speaks_json() -> None:
    result = edgekit("recipes", "list", "--json")
    assert "text-classifier" in [item["name"] for item in json.loads(result.stdout)]


def test_a_recipe_is_copied_and_then_valid(tmp_path: Path) -> None:
    target = tmp_path / "mine.yaml"
    assert edgekit("recipes", "copy", "text-classifier", str(target)).returncode == 0
    assert edgekit("recipes", "validate", str(target)).returncode == 0
    assert edgekit("recipes", "copy", "text-classifier", str(target)).returncode == 2
    target.write_text(target.read_text().replace("keep_layers:", "keep_layer:"))
    result = edgekit("recipes", "validate", str(target))
    assert result.returncode == 2
    assert "did you mean 'keep_layers'?" in result.stderr


def test_doctor_names_what_is_there() -> None:
    checks = json.loads(edgekit("doctor", "--json").stdout)["checks"]
    assert any(check["name"].startswith("onnxruntime") and check["ok"] for check in checks)


def test_a_fault_of_ours_is_told_in_a_line_and_kept_in_a_file(tmp_path: Path) -> None:
    code = "import edgekit.cli.main as m\nm.cli.main = lambda **_: 1 / 0\nm.main()"
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert "unforeseen: ZeroDivisionError: division by zero" in done.stderr
    assert "Traceback" not in done.stderr
    (log,) = tmp_path.glob("edgekit-*.log")
    assert str(log) in done.stderr
    assert "Traceback" in log.read_text()
    loud = subprocess.run(command, capture_output=True, text=True, env={**environment, "EDGEKIT_DEBUG": "1"})
    assert "Traceback" in loud.stderr

"""`edgekit`: the group, with commands imported only when they are used, so that --help is instant."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module
from typing import NoReturn

import click

from edgekit import __version__

__all__ = ["COMMANDS", "cli", "main"]

UNFORESEEN = 3
INTERRUPTED = 130  # what a shell expects of a program that Ctrl-C ended
ENDS = (signal.SIGINT, signal.SIGTERM)

COMMANDS: dict[str, tuple[str, str]] = {  # name -> module that defines `command`, first line of its help
    "run": ("run", "Run a recipe: train, compress, export, measure, gate."),
    "plan": ("plan", "Show what a recipe would do, cost and need; runs nothing."),
    "finetune": ("stages", "Train a model on labelled data."),
    "distill": ("stages", "Train a small model to answer as a teacher does."),
    "mlm-pretrain": ("stages", "Train an encoder to find masked tokens of your texts, before it is fine-tuned."),
    "student": ("stages", "Make a smaller model of a given shape from a larger one."),
    "recase": ("stages", "Show an uncased encoder which words have a capital letter."),
    "prune": ("stages", "Remove layers, heads, FFN neurons and vocabulary."),
    "trim": ("stages", "Remove heads and FFN neurons within a measured budget, without labels or training."),
    "factorize": ("stages", "Replace matrices by products of two thin ones."),
    "quantize": ("stages", "Fewer bits, in the file's own format."),
    "export": ("stages", "Write ONNX, GGUF or OpenVINO IR, compared with torch."),
    "lm-finetune": ("stages", "Train a language model on texts or chats."),
    "lm-distill": ("stages", "Train a small language model to answer as a teacher does."),
    "lm-prune": ("stages", "Remove layers, heads, FFN neurons, width and vocabulary of a language model."),
    "lm-quantize": ("stages", "Find a language model's int4 or int8 weights once, for every format."),
    "lm-export": ("stages", "Write a language model as GGUF or for onnxruntime-genai."),
    "seq2seq-export": ("stages", "Write an encoder-decoder model as ONNX, its answers compared with Transformers."),
    "bench": ("bench", "Measure exported files, interleaved against a baseline."),
    "lm-eval": ("lm_eval", "Run tasks of lm-evaluation-harness on a language model's file."),
    "gate": ("gate", "Judge a report by rules; exit code 0 or 1."),
    "baseline": ("baseline", "Keep, show and update what later builds are held against."),
    "compare": ("compare", "Explain what changed between two reports."),
    "recipes": ("recipes", "List, show, copy and check recipes."),
    "explain": ("explain", "Say why a file is slow or large, and what to try."),
    "inspect": ("inspect", "Say what an artifact is and where it comes from."),
    "targets": ("targets", "Say where files can be run; prepare and probe it."),
    "doctor": ("doctor", "Say what this machine can do and what is missing."),
    "store": ("store", "List, check, clean and export what runs have made."),
}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module = import_module(f"edgekit.cli.{COMMANDS[name][0]}")
        command: click.Command = module.command(name) if COMMANDS[name][0] == "stages" else module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            from difflib import get_close_matches

            near = get_close_matches(args[0], list(COMMANDS), n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            ctx.fail(f"No such command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="edgekit")
def cli() -> None:
    """Take a Transformer to an edge device: compress it, export it, measure the file that ships, gate it.

    \b
    Examples:
      edgekit recipes list
      edgekit run text-classifier --model ./my-bert --train train.csv --test test.csv --out build
      edgekit plan text-classifier --model ./my-bert --train train.csv
      edgekit gate build/report.json --rule 'accuracy >= baseline - 1pt'

    Exit codes: 0 passed, 1 the gate failed, 2 usage, recipe or data, 3 a stage or a device failed, 130 interrupted.
    """


def main() -> None:
    """The console script: errors become one clear message and an exit code, never a traceback."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # whoever ends it so also wants nothing left running
    try:
        _main()
    except KeyboardInterrupt:  # it may also come while an error is being told, or before the first command
        _interrupted()


def _interrupted() -> NoReturn:
    for end in ENDS:
        signal.signal(end, signal.SIG_IGN)  # a second one must not cut the clean-up short
    click.echo("\nstopped. Finished steps are kept: the same command goes on from there.", err=True)
    sys.exit(INTERRUPTED)


def _main() -> None:
    from edgekit.errors import EdgekitError

    # Before torch loads: OpenMP threads that wait by spinning take the core from the thread they wait for. With one
    # other process on two cores, a training step took 5.7 s spinning and 0.4 s waiting passively; idle, the same.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if os.environ.get("RANK", "0") != "0":  # one of several processes: what it finds, the main one prints
        sys.stdout = io.StringIO()
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except EdgekitError as error:
        click.echo(click.style("error: ", fg="red", bold=True) + str(error), err=True)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, click.Abort):
        _interrupted()
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(INTERRUPTED)
    except Exception as error:  # noqa: BLE001 (a fault of ours: told in a line, the traceback kept for whoever mends it)
        _unforeseen(error)


def _unforeseen(error: Exception) -> NoReturn:
    import tempfile
    import traceback

    if os.environ.get("EDGEKIT_DEBUG"):
        raise error
    with tempfile.NamedTemporaryFile("w", prefix="edgekit-", suffix=".log", delete=False, encoding="utf-8") as file:
        traceback.print_exception(error, file=file)
    text = f"unforeseen: {type(error).__name__}: {error}\nhint: this is a fault in edgekit; please report {file.name}"
    click.echo(click.style("error: ", fg="red", bold=True) + text, err=True)
    sys.exit(UNFORESEEN)


if __name__ == "__main__":
    main()

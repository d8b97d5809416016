"""seq2seq-export: an encoder-decoder model as two ONNX files, compared with Transformers before it counts."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, ParityError, StageError
from edgekit.stages.base import Config, Context, Outcome

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from edgekit.formats.onnx_seq2seq_check import Compared
    from edgekit.nn.seq2seq import Greedy

__all__ = ["VERSION", "Seq2SeqExport", "seq2seq_export"]

VERSION = 2
TEXTS = 256  # whose tokens are compared, where the tokenizer had to be made anew
TOKEN_PARITY = 0.01  # share of them that may differ
LIMITS = {"fp32": 1e-5, "int8": 1.0}  # KL divergence, nats a token: beyond 1 a model says something else


class Seq2SeqExport(Config):
    """Write the files that onnxruntime executes."""

    format: Literal["onnx-seq2seq"] = Field(
        default="onnx-seq2seq", description="Encoder and decoder (with its cache) as two ONNX files."
    )
    precision: Literal["fp32", "int8"] = Field(
        default="fp32", description="int8: weights by output channel, embeddings by row, activations at run time."
    )
    exclude: tuple[str, ...] = Field(default=(), description="int8: parts of weight names that stay as they are.")
    check_rows: int = Field(default=16, ge=1, description="Texts whose answers are compared with Transformers.")
    check_tokens: int = Field(default=32, ge=2, description="Most tokens of such an answer.")
    max_divergence: float = Field(
        default=0.0, ge=0, description="Largest mean KL divergence from torch, nats a token; 0: 1e-5 (int8: 1)."
    )


def seq2seq_export(source: Artifact, config: Seq2SeqExport, out: Path, context: Context) -> Outcome:
    """Export the encoder-decoder model `source` (hf).

    Raises ParityError where the files' probabilities differ from torch's beyond the limit along the original's answers,
    (fp32) any answer has another token, or its tokenizer cuts texts otherwise; StageError for a model of another kind,
    ModelError as `load_seq2seq`.
    """
    from edgekit.formats.onnx_seq2seq import quantize_seq2seq, write_seq2seq
    from edgekit.formats.package_seq2seq import write_seq2seq_package
    from edgekit.nn.device import threads
    from edgekit.nn.seq2seq import greedy_of, load_seq2seq

    task = context.task or source.task
    if task is None or task.kind != "text-to-text":
        raise StageError("seq2seq-export is for encoder-decoder models", hint="see edgekit export, edgekit lm-export")
    table = _table(context)
    model = load_seq2seq(source.path)
    greedy, notes = greedy_of(model)
    context.progress.say(f"exporting to ONNX, {config.precision}")
    with threads(context.threads):
        if config.precision == "fp32":
            write_seq2seq(model, out)
            touched = ["encoder.onnx", "decoder.onnx"]
        else:
            with TemporaryDirectory(dir=out.parent) as plain:
                write_seq2seq(model, Path(plain))
                touched = quantize_seq2seq(Path(plain), out, exclude=config.exclude)
        write_seq2seq_package(source.path, task, greedy, out, config.precision)
        notes += _same_tokens(source, out, table)
        found = _close(config, out, table, task, model, greedy, context)
    return Outcome("onnx-seq2seq", _facts(config, found, touched, notes), task, _metrics(found))


def _same_tokens(source: Artifact, out: Path, table: Table) -> tuple[str, ...]:
    """Raises ParityError where too many texts are cut otherwise than by the original's tokenizer."""
    from edgekit.formats.package_seq2seq import cut_otherwise

    texts = table.spread(TEXTS).texts
    other = cut_otherwise(source.path, out, texts)
    if not other:
        return ()
    what = f"{len(other)} of {len(texts)} texts get other tokens than from Transformers, such as {other[0][:80]!r}"
    if len(other) > TOKEN_PARITY * len(texts):
        raise ParityError(what, hint="nothing was kept")
    return (what,)


def _close(
    config: Seq2SeqExport,
    out: Path,
    table: Table,
    task: Task,
    model: PreTrainedModel,
    greedy: Greedy,
    context: Context,
) -> Compared:
    """Raises ParityError where the files are too far from torch."""
    from edgekit.formats.onnx_seq2seq_check import compare_seq2seq

    rows = _rows(table, out, task, config.check_rows)
    context.progress.say(f"answering {len(rows)} texts with torch and onnxruntime")
    found = compare_seq2seq(out, model, greedy, rows, most=config.check_tokens, threads=context.threads)
    limit = config.max_divergence or LIMITS[config.precision]
    if not found.divergence <= limit:
        raise ParityError(
            f"the exported files disagree with torch: KL divergence {found.divergence:.2e} > {limit:.0e} nats a token "
            f"on {found.tokens} tokens (same likeliest token on {found.agreement:.1%})",
            hint="nothing was kept; --exclude keeps matrices in float, --max-divergence changes the limit",
        )
    if config.precision == "fp32" and not config.max_divergence and found.same < found.texts:
        raise ParityError(
            f"{found.texts - found.same} of {found.texts} texts get another answer than from Transformers",
            hint="nothing was kept; with --max-divergence only the probabilities count",
        )
    return found


def _rows(table: Table, out: Path, task: Task, count: int) -> list[list[int]]:
    """Token ids of real texts. Raises DataError where no text has a token."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(task.max_length)
    rows = [e.ids for e in tokenizer.encode_batch(list(table.spread(count).texts)) if e.ids]
    if not rows:
        raise DataError(f"{table.name}: no text has a token", hint="name the column of the texts")
    return rows


def _table(context: Context) -> Table:
    for name in ("validation", "unlabeled", "train"):
        if name in context.data:
            return context.data[name]
    raise StageError("the comparison with Transformers needs real texts", hint="give --validation FILE")


def _facts(config: Seq2SeqExport, found: Compared, touched: list[str], notes: tuple[str, ...]) -> Facts:
    return Facts(
        summary=f"onnx-seq2seq {config.precision}: {found.same} of {found.texts} greedy answers as from Transformers, "
        f"KL divergence {found.divergence:.2e} nats a token",
        touched=tuple(touched),
        warnings=notes,
        numbers={
            "texts": found.texts,
            "same_answers": found.same,
            "tokens": found.tokens,
            "kl_divergence": found.divergence,
            "max_difference": found.max_difference,
            "agreement": found.agreement,
        },
    )


def _metrics(found: Compared) -> dict[str, float]:
    same = found.same / found.texts
    return {"kl_divergence": found.divergence, "agreement": found.agreement, "same_answers": same}

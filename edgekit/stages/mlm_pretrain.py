"""mlm-pretrain: an encoder goes on with what it was pre-trained by, on the user's own texts, before fine-tuning."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from edgekit.artifact import Artifact, Facts, Task
from edgekit.errors import StageError
from edgekit.nn.settings import Training
from edgekit.stages.base import Config, Context, Outcome, SplitName, job_identity

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

    from edgekit.nn.mlm import MaskedRows
    from edgekit.nn.train import Job, Trained

__all__ = ["VERSION", "MlmPretrain", "mlm_pretrain"]

VERSION = 2
RATE = 2e-4  # at 384 wide
HEAD_RATE = 5.0  # a new head learns this many times faster
HELD_OUT = 20  # where there are no validation data, one row of so many is held out


class MlmPretrain(Training, Config):
    """Find masked tokens of texts without labels; the epoch of the least validation loss is kept."""

    epochs: int = Field(3, ge=1, description="passes over the training rows")
    learning_rate: float = Field(0.0, ge=0, description="peak learning rate; 0: by width, at 384 2e-4, at 768 7e-5")
    masked: float = Field(
        0.15, gt=0, lt=1, description="share of the tokens to find: 80% masked, 10% any other, 10% as they are"
    )


def mlm_pretrain(source: Artifact, config: MlmPretrain, out: Path, context: Context) -> Outcome:
    """Train the source's encoder to find masked tokens of the `unlabeled` and `train` texts (labels are not read).

    The result is the bare encoder, for `finetune`. A killed run goes on where it was. Raises DataError for texts
    without tokens, ModelError for a tokenizer without a mask token, StageError for a pruned or factorized source, and
    for a loss that is not finite.
    """
    from edgekit.nn.device import seeded, threads
    from edgekit.nn.load import read_edits, save_model
    from edgekit.nn.mlm import load_masked, trained_encoder
    from edgekit.nn.train import train

    task = context.task or source.task
    if task is None:
        raise StageError("this stage needs to know how long a row is", hint="give a --max-length, in tokens")
    if not read_edits(source.path).empty:
        raise StageError("a pruned or factorized encoder has no masked language model", hint="pre-train it before that")
    with threads(context.threads), seeded(config.seed, context.device):
        rows, exam = _rows(source, config, context, task)
        model, new_head = load_masked(source.path, device=context.device)
        job = _job(source, config, context, task, model, rows, exam, new_head)
        before = job.evaluate()["perplexity"]
        settings = config.with_rate(model.config.hidden_size, of=RATE)
        trained = train(job, settings, scratch=context.scratch, progress=context.progress, device=context.device)
    facts = _facts(source, rows, exam, trained, before, new_head)
    save_model(trained_encoder(model.to("cpu"), source.path), out, tokenizer_from=source.path)
    bare = task.model_copy(update={"labels": ()})
    return Outcome("hf", facts, bare, {**trained.metrics, "validation_loss": trained.best.figures["loss"]})


def _rows(source: Artifact, config: MlmPretrain, context: Context, task: Task) -> tuple[MaskedRows, MaskedRows]:
    """Rows to learn from, and rows to be measured on."""
    from edgekit.nn.mlm import masked_rows

    def read(names: tuple[SplitName, ...]) -> MaskedRows:
        tables = [context.data[name] for name in names if name in context.data]
        return masked_rows(source.path, tables, task.max_length, rate=config.masked, seed=config.seed)

    if not context.data.keys() & {"train", "unlabeled"}:
        raise StageError("this stage needs texts", hint="give --unlabeled FILE, or --train FILE")
    rows = read(("unlabeled", "train"))
    if "validation" in context.data:
        return rows, read(("validation",))
    if len(rows) < HELD_OUT:
        raise StageError(f"{len(rows)} rows are too few to hold any out", hint="give --validation FILE")
    return rows.split(HELD_OUT)


def _job(
    source: Artifact,
    config: MlmPretrain,
    context: Context,
    task: Task,
    model: PreTrainedModel,
    rows: MaskedRows,
    exam: MaskedRows,
    new_head: bool,
) -> Job:
    from edgekit.nn.device import autocast
    from edgekit.nn.families import family_of
    from edgekit.nn.mlm import Epochs, evaluator, masked_loss
    from edgekit.nn.train import Job

    device, hooks = context.device, Epochs()
    prefix = family_of(model.config.model_type).backbone + "."

    def loss(chosen: list[int]) -> torch.Tensor:
        batch = rows.batch(chosen, hooks.number, device)
        with autocast(config.precision, device):
            return masked_loss(model, batch)

    identity = job_identity(f"mlm-pretrain {VERSION}", config, task, [rows.digest, exam.digest], source=source)
    head = [name for name, _ in model.named_parameters() if not name.startswith(prefix)]
    return Job(
        model,
        rows.lengths,
        loss,
        evaluator(model, exam, batch_size=config.batch_size, device=device),
        identity,
        weights=rows.weights,
        rates=dict.fromkeys(head, HEAD_RATE) if new_head else {},
        hooks=hooks,
    )


def _facts(
    source: Artifact, rows: MaskedRows, exam: MaskedRows, trained: Trained, before: float, new_head: bool
) -> Facts:
    after = trained.best.figures["perplexity"]
    warnings = [*trained.warnings]
    if after > before:
        warnings.append(f"validation perplexity rose from {before:.3f} to {after:.3f}")
    if source.task is not None and source.task.labels:
        warnings.append("the classification head is left out: it stood on another encoder; fine-tune anew")
    best = f"best epoch {trained.best.epoch} of {len(trained.history)}"
    return Facts(
        summary=f"{best}: validation perplexity of masked tokens {before:.3f} -> {after:.3f}",
        touched=("all weights of the encoder",),
        warnings=tuple(warnings),
        numbers={
            "rows": len(rows),
            "validation_rows": len(exam),
            "tokens": sum(rows.lengths),
            "masked_tokens_an_epoch": sum(rows.weights),
            "new_head": new_head,
            "steps": trained.steps,
            "best_epoch": trained.best.epoch,
            "epochs": len(trained.history),
            "perplexity_before": before,
        },
    )

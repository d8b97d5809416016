"""Rows of text as token ids, made here: for a runtime that has no tokenizer, or that shall not be seen to tokenize."""

from __future__ import annotations

from dataclasses import replace

from edgekit.artifact import Artifact
from edgekit.jobs import Inputs, Job, TokenIds

__all__ = ["token_ids", "tokenized"]


def token_ids(artifact: Artifact, inputs: Inputs) -> TokenIds:
    """Every row's token ids and type ids: those that the inputs bring, else by the artifact's tokenizer.json, as
    `ort_worker.py` makes them."""
    if inputs.rows is not None:
        return inputs.rows
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(artifact.path / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(inputs.max_length)
    rows = list(zip(inputs.texts, inputs.pairs, strict=True)) if inputs.pairs else list(inputs.texts)
    return tuple((tuple(e.ids), tuple(e.type_ids)) for e in tokenizer.encode_batch(rows))


def tokenized(job: Job) -> Job:
    """The job with its rows as token ids; with pictures, as it is."""
    if job.inputs.pixels is not None:
        return job
    return replace(job, inputs=replace(job.inputs, rows=token_ids(job.artifact, job.inputs)))

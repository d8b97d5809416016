"""Whether a GGUF decoder is the model it was made from: the same token ids, and probabilities close to torch's.

The file is run by llama.cpp as it stands, on the CPU, with keys and values in f32 and plain attention, so that what is
seen is the file's own error.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, TracebackType
from typing import cast

import numpy as np
from numpy.typing import NDArray

from edgekit.errors import MissingExtraError, StageError
from edgekit.formats.gguf_check import read_spec
from edgekit.formats.gguf_decoder_tokenizer import doubles_space
from edgekit.formats.gguf_quantize import captured_log
from edgekit.nn.decoders import load_decoder
from edgekit.tasks.language_modeling import Windows
from edgekit.tokenizer_files import open_tokenizer

__all__ = ["Difference", "Llama", "Tokenized", "compare", "compare_tokens"]

Logits = NDArray[np.float32]


@dataclass(frozen=True)
class Difference:
    """Of a file from torch, on the tokens that count: the largest difference of logits, the mean KL divergence (nats)
    of torch's distribution from the file's, and how often both have the same most likely token."""

    max_difference: float
    largest_logit: float
    divergence: float
    agreement: float
    tokens: int


@dataclass(frozen=True)
class Tokenized:
    """How many texts got the same ids from llama.cpp and tokenizers, and the first that did not."""

    texts: int
    same: int
    first: str = ""


class Llama:
    """A GGUF file opened by llama.cpp. `length`: longest window of tokens; 0 opens the vocabulary only.

    Raises StageError where llama.cpp cannot load it, MissingExtraError where it is not installed.
    """

    def __init__(self, file: Path, length: int = 0, threads: int = 0) -> None:
        self._stack = ExitStack()
        self._llama = _library()
        lines = self._stack.enter_context(captured_log(self._llama))
        self._llama.llama_backend_init()
        options = self._llama.llama_model_default_params()
        options.vocab_only = length == 0
        options.n_gpu_layers = 0
        options.use_extra_bufts = False  # the file is asked for, not the kernels that weights are repacked for
        self._model = self._llama.llama_model_load_from_file(str(file).encode(), options)
        if not self._model:
            self._stack.close()
            raise StageError(f"llama.cpp cannot load {file.name}", hint=" ".join(lines[-3:]).strip())
        self._stack.callback(self._llama.llama_model_free, self._model)
        self._vocab = self._llama.llama_model_get_vocab(self._model)
        self._size = self._llama.llama_vocab_n_tokens(self._vocab)
        self._length = length
        if length:
            self._context = self._open(length, threads or os.cpu_count() or 1)

    def _open(self, length: int, threads: int) -> ctypes.c_void_p:
        llama = self._llama
        options = llama.llama_context_default_params()
        options.n_ctx = options.n_batch = options.n_ubatch = length
        options.n_threads = options.n_threads_batch = threads
        options.type_k = options.type_v = llama.GGML_TYPE_F32
        options.flash_attn_type = llama.LLAMA_FLASH_ATTN_TYPE_DISABLED
        context = llama.llama_init_from_model(self._model, options)
        if not context:
            self._stack.close()
            raise StageError(f"llama.cpp has no room for {length} tokens", hint="take a smaller --max-length")
        self._stack.callback(llama.llama_free, context)
        return cast("ctypes.c_void_p", context)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text, with the special tokens around it, and those in it known as such."""
        raw = text.encode("utf-8", "replace")
        room = (self._llama.llama_token * (len(raw) + 8))()
        count = self._llama.llama_tokenize(self._vocab, raw, len(raw), room, len(room), True, True)
        return list(room[:count])

    def logits(self, ids: NDArray[np.int32]) -> Logits:
        """Logits (tokens, vocabulary) after each of the tokens (tokens,)."""
        llama, count = self._llama, len(ids)
        batch = llama.llama_batch_init(count, 0, 1)
        batch.n_tokens = count
        for i, token in enumerate(ids):
            batch.token[i], batch.pos[i], batch.logits[i] = int(token), i, 1
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, 0
        llama.llama_memory_clear(llama.llama_get_memory(self._context), True)
        status = llama.llama_decode(self._context, batch)
        llama.llama_batch_free(batch)
        if status != 0:
            raise StageError(f"llama.cpp could not run the model on {count} tokens (status {status})")
        found = llama.llama_get_logits(self._context)
        return np.ctypeslib.as_array(found, shape=(count, self._size)).copy()

    def __enter__(self) -> Llama:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()


def _library() -> ModuleType:
    try:
        import llama_cpp
    except ModuleNotFoundError:
        raise MissingExtraError("llama-cpp-python", "gguf") from None
    return cast("ModuleType", llama_cpp.llama_cpp)


def compare_tokens(file: Path, folder: Path, texts: Iterable[str]) -> Tokenized:
    """Token ids of stock llama.cpp and of the tokenizers library, text by text.

    Where both are known to differ on it (`doubles_space`), the space that a text begins with is left out.
    """
    tokenizer = open_tokenizer(folder)
    count, same, first = 0, 0, ""
    bare = doubles_space(read_spec(folder))
    with Llama(file) as model:
        for given in texts:
            text = given.lstrip(" ") if bare else given
            count += 1
            if model.tokens(text) == tokenizer.encode(text).ids:
                same += 1
            else:
                first = first or text
    return Tokenized(count, same, first)


def compare(file: Path, folder: Path, windows: Windows, *, threads: int = 0) -> Difference:
    """The file's logits against those of torch in float32, window by window.

    Raises StageError where llama.cpp cannot load or run the file.
    """
    import torch

    reference = load_decoder(folder)
    start = windows.scored_from
    largest, scale, divergence, agreed, count = 0.0, 0.0, 0.0, 0, 0
    with Llama(file, windows.ids.shape[1], threads) as model, torch.inference_mode():
        for ids in windows.ids:
            inputs = torch.from_numpy(ids[None].astype(np.int64))
            wanted = reference(input_ids=inputs, use_cache=False).logits[0, start:].numpy()
            found = model.logits(ids)[start:, : wanted.shape[1]]
            largest = max(largest, float(np.abs(wanted - found).max()))
            scale = max(scale, float(np.abs(wanted).max()))
            divergence += float(_divergence(wanted, found).sum())
            agreed += int((wanted.argmax(1) == found.argmax(1)).sum())
            count += len(wanted)
    return Difference(largest, scale, divergence / count, agreed / count, count)


def _divergence(wanted: Logits, found: Logits) -> NDArray[np.float64]:
    """KL(wanted || found) of each row of logits, in nats."""
    p, q = _log_softmax(wanted), _log_softmax(found)
    return np.asarray((np.exp(p) * (p - q)).sum(1), dtype=np.float64)


def _log_softmax(logits: Logits) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(1, keepdims=True)), dtype=np.float64)

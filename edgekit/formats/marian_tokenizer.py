"""Marian's two SentencePiece models and shared vocab.json as two files of the tokenizers library.

OPUS-MT checkpoints have no tokenizer.json: `source.spm` cuts what is read, `vocab.json` numbers the pieces of both
languages. What only the other language has is kept out of the Viterbi search by a name that no text has. Transformers
differs in one thing: a lone character that only the other language has gets its number there, here it is unknown.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgekit.errors import MissingExtraError, ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MODEL", "reader", "writer"]

MODEL = "source.spm"
UNIGRAM = 1  # sentencepiece_model.proto, TrainerSpec.ModelType
PIECES = (1, 4)  # ModelProto.SentencePiece.Type: normal, user defined
SPACE = "▁"


def reader(folder: Path) -> Tokenizer:
    """What cuts texts to read, with `</s>` at the end; `>>lang<<` is one token.

    Raises ModelError for a damaged file or a model that is not of the unigram kind, MissingExtraError without
    sentencepiece.
    """
    from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    spec, vocabulary = _spec(folder / MODEL), _vocabulary(folder)
    if spec.trainer_spec.model_type != UNIGRAM:
        raise ModelError(f"{folder / MODEL} is not of the unigram kind", hint="no other is known of Marian models")
    scores = {piece.piece: piece.score for piece in spec.pieces if piece.type in PIECES}
    special = _special(vocabulary)
    pieces = [
        (token if token in scores or token in special else f"\0{number}", scores.get(token, 0.0))
        for token, number in sorted(vocabulary.items(), key=lambda item: item[1])
    ]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=vocabulary["<unk>"]))
    charsmap = spec.normalizer_spec.precompiled_charsmap
    steps: list[Any] = [normalizers.Precompiled(charsmap)] if charsmap else []
    steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    tokenizer.normalizer = normalizers.Sequence(steps)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(SPACE, prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    tokenizer.add_special_tokens(special)
    return tokenizer


def writer(folder: Path) -> Tokenizer:
    """What makes texts of the tokens of an answer; it cuts none."""
    from tokenizers import Tokenizer, decoders, models

    vocabulary = _vocabulary(folder)
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))  # noqa: S106 (a token of a text)
    tokenizer.decoder = decoders.Metaspace(SPACE)
    tokenizer.add_special_tokens(_special(vocabulary))
    return tokenizer


def _special(vocabulary: dict[str, int]) -> list[str]:
    """Tokens that no text is cut into, in their order: ends, padding, and the target language's."""
    named = [t for t in vocabulary if t in ("</s>", "<unk>", "<pad>") or (t.startswith(">>") and t.endswith("<<"))]
    return sorted(named, key=vocabulary.__getitem__)


def _vocabulary(folder: Path) -> dict[str, int]:
    path = folder / "vocab.json"
    try:
        found: dict[str, int] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: {str(error).splitlines()[0]}") from None
    lost = [token for token in ("</s>", "<unk>") if token not in found]
    if lost or sorted(found.values()) != list(range(len(found))):
        raise ModelError(f"{path}: {f'no {lost[0]}' if lost else 'numbers are missing'}", hint="fetch it again")
    return found


def _spec(path: Path) -> Any:
    """The parsed SentencePiece model."""
    try:
        from sentencepiece import sentencepiece_model_pb2
    except ImportError:
        raise MissingExtraError("sentencepiece", "gguf") from None
    from google.protobuf.message import DecodeError

    spec = sentencepiece_model_pb2.ModelProto()
    try:
        spec.ParseFromString(path.read_bytes())
    except (OSError, DecodeError) as error:
        raise ModelError(f"{path}: damaged ({error})", hint="fetch it again") from None
    return spec

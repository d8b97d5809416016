"""The tokenizer of a model folder as `tokenizer.json`: the folder's own, or else what Transformers makes of a slow
one's files. Every stage that reads a tokenizer reads it here; nothing is written to the folder."""

from __future__ import annotations

from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from edgekit.errors import ModelError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["FAST", "SENTENCEPIECE", "has_tokenizer", "open_tokenizer", "tokenizer_files", "tokenizer_json"]

FAST = "tokenizer.json"
WORDS = ("vocab.txt", "vocab.json")  # of WordPiece, and of BPE with its merges.txt
SENTENCEPIECE = ("sentencepiece.bpe.model", "spm.model", "spiece.model", "tokenizer.model")  # XLM-R, DeBERTa, ALBERT
BESIDE = ("tokenizer_config.json", "special_tokens_map.json", "vocab.txt", "chat_template.jinja")  # a fast one
SLOW = (*WORDS, *SENTENCEPIECE)
READ = (*SLOW, *BESIDE, "added_tokens.json", "merges.txt", "config.json")  # by Transformers, of a slow one
PACKAGES = {"sentencepiece": "sentencepiece", "protobuf": "google.protobuf", "tiktoken": "tiktoken"}  # by what pip says
HINT = "save it with tokenizer.save_pretrained of the Transformers release that it was made with"


def has_tokenizer(folder: Path) -> bool:
    """Whether the folder holds a tokenizer's files, fast or slow."""
    return any((folder / name).is_file() for name in (FAST, *SLOW))


def tokenizer_json(folder: Path) -> bytes:
    """The folder's `tokenizer.json`, made of a slow tokenizer's files where it has none.

    Raises ModelError where there is no tokenizer, where none can be made of its files, or where that takes a package
    that is not installed.
    """
    file = folder / FAST
    return file.read_bytes() if file.is_file() else _converted(folder)[FAST]


def stored_tokenizer(folder: Path) -> Tokenizer:
    """`tokenizer_json` as a tokenizer. Raises ModelError as that does, and for a damaged file."""
    from tokenizers import Tokenizer

    try:
        return Tokenizer.from_buffer(tokenizer_json(folder))
    except ModelError:
        raise
    except Exception as error:  # noqa: BLE001 (the library has no class of its own)
        raise ModelError(f"{folder / FAST}: damaged ({error})") from None


def open_tokenizer(folder: Path) -> Tokenizer:
    """The stored tokenizer, such that it neither pads nor truncates. Raises ModelError as `stored_tokenizer` does."""
    tokenizer = stored_tokenizer(folder)
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


def tokenizer_files(folder: Path) -> dict[str, bytes]:
    """`tokenizer_json` and the files that belong beside it, by name. Raises ModelError as that does."""
    if not (folder / FAST).is_file():
        return _converted(folder)
    return {name: (folder / name).read_bytes() for name in (FAST, *BESIDE) if (folder / name).is_file()}


def _converted(folder: Path) -> dict[str, bytes]:
    """The files that Transformers writes for a slow tokenizer."""
    found = [name for name in SLOW if (folder / name).is_file()]
    if not found:
        raise ModelError(f"{folder} has no {FAST}", hint="save it with a fast Transformers tokenizer")
    if absent := _absent(folder):
        what = f"{folder} has no {FAST}, and making one of its {found[-1]} takes {' and '.join(absent)}"
        raise ModelError(what, hint=f"pip install {' '.join(absent)}")
    stats = [(folder / name).stat() for name in READ if (folder / name).is_file()]
    return _convert(folder, tuple(found), tuple((stat.st_size, stat.st_mtime_ns) for stat in stats))


def _absent(folder: Path) -> list[str]:
    """Packages that reading the folder's slow tokenizer takes, and that are not installed."""
    file = next((folder / name for name in SENTENCEPIECE if (folder / name).is_file()), None)
    if file is None or any((folder / name).is_file() for name in WORDS):
        return []
    with file.open("rb") as opened:  # SentencePiece's begins with a field's tag, tiktoken's is of base64 lines
        needed = ("sentencepiece", "protobuf") if opened.read(1) == b"\n" else ("tiktoken",)
    return [name for name in needed if not _installed(PACKAGES[name])]


def _installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # of the package that it is in
        return False


@lru_cache(maxsize=4)
def _convert(folder: Path, names: tuple[str, ...], stamps: tuple[tuple[int, int], ...]) -> dict[str, bytes]:
    """By Transformers, in a folder that is gone afterwards. `names`: the slow tokenizer's files; `stamps` tell one
    state of the folder from another."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()
    with TemporaryDirectory() as made:
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
            tokenizer.save_pretrained(made)
        except Exception as error:  # noqa: BLE001 (each library has its own)
            reason = " ".join(str(error).split())[:300]
            what = f"{folder} has no {FAST}, and none can be made of its {' and '.join(names)}: {reason}"
            raise ModelError(what, hint=HINT) from None
        files = {path.name: path.read_bytes() for path in sorted(Path(made).iterdir()) if path.is_file()}
    if FAST not in files:
        what = f"{folder} has no {FAST}, and {type(tokenizer).__name__} has no fast form"
        raise ModelError(what, hint="this model's tokenizer is not supported")
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):  # Transformers says nothing to that
        what = f"{folder} has no {FAST}, and {type(tokenizer).__name__} reads none of its {', '.join(names)}"
        raise ModelError(what, hint="give the file the name that this tokenizer's class reads")
    return files

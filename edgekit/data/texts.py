"""Files of text: their characters, and plain text as rows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from edgekit.errors import DataError

__all__ = ["decode", "read_lines", "read_pieces"]

PIECE = 4000  # characters, about, of plain text that become one row


def decode(path: Path) -> str:
    """The characters of a UTF-8 file, without a byte order mark. Raises DataError for another encoding."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise DataError(
            f"{path} is not UTF-8: byte 0x{data[error.start]:02x} in line {line}",
            hint=f"convert it, for example: iconv -f {_likely(data)} -t utf-8 FILE",
        ) from None


def _likely(data: bytes) -> str:
    """The encoding to suggest: gb18030 where most of what is not ASCII becomes common Chinese characters so (GB 2312's
    first level, which texts in other encodings seldom hit), else windows-1252."""
    try:
        beyond = [character for character in data.decode("gb18030") if not character.isascii()]
    except UnicodeDecodeError:
        return "windows-1252"
    common = sum(b"\xb0" <= character.encode("gb2312", "ignore")[:1] <= b"\xd7" for character in beyond)
    return "gb18030" if 2 * common > len(beyond) else "windows-1252"


def read_pieces(path: Path) -> tuple[str, ...]:
    """A plain text in pieces that put together are the text; for language modeling, where white space counts."""
    pieces: list[str] = []
    for line in decode(path).splitlines(keepends=True):
        if pieces and len(pieces[-1]) < PIECE:
            pieces[-1] += line
        else:
            pieces.append(line)
    if not "".join(pieces).strip():
        raise DataError(f"{path} is empty")
    return tuple(pieces)


def read_lines(path: Path, read: Callable[[object], str | None]) -> tuple[str, ...]:
    """What `read` makes of each line, of lines that are not blank."""
    if kept := tuple(text for line in decode(path).split("\n") if (text := read(line))):
        return kept
    raise DataError(f"{path} is empty")

"""Pictures as data: folders, files of paths, parquet with bytes; what is broken is told by its row."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from edgekit.data.load import Columns, load_table
from edgekit.data.pictures import encoded_picture
from edgekit.data.splits import load_splits
from edgekit.errors import DataError
from tests.tiny_pictures import write_pictures

COLUMNS = Columns(text="image", label="label", pictures=True)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures") / "train", labels=2, count=3)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.png"))


def write_csv(path: Path, rows: list[tuple[str, str]]) -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("image", "label"), *rows])
    return str(path)


def test_a_folders_sub_folders_are_the_labels(folder: Path) -> None:
    table = load_table(str(folder), COLUMNS)
    assert table.labels == ("kind0",) * 3 + ("kind1",) * 3
    assert [encoded_picture(table, row) for row in range(6)] == [path.read_bytes() for path in files(folder)]
    assert table.take([4]).pictures[table.texts[4]] == files(folder)[4]


def test_the_digest_is_of_the_content_wherever_it_lies(folder: Path, tmp_path: Path) -> None:
    wanted = load_table(str(folder), COLUMNS)
    rows = [(path.name, path.parent.name) for path in files(folder)]
    for path, label in rows:
        (tmp_path / f"{label}-{path}").write_bytes((folder / label / path).read_bytes())
    named = [(f"{label}-{name}", label) for name, label in rows]
    found = [load_table(write_csv(tmp_path / "a.csv", named), COLUMNS)]
    lines = [json.dumps({"image": name, "label": label}) for name, label in named]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found.append(load_table(str(tmp_path / "a.jsonl"), COLUMNS))
    images = [{"bytes": (tmp_path / name).read_bytes(), "path": None} for name, _ in named]
    content = pyarrow.table({"image": images, "label": [label for _, label in named]})
    pyarrow.parquet.write_table(content, tmp_path / "a.parquet")
    found.append(load_table(str(tmp_path / "a.parquet"), COLUMNS))
    assert {table.digest for table in found} == {wanted.digest}
    assert encoded_picture(found[2], 5) == files(folder)[5].read_bytes()
    (tmp_path / named[0][0]).write_bytes(files(folder)[1].read_bytes())
    assert load_table(str(tmp_path / "a.csv"), COLUMNS).digest != wanted.digest
    with pytest.raises(DataError, match="was changed while it was used"):
        encoded_picture(found[0], 0)


def test_every_broken_row_is_told(folder: Path, tmp_path: Path) -> None:
    whole = files(folder)[0].read_bytes()
    (tmp_path / "whole.png").write_bytes(whole)
    (tmp_path / "short.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "text.png").write_text("no picture")
    rows = [("whole.png", "a"), ("gone.png", "a"), ("short.png", "a"), ("text.png", "a"), (" ", "a")]
    with pytest.raises(DataError) as error:
        load_table(write_csv(tmp_path / "bad.csv", rows), COLUMNS)
    told = str(error.value)
    assert "4 broken rows" in told
    for words in ("row 2", "cannot be read (No such file", "row 3", "row 4", "unknown format", "row 5", "is empty"):
        assert words in told
    assert "row 1:" not in told


def test_a_folder_has_pictures_in_labels_folders(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="a folder without files"):
        load_table(str(tmp_path), COLUMNS)
    (tmp_path / "1.png").write_bytes(files(folder)[0].read_bytes())
    with pytest.raises(DataError, match=r"without a label, the first is 1\.png"):
        load_table(str(tmp_path), COLUMNS)
    (tmp_path / ".hidden").write_text("a note of the file manager's")
    table = load_table(str(tmp_path), Columns(text="image", pictures=True))
    assert len(table) == 1 and table.labels is None
    with pytest.raises(DataError, match="no such file"):
        load_table(str(tmp_path / "nowhere"), COLUMNS)
    (tmp_path / "other.csv").write_text("file,label\n1.png,a\n")
    with pytest.raises(DataError, match="there is no column 'image'"):
        load_table(str(tmp_path / "other.csv"), COLUMNS)


def test_splits_are_held_out_of_each_label(folder: Path, tmp_path: Path) -> None:
    many = write_pictures(tmp_path / "many", labels=2, count=10)
    splits = load_splits({"train": str(many), "unlabeled": str(folder)}, COLUMNS)
    held = splits.tables["validation"]
    assert sorted(held.labels or ()) == ["kind0", "kind1"]
    assert encoded_picture(held, 0)
    assert splits.tables["unlabeled"].labels is None
    assert len(splits.tables["unlabeled"]) == 6

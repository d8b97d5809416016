from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.data.load import Columns, load_table
from edgekit.data.splits import load_splits
from edgekit.data.tags import to_bio
from edgekit.errors import DataError
from edgekit.tasks.entities import entities
from edgekit.tasks.token_classification import label_names

WORDS = Columns(text="tokens", label="labels", label_kind="words")
SPANS = st.lists(st.tuples(st.sampled_from(["", "per", "org-x"]), st.integers(1, 4)), min_size=1, max_size=6)
SCHEMES = {"BIOES": "BIES", "BMES": "BMES", "BILOU": "BILU", "BMEWO": "BMEW", "BIOS": "BIIS"}


def write(path: Path, *sentences: str) -> str:
    text = "\n".join("".join(f"w\t{label}\n" for label in sentence.split()) for sentence in sentences)
    path.write_text(text, encoding="utf-8", newline="")
    return str(path)


def tagged(spans: list[tuple[str, int]], scheme: str) -> str:
    """The labels of neighbouring spans, those of no type outside."""
    first, inner, last, single = SCHEMES[scheme]
    found: list[str] = []
    for kind, length in spans:
        if not kind:
            found += ["O"] * length
        elif length == 1:
            found.append(f"{single}-{kind}")
        else:
            found += [f"{first}-{kind}", *[f"{inner}-{kind}"] * (length - 2), f"{last}-{kind}"]
    return " ".join(found)


@given(st.lists(SPANS, min_size=1, max_size=4), st.sampled_from(sorted(SCHEMES)))
def test_every_scheme_becomes_bio_of_the_same_entities(sentences: list[list[tuple[str, int]]], scheme: str) -> None:
    labels, broken = to_bio([tagged(spans, scheme) for spans in sentences])
    assert not broken
    for spans, label in zip(sentences, labels, strict=True):
        wanted, at = [], 0
        for kind, length in spans:
            wanted += [(kind, at, at + length - 1)] if kind else []
            at += length
        assert entities(label.split(" ")) == wanted
        assert {name[0] for name in label.split(" ")} <= set("BIO")


@given(st.lists(st.text(alphabet="BIO", min_size=1, max_size=6), min_size=1, max_size=4))
def test_bio_and_io_stay_as_they_are(sentences: list[str]) -> None:
    labels = [" ".join(tag if tag == "O" else f"{tag}-x" for tag in sentence) for sentence in sentences]
    assert to_bio(labels) == (labels, [])


def test_files_are_read_as_bio_whatever_their_scheme(tmp_path: Path) -> None:
    train = write(tmp_path / "train.conll", *["B-x M-x E-x S-y O"] * 20)
    test = write(tmp_path / "test.conll", "B-y I-y O B-x")
    splits = load_splits({"train": train, "test": test}, WORDS)
    assert set(splits.tables["train"].labels or ()) == {"B-x I-x I-x B-y O"}
    assert label_names(splits.tables["train"]) == ("O", "B-x", "I-x", "B-y", "I-y")
    (tmp_path / "a.jsonl").write_text('{"tokens": ["a", "b"], "labels": ["U-x", "O"]}')
    assert load_table(str(tmp_path / "a.jsonl"), WORDS).labels == ("B-x O",)


@pytest.mark.parametrize("sentence", ["I-x E-x O", "O B-x I-x", "E-x S-x", "M-x"])
def test_a_sentence_may_be_cut_out_of_a_longer_one(tmp_path: Path, sentence: str) -> None:
    table = load_table(write(tmp_path / "a.conll", sentence, "B-x E-x S-x"), WORDS)
    assert len(entities((table.labels or ("",))[0].split(" "))) in (1, 2)


@pytest.mark.parametrize(
    ("sentence", "what"),
    [
        ("B-x O S-x E-x O", "word 2: O after B-x"),  # in BIOES one word is S-
        ("O E-x", "word 2: E-x after O"),
        ("S-x I-x E-x", "word 2: I-x after S-x"),
        ("B-x E-y", "word 2: E-y after B-x"),
        ("B-x E-x M-x", "word 3: M-x after E-x"),
    ],
)
def test_what_breaks_its_scheme_is_told_with_its_row(tmp_path: Path, sentence: str, what: str) -> None:
    with pytest.raises(DataError, match="1 broken row") as caught:
        load_table(write(tmp_path / "a.conll", "O S-x B-x E-x", sentence), WORDS)
    assert caught.value.problems[0].where == "row 2"
    assert what in caught.value.problems[0].what
    assert "BIOES" in caught.value.hint


@pytest.mark.parametrize("labels", ["U-x S-x", "M-x L-x", "S-x PER O", "E-x X-x", "S E B"])
def test_labels_of_no_one_scheme_stay_and_are_refused(labels: str) -> None:
    assert to_bio([labels]) == ([labels], [])

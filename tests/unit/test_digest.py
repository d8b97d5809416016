from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.digest import canonical_json, digest_files, digest_json

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(JSON)
def test_canonical_json_reads_back_as_the_same_value(value: object) -> None:
    assert json.loads(canonical_json(value)) == value  # type: ignore[arg-type]


@given(st.dictionaries(st.text(), st.integers(), min_size=2, max_size=6))
def test_the_order_of_keys_does_not_matter(value: dict[str, int]) -> None:
    turned = dict(reversed(list(value.items())))
    assert digest_json({**value}) == digest_json({**turned})


def test_nan_is_refused() -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_json(float("nan"))


def test_names_count_not_only_contents(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    (tmp_path / "a" / "x.txt").write_text("same")
    (tmp_path / "b" / "y.txt").write_text("same")
    assert digest_files(tmp_path / "a") != digest_files(tmp_path / "b")
    assert set(digest_files(tmp_path / "a").values()) == set(digest_files(tmp_path / "b").values())

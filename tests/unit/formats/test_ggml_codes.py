"""The codes inside ggml's blocks are read and written in the places where ggml has them."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("llama_cpp")

from edgekit.errors import UsageError
from edgekit.formats.ggml import dequantize, ggml_type, quantize
from edgekit.formats.ggml_codes import CODED, codes_of

BITS = {"q2_k": 2, "q3_k": 3, "q4_k": 4, "q5_k": 5, "q6_k": 6, "q4_0": 4, "q4_1": 4, "q5_0": 5, "q5_1": 5}


@pytest.mark.parametrize("name", CODED)
def test_codes_are_read_written_and_mean_what_the_levels_say(name: str) -> None:
    random = np.random.default_rng(1)
    packed = quantize(random.standard_normal((5, 512)).astype(np.float32), name)
    codes = codes_of(name)
    assert codes.bits.shape == (ggml_type(name).block, BITS.get(name, 4))
    np.testing.assert_array_equal(codes.write(packed, codes.read(packed)), packed)
    levels = codes.levels(packed, 512)
    steps = np.diff(levels, axis=0)
    assert ((steps >= 0).all(0) | (steps <= 0).all(0)).all(), "codes count up or down"
    chosen = random.integers(0, codes.count, (5, 512)).astype(np.uint8)
    found = dequantize(codes.write(packed, chosen), name, 512)
    np.testing.assert_array_equal(found, np.take_along_axis(levels, chosen[None].astype(np.intp), 0)[0])
    np.testing.assert_array_equal(codes.read(codes.write(packed, chosen)), chosen)


def test_types_with_a_code_for_several_values_are_refused() -> None:
    with pytest.raises(UsageError, match="iq2_xs has not one code for each value"):
        codes_of("iq2_xs")

"""The same integers and scales in every format: what each one's own reader makes of them is the same, bit for bit."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgekit.errors import ModelError
from edgekit.formats.grid_file import GridFile, write_grids
from edgekit.formats.int4 import Grid, gguf_blocks, join_grids, onnx_blocks
from edgekit.nn.grid import GridKind, find_scales, grid_of, integers

KINDS = [GridKind(4, 32), GridKind(4, 32, symmetric=False), GridKind(8, 32), GridKind(4, 128), GridKind(8, 128)]
KINDS += [GridKind(4, 128, symmetric=False)]


def found(kind: GridKind, rows: int, blocks: int, seed: int, size: float = 1.0) -> Grid:
    weights = torch.randn(rows, blocks * kind.block, generator=torch.Generator().manual_seed(seed)) * size
    weights += torch.randn(rows, 1, generator=torch.Generator().manual_seed(seed + 1)) * size / 2
    scales, zeros = find_scales(weights, kind)
    return grid_of(integers(weights, scales, zeros, kind), scales, zeros, kind)


def onnx_product(grid: Grid, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
    """What onnxruntime's MatMulNBits makes of inputs (n, in)."""
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    rows, width = grid.shape
    blocks = onnx_blocks(grid)
    named = {"b": blocks.weights, "s": blocks.scales} | ({} if blocks.zeros is None else {"z": blocks.zeros})
    attributes = {"K": width, "N": rows, "bits": grid.kind.bits, "block_size": grid.kind.block, "accuracy_level": 1}
    node = helper.make_node("MatMulNBits", ["a", *named], ["y"], domain="com.microsoft", **attributes)
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", rows])],
        [numpy_helper.from_array(array, name) for name, array in named.items()],
    )
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    product: NDArray[np.float32] = session.run(None, {"a": inputs})[0]
    return product


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    rows=st.integers(1, 5),
    blocks=st.integers(1, 3),
    seed=st.integers(0, 9999),
    size=st.sampled_from([1e-6, 1e-3, 1.0, 100.0]),
)
def test_ggufs_reader_gives_the_grids_values(kind: GridKind, rows: int, blocks: int, seed: int, size: float) -> None:
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    grid = found(kind, rows, blocks, seed, size)
    name, packed = gguf_blocks(grid)
    np.testing.assert_array_equal(dequantize(packed, GGMLQuantizationType[name]), grid.values())


@settings(max_examples=40, deadline=None)
@given(kind=st.sampled_from(KINDS), rows=st.integers(1, 9), blocks=st.integers(1, 3), seed=st.integers(0, 9999))
def test_onnxruntime_multiplies_by_the_grids_values(kind: GridKind, rows: int, blocks: int, seed: int) -> None:
    grid = found(kind, rows, blocks, seed)
    rows_of_identity = np.eye(grid.shape[1], dtype=np.float32)
    np.testing.assert_array_equal(onnx_product(grid, rows_of_identity).T, grid.values())


@pytest.mark.parametrize("kind", KINDS)
def test_extreme_codes_and_zero_points_survive(kind: GridKind) -> None:
    generator = np.random.default_rng(0)
    codes = generator.integers(kind.lowest, kind.highest + 1, (4, 2 * kind.block)).astype(np.uint8)
    zeros = None if kind.symmetric else generator.integers(0, 16, (4, 2)).astype(np.uint8)
    scales = np.asarray([[6e-8, 1.0], [-0.5, 0.0], [3.0, 127.0], [1.984375, 4096.0]], dtype=np.float16)
    grid = Grid(kind, codes, np.abs(scales) if zeros is not None else scales, zeros)
    from gguf import GGMLQuantizationType
    from gguf.quants import dequantize

    name, packed = gguf_blocks(grid)
    np.testing.assert_array_equal(dequantize(packed, GGMLQuantizationType[name]), grid.values())
    np.testing.assert_array_equal(onnx_product(grid, np.eye(2 * kind.block, dtype=np.float32)).T, grid.values())


@pytest.mark.parametrize("kind", KINDS)
def test_rows_can_be_permuted_and_joined_in_the_grid(kind: GridKind) -> None:
    first, second = found(kind, 6, 2, 1), found(kind, 3, 2, 2)
    order = np.asarray([4, 0, 5, 1, 3, 2])
    np.testing.assert_array_equal(first.take(order).values(), first.values()[order])
    np.testing.assert_array_equal(join_grids([first, second]).values(), np.vstack([first.values(), second.values()]))


def test_the_file_gives_back_what_was_written(tmp_path: Path) -> None:
    grids = {f"layers.{i}.up": found(kind, 3, 2, i) for i, kind in enumerate(KINDS)}
    write_grids(tmp_path, grids)
    read = GridFile(tmp_path)
    assert list(read) == list(grids)
    for name, grid in grids.items():
        assert read[name].kind == grid.kind
        np.testing.assert_array_equal(read[name].codes, grid.codes)
        np.testing.assert_array_equal(read[name].values(), grid.values())


def test_a_folder_without_grids_has_none_and_a_damaged_file_is_told(tmp_path: Path) -> None:
    assert dict(GridFile(tmp_path)) == {}
    (tmp_path / "grids.safetensors").write_bytes(b"nothing")
    with pytest.raises(ModelError, match=r"grids\.safetensors: damaged"):
        GridFile(tmp_path)

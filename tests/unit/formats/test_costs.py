from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgekit.artifact import Task
from edgekit.errors import UsageError
from edgekit.formats.cost_probes import designed, random_structures
from edgekit.formats.cost_table import CostTable, Curve, fit, load_costs
from edgekit.formats.onnx_encoder import write_onnx
from edgekit.formats.onnx_graph import load_model, save_model
from edgekit.formats.onnx_narrow import layer_names, narrow_graph
from edgekit.nn.load import load_classifier
from edgekit.nn.narrow import narrow
from edgekit.nn.structure import Structure, Widths

WIDTHS = Widths(layers=6, hidden=384, heads=12, head_size=32, ffn=1536)
TASK = Task(labels=("LABEL_0", "LABEL_1", "LABEL_2"), max_length=16)
HERE = {"cpu": "a processor", "isa": "avx2", "onnxruntime": "1.0"}


def table(**changes: object) -> CostTable:
    curves = {"heads": ((1, 12), (0.0, 1.1)), "ffn": ((32, 1536), (0.0, 1.5))}
    curves |= {"last_heads": ((1, 12), (0.0, 0.5)), "last_ffn": ((32, 1536), (0.0, 0.1))}
    known: dict[str, object] = {name: Curve(sizes=sizes, ms=ms) for name, (sizes, ms) in curves.items()}
    known |= {"machine": HERE, "runtime": "onnxruntime", "threads": 2, "batch": 1, "tokens": 14.0, "precision": "f32"}
    known |= {"widths": WIDTHS, "whole_ms": 20.0, "smallest_ms": 6.4, "error": 0.01, "measured": 17}
    return CostTable.model_validate({**known, **changes})


def true_share(structure: Structure) -> float:
    """A machine whose blocks cost a piecewise linear time, the last layer's less."""
    blocks = [0.002 + 0.01 * h + 0.03 * n / 1536 for h, n in zip(structure.heads[:-1], structure.ffn[:-1], strict=True)]
    return 0.1 + sum(blocks) + 0.005 * structure.heads[-1] + 0.002 * structure.ffn[-1] / 1536


def test_a_table_is_found_from_few_structures_and_foretells_others() -> None:
    structures = [*designed(WIDTHS, 32, 0), WIDTHS.whole]
    scale = true_share(WIDTHS.whole)
    dice = np.random.default_rng(1)
    noisy = [true_share(s) / scale * float(np.exp(0.01 * dice.standard_normal())) for s in structures]
    smallest, curves, error = fit(structures, noisy, WIDTHS, 32)
    assert error < 0.02
    assert all(np.diff(curve.ms).min() >= 0 for curve in curves)
    names = ("heads", "ffn", "last_heads", "last_ffn")
    found = table(whole_ms=1.0, smallest_ms=smallest, **dict(zip(names, curves, strict=True)))
    others = random_structures(WIDTHS, 32, 30, seed=9)
    errors = [abs(found.predict(s) / (true_share(s) / scale) - 1) for s in others]
    assert np.mean(errors) < 0.02


def test_what_is_timed_spans_all_sizes_and_fits_two_sittings() -> None:
    found = designed(WIDTHS, 32, 0)
    assert len(found) == 16
    assert any(set(s.heads) == {1} and set(s.ffn) == {32} for s in found)
    tiny = Widths(layers=2, hidden=32, heads=2, head_size=16, ffn=48)
    assert all(set(s.heads) <= {1, 2} and set(s.ffn) <= {32, 48, 12, 24, 36} for s in designed(tiny, 32, 0))


def test_the_last_layer_has_curves_of_its_own() -> None:
    found = table()
    assert found.cost("heads", 5, 12) == 0.5 and found.cost("heads", 4, 12) == pytest.approx(1.1)
    assert found.predict(WIDTHS.whole) == pytest.approx(6.4 + 5 * 2.6 + 0.6)


def test_a_table_of_another_machine_or_model_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "costs.json"
    file.write_text(table().model_dump_json(), encoding="utf-8")
    found = load_costs(file)
    assert found == table()
    found.check_machine(HERE)
    found.check(WIDTHS, "f32", 2, 1)
    with pytest.raises(UsageError, match=r"another machine \(cpu: a processor, here another"):
        found.check_machine({**HERE, "cpu": "another"})
    with pytest.raises(UsageError, match="threads: 2, not 4"):
        found.check(WIDTHS, "f32", 4, 1)
    file.write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match="not a table of costs"):
        load_costs(file)
    with pytest.raises(UsageError, match="no such file"):
        load_costs(tmp_path / "nothing.json")


def test_a_narrowed_graph_has_the_shape_of_the_pruned_models_export(tiny: Callable[..., Path], tmp_path: Path) -> None:
    model = load_classifier(tiny("bert"))
    write_onnx(model, TASK, tmp_path / "whole.onnx")
    narrowed = load_model(tmp_path / "whole.onnx")
    narrow_graph(narrowed, layer_names(model), heads=(3, 1), ffn=(40, 8), size=8)
    import torch

    keep = {"heads": {0: torch.arange(3), 1: torch.arange(1)}, "ffn": {0: torch.arange(40), 1: torch.arange(8)}}
    narrow(model, keep)
    write_onnx(model, TASK, tmp_path / "pruned.onnx")
    pruned = load_model(tmp_path / "pruned.onnx")
    assert [n.op_type for n in narrowed.graph] == [n.op_type for n in pruned.graph]
    save_model(narrowed, tmp_path / "narrowed.onnx")
    import onnxruntime

    feed = {"input_ids": np.array([[2, 7, 9, 3]]), "attention_mask": np.ones((1, 4), dtype=np.int64)}
    found = [
        onnxruntime.InferenceSession(str(tmp_path / f"{name}.onnx"), providers=["CPUExecutionProvider"]).run(None, feed)
        for name in ("narrowed", "pruned")
    ]
    np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5)  # the first heads and neurons are kept in both

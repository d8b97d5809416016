from __future__ import annotations

from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
import torch

from edgekit.artifact import Task
from edgekit.data.table import Table
from edgekit.formats.cost_probes import Probes
from edgekit.nn.load import load_classifier
from edgekit.nn.narrow import narrow
from edgekit.nn.structure import Structure, widths_of
from tests.conftest import write_tiny
from tests.tiny_architectures import ARCHITECTURES, write_architecture

TASK = Task(labels=("LABEL_0", "LABEL_1", "LABEL_2"), max_length=16)
TEXTS = Table(("my card is lost", "where is my money?", "please top up") * 12)


@pytest.mark.parametrize("name", ["bert", "deberta-v2", "modernbert", "mpnet"])
def test_the_file_of_a_structure_computes_what_the_pruned_model_does(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    source = write_architecture(folder, name) if name in ARCHITECTURES else write_tiny(folder, name)
    model = load_classifier(source)
    before = deepcopy(model.state_dict())
    probes = Probes.of(model, source, TASK, TEXTS, threads=1)
    widths = widths_of(model)
    structure = Structure(heads=(2, *(1,) * (widths.layers - 1)), ffn=(8, *(16,) * (widths.layers - 1)))
    probes.write(structure, tmp_path / "narrow.onnx")
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert type(probes.write).__name__ == ("_GraphWriter" if name == "bert" else "_ModelWriter")
    narrow(
        model,
        {
            "heads": {i: torch.arange(n) for i, n in enumerate(structure.heads)},
            "ffn": {i: torch.arange(n) for i, n in enumerate(structure.ffn)},
        },
    )
    ids = np.array([[2, 7, 9, 12, 3]])
    with torch.inference_mode():
        expected = model(input_ids=torch.from_numpy(ids), attention_mask=torch.ones(1, 5, dtype=torch.int64)).logits
    np.testing.assert_allclose(run(tmp_path / "narrow.onnx", ids), expected.numpy(), atol=2e-5)


def run(file: Path, ids: np.ndarray) -> np.ndarray:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    result: np.ndarray = session.run(None, {i.name: feed[i.name] for i in session.get_inputs()})[0]
    return result

"""What onnxruntime-genai's builder cannot take is told by the plan, not by its traceback."""

from __future__ import annotations

from typing import Any

import pytest

from edgekit.formats.genai import obstacles

pytest.importorskip("onnxruntime_genai")
LONG: dict[str, Any] = {"rope_type": "longrope", "long_factor": [1.0], "short_factor": [1.0]}


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"architectures": ["Gemma3ForCausalLM"]}, "two rotary bases"),
        ({"architectures": ["Phi3ForCausalLM"], "max_position_embeddings": 64}, "LongRoPE: 64 positions, 4096"),
        ({"architectures": ["OPTForCausalLM"]}, "does not take OPTForCausalLM"),
        ({}, "a model without architectures"),
    ],
)
def test_what_the_builder_does_not_take_is_refused(config: dict[str, Any], why: str) -> None:
    (problem,) = obstacles(config)
    assert why in problem.what
    assert problem.hint


@pytest.mark.parametrize(
    "config",
    [
        {"architectures": ["LlamaForCausalLM"]},
        {"architectures": ["Gemma2ForCausalLM"]},
        {"architectures": ["Phi3ForCausalLM"], "max_position_embeddings": 4096},
        {"architectures": ["Phi3ForCausalLM"], "max_position_embeddings": 64, "original_max_position_embeddings": 64},
        {"architectures": ["Phi3ForCausalLM"], "max_position_embeddings": 131072, "rope_scaling": LONG},
    ],
)
def test_what_it_takes_is_not(config: dict[str, Any]) -> None:
    assert obstacles(config) == []

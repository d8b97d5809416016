"""The curvature of the KL divergence: its cost is what an error really costs; its moments are those of the inputs."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel

from edgekit.nn.curvature import Curvature, importance, linear_paths, measure_curvature
from edgekit.tasks.language_modeling import Windows

VOCABULARY, LENGTH = 40, 16


def decoder(*, tied: bool = True) -> PreTrainedModel:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=tied,
    )
    model = LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def windows(count: int = 128) -> Windows:
    return Windows(np.random.default_rng(0).integers(0, VOCABULARY, (count, LENGTH), dtype=np.int32), 0)


def log_probabilities(model: PreTrainedModel, data: Windows) -> torch.Tensor:
    with torch.inference_mode():
        return torch.log_softmax(model(input_ids=torch.from_numpy(data.ids).long()).logits, -1)


@pytest.mark.parametrize(
    "path",
    ["model.layers.0.self_attn.q_proj", "model.layers.0.mlp.up_proj", "model.layers.1.mlp.down_proj", "lm_head"],
)
def test_the_cost_is_about_the_divergence_that_an_error_makes(path: str) -> None:
    model, data = decoder(tied=False), windows()
    found = measure_curvature(model, data, [path])[path]
    before = log_probabilities(model, data)
    weight = model.get_submodule(path).weight
    generator = torch.Generator().manual_seed(1)
    ratios = []
    for _ in range(4):
        error = 0.02 * weight.detach().std() * torch.randn(weight.shape, generator=generator)
        weight.data += error
        after = log_probabilities(model, data)
        weight.data -= error
        divergence = float((before.exp() * (before - after)).sum(-1).mean())
        ratios.append(found.cost(error) / divergence)
    assert 0.4 < np.mean(ratios) < 2.5


def test_of_looked_up_embeddings_the_roles_are_swapped() -> None:
    model, data = decoder(tied=False), windows()
    found = measure_curvature(model, data, ["model.embed_tokens"])["model.embed_tokens"]
    counts = np.bincount(data.ids.ravel(), minlength=VOCABULARY)
    np.testing.assert_allclose(found.outputs.numpy(), counts / data.ids.size, rtol=1e-5)
    before = log_probabilities(model, data)
    error = 0.02 * torch.randn(VOCABULARY, 32, generator=torch.Generator().manual_seed(1))
    model.get_input_embeddings().weight.data += error
    after = log_probabilities(model, data)
    divergence = float((before.exp() * (before - after)).sum(-1).mean())
    assert 0.3 < found.cost(error) / divergence < 3


def test_the_importance_is_the_mean_square_of_the_inputs_and_nothing_stays_behind() -> None:
    model, data = decoder(), windows(8)
    paths = linear_paths(model)
    assert len(paths) == 15
    assert paths[-1] == "lm_head"
    plain, curved = importance(model, data), measure_curvature(model, data, paths)
    for path in paths:
        np.testing.assert_allclose(plain[path], curved[path].importance, rtol=1e-3)
        assert torch.linalg.eigvalsh(curved[path].inputs.double())[0] > -1e-5
    seen = []
    model.model.layers[1].mlp.down_proj.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    log_probabilities(model, data)
    expected = seen[0].flatten(0, 1).square().mean(0)
    np.testing.assert_allclose(plain["model.layers.1.mlp.down_proj"], expected.numpy(), rtol=1e-4)
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()) == 1


def test_some_rows_stand_for_all_and_two_uses_add_up() -> None:
    inputs = torch.eye(4) * torch.tensor([1.0, 2.0, 0.0, 1.0])
    one = Curvature(inputs, torch.tensor([1.0, 1.0, 2.0]))
    error = torch.ones(3, 4)
    assert one.cost(error) == pytest.approx(4 * (1 + 1 + 2) / 2)
    assert one.cost(error[[0, 2]], np.array([0, 2])) == pytest.approx(one.cost(error))
    assert one.importance.min() > 0
    both = one.together(Curvature(torch.eye(4), torch.ones(3)))
    np.testing.assert_allclose(both.inputs.numpy(), (inputs * 4 / 3 + torch.eye(4)).numpy())

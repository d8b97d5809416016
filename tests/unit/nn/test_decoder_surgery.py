from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from edgekit.errors import ModelError, StageError
from edgekit.nn.decoder_families import decoder_family, family_of_config, split_layer, tensor_axes
from edgekit.nn.decoder_sizes import Sizes, inexpressible, parameters, sizes_of, unit_of
from edgekit.nn.decoder_surgery import Keep, indices, keep_all, shrink
from tests.unit.nn.tiny_decoders import FAMILIES, tiny_decoder

IDS = torch.tensor([[3, 7, 9, 2, 4, 8, 5], [5, 6, 8, 1, 1, 3, 2]])


def logits(model: PreTrainedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=ids, use_cache=False).logits


def masked(model: PreTrainedModel, keep: Keep) -> PreTrainedModel:
    """The original with all that is not kept at zero, at full size; dropped layers write nothing to the stream."""
    model = copy.deepcopy(model)
    family, sizes = decoder_family(model.config.model_type), sizes_of(model.config)
    done: set[int] = set()
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            layer, rest = split_layer(family, name)
            module, _, kind = rest.rpartition(".")
            dropped = layer is not None and layer not in keep.layers
            offset = family.norm_offset if module in (*family.norms, *family.output_norms, family.final_norm) else 0.0
            if dropped and module in (family.attention_output, family.ffn_output):
                tensor.zero_()
            if dropped or module in ("lm_head", family.embeddings) and tensor.data_ptr() in done:
                continue
            done.add(tensor.data_ptr())
            for dimension, axes in enumerate(tensor_axes(family, rest if layer is not None else name)):
                gone = torch.ones(tensor.shape[dimension], dtype=torch.bool)
                if axes != ("vocabulary",):
                    gone[indices(axes, keep, sizes, layer)] = False
                    tensor.index_fill_(dimension, gone.nonzero()[:, 0], -offset)
    return model


@st.composite
def surgeries(draw: st.DrawFn, family: str) -> tuple[PreTrainedModel, Keep]:
    """A tiny model and a choice of what stays of it, at sizes that its config.json can say."""

    def subset(size: int, count: int) -> torch.Tensor:
        return torch.tensor(sorted(draw(st.permutations(range(size)))[:count]))

    groups, shared = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    if family in ("llama", "gemma2", "gemma3_text"):  # Transformers wants hidden to be a multiple of the heads
        hidden = groups * shared * draw(st.integers(2, 6))
    else:
        hidden = draw(st.integers(6, 24))
    model = tiny_decoder(
        family,
        hidden=hidden,
        groups=groups,
        shared=shared,
        head=draw(st.sampled_from([2, 4, 6])),
        ffn=draw(st.integers(2, 20)),
        tied=draw(st.booleans()) or family == "gpt2",
        seed=draw(st.integers(0, 1000)),
    )
    sizes = sizes_of(model.config)
    everything = keep_all(sizes)
    kept_groups, kept_hidden = everything.groups[0], everything.hidden
    layers = [int(i) for i in subset(3, draw(st.integers(1, 3)))]
    ffn = draw(st.integers(1, sizes.ffn))
    group_count = draw(st.integers(1, groups)) if family != "gpt2" else sizes.groups
    choices = [h for h in range(2, sizes.hidden + 1) if not inexpressible(model.config, Sizes(3, h, group_count, sizes.shared, sizes.head, ffn, 50))]
    kept_hidden = subset(sizes.hidden, draw(st.sampled_from(choices)))
    keep = Keep(
        layers=layers,
        groups={i: subset(sizes.groups, group_count) for i in range(3)} if family != "gpt2" else {i: kept_groups for i in range(3)},
        ffn={i: subset(sizes.ffn, ffn) for i in range(3)},
        hidden=kept_hidden,
        vocabulary=torch.tensor(sorted({*range(10), *subset(50, draw(st.integers(1, 50))).tolist()})),
    )
    return model, keep


@pytest.mark.parametrize("family", FAMILIES)
def test_the_smaller_model_computes_what_the_masked_original_computes(family: str) -> None:
    @settings(max_examples=12, deadline=None, derandomize=True)
    @given(surgeries(family))
    def check(case: tuple[PreTrainedModel, Keep]) -> None:
        model, keep = case
        small = shrink(model, keep)
        wanted = logits(masked(model, keep))[..., keep.vocabulary]
        torch.testing.assert_close(logits(small), wanted, rtol=2e-5, atol=2e-5)  # norms are float32 in Transformers
        sizes = keep.sizes(sizes_of(model.config))
        assert sizes_of(small.config) == sizes
        assert sum(p.numel() for p in small.parameters()) == parameters(model, sizes)

    check()

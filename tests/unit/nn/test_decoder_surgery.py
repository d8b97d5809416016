from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from edgekit.errors import ModelError, StageError
from edgekit.nn.decoder_families import decoder_family, family_of_config, split_layer, tensor_axes
from edgekit.nn.decoder_sizes import inexpressible, parameters, sizes_of, unit_of
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
            module, _, _ = rest.rpartition(".")
            dropped = layer is not None and layer not in keep.layers
            offset = family.norm_offset if module in (*family.norms, *family.output_norms, family.final_norm) else 0.0
            if dropped and module in (family.attention_output, family.ffn_output):
                tensor.zero_()
            if dropped or tensor.data_ptr() in done:  # a tied tensor comes twice
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
    fixed = family == "gpt2"
    layers = [int(i) for i in subset(3, draw(st.integers(1, 3)))]
    small = replace(
        sizes, ffn=draw(st.integers(1, sizes.ffn)), groups=sizes.groups if fixed else draw(st.integers(1, groups))
    )
    widths = [n for n in range(2, sizes.hidden + 1) if not inexpressible(model.config, replace(small, hidden=n))]
    vocabulary = {*range(10), *subset(50, draw(st.integers(1, 50))).tolist()}
    keep = Keep(
        layers=layers,
        groups={i: subset(sizes.groups, small.groups) for i in layers},
        ffn={i: subset(sizes.ffn, small.ffn) for i in layers},
        hidden=subset(sizes.hidden, draw(st.sampled_from(widths))),
        vocabulary=torch.tensor(sorted(vocabulary)),
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


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("tied", [True, False])
def test_transformers_alone_reloads_it(family: str, tied: bool, tmp_path: Path) -> None:
    model = tiny_decoder(family, tied=tied or family == "gpt2", dtype=torch.float32)
    sizes = sizes_of(model.config)
    everything = keep_all(sizes)
    fixed = family == "gpt2"
    keep = replace(
        everything,
        layers=[0, 2],
        groups=everything.groups if fixed else {i: torch.tensor([1]) for i in range(3)},
        ffn={i: torch.arange(i, i + 16) for i in range(3)},
        hidden=everything.hidden if fixed else torch.arange(4, 22),
        vocabulary=torch.arange(0, 50, 2),
    )
    model.config.eos_token_id, model.generation_config.eos_token_id = [2, 3], [2, 3]
    small = shrink(model, keep)
    small.save_pretrained(tmp_path)
    loaded, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and not info["mismatched_keys"]
    torch.testing.assert_close(logits(loaded, IDS % 25), logits(small, IDS % 25), rtol=0, atol=0)
    assert (loaded.lm_head.weight is loaded.get_input_embeddings().weight) == (tied or fixed)
    assert loaded.config.eos_token_id == loaded.generation_config.eos_token_id == [1], "3 is gone, 2 is 1 now"
    if not fixed:
        assert loaded.config.head_dim == sizes.head and loaded.config.num_attention_heads == sizes.shared


def test_what_config_json_cannot_say_is_refused() -> None:
    llama, gpt2 = tiny_decoder("llama"), tiny_decoder("gpt2")
    sizes = sizes_of(llama.config)
    assert "multiple" in inexpressible(llama.config, replace(sizes, hidden=22))
    everything = keep_all(sizes_of(gpt2.config))
    with pytest.raises(StageError, match="gpt2: neither heads nor hidden width"):
        shrink(gpt2, replace(everything, groups={i: torch.tensor([0]) for i in range(3)}))
    gpt2.config.scale_attn_by_inverse_layer_idx = True
    with pytest.raises(StageError, match="number of the layer"):
        shrink(gpt2, replace(everything, layers=[0]))


def test_unknown_architectures_and_experts_are_refused() -> None:
    with pytest.raises(ModelError, match="supported"):
        family_of_config({"model_type": "mamba"})
    with pytest.raises(ModelError, match="mixture of experts"):
        family_of_config({"model_type": "mixtral", "num_local_experts": 8})


@pytest.mark.parametrize(("size", "unit"), [(11008, 256), (257, 256), (256, 32), (33, 32), (20, 1)])
def test_widths_are_rounded_for_the_quantizers(size: int, unit: int) -> None:
    assert unit_of(size, 0) == unit
    assert unit_of(size, 16) == 16

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgekit.artifact import Artifact, Facts, Task
from edgekit.data.table import Table
from edgekit.errors import DataError, ModelError, StageError
from edgekit.stages.base import Context
from edgekit.stages.lm_prune import LmPrune, lm_prune
from tests.unit.nn.tiny_decoders import tiny_decoder

TEXTS = tuple(
    f"the {a} {b} a {c} and then the {a} was {b}"
    for a in ("cat", "dog", "bird")
    for b in ("saw", "ate")
    for c in ("fish", "snake", "tree")
)
TASK = Task(kind="language-modeling", max_length=16)
DATA = Context(data={"train": Table(TEXTS, name="train")}, threads=1)
SPECIAL = ["<unk>", "<s>", "</s>"]


def bytes_tokenizer() -> Tokenizer:
    """Byte-level BPE, as GPT-2, Llama 3 and Qwen have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=320, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([*TEXTS, "seven swans are swimming"] * 3, trainer)
    return tokenizer


def sentencepiece_tokenizer() -> Tokenizer:
    """BPE with byte fallback and a beginning token, as Llama 2, Mistral and Gemma have it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=90, special_tokens=SPECIAL, show_progress=False)
    tokenizer.train_from_iterator([*TEXTS, "seven swans are swimming"] * 3, trainer)
    spec = json.loads(tokenizer.to_str())
    vocabulary = spec["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    spec["model"] |= {"byte_fallback": True, "fuse_unk": True, "unk_token": "<unk>"}
    tokenizer = Tokenizer.from_str(json.dumps(spec))
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


TOKENIZERS = {"bytes": bytes_tokenizer, "sentencepiece": sentencepiece_tokenizer}


def folder(
    path: Path, family: str = "llama", kind: str = "bytes", *, dtype: torch.dtype = torch.float32, **sizes: int
) -> Path:
    """A random decoder with a tokenizer and a chat template."""
    tokenizer = TOKENIZERS[kind]()
    model = tiny_decoder(
        family, vocabulary=tokenizer.get_vocab_size() + 4, dtype=dtype, **sizes
    )  # padded, as Qwen's is
    model.config.bos_token_id, model.config.eos_token_id = 1, 2
    model.generation_config.bos_token_id, model.generation_config.eos_token_id = 1, [2, 0]
    model.save_pretrained(path)
    tokenizer.save(str(path / "tokenizer.json"))
    settings = {"tokenizer_class": "TokenizersBackend", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    (path / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    (path / "chat_template.jinja").write_text("{{ messages[0].content }}", encoding="utf-8")
    return path


def pruned(source: Path, out: Path, context: Context = DATA, **options: object) -> Facts:
    out.mkdir()
    outcome = lm_prune(Artifact.outside(source, TASK), LmPrune(**options), out, context)
    assert outcome.format == "hf" and outcome.task == TASK
    return outcome.facts


def logits(path: Path, ids: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        return AutoModelForCausalLM.from_pretrained(path)(input_ids=torch.tensor([ids])).logits[0]


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma3_text", "phi3"])
def test_everything_at_once_stays_a_plain_checkpoint(family: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", family, hidden=96, ffn=128, layers=4)
    options = {"layers": 0.25, "groups": 0.5, "ffn": 0.5, "hidden": 0.3, "vocabulary": 0.05}
    facts = pruned(source, tmp_path / "out", **options)
    model, info = AutoModelForCausalLM.from_pretrained(tmp_path / "out", output_loading_info=True)
    assert not any(info[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    config = model.config
    found = (config.num_hidden_layers, config.num_key_value_heads, config.num_attention_heads, config.head_dim)
    assert found == (3, 1, 2, 4) and (config.intermediate_size, config.hidden_size) == (64, 64)
    assert facts.numbers["parameters_after"] == sum(p.numel() for p in model.parameters())
    assert facts.numbers["divergence"] < facts.numbers["divergence_unrepaired"]
    assert "layers 4 -> 3" in facts.summary and "vocabulary" in facts.summary
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.apply_chat_template([{"role": "user", "content": "the cat"}], tokenize=False) == "the cat"
    text = model.generate(**tokenizer("the cat", return_tensors="pt"), max_new_tokens=3, pad_token_id=0)
    assert text.shape[1] > 2


def test_gpt2_loses_layers_neurons_and_tokens(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", "gpt2", ffn=64)
    facts = pruned(source, tmp_path / "out", layers=0.34, ffn=0.5, vocabulary=0.05)
    config = AutoModelForCausalLM.from_pretrained(tmp_path / "out").config
    assert (config.n_layer, config.n_inner) == (2, 32) and facts.changed
    with pytest.raises(StageError, match="neither heads nor hidden width"):
        pruned(source, tmp_path / "heads", groups=0.5)


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_texts_inside_the_vocabulary_answer_as_before(kind: str, tmp_path: Path) -> None:
    source = folder(tmp_path / "in", kind=kind)
    facts = pruned(source, tmp_path / "out", vocabulary=0.06)
    old, new = (Tokenizer.from_file(str(path / "tokenizer.json")) for path in (source, tmp_path / "out"))
    assert facts.numbers["vocabulary_kept"] == new.get_vocab_size() < old.get_vocab_size()
    back = {i: old.token_to_id(token) for token, i in new.get_vocab().items()}

    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(
        st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]))
        | st.lists(st.sampled_from(" ".join(TEXTS).split())).map(" ".join)
    )
    def check(text: str) -> None:
        before, after = old.encode(text), new.encode(text)
        if set(before.tokens) <= new.get_vocab().keys():
            assert [back[i] for i in after.ids] == before.ids
        assert new.decode(after.ids) == old.decode(before.ids), "another split, but the same text"

    check()
    ids = new.encode("the cat saw a fish").ids
    kept = [back[i] for i in range(new.get_vocab_size())]
    wanted = logits(source, [back[i] for i in ids])[:, kept]
    torch.testing.assert_close(logits(tmp_path / "out", ids), wanted)
    generation = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert [new.id_to_token(i) for i in generation["eos_token_id"]] == ["</s>", "<unk>"]


def test_a_budget_is_met_and_its_choice_is_told(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ffn=96)
    facts = pruned(source, tmp_path / "out", parameters=0.8, round_to=1, samples=8)
    assert facts.numbers["parameters_after"] <= 0.8 * int(facts.numbers["parameters_before"])
    assert any(name.startswith("divergence_at ffn") for name in facts.numbers)
    with pytest.raises(StageError, match="cannot reach"):
        pruned(source, tmp_path / "no", parameters=0.2)


def test_the_type_of_the_weights_stays(tmp_path: Path) -> None:
    pruned(folder(tmp_path / "in", dtype=torch.bfloat16), tmp_path / "out", layers=0.34)
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype="auto").dtype == torch.bfloat16


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ffn=64)
    for name in ("a", "b"):
        pruned(source, tmp_path / name, ffn=0.5, layers=0.34, vocabulary=0.03)
    for file in (tmp_path / "a").iterdir():
        assert file.read_bytes() == (tmp_path / "b" / file.name).read_bytes(), file.name


def test_what_it_rules_out_is_told(tmp_path: Path) -> None:
    facts = pruned(folder(tmp_path / "in", "gemma2", ffn=256), tmp_path / "out", layers=0.34, ffn=0.5)
    assert any("K-quants" in warning for warning in facts.warnings)
    assert any("every 2. layer" in warning for warning in facts.warnings)


def test_nothing_to_do_is_said(tmp_path: Path) -> None:
    source = folder(tmp_path / "in", ffn=40)
    assert not pruned(source, tmp_path / "a").changed
    facts = pruned(source, tmp_path / "b", ffn=0.1)
    assert not facts.changed and facts.skipped[0].name == "FFN"


def test_what_cannot_work_is_refused(tmp_path: Path) -> None:
    source = folder(tmp_path / "in")
    with pytest.raises(StageError, match="train data"):
        pruned(source, tmp_path / "a", Context(), ffn=0.5)
    with pytest.raises(StageError, match="needs data"):
        pruned(source, tmp_path / "b", Context(), vocabulary=0.5)
    with pytest.raises(DataError, match="do not fill"):
        pruned(source, tmp_path / "c", Context(data={"train": Table(("the cat",))}), layers=0.5)
    config = json.loads((source / "config.json").read_text()) | {"model_type": "mixtral", "num_local_experts": 8}
    (source / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="mixture of experts"):
        pruned(source, tmp_path / "d", layers=0.5)
    for bad in ({"parameters": 0.5, "ffn": 0.5}, {"parameters": 1.5}, {"dimensions": ()}, {"no": 1}):
        with pytest.raises(ValidationError):
            LmPrune(**bad)


def test_every_option_has_a_default_and_a_help() -> None:
    schema = LmPrune.model_json_schema()
    assert "required" not in schema
    assert all(field.get("description") for field in schema["properties"].values())

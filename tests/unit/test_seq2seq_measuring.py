"""Text-to-text models' files measured: along answers, of their own answers, their times; and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from edgekit.answers import Tried, drop_between
from edgekit.api import bench
from edgekit.artifact import Artifact
from edgekit.bench_seq2seq import measure_seq2seq
from edgekit.chrf import chrf, chrf_evidence
from edgekit.data.load import load_table
from edgekit.data.table import Table
from edgekit.decode_bytes import decode_bytes
from edgekit.errors import DataError, DeviceError, MissingExtraError, UsageError
from edgekit.evaluate_lm import kept_reference
from edgekit.evaluate_seq2seq import HERE, greedy_answers, score_along
from edgekit.formats.examples.generate_seq2seq import Generator
from edgekit.progress import Silent
from edgekit.report.markdown import render_markdown
from edgekit.report.schema import Report
from edgekit.rules import parse_rules
from edgekit.runtimes import RUNTIMES, Workload
from edgekit.runtimes.lm import runtimes_for
from edgekit.targets import find_target
from edgekit.tasks.encoders import columns_of
from edgekit.tasks.text_to_text import Exchanges, make_exchanges, texts_of
from edgekit.trial_seq2seq import NO_CHRF, NO_REFERENCES, seq2seq_trial
from tests.unit.tiny_seq2seq import TASK, TEXTS, write_tiny

ANSWERS = tuple(text.removeprefix("translate: ") for text in TEXTS)
TABLE = Table(TEXTS, labels=ANSWERS, name="test", label_kind="text")
QUICK = Workload(items=4, rounds=2, seconds=0.02, budget=0, warmup=1, threads=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Artifact]:
    home = tmp_path_factory.mktemp("seq2seq")
    return {"fp32": write_tiny(home / "fp32"), "int8": write_tiny(home / "int8", int8=True)}


def exchanges(files: dict[str, Artifact]) -> Exchanges:
    return make_exchanges(files["fp32"].path, TABLE, TASK)


def test_references_are_framed_as_the_model_answers(files: dict[str, Artifact]) -> None:
    found = exchanges(files)
    assert found.targets is not None
    assert all(ids[0] == 1 and (ids[-1] == 2 or len(ids) == 24) for ids in found.targets)
    assert all(ids[-1] == 2 for ids in found.sources)
    assert texts_of(files["fp32"].path, [ids[1:-1] for ids in found.targets if ids[-1] == 2]) == tuple(
        text for text, ids in zip(ANSWERS, found.targets, strict=False) if ids[-1] == 2
    )
    assert len(make_exchanges(files["fp32"].path, TABLE, TASK, most=2)) == 2


def test_the_worker_answers_and_scores_as_the_program_that_ships(files: dict[str, Artifact], tmp_path: Path) -> None:
    given, artifact = exchanges(files), files["int8"]
    program = Generator(artifact.path, 1)
    answers = greedy_answers(artifact, given.sources)
    assert answers == tuple(tuple(program.tokens(ids, 24)) for ids in given.sources)
    reference = kept_reference(files["fp32"], given.sources, tmp_path, HERE, targets=given.targets)
    assert given.targets is not None
    same = score_along(files["fp32"], given.sources, given.targets, reference)
    assert np.abs(same.kld).max() < 1e-6
    assert same.agreed.all()
    other = score_along(artifact, given.sources, given.targets, reference)
    logits = [
        program.step([0, *target[:-1]], program.read(ids), program.empty())[0]
        for ids, target in zip(given.sources, given.targets, strict=True)
    ]
    rows = np.concatenate(logits).astype(np.float64)
    log_p = rows - np.log(np.exp(rows).sum(axis=1, keepdims=True))
    told = np.concatenate([np.asarray(ids) for ids in given.targets])
    assert other.nll == pytest.approx(-log_p[np.arange(len(told)), told], abs=1e-3)
    assert 0 < other.kld.mean() < 1
    with pytest.raises(DeviceError, match="the reference holds"):
        score_along(artifact, given.sources[:2], given.targets[:2], reference)
    with pytest.raises(DeviceError, match="tokenized for another model"):
        greedy_answers(artifact, [(5, 999)])


def test_times_are_of_steps_and_of_texts(files: dict[str, Artifact]) -> None:
    given = exchanges(files)
    assert given.targets is not None
    found = measure_seq2seq(files, "fp32", given.sources, given.targets, QUICK)
    speed = found.speeds["int8"]
    assert speed.encoder_ms is not None
    assert speed.ttft_ms.value == pytest.approx(speed.encoder_ms.p50 + 1000 / speed.decode_per_second.value)
    assert speed.decode_bytes == decode_bytes(files["int8"]) < decode_bytes(files["fp32"])
    assert len(found.decode.measurements["int8"].rounds) == 2
    assert (found.decode.measurements["int8"].peak_rss_bytes or 0) > 1e6
    assert found.decode.conditions.tokens is not None
    with pytest.raises(UsageError, match="own lengths"):
        measure_seq2seq(files, "fp32", given.sources, given.targets, QUICK.model_copy(update={"length": 8}))


def run_bench(files: dict[str, Artifact], table: Table, rules: tuple[str, ...] = ()) -> Report:
    paths = [files[name].path for name in ("fp32", "int8")]
    return bench(paths, table, QUICK, rules=parse_rules(rules, "rule") if rules else ())


def test_a_bench_is_judged_by_the_rules_of_language_models(files: dict[str, Artifact]) -> None:
    rules = ("kld <= 100", "agreement >= 0%", "perplexity <= 100x baseline", "size_ratio >= 1.1x", "speedup >= 0.001x")
    report = run_bench(files, TABLE, rules)
    assert report.gate is not None
    assert [rule.verdict for rule in report.gate.rules[:4]] == ["pass"] * 4
    (int8,) = report.deployables
    assert {"kld", "agreement", "perplexity", "exact_match"} <= set(int8.metrics)
    assert int8.size_bytes == sum((files["int8"].path / f"{n}.onnx").stat().st_size for n in ("encoder", "decoder"))
    text = render_markdown(report)
    assert "Perplexity" in text
    assert "encoder" in text


def test_without_references_the_baseline_answers(files: dict[str, Artifact]) -> None:
    report = run_bench(files, Table(TEXTS[:4], name="test"))
    assert NO_REFERENCES in report.notes
    assert set(report.deployables[0].metrics) == {"kld", "agreement"}
    assert "KL divergence" in render_markdown(report)


def test_chrf_is_sacrebleus_and_paired(files: dict[str, Artifact]) -> None:
    metrics = pytest.importorskip("sacrebleu.metrics")
    said, told = ["a cat sat", "dogs"], ["the cat sat", "two dogs"]
    whole = np.ones((1, 2), dtype=np.int64)
    found = chrf(chrf_evidence(said, told), whole)[0]
    assert found == pytest.approx(metrics.CHRF().corpus_score(said, [told]).score / 100)
    trial = seq2seq_trial(files["fp32"], TABLE, QUICK)
    target = find_target("cpu")
    where = target.__class__(**{**vars(target), "runtimes": target.executes("text-to-text")})
    answers = trial.answers(Tried(files, "fp32", QUICK, where, Silent()), None)
    drop = drop_between(answers["fp32"], answers["int8"])
    assert drop is not None
    assert drop.value == pytest.approx(answers["fp32"].metrics["chrf"] - answers["int8"].metrics["chrf"])
    assert drop.low <= drop.value <= drop.high


def test_without_sacrebleu_the_report_says_what_to_install(
    files: dict[str, Artifact], monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "sacrebleu", None)
    monkeypatch.setitem(sys.modules, "sacrebleu.metrics.chrf", None)
    monkeypatch.setattr("edgekit.trial_seq2seq.has_chrf", lambda: False)
    assert seq2seq_trial(files["fp32"], TABLE, QUICK).notes == (NO_CHRF,)
    with pytest.raises(MissingExtraError, match=r"edgekit\[chrf\]"):
        chrf_evidence(["a"], ["b"])


def test_bad_input_is_told(files: dict[str, Artifact], tmp_path: Path) -> None:
    columns = columns_of("text-to-text", "source", "", "target")
    (tmp_path / "test.jsonl").write_text(json.dumps({"source": "a", "target": " "}) + "\n")
    with pytest.raises(DataError) as told:
        load_table(str(tmp_path / "test.jsonl"), columns)
    assert "row 1" in str(told.value.problems[0])
    assert "'target' is empty" in str(told.value.problems[0])
    folder = tmp_path / "blank"
    folder.mkdir()
    for name in ("generation.json", "tokenizer.json"):
        (folder / name).write_bytes((files["fp32"].path / name).read_bytes())
    spec = json.loads((folder / "tokenizer.json").read_text())
    spec["normalizer"] = {"type": "Replace", "pattern": {"Regex": "x+"}, "content": ""}
    (folder / "tokenizer.json").write_text(json.dumps(spec))
    for table, what in ((Table(("xx",)), "a text"), (Table(("a",), labels=("xx",)), "a reference answer")):
        with pytest.raises(DataError, match=f"{what} without a token: 'xx'"):
            make_exchanges(folder, table, TASK)
    with pytest.raises(DeviceError, match=r"no tokenizer\.json"):
        make_exchanges(tmp_path, TABLE, TASK)


def test_they_run_on_processors_that_run_torch() -> None:
    assert list(runtimes_for("text-to-text", RUNTIMES)) == ["onnx-seq2seq"]
    assert runtimes_for("text-to-text", {"onnx": RUNTIMES["onnx"]}) == {}
    assert "onnx-seq2seq" not in runtimes_for("language-modeling", RUNTIMES)

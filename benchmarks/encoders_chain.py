"""The whole chain, cut deeper and deeper: how fast and how small a student is that keeps 99% and 97% of the score.

A ladder of students of one teacher is one recipe, so that all of its files take turns in one run. A student counts
where its int8 file keeps that share of the score of the teacher's file on the test data; its paired interval is told.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.encoders_bed import MODEL, THREADS, Bed
from benchmarks.encoders_words import write_sentences
from benchmarks.record import Figure, data_folder
from edgekit.api import run
from edgekit.artifact import Artifact
from edgekit.report.schema import Deployable, Report
from edgekit.store import Store

__all__ = ["COURSES", "Course", "figures", "run_ladder", "teacher_of"]

TEACHERS = {"finetune": 0, "finetune-b": 1, "finetune-c": 2}  # seeds; the first is what everything is compared with
RECASED = {"finetune-recased": 1, "finetune-recased-b": 2}  # teachers that see capital letters
SHARES = {99: 0.99, 97: 0.97}  # of the teacher's score


Lesson = Mapping[str, float | str]  # a distillation's options
TEXTS: Lesson = {"epochs": 8, "altered_copies": 2, "hidden": 1.0}
INTENT: Lesson = {"epochs": 8, "altered_copies": 1}
WORDS: Lesson = {"altered_copies": 4, "alpha_hard": 0.5, "batch_size": 64}
INSIDES: Lesson = {**WORDS, "epochs": 6, "hidden": 1.0, "learning_rate": 6e-4}
LONGER: Lesson = {**WORDS, "epochs": 2, "hidden": 1.0, "learning_rate": 3e-4}
RARE_WORDS: Lesson = {"altered_draw": "by_word", "altered_share": 0.4, "altered_copies": 8}
FEW_LAYERS: Lesson = {**WORDS, **RARE_WORDS, "dropout": 0.0, "epochs": 12, "hidden": 1.0, "learning_rate": 1e-3}
SLOWER: Lesson = {**FEW_LAYERS, "epochs": 3, "learning_rate": 4e-4}
OTHERS: Lesson = {**SLOWER, "epochs": 2, "seed": 1}  # other altered copies
DEEP = (FEW_LAYERS, SLOWER, OTHERS)


@dataclass(frozen=True)
class Rung:
    """A student, and how it is taught. `ffn`, `heads`: shares that go; `common`: frequent tokens that stay (0: all);
    `whole_table`: the token table stays one matrix, in int8, which is larger and looked up sooner than two thin ones in
    int4; `folded`: first layers that go into it; `recased`: it sees capital letters, and is cut from a teacher that
    does; it learns from those teachers and the first other one; `lessons`: its distillations, one after the other."""

    layers: int
    ffn: float
    heads: float = 0.0
    common: int = 24000
    whole_table: bool = False
    folded: int = 0
    recased: bool = False
    lessons: Sequence[Lesson] = (TEXTS,)

    @property
    def name(self) -> str:
        return f"l{self.layers}-h{round((1 - self.heads) * 100)}-f{round((1 - self.ffn) * 100)}"


@dataclass(frozen=True)
class Course:
    """A data set, its task, its main metric, and the ladder that its students are on. `sentences`: they also learn from
    those of all shared sets."""

    task: Mapping[str, str | int]
    data: Mapping[str, str]  # by split; {data} is the folder of the shared sets
    metric: str
    teacher_epochs: int
    ladder: Sequence[Rung]
    sentences: bool = False


INTENTS = {name: f"package:home_intents/{name}.csv" for name in ("train", "validation", "test", "unlabeled")}
COURSES = {
    "banking77": Course(
        {"kind": "text-classification", "text": "text", "label": "category", "max_length": 64},
        {"train": "{data}/banking77/train.csv", "test": "{data}/banking77/test.csv"},
        "accuracy",
        4,
        (Rung(2, 0.75, heads=0.5), Rung(1, 0.5)),
    ),
    "home_intents": Course(
        {"kind": "text-classification", "text": "text", "label": "intent", "max_length": 64},
        INTENTS,
        "accuracy",
        4,
        (Rung(2, 0.75, heads=0.5, lessons=(INTENT,)), Rung(1, 0.5, lessons=(INTENT,))),
    ),
    "wnut17": Course(
        {"kind": "token-classification", "text": "tokens", "label": "labels", "max_length": 128},
        {"train": "{data}/wnut17/wnut17train.conll", "test": "{data}/wnut17/emerging.dev.conll"},
        "entity_f1",
        6,
        (
            Rung(3, 0.5, heads=0.33, common=0, lessons=(INSIDES, LONGER)),
            Rung(3, 0.9, heads=0.67, common=0, whole_table=True, folded=1, recased=True, lessons=DEEP),
            Rung(2, 0.9, heads=0.5, common=0, whole_table=True, folded=1, recased=True, lessons=DEEP[:1]),
        ),
        sentences=True,
    ),
}


def figures(bed: Bed) -> Iterator[Figure]:
    """Of each data set: speed and size at 99% of the teacher's score, and speed at 97%."""
    for name, course in COURSES.items():
        report = run_ladder(name, course, bed)
        for percent, share in SHARES.items():
            yield from _at(percent, share, name, course, report)


def run_ladder(name: str, course: Course, bed: Bed) -> Report:
    """All students of one data set; steps that are in the store are taken from there."""
    folder = bed.folder / f"chain-{name}"
    folder.mkdir(parents=True, exist_ok=True)
    data = {split: source.format(data=data_folder()) for split, source in course.data.items()}
    if course.sentences:
        data["unlabeled"] = str(_sentences(folder, quick=bed.quick))
    recipe = folder / "ladder.yaml"
    recipe.write_text(yaml.safe_dump(_recipe(name, course, data, quick=bed.quick), sort_keys=False), encoding="utf-8")
    return run(str(recipe), {}, folder / "out", store=bed.folder / "store", device="cpu", progress=bed.progress)


def teacher_of(report: Report, bed: Bed) -> Artifact:
    """The checkpoint that everything in the report is compared with. Raises StoreError where it is gone."""
    [key] = [step.artifact for step in report.steps if step.id == next(iter(TEACHERS))]
    return Store(bed.folder / "store").find(key)


def _sentences(folder: Path, *, quick: bool) -> Path:
    sets, out = data_folder(), folder / "sentences.jsonl"
    assert sets is not None  # `open_bed` has seen to it
    write_sentences(sets, out, most=500 if quick else None)
    return out


def _recipe(name: str, course: Course, data: Mapping[str, str], *, quick: bool) -> dict[str, object]:
    teachers = list(TEACHERS)[: 1 if quick else None]
    ladder = course.ladder[-1:] if quick else course.ladder
    epochs = 1 if quick else course.teacher_epochs
    steps = [
        *(_step(name, "finetune", "model", epochs=epochs, seed=TEACHERS[name]) for name in teachers),
        _step("teacher-onnx", "export", "finetune", format="onnx", rewrite=False),
    ]
    recased = list(RECASED)[: 1 if quick else None]
    if any(rung.recased for rung in ladder):
        steps.append(_step("recase", "recase", "model"))
        steps += (_step(name, "finetune", "recase", epochs=epochs, seed=RECASED[name]) for name in recased)
    for rung in ladder:
        steps += _student(rung, [*recased, teachers[0]] if rung.recased else teachers, quick=quick)
    return {
        "schema": 1,
        "name": name.replace("_", "-"),
        "description": f"Students of several teachers on {name}, smaller and smaller.",
        "model": MODEL,
        "task": dict(course.task),
        "data": dict(data),
        "steps": steps,
        "baseline": "teacher-onnx",
        "exports": [step["id"] for step in steps if step["stage"] == "quantize"],
        "workload": {"batch": 1, "threads": THREADS, "throughput_batches": []},
    }


def _student(rung: Rung, teachers: list[str], *, quick: bool) -> list[dict[str, object]]:
    """The steps of `text-classifier`, of taggers too, with a distillation for each lesson."""
    end, source = rung.name, teachers[0]
    words = {"vocabulary": True, "vocabulary_common": rung.common} if rung.common else {}
    cut = {"keep_layers": rung.layers, "fold_layers": rung.folded, "heads": rung.heads, "ffn": rung.ffn}
    table = "int8" if rung.whole_table else "int4"
    thin = {"modules": ["embedding"], "rank_by": "budget", "budget": 0.45, "round_to": 32}
    steps = [_step(f"prune-{end}", "prune", source, **cut, **words)]
    if not rung.whole_table:
        steps.append(_step(f"factorize-{end}", "factorize", f"prune-{end}", **thin))
    for number, lesson in enumerate(rung.lessons, 1):
        options = {**lesson, "epochs": 1} if quick else lesson
        steps.append(
            _step(f"distill-{end}-{number}", "distill", str(steps[-1]["id"]), **options) | {"teacher": teachers}
        )
    return [
        *steps,
        _step(f"onnx-{end}", "export", str(steps[-1]["id"]), format="onnx"),
        _step(f"int8-{end}", "quantize", f"onnx-{end}", method="int8-dynamic", embeddings=table),
    ]


def _step(name: str, stage: str, source: str, **config: object) -> dict[str, object]:
    return {"id": name, "stage": stage, "source": source, "config": config}


def _at(percent: int, share: float, name: str, course: Course, report: Report) -> Iterator[Figure]:
    """The fastest student that keeps that share; nothing where none does."""
    base = report.baseline
    assert base is not None and report.conditions is not None
    score = base.metrics[course.metric] or 0.0
    kept = [file for file in report.deployables if (file.metrics[course.metric] or 0.0) >= share * score]
    told = "; ".join(_told(file, course.metric) for file in report.deployables)
    if not kept:
        print(f"{name}: no student keeps {percent}% of {course.metric} {score:.4f}: {told}", flush=True)
        return
    best = max(kept, key=lambda file: file.speedup.value if file.speedup else 0.0)
    assert best.speedup is not None
    against = f"teacher in ONNX Runtime fp32, {course.metric} {score:.4f}"
    yield Figure(
        figure=f"encoder.speedup_{percent}.{name}",
        value=best.speedup.value,
        low=best.speedup.low,
        high=best.speedup.high,
        unit="x",
        against=against,
        n=report.conditions.n,
        conditions=f"{best.id}, batch 1, {THREADS} threads, lengths of the test set; all: {told}",
    )
    if percent == 99:
        smallest = min(kept, key=lambda file: file.size_bytes)
        yield Figure(
            figure=f"encoder.size_ratio_{percent}.{name}",
            value=base.size_bytes / smallest.size_bytes,
            unit="x",
            against=against,
            conditions=smallest.id,
        )


def _told(file: Deployable, metric: str) -> str:
    drop, speed = file.accuracy_drop, file.speedup
    lost = f"lost {drop.value:.4f} [{drop.low:.4f}, {drop.high:.4f}]" if drop else ""
    cost = f"{speed.value if speed else 0:.1f}x, {file.size_bytes / 1e6:.2f} MB"
    return f"{file.id} {metric} {file.metrics[metric]:.4f} {lost}, {cost}"

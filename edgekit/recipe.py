"""A recipe: YAML as frozen values. All problems are found at once, each with its path and the nearest right name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import yaml
from pydantic import BaseModel, Field, JsonValue, ValidationError

from edgekit.artifact import Frozen, TaskKind
from edgekit.data.table import SplitName
from edgekit.errors import Problem, RecipeError
from edgekit.rules import Rule, find_rules
from edgekit.runtimes.base import Workload
from edgekit.stages import STAGES
from edgekit.stages.base import Config
from edgekit.yaml_files import count, load_mapping, nearest, problem_of

__all__ = ["MODEL", "Data", "Param", "Recipe", "Resolved", "Step", "TaskSpec", "load_recipe", "resolve"]

MODEL = "model"  # the id under which steps name the recipe's model
REFERENCE = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
TYPES: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool}
Scalar = str | int | float | bool | None
T = TypeVar("T", bound=BaseModel)


class Param(Frozen):
    """An option of the recipe's command."""

    type: Literal["str", "int", "float", "bool"] = "str"
    default: Scalar = None
    required: bool = False
    choices: tuple[str, ...] = ()
    help: str = ""


class TaskSpec(Frozen):
    """What the model is for, and the columns that hold its texts, or pictures, and labels: those not named are the
    task's usual ones (`columns_of`). A picture's `max_length` is the model's own."""

    kind: TaskKind = "text-classification"
    text: str = ""
    pair: str = ""
    label: str = ""
    max_length: Annotated[int, Field(ge=4)] = 64
    segments: bool = False
    overlap: Annotated[int, Field(ge=0)] = 128  # of question answering, as in `Task`
    longest_answer: Annotated[int, Field(ge=1)] = 30


class Data(Frozen):
    """Where each split is: a file, `package:NAME/FILE`, `hub:OWNER/NAME`, or of pictures a folder. Empty: not given."""

    train: str = ""
    validation: str = ""
    test: str = ""
    unlabeled: str = ""

    def sources(self) -> dict[SplitName, str]:
        return {"train": self.train, "validation": self.validation, "test": self.test, "unlabeled": self.unlabeled}


class Step(Frozen):
    """One stage of the chain, with the ids of its inputs.

    `optional`: an export, and what follows from it, is left out with a note where its format cannot express the
    architecture of the recipe's model at all. What a step of the recipe itself rules out is still refused.
    `teacher`: one, or a list.
    """

    id: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    stage: str
    source: str
    teacher: str | tuple[str, ...] = ""
    optional: bool = False
    config: dict[str, JsonValue] = {}

    @property
    def teachers(self) -> tuple[str, ...]:
        return self.teacher if isinstance(self.teacher, tuple) else tuple(filter(None, (self.teacher,)))


class Recipe(Frozen):
    """The file as it is written: values may be `${param}`."""

    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*$")]
    description: str
    params: dict[str, Param] = {}
    model: JsonValue
    task: dict[str, JsonValue] = {}
    data: dict[str, JsonValue] = {}
    steps: tuple[Step, ...] = Field(min_length=1)
    baseline: str
    exports: tuple[str, ...] = Field(min_length=1)
    workload: dict[str, JsonValue] = {}
    gate: tuple[str, ...] = ()


class ResolvedStep(Frozen):
    """A step whose config is typed."""

    id: str
    stage: str
    source: str
    teachers: tuple[str, ...]
    optional: bool
    config: Config


class Resolved(Frozen):
    """A recipe with its params filled in: all that a plan needs."""

    name: str
    model: str
    task: TaskSpec
    data: Data
    steps: tuple[ResolvedStep, ...]
    baseline: str
    exports: tuple[str, ...]
    workload: Workload
    rules: tuple[Rule, ...]


def load_recipe(path: Path) -> Recipe:
    """Read a recipe file. Raises RecipeError with every problem that can be seen without its params."""
    content = load_mapping(path, "recipe")
    try:
        recipe = Recipe.model_validate(content)
    except ValidationError as error:
        found = tuple(problem_of(Recipe, item) for item in error.errors())
        raise RecipeError(f"{path}: {count(found)}", problems=found) from None
    problems = tuple(_inner_problems(recipe))
    if problems:
        raise RecipeError(f"{path}: {count(problems)}", problems=problems)
    return recipe


def resolve(recipe: Recipe, params: Mapping[str, Scalar], overrides: Sequence[str] = ()) -> Resolved:
    """Fill in params and `STEP.FIELD=VALUE` overrides (`workload.FIELD=VALUE` too), and type everything.

    Raises RecipeError for missing or unknown params, overrides that name nothing, and values of the wrong type.
    """
    values, problems = _param_values(recipe, params)
    steps, changed, more = _overridden(recipe, overrides)
    problems += more
    resolved: list[ResolvedStep] = []
    for index, step in enumerate(steps):
        config, more = _typed_config(step, values, f"steps[{index}]({step.id}).config")
        problems += more
        if config is not None:
            teachers = tuple(str(_fill(teacher, values)) for teacher in step.teachers)
            resolved.append(
                ResolvedStep(
                    id=step.id,
                    stage=step.stage,
                    source=step.source,
                    teachers=teachers,
                    optional=step.optional,
                    config=config,
                )
            )
    task, more = _typed(TaskSpec, recipe.task, values, "task")
    problems += more
    data, more = _typed(Data, recipe.data, values, "data")
    problems += more
    workload, more = _typed(Workload, changed, values, "workload")
    problems += more
    rules, more = _rules(recipe, values)
    problems += more
    if problems or task is None or data is None or workload is None:
        raise RecipeError(f"recipe {recipe.name}: {count(tuple(problems))}", problems=tuple(problems))
    return Resolved(
        name=recipe.name,
        model=str(_fill(recipe.model, values)),
        task=task,
        data=data,
        steps=tuple(resolved),
        baseline=recipe.baseline,
        exports=recipe.exports,
        workload=workload,
        rules=rules,
    )


def _inner_problems(recipe: Recipe) -> Iterator[Problem]:
    """What the types cannot say: stages that exist, inputs that come before, references to params."""
    known = [MODEL, "workload"]  # ids that steps cannot have
    for index, step in enumerate(recipe.steps):
        where = f"steps[{index}]({step.id})"
        if step.id in known:
            yield Problem(where, f"the id {step.id!r} is taken")
        if step.stage not in STAGES:
            yield Problem(f"{where}.stage", f"no stage {step.stage!r}", nearest(step.stage, list(STAGES)))
        else:
            yield from _input_problems(step, where, known)
        known.append(step.id)
    ids = known[2:]
    for where, name in (("baseline", recipe.baseline), *(("exports", name) for name in recipe.exports)):
        if name not in ids:
            yield Problem(where, f"no step {name!r}", nearest(name, ids))
    for where, name in _references(recipe):
        if name not in recipe.params:
            yield Problem(where, f"no param {name!r}", nearest(name, list(recipe.params)))
    required = {name: "" for name, param in recipe.params.items() if param.default is None}
    try:
        resolve(recipe, {name: _example(recipe.params[name]) for name in required})
    except RecipeError as error:
        yield from error.problems


def _input_problems(step: Step, where: str, known: list[str]) -> Iterator[Problem]:
    for role, name in (("source", step.source), *(("teacher", name) for name in step.teachers)):
        if name and name not in known and not REFERENCE.search(name):
            hint = nearest(name, known)
            yield Problem(f"{where}.{role}", f"no step {name!r} before this one", hint)
    least, most = (1, STAGES[step.stage].teachers) if STAGES[step.stage].teachers else (0, 0)
    if len(step.teachers) > most:
        what = f"{step.stage} takes {'one teacher' if most else 'no teacher'}"
        yield Problem(f"{where}.teacher", what)
    if len(step.teachers) < least:
        yield Problem(where, f"{step.stage} needs a teacher", "add: teacher: STEP")


def _example(param: Param) -> Scalar:
    """A value of the right type, to check a recipe whose required params are not given."""
    if param.choices:
        return param.choices[0]
    examples: dict[str, Scalar] = {"str": "example", "int": 1, "float": 1.0, "bool": False}
    return examples[param.type]


def _references(recipe: Recipe) -> Iterator[tuple[str, str]]:
    parts: dict[str, JsonValue] = {
        "model": recipe.model,
        "task": recipe.task,
        "data": recipe.data,
        "workload": recipe.workload,
        "gate": list(recipe.gate),
        **{f"steps[{i}]({s.id}).config": s.config for i, s in enumerate(recipe.steps)},
        **{f"steps[{i}]({s.id}).teacher": list(s.teachers) for i, s in enumerate(recipe.steps)},
    }
    for where, part in parts.items():
        for text in _texts(part):
            for match in REFERENCE.finditer(text):
                yield where, match.group(1)


def _texts(value: JsonValue) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in value.values():
            yield from _texts(item)
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item)


def _param_values(recipe: Recipe, given: Mapping[str, Scalar]) -> tuple[dict[str, Scalar], list[Problem]]:
    problems = [
        Problem("params", f"no param {name!r}", nearest(name, list(recipe.params)))
        for name in given
        if name not in recipe.params
    ]
    values: dict[str, Scalar] = {}
    for name, param in recipe.params.items():
        value = given.get(name)
        if value is None:
            value = param.default
        if value is None and param.required:
            problems.append(Problem(f"params.{name}", "is required", param.help))
        if param.choices and value is not None and value not in param.choices:
            problems.append(Problem(f"params.{name}", f"{value!r} is none of {', '.join(param.choices)}"))
        values[name] = "" if value is None else value
    return values, problems


def _fill(value: JsonValue, values: Mapping[str, Scalar]) -> JsonValue:
    """Replace references; a value that is one reference and nothing else keeps the param's type."""
    if isinstance(value, dict):
        return {key: _fill(item, values) for key, item in value.items()}
    if isinstance(value, list):
        return [_fill(item, values) for item in value]
    if not isinstance(value, str):
        return value
    whole = REFERENCE.fullmatch(value)
    if whole:
        return values.get(whole.group(1), value)
    return REFERENCE.sub(lambda match: str(values.get(match.group(1), match.group(0))), value)


def _overridden(recipe: Recipe, overrides: Sequence[str]) -> tuple[list[Step], Mapping[str, JsonValue], list[Problem]]:
    """The steps, and the workload."""
    problems: list[Problem] = []
    configs = {"workload": dict(recipe.workload), **{step.id: dict(step.config) for step in recipe.steps}}
    for text in overrides:
        target, equals, raw = text.partition("=")
        step_id, dot, field = target.partition(".")
        if not equals or not dot:
            problems.append(Problem(f"--set {text}", "is not STEP.FIELD=VALUE", "for example: --set prune.ffn=0.5"))
        elif step_id not in configs:
            problems.append(Problem(f"--set {text}", f"no step {step_id!r}", nearest(step_id, list(configs))))
        else:
            configs[step_id][field] = yaml.safe_load(raw)
    steps = [step.model_copy(update={"config": configs[step.id]}) for step in recipe.steps]
    return steps, configs["workload"], problems


def _typed_config(step: Step, values: Mapping[str, Scalar], where: str) -> tuple[Config | None, list[Problem]]:
    if step.stage not in STAGES:
        return None, []  # told already
    return _typed(STAGES[step.stage].config(), step.config, values, where)


def _typed(
    model: type[T], content: Mapping[str, JsonValue], values: Mapping[str, Scalar], where: str
) -> tuple[T | None, list[Problem]]:
    try:
        return model.model_validate(_fill(dict(content), values)), []
    except ValidationError as error:
        return None, [problem_of(model, item, where) for item in error.errors()]


def _rules(recipe: Recipe, values: Mapping[str, Scalar]) -> tuple[tuple[Rule, ...], list[Problem]]:
    rules, problems = find_rules([str(_fill(text, values)) for text in recipe.gate], "gate")
    for rule in rules:
        unknown = [name for name in rule.on if name not in recipe.exports]
        problems += [Problem(f"gate: {rule}", f"no export {name!r}", nearest(name, recipe.exports)) for name in unknown]
    return rules, problems

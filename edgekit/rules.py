"""A gate's rules: typed, one line each.

    RULE   = METRIC OP LIMIT [ "on" SCOPE ] [ "or inconclusive" ]
    METRIC = accuracy | macro_f1 | accuracy_drop | entity_f1 | entity_precision | entity_recall | entity_f1_drop
           | answer_f1 | exact_match | answer_f1_drop | spearman | pearson | spearman_drop | chrf | chrf_drop
           | score_drop (of whichever is the main metric of the task)
           | agreement | perplexity | kld | minimal_pairs
           | latency.p50 | latency.p90 | latency.p99 | throughput | size | memory | instructions | speedup
           | size_ratio | parity
    OP     = "<=" | ">=" | "<" | ">" | "=="
    LIMIT  = NUMBER[UNIT] | "baseline" [("+" | "-") NUMBER[UNIT | "%"]] | NUMBER"x" "baseline"
    SCOPE  = "any" | "all" | ["any of" | "all of"] ID {"," ID}

    accuracy_drop <= 1pt          speedup >= 5x on any          latency.p50 <= 1.02x baseline
    size <= 15MB on int8, q8      accuracy >= baseline - 0.5pt  throughput >= baseline - 20%
    latency.p99 <= baseline + 5% on int8 or inconclusive        instructions <= 1.01x baseline

Units: pt (0.01 of a fraction) and % for fractions; us, ms, s; B, kB, MB, GB, KiB, MiB, GiB; /s; x; k, M, G (of
instructions). A `%` beside `baseline` is a share of the baseline's value, and is refused for fractions, where people
mean points by it. A time held against a baseline, and a speedup, may stay undecided, which does not pass unless
the rule ends in `or inconclusive`.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Literal

from edgekit.artifact import Frozen
from edgekit.errors import Problem, RecipeError

__all__ = [
    "DROPS",
    "MAIN_METRICS",
    "METRICS",
    "SCORE_DROP",
    "Limit",
    "Metric",
    "Op",
    "Quantifier",
    "Rule",
    "check_names",
    "find_rules",
    "load_rules",
    "main_metric",
    "parse_rule",
    "parse_rules",
]

Op = Literal["<=", ">=", "<", ">", "=="]
Quantifier = Literal["all", "any"]
Kind = Literal["absolute", "offset", "ratio"]

FRACTION: Final = {"": 1.0, "pt": 0.01, "%": 0.01}
TIME: Final = {"ms": 1.0, "s": 1000.0, "us": 0.001}
BYTES: Final = {
    "B": 1.0,
    "kB": 1e3,
    "KB": 1e3,
    "MB": 1e6,
    "GB": 1e9,
    "KiB": 2.0**10,
    "MiB": 2.0**20,
    "GiB": 2.0**30,
}
RATE: Final = {"": 1.0, "/s": 1.0}
TIMES: Final = {"x": 1.0, "": 1.0}
PLAIN: Final = {"": 1.0}
COUNT: Final = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}


class Metric(Frozen):
    """Something a rule can judge: its units (name -> factor to the base unit), which way is better, whether a clock
    measured it."""

    name: str
    units: dict[str, float]
    higher_is_better: bool
    against_baseline: bool = True  # False: it is a comparison with the baseline already
    timed: bool = False


MAIN_METRICS: Final = ("accuracy", "entity_f1", "answer_f1", "spearman", "chrf")  # of tasks
SCORE_DROP: Final = "score_drop"  # of the main metric of the task, whichever that is
DROPS: Final = (*(f"{name}_drop" for name in MAIN_METRICS), SCORE_DROP)  # what is lost against the baseline, in points
METRICS: Final[dict[str, Metric]] = {
    metric.name: metric
    for metric in (
        Metric(name="accuracy", units=FRACTION, higher_is_better=True),
        Metric(name="macro_f1", units=FRACTION, higher_is_better=True),
        Metric(name="perplexity", units=PLAIN, higher_is_better=False),
        Metric(name="minimal_pairs", units=FRACTION, higher_is_better=True),
        Metric(name="kld", units=PLAIN, higher_is_better=False, against_baseline=False),
        Metric(name="entity_f1", units=FRACTION, higher_is_better=True),
        Metric(name="entity_precision", units=FRACTION, higher_is_better=True),
        Metric(name="entity_recall", units=FRACTION, higher_is_better=True),
        Metric(name="answer_f1", units=FRACTION, higher_is_better=True),
        Metric(name="exact_match", units=FRACTION, higher_is_better=True),
        Metric(name="spearman", units=FRACTION, higher_is_better=True),
        Metric(name="chrf", units=FRACTION, higher_is_better=True),
        Metric(name="pearson", units=FRACTION, higher_is_better=True),
        *(Metric(name=name, units=FRACTION, higher_is_better=False, against_baseline=False) for name in DROPS),
        Metric(name="agreement", units=FRACTION, higher_is_better=True, against_baseline=False),
        Metric(name="latency.p50", units=TIME, higher_is_better=False, timed=True),
        Metric(name="latency.p90", units=TIME, higher_is_better=False, timed=True),
        Metric(name="latency.p99", units=TIME, higher_is_better=False, timed=True),
        Metric(name="throughput", units=RATE, higher_is_better=True, timed=True),
        Metric(name="size", units=BYTES, higher_is_better=False),
        Metric(name="memory", units=BYTES, higher_is_better=False),
        Metric(name="instructions", units=COUNT, higher_is_better=False),
        Metric(name="speedup", units=TIMES, higher_is_better=True, against_baseline=False, timed=True),
        Metric(name="size_ratio", units=TIMES, higher_is_better=True, against_baseline=False),
        Metric(name="parity", units=PLAIN, higher_is_better=False, against_baseline=False),
    )
}

NUMBER = r"(?P<number>-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)"
UNIT = r"(?P<unit>[A-Za-z/%]*)"
RULE = re.compile(
    r"\s*(?P<metric>[A-Za-z_][\w.]*)\s*(?P<op><=|>=|==|<|>)\s*(?P<limit>.+?)\s*(?:\bon\s+(?P<scope>.+?)\s*)?"
    r"(?P<lenient>\bor\s+inconclusive\s*)?"
)
ABSOLUTE = re.compile(rf"{NUMBER}\s*{UNIT}")
OFFSET = re.compile(rf"baseline(?:\s*(?P<sign>[+-])\s*{NUMBER}\s*{UNIT})?")
RATIO = re.compile(rf"{NUMBER}\s*x\s*baseline")
ID = re.compile(r"[\w.-]+")


class Limit(Frozen):
    """What the value is held against.

    "absolute": `number` `unit`. "offset": the baseline's value plus `number` `unit` (of its value where `unit` is "%").
    "ratio": `number` times the baseline's value.
    """

    kind: Kind
    number: float = 0.0
    unit: str = ""

    def __str__(self) -> str:
        if self.kind == "absolute":
            return f"{_text(self.number)}{self.unit}"
        if self.kind == "ratio":
            return f"{_text(self.number)}x baseline"
        sign = "-" if math.copysign(1, self.number) < 0 else "+"
        return f"baseline {sign} {_text(abs(self.number))}{self.unit}" if self.number else "baseline"


def main_metric(known: Mapping[str, float | None]) -> str:
    """Which of a file's metrics is its task's main one; accuracy where it has none."""
    return next((name for name in MAIN_METRICS if known.get(name) is not None), MAIN_METRICS[0])


class Rule(Frozen):
    """One rule. `on`: the deployables it is about, empty for every one; `quantifier`: how many of them must pass;
    `or_inconclusive`: whether it passes where noise leaves it undecided."""

    metric: str
    op: Op
    limit: Limit
    on: tuple[str, ...] = ()
    quantifier: Quantifier = "all"
    or_inconclusive: bool = False

    def __str__(self) -> str:
        scope = ", ".join(self.on)
        if self.quantifier == "any":
            scope = f"any of {scope}" if scope else "any"
        text = f"{self.metric} {self.op} {self.limit}{f' on {scope}' if scope else ''}"
        return f"{text} or inconclusive" if self.or_inconclusive else text

    @property
    def relative(self) -> bool:
        """Whether the limit needs a baseline's value."""
        return self.limit.kind != "absolute"

    def bound(self, baseline: float | None) -> float | None:
        """The limit in the metric's base unit, given the baseline's value; None where that is needed and missing."""
        factor = METRICS[self.metric].units.get(self.limit.unit, 1.0)
        if self.limit.kind == "absolute":
            return self.limit.number * factor
        if baseline is None or not math.isfinite(baseline):
            return None
        if self.limit.kind == "ratio":
            return baseline * self.limit.number
        if self.limit.unit == "%":
            return baseline * (1 + self.limit.number / 100)
        return baseline + self.limit.number * factor

    def holds(self, value: float, bound: float) -> bool:
        """Whether `value OP bound`; equal up to rounding counts as equal, so that 0.93 - 1pt is 0.92."""
        if not (math.isfinite(value) and math.isfinite(bound)):
            return False
        equal = math.isclose(value, bound, rel_tol=1e-9, abs_tol=1e-12)
        if self.op == "==":
            return equal
        if self.op in ("<=", ">="):
            return equal or (value < bound) == (self.op == "<=")
        return not equal and (value < bound) == (self.op == "<")


def parse_rule(text: str, where: str = "") -> Rule:
    """Read one rule. Raises RecipeError with what is wrong and the nearest right name."""
    return parse_rules([text], where)[0]


def parse_rules(texts: Sequence[str], where: str = "") -> tuple[Rule, ...]:
    """Read rules; `where` is the path of the list (item numbers are added). Raises RecipeError with all problems."""
    rules, problems = find_rules(texts, where)
    if problems:
        raise RecipeError("rules that cannot be read", problems=tuple(problems))
    return rules


def find_rules(texts: Sequence[str], where: str = "") -> tuple[tuple[Rule, ...], list[Problem]]:
    """The rules that can be read, and the problems of the others: for a loader that tells all problems at once."""
    rules, problems = [], []
    for number, text in enumerate(texts):
        path = f"{where}[{number}]" if where else text
        found = _parse(text)
        if isinstance(found, Rule):
            rules.append(found)
        else:
            what, hint = found
            problems.append(Problem(path, f"{text!r}: {what}" if where else what, hint))
    return tuple(rules), problems


def check_names(rules: Sequence[Rule], names: Sequence[str]) -> None:
    """Raises RecipeError for rules about files that are not among `names`."""
    wrong = [(rule, name) for rule in rules for name in rule.on if name not in names]
    if wrong:
        problems = tuple(Problem(str(rule), f"no file {name!r}", _nearest(name, list(names))) for rule, name in wrong)
        raise RecipeError("rules about files that are not measured", problems=problems)


def load_rules(path: Path) -> tuple[Rule, ...]:
    """Read a YAML file: a list of rules, or one under `gate` or `rules`. Raises RecipeError with all problems."""
    import yaml

    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RecipeError(f"cannot read the rules {path}: {' '.join(str(error).split())}") from None
    if isinstance(content, dict):
        content = content.get("gate", content.get("rules"))
    if not isinstance(content, list) or not content:
        raise RecipeError(f"{path}: rules are a list of texts", hint="for example: - accuracy_drop <= 1pt")
    return parse_rules(
        [item if isinstance(item, str) else json.dumps(item, default=str) for item in content], path.name
    )


Wrong = tuple[str, str]  # what is wrong, hint


def _parse(text: str) -> Rule | Wrong:
    matched = RULE.fullmatch(text)
    if matched is None:
        return "not a rule", "write METRIC OP LIMIT, such as 'accuracy_drop <= 1pt' or 'latency.p50 <= 1.02x baseline'"
    name = matched["metric"]
    metric = METRICS.get(name)
    if metric is None:
        return f"no metric {name!r}", _nearest(name, list(METRICS))
    limit = _limit(matched["limit"], metric)
    if not isinstance(limit, Limit):
        return limit
    scope = _scope(matched["scope"])
    if scope is None:
        return (
            f"cannot read the names after 'on': {matched['scope']!r}",
            "write 'on any', 'on a, b' or 'on any of a, b'",
        )
    lenient = matched["lenient"] is not None
    if lenient and not _may_be_undecided(metric, limit):
        return "it is never inconclusive: only what is held against a baseline is", "leave out 'or inconclusive'"
    quantifier, names = scope
    found = {"metric": name, "op": matched["op"], "limit": limit, "on": names, "quantifier": quantifier}
    return Rule.model_validate({**found, "or_inconclusive": lenient})


def _may_be_undecided(metric: Metric, limit: Limit) -> bool:
    """Whether noise can leave a rule open: of times, and of what is lost, against a baseline."""
    if metric.timed:
        return limit.kind != "absolute" or not metric.against_baseline
    return metric.name in DROPS or (metric.name in MAIN_METRICS and limit.kind == "offset")


def _limit(text: str, metric: Metric) -> Limit | Wrong:
    if ratio := RATIO.fullmatch(text):
        found = Limit(kind="ratio", number=float(ratio["number"]))
    elif offset := OFFSET.fullmatch(text):
        sign = -1.0 if offset["sign"] == "-" else 1.0
        found = Limit(kind="offset", number=sign * float(offset["number"] or 0), unit=offset["unit"] or "")
    elif absolute := ABSOLUTE.fullmatch(text):
        found = Limit(kind="absolute", number=float(absolute["number"]), unit=absolute["unit"])
    elif " or " in text:
        return f"cannot read the limit {text!r}", "after a limit comes 'on NAME', then 'or inconclusive'"
    else:
        word = re.split(r"[\s\d]", text)[-1] if not text.startswith("b") else text.split()[0]
        hint = (
            _nearest(word, ["baseline"]) if difflib.get_close_matches(word, ["baseline"]) else "such as 1pt, 5ms, 15MB"
        )
        return f"cannot read the limit {text!r}", hint
    return _checked(found, metric)


def _checked(limit: Limit, metric: Metric) -> Limit | Wrong:
    """The limit, unless its unit or its baseline does not suit the metric."""
    if not math.isfinite(limit.number):
        return "the limit is not a finite number", ""
    if limit.kind != "absolute" and not metric.against_baseline:
        return f"{metric.name} compares with the baseline already", "give it a plain limit"
    if limit.kind == "ratio":
        return limit if limit.number > 0 else ("a ratio to the baseline must be above 0", "such as 1.02x baseline")
    if limit.kind == "offset":
        if limit.number == 0:
            return Limit(kind="offset")
        if limit.unit == "%":
            what = f"a '%' of {metric.name} beside 'baseline' can mean two things"
            return (what, "write 1pt for 0.01, or 0.99x baseline") if metric.units == FRACTION else limit
    units = metric.units
    if units == FRACTION and (wrong := _no_fraction(limit, metric)):
        return wrong
    if limit.unit in units:
        return limit
    names = ", ".join(name for name in units if name) or "none"
    if not limit.unit:
        return f"{metric.name} needs a unit", f"one of {names}"
    same = next((name for name in units if name.lower() == limit.unit.lower()), None)
    return f"{metric.name} is not measured in {limit.unit!r}", f"did you mean {same!r}?" if same else f"units: {names}"


def _no_fraction(limit: Limit, metric: Metric) -> Wrong | None:
    """Why it is no share of a whole: 1 may be meant as a point, or as all of it, and 90 is neither."""
    size = abs(limit.number) * FRACTION.get(limit.unit, 1.0)
    if not limit.unit and (limit.kind == "offset" or metric.name in DROPS):
        return f"{metric.name} needs a unit", "1pt is a point, one in a hundred"
    if limit.unit in FRACTION and size > 1:
        return f"{metric.name} is at most 100%", "write 90%" if not limit.unit else ""
    return None


def _scope(text: str | None) -> tuple[Quantifier, tuple[str, ...]] | None:
    if text is None or text == "all":
        return "all", ()
    if text == "any":
        return "any", ()
    matched = re.fullmatch(r"(?:(?P<quantifier>any|all)\s+of\s+)?(?P<names>.+)", text)
    if matched is None:
        return None
    names = tuple(name.strip() for name in matched["names"].split(","))
    if not all(ID.fullmatch(name) and name not in ("any", "all") for name in names):
        return None
    return ("any" if matched["quantifier"] == "any" else "all"), names


def _nearest(name: str, names: list[str]) -> str:
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if name in ("latency", "p50", "p90", "p99"):
        close = [f"latency.{name if name != 'latency' else 'p50'}"]
    return f"did you mean {close[0]!r}?" if close else f"one of: {', '.join(names)}"


def _text(number: float) -> str:
    """Shortest text that reads back as the same number, in the grammar above."""
    return str(int(number)) if number == int(number) and abs(number) < 1e15 else repr(number)

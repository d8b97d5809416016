"""`edgekit gate`: judge a report by rules."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgekit.cli.options import json_option

if TYPE_CHECKING:
    from edgekit.report.schema import Report
    from edgekit.rules import Rule

__all__ = ["command"]

PAGE = "GITHUB_STEP_SUMMARY"  # names the file that a GitHub job's page is made of; steps append to it
QUALITY = "gl-code-quality-report.json"  # what GitLab's documentation calls it
PATH = click.Path(path_type=Path, dir_okay=False)


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("report", type=PATH)
@click.option("--baseline", type=PATH, help="A baseline.json (edgekit baseline save), or an earlier report.json.")
@click.option("--rules", type=PATH, help="A YAML file with a list of rules.")
@click.option("--rule", "texts", multiple=True, metavar="RULE", help="A rule (repeat).")
@click.option("--junit", type=PATH, help="Write JUnit XML here.")
@click.option(
    "--summary", metavar="FILE", help=f"Write Markdown here; '-': to the job's page (${PAGE}), else print it."
)
@click.option(
    "--annotations",
    type=click.Choice(["github", "gitlab", "none"]),
    default="none",
    show_default=True,
    help=f"github: workflow commands in the log; gitlab: {QUALITY}.",
)
@json_option
def command(
    report: Path,
    baseline: Path | None,
    rules: Path | None,
    texts: tuple[str, ...],
    junit: Path | None,
    summary: str | None,
    annotations: str,
    as_json: bool,
) -> None:
    """Judge REPORT by rules; exit code 0 where all hold, 1 where one fails or is inconclusive.

    \b
    Examples:
      edgekit gate build/report.json
      edgekit gate build/report.json --rule 'accuracy_drop <= 1pt' --rule 'latency.p50 <= 1.02x baseline on onnx-int8'
      edgekit gate build/report.json --baseline baseline.json --rules gates.yaml --junit gate.xml --summary -

    Without rules, the rules the report was made with are judged again. A latency held against the report's own baseline
    is decided round by round; where the rounds do not suffice it is inconclusive, which passes only a rule that ends in
    'or inconclusive'.
    """
    from edgekit.baseline import check_same, load_baseline
    from edgekit.gate import judge
    from edgekit.report.schema import load_report
    from edgekit.rules import check_names

    found = load_report(report)
    chosen = _rules(found, rules, texts)
    check_names(chosen, [entry.id for entry in found.deployables])
    earlier = load_baseline(baseline) if baseline else None
    if earlier is not None:
        check_same(found, earlier)
    judged = found.model_copy(update={"gate": judge(found, chosen, earlier)})
    _write(judged, junit, summary, as_json)
    _annotate(judged, annotations, str(rules or report), as_json)
    _show(judged, as_json)
    if judged.gate is None or not judged.gate.passed:
        sys.exit(1)


def _rules(report: Report, rules: Path | None, texts: tuple[str, ...]) -> tuple[Rule, ...]:
    """Of the file and of the command line; the report's own where neither is given."""
    from edgekit.rules import load_rules, parse_rules

    if rules is None:
        return parse_rules(list(texts) or [entry.rule for entry in (report.gate.rules if report.gate else ())])
    return (*load_rules(rules), *parse_rules(texts))


def _write(judged: Report, junit: Path | None, summary: str | None, as_json: bool) -> None:
    from edgekit.report.junit import render_junit
    from edgekit.report.markdown import render_summary

    if junit is not None:
        _put(junit, render_junit(judged))
    if summary is None:
        return
    text, page = render_summary(judged), os.environ.get(PAGE)
    if summary != "-":
        _put(Path(summary), text, append=page is not None and Path(summary) == Path(page))
    elif page:
        _put(Path(page), text, append=True)
    else:
        click.echo(text, err=as_json)


def _annotate(judged: Report, annotations: str, path: str, as_json: bool) -> None:
    from edgekit.report.annotations import render_github, render_gitlab

    assert judged.gate is not None
    if annotations == "github":
        click.echo(render_github(judged.gate), nl=False, err=as_json)
    elif annotations == "gitlab":
        _put(Path(QUALITY), render_gitlab(judged.gate, path))


def _show(judged: Report, as_json: bool) -> None:
    from edgekit.cli.console import print_json
    from edgekit.cli.tables import show_gate
    from edgekit.report.sentences import verdict, verdict_word

    assert judged.gate is not None
    if as_json:
        print_json(judged.gate.model_dump(mode="json"))
        return
    show_gate(judged)
    for entry in judged.gate.rules:
        click.echo(f"{entry.verdict}: {entry.sentence}")
    click.echo(f"\n{verdict_word(judged.gate)}: {verdict(judged)}")


def _put(path: Path, text: str, *, append: bool = False) -> None:
    """Raises UsageError where the file cannot be written."""
    from edgekit.errors import UsageError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a" if append else "w", encoding="utf-8") as file:
            file.write(text)
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from None

"""`edgekit gate`: judge a report by rules."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from edgekit.cli.options import json_option

__all__ = ["command"]


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("report", type=click.Path(path_type=Path))
@click.option("--baseline", type=click.Path(path_type=Path), help="An earlier report.json to compare with.")
@click.option("--rules", type=click.Path(path_type=Path), help="A YAML file with a list of rules.")
@click.option("--rule", "texts", multiple=True, metavar="RULE", help="A rule (repeat), in place of the report's own.")
@json_option
def command(report: Path, baseline: Path | None, rules: Path | None, texts: tuple[str, ...], as_json: bool) -> None:
    """Judge REPORT by rules; exit code 0 where all hold, 1 where one does not.

    \b
    Examples:
      edgekit gate build/report.json
      edgekit gate build/report.json --rule 'accuracy_drop <= 1pt' --rule 'latency.p50 <= 5ms on onnx-int8'
      edgekit gate build/report.json --baseline main/report.json --rules gates.yaml

    Without rules, the rules the report was made with are judged again.
    """
    from edgekit.cli.console import print_json
    from edgekit.cli.tables import show_gate
    from edgekit.gate import judge
    from edgekit.report.schema import load_report
    from edgekit.report.sentences import verdict
    from edgekit.rules import load_rules, parse_rules

    found = load_report(report)
    earlier = load_report(baseline) if baseline else None
    chosen = list(texts) or [entry.rule for entry in (found.gate.rules if found.gate else ())]
    judged = found.model_copy(
        update={"gate": judge(found, load_rules(rules) if rules else parse_rules(chosen, "rule"), earlier)}
    )
    assert judged.gate is not None
    if as_json:
        print_json(judged.gate.model_dump(mode="json"))
    else:
        show_gate(judged)
        click.echo(verdict(judged))
    if not judged.gate.passed:
        sys.exit(1)

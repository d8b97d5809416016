"""What a person watches: progress with the time that is left, on stderr; and tables, on stdout."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Sequence, Sized
from typing import TypeVar

import click
from pydantic import JsonValue
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

__all__ = ["Live", "console", "print_json", "print_table"]

T = TypeVar("T")
LINE_EVERY = 10.0  # seconds between lines where there is no terminal to draw on


def console() -> Console:
    return Console(stderr=True, highlight=False, soft_wrap=True)


class Live:
    """Progress drawn by rich on a terminal, and as an occasional line elsewhere (a CI log)."""

    def __init__(self) -> None:
        self.console = console()
        self.start = time.monotonic()

    def track(self, items: Iterable[T], label: str, total: int | None = None) -> Iterator[T]:
        if total is None and isinstance(items, Sized):
            total = len(items)
        if self.console.is_terminal:
            yield from self._drawn(items, label, total)
        else:
            yield from self._logged(items, label, total)

    def say(self, text: str) -> None:
        self.console.print(f"[dim]{self._clock()}[/dim] {_escape(text)}")

    def head(self, text: str) -> None:
        """A line that stands out: a step begins."""
        self.console.print(f"[dim]{self._clock()}[/dim] [bold]{_escape(text)}[/bold]")

    def _clock(self) -> str:
        seconds = int(time.monotonic() - self.start)
        return f"{seconds // 60:3d}:{seconds % 60:02d}"

    def _drawn(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        columns = (TextColumn("       {task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        with Bars(*columns, TimeRemainingColumn(), console=self.console, transient=True) as bars:
            yield from bars.track(items, total=total, description=label)

    def _logged(self, items: Iterable[T], label: str, total: int | None) -> Iterator[T]:
        begun = last = time.monotonic()
        for done, item in enumerate(items, 1):
            yield item
            now = time.monotonic()
            if now - last > LINE_EVERY:
                last = now
                if total and done <= total:
                    left = (now - begun) / done * (total - done)
                    self.say(f"{label}: {done} of {total}, about {left:.0f} s left")
                else:  # no end is known, or it is past: rounds go on until a rule is decided
                    self.say(f"{label}: {done}")


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], right: Sequence[int] = ()) -> None:
    """A table on stdout; `right`: numbers of the columns that are aligned right."""
    table = Table(title=title or None, title_justify="left", header_style="bold")
    for number, name in enumerate(columns):
        table.add_column(name, justify="right" if number in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(_escape(cell) for cell in row))
    out = Console(highlight=False)
    if not out.is_terminal:
        out.width = 200  # a log is not folded at 80
    out.print(table)


def print_json(value: JsonValue) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def _escape(text: str) -> str:
    from rich.markup import escape

    return escape(text)

"""Every error a user can meet, with the exit code the command line answers with.

EdgekitError
├── UsageError        2  an argument, option or environment that cannot work
│   ├── RecipeError   2  a recipe that does not validate (all problems at once)
│   ├── DataError     2  a data set that cannot be read or does not fit the task
│   ├── ModelError    2  a model folder or id that cannot be used
│   └── PlanError     2  a plan that cannot work, found before anything ran
├── StageError        3  a stage failed, or changed nothing
│   └── ParityError   3  an exported file disagrees with torch
├── DeviceError       3  a runtime or a transport failed
└── StoreError        3  the store cannot be read or written
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "DataError",
    "DeviceError",
    "EdgekitError",
    "MissingExtraError",
    "ModelError",
    "ParityError",
    "PlanError",
    "Problem",
    "RecipeError",
    "StageError",
    "StoreError",
    "UsageError",
]


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to do about it."""

    where: str
    what: str
    hint: str = ""

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text} ({self.hint})" if self.hint else text


class EdgekitError(Exception):
    """Base of all errors that are told without a traceback."""

    exit_code = 3

    def __init__(self, what: str, *, hint: str = "", problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint
        self.problems = problems

    def __str__(self) -> str:
        lines = [self.what, *(f"  - {problem}" for problem in self.problems)]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        return "\n".join(lines)


class UsageError(EdgekitError):
    """Raised for an argument, an option or an environment that cannot work."""

    exit_code = 2


class RecipeError(UsageError):
    """Raised when a recipe does not validate; `problems` holds all of them."""


class DataError(UsageError):
    """Raised when a data set cannot be read, or does not fit the task."""


class ModelError(UsageError):
    """Raised when a model folder, hub id or package path cannot be used."""


class PlanError(UsageError):
    """Raised by the preflight, before anything runs."""


class MissingExtraError(UsageError):
    """Raised when an optional library is needed and not installed."""

    def __init__(self, library: str, extra: str) -> None:
        super().__init__(f"{library} is not installed", hint=f"pip install 'edgekit[{extra}]'")


class StageError(EdgekitError):
    """Raised when a stage failed, or when it changed nothing."""


class ParityError(StageError):
    """Raised when an exported file's outputs disagree with torch beyond the tolerance."""


class DeviceError(EdgekitError):
    """Raised when a runtime or a transport failed."""


class StoreError(EdgekitError):
    """Raised when the store cannot be read or written."""

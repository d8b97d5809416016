from __future__ import annotations

import json

import pytest

from edgekit.stages import STAGES
from tests.contract.pins import PINS, current


@pytest.mark.parametrize("name", list(STAGES))
def test_a_stage_whose_code_changed_has_a_new_version(name: str) -> None:
    """The cache key holds the stage's version: another result under the same one would serve stale artifacts."""
    pinned = json.loads(PINS.read_text())
    assert current()[name] == pinned[name], (
        f"the code behind {name} changed: raise VERSION in edgekit/stages/{name}.py if its result may differ, "
        "then run python -m tests.contract.pins"
    )

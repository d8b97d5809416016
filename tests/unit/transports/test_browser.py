"""A browser target that cannot work says why before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import tiny_onnx

from edgekit.errors import DeviceError
from edgekit.jobs import Call, Inputs
from edgekit.runtimes import WEB, runtime_of
from edgekit.transports.browser import Browser, Node


@pytest.mark.parametrize("transport", [Browser, Node])
def test_packages_that_are_missing_are_told(transport: type[Browser | Node], tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "tiny")
    job = runtime_of(artifact, WEB).job(artifact, Inputs(("on",), None, 8), Call("predict", 1))
    where = transport(cache=tmp_path)
    program = tmp_path / "chromium"
    program.write_text("#!/bin/sh\n", encoding="utf-8")
    program.chmod(0o755)
    if isinstance(where, Browser):
        where = Browser(program, cache=tmp_path)
    with pytest.raises(DeviceError, match="edgekit targets setup web"):
        where.run(job)
    with pytest.raises(DeviceError, match="edgekit targets setup web"):
        where.identity(())


def test_a_browser_that_is_not_there_is_told(tmp_path: Path) -> None:
    artifact = tiny_onnx.make(tmp_path / "tiny")
    job = runtime_of(artifact, WEB).job(artifact, Inputs(("on",), None, 8), Call("predict", 1))
    with pytest.raises(DeviceError, match=r"no program at .*absent"):
        Browser(tmp_path / "absent", cache=tmp_path).run(job)

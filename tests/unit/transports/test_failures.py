"""What is said of work that failed on a device."""

from __future__ import annotations

import json

import pytest

from edgekit.transports.failures import ended_badly, push_failed, setup_failed, worker_failed


@pytest.mark.parametrize(
    ("code", "stderr", "what", "hint"),
    [
        (132, "", "unsupported_isa", "build for that core"),
        (137, "", "out of memory (SIGKILL)", "free memory"),
        (139, "", "the runtime crashed (SIGSEGV)", ""),
        (255, "", "exit code 255 and no result", ""),
        (1, "Traceback\nValueError: odd\n", "ValueError: odd", ""),
        (1, "OSError: [Errno 28] No space left on device", "board: its disk is full", "rm -r /root/artifacts"),
        (
            127,
            "sh: python3: not found",
            "Python could not be started on board: sh: python3: not found",
            "install Python",
        ),
        (126, "sh: x: Exec format error", "Exec format error", "built for another processor"),
    ],
)
def test_each_end_has_its_words(code: int, stderr: str, what: str, hint: str) -> None:
    error = ended_badly("work", "board", "/root", code, stderr)
    assert what in error.what
    assert hint in error.hint


@pytest.mark.parametrize("nested", [False, True])
@pytest.mark.parametrize(
    ("kind", "message", "what", "hint"),
    [
        ("missing_runtime", "No module named 'onnxruntime.capi'", "missing on board", "-m pip install onnxruntime,"),
        ("missing_runtime", "No module named 'llama_cpp'", "missing_runtime", "py -m pip install llama-cpp-python,"),
        ("missing_runtime", "this onnxruntime has no CUDA", "has no CUDA", "bring a Python along"),
        ("out_of_memory", "", "out of memory on board", "smaller"),
        ("bad_input", "OSError: [Errno 28] No space left on device: 'x'", "its disk is full", "another root"),
    ],
)  # fmt: skip
def test_what_a_worker_says_of_the_device(kind: str, message: str, what: str, hint: str, nested: bool) -> None:
    result: dict[str, object] = {"error": {"kind": kind, "message": message}}
    if nested:
        result = {"members": [{"error": None}, result], "error": None}
    error = worker_failed("work", "board", "/root", "py", json.dumps(result).encode())
    assert error is not None
    assert what in error.what
    assert hint in error.hint


@pytest.mark.parametrize("raw", [b"{}", b"[1]", b"{", b'{"error": {"kind": "bad_model", "message": "odd"}}'])
def test_the_rest_is_for_the_runtime_to_tell(raw: bytes) -> None:
    assert worker_failed("work", "board", "/root", "py", raw) is None


def test_pushes_and_roots() -> None:
    full = push_failed("board", "/root", 90_000_000, "tar: x: Cannot write: No space left on device")
    assert full.what == "board: its disk is full (90.0 MB to push)"
    assert "the transfer broke off" in push_failed("board", "/root", 1, "").what
    assert setup_failed("board", "/root", ("flock",), "").what == "board: lacks flock"
    assert "Read-only" in setup_failed("board", "/root", (), "mkdir: Read-only file system\n").what

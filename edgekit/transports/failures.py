"""What is said of work that failed on a device, and what to do about it. Pure."""

from __future__ import annotations

import json
import re
import signal

from edgekit.errors import DeviceError
from edgekit.transports.base import last_line, why_it_ended

__all__ = ["ended_badly", "push_failed", "setup_failed", "worker_failed"]

FULL = "No space left on device"
PACKAGES = {"llama_cpp": "llama-cpp-python"}  # where a module's distribution has another name
HINTS = {
    signal.SIGILL: "export or build for that core, or try another version of the runtime there",
    signal.SIGKILL: "free memory there, or take a smaller file or batch; dmesg on the device names what was killed",
}
BUNDLE = "or bring a Python along with the target's launcher (edgekit targets)"


def setup_failed(device: str, root: str, missing: tuple[str, ...], stderr: str) -> DeviceError:
    """A device whose root folder could not be made, or which lacks tools."""
    if missing:
        hint = "Debian: apt install coreutils util-linux tar findutils; Android 8 or newer has them"
        return DeviceError(f"{device}: lacks {', '.join(missing)}", hint=hint)
    return _full(device, root, stderr) or DeviceError(
        f"{device}: cannot keep files in {root} ({last_line(stderr)})",
        hint="give the target a root that can be written",
    )


def push_failed(device: str, root: str, size: int, stderr: str) -> DeviceError:
    """A push that the device did not take; `size` in bytes."""
    return _full(device, root, stderr, size) or DeviceError(
        f"{device}: could not take {size / 1e6:.1f} MB ({last_line(stderr) or 'the transfer broke off'})"
    )


def ended_badly(work: str, device: str, root: str, code: int, stderr: str) -> DeviceError:
    """Work without a result; `code` as a shell has it: 128 + N for signal N."""
    full = _full(device, root, stderr)
    if full is not None:
        return full
    if code in (126, 127):
        why = last_line(stderr) or "command not found"
        hint = f"install Python there and give its path to the target, {BUNDLE}"
        if "format" in why.lower():
            hint = "the interpreter is built for another processor: take the bundle for this one"
        return DeviceError(f"{work}: Python could not be started on {device}: {why}", hint=hint)
    number = code - 128 if code - 128 in signal.valid_signals() else 0
    why = why_it_ended(-number if number else code, stderr)
    return DeviceError(f"{work} failed on {device}: {why}", hint=HINTS.get(number, ""))  # type: ignore[call-overload]


def worker_failed(work: str, device: str, root: str, python: str, raw: bytes) -> DeviceError | None:
    """What RESULT.json (of a job or of a sitting's members) says went wrong with the device; None where nothing did,
    or what did is for the runtime to tell."""
    try:
        result = json.loads(raw)
    except ValueError:
        return None
    if not isinstance(result, dict):
        return None
    for part in (result, *result.get("members", ())):
        error = part.get("error") or {}
        kind, message = error.get("kind", ""), str(error.get("message", ""))
        if kind == "missing_runtime":
            return _missing(work, device, python, message)
        if kind == "out_of_memory":
            return DeviceError(f"{work}: out of memory on {device}", hint=HINTS[signal.SIGKILL])
        if (full := _full(device, root, message)) is not None:
            return full
    return None


def _missing(work: str, device: str, python: str, message: str) -> DeviceError:
    found = re.search(r"No module named '([\w]+)", message)
    package = PACKAGES.get(found[1], found[1]) if found else ""
    hint = f"on the device: {python} -m pip install {package}, {BUNDLE}" if package else BUNDLE.removeprefix("or ")
    return DeviceError(f"{work}: its runtime is missing on {device}: {message} (missing_runtime)", hint=hint)


def _full(device: str, root: str, stderr: str, size: int = 0) -> DeviceError | None:
    if FULL not in stderr:
        return None
    need = f" ({size / 1e6:.1f} MB to push)" if size else ""
    hint = f"free some: rm -r {root}/artifacts {root}/bundles there, or give the target another root"
    return DeviceError(f"{device}: its disk is full{need}", hint=hint)

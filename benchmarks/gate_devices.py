"""Figures of the gate's benchmark that need no pool: what timing costs, counts on emulated cores, pushes over ssh."""

from __future__ import annotations

import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Literal

from benchmarks.gate_models import LENGTH, minilm, texts
from benchmarks.record import Figure
from edgekit.bench import measure
from edgekit.jobs import WORKERS
from edgekit.launchers.qemu import Qemu
from edgekit.progress import Progress
from edgekit.provision import arm64
from edgekit.provision.cache import cache_root
from edgekit.runtimes import Workload
from edgekit.transports import Local
from tests.device.ssh_host import SshHost

__all__ = ["overhead", "pushes", "spread_of_counts"]

CALLS = 200_000
CORE: Literal["cortex-a76"] = "cortex-a76"


def overhead() -> Figure:
    """What the harness adds to the time of an inference that it reports: its own time around one that does nothing."""
    sys.path.insert(0, str(WORKERS))
    from harness import Stopwatch

    def nothing(_: object) -> None:
        return None

    watch = Stopwatch(nothing)
    start = time.perf_counter()
    watch.time(range(CALLS))
    whole = (time.perf_counter() - start) / CALLS * 1e3
    reported = statistics.median(watch.wall)
    told = f"reported {reported * 1e3:.2f} us too much; {whole * 1e3:.2f} us of the process per inference"
    return Figure(figure="harness.overhead_1ms", value=reported, unit="1", n=CALLS, against="1 ms", conditions=told)


def spread_of_counts(folder: Path, progress: Progress, times: int = 5) -> list[Figure]:
    """The same file counted `times` times on an emulated core: (most - least) / median, of an inference."""
    if not arm64.ready(cache_root()):
        progress.say("arm64.instruction_spread is left out: edgekit targets setup arm64")
        return []
    file = minilm(folder / "arm64")
    workload = Workload(length=LENGTH, items=4, throughput_batches=())
    runs = []
    for _ in progress.track(range(times), f"counting on {CORE}", times):
        bench = measure({"file": file}, "file", texts(4), workload, transport=Local(Qemu(CORE)))
        runs.append([count for block in bench.blocks for count in block.instructions])
    spreads = [(max(counts) - min(counts)) / statistics.median(counts) for counts in zip(*runs, strict=True)]
    middle = statistics.median(runs[0])
    told = f"MiniLM int8, {LENGTH} tokens on {CORE}, {middle / 1e6:.1f} M instructions an inference, {times} runs"
    return [Figure(figure="arm64.instruction_spread", value=max(spreads), unit="1", n=len(spreads), conditions=told)]


def pushes(folder: Path, progress: Progress) -> list[Figure]:
    """Bytes of a 91 MB artifact that go over ssh (a real server on the loopback interface) the second time."""
    if not (shutil.which("sshd") or Path("/usr/sbin/sshd").exists()):
        progress.say("transport.second_push_bytes is left out: apt-get install openssh-server")
        return []
    home = folder / "ssh"
    home.mkdir()
    host = SshHost(home)
    host.start()
    try:
        file = minilm(folder / "pushed", int8=False)
        sent = []
        for _ in range(2):  # two connections, as two CI jobs have
            transport = host.connect(root=str(home / "device"))
            transport.device.artifact(file)
            sent.append(transport.sent["artifacts"])
    finally:
        host.stop()
    told = f"over ssh, a connection of its own each time; {sent[0]:,} bytes the first time"
    return [Figure(figure="transport.second_push_bytes", value=sent[1], unit="B", conditions=told)]

"""ssh: who is who, and what is said where it is not."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from edgekit.errors import DeviceError

pytestmark = pytest.mark.ssh


def test_a_wrong_key_is_told(sshd: Any) -> None:
    with pytest.raises(DeviceError, match="does not take the key") as caught:
        sshd.connect(key=sshd.folder / "stranger").probe()
    assert f"ssh-copy-id -i {sshd.folder / 'stranger'} -p {sshd.port} {sshd.user}@127.0.0.1" in caught.value.hint


@pytest.mark.parametrize("readable", [False, True])
def test_a_key_that_cannot_be_used_is_told(sshd: Any, tmp_path: Path, readable: bool) -> None:
    key = tmp_path / "a key"
    if readable:
        key.write_bytes((sshd.folder / "user").read_bytes())
        key.chmod(0o644)
    with pytest.raises(DeviceError, match="private key cannot be used"):
        sshd.connect(key=key).probe()


def test_an_unknown_host_is_refused(sshd: Any, tmp_path: Path) -> None:
    empty = tmp_path / "known hosts"
    with pytest.raises(DeviceError, match="host key is not known here") as caught:
        sshd.connect(known_hosts=empty).probe()
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in caught.value.hint
    assert not empty.exists()


def test_the_hint_for_an_unknown_host_works(sshd: Any, tmp_path: Path) -> None:
    known = tmp_path / "known"
    with pytest.raises(DeviceError) as caught:
        sshd.connect(known_hosts=known).probe()
    subprocess.run(caught.value.hint.partition(",")[0], shell=True, check=True, capture_output=True)
    assert sshd.connect(known_hosts=known, root=str(tmp_path / "root")).probe().arch


def test_a_changed_host_key_is_told_apart(sshd: Any, tmp_path: Path) -> None:
    other = tmp_path / "known"
    other.write_text(f"[127.0.0.1]:{sshd.port} {(sshd.folder / 'stranger.pub').read_text()}")
    with pytest.raises(DeviceError, match="host key changed") as caught:
        sshd.connect(known_hosts=other).probe()
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}' -f {other}" in caught.value.hint


def test_nobody_there_is_told(sshd: Any) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(DeviceError, match=r"unreachable \(.*refused"):
            sshd.connect(port=closed.getsockname()[1]).probe()


def test_the_connection_is_shared_and_ends_with_the_transport(sshd: Any, tmp_path: Path) -> None:
    def masters() -> int:
        log: str = (sshd.folder / "log").read_text()
        return log.count("Accepted publickey")

    before = masters()
    transport = sshd.connect(root=str(tmp_path / "root"))
    transport.probe()
    transport.probe(("numpy",))
    assert masters() == before + 1
    control = Path(transport.device.shell.control)
    assert control.exists()
    del transport
    assert not control.exists()
    assert not control.parent.exists()


def test_ssh_that_is_missing_is_told(sshd: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DeviceError, match="ssh is not installed here"):
        sshd.connect().probe()

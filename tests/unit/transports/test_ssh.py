"""ssh's command, and what its complaints become. The complaints are OpenSSH's own (9.2)."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import UsageError
from edgekit.transports.ssh import Ssh


@pytest.mark.parametrize(
    ("host", "user"), [("-oProxyCommand=touch x", ""), ("", ""), ("a b", ""), ("board", "-x"), ("board\n", "")]
)
def test_hosts_that_would_be_options_are_refused(host: str, user: str) -> None:
    with pytest.raises(UsageError):
        Ssh(host, user=user)


def test_the_line_is_one_argument_and_nobody_is_asked() -> None:
    target = Ssh("board", port=2222, user="pi", key=Path("/k e%y"), known_hosts=Path("/known"))
    command = target.open_shell().command("echo 'a b'; ls")
    assert command[-4:] == ["-T", "--", "board", """exec sh -c 'echo '"'"'a b'"'"'; ls'"""]
    for option in ("BatchMode", "StrictHostKeyChecking"):
        assert f'{option}="yes"' in command
    assert 'IdentityFile="/k e%%y"' in command
    assert 'UserKnownHostsFile="/known"' in command
    assert command[command.index("-p") + 1] == "2222"
    assert command[command.index("-l") + 1] == "pi"


def test_without_a_port_it_is_for_ssh_to_say() -> None:
    """The command line would override the port that an alias has in ~/.ssh/config."""
    target = Ssh("alias")
    assert "-p" not in target.open_shell().command("true")
    assert target.name == "ssh alias"
    assert "-p 2222 " in Ssh("board", port=2222).open_shell().failure("").hint


@pytest.mark.parametrize(
    ("stderr", "what", "hint"),
    [
        (
            "ssh: Could not resolve hostname board: Name or service not known\r\n",
            "unreachable",
            "ssh -v pi@board",
        ),
        ("ssh: connect to host board port 22: No route to host\r\n", "unreachable", "is it on"),
        ("ssh: connect to host board port 22: Connection timed out\r\n", "unreachable", "is it on"),
        ("Connection timed out during banner exchange\r\n", "unreachable", "is it on"),
        ("pi@board: Permission denied (publickey).\r\n", "does not take the key", "ssh-copy-id pi@board"),
        (
            "No ED25519 host key is known for board and you have requested strict checking.\r\n"
            "Host key verification failed.\r\n",
            "its host key is not known here",
            "ssh-keyscan board >> ~/.ssh/known_hosts",
        ),
        (
            "@    WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!     @\r\nHost key verification failed.\r\n",
            "its host key changed",
            "ssh-keygen -R board -f ~/.ssh/known_hosts",
        ),
        ("client_loop: send disconnect: Broken pipe\r\n", "the connection broke", "killed by the device itself"),
        ("Connection to board closed by remote host.\r\n", "the connection broke", "killed by the device itself"),
        ("", "the connection broke (ssh ended without a word)", "killed by the device itself"),
    ],
)
def test_each_complaint_has_its_words_and_its_remedy(stderr: str, what: str, hint: str) -> None:
    error = Ssh("board", user="pi").open_shell().failure(stderr)
    assert error.what.startswith("ssh pi@board: ")
    assert what in error.what
    assert hint in error.hint

"""Completion in bash offers what the program's help names, and what an option takes."""

import re
import subprocess

import pytest

from support.local import ROOT, TRAINER

ASK = """
source "$1"; shift
COMP_WORDS=(thole-trainer "$@") COMP_CWORD=$#
_thole_trainer "$TRAINER" "${@: -1}" "${COMP_WORDS[-2]}"
printf '%s\\n' "${COMPREPLY[@]}"
"""


def offered(directory, *words):
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", ROOT / "trainer-image/completion.sh", *words],
        cwd=directory, env={"PATH": "/usr/bin:/bin", "TRAINER": str(TRAINER)}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stderr == ""
    return set(done.stdout.split())


def help_of(*role):
    return subprocess.run([TRAINER, *role, "--help"], capture_output=True, text=True, check=True).stdout


def test_roles():
    assert offered("/", "") == {"local", "ps", "worker", "--help", "--version"}
    assert offered("/", "lo") == {"local"}
    assert offered("/", "no-such-role", "") == set()


@pytest.mark.parametrize("role", ["local", "ps", "worker"])
def test_options_are_those_of_the_help(role):
    named = set(re.findall(r"^  (?:-[a-z], )?(--[a-z0-9-]+)", help_of(role), re.MULTILINE))
    assert len(named) > 5
    assert offered("/", role, "--") == named | {"--help"}


def test_values(tmp_path):
    (tmp_path / "job.yaml").touch()
    (tmp_path / "images").mkdir()
    assert offered(tmp_path, "local", "-f", "") == {"job.yaml", "images"}
    assert offered(tmp_path, "local", "--file", "jo") == {"job.yaml"}
    assert offered(tmp_path, "local", "--output", "") == {"images"}
    assert offered(tmp_path, "local", "--data", "fashion", "=", "im") == {"images"}
    assert offered(tmp_path, "local", "--data", "fashion", "=") == {"images"}
    assert offered(tmp_path, "local", "--workers", "") == set()
    assert "debug, info, warn or error" in help_of("local")
    assert offered(tmp_path, "local", "--log-level", "") == {"debug", "info", "warn", "error"}
    assert "text or json" in help_of("ps")
    assert offered(tmp_path, "ps", "--log-format", "") == {"text", "json"}

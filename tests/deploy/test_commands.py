"""The commands in the comments of the cluster files, through the parsers that will read them."""

import re
import shlex

import pytest

from tests.deploy.files import AWS, KUBERNETES, LOCAL

FILES = [AWS, LOCAL, KUBERNETES / "ray-cluster.yaml"]


def commands(file, program: str) -> list[list[str]]:
    """The words of every command of a program in a file's comments.

    What a comment says of a command stands to its right, after two spaces or more.
    """
    text = re.sub(r" *\\\n# +", " ", file.read_text(encoding="utf-8"))  # continued lines
    lines = re.findall(rf"^# +({re.escape(program)} .*)$", text, re.MULTILINE)
    found = (re.split(r" {2,}| > ", line)[0] for line in lines)
    return [shlex.split(line)[len(program.split()) :] for line in found]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_our_own(file):
    from tuning.__main__ import _parser

    (words,) = commands(file, "python -m tuning")
    arguments = _parser().parse_args(words)
    assert arguments.address == "auto"
    assert str(arguments.storage) == ("$STORAGE" if file.parent == KUBERNETES else "/mnt/runs")
    assert arguments.gpus_per_trial == 0.5


@pytest.mark.parametrize("file", [AWS, LOCAL], ids=lambda file: file.stem)
def test_rays(file):
    from ray.scripts.scripts import cli

    ours = commands(file, "ray")
    for name, *words in ours:
        cli.commands[name].make_context(name, list(words))
        if name != "get-auth-token":
            assert words[0] == ("cluster.yaml" if file == AWS else "deploy/cluster-local.yaml")
    assert {"get-auth-token", "up", "rsync-up", "attach", "dashboard", "down"} <= {
        words[0] for words in ours
    }

"""docs/cluster.md is executed: what one machine can run is run, the rest meets the real parsers."""

import itertools
import os
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from analysis import Results
from tests.conftest import exit_status
from tests.processes import free_port, with_settings
from tests.tuning.jobs_support import ROOT, Head

TEXT = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
#: Indented lines that are no commands: what a program prints, and variables to set.
OUTPUT = ("node ", "the same one on every node", "RAY_")
#: Said by the guide, checked by nobody here: they are of no package that is installed.
FOREIGN = (".", "cd", "chmod", "export", "helm", "docker", "git", "mkdir", "ssh")
DASHBOARD, STORAGE = "http://127.0.0.1:8265", "/mnt/runs"


def commands(program=""):
    """The words of every command in an indented block, those of one program alone if one is named.

    What is optional, in brackets, is taken in.
    """
    text = re.sub(r"\\\n +", "", TEXT)  # continued lines
    lines = [line[4:] for line in text.splitlines() if line.startswith("    ")]
    found = [
        shlex.split(line.replace("[--", "--").replace("]", ""), comments=True)
        for line in lines
        if not line.startswith(OUTPUT)
    ]
    return [words for words in found if words[: len(program.split())] == program.split()]


def inline(program):
    """The words of the commands of a program in the running text, those that have arguments."""
    spans = re.findall(r"`([^`\n]+(?:\n[^`\n]+)?)`", re.sub(r"^    .*$", "", TEXT, flags=re.M))
    found = [shlex.split(span) for span in spans if span.startswith(f"{program} ")]
    return [words for words in found if len(words) > 2]


# The spelling of all of them


def test_every_command_has_somebody_who_checks_it():
    known = {"python", "ray", "kubectl", "make", *FOREIGN}
    programs = {words[0] for words in commands()}
    assert {"python", "ray", "kubectl"} <= programs
    assert programs <= known, "see which test here is to check it"


@pytest.mark.parametrize("words", commands("python"), ids=" ".join)
def test_our_own(words):
    from analysis.__main__ import _parser as analysis
    from tuning.__main__ import _parser as tuning

    assert words[1] == "-m", "a script: see that it exists"
    parsers = {"analysis": analysis, "tuning": tuning}
    if words[2] in parsers:
        parsers[words[2]]().parse_args(words[3:])  # ends the process where a word is wrong
    else:
        assert find_spec(words[2]) is not None


def test_scripts_are_there():
    scripts = [words[1] for words in inline("python") if words[1] != "-m"]
    scripts += re.findall(r"`python (\S+\.py)`", TEXT)
    assert scripts
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


@pytest.mark.parametrize("words", [*commands("ray"), *inline("ray")], ids=" ".join)
def test_rays(words):
    from ray.scripts.scripts import cli

    name, *arguments = words[1:]
    arguments = list(itertools.takewhile(lambda word: word not in (">", "&&"), arguments))
    cli.commands[name].make_context(name, list(arguments))
    files = [word for word in arguments if word.endswith(".yaml")]
    assert [file for file in files if not (ROOT / file).is_file()] == []
    assert files or name in ("get-auth-token", "start", "status", "stop")


def test_what_is_made_can_be_made():
    made = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = [target for words in commands("make") for target in words[1:]]
    assert targets
    assert [target for target in targets if f"\n{target}: " not in made] == []


def test_files_of_kubernetes():
    files = [
        words[i + 1]
        for words in [*commands("kubectl apply"), *commands("docker build")]
        for i, word in enumerate(words)
        if word == "-f"
    ]
    assert "deploy/kubernetes/ray-job.yaml" in files
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_names_in_kubernetes():
    """A job's name is that of its RayJob; a cluster's service and Secret have the cluster's."""
    manifests = [
        manifest
        for file in (ROOT / "deploy" / "kubernetes").glob("*.yaml")
        for manifest in yaml.safe_load_all(file.read_text(encoding="utf-8"))
    ]
    names = {(each["kind"], each["metadata"]["name"]) for each in manifests}
    jobs = [words[-1] for words in commands("kubectl logs")]
    assert jobs
    assert [job for job in jobs if ("RayJob", job.removeprefix("job/")) not in names] == []
    clusters = re.findall(r"service/(\S+)-head-svc", TEXT) + re.findall(r"get secret (\S+)", TEXT)
    assert len(clusters) == 2
    assert [cluster for cluster in clusters if ("RayCluster", cluster) not in names] == []


def test_the_log_of_a_job_is_asked_for_once_there_is_one():
    """The Job is made when its cluster is up; `kubectl logs` alone would end at once."""
    ours = commands("kubectl")
    log = next(i for i, words in enumerate(ours) if words[1] == "logs")
    _, verb, resource, until, patience = ours[log - 1]
    assert (verb, resource) == ("wait", f"ray{ours[log][-1]}")
    assert until == "--for=jsonpath={.status.jobDeploymentStatus}=Running"
    assert patience.startswith("--timeout=")


def test_kubernetes_takes_the_entry_for_prometheus():
    from tests.deploy.kuberay import problems

    (text,) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)
    file = ROOT / "deploy" / "kubernetes" / "network-policy.yaml"
    policy = yaml.safe_load(file.read_text(encoding="utf-8"))
    policy["spec"]["ingress"] += yaml.safe_load(text)
    assert problems(policy) == []


def test_manifests_on_a_cluster_have_the_commit():
    """By one command, which `tests/deploy/test_copying.py` runs as the cluster files have it."""
    said = {words[3] for words in commands("ray exec")}
    assert len(commands("ray exec")) == 2
    (line,) = said
    for file in ("cluster.yaml", "deploy/cluster-local.yaml"):
        text = re.sub(r" *\\\n# +", " ", (ROOT / file).read_text(encoding="utf-8"))
        assert f'ray exec {file} "{line}"' in text


def test_a_machine_is_taken_back_by_the_cluster_files_command():
    (words,) = [words for words in commands("ssh") if "HEAD:6379" in words[-1]]
    file = (ROOT / "deploy" / "cluster-local.yaml").read_text(encoding="utf-8")
    assert f"#   ssh USER@WORKER '{words[-1]}'" in re.sub(r" *\\\n# +", " ", file)


def test_the_project_lies_where_the_next_command_looks():
    cloned, home = dict.fromkeys(words[1] for words in commands("cd"))
    assert [cloned] == [words[-1] for words in commands("git clone")]
    copied = {words[4] for words in commands("ray rsync-up")}
    assert f"{home.removeprefix('~/')}/" in copied


def test_the_version_to_install_is_the_pinned_one():
    from tests.deploy.files import unpinned

    assert "pip install 'ray[default]==" in TEXT
    assert unpinned(re.sub("`", "\n", TEXT)) == []


# Those that one machine can run


#: The blocks of commands in the section for beginners, and where each is said.
FIRST = ("both: install", "both", "head", "worker", "head again", "both: end")


def first_blocks() -> dict[str, str]:
    """The lines of each block, as a shell reads them."""
    section = TEXT.split("\n## ")[1]
    assert section.startswith("The first one, in ten minutes\n")
    blocks = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return dict(zip(FIRST, (re.sub("^    ", "", each, flags=re.M) for each in blocks), strict=True))


@pytest.fixture
def two_homes():
    """A directory with a home for each of two machines, which are this one; whatever runs is ended.

    Its name is short: the paths of Ray's sockets may have 107 bytes.
    """
    place = Path(tempfile.mkdtemp(prefix="dtg", dir="/tmp"))
    mark = f"DIALOGUE_TUNE_TEST_GUIDE={secrets.token_hex(8)}"
    for name in ("head", "worker", "runs"):
        (place / name).mkdir()
    try:
        yield place, mark
    finally:
        until = time.monotonic() + 30
        while pids := with_settings(mark):
            assert time.monotonic() < until, f"processes {pids} do not end"
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.1)
        shutil.rmtree(place, ignore_errors=True)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
@pytest.mark.timeout(400)
def test_the_first_one(two_homes):
    """Its own lines, all but the installation and the end, in a shell for each of two nodes.

    Both are on this machine, as the guide has it for one machine alone, but with a home each, so
    that the token has to be copied. The search is a small one.
    """
    place, mark = two_homes
    port, blocks = str(free_port()), first_blocks()
    ours = {
        r"HEAD=\S+ WORKER=\S+ STORAGE=\S+": f"HEAD=127.0.0.2 WORKER=127.0.0.3 STORAGE={place}/runs",
        r"^\. \.venv/bin/activate$": f"PATH={Path(sys.executable).parent}:$PATH",
        r"6379": port,
        r"^ray start": "ray start --num-cpus=1 --object-store-memory=80000000",
        r"--name first$": f"--name first {' '.join(SMALL)}",
    }
    outer = {k: v for k, v in os.environ.items() if not k.startswith(("RAY_", "WANDB_"))}
    outer |= {"RAY_TMPDIR": str(place), "OMP_NUM_THREADS": "1"} | dict([mark.split("=")])
    outer |= {"WORKER_HOME": str(place / "worker")}  # where "ssh" comes out
    ssh = 'ssh() { [ "$1" = "$WORKER" ] && ( cd "$WORKER_HOME" && bash -c "$2" ); }'

    def say(machine, *names):
        text = "".join(blocks[name] for name in ("both", *names))
        for pattern, instead in ours.items():
            text = re.sub(pattern, instead, text, flags=re.MULTILINE)
        result = subprocess.run(
            ["bash", "-ec", f"{ssh}\n{text}"],
            cwd=ROOT,
            env=outer | {"HOME": str(place / machine)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
            check=False,
        )
        assert result.returncode == 0, result.stdout
        return result.stdout

    say("head", "head")
    token = place / "worker" / ".ray" / "auth_token"
    assert token.stat().st_mode & 0o077 == 0
    say("worker", "worker")
    said = say("head", "head again")
    assert re.search(r"Active:\n 1 node_\w+\n", said), said  # the second one is seen seconds later
    assert f"finished: {place}/runs/first" in said
    trials = Results.open(place / "runs" / "first").trials
    assert trials["state"].isin(["finished", "stopped"]).all()
    assert set(trials["node"]) == {"127.0.0.2", "127.0.0.3"}, said


@pytest.fixture(scope="module")
def head():
    pytest.importorskip("aiohttp", reason="jobs need ray[default]")
    head = Head()
    shutil.copytree(ROOT / "configs", head.project / "configs")
    try:
        head.wait()
        yield head
    finally:
        head.close()


def here(head, program, *more, **instead):
    """The guide's command as it is run here: the cluster's addresses and storage are ours.

    Args:
        head: Our cluster.
        program: The command's first words; it is the first one that has them.
        more: Options that make the search small; they come last and win.
        instead: Words to replace.
    """
    words = commands(f"python -m tuning {program}")[0][3:]
    ours = {DASHBOARD: head.address, "auto": head.cluster, STORAGE: str(head.runs)}
    return [(ours | instead).get(word, word) for word in words] + list(more)


SMALL = ("--trials=2", "--set=iterations=60", "--set=report_every=10", "--wandb=disabled")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
class TestRun:
    def test_the_token(self, tmp_path):
        """By the guide's own lines, in a shell."""
        token = r"^    ray get-auth-token .* #.*\n    chmod .*$"
        (lines,) = re.findall(token, TEXT, re.MULTILINE)
        outer = {k: v for k, v in os.environ.items() if not k.startswith("RAY_")}
        path = f"{Path(sys.executable).parent}:{outer['PATH']}"
        subprocess.run(
            ["bash", "-ec", lines], env=outer | {"HOME": str(tmp_path), "PATH": path}, check=True
        )
        token = tmp_path / ".ray" / "auth_token"
        assert len(token.read_text()) >= 32
        assert token.stat().st_mode & 0o077 == 0

    @pytest.mark.long
    def test_from_your_own_machine(self, head):
        """Submitted, looked at, stopped, gone on with, followed, fetched."""
        storage = f"--storage={head.runs}"
        said, statuses = head.run(
            here(head, "submit configs/demo.yaml", "--no-follow", storage, *SMALL),
            ["wait", head.runs / "demo" / "journal"],
            here(head, "status --address"),
            here(head, "status demo --address"),
            here(head, "stop"),
            here(head, "submit --resume", storage),
            here(head, "status demo --follow"),
            here(head, "fetch"),
        )
        assert statuses == [0] * 7, said
        assert said.count("stopping job demo-run-") == 1
        assert "fetched: runs/demo (" in said
        results = Results.open(head.project / "runs" / "demo")
        assert results.trials["state"].isin(["finished", "stopped"]).all()
        assert len(results.trials) == 2

    def test_on_the_head(self, head, capsys):
        """With the cluster's own address; a machine with no GPU has no part of one to give."""
        from analysis.__main__ import main

        smaller = {"configs/cornell_random.yaml": "configs/demo.yaml", "0.5": "0"}
        said, statuses = head.run(
            here(head, "run configs/cornell_random.yaml", *SMALL, **smaller),
            here(head, "logs", **{"demo": "cornell", "3": "1"}),
        )
        assert statuses == [0, 0], said
        assert f"finished: {head.runs}/cornell" in said
        worker = re.search(r"^attempt 1 on (\S+):\d+: iteration ", said, re.MULTILINE)
        assert worker is not None, said
        assert f"\nnode {worker[1]}: {head.place}/ray/session_" in said
        (words,) = commands("python -m analysis nodes demo")
        words = ["cornell" if word == "demo" else word for word in words[3:]]
        assert exit_status(main, *words, "--storage", head.runs) == 0
        assert worker[1] in capsys.readouterr().out

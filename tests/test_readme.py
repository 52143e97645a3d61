"""The documentation is executed: links, shipped files, and the README's commands in order."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import model
from analysis import Results
from tuning.sweeps.sweep_file import load_sweep

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = sorted([ROOT / "README.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])
PROMPTS = ROOT / "tests" / "model" / "everyday_prompts.txt"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_links_lead_to_files(document):
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
        assert (document.parent / target).exists(), f"{document.name} links to {target}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_commands_exist(document):
    """Every ``python -m package command`` and every option of it is one that the parsers know."""
    from analysis.__main__ import _parser as analysis
    from model.__main__ import _parser as model_parser
    from tuning.__main__ import _parser as tuning

    parsers = {"analysis": analysis(), "model": model_parser(), "tuning": tuning()}
    text = document.read_text(encoding="utf-8").replace("\\\n", " ")
    for package, rest in re.findall(r"python -m (model|tuning|analysis) ([^\n`]*)", text):
        commands = parsers[package]._subparsers._group_actions[0].choices
        name, *words = rest.split("#")[0].split("|")[0].split()
        assert name.rstrip(".,;:)") in commands, f"{document.name}: python -m {package} {name}"
        known = commands[name.rstrip(".,;:)")]._option_string_actions
        for word in words:
            option = word.strip("[].,;:()").split("=")[0]
            if re.fullmatch(r"--[a-z-]+", option):
                assert option in known, f"{document.name}: python -m {package} {name} {option}"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda d: d.name)
def test_no_placeholder_is_left(document):
    assert not re.findall(r"\b[A-Z]{3,}_[A-Z]+\b(?!=)", _prose(document))


def _prose(document):
    """Without code, where names in capitals are variables."""
    return re.sub(r"`[^`]*`|^    .*$", "", document.read_text(encoding="utf-8"), flags=re.M)


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda f: f.name)
def test_shipped_sweep_files_load(file):
    assert load_sweep(file).space.searched


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of what git tracks, as a user has it after cloning."""
    directory = tmp_path_factory.mktemp("clone") / "project"
    listed = subprocess.run(
        ["git", "-C", ROOT, "ls-files", "-z"], capture_output=True, check=True, text=True
    )
    for name in listed.stdout.split("\0"):
        if name and (ROOT / name).is_file():
            (directory / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, directory / name)
    return directory


def shell(script, cwd):
    """Runs a script with our interpreter's environment in place of ``.venv``."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("WANDB", "PYTHON"))}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


@pytest.fixture(scope="module")
def swept(checkout):
    prefix = Path(sys.prefix)
    (prefix / ".runtime").touch()  # everything is installed already
    done = shell(f"make sweep VENV={prefix}", checkout)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1200)
class TestMainJob:
    """`make sweep` as a user runs it, and then the README's commands one after another."""

    def test_ends_with_a_table_a_model_and_replies(self, swept, checkout):
        assert "finished: " in swept.stdout
        assert "promoted to registry/everyday/1" in swept.stdout
        assert swept.stdout.count("\nbot> ") == 5

    def test_searched_all_five_with_early_stopping(self, swept, checkout):
        results = Results.open("latest", checkout / "runs")
        assert len(results.trials) >= 12
        assert set(results.searched) == {
            "clip",
            "learning_rate",
            "decoder_learning_ratio",
            "optimizer",
            "teacher_forcing_ratio",
        }
        assert {"finished", "stopped"} <= set(results.trials["state"])

    def test_best_is_at_least_30_percent_below_a_unigram_model(self, swept, checkout):
        results = Results.open("latest", checkout / "runs")
        unigram = results.experiment.manifest["data"]["unigram_val_loss"]
        assert results.best()["val_loss"] <= 0.7 * unigram

    def test_at_least_14_of_20_replies_are_right(self, swept, checkout):
        bot = model.load("everyday", registry=checkout / "registry")
        lines = PROMPTS.read_text(encoding="utf-8").splitlines()
        pairs = [line.split(" => ") for line in lines if " => " in line and line[0] != "#"]
        replies = bot.replies([prompt for prompt, _ in pairs])
        right = [bool(re.search(p, r)) for (_, p), r in zip(pairs, replies, strict=True)]
        wrong = [(q, r) for (q, _), r, ok in zip(pairs, replies, right, strict=True) if not ok]
        assert len(pairs) == 20
        assert sum(right) >= 14, wrong

    def test_the_commands_of_the_readme_run(self, swept, checkout):
        text = (checkout / "README.md").read_text(encoding="utf-8")
        blocks = re.findall(r"```sh\n(.*?)```", text, flags=re.S)
        assert len(blocks) >= 5
        script = "\n".join(b for b in blocks if ".venv/bin/activate" not in b)
        done = shell(script, checkout)
        assert done.returncode == 0, done.stdout + done.stderr

    def test_the_python_of_the_readme_runs(self, swept, checkout):
        text = (checkout / "README.md").read_text(encoding="utf-8")
        (block,) = re.findall(r"```python\n(.*?)```", text, flags=re.S)
        (checkout / "notebook.py").write_text(
            f'if __name__ == "__main__":\n{_indented(block)}', encoding="utf-8"
        )
        done = shell("python notebook.py", checkout)
        assert done.returncode == 0, done.stdout + done.stderr


def _indented(block):
    return "".join(f"    {line}\n" for line in block.splitlines())

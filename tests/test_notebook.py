"""The notebook holds no outputs, and every cell of it runs, up to a model that replies."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import model
from analysis import Results

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
NOTEBOOK = ROOT / "notebooks" / "from-results-to-model.ipynb"

#: In a process of its own, whose warnings are Jupyter's affair.
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient
source, out = sys.argv[1:]
notebook = nbformat.read(source, as_version=4)
nbformat.validate(notebook)
NotebookClient(notebook, timeout=600, kernel_name="python3").execute()
nbformat.write(notebook, out)
"""


def cells(file, kind="code"):
    content = json.loads(file.read_text(encoding="utf-8"))
    return [cell for cell in content["cells"] if cell["cell_type"] == kind]


def test_there_is_one():
    assert NOTEBOOK in NOTEBOOKS


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_no_outputs_are_stored(notebook):
    for cell in cells(notebook):
        assert cell["outputs"] == [], cell["source"]
        assert cell["execution_count"] is None, cell["source"]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda n: n.name)
def test_it_says_nothing_of_a_machine(notebook):
    text = notebook.read_text(encoding="utf-8")
    assert not [word for word in ("/home/", "/root/", "/tmp/", "/opt/", "/work/") if word in text]


def execute(directory, **environment):
    """Runs the notebook in a directory; returns the text of each code cell's output."""
    file = directory / "executed.ipynb"
    kept = {k: v for k, v in os.environ.items() if k != "EXPERIMENT"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", EXECUTE, NOTEBOOK, file],
        cwd=directory,
        env=kept | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return [_text(cell["outputs"]) for cell in cells(file)]


def _text(outputs):
    found = []
    for output in outputs:
        found.append(output.get("text", ""))
        found.append(output.get("data", {}).get("text/plain", ""))
    return "\n".join("".join(part) for part in found)


def shows_a_picture(outputs):
    return any("image/png" in output.get("data", {}) for output in outputs)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return tmp_path_factory.mktemp("notebook")


@pytest.fixture(scope="module")
def outputs(directory):
    return execute(directory)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1200)
class TestExecuted:
    def test_from_a_search_to_a_model_that_replies(self, outputs, directory):
        results = Results.open("latest", directory / "runs")
        assert len(results.trials) == 4
        bot = model.load("notebook", registry=directory / "registry")
        assert bot.manifest["lineage"]["trial"] == results.best()["trial"]
        assert bot.reply("hello !") in "\n".join(outputs)

    def test_shows_tables_pictures_and_words(self, outputs, directory):
        executed = cells(directory / "executed.ipynb")
        assert sum(shows_a_picture(cell["outputs"]) for cell in executed) == 2
        assert "val_loss" in outputs[3]
        text = "\n".join(outputs)
        assert "ped-anova: " in text
        assert " of the time" in text
        assert (next((directory / "runs").glob("*/report.html"))).stat().st_size > 10_000

    @pytest.mark.long
    def test_of_an_experiment_that_is_there_already(self, outputs, directory, tmp_path):
        (path,) = (p for p in (directory / "runs").iterdir() if (p / "experiment.json").exists())
        execute(tmp_path, EXPERIMENT=str(path))
        assert not (tmp_path / "runs").exists()
        assert (
            model.load("notebook", registry=tmp_path / "registry").manifest["lineage"]["experiment"]
            == path.name
        )

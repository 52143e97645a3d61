"""The picture of a learning curve: what it shows, and that no run fails for want of it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from model.__main__ import main
from model.cli import run_main
from model.curve import curve_figure, read_history, write_curve
from model.errors import StorageError
from model.prepared_data import PreparedData
from model.training import Trainer

HISTORY = [
    {"iteration": 4, "loss": 3.0, "val_loss": 3.5},
    {"iteration": 8, "loss": 2.0, "val_loss": 2.5},
    {"iteration": 12, "loss": 1.0, "val_loss": 2.75},
]
PNG = b"\x89PNG\r\n\x1a\n"
SMALL = (
    *("--hidden-size", "16", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--batch-size", "8", "--iterations", "12", "--report-every", "4"),
    *("--learning-rate", "0.01", "--device", "cpu"),
)


def lines(figure):
    """Iterations and losses of each labelled line."""
    return {
        line.get_label(): (list(line.get_xdata()), list(line.get_ydata()))
        for line in figure.axes[0].get_lines()
    }


class TestFigure:
    def test_by_hand(self):
        assert lines(curve_figure(HISTORY)) == {
            "training": ([4, 8, 12], [3.0, 2.0, 1.0]),
            "held out": ([4, 8, 12], [3.5, 2.5, 2.75]),
            "best held out: 2.5000 at 8": ([8], [2.5]),
        }

    def test_says_what_its_axes_are(self):
        (axes,) = curve_figure(HISTORY).axes
        assert axes.get_xlabel() == "iterations (batches)"
        assert axes.get_ylabel() == "loss (nats a token)"

    def test_the_order_of_the_reports_does_not_matter(self):
        assert lines(curve_figure(HISTORY[::-1])) == lines(curve_figure(HISTORY))

    def test_the_first_of_two_equals_is_the_best(self):
        again = [*HISTORY, {"iteration": 16, "loss": 0.5, "val_loss": 2.5}]
        assert "best held out: 2.5000 at 8" in lines(curve_figure(again))

    def test_divergence_is_marked_and_its_repeated_figures_are_not_drawn(self):
        end = {"iteration": 16, "loss": 1.0, "val_loss": 2.75, "diverged_loss": None}
        drawn = lines(curve_figure([*HISTORY, end]))
        assert drawn["diverged at 16"][0] == [16, 16]
        assert drawn["training"][0] == [4, 8, 12]

    @pytest.mark.parametrize("nothing", [None, float("nan"), float("inf")])
    def test_what_is_no_figure_is_left_out(self, nothing):
        rows = [HISTORY[0], {"iteration": 8, "loss": nothing, "val_loss": nothing}]
        assert lines(curve_figure(rows))["held out"] == ([4], [3.5])

    def test_of_nothing(self):
        assert lines(curve_figure([])) == {}


class TestFile:
    def test_is_a_png_and_the_same_each_time(self, tmp_path):
        files = tmp_path / "a.png", tmp_path / "b.png"
        assert [write_curve(HISTORY, file) for file in files] == [True, True]
        first, second = (file.read_bytes() for file in files)
        assert first.startswith(PNG)
        assert first == second

    def test_of_nothing_is_not_written(self, tmp_path):
        diverged = {"iteration": 4, "diverged_loss": None}
        assert not write_curve([diverged], tmp_path / "a.png")
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_written(self):
        with pytest.raises(StorageError, match=r"/proc/x/a\.png: cannot be written"):
            write_curve(HISTORY, Path("/proc/x/a.png"))


class TestHistory:
    def test_torn_and_foreign_lines_are_passed_over(self, tmp_path):
        file = tmp_path / "history.jsonl"
        whole = "".join(json.dumps(row) + "\n" for row in HISTORY)
        file.write_text('[1]\n{"loss": 2}\n' + whole + '{"iteration": 16, "lo')
        assert read_history(file) == HISTORY


def test_matplotlib_is_loaded_to_draw_and_not_before():
    code = "import sys, model.training_run; print('matplotlib' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


class TestTrain:
    @pytest.fixture
    def data(self, tiny_data, tmp_path):
        file = tmp_path / "tiny.safetensors"
        tiny_data.save(file)
        assert PreparedData.open(file).fingerprint == tiny_data.fingerprint
        return str(file)

    def train(self, data, out, *more):
        return run_main(main, ["train", data, *SMALL, "--out", str(out), *more])

    def test_saves_its_curve(self, data, tmp_path, capsys):
        assert self.train(data, tmp_path / "o") == 0
        assert (tmp_path / "o" / "curve.png").read_bytes().startswith(PNG)
        assert f"wrote {tmp_path}/o/curve.png" in capsys.readouterr().err

    def test_also_when_interrupted_and_again_when_resumed(
        self, data, tmp_path, monkeypatch, capsys
    ):
        step = Trainer._train_one

        def interrupted(self, interval):
            if self.iteration == 6:
                raise KeyboardInterrupt
            step(self, interval)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_train_one", interrupted)
            assert self.train(data, tmp_path / "o") == 130
        first = (tmp_path / "o" / "curve.png").read_bytes()
        assert first.startswith(PNG)
        assert self.train(data, tmp_path / "o", "--resume") == 0
        assert (tmp_path / "o" / "curve.png").read_bytes() != first

    def test_interrupted_before_the_first_report_there_is_nothing_to_draw(
        self, data, tmp_path, monkeypatch
    ):
        def interrupted(self, interval):
            raise KeyboardInterrupt

        monkeypatch.setattr(Trainer, "_train_one", interrupted)
        assert self.train(data, tmp_path / "o") == 130
        assert list((tmp_path / "o").iterdir()) == []

    def test_goes_on_without_matplotlib(self, data, tmp_path, monkeypatch, capsys):
        for name in [n for n in sys.modules if n.split(".")[0] == "matplotlib"]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "matplotlib", None)
        assert self.train(data, tmp_path / "o") == 0
        assert "note: no curve.png: matplotlib is not installed" in capsys.readouterr().err
        assert not (tmp_path / "o" / "curve.png").exists()
        assert (tmp_path / "o" / "model").exists()

    def test_goes_on_where_the_picture_cannot_be_written(self, data, tmp_path, monkeypatch, capsys):
        def full(history, file):
            raise StorageError(f"{file}: cannot be written: no space is left on the device.")

        monkeypatch.setattr("model.training_run.write_curve", full)
        assert self.train(data, tmp_path / "o") == 0
        assert (
            f"note: no curve.png: {tmp_path}/o/curve.png: cannot be written: no space is left"
            in capsys.readouterr().err
        )

"""The benchmark of a driver's reports: what it plays is like the real thing; itself at toy size."""

import json

import pytest

from benchmarks import many_reports
from benchmarks.played_trials import metrics, result
from model.errors import BenchmarkError
from model.training import Trainer


def test_played_reports_are_those_of_a_trainer(tiny_data, tiny_config):
    real = Trainer(tiny_data, tiny_config()).train_interval().metrics
    played = metrics(3, 1)
    assert set(real) <= set(played)
    assert len(json.dumps(played)) == pytest.approx(len(json.dumps(real)), rel=0.5)
    assert metrics(3, 2)["val_loss"] < played["val_loss"] != metrics(4, 1)["val_loss"]


@pytest.mark.ray
def test_played_results_have_what_ray_tune_adds():
    from ray import tune

    class Real(tune.Trainable):
        def step(self):
            return {"report": None, "worker": "", "note": None}

    assert set(Real({"trial": 0}).train()) - set(result({"trial": 0}, 1)) == set()
    assert "note" not in result({"trial": 0}, 2)


def test_figures_by_hand():
    found = many_reports._figures((10.0, 1.0, 0.5, 1000, 0), (14.0, 2.0, 0.7, 3000, 40), 20, 5)
    assert found.pop("megabytes") > 10
    assert found == {
        "at_once": 5,
        "reports": 20,
        "seconds": 4.0,
        "reports_a_second": 5.0,
        "cpu_milliseconds": pytest.approx(50.0),
        "flush_milliseconds": pytest.approx(10.0),
        "cores": 0.25,
        "journal_bytes": 100.0,
        "study_bytes": 2.0,
    }


def test_trials_that_do_not_begin_are_said(tmp_path, monkeypatch):
    monkeypatch.setattr(many_reports, "_PATIENCE_SECONDS", 0.0)
    watch = many_reports._Watch(tmp_path, 3, 0.0, 0.0)
    watch.settling = 0.0
    watch.begun.add(0)
    watch.run()
    assert watch.over.is_set()
    with pytest.raises(BenchmarkError, match="only 1 of 3 trials have begun"):
        watch.found()


def test_small_and_without_ray(tmp_path, capsys):
    file = tmp_path / "found.json"
    arguments = ["--seconds", "1", "--at-once", "4", "--storage", str(tmp_path)]
    sides = ["journal", "fifo", "asha"]
    assert many_reports.main([*arguments, "--only", *sides, "--json", str(file)]) == 0
    found = json.loads(file.read_text(), parse_constant=pytest.fail)["sides"]
    assert [(side["side"], side["at_once"]) for side in found] == [
        ("journal", 1),
        ("fifo", 4),
        ("asha", 4),
    ]
    for side in found:
        assert side["reports"] > 0
        assert side["journal_bytes"] > 500
        assert 0 < side["cpu_milliseconds"] < 1e3
    assert capsys.readouterr().out.startswith("side     at once  begun  reports/s")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize(("side", "every"), [("ray", 0.0), ("ray-quiet", 1.0)])
@pytest.mark.long
def test_small_through_ray(side, every, tmp_path, monkeypatch):
    monkeypatch.setitem(many_reports.RAY, side, every)
    file = tmp_path / "found.json"
    arguments = ["--seconds", "2", "--at-once", "5", "--only", side, "--json", str(file)]
    assert many_reports.main(arguments) == 0
    (found,) = json.loads(file.read_text(), parse_constant=pytest.fail)["sides"]
    assert found["reports"] > 0
    assert found["begun_seconds"] > 0
    if every:  # five trials, a report a second each
        assert found["reports_a_second"] < 8

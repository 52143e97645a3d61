"""Where the time went: by hand with a known answer, then that it always adds up."""

import dataclasses
import json
import random
import re

import pytest

from analysis import Results
from analysis.__main__ import main
from analysis.overhead import PARTS, overhead, total
from model.cli import run_main
from tuning.journal import Row


def row(time, kind, trial=None, *, attempt=1, state="running", worker=None, **metrics):
    metrics = {name: value for name, value in metrics.items() if value is not None}
    return Row(
        kind=kind, time=time, trial=trial, attempt=attempt, state=state, worker=worker,
        iteration=1 if kind == "report" else None, metrics=metrics,
    )  # fmt: skip


def report(time, trial, worker, step, *, build=None, train=None, evaluate=None, save=None, **more):
    seconds = {"step_seconds": step, "build_seconds": build, "train_seconds": train}
    seconds |= {"eval_seconds": evaluate, "save_seconds": save}
    return row(time, "report", trial, worker=worker, **seconds, **more)


#: Two workers, three trials; the process of trial 1 dies once.
SESSION = [
    row(100.0, "session", state=None, startup_seconds=4.0),
    row(101.0, "proposed", 0),
    row(101.0, "proposed", 1),
    report(110.0, 0, "a", 5.0, build=1.0, train=2.0, evaluate=1.0, save=0.5),
    report(112.0, 1, "b", 6.0, train=5.0, evaluate=1.0),
    report(114.0, 0, "a", 3.0, train=2.0, evaluate=0.5, save=0.25, state="finished"),
    row(115.0, "failed", 1),
    row(115.0, "proposed", 2),
    row(116.0, "restarted", 1, attempt=2),
    report(118.0, 2, "a", 2.0, build=0.5, train=1.5, state="stopped"),
    report(120.0, 1, "c", 2.0, build=2.0),
    report(124.0, 1, "c", 3.0, train=3.0, state="finished"),
    dataclasses.replace(row(126.0, "ended", state=None), reason="complete"),
]
EXPECTED = {
    "start-up": 2 * 5.0 + 4.0 + 5.0 + 2.0,  # before the first trial; processes a, b and c
    "building": 3.5,
    "training": 13.5,
    "evaluation": 2.5,
    "saving": 0.75,
    "other": 0.75,
    "between reports": 1.0 + 1.0,
    "between trials": 1.0 + 1.0 + 1.0,  # two idle seconds until 116, and the way to trial 2
    "unreported": 3.0,
    "idle at the end": 2.0 + 8.0,
}


@pytest.fixture
def results(by_hand):
    """Results with exactly these rows, their times included."""
    experiment = by_hand([])
    return lambda rows: Results(experiment, list(rows), [], running=experiment.is_running())


def test_by_hand(results):
    (session,) = overhead(results(SESSION))
    assert session.parts == pytest.approx(EXPECTED)
    assert (session.state, session.workers, session.trials) == ("complete", 2, 3)
    assert session.wall_seconds == 30.0
    assert sum(session.parts.values()) == pytest.approx(60.0)
    assert session.first_step_seconds == 10.0  # the first step began at 105, and built until 106
    assert session.overhead_per_trial == pytest.approx((126 - 105 - (13.5 + 2.5 + 3.0) / 2) / 3)


def test_a_killed_driver_and_the_next(results):
    """The second begins an hour later; nothing is counted in between."""
    later = [dataclasses.replace(r, time=r.time + 3600) for r in SESSION]
    first, second = overhead(results([*SESSION[:9], *later]))
    assert (first.state, second.state) == ("killed", "complete")
    assert first.wall_seconds == 20.0
    assert first.trials == 1
    assert first.parts["unreported"] == 3.0 + 1.0, "trial 2 had not reported"
    assert second.parts == pytest.approx(EXPECTED)
    sums = total([first, second])
    assert sum(sums.values()) == pytest.approx(2 * 20.0 + 60.0)


def test_a_running_search(results, locked):
    locked(results([]).experiment)
    (session,) = overhead(results(SESSION[:5]))
    assert session.state == "running"
    assert session.wall_seconds == 16.0
    assert (session.trials, session.overhead_per_trial) == (0, None)


def test_figures_that_a_report_repeats_are_not_of_its_step(results):
    rows = [row(0.0, "session"), row(1.0, "proposed", 0), report(3.0, 0, "a", 1.0, train=99.0)]
    (session,) = overhead(results(rows))
    assert (session.parts["training"], session.parts["other"]) == (0.0, 1.0)


@pytest.mark.parametrize("rows", [[], SESSION[:1]], ids=["nothing", "no trial"])
def test_nothing_yet(results, rows):
    for session in overhead(results(rows)):
        assert session.worker_seconds == 0
        assert session.first_step_seconds is None


@pytest.mark.parametrize("seed", range(20))
def test_it_always_adds_up(results, seed):
    """Whatever trials begin, report, fail and end, and wherever the journal is cut off."""
    draw, now, live, rows = random.Random(seed), 0.0, set(), [row(0.0, "session")]
    for trial in range(40):
        now += draw.random()
        kind = draw.choice(["proposed", "report", "report", "failed", "end"])
        some = draw.choice(sorted(live)) if live else None
        if kind == "proposed" or some is None:
            live.add(trial)
            rows.append(row(now, "proposed", trial))
        elif kind == "failed":
            live.discard(some)
            rows.append(row(now, "failed", some))
        else:
            step, parts = draw.random(), draw.random()
            state = "running" if kind == "report" else "finished"
            rows.append(report(now, some, f"w{some % 3}", step, train=step * parts, state=state))
            live -= {some} if kind == "end" else set()
    for cut in range(1, len(rows)):
        (session,) = overhead(results(rows[:cut]))
        assert set(session.parts) == set(PARTS)
        assert sum(session.parts.values()) == pytest.approx(session.worker_seconds)


class TestCommand:
    def test_table(self, finished, capsys):
        assert run_main(main, ["overhead", str(finished.path)]) == 0
        out = capsys.readouterr().out
        assert out.startswith("session 1: complete; 5 trials ended, 1 workers, ")
        assert "first training step after" in out
        lines = out.split("\n\n")[1].splitlines()[2:]
        rows = [re.split(r"\s{2,}", line) for line in lines]
        assert [cells[0] for cells in rows] == [*PARTS, "all"]
        assert sum(float(cells[2]) for cells in rows[:-1]) == pytest.approx(100, abs=0.5)
        assert rows[-1][2] == "100"

    def test_json(self, finished, capsys):
        assert run_main(main, ["overhead", str(finished.path), "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        (session,) = found["sessions"]
        assert session["parts"] == found["total"]
        assert sum(found["total"].values()) == pytest.approx(
            session["wall_seconds"] * session["workers"]
        )

    def test_no_trials(self, by_hand, capsys):
        assert run_main(main, ["overhead", str(by_hand([]).path)]) == 0
        assert capsys.readouterr().out == "hand: no trials yet.\n"

    def test_an_interrupted_one_says_what_is_covered(self, experiment, capsys):
        segment = experiment.journal / "000001.jsonl"
        lines = segment.read_bytes().splitlines(keepends=True)
        segment.write_bytes(b"".join(lines[:6]))
        assert run_main(main, ["overhead", str(experiment.path)]) == 0
        assert "session 1: killed, known up to its last row; " in capsys.readouterr().out

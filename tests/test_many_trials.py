"""The benchmark of a thousand trials: its arithmetic by hand, and itself at toy size."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import many_trials

ROOT = Path(__file__).resolve().parents[1]


def read(file):
    """Standard JSON: neither NaN nor infinity."""
    return json.loads(file.read_text(), parse_constant=pytest.fail)


def test_figures_by_hand():
    # Eight trials: the first ends after 10 s, two more take a second each, the others three.
    ends = [10.0, 11.0, 12.0, 15.0, 18.0, 21.0, 24.0, 27.0]
    memory = [[n + 1, 5e6 + 2000 * n] for n in range(8)]
    assert many_trials.window_of(8) == 2
    kept = [[3, 4e6], [7, 4e6 + 1000]]
    assert many_trials.figures(ends, memory, kept) == {
        "first_milliseconds": pytest.approx(1000.0),
        "last_milliseconds": pytest.approx(3000.0),
        "ratio": pytest.approx(3.0),
        "kilobytes_a_trial": pytest.approx(2.0),
        "kept_kilobytes_a_trial": pytest.approx(0.25),
    }
    assert math.isnan(many_trials.figures(ends, memory)["kept_kilobytes_a_trial"])


def test_the_hundred_first_and_last():
    assert [many_trials.window_of(n) for n in (1, 4, 399, 400, 1000)] == [1, 1, 99, 100, 100]


def test_memory_of_the_first_trials_does_not_count():
    memory = [[1, 9e9], [4, 1e6], [8, 1.5e6]]
    found = many_trials.figures([float(n) for n in range(8)], memory)
    assert found["kilobytes_a_trial"] == pytest.approx(125.0)


def test_it_measures_our_own_memory():
    """In a process of its own: this one may have room that it was given back before."""
    program = """
from benchmarks.many_trials import resident
before = resident()
block = bytearray(b"x") * 50_000_000
print(resident() - before)
"""
    made = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, check=True, capture_output=True, text=True
    )
    assert int(made.stdout) == pytest.approx(50_000_000, rel=0.2)


def test_small_and_without_ray(tmp_path, capsys):
    arguments = ["--trials", "12", "--json", str(tmp_path / "found.json"), "--out", str(tmp_path)]
    assert many_trials.main([*arguments, "--only", "random", "grid", "tpe"]) == 0
    found = read(tmp_path / "found.json")
    assert list(found["sides"]) == ["random", "grid", "tpe"]
    for side in found["sides"].values():
        assert len(side["ends"]) == 12
        assert side["ends"] == sorted(side["ends"])
        assert [n for n, _ in side["memory"]] == list(range(1, 13))
        assert [n for n, _ in side["kept"]] == [4, 12]
        assert all(size > 10e6 for _, size in side["memory"])
    assert (tmp_path / "many-trials.png").stat().st_size > 10_000
    out = capsys.readouterr().out
    assert out.startswith("side")
    assert out.endswith(f"{tmp_path / 'many-trials.png'}\n")


def test_some_sides_have_fewer_trials(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(many_trials.MOST, "sobol", 8)
    arguments = ["--trials", "12", "--only", "random", "sobol", "--json", str(tmp_path / "f")]
    assert many_trials.main(arguments) == 0
    sides = read(tmp_path / "f")["sides"]
    assert {name: len(side["ends"]) for name, side in sides.items()} == {"random": 12, "sobol": 8}
    assert "sobol: 8 trials" in capsys.readouterr().err


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.parametrize("name", ["ray", "ray-tpe"])
def test_small_through_ray(name, tmp_path):
    assert many_trials.main(["--trials", "6", "--only", name, "--json", str(tmp_path / "f")]) == 0
    side = read(tmp_path / "f")["sides"][name]
    assert len(side["ends"]) == 6
    assert {n for n, _ in side["memory"]} <= set(range(1, 7))
    assert side["kept_kilobytes_a_trial"] is None

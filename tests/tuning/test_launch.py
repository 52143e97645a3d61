from datetime import datetime

import pytest

from tests.tuning.ray_support import sweep_mapping
from tuning.launch import _default_name, trial_count
from tuning.sweeps.sweep_file import parse_sweep


@pytest.mark.parametrize(
    ("method", "run_cap", "asked", "expected"),
    [
        ("random", None, None, 25),
        ("random", 7, None, 7),
        ("random", 7, 30, 30),
        ("grid", None, None, 6),  # all points: two learning rates, three clips
        ("grid", 3, None, 3),
        ("grid", None, 40, 6),
    ],
)
def test_number_of_trials(tmp_path, method, run_cap, asked, expected):
    mapping = sweep_mapping(tmp_path / "c.txt", learning_rate={"values": [0.1, 0.2]})
    mapping |= {"method": method} | ({"run_cap": run_cap} if run_cap else {})
    assert trial_count(parse_sweep(mapping), asked) == expected


def test_a_grid_has_as_many_trials_as_points_that_are_allowed(tmp_path):
    """Three clips of 0.1, two of 0.2; of 0.3 the clip is its default of 50, which is forbidden."""
    mapping = sweep_mapping(tmp_path / "c.txt", learning_rate={"values": [0.1, 0.2, 0.3]})
    mapping |= {"method": "grid"}
    mapping["dialogue_tune"] = {
        "parameters": {"clip": {"when": "learning_rate < 0.25"}},
        "constraints": ["learning_rate == 0.1 or clip != 50"],
    }
    sweep = parse_sweep(mapping)
    assert [trial_count(sweep, asked) for asked in (None, 40, 2)] == [5, 5, 2]


def test_the_default_name_is_made_of_the_sweeps(tmp_path):
    mapping = sweep_mapping(tmp_path / "c.txt")
    named = parse_sweep(mapping | {"name": "my sweep/1"})
    assert _default_name(named, tmp_path).startswith("my-sweep-1-20")
    assert _default_name(parse_sweep(mapping, "configs/demo.yaml"), tmp_path).startswith("demo-20")


def test_a_default_name_is_never_a_taken_one(tmp_path, monkeypatch):
    class Clock(datetime):
        @classmethod
        def now(cls):
            return cls(2026, 1, 2, 3, 4, 5)

    monkeypatch.setattr("tuning.launch.datetime", Clock)
    sweep = parse_sweep(sweep_mapping(tmp_path / "c.txt"), "demo.yaml")
    names = []
    for _ in range(3):
        names.append(_default_name(sweep, tmp_path))
        (tmp_path / names[-1]).mkdir()
    assert names == [f"demo-20260102-030405{end}" for end in ("", "-2", "-3")]

import pytest

from tests.tuning.ray_support import sweep_mapping
from tuning.launch import _default_name, _trial_count
from tuning.sweep_file import parse_sweep


@pytest.mark.parametrize(
    ("method", "run_cap", "asked", "expected"),
    [
        ("random", None, None, 25),
        ("random", 7, None, 7),
        ("random", 7, 30, 30),
        ("grid", None, None, None),  # all points
        ("grid", 3, None, 3),
    ],
)
def test_number_of_trials(tmp_path, method, run_cap, asked, expected):
    mapping = sweep_mapping(tmp_path / "c.txt", learning_rate={"values": [0.1, 0.2]})
    mapping |= {"method": method} | ({"run_cap": run_cap} if run_cap else {})
    assert _trial_count(parse_sweep(mapping), asked) == expected


def test_the_default_name_is_made_of_the_sweeps(tmp_path):
    mapping = sweep_mapping(tmp_path / "c.txt")
    assert _default_name(parse_sweep(mapping | {"name": "my sweep/1"})).startswith("my-sweep-1-20")
    assert _default_name(parse_sweep(mapping, "configs/demo.yaml")).startswith("demo-20")

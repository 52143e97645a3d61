"""The benchmark of searchers: its functions have the optima it names, and it runs."""

import json

import pytest

from benchmarks.searchers import NAMES, PROBLEMS, main


@pytest.mark.parametrize(
    ("title", "best"),
    [
        ("branin", ((9.42478 + 5) / 15, 2.475 / 15)),
        ("branin", ((5 - 3.14159265) / 15, 12.275 / 15)),
        ("hartmann", (0.114614, 0.555649, 0.852547)),
        ("mixed", (5e-4, 50, "adam")),
    ],
)
def test_optima(title, best):
    problem = PROBLEMS[title]
    point = dict(zip(problem.space.parameters, best, strict=True))
    assert problem.space.contains(point)
    assert problem.loss(point) == pytest.approx(problem.optimum, abs=1e-5)


def test_runs(tmp_path, capsys):
    file = tmp_path / "searchers.json"
    assert main(["--seeds", "2", "--trials", "4", "--json", str(file)]) == 0
    printed = capsys.readouterr().out
    found = json.loads(file.read_text())
    assert found["trials"] == 4
    for title in PROBLEMS:
        assert list(found["functions"][title]) == list(NAMES)
        for figures in found["functions"][title].values():
            assert len(figures["regrets"]) == 2
            assert min(figures["regrets"]) >= 0
            assert figures["ms"] >= 0
    # So early all but Sobol and CMA-ES are random.
    assert "hartmann  gp" in printed
    assert printed.count("0 of 2") >= 6

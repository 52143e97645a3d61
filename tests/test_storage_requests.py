"""What a trial asks of an object store: how it is charged, and that nothing has become dearer."""

import json

import pytest

pytest.importorskip("moto", reason="moto is not installed")

from benchmarks import storage_requests


@pytest.mark.parametrize(
    ("request_", "charge"),
    [
        ("PUT /bucket/runs/a.pt", "dear"),
        ("POST /bucket/runs/a.pt?uploads", "dear"),
        ("GET /bucket?list-type=2&prefix=runs", "dear"),
        ("GET /bucket/runs/a.pt", "cheap"),
        ("HEAD /bucket/runs/a.pt", "cheap"),
        ("DELETE /bucket/runs/a.pt", "free"),
    ],
)
def test_how_requests_are_charged(request_, charge):
    assert storage_requests.charged(request_) == charge


def test_cost_by_hand():
    # 2 * 0.005 + 5 * 0.0004
    assert storage_requests.cost({"dear": 2, "cheap": 5, "free": 9}) == pytest.approx(0.012)


def test_what_a_trial_asks(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(storage_requests, "SIZES", (1,))
    file = tmp_path / "found.json"
    assert storage_requests.main(["--json", str(file)]) == 0
    found = json.loads(file.read_text())["requests"]
    # docs/scale.md reckons with these; whoever makes them fewer changes it there.
    assert found["best weights, 1 MB"] == {"dear": 3, "cheap": 3, "free": 1}
    assert found["checkpoint, 1 MB of weights"] == {"dear": 5, "cheap": 4, "free": 2}
    assert found["end of a trial, 1 MB"] == {"dear": 3, "cheap": 2, "free": 2}
    assert capsys.readouterr().out.startswith("what ")

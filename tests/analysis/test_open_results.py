"""The benchmark of opening, at toy size. No timings."""

import json

from benchmarks import open_results
from model.cli import run_main


def test_both_forms_hold_the_same(tmp_path, capsys):
    file = tmp_path / "r.json"
    arguments = ["--trials", "20", "--reports", "3", "--repeats", "1", "--json", str(file)]
    assert run_main(open_results.main, arguments) == 0
    assert "20 trials of 3 reports" in capsys.readouterr().out
    found = json.loads(file.read_text())
    segments, compacted = found["segments"], found["compacted"]
    for form in (segments, compacted):
        assert (form["trials"], form["reports"]) == (20, 60)
        assert form["memory_bytes"] < 2e9
        assert 0 < form["open"] < form["seconds"]
    assert segments["best"] == compacted["best"]

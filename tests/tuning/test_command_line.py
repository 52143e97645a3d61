"""What `tuning check` says, and what the other commands refuse, without Ray."""

import pytest
import yaml

from model.cli import run_main
from tests.tuning.ray_support import sweep_mapping, write_corpus
from tuning.__main__ import main


@pytest.fixture
def check(tmp_path, capsys):
    corpus = write_corpus(tmp_path)

    def run(mapping=None, *options, **parameters):
        content = sweep_mapping(corpus, **parameters) | (mapping or {})
        file = tmp_path / "sweep.yaml"
        file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        status = run_main(main, ["check", str(file), *options])
        captured = capsys.readouterr()
        return status, captured.out + captured.err

    return run


def test_says_trials_stopping_space_samples_and_data(check):
    stopping = {"early_terminate": {"type": "hyperband", "min_iter": 1, "eta": 3}, "run_cap": 9}
    status, said = check(stopping)
    assert status == 0
    assert "9 trials, method random, minimize val_loss" in said
    assert "early stopping: at reports 1, 3, the best 1/3 of the trials there go on" in said
    assert "each trial makes 6 reports" in said
    assert "learning_rate     0.0005 to 0.01, uniform" in said
    assert "infinitely many configurations; a few of them:" in said
    assert said.count("learning_rate=") == 3
    assert "tiny.txt: " in said
    assert " train, " in said


def test_a_small_grid_is_listed_once(check):
    status, said = check(
        {"method": "grid"}, learning_rate={"values": [0.1, 0.2]}, clip={"value": 5}
    )
    assert status == 0
    assert "2 trials, method grid" in said
    assert [line for line in said.splitlines() if "learning_rate=" in line] == [
        "  learning_rate=0.1",
        "  learning_rate=0.2",
    ]


def test_nothing_to_search_is_said(check):
    status, said = check(learning_rate={"value": 0.1}, clip={"value": 5})
    assert status == 0
    assert "one configuration; nothing is searched" in said


def test_a_corpus_that_is_not_there_is_said(check):
    status, said = check(None, "--set", "corpus=nowhere.txt")
    assert status == 2
    assert "nowhere.txt: no corpus is there" in said


def test_everything_wrong_is_said_at_once(check):
    status, said = check({"metod": "grid"}, learning_rte={"value": 1}, clip={"value": -1})
    assert status == 2
    assert "metod: unknown key, did you mean 'method'?" in said
    assert "parameters.learning_rte: unknown key, did you mean 'learning_rate'?" in said
    assert "parameters.clip.value: must be at least 0, but got -1." in said


def test_another_searcher_and_scheduler_are_checked_and_shown(check):
    status, said = check(None, "--searcher", "sobol", "--scheduler", "median")
    assert status == 0
    assert "25 trials, method random (sobol), minimize val_loss" in said
    assert "early stopping: " in said
    assert "median" in said
    status, said = check(None, "--searcher", "grid")
    assert status == 2
    assert "--searcher grid: parameters.learning_rate: " in said


def test_a_target_is_shown(check):
    metric = {"metric": {"name": "val_loss", "goal": "minimize", "target": 2.5}}
    status, said = check(metric)
    assert status == 0
    assert "minimize val_loss, ends at 2.5" in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["extend", "demo", "--trials", "1"], "demo: unknown experiment"),
        (["retry", "demo"], "demo: unknown experiment"),
        (["repeat", "demo"], "demo: unknown experiment"),
        (["resume", "demo"], "demo: unknown experiment"),
        (["run", "{sweep}", "--searcher", "gpp"], "--searcher: unknown name 'gpp'"),
        (["run", "{sweep}", "--scheduler", "asah"], "--scheduler: unknown name 'asah', did you me"),
        (["run", "{sweep}", "--try", "demo:2"], "demo: unknown experiment"),
        (["run", "{sweep}", "--try", "demo"], "--try: demo: no such file; name a YAML or JSON"),
        (["run", "{sweep}", "--warm-start", "demo"], "demo: unknown experiment"),
    ],
)
def test_bad_input_is_refused_before_anything_starts(tmp_path, capsys, arguments, message):
    file = tmp_path / "sweep.yaml"
    file.write_text(yaml.safe_dump(sweep_mapping(write_corpus(tmp_path))), encoding="utf-8")
    arguments = [a.replace("{sweep}", str(file)) for a in arguments]
    status = run_main(main, [*arguments, "--storage", str(tmp_path / "runs")])
    assert status == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("arguments", [["extend", "demo"], ["extend", "demo", "--trials", "0"]])
def test_an_extension_needs_a_number(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "--trials" in capsys.readouterr().err

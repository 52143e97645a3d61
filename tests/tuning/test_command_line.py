"""What `tuning check` says, and what the other commands refuse, without Ray."""

from argparse import Namespace

import pytest
import yaml

from model.cli import run_main
from tests.tuning.ray_support import sweep_mapping, write_corpus
from tuning.__main__ import main
from tuning.commands.common import report_end
from tuning.experiment import Experiment
from tuning.journal import Journal, Row
from tuning.sweeps.sweep_file import parse_sweep


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


def test_only_the_allowed_points_of_a_grid_are_counted(check):
    """Three clips of 0.1; of 0.2 the clip is its default, 50."""
    extension = {"parameters": {"clip": {"when": "learning_rate < 0.2"}}}
    rates = {"learning_rate": {"values": [0.1, 0.2]}}
    status, said = check({"method": "grid", "dialogue_tune": extension}, **rates)
    assert status == 0
    assert "4 trials, method grid" in said
    assert "\n4 configurations; a few of them:\n" in said
    extension = extension | {"constraints": ["clip == 50", "learning_rate < 0.2"]}
    status, said = check({"method": "grid", "dialogue_tune": extension}, **rates)
    assert status == 0
    assert "1 trial, method grid" in said
    assert "\n1 configuration:\n  learning_rate=0.1, clip=50\n" in said


def test_points_that_are_too_many_to_be_tried_are_said_to_be_at_most_so_many(check):
    fields = {"batch_size": {"min": 1, "max": 400}, "hidden_size": {"min": 1, "max": 400}}
    extension = {"dialogue_tune": {"constraints": ["batch_size < 300"]}}
    status, said = check(extension, **fields, learning_rate={"value": 0.1}, clip={"value": 5})
    assert status == 0
    assert "\nat most 160000 configurations; a few of them:\n" in said


def test_a_grid_over_a_range_is_no_fault_where_another_searcher_is_chosen(check, tmp_path):
    status, said = check({"method": "grid"})
    assert status == 2
    assert "parameters.learning_rate: a grid cannot enumerate a continuous range" in said
    status, said = check({"method": "grid"}, "--searcher", "random")
    assert status == 0
    assert "25 trials, method grid (random), minimize val_loss" in said
    status, said = check({"method": "grid", "metod": "a"}, "--searcher", "random")
    assert status == 2
    assert "sweep.yaml --searcher random: metod: unknown key" in said
    for block, fault in (("gp", "must be a mapping with any of"), ({"a": 1}, "a: unknown key")):
        status, said = check({"dialogue_tune": block}, "--searcher", "random")
        assert status == 2
        assert fault in said
    (tmp_path / "sweep.yaml").write_text("[]")
    assert run_main(main, ["check", str(tmp_path / "sweep.yaml"), "--searcher", "random"]) == 2


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


@pytest.fixture
def end(tmp_path, tiny_data, capsys, monkeypatch):
    """What is said at the end of a search in ``runs`` whose journal has these rows."""
    monkeypatch.chdir(tmp_path)

    def say(*rows, wandb="disabled", storage="runs", address=None):
        experiment = Experiment.create(
            tmp_path / "runs",
            "demo",
            parse_sweep({"method": "random", "parameters": {"clip": {"min": 0.0, "max": 9.0}}}),
            tiny_data,
            seed=0,
            trials=1,
            settings={"wandb": wandb},
        )
        if rows:
            journal = Journal(experiment.journal)
            for row in rows:
                journal.append(row)
            journal.close()
        status = report_end(experiment, Namespace(storage=storage, address=address))
        return status, capsys.readouterr().out.replace(str(experiment.path), "PATH")

    return say


PROPOSED = Row(kind="proposed", trial=0, attempt=1, config={"clip": 1.0}, state="running")
REPORTED = Row(
    kind="report", trial=0, attempt=1, iteration=1, metrics={"val_loss": 2.0}, state="finished"
)


@pytest.mark.parametrize(
    ("reason", "said"),
    [("complete", "finished: "), ("target reached", "finished, since its target was reached: ")],
)
def test_the_end_names_what_to_do_next(end, reason, said):
    ended = Row(kind="ended", reason=reason)
    assert end(PROPOSED, REPORTED, ended, wandb="offline") == (
        0,
        "W&B, offline; to send: python -m tuning sync demo\n"
        f"{said}PATH\n"
        "results: python -m analysis results demo\n"
        "promote the best: python -m analysis promote demo\n",
    )


@pytest.mark.parametrize("storage", ["runs", "../../runs"])
def test_the_end_names_the_storage_where_it_is_not_the_usual_one(
    end, tmp_path, monkeypatch, storage
):
    """Also where the experiment was named by its directory, and ``--storage`` not at all."""
    elsewhere = tmp_path / "a" / "b"
    elsewhere.mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    rows = (PROPOSED, REPORTED, Row(kind="ended", reason="complete"))
    status, said = end(*rows, wandb="offline", storage=storage)
    named = tmp_path / "runs" if storage == "runs" else storage
    assert status == 0
    assert f"to send: python -m tuning sync demo --storage {named}\n" in said


@pytest.mark.parametrize("rows", [(), (PROPOSED, REPORTED, Row(kind="ended", reason="interrupt"))])
def test_an_end_before_all_was_done_says_how_to_go_on(end, rows):
    assert end(*rows, wandb="offline", address="auto") == (
        130,
        "stopped; everything is kept in PATH\ngo on: python -m tuning resume demo --address auto\n",
    )


def test_an_end_without_a_result_is_an_error(end):
    status, said = end(PROPOSED, Row(kind="ended", reason="complete"), wandb="offline")
    assert status == 1
    assert said.startswith("finished without a result: PATH\nwhy: python -m analysis results demo")

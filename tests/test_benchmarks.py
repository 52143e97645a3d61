"""The benchmarks: their arithmetic by hand, and each of them end to end at toy size. No timings."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from benchmarks import greedy_decoding, growth, guard, same_work, training_step, whole_sweep
from benchmarks.random_faults import add_options, seed_and_directory
from benchmarks.side_by_side import (
    BenchmarkError,
    Progress,
    Side,
    Sides,
    Spread,
    Work,
    compared,
    duration,
    make_parser,
    run_alone,
    shown,
)
from model.batching import Batches
from model.config import ModelConfig
from model.seq2seq import Seq2Seq
from model.vocabulary import EOS

ROOT = Path(__file__).resolve().parents[1]
TOY = [
    *("--data", "synthetic:60", "--hidden-size", "8", "--batch-size", "4"),
    *("--turns", "2", "--iterations", "1", "--warm-up", "1", "--threads", "1"),
]


def read(file: Path) -> dict:
    """Standard JSON: neither NaN nor infinity."""
    return json.loads(file.read_text(), parse_constant=pytest.fail)


# Arithmetic, by hand


def test_spread_is_the_median_with_quartiles():
    assert Spread.of([5, 1, 3, 2, 4]) == Spread(3, 2, 4)
    assert Spread.of([7.0]) == Spread(7.0, 7.0, 7.0)
    assert Spread(0.0123, 0.01, 0.02).text(1, scale=1000) == "12.3 (10.0 to 20.0)"


def test_ratios_are_taken_turn_by_turn():
    found = compared({"baseline": [2.0, 4.0, 6.0], "ours": [1.0, 1.0, 2.0]}, "baseline")
    assert found["ours"]["ratios"] == [2.0, 4.0, 3.0]
    assert found["ours"]["ratio"] == {"median": 3.0, "low": 2.5, "high": 3.5}
    assert found["baseline"]["ratios"] == [1.0, 1.0, 1.0]
    assert found["ours"]["seconds"]["median"] == 1.0
    assert found["ours"]["turns"] == [1.0, 1.0, 2.0]


def test_durations_and_tables_are_readable():
    assert (duration(40), duration(700)) == ("40 s", "12 min")
    assert shown([("a", 1.0)], ["side", "ms"]) == "side  ms\n----  --\na      1"
    assert shown([("a", 1)], ["side", "ms"], markdown=True).splitlines() == [
        "| side | ms |",
        "| --- | --- |",
        "| a | 1 |",
    ]


def test_floating_point_operations_by_hand():
    # H = E = 1, one layer each: a GRU cell has 3 gates of 1 + 1 products, 2 operations each: 12.
    config = ModelConfig(hidden_size=1, encoder_layers=1, decoder_layers=1)
    batch = training_step.MeanBatch(1, source_length=2, target_length=3, source_tokens=2,
                                    target_tokens=3)  # fmt: skip
    encoder = 2 * (2 * 12)  # two tokens, two directions
    decoder = 3 * (12 + 2 * 2 * 2 + 2 * 2 + 2 * 5)  # attention, combination, five words
    assert training_step.flops(config, 5, batch) == 3 * (encoder + decoder)


def test_bytes_of_weights_gradients_and_state():
    assert training_step.state_bytes(10, "sgd") == 10 * 4 * 7
    assert training_step.state_bytes(10, "adam") == 10 * 4 * 11


def test_the_time_of_kernels_that_overlap_counts_once():
    assert training_step.covered([(5, 6), (0, 2), (1, 3)]) == 4
    assert training_step.covered([]) == 0


def test_mean_batch_counts_real_tokens(tiny_data):
    found = training_step.MeanBatch.of(tiny_data, 8, 0, range(1))
    batch = Batches(tiny_data, "train").at(0, 8, 0)
    assert found.examples == 8
    assert (found.source_length, found.target_length) == (batch.source.shape[1], 5)
    assert found.source_tokens == int(batch.source_lengths.sum())
    assert found.target_tokens == int((batch.target != 0).sum())


def test_utilisation_is_the_share_of_the_ceilings():
    settings = training_step.Settings(data="", hidden_size=1, optimizer="sgd")
    batch = {"examples": 1, "source_length": 1, "target_length": 1}
    batch |= {"source_tokens": 1, "target_tokens": 1}
    side = {"seconds": {"median": 2.0}, "parameters": 100, "precision": "bf16"}
    side["kernel_seconds"] = 0.5
    work = training_step.flops(ModelConfig(hidden_size=1), 5, training_step.MeanBatch(**batch))
    comparison = {"vocabulary": 5, "batch": batch, "sides": {"ours": side}}
    ceilings = {"flops": {"bf16": work}, "bytes": 2800.0}
    training_step.add_utilisation(comparison, settings, ceilings)
    assert side["flops_share"] == pytest.approx(0.5)
    assert side["bytes_share"] == pytest.approx(0.5)
    assert side["busy_share"] == 0.25


def test_replies_are_compared_up_to_their_end():
    assert greedy_decoding.words([5, EOS, 0, 0]) == [5, EOS]
    assert greedy_decoding.words([5, 6]) == [5, 6]
    assert greedy_decoding.same_share([[5, EOS], [6]], [[5, EOS], [7]]) == 0.5


def test_time_to_a_loss_is_that_of_the_first_report_that_reaches_it():
    reports = [[1.0, 0, 10, 5.0], [2.0, 1, 10, None], [3.0, 1, 20, 4.0], [4.0, 0, 20, 3.9]]
    assert whole_sweep.time_to(reports, 4.0) == 3.0
    assert whole_sweep.time_to(reports, 3.0) is None


def side_result(wall, losses, validation=0.0):
    """A side whose only trial reports these losses, one a tenth of the wall time."""
    reports = [
        {"time": 1000 + (i + 1) * wall / 10, "trial": 0, "iteration": i + 1, "val_loss": loss}
        for i, loss in enumerate(losses)
    ]
    return whole_sweep.outcome(
        1000.0, wall=wall, first_step=1001.0, reports=reports, validation_seconds=validation
    )


def test_a_side_s_result_by_hand():
    found = side_result(100.0, [5.0, math.nan, 4.0], validation=20.0)
    assert found["wall_without_validation"] == 80.0
    assert found["first_step"] == 1.0
    assert found["best_val_loss"] == 4.0
    assert found["trials"] == [{"trial": 0, "best_val_loss": 4.0, "iterations": 3}]
    assert [row[0] for row in found["reports"]] == [10.0, 20.0, 30.0]


def test_the_summary_of_a_sweep_by_hand():
    found = whole_sweep.summary(
        {
            "ours": [side_result(100.0, [5.0, 4.0])],
            "stopping": [side_result(50.0, [5.0, 4.01, 4.0])],
            "baseline": [side_result(300.0, [5.0, 4.0], validation=60.0)],
            "stock": [side_result(150.0, [5.0, 4.1])],
        }
    )
    pairs = {tuple(pair["sides"]): pair for pair in found["ratios"]}
    assert found["full_search_best"] == 4.0
    full = pairs["baseline", "ours"]
    assert (full["ratio"], full["ratio_without_validation"]) == (3.0, 2.4)
    assert (full["floor"], full["met"], full["aim_met"]) == (2.3, True, None)
    assert not pairs["stock", "ours"]["met"]  # 1.5, not 1.7
    # The target is 4.0 * 1.005 = 4.02: reached after 10 s with early stopping, 60 s by baseline.
    stopping = pairs["baseline", "stopping"]
    assert stopping["ratio"] == 6.0
    assert stopping["to_near_best"] == 30.0
    assert stopping["to_near_best_without_validation"] == 24.0
    assert stopping["both_to_near_best"] == 6.0
    assert stopping["met"] and stopping["aim_met"]
    assert pairs["stock", "stopping"]["both_to_near_best"] is None  # stock never got there


def test_early_stopping_that_misses_the_best_loss_meets_nothing():
    found = whole_sweep.summary(
        {
            "ours": [side_result(100.0, [4.0])],
            "stopping": [side_result(10.0, [4.1])],
            "baseline": [side_result(300.0, [4.0])],
        }
    )
    pair = next(p for p in found["ratios"] if p["sides"] == ["baseline", "stopping"])
    assert pair["ratio"] == 30.0
    assert (pair["to_near_best"], pair["met"], pair["aim_met"]) == (None, False, False)


def test_all_sides_have_the_published_space_and_the_same_configurations():
    settings = whole_sweep.Settings(data="everyday", trials=24)
    configurations = settings.configurations()
    assert len(configurations) == 24
    assert {c["clip"] for c in configurations} == {0, 25, 50, 100}
    assert {c["optimizer"] for c in configurations} == {"adam", "sgd"}
    assert {c["hidden_size"] for c in configurations} == {128}
    assert configurations == settings.configurations()
    assert settings.sweep(stopping=True)["early_terminate"]["type"] == "hyperband"
    assert "early_terminate" not in settings.sweep(stopping=False)
    changed = whole_sweep.Settings(data="everyday", min_iter=1, eta=4.0).sweep(stopping=True)
    assert changed["early_terminate"] == {
        **{"type": "hyperband", "strict": True},  # as the sweep file has it
        **{"min_iter": 1, "eta": 4.0},
    }


EXPECTED = {
    "tolerance": 0.8,
    "ratios": {
        "a": {"ratio": 2.0, "source": "required"},
        "b": {"ratio": 2.0, "source": "measured", "tolerance": 0.5},
    },
}


def test_the_guard_s_verdict_by_hand():
    found = guard.verdicts({"a": 1.7, "b": 1.01, "c": 0.1}, EXPECTED)
    assert [v.text for v in found] == ["fine", "fine", "not recorded"]
    assert found[0].least == pytest.approx(1.6)
    found = guard.verdicts({"a": 1.59, "b": 0.99}, EXPECTED)
    assert [v.fell for v in found] == [True, True]
    assert guard.verdicts({"a": math.nan}, EXPECTED)[0].fell


def test_recording_keeps_tolerances_and_other_ratios():
    where = {"processor": "P", "torch": "2"}
    found = guard.recorded({"b": 3.14159, "c": 1.0}, EXPECTED, where)
    assert found["ratios"]["a"] == EXPECTED["ratios"]["a"]
    assert found["ratios"]["b"] == {
        "ratio": 3.14,
        "source": "measured on P, torch 2",
        "tolerance": 0.5,
    }
    assert found["ratios"]["c"]["ratio"] == 1.0
    assert found["tolerance"] == 0.8


def test_the_recorded_ratios_are_of_the_guard_s_own_size():
    expected = guard.read_expected(guard.EXPECTED)
    assert any("hidden 128, batch 64" in key for key in expected["ratios"])
    assert all(entry["ratio"] >= 1.0 for entry in expected["ratios"].values())


@pytest.mark.parametrize("text", ["", "{}", '{"tolerance": 0.8, "ratios": {"a": {"ratio": "x"}}}'])
def test_a_file_of_ratios_that_makes_no_sense_is_refused(tmp_path, text):
    file = tmp_path / "expected.json"
    file.write_text(text)
    with pytest.raises(BenchmarkError, match=r"expected\.json: cannot be read"):
        guard.read_expected(file)
    with pytest.raises(BenchmarkError, match="is not there; write it with --record"):
        guard.read_expected(tmp_path / "nowhere.json")


# The same work


def test_synthetic_data_are_whole():
    data = same_work.open_data("synthetic:50")
    assert len(data.vocabulary) == 50
    assert data.tokens.max() < 50 and len(data.examples["train"]) == 8192
    pairs = same_work.pairs_of(data, "train", torch.arange(100))
    assert all(side[-1] == EOS and 2 <= len(side) <= 10 for pair in pairs for side in pair)
    assert torch.equal(data.tokens, same_work.open_data("synthetic:50").tokens)


@pytest.mark.parametrize(
    ("name", "match"),
    [("synthetic:x", "write synthetic or synthetic:WORDS"), ("synthetic:3", "more than the 4")],
)
def test_synthetic_data_that_cannot_be_are_refused(name, match):
    with pytest.raises(BenchmarkError, match=match):
        same_work.open_data(name)


def test_the_baseline_gets_our_hyper_parameters_and_no_clipping_for_clip_0():
    config = {"hidden_size": 8, "clip": 0, "optimizer": "sgd", "learning_rate": 0.5, "seed": 3}
    model = same_work.make_baseline(config, 30)
    assert model.clip == same_work.NO_CLIP
    assert isinstance(model.encoder_optimizer, torch.optim.SGD)
    assert model.encoder_optimizer.param_groups[0]["lr"] == 0.5
    assert model.random.seed == 3
    assert same_work.make_baseline({"clip": 25}, 30).clip == 25


# The harness, with sides that write down what they do


def build_scribe(file, name):
    """Writes its name at every iteration, and says what it sees of its environment."""

    def iterate():
        with Path(file).open("a") as log:
            log.write(name)

    return Work(iterate, facts=lambda: {"seen": os.environ.get("BENCHMARK_TEST")})


def build_fault(how):
    """Raises while it is built, or dies at its first iteration."""
    if how == "raise":
        raise ValueError("no such thing")
    return Work(lambda: os._exit(3))


def alone(number):
    """The double, and the process that computed it."""
    return {"double": 2 * number, "process": os.getpid()}


def test_sides_take_turns_in_processes_of_their_own(tmp_path):
    log = tmp_path / "log"
    sides = [
        Side("a", build_scribe, {"file": str(log), "name": "a"}, {"BENCHMARK_TEST": "1"}),
        Side("b", build_scribe, {"file": str(log), "name": "b"}),
    ]
    progress = Progress("test", 6)
    with Sides(sides) as running:
        seconds = running.take_turns(3, 2, warm_up=1, progress=progress)
        facts = running.facts()
    assert log.read_text() == "ab" + "aabb" + "bbaa" + "aabb"  # another one begins each time
    assert {side: len(times) for side, times in seconds.items()} == {"a": 3, "b": 3}
    assert facts["a"]["seen"] == "1" and facts["b"]["seen"] is None
    assert "BENCHMARK_TEST" not in os.environ
    assert facts["a"]["peak_memory_bytes"] > 1_000_000
    assert progress.done == 6


def test_a_side_that_fails_says_why():
    with pytest.raises(BenchmarkError, match="(?s)bad: Traceback.*no such thing"):
        Sides([Side("bad", build_fault, {"how": "raise"})]).__enter__()
    with (
        Sides([Side("bad", build_fault, {"how": "die"})]) as running,
        pytest.raises(BenchmarkError, match="bad: its process ended with exit code 3"),
    ):
        running.take_turns(1, 1, warm_up=0, progress=Progress("test", 1))


def test_a_function_runs_alone():
    found = run_alone("double", alone, number=21)
    assert found["double"] == 42
    assert found["process"] != os.getpid()
    assert found["peak_memory_bytes"] > 1_000_000


# What is lost at random


def faults(*words):
    parser = make_parser("")
    add_options(parser, trials=3)
    return seed_and_directory(parser.parse_args([*map(str, words)]))


def test_a_seed_that_nobody_gave_is_drawn_and_said(capsys):
    with faults() as (seed, directory):
        assert list(directory.iterdir()) == []
        assert capsys.readouterr().out == f"seed {seed}\n"
    assert not directory.exists()


def test_everything_is_kept_where_that_is_asked_for(tmp_path):
    with faults("--seed", 7, "--keep", tmp_path / "a" / "b") as (seed, directory):
        assert (seed, directory) == (7, tmp_path / "a" / "b")
    assert directory.is_dir()


def test_a_check_that_fails_is_told_with_the_seed():
    failing = pytest.raises(BenchmarkError, match="^seed 7: one row is missing$")
    with failing, faults("--seed", 7):
        raise AssertionError("one row is missing")


# The command lines


@pytest.mark.parametrize("module", [training_step, whole_sweep, greedy_decoding, growth, guard])
def test_help_teaches(module, capsys):
    with pytest.raises(SystemExit) as end:
        module.main(["--help"])
    assert end.value.code == 0
    shown_help = capsys.readouterr().out
    assert f"python benchmarks/{module.__name__.rpartition('.')[2]}.py" in shown_help
    assert "--json FILE" in shown_help


@pytest.mark.parametrize(
    ("module", "arguments", "message"),
    [
        (training_step, ["--teacher-forcing-ratio", "2"], "must be between 0 and 1, but got '2'"),
        (training_step, ["--turns", "0"], "must be a whole number of at least 1, but got '0'"),
        (whole_sweep, ["--sides", "theirs"], "invalid choice: 'theirs'"),
    ],
)
def test_bad_arguments_are_refused(module, arguments, message, capsys):
    with pytest.raises(SystemExit) as end:
        module.main(["--data", "synthetic", *arguments])
    assert end.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("module", [training_step, greedy_decoding])
def test_a_gpu_that_is_not_there_is_said(module):
    with pytest.raises(BenchmarkError, match="--device cuda: there is no GPU"):
        module.main(["--data", "synthetic", "--device", "cuda"])


def test_training_step_end_to_end(tmp_path, capsys):
    file = tmp_path / "step.json"
    status = training_step.main(
        [*TOY, "--teacher-forcing-ratio", "0.5", "--json", str(file), "--markdown"]
    )
    assert status == 0
    printed = capsys.readouterr().out
    assert "hidden 8, vocabulary 60, batch 4, adam" in printed
    assert "| 0.5 | ours fp32 |" in printed and "ceilings: " in printed
    results = read(file)
    assert results["benchmark"] == "training_step"
    assert results["environment"]["torch"] == torch.__version__
    sides = results["comparisons"][0]["sides"]
    assert list(sides) == ["baseline", "ours fp32", "ours auto"]
    for side in sides.values():
        assert len(side["turns"]) == len(side["ratios"]) == 2
        assert side["flops_share"] > 0 and side["bytes_share"] > 0
    assert sides["baseline"]["parameters"] == sides["ours fp32"]["parameters"]


@pytest.mark.slow
def test_training_step_ends_cleanly_at_ctrl_c(tmp_path):
    command = [sys.executable, "benchmarks/training_step.py", *TOY, "--turns", "100000"]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    time.sleep(10)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130
    assert said.endswith("interrupted\n") and "Traceback" not in said


@pytest.mark.slow
def test_greedy_decoding_end_to_end(tmp_path, capsys):
    file = tmp_path / "greedy.json"
    arguments = [a for a in TOY if a not in ("--batch-size", "4")]
    arguments += ["--batch-size", "4", "1", "--train-iterations", "2", "--json", str(file)]
    assert greedy_decoding.main(arguments) == 0
    assert "trained 2 iterations, validation loss" in capsys.readouterr().out
    comparisons = read(file)["comparisons"]
    assert [c["batch_size"] for c in comparisons] == [4, 1]
    for comparison in comparisons:
        assert list(comparison["sides"]) == ["baseline", "ours call", "ours fp32", "ours bf16"]
        assert all(0 <= s["same_replies"] <= 1 for s in comparison["sides"].values())
        assert comparison["sides"]["baseline"]["same_replies"] == 1
        assert all(1 <= s["mean_words"] <= 10 for s in comparison["sides"].values())


@pytest.mark.slow
def test_greedy_decoding_with_a_model_directory(tmp_path, tiny_data, tiny_config):
    from model.model_directory import write_model_directory

    config = tiny_config()
    model = Seq2Seq(config.model, len(tiny_data.vocabulary))
    directory = write_model_directory(
        tmp_path / "model",
        weights=model.state_dict(),
        config=config,
        vocabulary=tiny_data.vocabulary,
        metrics={"val_loss": 1.5},
        lineage={},
    )
    tiny_data.save(tmp_path / "tiny.safetensors")
    file = tmp_path / "greedy.json"
    arguments = ["--data", str(tmp_path / "tiny.safetensors"), "--model", str(directory)]
    arguments += ["--batch-size", "4", "--precision", "fp32", *TOY[6:], "--json", str(file)]
    assert greedy_decoding.main(arguments) == 0
    assert read(file)["weights"]["val_loss"] == 1.5


@pytest.mark.slow
def test_guard_end_to_end(tmp_path, capsys):
    file = tmp_path / "expected.json"
    arguments = [*TOY, "--teacher-forcing-ratio", "1", "--expected", str(file)]
    with pytest.raises(BenchmarkError, match="write it with --record"):
        guard.main(arguments)
    assert guard.main([*arguments, "--record"]) == 0
    content = read(file)
    assert {len(content["ratios"])} <= {2, 4}  # fp32, and bf16 where the processor knows it
    for entry in content["ratios"].values():
        entry["ratio"] = 1e-6
    file.write_text(json.dumps(content))
    assert guard.main([*arguments, "--json", str(tmp_path / "guard.json")]) == 0
    assert set(read(tmp_path / "guard.json")["measured"]) == set(content["ratios"])
    next(iter(content["ratios"].values()))["ratio"] = 1e6
    file.write_text(json.dumps(content))
    capsys.readouterr()
    assert guard.main(arguments) == 1
    printed = capsys.readouterr().out
    assert "FELL" in printed and f"1 of {len(content['ratios'])} ratios fell" in printed


GROWTH = {
    "hidden": {
        "baseline": {"sizes": [8, 16], "milliseconds": [2.0, 4.0], "megabytes": [300.0, 310.0]},
        "ours fp32": {"sizes": [8, 16], "milliseconds": [1.0, 3.0], "megabytes": [300.0, 305.0]},
    },
    "driver": {"sizes": [10, 50], "seconds": [9.0, 12.0], "megabytes": [400.0, 420.0]},
    "preparation": {"sizes": [100, 200], "seconds": [0.1, 0.2], "megabytes": [240.0, 250.0]},
}


def test_growth_has_a_picture_and_a_table_of_everything_measured(tmp_path):
    pictures = dict(growth.pictures(GROWTH))
    assert list(pictures) == ["time-hidden", "memory-trainer", "memory-driver", "preparation"]
    assert pictures["time-hidden"][0].y == "time of an iteration (ms)"
    assert pictures["time-hidden"][0].lines["ours fp32"] == ([8, 16], [1.0, 3.0])
    assert len(pictures["preparation"]) == 2  # time and memory
    files = growth.draw(GROWTH, tmp_path / "pictures")
    assert [file.stem for file in files] == list(pictures)
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)
    table = growth.report(GROWTH)
    assert "baseline ms" in table and "pairs" in table and "trials" in table


def test_pairs_are_split_at_line_feeds_alone(tmp_path):
    file = tmp_path / "pairs.tsv"
    file.write_bytes("a\tb\u0085c\nd\te\r\n".encode())
    assert growth.read_pairs(file) == ["a\tb\u0085c\n".encode(), b"d\te\r\n"]
    with pytest.raises(BenchmarkError, match="must be a file of pairs"):
        growth.read_pairs(tmp_path / "corpus.zip")
    with pytest.raises(BenchmarkError, match="cannot be read"):
        growth.read_pairs(tmp_path / "nowhere.tsv")


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.long
def test_growth_end_to_end(tmp_path, capsys):
    corpus = tmp_path / "pairs.tsv"
    letters = "abcdefghijklmnopqrstuvw"
    pairs = [f"where is {letters[i % 19]} {letters[i % 23]} ?\tit is here ." for i in range(400)]
    corpus.write_text("\n".join(pairs) + "\n")
    file = tmp_path / "growth.json"
    status = growth.main(
        [
            *("--data", "synthetic:60", "--hidden-size", "8"),
            *("--hidden", "4", "8", "--vocabulary", "50", "--batch", "4", "--trials", "1"),
            *("--corpus", str(corpus), "--pairs", "300", "100000"),
            *("--turns", "1", "--iterations", "1", "--warm-up", "1", "--threads", "1"),
            *("--json", str(file), "--out", str(tmp_path / "pictures")),
        ]
    )
    assert status == 0
    results = read(file)
    assert set(growth.SECTIONS) <= set(results)
    assert results["hidden"]["baseline"]["sizes"] == [4, 8]
    assert results["preparation"]["sizes"] == [300, 400]
    assert len(list((tmp_path / "pictures").glob("*.png"))) == 6


TOY_SWEEP = [
    *("--data", "everyday", "--hidden-size", "8", "--batch-size", "4", "--trials", "2"),
    *("--iterations", "4", "--report-every", "2", "--val-examples", "32", "--min-iter", "1"),
]


def test_a_sweep_goes_on_where_it_was_interrupted(tmp_path, monkeypatch, capsys):
    file, ran = tmp_path / "sweep.json", []

    def pretend(side, settings):
        if side == "stock" and "stock" not in ran:
            ran.append("stock")
            raise KeyboardInterrupt
        ran.append(side)
        return side_result(10.0, [4.0])

    monkeypatch.setattr(whole_sweep, "in_fresh_process", pretend)
    arguments = [*TOY_SWEEP, "--json", str(file)]
    with pytest.raises(KeyboardInterrupt):
        whole_sweep.main(arguments)
    assert list(read(file)["runs"]) == ["ours", "stopping", "baseline"]
    assert whole_sweep.main(arguments) == 0
    assert ran == ["ours", "stopping", "baseline", "stock", "stock"]
    assert "baseline / ours" in capsys.readouterr().out
    assert whole_sweep.main([*arguments, "--repeats", "2"]) == 0  # the first round is there
    assert len(ran) == 9
    with pytest.raises(BenchmarkError, match="other settings \\(trials was 2, is 3\\)"):
        whole_sweep.main([*arguments, "--trials", "3"])
    file.write_text("[]")
    with pytest.raises(BenchmarkError, match="is no result of this benchmark"):
        whole_sweep.main(arguments)


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.long
def test_whole_sweep_end_to_end(tmp_path, capsys):
    file = tmp_path / "sweep.json"
    assert whole_sweep.main([*TOY_SWEEP, "--json", str(file)]) == 0
    results = read(file)
    runs = {side: found[0] for side, found in results["runs"].items()}
    assert list(runs) == list(whole_sweep.SIDES)
    for side in ("ours", "baseline", "stock"):
        assert [(t["trial"], t["iterations"]) for t in runs[side]["trials"]] == [(0, 4), (1, 4)]
        assert all(t["best_val_loss"] > 0 for t in runs[side]["trials"])
        assert 0 < runs[side]["first_step"] < runs[side]["wall"]
    # The baseline is the same on both sides but for the order in which its sums are taken.
    for own, other in zip(runs["baseline"]["trials"], runs["stock"]["trials"], strict=True):
        assert own["best_val_loss"] == pytest.approx(other["best_val_loss"], rel=1e-4)
    assert runs["baseline"]["wall_without_validation"] < runs["baseline"]["wall"]
    assert len(results["summary"]["ratios"]) == 4

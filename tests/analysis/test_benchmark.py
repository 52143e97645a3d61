"""`benchmark`: its arithmetic by hand, its eager decoders against the baseline, and end to end."""

import csv
import io
import json
import math

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import analysis.benchmark.decoders
import analysis.benchmark.latency
import analysis.benchmark.measuring
from analysis.__main__ import main
from analysis.benchmark.decoders import EXPORTS
from analysis.benchmark.eager import PublishedDecoder, greedy_of_all_rows
from analysis.benchmark.latency import CALLS, Latency, Ratio, take_turns
from analysis.benchmark.measuring import Settings
from analysis.benchmark.sources import Sources
from analysis.benchmark.tables import as_csv, as_markdown, as_picture, as_text
from analysis.export.agreement import NEAR_TIE, Reference, compare, concatenated
from benchmarks.baseline import Baseline, build_batch
from benchmarks.same_work import copy_weights
from model.config import Config, ModelConfig
from model.decoding import Stepper, greedy
from model.model_directory import load, write_model_directory
from model.seq2seq import Seq2Seq
from model.training import Trainer
from model.vocabulary import EOS, PAD
from tests.conftest import exit_status

V, H = 30, 12
END = EOS  # of a reply


@pytest.fixture(scope="module", autouse=True)
def few_batches():
    """Nothing is measured here: a hundred batches to warm up on would only take time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(analysis.benchmark.measuring, "_MOST_BATCHES", 3)
        patch.setattr(analysis.benchmark.measuring, "_FEWEST_BATCHES", 3)
        yield


@pytest.fixture(scope="module")
def directory(tmp_path_factory, tiny_data):
    """A model that has learnt the tiny corpus."""
    torch.set_num_threads(1)
    fields = {"hidden_size": 16, "batch_size": 16, "iterations": 80, "report_every": 80}
    fields |= {"learning_rate": 5e-3, "device": "cpu", "corpus": "tiny", "precision": "fp32"}
    trainer = Trainer(tiny_data, Config.from_mapping(fields))
    trainer.train_interval()
    return write_model_directory(
        tmp_path_factory.mktemp("models") / "m",
        weights=trainer.model.state_dict(),
        config=trainer.config,
        vocabulary=tiny_data.vocabulary,
        metrics={"val_loss": 1.25},
        lineage={"iteration": 80, "data_fingerprint": tiny_data.fingerprint},
    )


@pytest.fixture(scope="module")
def data(tmp_path_factory, tiny_data):
    file = tmp_path_factory.mktemp("data") / "tiny.safetensors"
    tiny_data.save(file)
    return file


def run(*arguments):
    return exit_status(main, "benchmark", *arguments)


class TestLatency:
    def test_figures_by_hand(self):
        found = Latency.of(np.array([[0.010, 0.030], [0.020, 0.040]]), replies=5)
        assert found.calls == 4
        assert found.median_ms == pytest.approx(25)
        assert found.mean_ms == pytest.approx(25)
        assert found.p95_ms == pytest.approx(38.5)  # 0.85 of the way from the third to the fourth
        assert found.p99_ms == pytest.approx(39.7)
        assert found.replies_per_second == pytest.approx(200)

    def test_a_drift_of_the_machine_cancels(self):
        """The machine becomes ten times slower: means would say anything, the rounds say 2."""
        drift = np.linspace(1, 10, 20)[:, None] * np.ones((1, CALLS))
        assert Ratio.of(2 * drift, drift) == Ratio(2.0, 2.0, 2.0)

    def test_the_interval_holds_the_value_and_narrows_with_rounds(self):
        noise = np.random.default_rng(1).normal(1, 0.1, (400, CALLS))
        few = Ratio.of(3 * noise[:20], noise[::-1][:20])
        many = Ratio.of(3 * noise, noise[::-1])
        for ratio in (few, many):
            assert ratio.low < ratio.value < ratio.high
        assert many.high - many.low < (few.high - few.low) / 2
        assert many.low < 3 < many.high
        assert Ratio.of(3 * noise, noise[::-1]) == many  # nothing is drawn afresh

    def test_sides_take_turns_on_the_same_batches(self, monkeypatch):
        monkeypatch.setattr(analysis.benchmark.latency.time, "sleep", lambda seconds: None)
        calls, waits, ticks = [], [], []
        sides = {name: lambda i, name=name: calls.append((name, i)) for name in "abc"}
        seconds = take_turns(
            sides,
            rounds=8,
            synchronise=lambda: waits.append(1),
            progress=lambda: ticks.append(1),
        )
        assert {name: times.shape for name, times in seconds.items()} == dict.fromkeys(
            "abc", (8, CALLS)
        )
        assert all((times >= 0).all() for times in seconds.values())
        each = CALLS + 1  # the first of a turn is not timed
        turns = [calls[i : i + each] for i in range(0, len(calls), each)]
        orders = []
        for start in range(0, len(turns), 3):
            together = turns[start : start + 3]
            orders.append("".join(turn[0][0] for turn in together))
            batches = [[i for _, i in turn] for turn in together]
            first = start // 3 * CALLS
            assert batches == [[first, *range(first, first + CALLS)]] * 3
            assert all(len({name for name, _ in turn}) == 1 for turn in together)
        assert all(sorted(order) == ["a", "b", "c"] for order in orders)
        assert len(set(orders)) > 1
        assert len(waits) == 2 * 3 * 8 * CALLS
        assert len(ticks) == 3 * 8

    def test_a_call_is_timed_until_the_device_is_done(self, monkeypatch):
        now = [0.0]

        def pass_time(seconds):
            now[0] += seconds

        monkeypatch.setattr(analysis.benchmark.latency.time, "perf_counter", lambda: now[0])
        monkeypatch.setattr(analysis.benchmark.latency.time, "sleep", lambda seconds: None)
        launched = []
        seconds = take_turns(
            {"a": launched.append},
            rounds=1,
            synchronise=lambda: (pass_time(2.0) if launched else None, launched.clear()),
        )
        assert seconds["a"].tolist() == [[2.0] * CALLS]  # that of the untimed call is not in it


class TestAgreement:
    EAGER = Reference(
        words=torch.tensor([[5, 6, END, 9], [5, 6, 7, END], [7, END, 4, 4], [8, 8, 8, 8]]),
        scores=torch.zeros(4, 4),
        margins=torch.ones(4, 4),
    )

    def with_margin(self, row, place, margin):
        margins = self.EAGER.margins.clone()
        margins[row, place] = margin
        return Reference(self.EAGER.words, self.EAGER.scores, margins)

    def test_equal_up_to_the_end(self):
        words = torch.tensor([[5, 6, END, 0], [5, 6, 7, END], [7, END, 0, 0], [8, 8, 8, 8]])
        found = compare(self.EAGER, words, self.EAGER.words)
        assert (found.replies, found.words) == (4, 3 + 4 + 2 + 4)
        assert (found.next_word, found.free_running, found.equal_replies) == (1, 1, 1)
        assert (found.tied_words, found.tied_replies) == (0, 0)

    def test_by_hand(self):
        words = torch.tensor([[5, 9, END, 0], [5, 6, 7, END], [7, 7, END, 0], [8, END, 8, 8]])
        following = torch.tensor([[5, 6, 4, 0], [5, 6, 7, END], [7, END, 0, 0], [8, 8, 8, 9]])
        found = compare(self.EAGER, words, following)
        assert found.next_word == pytest.approx(11 / 13)  # what follows the end does not count
        # 2 of 3 (the end is at its place), 4 of 4, 1 of 2; and 1 of 4, for it says no more.
        assert found.free_running == pytest.approx((2 + 4 + 1 + 1) / 13)
        assert found.equal_replies == 1 / 4

    def test_shorter_arrays_say_nothing_after_them(self):
        found = compare(self.EAGER, torch.tensor([[5, 6], [5, 6], [7, END], [8, 8]]))
        assert found.free_running == pytest.approx(8 / 13)
        assert found.equal_replies == 1 / 4
        assert math.isnan(found.next_word)

    def test_ties_are_left_out_and_counted(self):
        words = torch.tensor([[5, 9, 9, 9], [5, 6, 7, END], [7, END, 0, 0], [8, 8, 8, 8]])
        following = torch.tensor([[5, 9, END, 0], [5, 6, 7, END], [7, END, 0, 0], [8, 8, 8, 8]])
        plain = compare(self.with_margin(0, 1, 2 * NEAR_TIE), words, following)
        assert plain.next_word == pytest.approx(12 / 13)
        assert plain.free_running == pytest.approx(11 / 13)
        assert plain.equal_replies == 3 / 4
        tied = compare(self.with_margin(0, 1, NEAR_TIE / 2), words, following)
        assert (tied.next_word, tied.free_running, tied.equal_replies) == (1, 1, 1)
        assert (tied.tied_words, tied.tied_replies) == (1, 1)

    def test_a_tie_that_both_decide_alike_is_compared(self):
        found = compare(self.with_margin(0, 1, 0.0), self.EAGER.words, self.EAGER.words)
        assert (found.tied_words, found.tied_replies, found.equal_replies) == (0, 0, 1)

    def test_a_tie_after_the_replies_parted_excuses_nothing(self):
        words = torch.tensor([[9, 9, 9, 9], [5, 6, 7, END], [7, END, 0, 0], [8, 8, 8, 8]])
        found = compare(self.with_margin(0, 1, 0.0), words)
        assert (found.equal_replies, found.tied_replies) == (3 / 4, 0)

    def test_all_replies_at_ties(self):
        eager = Reference(torch.tensor([[5, END]]), torch.zeros(1, 2), torch.zeros(1, 2))
        found = compare(eager, torch.tensor([[6, END]]))
        assert math.isnan(found.equal_replies)
        assert math.isnan(found.free_running)
        assert found.tied_replies == 1

    def test_batches_are_put_together_in_order(self):
        parts = [
            Reference(*(torch.full((rows, 2), value) for value in (rows, rows + 10, rows + 20)))
            for rows in (1, 2)
        ]
        whole = concatenated(parts)
        assert whole.words.tolist() == [[1, 1], [2, 2], [2, 2]]
        assert whole.scores[:, 0].tolist() == [11, 12, 12]
        assert whole.margins[:, 0].tolist() == [21, 22, 22]


class Operations(TorchDispatchMode):
    """The names of the operators that were called."""

    def __init__(self):
        super().__init__()
        self.names = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.append(str(function))
        return function(*args, **(kwargs or {}))


def sources(lengths):
    generator = torch.Generator().manual_seed(1)
    return [[*torch.randint(4, V, (n,), generator=generator).tolist(), EOS] for n in lengths]


class TestPublishedDecoder:
    def test_is_the_baseline_word_for_word_and_operation_for_operation(self):
        torch.manual_seed(0)
        model = Seq2Seq(ModelConfig(hidden_size=H), V).eval()
        baseline = Baseline(V, hidden_size=H)
        copy_weights(model.state_dict(), baseline)
        batch = build_batch([(source, [EOS]) for source in sources([6, 4, 4, 1])])
        decoder = PublishedDecoder(model)
        found = []
        for side in (baseline, decoder):
            with Operations() as operations:
                words, scores = side.greedy(batch.source, batch.lengths, 10)
            found.append((words, scores, operations.names))
        assert torch.equal(found[0][0], found[1][0])
        assert torch.equal(found[0][1], found[1][1])
        assert found[0][2] == found[1][2]
        assert len(found[0][2]) > 100

    @pytest.mark.parametrize(
        "fields",
        [
            {"attention": "dot"},
            {"attention": "general", "embedding_size": 8},
            {"attention": "concat"},
            {"encoder_layers": 1, "decoder_layers": 3},
        ],
    )
    def test_is_the_models_mathematics_where_nothing_is_padded(self, fields):
        torch.manual_seed(0)
        model = Seq2Seq(ModelConfig(hidden_size=H, **fields), V).eval()
        # It may say any word: make those that the model never says the least probable.
        model.output.bias.data[[0, 1, 3]] = -100.0
        source, lengths = torch.tensor(sources([5] * 8)), torch.full((8,), 6)
        words, scores = PublishedDecoder(model).greedy(source.t(), lengths, 6)
        assert torch.equal(words.t(), greedy_of_all_rows(model, source, lengths, 6))
        assert len(words.unique()) > 2
        assert ((scores > 0) & (scores <= 1)).all()

    def test_follows_given_words(self):
        torch.manual_seed(0)
        model = Seq2Seq(ModelConfig(hidden_size=H), V).eval()
        model.output.bias.data[[0, 1, 3]] = -100.0
        source, lengths = torch.tensor(sources([5] * 8)), torch.full((8,), 6)
        given = torch.randint(4, V, (8, 5))
        words = PublishedDecoder(model).greedy(source.t(), lengths, 5, given.t())[0].t()
        encoded = model.encode(source, lengths)
        before = torch.cat([torch.ones(8, 1, dtype=torch.long), given[:, :-1]], dim=1)
        hidden, _ = model.decode(before, encoded.state, encoded)
        assert torch.equal(words, model.project(hidden).argmax(dim=-1))
        assert torch.equal(greedy_of_all_rows(model, source, lengths, 5, given=given), words)

    def test_takes_the_weights_as_they_are(self):
        model = Seq2Seq(ModelConfig(hidden_size=H), V)
        decoder = PublishedDecoder(model)
        assert decoder.out is model.output
        assert not decoder.training


class TestEagerWithoutEarlyExit:
    @pytest.mark.parametrize("fold", [False, True])
    def test_says_what_greedy_says_up_to_the_end(self, directory, data, fold):
        model = load(directory)
        batch = Sources.open(model, str(data), 16).batches(16, 1)[0]
        stepper = Stepper(model.model, fold=True) if fold else None
        words = greedy_of_all_rows(model.model, batch.rows, batch.lengths, 10, stepper)
        assert words.shape == (16, 10)
        expected = greedy(model.model, batch.rows, batch.lengths, 10)
        ended = (words == EOS).cumsum(dim=1) - (words == EOS).long() > 0
        spoken = words.masked_fill(ended, PAD)
        assert torch.equal(spoken[:, : expected.shape[1]], expected)
        assert ended.any()


class TestSources:
    def test_the_longest_first_each_with_its_end(self, directory, data):
        found = Sources.open(load(directory), str(data), 100)
        assert found.note is None
        batches = found.batches(5, 4)
        assert len(batches) == 4
        for batch in batches:
            assert batch.rows.shape[0] == 5
            assert torch.equal(batch.columns, batch.rows.t())
            assert batch.columns.is_contiguous()
            assert batch.lengths.tolist() == sorted(batch.lengths.tolist(), reverse=True)
            assert torch.equal((batch.rows != PAD).sum(dim=1), batch.lengths)
            assert (batch.rows.gather(1, batch.lengths[:, None] - 1) == EOS).all()

    def test_every_source_before_any_twice(self, directory, data):
        found = Sources.open(load(directory), str(data), 20)
        assert len(found.samples.sources) == 20
        wanted = sorted(found.samples.sources)
        first, second = found.batches(20, 2)
        assert sorted(row[row != PAD].tolist() for row in first.rows) == wanted
        assert torch.equal(first.rows, second.rows)

    def test_are_the_same_each_time(self, directory, data):
        first, again = (
            Sources.open(load(directory), str(data), 30).batches(10, 2) for _ in range(2)
        )
        assert [b.rows.tolist() for b in first] == [b.rows.tolist() for b in again]

    def test_the_embedded_corpus_where_the_models_own_is_gone(self, directory):
        found = Sources.open(load(directory), None, 30)
        assert found.samples.origin.startswith("everyday")
        assert not found.samples.own
        assert found.note.startswith("tiny, which the model was trained on, is not at hand;")

    def test_no_note_where_its_own_data_are_found_by_their_fingerprint(
        self, directory, tiny_data, tmp_path, monkeypatch
    ):
        """In a file whose name does not begin as the corpus is called."""
        (tmp_path / "data").mkdir()
        tiny_data.save(tmp_path / "data" / "other.safetensors")
        monkeypatch.chdir(tmp_path)
        found = Sources.open(load(directory), None, 30)
        assert found.samples.origin.startswith("data/other.safetensors, trained on (")
        assert found.samples.own
        assert found.note is None


SMALL = ("--iterations", 5, "--warm-up", 1, "--batch-sizes", "2,4", "--compared", 8, "--threads", 1)
SOME = ("--exports", "script-fp32,trace-int8", "--device", "cpu")


@pytest.fixture(scope="module")
def written(directory, data, tmp_path_factory):
    """The files and the output of one small benchmark."""
    out = tmp_path_factory.mktemp("out")
    files = {name: out / f"found.{name}" for name in ("json", "csv", "md", "svg", "png")}
    with pytest.MonkeyPatch.context() as patch:
        said = io.StringIO()
        patch.setattr("sys.stdout", said)
        options = ("--json", files["json"], "--csv", files["csv"], "--markdown", files["md"])
        arguments = (directory, "--data", data, *SMALL, *SOME, *options)
        assert run(*arguments, "--picture", files["svg"]) == 0
    return files, said.getvalue()


def result_of(written):
    return json.loads(written[0]["json"].read_text(), parse_constant=pytest.fail)


class TestCommand:
    SIDES = ("published", "eager", "prepared", "script-fp32", "trace-int8")

    def test_every_side_is_measured_at_every_size(self, written):
        result = result_of(written)
        assert {side["side"]: side["reason"] for side in result["sides"]} == dict.fromkeys(
            self.SIDES
        )
        found = {
            (row["batch_size"], row["side"], row["stopping"]): row for row in result["latencies"]
        }
        ways = [(s, way) for s in self.SIDES for way in ("fixed", "natural")]
        ways.remove(("published", "natural"))  # it always makes all steps
        assert set(found) == {(size, *way) for size in (2, 4) for way in ways}
        for row in found.values():
            latency = row["latency"]
            assert latency["calls"] == 5
            assert 0 < latency["median_ms"] <= latency["p95_ms"] <= latency["p99_ms"]
            assert latency["replies_per_second"] == pytest.approx(
                1000 * row["batch_size"] / latency["mean_ms"]
            )
            assert row["speedup"]["low"] <= row["speedup"]["value"] <= row["speedup"]["high"]
            assert (row["gain"] is not None) == (row["stopping"] == "natural")
        assert found[2, "published", "fixed"]["speedup"]["value"] == 1

    def test_exact_sides_say_what_eager_says(self, written):
        for side in result_of(written)["sides"]:
            agreement = side["agreement"]
            assert agreement["replies"] == 8
            if side["side"] in ("eager", "prepared", "script-fp32"):
                shares = [agreement[k] for k in ("next_word", "free_running", "equal_replies")]
                assert shares == [1, 1, 1]
            else:
                assert 0 <= agreement["free_running"] <= 1

    def test_what_was_measured_is_said(self, written, directory, data):
        result = result_of(written)
        assert result["settings"]["batch_sizes"] == [2, 4]
        assert result["settings"]["steps"] == 10
        assert result["environment"]["threads"] == 1
        assert result["environment"]["torch"] == torch.__version__
        assert result["model"]["path"] == str(directory)
        assert result["model"]["hidden_size"] == 16
        assert "different sources of" in result["sources"]["description"]
        assert str(data) in result["sources"]["description"]

    def test_tables(self, written):
        said = written[1]
        lines = said.splitlines()
        assert "1 threads; torch" in said
        assert "note: 5 iterations are few; figures need 100 or more" in lines
        assert said.count("Framework                        Latency on CPU (ms)  ") == 2
        row = next(line for line in lines if line.startswith("TorchScript, scripted, fp32  "))
        assert row.endswith("  -")  # no GPU
        assert "Agreement with eager fp32 on the CPU, 8 replies" in lines
        for name in ("json", "csv", "md", "svg"):
            assert f"wrote {written[0][name]}" in lines
        assert "Not measured" not in said

    def test_csv_has_what_json_has(self, written):
        result = result_of(written)
        rows = list(csv.DictReader(io.StringIO(written[0]["csv"].read_text())))
        assert len(rows) == len(result["latencies"])
        for row, expected in zip(rows, result["latencies"], strict=True):
            assert row["side"] == expected["side"]
            assert float(row["median_ms"]) == expected["latency"]["median_ms"]
            assert float(row["speedup"]) == expected["speedup"]["value"]
            assert float(row["speedup_low"]) == expected["speedup"]["low"]
            assert (row["gain"] != "") == (expected["stopping"] == "natural")
            assert float(row["free_running"]) <= 1
            assert row["reason"] == ""

    def test_markdown(self, written):
        text = written[0]["md"].read_text()
        assert (
            "| Framework | Latency on CPU (ms) | Latency on GPU (ms) |\n| --- | --- | --- |" in text
        )
        rows = [line for line in text.splitlines() if line.startswith("|")]
        blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
        assert sum(map(len, blocks)) == len(rows)
        for block in blocks:
            assert len({line.count("|") for line in block}) == 1

    def test_the_same_result_gives_the_same_files(self, written):
        result = result_of(written)
        for suffix in ("png", "svg"):
            assert as_picture(result, suffix) == as_picture(result, suffix)
        assert as_picture(result, "svg") == written[0]["svg"].read_bytes()
        assert as_markdown(result) == written[0]["md"].read_text()
        assert as_csv(result) == written[0]["csv"].read_text()
        assert as_text(result) in written[1]

    def test_the_picture_is_one(self, written):
        result = result_of(written)
        assert as_picture(result, "png").startswith(b"\x89PNG")
        text = as_picture(result, "svg").decode()
        assert text.count("<svg") == 1
        assert "Date" not in text


class TestWhatCannotBe:
    def measure(self, directory, data, **settings):
        torch.set_num_threads(1)
        settings = {"exports": ("script-fp32",), "batch_sizes": (2,), "iterations": 1} | settings
        return analysis.benchmark.measuring.run(
            directory, Settings(warm_up=1, compared=4, **settings), data=str(data)
        )

    def test_an_export_that_cannot_be_built_says_why(self, directory, data, monkeypatch):
        def fail(model, form, precision):
            raise RuntimeError("no such operator: aten::x\nand a long trace")

        monkeypatch.setattr(analysis.benchmark.decoders, "_exported", fail)
        result = self.measure(directory, data)
        last = result["sides"][-1]
        assert (last["side"], last["reason"]) == ("script-fp32", "no such operator: aten::x")
        assert last["agreement"] is None
        assert {row["side"] for row in result["latencies"]} == {"published", "eager", "prepared"}
        text = as_text(result)
        assert " ".join(text.splitlines()[-1].split()) == (
            "TorchScript, scripted, fp32 CPU all no such operator: aten::x"
        )
        rows = list(csv.DictReader(io.StringIO(as_csv(result))))
        assert rows[-1]["reason"] == "no such operator: aten::x"
        assert rows[-1]["median_ms"] == ""
        assert as_picture(result, "png")

    def test_an_export_that_fails_when_called_says_why(self, directory, data, monkeypatch):
        def broken(*arguments):
            raise ValueError("wrong | shape")

        monkeypatch.setattr(analysis.benchmark.decoders, "_exported", lambda *arguments: broken)
        result = self.measure(directory, data)
        assert result["sides"][-1]["reason"] == "wrong | shape"
        assert "| wrong / shape |" in as_markdown(result)

    def test_an_export_that_fails_at_one_size_is_measured_at_the_others(
        self, directory, data, monkeypatch
    ):
        real = analysis.benchmark.decoders._exported

        def limited(*arguments):
            module = real(*arguments)

            def decode(source, *rest):
                if len(source) > 2:
                    raise RuntimeError("out of memory")
                return module(source, *rest)

            return decode

        monkeypatch.setattr(analysis.benchmark.decoders, "_exported", limited)
        monkeypatch.setattr(analysis.benchmark.measuring, "compared_size", lambda settings: 2)
        result = self.measure(directory, data, batch_sizes=(2, 3))
        rows = [row for row in result["latencies"] if row["side"] == "script-fp32"]
        assert [(row["batch_size"], row["reason"]) for row in rows] == [
            *((2, None), (2, None), (3, "out of memory"), (3, "out of memory"))
        ]
        assert rows[-1]["latency"] is None
        assert math.isnan(result["sides"][-1]["agreement"]["next_word"])  # it cannot be given words
        assert "Not measured" in as_text(result)

    def test_text_says_what_eager_says_and_always_stops_by_itself(self, directory, data):
        result = self.measure(directory, data, exports=("text-fp32",))
        side = result["sides"][-1]
        assert (side["side"], side["reason"]) == ("text-fp32", None)
        agreement = side["agreement"]
        assert (agreement["free_running"], agreement["equal_replies"]) == (1, 1)
        rows = [row for row in result["latencies"] if row["side"] == "text-fp32"]
        assert {row["stopping"] for row in rows} == {"natural"}
        assert all(row["latency"]["calls"] for row in rows)
        assert "TorchScript, text in and out, fp32" in as_text(result)

    def test_text_has_its_own_longest_reply(self, directory, data):
        result = self.measure(directory, data, exports=("text-fp32",), steps=7)
        assert result["sides"][-1]["reason"] == "its replies have at most 10 words, not 7."

    def test_no_gpu(self, directory, capsys):
        if torch.cuda.is_available():
            pytest.skip("there is a GPU")
        assert run(directory, "--device", "cuda") == 2
        assert (
            capsys.readouterr().err == "error: --device cuda: there is no GPU that torch can use.\n"
        )

    def test_every_problem_of_the_command_line_at_once(self, directory, capsys):
        wrong = ("--exports", "scrpt-fp32,onnx-fp32", "--batch-sizes", "8,0", "--picture", "p.jpg")
        assert run(directory, *wrong) == 2
        assert capsys.readouterr().err.splitlines() == [
            "error: command line: --exports: unknown export 'scrpt-fp32', "
            "did you mean 'script-fp32'?",
            "error: command line: --batch-sizes: must be a whole number of at least 1, "
            "but got '0'.",
            "error: command line: --picture: must end in .png or .svg, but is p.jpg.",
        ]

    def test_no_such_model(self, tmp_path, capsys):
        assert run("nobody", "--registry", tmp_path) == 2
        assert "nobody: unknown model" in capsys.readouterr().err

    def test_no_such_data(self, directory, tmp_path, capsys):
        assert run(directory, "--data", tmp_path / "gone.safetensors", "--device", "cpu") == 2
        assert "gone.safetensors: cannot be read" in capsys.readouterr().err

    def test_a_file_that_cannot_be_written(self, directory, data, tmp_path, capsys):
        (tmp_path / "taken").mkdir()
        arguments = (directory, "--data", data, *SMALL, "--exports", "none", "--device", "cpu")
        assert run(*arguments, "--json", tmp_path / "taken") == 2
        assert "taken: cannot be written" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.timeout(900)  # torch.export takes its time
def test_every_export_has_a_row(directory):
    sides = list(analysis.benchmark.decoders.sides_of(load(directory, device="cpu"), EXPORTS))
    assert [side.name for side in sides] == ["published", "eager", "prepared", *EXPORTS]
    assert {side.name: side.reason for side in sides if side.reason} == {}


@pytest.mark.gpu
def test_on_a_gpu(directory, data):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    settings = Settings(devices=("cuda",), batch_sizes=(4,), iterations=5, compared=8)
    result = analysis.benchmark.measuring.run(directory, settings, data=str(data))
    reasons = {side["side"]: side["reason"] for side in result["sides"]}
    assert [reasons[name] for name in ("published", "eager", "graph", "script-fp32")] == [None] * 4
    assert "int8" in reasons["script-int8"]
    graph = next(side for side in result["sides"] if side["side"] == "graph")
    assert graph["agreement"]["equal_replies"] == 1

"""Profiles: operators attributed to components, figures that add up, and the command."""

import gzip
import json
import os
from dataclasses import replace

import pytest
import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent

import model.decoding
import model.loss
import model.model_directory
import model.seq2seq
from analysis.profiling.components import COMPONENTS, PREFIX, Marks, component_of_events, marked
from analysis.profiling.figures import (
    BETWEEN,
    Operator,
    Recorded,
    Share,
    kernel_events,
    kernels,
    operators,
    shapes_of,
    shares,
)
from analysis.profiling.native_log import native_log_filtered
from analysis.profiling.profiles import (
    _without_recorded_replies,
    _without_recorded_step,
    model_data,
    profile_inference,
    profile_training,
    source_texts,
)
from analysis.profiling.reading import where_the_time_goes
from analysis.profiling.recording import bytes_of, peak_of
from model.batching import Batches
from model.config import Config, DataConfig
from model.decoding import Stepper
from model.graphs import RecordedTraining
from model.loss import free_running, teacher_forced
from model.model_directory import load, write_model_directory
from model.optim import Optimizers
from model.training import Trainer, _Interval
from model.vocabulary import UNK
from tests.analysis.conftest import run
from tests.conftest import tiny_corpus

NODE = "autograd::engine::evaluate_function: "


@pytest.fixture(scope="module")
def directory(tiny_data, tmp_path_factory):
    """A model directory, of a model that knows half of what it was taught."""
    torch.set_num_threads(1)
    small = {"hidden_size": 16, "batch_size": 8, "iterations": 12, "report_every": 4}
    config = Config.from_mapping(small | {"device": "cpu", "precision": "fp32"})
    config = replace(config, data=DataConfig(**tiny_data.settings))
    trainer = Trainer(tiny_data, config)
    trainer.train_interval()
    return write_model_directory(
        tmp_path_factory.mktemp("models") / "bot",
        weights=trainer.model.state_dict(),
        config=config,
        vocabulary=tiny_data.vocabulary,
        metrics={},
        lineage={},
    )


@pytest.fixture(scope="module")
def bot(directory):
    return load(directory, device="cpu")


@pytest.fixture(scope="module")
def teacher_forced_steps(bot, tiny_data):
    torch.set_num_threads(1)
    return profile_training(bot, tiny_data, steps=2)


@pytest.fixture
def prepared(tiny_data, tmp_path):
    tiny_data.save(tmp_path / "tiny.safetensors")
    return tmp_path / "tiny.safetensors"


def free(bot):
    """The same model, had it been trained free-running."""
    training = replace(bot.config.training, teacher_forcing_ratio=0.0)
    return replace(bot, config=replace(bot.config, training=training))


def check_passes(found, free_running):
    by_name = {share.component: share for share in found.components}
    for name in ("embedding", "encoder", "decoder", "attention", "output layer", "loss"):
        assert by_name[name].forward > 0, name
        assert by_name[name].backward > 0, name
    assert by_name["optimizer"].forward > 0
    assert by_name["optimizer"].backward == 0
    assert by_name["batch"].forward > 0
    assert ("search" in by_name) == free_running
    assert set(by_name) <= set(COMPONENTS)


def graph_nodes(tensor):
    """Every node of the autograd graph that a tensor comes from."""
    found, left = {}, [tensor.grad_fn]
    while left:
        node = left.pop()
        if node is not None and node not in found:
            found[node] = node.name()
            left.extend(parent for parent, _ in node.next_functions)
    return found


class TestMarks:
    def test_nodes_by_hand(self):
        marks, x = Marks(), torch.ones(2, requires_grad=True)
        before = x * 1
        with marks.range("encoder"):
            y = x * 2
            with marks.range("attention"):
                z = y.exp()
            w = z + y
        after = w.sum()
        places = [marks.of_node(t.grad_fn._sequence_nr()) for t in (before, y, z, w, after)]
        assert places == ["other", "encoder", "attention", "encoder", "other"]

    def test_ranges_in_which_no_node_is_made(self):
        marks, x = Marks(), torch.ones(2, requires_grad=True)
        with marks.range("encoder"), marks.range("attention"), torch.no_grad():
            x.exp()
        with marks.range("decoder"):
            y = x * 2
        assert marks.of_node(y.grad_fn._sequence_nr()) == "decoder"

    @pytest.mark.parametrize("decode", [teacher_forced, free_running])
    def test_nodes_of_a_training_step(self, tiny_data, tiny_config, decode):
        trainer = Trainer(tiny_data, tiny_config(precision="fp32"))
        with marked(trainer.model) as marks:
            batch = trainer.train_batches.at(0, 8, 0)
            losses = decode(trainer.model, batch, trainer._dropout(batch))
        places = {}
        for node, name in graph_nodes(losses.published).items():
            if "AccumulateGrad" not in name:
                places.setdefault(name, []).append(marks.of_node(node._sequence_nr()))
        assert places["_TokenLossBackward"] == ["loss"]
        assert set(places["EmbeddingBackward0"]) == {"embedding"}
        assert places["SoftmaxBackward0"] == ["attention"]
        assert places["BmmBackward0"] == ["attention"] * 2
        assert places["TanhBackward0"] == ["decoder"]
        assert sorted(places["_RecurrenceBackward"]) == ["decoder"] * 2 + ["encoder"] * 2


class TestMarked:
    def everything(self, net):
        owners = [net, net.embedding, net.encoder, net.decoder, net.decoder.score]
        owners += [model.seq2seq, model.decoding, model.loss, model.model_directory]
        owners += [Batches, Trainer, Optimizers, Stepper]
        return [dict(vars(owner)) for owner in owners]

    def test_puts_everything_back(self, bot):
        before = self.everything(bot.model)
        with marked(bot.model):
            assert self.everything(bot.model) != before
        assert self.everything(bot.model) == before

    def test_after_an_error_too(self, bot):
        before = self.everything(bot.model)
        with pytest.raises(ZeroDivisionError), marked(bot.model):
            1 / 0  # noqa: B018
        assert self.everything(bot.model) == before

    def test_a_step_that_fails_leaves_its_table(self, bot):
        table = bot._stepper.table
        with marked(bot.model), pytest.raises(IndexError):
            bot._stepper.step(torch.tensor([10**6]), [], None)
        assert bot._stepper.table is table

    @pytest.mark.parametrize("ratio", [0.0, 1.0])
    def test_changes_no_bit_of_training(self, tiny_data, tiny_config, ratio):
        """Neither do the ranges nor the profiler; the same weights after the same steps."""
        config = tiny_config(teacher_forcing_ratio=ratio)
        plain, watched = Trainer(tiny_data, config), Trainer(tiny_data, config)
        for _ in range(2):
            plain._train_one(_Interval())
        with marked(watched.model), torch.profiler.profile(record_shapes=True):
            for _ in range(2):
                watched._train_one(_Interval())
        for name, weight in plain.model.state_dict().items():
            assert torch.equal(watched.model.state_dict()[name], weight), name

    def test_changes_no_reply(self, bot, tiny_data):
        texts = source_texts(bot, tiny_data, 8)
        replies = bot.replies(texts)
        with marked(bot.model):
            assert bot.replies(texts) == replies


def event(name, start, end, parent=None, **more):
    """An event on the CPU from one microsecond to another."""
    made = FunctionEvent(
        more.pop("id", 0), name, more.pop("thread", 1), start, end, fwd_thread=1, **more
    )
    made.is_user_annotation = more.get("is_user_annotation", name.startswith(PREFIX))
    if parent is not None:
        parent.append_cpu_child(made)
        made.set_cpu_parent(parent)
    return made


def one_step():
    """A step of 1000 microseconds, and the marks of it."""
    step = event("step", 0, 1000, is_user_annotation=True)
    encoder = event(PREFIX + "encoder", 100, 300, step)
    product = event("aten::mm", 150, 250, encoder, input_shapes=[[2, 3], [3, 4], []])
    loss = event(PREFIX + "loss", 300, 350, step)
    gradient = event(NODE + "_TokenLossBackward", 400, 600, step, sequence_nr=7)
    node = event("_TokenLossBackward", 410, 590, gradient, sequence_nr=7)
    scaled = event("aten::mul_", 420, 450, node)
    output = event("aten::matmul", 460, 560, node)
    inner = event("aten::mm", 470, 550, output, input_shapes=[[4, 2], [2, 2]])
    recurrent = event(NODE + "MmBackward0", 600, 700, step, sequence_nr=3)
    added = event(NODE + "torch::autograd::AccumulateGrad", 700, 730, step)
    unknown = event(NODE + "AddBackward0", 730, 740, step, sequence_nr=1)
    marks = Marks(changes=[(0, "other"), (2, "encoder"), (5, "other"), (7, "loss"), (8, "other")])
    events = [step, encoder, product, loss, gradient, node, scaled, output, inner]
    return [*events, recurrent, added, unknown], marks


class TestFigures:
    def recorded(self):
        events, marks = one_step()
        return Recorded(component_of_events(events, marks), [], "step", 1)

    def test_shares_by_hand(self):
        found = {s.component: s for s in shares(self.recorded())}
        times = {name: (s.forward, s.backward) for name, s in found.items()}
        assert times == {
            "encoder": pytest.approx((0.2, 0.1 + 0.03)),  # with the gradient that is added up
            "loss": pytest.approx((0.05, 0.1)),
            "output layer": pytest.approx((0, 0.1)),
            "other": pytest.approx((1 - 0.2 - 0.05 - 0.2 - 0.1 - 0.03 - 0.01, 0.01)),
        }
        assert found["encoder"].share == pytest.approx(0.33)
        assert sum(s.share for s in found.values()) == pytest.approx(1)
        assert self.recorded().whole_ms() == 1.0

    def test_the_largest_comes_first_and_other_last(self):
        assert [s.component for s in shares(self.recorded())] == [
            *("encoder", "loss", "output layer", "other")
        ]

    def test_events_outside_of_the_steps_do_not_count(self):
        events, marks = one_step()
        events.append(event("aten::randn", 2000, 9000))
        recorded = Recorded(component_of_events(events, marks), [], "step", 1)
        assert shares(recorded) == shares(self.recorded())
        assert "aten::randn" not in [row.name for row in operators(recorded)]

    def test_operators_by_hand(self):
        rows = {row.name: row for row in operators(self.recorded())}
        assert rows["aten::mm"] == Operator(
            name="aten::mm",
            shapes=None,
            calls=2.0,
            self_ms=pytest.approx(0.18),
            total_ms=pytest.approx(0.18),
            device_ms=None,
            share=pytest.approx(0.18),
            memory_bytes=0.0,
        )
        assert rows["aten::matmul"].self_ms == pytest.approx(0.02)
        assert rows["aten::matmul"].total_ms == pytest.approx(0.1)
        assert rows[BETWEEN].self_ms == pytest.approx(1 - 0.1 - 0.2 - 0.1 - 0.03 - 0.01)
        assert sum(row.share for row in rows.values()) == pytest.approx(1)

    def test_operators_by_shape(self):
        rows = [row for row in operators(self.recorded(), by_shape=True) if row.name == "aten::mm"]
        assert {row.shapes: row.calls for row in rows} == {"[2, 3] [3, 4]": 1, "[4, 2] [2, 2]": 1}
        assert shapes_of(event("aten::add", 0, 1)) == ""
        several = event("aten::cat", 0, 1, structured_input_shapes=[[[2, 3], [4, 3]], [], [5]])
        assert shapes_of(several) == "([2, 3] [4, 3]) [5]"

    def test_means_are_over_the_steps(self):
        events, marks = one_step()
        recorded = Recorded(component_of_events(events, marks), [], "step", 4)
        assert sum(s.milliseconds for s in shares(recorded)) == pytest.approx(0.25)
        assert sum(row.self_ms for row in operators(recorded)) == pytest.approx(0.25)

    def test_kernels_by_hand(self):
        """Of a GPU, whose kernels name the operator that launched them."""
        events, marks = one_step()
        for number, launcher in enumerate(events, start=1):
            launcher.id = number
        product, inner, encoder = events[2], events[8], events[1]
        assert (product.name, inner.name) == ("aten::mm", "aten::mm")

        def kernel(name, start, end, launcher, **more):
            linked = launcher.id if launcher else 0
            made = FunctionEvent(
                99, name, 7, start, end, device_type=DeviceType.CUDA, linked_correlation_id=linked
            )
            made.is_user_annotation = more.get("shadow", False)
            return made

        events += [
            kernel("gemm", 200, 500, product),
            kernel("gemm", 600, 700, inner),
            kernel("copy", 700, 800, None),
            kernel(encoder.name, 200, 500, encoder, shadow=True),
        ]
        recorded = Recorded(component_of_events(events, marks), kernel_events(events), "step", 1)
        assert {s.component: (s.forward, s.backward) for s in shares(recorded)} == {
            "encoder": pytest.approx((0.3, 0)),
            "output layer": pytest.approx((0, 0.1)),
            "other": pytest.approx((0.1, 0)),
        }
        assert [(k.name, k.calls, k.share) for k in kernels(recorded)] == [
            ("gemm", 2, pytest.approx(0.8)),
            ("copy", 1, pytest.approx(0.2)),
        ]
        first = operators(recorded)[0]
        assert (first.name, first.device_ms) == ("aten::mm", pytest.approx(0.4))
        assert first.share == pytest.approx(0.8)

    def test_of_nothing(self):
        nothing = Recorded([], [], "step", 1)
        assert operators(nothing) == kernels(nothing) == []
        (other,) = shares(nothing)
        assert (other.component, other.share) == ("other", 0.0)
        assert where_the_time_goes([other], [], training=True) == "No time was recorded."

    def test_peak_by_hand(self):
        assert peak_of([]) == 0
        assert peak_of([5, 3, -4, 2, -6, 1]) == 8
        assert peak_of([-7, 2]) == 0

    def test_storages_count_once(self):
        whole = torch.zeros(10, dtype=torch.float32)
        assert bytes_of([whole, whole[:3], whole.view(2, 5), torch.zeros(1)]) == 44


class TestReading:
    def share(self, component, share, forward=0.0, backward=0.0):
        return Share(
            component=component,
            milliseconds=100 * share,
            share=share,
            forward=forward,
            backward=backward,
        )

    def test_by_hand(self):
        found = [
            self.share("output layer", 0.41, 15, 26),
            self.share("encoder", 0.3, 10, 20),
            self.share("decoder", 0.12, 4, 8),
            self.share("optimizer", 0.1, 10),
            self.share("attention", 0.03, 1, 2),
            self.share("other", 0.04, 4),
        ]
        row = Operator(
            name="aten::mm",
            shapes=None,
            calls=12,
            self_ms=45,
            total_ms=45,
            device_ms=None,
            share=0.45,
            memory_bytes=0,
        )
        assert where_the_time_goes(found, [row], training=True) == (
            "The output layer takes 41 % of the time, the encoder 30 %, the decoder 12 %, the "
            "optimizer 10 %. The forward pass takes 30 %, the backward pass 56 %, clipping and "
            "updates 10 %. Encoder and decoder, where the GRU layers are, take 42 %, attention "
            "3 %; a published profile of such a chatbot gives the GRU about 60 % of the training "
            "time, and attention about 15 %. The operator with the most time of its own is "
            "aten::mm: 45 % in 12 calls a step."
        )
        assert where_the_time_goes(found[:1], [row], training=False) == (
            "The output layer takes 41 % of the time. The operator with the most time of its own "
            "is aten::mm: 45 % in 12 calls a step."
        )


class TestTraining:
    def test_every_component_has_its_passes(self, teacher_forced_steps):
        check_passes(teacher_forced_steps, free_running=False)
        assert teacher_forced_steps.precision == "float32"
        assert teacher_forced_steps.notes == ["every step is teacher-forced"]

    def test_free_running_and_in_bf16(self, bot, tiny_data):
        found = profile_training(free(bot), tiny_data, steps=1, precision="bf16")
        check_passes(found, free_running=True)
        assert found.precision == "bfloat16"
        assert found.notes == ["every step is free-running"]

    def test_the_shares_add_up_to_the_whole(self, teacher_forced_steps):
        found = teacher_forced_steps
        assert sum(share.share for share in found.components) == pytest.approx(1)
        whole = sum(share.milliseconds for share in found.components)
        assert whole == pytest.approx(found.profiled_ms)
        for rows in (found.operators, found.by_shape):
            assert sum(row.self_ms for row in rows) == pytest.approx(found.profiled_ms)
            assert sum(row.share for row in rows) == pytest.approx(1)

    def test_a_planted_load_is_found_in_its_component(self, bot, tiny_data, monkeypatch):
        attend, load_ = model.seq2seq.attend, torch.randn(600, 600)

        def heavy(scores, keys, mask):
            for _ in range(5):
                load_ @ load_
            return attend(scores, keys, mask)

        monkeypatch.setattr(model.seq2seq, "attend", heavy)
        found = profile_training(bot, tiny_data, steps=1)
        first = found.components[0]
        assert first.component == "attention"
        assert first.share > 0.5
        assert first.forward > 5 * first.backward
        assert found.operators[0].name == "aten::mm"
        assert found.by_shape[0].shapes == "[600, 600] [600, 600]"
        assert found.reading.startswith("The attention takes ")

    def test_a_planted_tensor_is_found_in_the_peak(
        self, bot, tiny_data, teacher_forced_steps, monkeypatch
    ):
        attend = model.seq2seq.attend
        before = teacher_forced_steps.peak_bytes

        def roomy(scores, keys, mask):
            torch.empty(2**24)  # 64 MB, given back at once
            return attend(scores, keys, mask)

        monkeypatch.setattr(model.seq2seq, "attend", roomy)
        found = profile_training(bot, tiny_data, steps=1)
        assert found.peak_bytes > 2**26 > 10 * before
        weights = sum(p.numel() for p in bot.model.parameters())
        # Weights and the two moments of adam, and its counts of steps.
        assert 12 * weights <= found.resident_bytes <= 12 * weights + 4096

    def test_the_model_stays_as_it_is_and_counts_the_same_each_time(
        self, bot, tiny_data, teacher_forced_steps
    ):
        def counts(found):
            rows = {(row.name, row.shapes): row.calls for row in found.by_shape}
            return rows, found.resident_bytes, found.data, found.notes

        before = {k: v.clone() for k, v in bot.model.state_dict().items()}
        again = profile_training(bot, tiny_data, steps=2)
        assert counts(again) == counts(teacher_forced_steps)
        for name, weight in bot.model.state_dict().items():
            assert torch.equal(weight, before[name])

    def test_a_recorded_step_gives_way_to_the_plain_one(self, tiny_data, tiny_config):
        trainer = Trainer(tiny_data, tiny_config())
        plain = trainer._step
        trainer._step = RecordedTraining(plain, trainer.device)
        with _without_recorded_step(trainer):
            assert trainer._step is plain
        assert isinstance(trainer._step, RecordedTraining)


class TestInference:
    def test_components(self, bot, tiny_data):
        found = profile_inference(bot, tiny_data, batch_size=5, steps=1)
        by_name = {share.component: share for share in found.components}
        assert set(by_name) == {
            *("embedding", "encoder", "decoder", "attention", "output layer", "search", "other")
        }
        assert all(share.forward > 0 == share.backward for share in by_name.values())
        assert sum(share.share for share in by_name.values()) == pytest.approx(1)
        assert found.batch_size == 5
        assert found.peak_bytes > found.resident_bytes > 0

    def test_a_planted_load_is_found(self, bot, tiny_data, monkeypatch):
        linear, load_ = model.decoding.linear, torch.randn(500, 500)

        def heavy(inputs, weight, bias):
            if len(weight) == len(bot.vocabulary):
                load_ @ load_
            return linear(inputs, weight, bias)

        monkeypatch.setattr(model.decoding, "linear", heavy)
        found = profile_inference(bot, tiny_data, batch_size=4, steps=1)
        assert found.components[0].component == "output layer"
        assert found.components[0].share > 0.5

    def test_texts_are_real_sources_again_from_the_first(self, bot, tiny_data):
        held_out = len(tiny_data.examples["validation"])
        texts = source_texts(bot, tiny_data, held_out + 3)
        assert len(texts) == held_out + 3
        assert texts[held_out:] == texts[:3]
        assert all(" " in text for text in texts)

    def test_no_graphs_within_the_block(self):
        before = model.model_directory._LONGEST_RECORDED
        with _without_recorded_replies():
            assert model.model_directory._LONGEST_RECORDED == 0
        assert model.model_directory._LONGEST_RECORDED == before > 0


class TestNativeLog:
    def test_what_is_of_no_use_is_left_out_and_the_rest_passed_on(self, capfd):
        with native_log_filtered():
            os.write(2, b"[W1121 CPUAllocator.cpp:245] Memory block of unknown size was ...\n")
            os.write(2, b"a warning that matters\n")
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "a warning that matters\nafter\n"

    def test_after_an_error_too(self, capfd):
        with pytest.raises(ZeroDivisionError), native_log_filtered():
            os.write(2, b"before the end\n")
            1 / 0  # noqa: B018
        os.write(2, b"after\n")
        assert capfd.readouterr().err == "before the end\nafter\n"


class TestData:
    def test_a_prepared_data_set(self, bot, prepared, tiny_data):
        data, notes = model_data(bot, str(prepared))
        assert notes == []
        assert data.fingerprint == tiny_data.fingerprint

    def test_another_corpus_is_read_with_the_words_of_the_model(self, bot, tmp_path):
        file = tmp_path / "mine.txt"
        texts = ["\n".join(d.turns).replace("red", "mauve") for d in tiny_corpus().dialogues]
        file.write_text("\n\n".join(texts))
        data, _ = model_data(bot, str(file))
        assert data.vocabulary.words == bot.vocabulary.words
        assert (data.tokens == UNK).any()

    def test_without_its_own_the_embedded_corpus(self, bot):
        data, (note,) = model_data(bot)
        assert data.settings["corpus"] == "everyday"
        assert data.vocabulary.words == bot.vocabulary.words
        assert note.startswith("tiny, which the model was trained on, is not at hand;")
        assert len(data.examples["train"]) > 100  # a training step needs some


class TestCommand:
    def test_both(self, directory, prepared, tmp_path, capsys):
        json_file, trace = tmp_path / "p.json", tmp_path / "t.json.gz"
        status = run(
            *("profile", directory, "--data", prepared, "--device", "cpu", "--steps", "1"),
            *("--top", "3", "--json", json_file, "--trace", trace),
        )
        out = capsys.readouterr().out
        assert status == 0
        assert "Inference: " in out
        assert "Training step: " in out
        assert "note: every step is teacher-forced" in out
        assert "At their peak tensors hold " in out
        assert "operators by input shape (the first 3 of " in out
        assert "peak memory of this process: " in out
        assert f"wrote {tmp_path}/t-inference.json.gz (open it" in out
        profiles = json.loads(json_file.read_text(), parse_constant=pytest.fail)["profiles"]
        assert [p["mode"] for p in profiles] == ["inference", "training"]
        assert all(p["steps"] == p["threads"] == 1 for p in profiles)
        assert all(p["operators"] and p["by_shape"] and p["components"] for p in profiles)
        self.check_trace(tmp_path / "t-training.json.gz")
        assert not trace.exists()

    def check_trace(self, file):
        """Components, forward and backward, as the profiler saw them and on the added track."""
        trace = json.loads(gzip.decompress(file.read_bytes()))
        assert trace["traceName"] == file.name
        whole = [e for e in trace["traceEvents"] if e["ph"] == "X"]
        assert all(e["dur"] >= 0 and {"ts", "pid", "tid", "name"} <= set(e) for e in whole)
        names = {e["name"] for e in whole}
        wanted = {"embedding", "encoder", "decoder", "attention", "output layer", "loss"}
        assert {PREFIX + name for name in {*wanted, "optimizer", "batch"}} <= names
        track = [e for e in whole if e.get("cat") == "component"]
        assert {*wanted, *(f"{name} (backward)" for name in wanted), "optimizer"} <= {
            e["name"] for e in track
        }
        named = [e for e in trace["traceEvents"] if e["name"] == "thread_name"]
        assert "components" in {e["args"]["name"] for e in named}
        ours = sorted(e["ts"] for e in track if e["name"] == "optimizer")
        theirs = sorted(e["ts"] for e in whole if e["name"] == PREFIX + "optimizer")
        assert ours == pytest.approx(theirs, abs=1)  # microseconds

    def test_one_with_threads_that_are_put_back(self, directory, prepared, tmp_path, capsys):
        file = tmp_path / "t.json"
        status = run(
            *("profile", directory, "--data", prepared, "--device", "cpu", "--steps", "1"),
            *("--mode", "inference", "--threads", "2", "--trace", file, "--batch-size", "3"),
        )
        assert status == 0
        assert torch.get_num_threads() == 1
        assert json.loads(file.read_text())["traceEvents"]
        out = capsys.readouterr().out
        assert "batch 3, float32, cpu, CPU threads 2, data tiny" in out
        assert "Training step" not in out

    def test_ctrl_c_leaves_nothing(self, directory, prepared, tmp_path, monkeypatch, capfd):
        step, left = Trainer._train_one, [5]  # within the recorded steps

        def interrupted(self, interval):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            step(self, interval)

        monkeypatch.setattr(Trainer, "_train_one", interrupted)
        status = run(
            *("profile", directory, "--data", prepared, "--device", "cpu", "--steps", "1"),
            *("--mode", "training", "--json", tmp_path / "p.json", "--trace", tmp_path / "t.json"),
        )
        assert status == 130
        assert vars(Trainer)["_train_one"] is interrupted
        assert not torch.autograd._profiler_enabled()
        assert capfd.readouterr().err.endswith("\ninterrupted\n")
        assert list(tmp_path.iterdir()) == [prepared]

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--trace", "t.html"], "--trace: must end in .json or .json.gz, but is t.html."),
            (["--data", "nowhere.tsv"], "nowhere.tsv"),
            (["--data", "nowhere.safetensors"], "nowhere.safetensors: cannot be read"),
            (["--steps", "0"], "must be a whole number of at least 1, but got '0'"),
            (["--precision", "fp8"], "invalid choice: 'fp8'"),
        ],
    )
    def test_refusals(self, directory, tmp_path, monkeypatch, capsys, arguments, text):
        monkeypatch.chdir(tmp_path)
        before = sorted(tmp_path.iterdir())
        assert run("profile", directory, "--device", "cpu", *arguments) == 2
        assert text in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
    def test_a_gpu_that_is_not_there(self, directory, capsys):
        assert run("profile", directory, "--device", "cuda") == 2
        assert "device: is 'cuda', but there is no GPU." in capsys.readouterr().err

    def test_an_unknown_model(self, tmp_path, capsys):
        assert run("profile", "nobody", "--registry", tmp_path) == 2
        assert "nobody: unknown model" in capsys.readouterr().err


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnAGpu:
    def test_training_and_inference(self, directory, tiny_data):
        bot = load(directory, device="cuda")
        for found in (
            profile_training(bot, tiny_data, batch_size=8, steps=2),
            profile_inference(bot, tiny_data, batch_size=8, steps=2),
        ):
            assert found.kernels
            assert found.peak_bytes > 0
            assert sum(share.share for share in found.components) == pytest.approx(1)
            assert any("recorded CUDA graph" in note for note in found.notes)
            by_name = {share.component: share.share for share in found.components}
            assert by_name["encoder"] > 0
            assert by_name["other"] < 0.5

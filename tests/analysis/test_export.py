"""Exports: by hand, against the model's own decoding, and what is refused."""

import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from analysis.__main__ import main
from analysis.export import (
    ExportError,
    Parity,
    ParityError,
    Samples,
    build,
    export,
    exporting,
    load_exported,
    real_samples,
)
from analysis.export.agreement import Agreement, reference
from analysis.export.build import make_package_parts
from analysis.export.exporting import read_metadata
from analysis.export.greedy import packed_sizes
from analysis.export.packages import PackagedSearch, buckets, make_package, write_package
from analysis.export.parity import check_parity
from analysis.export.samples import pad
from model.config import Config, DataConfig
from model.decoding import Stepper, greedy
from model.errors import ConfigurationError, StorageError
from model.model_directory import DialogueModel, load, write_model_directory
from model.packing import Packing
from model.seq2seq import Seq2Seq
from model.training import Trainer
from model.vocabulary import EOS, PAD, UNK, Vocabulary

ROOT = Path(__file__).resolve().parents[2]
#: torch.export takes seconds for each unrolled encoder.
PACKAGE = pytest.param("torch-export", marks=pytest.mark.slow)
KINDS = ("torchscript", "text", "onnx", PACKAGE)
SMALL = {
    "hidden_size": 16,
    "batch_size": 16,
    "iterations": 60,
    "report_every": 60,
    "learning_rate": 0.01,
    "decoder_learning_ratio": 1.0,
    "device": "cpu",
}
#: Every attention score, more layers on one side than on the other, an embedding of another size.
ARCHITECTURES = {
    "dot": {"encoder_layers": 2, "decoder_layers": 2},
    "general": {"attention": "general", "encoder_layers": 1, "decoder_layers": 3},
    "concat": {"attention": "concat", "encoder_layers": 2, "decoder_layers": 1},
    "narrow": {"embedding_size": 6, "encoder_layers": 1, "decoder_layers": 1},
}


def make_model(directory, data, values):
    """Trains a small model and opens it as any other."""
    torch.set_num_threads(1)
    config = Config.from_mapping(SMALL | values)
    config = replace(config, data=DataConfig(**data.settings))
    trainer = Trainer(data, config)
    trainer.train_interval()
    written = write_model_directory(
        directory,
        weights=trainer.weights()["weights"],
        config=config,
        vocabulary=data.vocabulary,
        metrics={},
        lineage={"data_fingerprint": data.fingerprint},
    )
    return load(written, device="cpu")


@pytest.fixture(scope="module")
def models(tmp_path_factory, tiny_data):
    """The models of `ARCHITECTURES`, trained when first asked for."""
    made = {}
    home = tmp_path_factory.mktemp("models")

    def get(name="dot") -> DialogueModel:
        if name not in made:
            made[name] = make_model(home / name, tiny_data, ARCHITECTURES[name])
        return made[name]

    return get


@pytest.fixture(scope="module")
def samples(tiny_data):
    return real_samples_of(tiny_data)


@pytest.fixture(scope="module")
def written(models, samples, tmp_path_factory):
    """The model "dot" as a file of each kind, made when first asked for."""
    made, home = {}, tmp_path_factory.mktemp("exports")

    def get(kind):
        if kind not in made:
            made[kind] = export(models(), home / kind, kind=kind, samples=samples)
        return made[kind]

    return get


def real_samples_of(data, count=60):
    """Different sources of all lengths: beginnings of the real ones, EOS at the end."""
    found = {}
    for number, reply in enumerate(data.examples["train"][:, 1].tolist()):
        source = data.utterance(reply - 1).tolist()[:-1]
        found.setdefault((*source[: 1 + number % 9], EOS))
    return Samples([list(source) for source in found][:count], "the tiny corpus", count)


def by_hand(bias, max_length=4):
    """A model whose weights are all 0, so that the output's bias alone decides."""
    config = Config.from_mapping({"hidden_size": 3, "max_length": max_length})
    vocabulary = Vocabulary.from_list(["<pad>", "<sos>", "<eos>", "<unk>", "a", "b"])
    model = Seq2Seq(config.model, len(vocabulary)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
        model.output.bias.copy_(torch.tensor(bias))
    return DialogueModel(model, config, vocabulary, {}, {}, None)


SOURCE = torch.tensor([[4, 5, EOS], [5, EOS, PAD]])
LENGTHS = torch.tensor([3, 2])


class TestByHand:
    @pytest.mark.parametrize("form", ["script", "trace"])
    def test_the_best_word_that_may_be_said_with_its_log_probability(self, form):
        """PAD, SOS and UNK have higher scores and are never said; e^2 of e^1, e^2 and e^0."""
        search = build(by_hand([9.0, 8.0, 1.0, 7.0, 2.0, 0.0]), form=form)
        words, scores = search(SOURCE, LENGTHS, 4, False)
        assert words.tolist() == [[4] * 4] * 2
        expected = 2 - math.log(math.e + math.e**2 + 1)
        torch.testing.assert_close(scores, torch.full((2, 4), expected))

    def test_a_row_that_has_ended_is_padding(self):
        search = build(by_hand([0.0, 0.0, 5.0, 0.0, 1.0, 0.0]))
        words, scores = search(SOURCE, LENGTHS, 3, False)
        assert words.tolist() == [[EOS, PAD, PAD]] * 2
        assert scores[:, 1:].tolist() == [[0.0, 0.0]] * 2
        words, scores = search(SOURCE, LENGTHS, 3, True)
        assert words.tolist() == [[EOS]] * 2
        assert scores.shape == (2, 1)

    def test_sizes_of_packed_steps(self):
        assert packed_sizes([3, 2, 1, 0], 3) == [3, 3, 3]
        assert packed_sizes([20, 9, 1], 20) == [20, 20, 20]
        assert packed_sizes([64, 30, 2], 64) == [64, 56, 8]  # 128 positions

    def test_buckets(self):
        assert buckets(10) == [4, 8, 10]
        assert buckets(4) == [4]
        assert buckets(1000) == [4, 8, 16, 32]


def test_packed_sizes_are_those_of_training():
    generator = torch.Generator().manual_seed(0)
    for rows in (1, 7, 8, 33, 64):
        lengths = torch.randint(1, 12, (rows,), generator=generator)
        counts = (lengths > torch.arange(12).unsqueeze(1)).sum(dim=1).tolist()
        assert tuple(packed_sizes(counts, rows)) == Packing.tight(lengths).sizes


@pytest.fixture(scope="module")
def built(models):
    """The fp32 searches of `ARCHITECTURES`, built when first asked for."""
    made = {}

    def get(name, form):
        if (name, form) not in made:
            made[name, form] = build(models(name), form=form)
        return made[name, form]

    return get


@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize("name", ARCHITECTURES)
class TestAgainstTheModel:
    def test_words_and_scores(self, models, built, samples, name, form):
        model = models(name)
        search = built(name, form)
        stepper = Stepper(model.model)
        for source, lengths in samples.batches(13):
            expected = reference(model.model, stepper, source, lengths, 10)
            words, scores = search(source, lengths, 10, False)
            assert torch.equal(words, expected.words)
            real = expected.words != PAD
            torch.testing.assert_close(scores[real], expected.scores[real], atol=1e-5, rtol=0)

    def test_early_exit_gives_what_the_models_own_decoding_gives(
        self, models, built, samples, name, form
    ):
        model = models(name)
        search = built(name, form)
        lengths_seen = set()
        for source, lengths in samples.batches(13):
            expected = greedy(model.model, source, lengths, 10)
            assert torch.equal(search(source, lengths, 10, True)[0], expected)
            lengths_seen.add(expected.shape[1])
        assert lengths_seen != {10}  # or nothing ended early

    def test_following_the_models_replies_names_them(self, models, built, samples, name, form):
        search = built(name, form)
        source, lengths = next(samples.batches(30))
        words, scores = search(source, lengths, 6, False)
        followed, same = search.follow(source, lengths, words)
        real = words != PAD
        assert torch.equal(followed[real], words[real])
        torch.testing.assert_close(same[real], scores[real], atol=1e-5, rtol=0)


@pytest.fixture(scope="module")
def search(built):
    return built("dot", "script")


class TestTheModule:
    def test_a_row_does_not_depend_on_its_batch(self, models, samples, search):
        source, lengths = pad(samples.sources[:20])
        together, _ = search(source, lengths, 8, False)
        for row, one in enumerate(samples.sources[:20]):
            assert torch.equal(search(*pad([one]), 8, False)[0][0], together[row])

    def test_padding_beyond_the_longest_changes_nothing(self, samples, search):
        source, lengths = pad(samples.sources[:9])
        wider = torch.nn.functional.pad(source, (0, 5), value=PAD)
        for one, other in zip(
            search(wider, lengths, 8, True), search(source, lengths, 8, True), strict=True
        ):
            torch.testing.assert_close(one, other)

    def test_following_other_words_is_no_free_run(self, samples, search):
        source, lengths = pad(samples.sources[:9])
        replies = torch.full((9, 3), 5)
        words, _ = search.follow(source, lengths, replies)
        assert torch.equal(words[:, 0], search(source, lengths, 1, False)[0][:, 0])

    def test_weights_are_copied(self, models, samples, tiny_data, tmp_path):
        model = make_model(tmp_path / "own", tiny_data, ARCHITECTURES["narrow"])
        search = build(model)
        before = search(*pad(samples.sources[:5]), 5, False)[0]
        with torch.no_grad():
            model.model.output.weight.zero_()
        assert torch.equal(search(*pad(samples.sources[:5]), 5, False)[0], before)

    def test_nothing_records_gradients(self, samples, search):
        _, scores = search(*pad(samples.sources[:5]), 5, False)
        assert not scores.requires_grad

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"form": "scripted"}, "form: must be one of script, trace, but got 'scripted'"),
            ({"precision": "fp16"}, "precision: must be one of fp32, bf16, int8, but got 'fp16'"),
            ({"device": "tpu"}, "device: must be one of cpu, cuda, but got 'tpu'"),
        ],
    )
    def test_choices_that_there_are_not(self, models, choice, message):
        with pytest.raises(ConfigurationError, match=message):
            build(models(), **choice)

    @pytest.mark.skipif(torch.cuda.is_available(), reason="there is one")
    def test_a_device_that_is_not_here(self, models):
        with pytest.raises(ConfigurationError, match="there is no CUDA device here; use cpu"):
            build(models(), device="cuda")


@pytest.fixture(scope="module")
def wide(tiny_data, tmp_path_factory):
    """Of 16 units the headers of int8 layers outweigh what they save."""
    values = ARCHITECTURES["narrow"] | {"hidden_size": 96, "iterations": 20, "report_every": 20}
    return make_model(tmp_path_factory.mktemp("wide") / "wide", tiny_data, values)


@pytest.mark.parametrize("form", ["script", "trace"])
@pytest.mark.parametrize("precision", ["bf16", "int8"])
class TestRounding:
    def test_agrees_on_nearly_all_words_and_scores(self, models, samples, form, precision):
        search = build(models(), form=form, precision=precision)
        parity = check_parity(models(), search, samples, required=0.99)
        assert parity.agreement.next_word > 0.95
        assert 1e-6 < parity.largest_score_difference < 0.5  # it does round

    def test_is_smaller(self, wide, tmp_path, samples, form, precision):
        sizes = [
            export(
                wide, tmp_path / f"{kind}.pt", form=form, precision=kind, samples=samples, **agreed
            ).bytes
            for kind, agreed in (("fp32", {}), (precision, {"min_agreement": 0.5}))
        ]
        assert sizes[1] < 0.9 * sizes[0]


class TestExport:
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_that_opens_and_says_the_same(self, models, samples, written, kind):
        model, exported = models(), written(kind)
        assert exported.parity.passed
        assert exported.parity.agreement.replies == len(samples.sources)
        assert exported.bytes == exported.path.stat().st_size
        opened = load_exported(exported.path)
        if kind == "text":
            asked = ["do you like red or blue ?", "", "Do YOU like pink?"]
            assert opened(asked) == model.replies(asked)
            return
        source, lengths = pad(samples.sources[:20])
        expected = greedy(model.model, source, lengths, 10)
        words, scores = opened(source, lengths, 10, True)
        assert torch.equal(words, expected)
        assert scores.shape == words.shape
        assert (scores[words == PAD] == 0).all()

    @pytest.mark.parametrize("kind", KINDS)
    def test_what_a_file_says_of_itself(self, models, written, kind):
        exported = written(kind)
        found = read_metadata(exported.path.read_bytes())
        assert found["kind"] == kind
        assert found["precision"] == "fp32"
        assert found["model_sha256"] == models().manifest["manifest_sha256"]
        assert found["versions"]["torch"] == torch.__version__
        assert found["parity"] == exported.parity.to_mapping()

    @pytest.mark.parametrize("name", ARCHITECTURES)
    @pytest.mark.parametrize("kind", ["onnx", PACKAGE])
    def test_every_architecture(self, models, samples, written, tmp_path, name, kind):
        exported = (
            written(kind)
            if name == "dot"
            else export(models(name), tmp_path / "file", kind=kind, samples=samples)
        )
        assert exported.parity.agreement.equal_replies == 1
        assert exported.parity.largest_score_difference < 1e-4

    @pytest.mark.parametrize("kind", ["torchscript", "onnx", PACKAGE])
    def test_one_row(self, models, samples, written, kind):
        source, lengths = pad(samples.sources[:1])
        words, _ = load_exported(written(kind).path)(source, lengths, 10, True)
        assert torch.equal(words, greedy(models().model, source, lengths, 10))

    def test_onnx_needs_no_more_than_sources_and_lengths(self, models, samples, written):
        source, lengths = pad(samples.sources[:7])
        session = load_exported(written("onnx").path).session
        inputs = {"source": source.numpy(), "lengths": lengths.numpy()}
        words = torch.from_numpy(session.run(["words"], inputs)[0])
        assert torch.equal(words, greedy(models().model, source, lengths, 10))

    @pytest.mark.slow
    def test_a_package_refuses_longer_sources(self, written):
        search = load_exported(written("torch-export").path)
        with pytest.raises(ExportError, match="11 tokens is longer than .* widest encoder .10."):
            search(*pad([[4] * 10 + [EOS]]), 10, True)

    @pytest.mark.parametrize(
        ("choice", "message"),
        [
            ({"kind": "caffe"}, "kind: must be one of torchscript, text, onnx, torch-export"),
            ({"kind": "onnx", "precision": "int8"}, "precision: onnx is fp32, but got 'int8'"),
            ({"kind": "text", "form": "trace"}, "form: text has no 'trace'; leave it out"),
            (
                {"kind": "torch-export", "precision": "int8"},
                "torch-export is fp32 or bf16, but got 'int8'",
            ),
            (
                {"min_agreement": 0.5},
                "min_agreement: fp32 must agree on all but near ties, but got 0.5; leave it out",
            ),
        ],
    )
    def test_combinations_that_there_are_not(self, models, tmp_path, choice, message):
        with pytest.raises(ConfigurationError, match=message):
            export(models(), tmp_path / "file", **choice)
        assert list(tmp_path.iterdir()) == []

    def test_a_place_that_cannot_be_written(self, models, samples, tmp_path):
        with pytest.raises(StorageError, match="cannot be written"):
            export(models(), tmp_path, samples=samples)


def test_a_package_of_one_width(models):
    """The smallest that there is, for the default run."""
    model = models("narrow")
    encoder, step = make_package_parts(model, precision="fp32", device="cpu")
    search = PackagedSearch(write_package(make_package(encoder, step, 3, "cpu"), {}))
    assert list(search.encoders) == [3]
    source, lengths = pad([[4, 5, EOS], [6, EOS], [EOS]])
    expected = reference(model.model, Stepper(model.model), source, lengths, 5)
    words, scores = search(source, lengths, 5, False)
    assert torch.equal(words, expected.words)
    torch.testing.assert_close(scores[words != PAD], expected.scores[words != PAD])
    assert torch.equal(search.follow(source, lengths, words)[0][:, 0], words[:, 0])
    with pytest.raises(ExportError, match="4 tokens is longer than .* widest encoder .3."):
        search(*pad([[4] * 3 + [EOS]]), 5, True)


class TestRefusal:
    """What does not say what the model says is not written."""

    @pytest.mark.parametrize("kind", ["torchscript", "onnx"])
    def test_other_weights(self, models, samples, tmp_path, monkeypatch, tiny_data, kind):
        other = make_model(tmp_path / "other", tiny_data, ARCHITECTURES["dot"] | {"iterations": 2})
        builder = exporting._BUILDERS[kind]
        monkeypatch.setitem(
            exporting._BUILDERS, kind, lambda model, *choices: builder(other, *choices)
        )
        with pytest.raises(
            ParityError, match=r"does not say what the model says, so nothing was written: inputs"
        ):
            export(models(), tmp_path / "file", kind=kind, samples=samples)
        assert not (tmp_path / "file").exists()

    def test_too_little_agreement(self, models, samples, tmp_path, monkeypatch):
        """One word in twenty is another."""
        build_search = exporting.build

        def spoilt(*arguments, **choices):
            search = build_search(*arguments, **choices)
            search.step.output.bias[4] += 3
            return search

        monkeypatch.setattr(exporting, "build", spoilt)
        with pytest.raises(ParityError, match=r"required of next words 99.00%"):
            export(models(), tmp_path / "file", precision="bf16", samples=samples)
        made = export(
            models(), tmp_path / "file", precision="bf16", samples=samples, min_agreement=0.01
        )
        assert made.parity.agreement.next_word < 0.99

    def test_a_text_module_that_normalises_otherwise(self, models, samples, tmp_path, monkeypatch):
        from analysis.export import text

        monkeypatch.setattr(text, "beyond_ascii_table", lambda: {"é": "x"})
        with pytest.raises(ParityError, match="replies to texts that differ [1-9]"):
            export(models(), tmp_path / "file", kind="text", samples=samples)
        assert not (tmp_path / "file").exists()


class TestParity:
    def test_a_near_tie_excuses_fp32_and_is_counted(self):
        """Words a and b score alike: the model says a, and a search that says b passes."""
        model = by_hand([0.0, 0.0, 0.0, 0.0, 2.0, 2.0 - 5e-5])
        samples = Samples([[4, EOS], [5, 4, EOS]], "nowhere")
        other = build(by_hand([0.0, 0.0, 0.0, 0.0, 2.0 - 5e-5, 2.0]))
        parity = check_parity(model, other, samples, required=1)
        assert parity.passed
        found = parity.agreement
        assert parity.near_ties == found.words == found.tied_words == 8
        assert found.tied_replies == 2
        assert math.isnan(found.next_word)  # nothing but ties
        assert math.isnan(found.equal_replies)
        assert parity.to_mapping()["agreement"]["next_word"] is None

    def test_the_same_difference_beyond_a_near_tie_fails(self):
        model = by_hand([0.0, 0.0, 0.0, 0.0, 2.0, 2.0 - 5e-4])
        samples = Samples([[4, EOS], [5, 4, EOS]], "nowhere")
        other = build(by_hand([0.0, 0.0, 0.0, 0.0, 2.0 - 5e-4, 2.0]))
        parity = check_parity(model, other, samples, required=1)
        assert not parity.passed
        assert (parity.next_words_that_differ, parity.replies_that_differ) == (8, 2)
        assert (parity.agreement.next_word, parity.agreement.equal_replies) == (0, 0)
        with pytest.raises(ParityError, match="it: does not say .* replies that differ.* 2;"):
            parity.check("it")

    def test_a_reply_that_goes_on_differs(self):
        ends = by_hand([0.0, 0.0, 3.0, 0.0, 0.0, 0.0])
        goes_on = build(by_hand([0.0, 0.0, 0.0, 0.0, 3.0, 0.0]))
        samples = Samples([[4, EOS]], "nowhere")
        parity = check_parity(ends, goes_on, samples, required=1)
        found = parity.agreement
        assert (found.words, found.equal_replies, parity.replies_that_differ) == (1, 0.0, 1)

    def test_scores_that_are_no_numbers_fail(self):
        model = by_hand([0.0, 0.0, 0.0, 0.0, 2.0, 0.0])
        search = build(model)

        class Broken:
            def __call__(self, *inputs):
                return search(*inputs)

            def follow(self, *inputs):
                words, scores = search.follow(*inputs)
                return words, scores * math.nan

        parity = check_parity(model, Broken(), Samples([[4, EOS]], "nowhere"), required=1)
        assert math.isnan(parity.largest_score_difference)
        assert not parity.passed

    @pytest.mark.parametrize(
        ("share", "passes"), [(0.991, True), (0.99, True), (0.989, False), (math.nan, True)]
    )
    def test_rounding_is_judged_by_next_words_alone(self, share, passes):
        agreement = Agreement(
            replies=9,
            words=9,
            next_word=share,
            free_running=0.5,
            equal_replies=0.1,
            tied_words=0,
            tied_replies=0,
        )
        parity = Parity(
            origin="nowhere",
            agreement=agreement,
            near_ties=9,
            next_words_that_differ=9,
            replies_that_differ=9,
            largest_score_difference=1.0,
            required=0.99,
        )
        assert parity.passed == passes


class TestSamples:
    def test_held_out_sources_come_first_and_none_twice(self, models, tiny_data, tmp_path):
        tiny_data.save(tmp_path / "tiny.safetensors")
        found = real_samples(models(), str(tmp_path / "tiny.safetensors"), 5)
        assert len({tuple(source) for source in found.sources}) == 5
        first = tiny_data.examples["validation"][0, 1]
        assert found.sources[0] == tiny_data.utterance(first - 1).tolist()
        assert found.described().startswith("5 different sources of ")
        assert "(validation)" in found.described()

    def test_fewer_than_wanted_are_all_and_it_says_so(self, models, tiny_data, tmp_path):
        tiny_data.save(tmp_path / "tiny.safetensors")
        found = real_samples(models(), str(tmp_path / "tiny.safetensors"))
        assert len(found.sources) < 1000
        assert found.described().endswith("(all there are; 1000 were wanted)")
        assert "validation, test, train" in found.described()

    def test_without_the_models_own_data_the_embedded_corpus_is_taken(self, models):
        """The tiny corpus is no corpus that can be opened; most other words are unknown."""
        found = real_samples(models())
        assert len(found.sources) > 300
        assert found.origin.startswith("everyday (")

    def test_the_models_own_data_are_found_in_their_usual_places(
        self, models, tiny_data, tmp_path, monkeypatch
    ):
        monkeypatch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / "a.safetensors").write_bytes(b"of something else")
        tiny_data.save(tmp_path / "data" / "b.safetensors")
        found = real_samples(models(), count=3)
        assert found.origin == "data/b.safetensors, trained on (validation)"
        assert found.own
        assert found.note is None

    def test_few_inputs_and_other_data_are_warned_of(self):
        own = Samples([[4, EOS]], "data, trained on", 1, own=True)
        assert own.warnings() == ["compared on 1 input; a sure verdict takes 1,000."]
        assert Samples([[4, EOS]] * 1000, "data, trained on", own=True).warnings() == []
        foreign = Samples([[4, EOS]] * 1000, "others", note="mine are not at hand")
        (warning,) = foreign.warnings()
        assert warning == (
            "the inputs are not the data that the model was trained on (mine are not at hand)."
        )

    def test_short_ones_alone(self):
        samples = Samples([[4, EOS], [4, 5, EOS]], "nowhere", 2)
        assert samples.within(3) is samples
        assert samples.within(2).sources == [[4, EOS]]
        assert "nowhere, of at most 2 tokens" in samples.within(2).described()

    def test_words_are_the_models(self, models):
        """Of other corpora most are unknown."""
        found = real_samples(models(), count=50)
        assert any(UNK in source for source in found.sources)
        assert all(source[-1] == EOS for source in found.sources)


class TestReading:
    def test_what_is_not_an_export(self, tmp_path):
        (tmp_path / "x.pt").write_bytes(b"not a model")
        with pytest.raises(ExportError, match=r"x\.pt: is not an export of this project"):
            load_exported(tmp_path / "x.pt")

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_file_that_is_cut_off(self, written, tmp_path, kind):
        content = written(kind).path.read_bytes()
        path = tmp_path / "file"
        path.write_bytes(content[: -len(content) // 3])
        with pytest.raises(ExportError, match="is not an export|is damaged"):
            load_exported(path)

    def test_an_error_that_says_nothing(self, written, monkeypatch):
        def fail(*arguments):
            raise RuntimeError

        path = written("torchscript").path
        monkeypatch.setattr(exporting, "_load_torchscript", fail)
        with pytest.raises(ExportError, match=r"is damaged: RuntimeError\."):
            load_exported(path)

    def test_a_file_that_is_not_there(self, tmp_path):
        with pytest.raises(StorageError, match="cannot be read: no such file"):
            load_exported(tmp_path / "none.pt")

    def test_a_newer_format(self, models, samples, tmp_path, monkeypatch):
        monkeypatch.setattr(exporting, "FORMAT", 2)
        path = export(models(), tmp_path / "file", samples=samples).path
        monkeypatch.setattr(exporting, "FORMAT", 1)
        with pytest.raises(ExportError, match="has format 2, written by a newer version"):
            load_exported(path)


class TestCommandLine:
    def test_a_file_is_written_and_its_parity_printed(
        self, models, tmp_path, capsys, monkeypatch, tiny_data
    ):
        tiny_data.save(tmp_path / "tiny.safetensors")
        monkeypatch.chdir(tmp_path)
        assert main(["export", str(models().path), "--data", "tiny.safetensors"]) == 0
        said = capsys.readouterr().out
        assert "compared on" in said
        assert "equal replies" in said
        assert "wrote dot-script-fp32.pt" in said
        assert load_exported("dot-script-fp32.pt")

    def test_json_and_the_graph_in_a_file(self, models, tmp_path, capsys, tiny_data):
        tiny_data.save(tmp_path / "tiny.safetensors")
        out, graph = tmp_path / "x.pt", tmp_path / "graph.txt"
        command = ["export", str(models().path), "--data", str(tmp_path / "tiny.safetensors")]
        command += ["--method", "trace", "--out", str(out), "--graph", str(graph), "--json"]
        assert main(command) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["parity"]["passed"] is True
        assert found["bytes"] == out.stat().st_size
        assert graph.read_text().startswith("graph(")
        assert "aten::gru" in graph.read_text()
        assert ".py" not in graph.read_text()

    def test_the_graph_is_printed(self, models, tmp_path, capsys, tiny_data):
        tiny_data.save(tmp_path / "tiny.safetensors")
        command = ["export", str(models().path), "--data", str(tmp_path / "tiny.safetensors")]
        command += ["--kind", "onnx", "--out", str(tmp_path / "x"), "--graph", "-"]
        assert main(command) == 0
        assert "greedy_search (" in capsys.readouterr().out

    def test_few_inputs_of_other_data_are_written_with_a_warning(
        self, models, tmp_path, capsys, tiny_data
    ):
        command = ["export", str(models().path), "--out", str(tmp_path / "x"), "--inputs", "9"]
        assert main(command) == 0
        found = capsys.readouterr().err
        assert "warning: compared on 9 inputs; a sure verdict takes 1,000.\n" in found
        assert "warning: the inputs are not the data that the model was trained on (tiny," in found
        tiny_data.save(tmp_path / "tiny.safetensors")
        assert main([*command, "--data", str(tmp_path / "tiny.safetensors")]) == 0
        assert "not the data" not in capsys.readouterr().err

    @pytest.mark.parametrize("value", ["0", "1.5", "much"])
    def test_a_share_that_is_none(self, value, capsys):
        with pytest.raises(SystemExit):
            main(["export", "x", "--min-agreement", value])
        assert "must be above 0 and at most 1" in capsys.readouterr().err

    @pytest.mark.slow
    @pytest.mark.parametrize(
        "choice",
        [
            [],
            ["--precision", "bf16"],
            ["--precision", "int8"],
            ["--method", "trace"],
            ["--kind", "text"],
            ["--kind", "onnx"],
            ["--kind", "torch-export"],
        ],
        ids=lambda choice: "-".join(choice[1::2]) or "fp32",
    )
    def test_made_twice_is_the_same(self, models, tmp_path, tiny_data, choice):
        """In processes of their own: within one, TorchScript numbers its classes on."""
        tiny_data.save(tmp_path / "tiny.safetensors")
        made = []
        for name in ("a", "b"):
            command = [sys.executable, "-m", "analysis", "export", str(models().path), *choice]
            command += ["--data", str(tmp_path / "tiny.safetensors")]
            if "--precision" in choice:
                command += ["--min-agreement", "0.5"]
            subprocess.run([*command, "--out", str(tmp_path / name)], cwd=ROOT, check=True)
            made.append((tmp_path / name).read_bytes())
        assert made[0] == made[1]

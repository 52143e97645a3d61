"""Finding the data that a model was trained on: by fingerprint, in every usual place."""

import shutil
from dataclasses import replace

import pytest
import torch

from analysis.model_data import find_data
from model.config import Config, DataConfig
from model.data_source import open_or_prepare
from model.errors import CorpusError, PreparedDataError
from model.model_directory import DialogueModel
from model.seq2seq import Seq2Seq
from model.vocabulary import UNK
from tests.conftest import tiny_corpus


def model_of(data, **lineage):
    """A model that says that it was trained on the data."""
    config = Config.from_mapping({"hidden_size": 4, "encoder_layers": 1, "decoder_layers": 1})
    config = replace(config, data=DataConfig(**data.settings))
    seq2seq = Seq2Seq(config.model, len(data.vocabulary)).eval()
    manifest = {"lineage": {"data_fingerprint": data.fingerprint, **lineage}}
    return DialogueModel(seq2seq, config, data.vocabulary, {}, manifest, None)


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    return tmp_path


@pytest.fixture(scope="module")
def embedded():
    return open_or_prepare({"corpus": "everyday"})


class TestItsOwn:
    def test_among_prepared_data_whatever_the_file_is_called(self, home, tiny_data, embedded):
        (home / "data" / "a.safetensors").write_bytes(b"of something else")
        embedded.save(home / "data" / "b.safetensors")
        tiny_data.save(home / "data" / "c.safetensors")
        found = find_data(model_of(tiny_data))
        assert found.origin == "data/c.safetensors, trained on"
        assert (found.own, found.note) == (True, None)
        assert torch.equal(found.data.tokens, tiny_data.tokens)

    def test_in_its_experiment(self, home, tiny_data):
        (home / "runs" / "small").mkdir(parents=True)
        tiny_data.save(home / "runs" / "small" / "data.safetensors")
        found = find_data(model_of(tiny_data, experiment="small"))
        assert found.origin == "runs/small/data.safetensors, trained on"
        assert found.own

    def test_prepared_again(self, home, embedded):
        found = find_data(model_of(embedded))
        assert found.origin == "everyday, trained on"
        assert found.own
        assert found.data.fingerprint == embedded.fingerprint

    def test_named_by_its_user(self, home, tiny_data):
        tiny_data.save(home / "mine.safetensors")
        found = find_data(model_of(tiny_data), "mine.safetensors")
        assert found.origin == "mine.safetensors, trained on"
        assert found.own


class TestOthers:
    def test_a_file_that_only_claims_the_fingerprint_is_not_its_own(self, home, tiny_data):
        file = home / "data" / "a.safetensors"
        tiny_data.save(file)
        content = bytearray(file.read_bytes())
        content[-1] ^= 1  # a letter of the last word
        file.write_bytes(content)
        assert not find_data(model_of(tiny_data)).own

    def test_the_same_corpus_prepared_otherwise_is_not_its_own(self, home, embedded):
        """As after a change of what preparation does."""
        found = find_data(model_of(embedded, data_fingerprint="0" * 64))
        assert not found.own
        assert found.origin == "everyday"
        assert found.note.startswith("everyday, which the model was trained on, is not at hand;")

    def test_a_model_that_does_not_know_its_data(self, home, tiny_data):
        tiny_data.save(home / "data" / "a.safetensors")
        assert not find_data(model_of(tiny_data, data_fingerprint=None)).own

    @pytest.mark.parametrize("training", [False, True])
    def test_the_embedded_corpus_in_the_words_of_the_model(self, home, tiny_data, training):
        found = find_data(model_of(tiny_data), training=training)
        assert found.note == (
            "tiny, which the model was trained on, is not at hand; the embedded corpus stands in "
            "for it, whose words the model may not know; name data with --data"
        )
        assert found.data.vocabulary.words == tiny_data.vocabulary.words
        assert (found.data.tokens == UNK).any()
        assert bool(len(found.data.examples["train"])) is training

    def test_a_corpus_that_was_named_needs_no_note(self, home, tiny_data):
        turns = ["\n".join(d.turns) for d in tiny_corpus(2).dialogues]  # too few to be split
        (home / "two.txt").write_text("\n\n".join(turns))
        found = find_data(model_of(tiny_data), "two.txt")
        assert (found.origin, found.own, found.note) == ("two.txt", False, None)
        assert len(found.data.examples["test"]) == 4

    def test_what_was_named_and_is_not_there(self, home, tiny_data):
        with pytest.raises(CorpusError, match=r"nowhere\.tsv"):
            find_data(model_of(tiny_data), "nowhere.tsv")
        shutil.copy(__file__, "x.safetensors")
        with pytest.raises(PreparedDataError, match=r"x\.safetensors"):
            find_data(model_of(tiny_data), "x.safetensors")

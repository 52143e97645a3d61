"""Model directories: sealed, whole or not at all, found by name; and what a model replies."""

import errno
import hashlib
import json
import multiprocessing
import os
import shutil

import pytest
import torch

import model
from model.checkpoint import write_checkpoint
from model.decoding import greedy
from model.errors import ModelDirectoryError, StorageError
from model.model_directory import (
    FORMAT,
    MANIFEST,
    canonical_json,
    load,
    read_aliases,
    resolve,
    split_reference,
    valid_name,
    verify,
    versions,
    write_model_directory,
)
from model.text import normalise
from model.training import Trainer
from model.vocabulary import EOS, SPECIALS

FILES = ("weights.pt", "config.json", "vocabulary.json", "metrics.json", MANIFEST)


@pytest.fixture(scope="module")
def trained(tiny_data):
    """A model that has learnt the tiny corpus a little."""
    from model.config import Config

    torch.set_num_threads(1)
    config = Config.from_mapping(
        {
            "hidden_size": 16,
            "batch_size": 16,
            "iterations": 80,
            "report_every": 80,
            "learning_rate": 5e-3,
            "device": "cpu",
            "corpus": "tiny",
            "max_length": 10,
        }
    )
    trainer = Trainer(tiny_data, config)
    trainer.train_interval()
    return trainer


@pytest.fixture(scope="module")
def contents(trained, tiny_data):
    return {
        "weights": trained.model.state_dict(),
        "config": trained.config,
        "vocabulary": tiny_data.vocabulary,
        "metrics": {"val_loss": 1.2345678901234567, "examples": 3, "note": "é", "none": None},
        "lineage": {"trial": 3, "commit": None, "best_val_loss": 1.2345678901234567},
    }


@pytest.fixture(scope="module")
def original(tmp_path_factory, contents):
    return write_model_directory(tmp_path_factory.mktemp("models") / "m", **contents)


@pytest.fixture
def directory(tmp_path, original):
    """A copy that a test may damage."""
    return shutil.copytree(original, tmp_path / "m")


def reseal(directory):
    """Makes a manifest that fits the files, as somebody with bad intentions would."""
    manifest = json.loads((directory / MANIFEST).read_bytes())
    del manifest["manifest_sha256"]
    for name in manifest["files"]:
        if (directory / name).exists():
            manifest["files"][name] = hashlib.sha256((directory / name).read_bytes()).hexdigest()
    seal(directory, manifest)


def seal(directory, manifest):
    manifest["manifest_sha256"] = hashlib.sha256(canonical_json(manifest)).hexdigest()
    (directory / MANIFEST).write_bytes(canonical_json(manifest))


class TestRoundTrip:
    def test_everything_is_read_back(self, original, trained, contents):
        loaded = load(original)
        assert loaded.config == contents["config"]
        assert loaded.vocabulary == contents["vocabulary"]
        assert loaded.metrics == contents["metrics"]
        assert loaded.manifest["lineage"] == contents["lineage"]
        assert loaded.path == original
        assert not loaded.model.training
        for name, weight in contents["weights"].items():
            assert torch.equal(loaded.model.state_dict()[name], weight)

    def test_holds_exactly_these_files_and_a_digest_of_each(self, original):
        assert {p.name for p in original.iterdir()} == set(FILES)
        manifest = verify(original)
        assert manifest["format"] == FORMAT
        assert set(manifest["files"]) == set(FILES) - {MANIFEST}
        for name, digest in manifest["files"].items():
            assert hashlib.sha256((original / name).read_bytes()).hexdigest() == digest

    def test_the_package_loads_by_itself(self, original):
        assert model.load(original).reply("do you like red green or blue?")
        assert model.DialogueModel is type(model.load(str(original)))
        with pytest.raises(AttributeError, match="no attribute 'lode'"):
            model.lode  # noqa: B018


class TestReplies:
    def test_unknown_words_are_no_crash_and_are_never_said(self, original):
        bot = load(original)
        replies = bot.replies(["zebras quux!", "do you like red green or blue ?", "ｈｉ 你好 🙂"])
        assert all(isinstance(reply, str) for reply in replies)
        assert not any(special in reply for reply in replies for special in SPECIALS)

    @pytest.mark.parametrize("text", ["", " ", "123", "你好", "\n", "\x00"])
    def test_nothing_that_can_be_read_gives_nothing(self, original, text):
        assert normalise(text) == ""
        assert load(original).reply(text) == ""

    def test_a_batch_answers_as_one_by_one_and_keeps_its_order(self, original):
        bot = load(original)
        texts = ["do you like red green or blue ?", "", "red", "do you like pink grey or white"]
        assert bot.replies(texts) == [bot.reply(text) for text in texts]
        assert bot.replies([]) == []

    def test_sizes_share_a_few_graphs_that_reply_alike(self, original):
        """What a GPU does; here its functions run anew at each call."""
        bot = load(original)
        source = torch.tensor([[*bot.vocabulary.encode("do you like red or blue ?"), EOS]] * 3)
        lengths = torch.full((3,), source.shape[1])
        recorded = bot._recorded(3, 7)
        assert bot._recorded(4, 16) is recorded
        assert bot._recorded(5, 16) is not recorded
        assert torch.equal(recorded(source, 10), greedy(bot.model, source, lengths, 10))

    def test_a_reply_has_at_most_max_length_words(self, original):
        bot = load(original)
        with torch.no_grad():
            bot.model.output.bias.zero_()
            bot.model.output.bias[bot.vocabulary.encode("nice")] = 1e4
        assert bot.reply("hello").split() == ["nice"] * bot.config.data.max_length

    def test_a_very_long_text_is_read(self, original):
        assert isinstance(load(original).reply("red " * 3000), str)


class TestDamage:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("place", [0.0, 0.5, 1.0])
    def test_a_flipped_bit_is_found_in_every_file(self, directory, name, place):
        content = bytearray((directory / name).read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        (directory / name).write_bytes(content)
        with pytest.raises(ModelDirectoryError, match=f"{name}.*(was changed after|is damaged)"):
            load(directory)

    def test_every_byte_of_the_manifest_counts(self, directory):
        """Every byte with one bit flipped; and each mark, which turns 1.2345 into 1e2345."""
        file = directory / MANIFEST
        content = file.read_bytes()
        for place, byte in enumerate(content):
            for other in [byte ^ 1, *(b'0e "' if byte == ord(".") else b"")]:
                file.write_bytes(content[:place] + bytes([other]) + content[place + 1 :])
                with pytest.raises(ModelDirectoryError, match=MANIFEST):
                    verify(directory)

    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("size", [0, 20])
    def test_a_truncated_file_is_found(self, directory, name, size):
        os.truncate(directory / name, size)
        with pytest.raises(ModelDirectoryError, match=f"{name}.*(was changed after|is damaged)"):
            load(directory)

    def test_appended_bytes_are_found(self, directory):
        for name in FILES:
            with (directory / name).open("ab") as file:
                file.write(b" ")
        with pytest.raises(ModelDirectoryError, match="manifest.json: was changed after"):
            load(directory)

    def test_every_missing_file_is_named(self, directory):
        (directory / "weights.pt").unlink()
        (directory / "config.json").unlink()
        (directory / "metrics.json").write_bytes(b"{}")
        with pytest.raises(ModelDirectoryError) as caught:
            load(directory)
        assert str(caught.value) == (
            f"{directory}: config.json is missing; "
            "metrics.json was changed after the model was written; weights.pt is missing."
        )

    def test_a_newer_format_is_refused(self, directory):
        manifest = json.loads((directory / MANIFEST).read_bytes())
        seal(directory, manifest | {"format": FORMAT + 1})
        with pytest.raises(ModelDirectoryError, match="has format 2, written by a newer version"):
            load(directory)

    @pytest.mark.parametrize(
        ("manifest", "text"),
        [
            (b"[]", "is not a manifest of this project"),
            (b"{}", "is not a manifest of this project"),
            (b'{"format": "1"}', "is not a manifest of this project"),
            (b"{", "is damaged: not JSON"),
            (b"\xff\xfe", "is damaged: not JSON"),
            (b"[" * 100_000, "is damaged: not JSON"),
            (b'{"format": 1, "x": NaN}', "was changed after"),
            (b'{"format": 1}', "was changed after"),
        ],
    )
    def test_a_foreign_manifest_is_refused(self, directory, manifest, text):
        (directory / MANIFEST).write_bytes(manifest)
        with pytest.raises(ModelDirectoryError, match=f"manifest.json: {text}"):
            load(directory)

    @pytest.mark.parametrize("files", [None, [], {}, {"weights.pt": 3}, {"../m/weights.pt": "0"}])
    def test_a_sealed_manifest_that_names_other_files_is_refused(self, directory, files):
        manifest = json.loads((directory / MANIFEST).read_bytes())
        del manifest["manifest_sha256"]
        seal(directory, manifest | {"files": files})
        with pytest.raises(ModelDirectoryError, match="manifest.json: does not name the files"):
            load(directory)

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("config.json", b'{"hidden_siz": 3}'),
            ("config.json", b"[]"),
            ("config.json", b"{"),
            ("vocabulary.json", b'["a"]'),
            ("vocabulary.json", b"3"),
            ("weights.pt", b"none"),
            ("metrics.json", b"\xff"),
        ],
    )
    def test_sealed_files_that_make_no_sense_are_refused(self, directory, name, content):
        (directory / name).write_bytes(content)
        reseal(directory)
        with pytest.raises(ModelDirectoryError, match="cannot be loaded: "):
            load(directory)

    def test_weights_of_another_model_are_refused(self, directory, contents):
        (directory / "config.json").write_bytes(
            canonical_json(contents["config"].to_mapping() | {"hidden_size": 8})
        )
        reseal(directory)
        with pytest.raises(ModelDirectoryError, match="(?s)cannot be loaded: .*size mismatch"):
            load(directory)

    def test_code_in_the_weights_is_never_run(self, directory):
        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(directory / "boom"),))

        write_checkpoint(directory / "weights.pt", {"weights": {"bomb": Bomb()}})
        reseal(directory)
        with pytest.raises(ModelDirectoryError, match="weights.pt: cannot be loaded"):
            load(directory)
        assert not (directory / "boom").exists()

    def test_a_device_that_is_not_there_is_refused(self, original, monkeypatch):
        from model.errors import ConfigurationError

        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(ConfigurationError, match="there is no GPU"):
            load(original, device="cuda")


class TestWriting:
    def test_never_overwrites(self, directory, contents):
        before = {p.name: p.read_bytes() for p in directory.iterdir()}
        with pytest.raises(ModelDirectoryError, match="exists already; versions are never overwr"):
            write_model_directory(directory, **contents)
        assert {p.name: p.read_bytes() for p in directory.iterdir()} == before

    @pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
    @pytest.mark.parametrize("call", range(5))
    def test_a_failing_write_leaves_nothing(self, tmp_path, contents, monkeypatch, call, code):
        """Each of the five files in turn cannot be written."""
        calls, replace = [], os.replace

        def failing(*arguments):
            calls.append(arguments)
            if len(calls) == call + 1:
                raise OSError(code, os.strerror(code))
            replace(*arguments)

        monkeypatch.setattr(os, "replace", failing)
        with pytest.raises(StorageError, match="no space is left|file system is read-only"):
            write_model_directory(tmp_path / "m", **contents)
        assert list(tmp_path.iterdir()) == []

    def test_a_metric_that_json_cannot_hold_leaves_nothing(self, tmp_path, contents):
        with pytest.raises(ValueError, match="JSON compliant"):
            write_model_directory(
                tmp_path / "m", **(contents | {"metrics": {"val_loss": float("nan")}})
            )
        assert list(tmp_path.iterdir()) == []

    def test_is_never_seen_half_written(self, tmp_path, contents, monkeypatch):
        """While any file is written, there is no directory of that name."""
        seen, replace = [], os.replace

        def watching(*arguments):
            seen.append((tmp_path / "m").exists())
            replace(*arguments)

        monkeypatch.setattr(os, "replace", watching)
        write_model_directory(tmp_path / "m", **contents)
        assert seen == [False] * len(FILES)

    def test_killed_while_writing_leaves_no_version(self, tmp_path, contents):
        """The process dies at once, with no handler run, at each of the five files."""

        def die_at(call):
            torch.set_num_threads(1)
            calls, replace = [], os.replace

            def dying(*arguments):
                calls.append(arguments)
                if len(calls) == call:
                    os._exit(9)
                replace(*arguments)

            os.replace = dying
            write_model_directory(tmp_path / "1", **contents)

        for call in range(1, len(FILES) + 1):
            process = multiprocessing.get_context("fork").Process(target=die_at, args=(call,))
            process.start()
            process.join()
            assert process.exitcode == 9
            assert not (tmp_path / "1").exists()
            assert versions(tmp_path) == []
        assert load(write_model_directory(tmp_path / "1", **contents)).metrics

    def test_a_rival_that_was_quicker_is_not_overwritten(
        self, tmp_path, original, contents, monkeypatch
    ):
        """Another process takes the name after we looked and before we are done."""
        from model import model_directory

        seal_files = model_directory._manifest

        def slow(*arguments):
            shutil.copytree(original, tmp_path / "m")
            return seal_files(*arguments)

        monkeypatch.setattr(model_directory, "_manifest", slow)
        with pytest.raises(ModelDirectoryError, match="m: exists already"):
            write_model_directory(tmp_path / "m", **contents)
        assert [p.name for p in tmp_path.iterdir()] == ["m"]
        assert verify(tmp_path / "m") == verify(original)

    def test_a_file_in_place_of_the_parent_is_refused(self, tmp_path, contents):
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="a part of the path is a file"):
            write_model_directory(tmp_path / "file" / "m", **contents)


@pytest.fixture(scope="module")
def registry(tmp_path_factory, original):
    registry = tmp_path_factory.mktemp("registry")
    for version in ("1", "2", "10"):
        shutil.copytree(original, registry / "everyday" / version)
    aliases = {"format": 1, "aliases": {"production": 2, "best-of.all": 10}}
    (registry / "everyday" / "aliases.json").write_text(json.dumps(aliases))
    (registry / "empty").mkdir()
    return registry


class TestReferences:
    @pytest.mark.parametrize(
        ("reference", "version"),
        [
            ("everyday", "2"),
            ("everyday@production", "2"),
            ("everyday@best-of.all", "10"),
            ("everyday:1", "1"),
            ("everyday:10", "10"),
            ("everyday:010", "10"),
        ],
    )
    def test_names(self, registry, reference, version):
        assert resolve(reference, registry) == registry / "everyday" / version
        assert load(reference, registry).path == registry / "everyday" / version

    def test_a_path_wins_over_a_name(self, registry, original, monkeypatch):
        monkeypatch.chdir(original.parent)
        assert resolve(original.name, registry) == original.relative_to(original.parent)
        assert resolve(str(original), registry) == original

    def test_versions_are_numbers_in_order(self, registry):
        assert versions(registry / "everyday") == [1, 2, 10]

    @pytest.mark.parametrize(
        ("reference", "text"),
        [
            ("evryday", r"evryday: unknown model, did you mean 'everyday'\?"),
            ("zzz", r"zzz: unknown model; valid: empty, everyday\."),
            ("everyday@prodction", r"no alias 'prodction', did you mean 'production'\?"),
            ("everyday@x", r"no alias 'x'; valid: best-of.all, production\."),
            ("everyday:3", r"everyday has no version 3; it has 1, 2, 10\."),
            ("empty", r"empty has no alias 'production'\."),
            ("empty:1", r"empty has no version 1; it has none\."),
            ("./everyday", r"./everyday: is not a model directory: no manifest.json in it\."),
            ("runs/x/model", r"is not a model directory: no manifest.json in it\."),
            ("everyday:1:2", r"is not a model directory"),
            ("everyday:٣", r"is not a model directory"),
            ("", r"is not a model directory"),
            ("a\x00b", r"is not a model directory"),
            ("a" * 200, r"unknown model"),
            ("a" * 5000, r"is not a model directory"),
            ("a/" + "b" * 300, r"is not a model directory"),
        ],
    )
    def test_unknown_ones_say_what_there_is(self, registry, tmp_path, monkeypatch, reference, text):
        monkeypatch.chdir(tmp_path)
        with pytest.raises(ModelDirectoryError, match=text):
            resolve(reference, registry)

    def test_a_registry_that_is_not_there(self, tmp_path):
        with pytest.raises(ModelDirectoryError, match="unknown model; .*none has no models yet"):
            load("everyday", tmp_path / "none")

    def test_a_directory_that_is_no_model(self, tmp_path):
        with pytest.raises(ModelDirectoryError, match=r"is not a model directory: no manifest"):
            load(tmp_path)

    @pytest.mark.parametrize(
        "content",
        [
            *("{", "[]", "{}"),
            '{"format": 1, "aliases": 3}',
            '{"format": "x", "aliases": 3}',
            '{"format": "x", "aliases": {}}',
            '{"format": 1, "aliases": {"production": "../2"}}',
        ],
    )
    def test_damaged_aliases_are_refused(self, tmp_path, content):
        (tmp_path / "aliases.json").write_text(content)
        with pytest.raises(ModelDirectoryError, match=r"aliases.json: is damaged\."):
            read_aliases(tmp_path)

    def test_newer_aliases_are_refused(self, tmp_path):
        (tmp_path / "aliases.json").write_text('{"format": 3, "aliases": {}}')
        with pytest.raises(ModelDirectoryError, match="has format 3, written by a newer version"):
            read_aliases(tmp_path)

    def test_split_reference(self):
        assert split_reference("a") == ("a", "production", None)
        assert split_reference("a@b") == ("a", "b", None)
        assert split_reference("a:7") == ("a", "production", 7)
        assert split_reference("a/b") == ("", "", None)

    def test_valid_names(self):
        assert all(map(valid_name, ("a", "A-1", "v1.2_x", "a" * 200)))
        assert not any(
            map(valid_name, ("", ".", "..", ".a", "-a", "a/b", "a b", "a@b", "é", "a\n", "a" * 201))
        )

"""Promotion: immutable versions whose figures are true, aliases, rivals, full disks."""

import errno
import json
import multiprocessing
import os
import shutil
from pathlib import Path

import pytest
import torch

from analysis import Results, promote
from analysis.promotion.aliases import read_history, roll_back, set_alias
from model.batching import Batches
from model.checkpoint import read_checkpoint, write_checkpoint
from model.errors import (
    CheckpointError,
    ExperimentError,
    ModelDirectoryError,
    PreparedDataError,
    StorageError,
)
from model.evaluation import evaluate
from model.model_directory import load, read_aliases, resolve, verify, versions
from model.training_run import evaluate_on
from tests.analysis.conftest import drive, make_experiment, proposed, reported
from tuning.trials.trial_files import best_file

FILES = ("weights.pt", "config.json", "vocabulary.json", "metrics.json", "manifest.json")
FORK = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def results(finished):
    return Results.open(finished.path)


@pytest.fixture(scope="module")
def promoted(results, tmp_path_factory):
    """The first version of a model in a registry; tests that change it take `version`."""
    torch.set_num_threads(1)
    return promote(results, "small", registry=tmp_path_factory.mktemp("registry"))


@pytest.fixture
def registry(promoted, tmp_path):
    shutil.copytree(promoted.parents[1], tmp_path / "registry")
    return tmp_path / "registry"


@pytest.fixture
def version(registry):
    return registry / "small" / "1"


def contents(directory):
    return {p: p.read_bytes() for p in directory.rglob("*") if p.is_file()}


class TestPromote:
    def test_figures_are_those_of_the_whole_splits(self, results, promoted):
        """The reports of the search used ten validation examples; promotion uses all."""
        bot, data = load(promoted), results.experiment.data()
        validation = evaluate(bot.model, Batches(data, "validation"))
        test = evaluate(bot.model, Batches(data, "test"))
        assert bot.metrics == {
            "val_loss": validation.loss,
            "val_perplexity": validation.perplexity,
            "val_token_accuracy": validation.token_accuracy,
            "val_examples": len(data.examples["validation"]),
            "test_loss": test.loss,
            "test_perplexity": test.perplexity,
            "test_token_accuracy": test.token_accuracy,
            "test_examples": len(data.examples["test"]),
            "unigram_val_loss": results.experiment.manifest["data"]["unigram_val_loss"],
        }
        assert len(data.examples["validation"]) > 10
        assert validation.loss != results.best()["val_loss"]
        reported_on = Batches(data, "validation").subset(10)
        assert evaluate(bot.model, Batches(data, "validation"), reported_on).loss == pytest.approx(
            results.best()["val_loss"], rel=1e-6
        )

    def test_weights_are_those_of_the_best_trial(self, results, promoted):
        best = results.best()
        state = read_checkpoint(best_file(results.experiment.path, best["trial"]))
        for name, weight in load(promoted).model.state_dict().items():
            assert torch.equal(weight, state["weights"][name])

    def test_lineage_leads_back_to_trial_data_and_commit(self, results, promoted):
        manifest, best = results.experiment.manifest, results.best()
        assert verify(promoted)["lineage"] == {
            "experiment": "small",
            "trial": int(best["trial"]),
            "iteration": int(best["best_iteration"]),
            "best_val_loss": best["val_loss"],
            "data_fingerprint": manifest["data"]["fingerprint"],
            "commit": manifest["commit"],
            "versions": manifest["versions"],
            "sweep_file": "small.yaml",
            "test_seen_by_versions": [],
        }

    def test_the_configuration_is_that_of_trial_and_data(self, results, promoted):
        """The sweep says nothing of the data fields, the data set was not made with defaults."""
        config, best = load(promoted).config.to_mapping(), results.best()
        data = results.experiment.data()
        for name in ("learning_rate", "hidden_size", "iterations"):
            assert config[name] == best[name]
        assert {name: config[name] for name in data.settings} == data.settings
        assert config["min_count"] == 1

    def test_what_was_promoted_can_be_evaluated_and_talked_to(self, promoted, finished):
        bot = load(promoted)
        figures = evaluate_on(bot, str(finished.path / "data.safetensors"), "validation")
        assert figures["loss"] == pytest.approx(bot.metrics["val_loss"], rel=1e-6)
        assert figures["unknown_words"] == 0
        assert bot.reply("do you like red green or blue ?")

    def test_a_chosen_trial(self, results, registry):
        directory = promote(results, "small", trial=2, registry=registry, alias="candidate")
        assert verify(directory)["lineage"]["trial"] == 2
        assert directory == registry / "small" / "2"

    def test_the_name_is_the_experiments_and_a_directory_will_do(self, finished, tmp_path):
        directory = promote(finished.path, registry=tmp_path)
        assert directory == tmp_path / "small" / "1"
        assert promote(str(finished.path), registry=str(tmp_path)).name == "2"

    def test_the_same_again_is_the_next_version_and_the_first_stays(self, results, registry):
        before = contents(registry / "small" / "1")
        directory = promote(results, "small", registry=registry)
        assert directory.name == "2"
        assert contents(registry / "small" / "1") == before
        assert versions(registry / "small") == [1, 2]

    def test_a_version_number_is_not_given_twice(self, results, registry):
        """Not while a higher one is there."""
        promote(results, "small", registry=registry)
        shutil.rmtree(registry / "small" / "1")
        assert promote(results, "small", registry=registry).name == "3"


class TestAliases:
    def test_production_moves_to_the_new_version(self, results, registry):
        assert load("small", registry).path == registry / "small" / "1"
        promote(results, "small", registry=registry)
        assert load("small", registry).path == registry / "small" / "2"
        assert load("small:1", registry).path == registry / "small" / "1"

    def test_another_alias_leaves_production_where_it_is(self, results, registry):
        promote(results, "small", registry=registry, alias="candidate")
        assert read_aliases(registry / "small") == {"production": 1, "candidate": 2}
        assert load("small@candidate", registry).path.name == "2"
        assert load("small@production", registry).path.name == "1"

    def test_moving_back(self, results, registry):
        promote(results, "small", registry=registry)
        set_alias(registry / "small", "production", 1)
        assert load("small", registry).path.name == "1"

    def test_a_version_that_is_not_there(self, registry):
        with pytest.raises(ModelDirectoryError, match="small: has no version 7"):
            set_alias(registry / "small", "production", 7)

    @pytest.mark.parametrize(
        ("reference", "text"),
        [
            ("smal", "unknown model, did you mean 'small'"),
            ("small@productoin", "no alias 'productoin', did you mean 'production'"),
            ("small:2", r"small has no version 2; it has 1\."),
        ],
    )
    def test_unknown_ones(self, registry, reference, text):
        with pytest.raises(ModelDirectoryError, match=text):
            load(reference, registry)

    def test_a_path(self, version, monkeypatch):
        monkeypatch.chdir(version.parent)
        assert load("1").path == Path("1")
        assert load(version).path == version

    def test_two_processes_lose_none(self, registry):
        """Each process sets its own aliases, over and over."""

        def set_many(name):
            for i in range(10):
                set_alias(registry / "small", f"{name}{i}", 1)

        processes = [FORK.Process(target=set_many, args=(name,)) for name in "abc"]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert len(read_aliases(registry / "small")) == 31
        assert sorted(p.name for p in (registry / "small").iterdir()) == ["1", "aliases.json"]


class TestSealed:
    @pytest.mark.parametrize("name", FILES)
    @pytest.mark.parametrize("place", [0.0, 0.25, 0.75, 1.0])
    def test_a_flipped_byte_in_any_file_is_found(self, version, registry, name, place):
        content = bytearray((version / name).read_bytes())
        content[int(place * (len(content) - 1))] ^= 0x10
        (version / name).write_bytes(content)
        with pytest.raises(ModelDirectoryError, match=f"{name}.*(was changed after|is damaged)"):
            load("small", registry)

    def test_code_in_a_trials_weights_is_never_run(self, experiment, tmp_path):
        class Bomb:
            def __reduce__(self):
                return (os.mkdir, (str(tmp_path / "boom"),))

        trial = int(Results.open(experiment.path).best()["trial"])
        write_checkpoint(best_file(experiment.path, trial), {"weights": Bomb(), "config": {}})
        with pytest.raises(CheckpointError, match="best.pt: cannot be loaded"):
            promote(experiment.path, registry=tmp_path / "registry")
        assert not (tmp_path / "boom").exists()
        assert not (tmp_path / "registry").exists()


class TestRefusals:
    def refused(self, tmp_path, error, text, *arguments, **keywords):
        with pytest.raises(error, match=text):
            promote(*arguments, registry=tmp_path / "registry", **keywords)
        assert not (tmp_path / "registry").exists()

    @pytest.mark.parametrize("name", ["a/b", "..", "a b", "a@b", "a:1", "-a"])
    def test_a_name_that_cannot_be_one(self, results, tmp_path, name):
        self.refused(tmp_path, ModelDirectoryError, "cannot name a model", results, name)
        self.refused(tmp_path, ModelDirectoryError, "cannot name an alias", results, alias=name)

    def test_a_trial_that_is_not_there(self, results, tmp_path):
        text = r"no trial 9; there are trials 0 to 4\."
        self.refused(tmp_path, ExperimentError, text, results, trial=9)

    def test_a_trial_without_weights(self, results, tmp_path):
        text = r"trial 3 \(diverged\) has no weights"
        self.refused(tmp_path, ExperimentError, text, results, trial=3)

    def test_nothing_to_promote(self, by_hand, tmp_path):
        results = Results.open(by_hand([]).path)
        self.refused(tmp_path, ExperimentError, "no trial has a result yet", results)
        text = r"no trial 0; there are no trials yet\."
        self.refused(tmp_path, ExperimentError, text, results, trial=0)

    def test_a_result_whose_weights_are_gone(self, by_hand, tmp_path):
        results = Results.open(by_hand([proposed(0), reported(0, 1, val_loss=2.0)]).path)
        self.refused(tmp_path, ExperimentError, r"trial 0 \(interrupted\) has no weights", results)

    def test_damaged_weights(self, experiment, tmp_path):
        results = Results.open(experiment.path)
        file = best_file(experiment.path, int(results.best()["trial"]))
        file.write_bytes(file.read_bytes()[:-1])
        self.refused(tmp_path, CheckpointError, "best.pt: is damaged", results)

    def test_damaged_data(self, experiment, tmp_path):
        file = experiment.path / "data.safetensors"
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)
        self.refused(tmp_path, PreparedDataError, "data.safetensors: ", experiment.path)

    def test_other_data_than_the_experiment_began_with(self, experiment, tmp_path, tiny_data):
        other = tiny_data.with_vocabulary(tiny_data.vocabulary)
        object.__setattr__(other, "settings", other.settings | {"split_seed": 5})
        other = type(other).create(
            vocabulary=other.vocabulary,
            tokens=other.tokens,
            utterance_offsets=other.utterance_offsets,
            examples=other.examples,
            settings=other.settings,
            counts=other.counts,
        )
        other.save(experiment.path / "data.safetensors")
        text = "is not the data that the experiment began with"
        self.refused(tmp_path, ExperimentError, text, experiment.path)


class TestStorage:
    @pytest.mark.parametrize("call", range(5))
    def test_a_full_disk_leaves_nothing(self, results, tmp_path, monkeypatch, call):
        """Each of the five files in turn finds no space; not even the directory stays."""
        calls, replace = [], os.replace

        def full(*arguments):
            calls.append(arguments)
            if len(calls) == call + 1:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            replace(*arguments)

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="no space is left on the device; free some space"):
            promote(results, "new", registry=tmp_path / "registry")
        assert list(tmp_path.iterdir()) == []

    def test_a_full_disk_leaves_the_older_version_and_its_alias(
        self, results, registry, monkeypatch
    ):
        before = contents(registry)

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", full)
            with pytest.raises(StorageError, match="no space is left"):
                promote(results, "small", registry=registry)
        assert contents(registry) == before
        assert sorted(p.name for p in (registry / "small").iterdir()) == ["1", "aliases.json"]
        assert load("small", registry).path.name == "1"

    def test_a_place_that_cannot_be_written(self, results, tmp_path):
        with pytest.raises(StorageError, match="/proc/registry/small: cannot be written: no such"):
            promote(results, registry="/proc/registry")
        (tmp_path / "file").write_text("")
        with pytest.raises(StorageError, match="cannot be written: a part of the path is a file"):
            promote(results, registry=tmp_path / "file")


class TestRivals:
    def test_promoting_at_once_gives_each_its_own_version(self, results, tmp_path):
        """Four processes, eight versions, whole at every moment that we look."""
        begin = FORK.Barrier(5)

        def promote_twice():
            torch.set_num_threads(1)
            begin.wait()
            for _ in range(2):
                promote(results, "small", registry=tmp_path)

        processes = [FORK.Process(target=promote_twice) for _ in range(4)]
        for process in processes:
            process.start()
        begin.wait()
        seen = 0
        while any(process.is_alive() for process in processes):
            for directory in tmp_path.glob("small/[0-9]*"):
                verify(directory)
                seen += 1
        for process in processes:
            process.join()
            assert process.exitcode == 0
        assert seen
        home = tmp_path / "small"
        assert versions(home) == list(range(1, 9))
        assert {p.name for p in home.iterdir()} == {*"12345678", "aliases.json"}
        assert load("small", tmp_path).path.name in "12345678"

    def test_a_number_taken_while_we_wrote_is_passed_over(self, results, registry, monkeypatch):
        from model import model_directory

        seal = model_directory._manifest

        def slow(*arguments):
            if not (registry / "small" / "2").exists():
                shutil.copytree(registry / "small" / "1", registry / "small" / "2")
            return seal(*arguments)

        monkeypatch.setattr(model_directory, "_manifest", slow)
        rival = contents(registry / "small" / "1")
        assert promote(results, "small", registry=registry).name == "3"
        assert list(contents(registry / "small" / "2").values()) == list(rival.values())

    def test_killed_while_writing(self, results, registry):
        """The process dies when it seals the files; the registry is as it was, and goes on."""
        before = json.loads((registry / "small" / "aliases.json").read_text())

        def die():
            from model import model_directory

            torch.set_num_threads(1)
            model_directory._manifest = lambda *_: os._exit(9)
            promote(results, "small", registry=registry)

        process = FORK.Process(target=die)
        process.start()
        process.join()
        assert process.exitcode == 9
        assert versions(registry / "small") == [1]
        assert json.loads((registry / "small" / "aliases.json").read_text()) == before
        assert resolve("small", registry).name == "1"
        assert promote(results, "small", registry=registry).name == "2"


def test_a_prepared_file_as_the_corpus_of_the_sweep(tmp_path, tiny_data):
    """The promoted model names the data's own settings, not the defaults of unsaid fields."""
    file = tmp_path / "tiny.safetensors"
    tiny_data.save(file)
    from tests.analysis.conftest import SWEEP

    parameters = SWEEP["parameters"] | {
        "learning_rate": {"value": 0.01},
        "iterations": {"value": 1},
        "corpus": {"value": str(file)},
    }
    experiment = make_experiment(
        tmp_path, tiny_data, {"method": "random", "parameters": parameters}, trials=1
    )
    drive(experiment, tiny_data, {})
    bot = load(promote(experiment.path, registry=tmp_path / "registry"))
    assert bot.config.data.min_count == tiny_data.settings["min_count"] == 1
    assert bot.config.data.corpus == "tiny"


class TestAgainstProduction:
    """``production`` is not moved to a worse model of the same data by mistake."""

    def test_a_worse_one_is_refused_and_nothing_is_written(self, results, registry):
        before = contents(registry)
        ours, theirs = (
            evaluate(load_weights(results, trial), Batches(results.experiment.data(), "validation"))
            for trial in (2, int(results.best()["trial"]))
        )
        assert ours.loss > theirs.loss
        with pytest.raises(ModelDirectoryError) as caught:
            promote(results, "small", trial=2, registry=registry)
        assert str(caught.value) == (
            f"small@production is version 1 with val_loss {theirs.loss:.4f} over all of "
            f"validation, and this would be worse, {ours.loss:.4f}; promote it beside, "
            "--alias candidate, or --force it."
        )
        assert contents(registry) == before

    def test_it_never_sees_the_test_split(self, results, registry, monkeypatch):
        splits = []

        def spy(data, split, *rest):
            splits.append(split)
            return Batches(data, split, *rest)

        monkeypatch.setattr("analysis.promotion.registry.Batches", spy)
        with pytest.raises(ModelDirectoryError, match="would be worse"):
            promote(results, "small", trial=2, registry=registry)
        assert splits == ["validation"]
        promote(results, "small", registry=registry)
        assert splits == ["validation", "validation", "test"]

    def test_a_better_one_that_another_process_promotes_meanwhile(
        self, results, tmp_path, monkeypatch
    ):
        registry, original, calls = tmp_path / "registry", evaluate, []

        def meanwhile(*arguments):
            calls.append(arguments)
            if len(calls) == 2:  # the worse one's test split: nothing was in its way so far
                promote(results, "small", registry=registry)
            return original(*arguments)

        monkeypatch.setattr("analysis.promotion.registry.evaluate", meanwhile)
        with pytest.raises(ModelDirectoryError, match="would be worse"):
            promote(results, "small", trial=2, registry=registry)
        assert read_aliases(registry / "small") == {"production": 1}
        assert [path.name for path in (registry / "small").iterdir() if path.is_dir()] == ["1"]

    def test_force_and_other_aliases(self, results, registry):
        assert promote(results, "small", trial=2, registry=registry, alias="candidate").name == "2"
        assert read_aliases(registry / "small") == {"production": 1, "candidate": 2}
        assert promote(results, "small", trial=2, registry=registry, force=True).name == "3"
        assert read_aliases(registry / "small")["production"] == 3

    def test_an_equal_or_a_better_one_is_not(self, results, registry):
        assert promote(results, "small", registry=registry).name == "2"
        promote(results, "small", trial=2, registry=registry, force=True)
        assert promote(results, "small", registry=registry).name == "4"

    @pytest.mark.parametrize(("factor", "refused"), [(1 - 1e-6, False), (1 - 1e-4, True)])
    def test_the_last_digits_which_another_machine_makes_do_not_count(
        self, results, registry, monkeypatch, factor, refused
    ):
        theirs = load("small", registry).metrics["val_loss"] * factor
        monkeypatch.setattr(
            "analysis.promotion.registry.read_metrics", lambda path: {"val_loss": theirs}
        )
        if refused:
            with pytest.raises(ModelDirectoryError, match="would be worse"):
                promote(results, "small", registry=registry)
        else:
            assert promote(results, "small", registry=registry).name == "2"

    def test_other_data_cannot_be_compared(self, results, registry, tmp_path):
        experiment = make_experiment(tmp_path / "runs", other_data(results.experiment.data()))
        drive(experiment, experiment.data(), {})
        notes = []
        trial = 2  # much worse
        directory = promote(
            experiment.path, "small", trial=trial, registry=registry, on_note=notes.append
        )
        assert notes == [
            "small@production is version 1, which is of other data: the two cannot be compared"
        ]
        assert read_aliases(registry / "small")["production"] == int(directory.name) == 2
        assert verify(directory)["lineage"]["test_seen_by_versions"] == []

    def test_a_damaged_one_cannot_be_compared(self, results, registry):
        (registry / "small" / "1" / "metrics.json").write_text("{}")
        notes = []
        promote(results, "small", trial=2, registry=registry, on_note=notes.append)
        assert notes[0].startswith(
            "small@production is version 1, which is damaged and cannot be compared: "
        )
        assert "metrics.json was changed after the model was written" in notes[0]
        assert load("small", registry).path.name == "2"

    def test_damaged_aliases_stop_it_before_anything_is_written(self, results, registry):
        (registry / "small" / "aliases.json").write_text("{")
        for force in (False, True):
            with pytest.raises(ModelDirectoryError, match=r"aliases.json: is damaged\."):
                promote(results, "small", registry=registry, force=force)
        assert versions(registry / "small") == [1]

    def test_another_look_at_the_test_split_is_told_and_kept(self, results, registry):
        notes = []
        for _ in range(2):
            directory = promote(results, "small", registry=registry, on_note=notes.append)
        assert verify(directory)["lineage"]["test_seen_by_versions"] == [1, 2]
        assert notes == [
            "the same test split was evaluated for version 1; "
            "do not choose between versions by test_loss",
            "the same test split was evaluated for versions 1, 2; "
            "do not choose between versions by test_loss",
        ]

    def test_an_objective_that_is_better_when_larger(self, results, registry, tmp_path, tiny_data):
        from tests.analysis.conftest import SWEEP

        metric = {"metric": {"name": "val_token_accuracy", "goal": "maximize"}}
        experiment = make_experiment(tmp_path / "runs", tiny_data, SWEEP | metric)
        drive(experiment, tiny_data, {})
        promote(experiment.path, "other", registry=registry)
        with pytest.raises(ModelDirectoryError, match="with val_token_accuracy 0.* be worse, 0"):
            promote(experiment.path, "other", trial=2, registry=registry)


def load_weights(results, trial):
    from model.config import Config
    from model.seq2seq import Seq2Seq

    state = read_checkpoint(best_file(results.experiment.path, trial))
    model = Seq2Seq(
        Config.from_mapping(state["config"]).model, len(results.experiment.data().vocabulary)
    )
    model.load_state_dict(state["weights"])
    return model


def other_data(data, test=None):
    """The same data but for the test split, which makes it another data set."""
    examples = dict(data.examples)
    examples["test"] = examples["test"][:-1] if test is None else test
    return type(data).create(
        vocabulary=data.vocabulary,
        tokens=data.tokens,
        utterance_offsets=data.utterance_offsets,
        examples=examples,
        settings=data.settings,
        counts=data.counts,
    )


class TestHistory:
    @pytest.fixture
    def home(self, results, registry):
        """Three versions, ``production`` having stood for each in turn."""
        for _ in range(2):
            promote(results, "small", registry=registry)
        return registry / "small"

    def stands_for(self, home):
        return read_aliases(home)["production"]

    def test_rolling_back_step_by_step_to_the_first(self, home):
        assert roll_back(home) == (3, 2)
        assert self.stands_for(home) == 2
        assert roll_back(home) == (2, 1)
        assert self.stands_for(home) == 1
        with pytest.raises(ModelDirectoryError) as caught:
            roll_back(home)
        assert str(caught.value) == (
            "small@production: stood for no version before 1; there is nothing to go back to."
        )
        assert self.stands_for(home) == 1

    def test_after_rolling_back_a_new_version_is_put_on_top(self, home):
        roll_back(home)
        roll_back(home)
        set_alias(home, "production", 3)
        assert roll_back(home) == (3, 1)

    def test_setting_it_to_what_it_is_changes_nothing(self, home):
        before = (home / "aliases.json").read_bytes()
        set_alias(home, "production", 3)
        assert (home / "aliases.json").read_bytes() == before

    def test_aliases_have_histories_of_their_own(self, home):
        set_alias(home, "candidate", 1)
        set_alias(home, "candidate", 3)
        assert roll_back(home, "candidate") == (3, 1)
        assert self.stands_for(home) == 3

    def test_who_was_production_and_since_when(self, home):
        roll_back(home)
        moves = read_history(home)
        assert [(m.alias, m.version, m.action) for m in moves] == [
            ("production", 1, "set"),
            ("production", 2, "set"),
            ("production", 3, "set"),
            ("production", 2, "rolled back"),
        ]
        assert all(m.time is not None and m.time.endswith("+00:00") for m in moves)

    def test_a_file_without_history_is_read_and_gets_one(self, home):
        old = {"format": 1, "aliases": {"production": 2, "candidate": 1}}
        (home / "aliases.json").write_text(json.dumps(old))
        assert load("small", home.parent).path.name == "2"
        with pytest.raises(ModelDirectoryError, match="stood for no version before 2"):
            roll_back(home)
        set_alias(home, "production", 3)
        assert json.loads((home / "aliases.json").read_text())["format"] == 2
        assert read_aliases(home) == {"production": 3, "candidate": 1}
        assert roll_back(home) == (3, 2)
        assert [m.time for m in read_history(home)][:2] == [None, None]

    def test_what_was_written_by_hand_is_believed(self, home):
        content = json.loads((home / "aliases.json").read_text())
        content["aliases"]["production"] = 1
        (home / "aliases.json").write_text(json.dumps(content))
        assert roll_back(home) == (1, 3)

    def test_never_to_a_damaged_version(self, home):
        (home / "2" / "config.json").write_text("{}")
        with pytest.raises(ModelDirectoryError, match="2: config.json was changed after"):
            roll_back(home)
        assert self.stands_for(home) == 3

    def test_nor_to_one_that_is_gone(self, home):
        shutil.rmtree(home / "2")
        with pytest.raises(ModelDirectoryError) as caught:
            roll_back(home)
        assert str(caught.value) == (
            "small@production: stood for version 2 before, which is gone; choose another: "
            "python -m analysis models alias small:VERSION production"
        )

    def test_an_alias_that_is_not_there(self, home):
        with pytest.raises(
            ModelDirectoryError, match="no alias 'productoin', did you mean 'production'"
        ):
            roll_back(home, "productoin")

    @pytest.mark.parametrize("history", ['"x"', "3", "[3]", '[{"alias": "a"}]'])
    def test_a_damaged_history_is_refused(self, home, history):
        text = f'{{"format": 2, "aliases": {{"production": 3}}, "history": {history}}}'
        (home / "aliases.json").write_text(text)
        with pytest.raises(ModelDirectoryError, match=r"aliases.json: is damaged\."):
            roll_back(home)

    def test_a_full_disk_leaves_it_as_it_was(self, home, monkeypatch):
        before = (home / "aliases.json").read_bytes()

        def full(*arguments):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "replace", full)
        with pytest.raises(StorageError, match="aliases.json: cannot be written: no space"):
            roll_back(home)
        assert (home / "aliases.json").read_bytes() == before


class TestEveryByte:
    """More than a few positions of each file, each found when the model is loaded."""

    @pytest.mark.parametrize("name", FILES)
    def test_a_changed_byte_anywhere_is_detected_on_load(self, version, name):
        content = (version / name).read_bytes()
        places = {*range(0, len(content), max(1, len(content) // 400)), len(content) - 1}
        assert len(places) > 100 or len(places) == len(content)
        for place in sorted(places):
            changed = bytearray(content)
            changed[place] ^= 1 + place % 255
            (version / name).write_bytes(changed)
            with pytest.raises(ModelDirectoryError, match=f"{name}.*(was changed after|damaged)"):
                load(version)
        (version / name).write_bytes(content)
        load(version)

    @pytest.mark.parametrize("name", FILES)
    def test_so_are_a_byte_too_few_and_one_too_many(self, version, name):
        content = (version / name).read_bytes()
        for changed in (content[:-1], content[1:], content + b"\n", content + b"\x00", b""):
            (version / name).write_bytes(changed)
            with pytest.raises(ModelDirectoryError, match=name):
                load(version)

    def test_files_changed_for_each_other(self, version):
        config, metrics = (version / "config.json", version / "metrics.json")
        one, other = config.read_bytes(), metrics.read_bytes()
        config.write_bytes(other)
        metrics.write_bytes(one)
        with pytest.raises(ModelDirectoryError, match=r"config.json was .*; metrics.json was "):
            load(version)

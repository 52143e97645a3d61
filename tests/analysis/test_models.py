"""``python -m analysis models`` and ``promote --confirm``: what a person sees of the registry."""

import json
import os
import shutil

import pytest
import torch

from analysis import Results, promote
from analysis.promotion import confirmation
from analysis.promotion.versions import added, damage, difference, list_versions
from model.errors import ModelDirectoryError
from model.model_directory import load, read_aliases, verify, write_model_directory
from model.vocabulary import Vocabulary
from tests.analysis.conftest import run
from tests.analysis.test_confirmation import in_this_process


@pytest.fixture(scope="module")
def original(finished, tmp_path_factory):
    """Two versions of one model, the second another trial and a candidate; one of another."""
    torch.set_num_threads(1)
    registry = tmp_path_factory.mktemp("registry")
    results = Results.open(finished.path)
    promote(results, "bot", registry=registry)
    promote(results, "bot", trial=2, registry=registry, alias="candidate")
    promote(results, "other", registry=registry)
    return registry


@pytest.fixture
def registry(original, tmp_path):
    return shutil.copytree(original, tmp_path / "registry")


def models(action, *arguments, registry):
    return run("models", action, *arguments, "--registry", registry)


class TestList:
    def test_every_version_with_its_aliases_and_figures(self, registry, capsys):
        assert models("list", registry=registry) == 0
        heading, _, *rows = capsys.readouterr().out.splitlines()
        assert heading.split() == [
            *("model", "version", "aliases", "val_loss", "test_loss", "confirmed"),
            *("experiment", "trial", "made"),
        ]
        assert [row.split()[:3] for row in rows] == [
            ["bot", "1", "production"],
            ["bot", "2", "candidate"],
            ["other", "1", "production"],
        ]
        metrics = load("bot:1", registry).metrics
        assert rows[0].split()[3:5] == [
            f"{metrics['val_loss']:.4g}",
            f"{metrics['test_loss']:.4g}",
        ]
        assert rows[0].split()[5:8] == ["-", "small", "1"]

    def test_some_of_them(self, registry, capsys):
        assert models("list", "other", registry=registry) == 0
        assert len(capsys.readouterr().out.splitlines()) == 3
        assert models("list", "othr", registry=registry) == 2
        assert "othr: unknown model, did you mean 'other'?" in capsys.readouterr().err

    def test_json(self, registry, capsys):
        assert models("list", "--json", registry=registry) == 0
        found = json.loads(capsys.readouterr().out)
        assert [(each["model"], each["version"]) for each in found] == [
            ("bot", 1),
            ("bot", 2),
            ("other", 1),
        ]
        assert found[1]["aliases"] == ["candidate"]
        assert found[1]["lineage"]["trial"] == 2
        assert found[1]["metrics"] == load("bot:2", registry).metrics
        assert found[1]["problem"] is None

    def test_a_damaged_one_is_listed_as_such(self, registry, capsys):
        (registry / "bot" / "2" / "metrics.json").write_text("{}")
        (registry / "other" / "1" / "manifest.json").unlink()
        assert models("list", registry=registry) == 0
        out = capsys.readouterr().out
        assert out.splitlines()[3].split()[-1] == "damaged"
        assert f"damaged: {registry}/bot/2: metrics.json was changed after" in out
        assert f"damaged: {registry}/other/1: is not a model directory" in out

    def test_an_empty_registry(self, tmp_path, capsys):
        assert models("list", registry=tmp_path / "none") == 0
        assert "no models yet; put one there: python -m analysis promote" in capsys.readouterr().out
        assert models("list", "bot", registry=tmp_path / "none") == 2
        assert "bot: unknown model; " in capsys.readouterr().err

    def test_weights_are_not_read(self, registry, monkeypatch):
        """A list of many large models must be quick."""
        for file in registry.rglob("weights.pt"):
            file.unlink()
        assert [each.problem for each in list_versions(registry)] == [None] * 3


class TestShow:
    def test_everything_about_it(self, registry, capsys):
        assert models("show", "bot@candidate", registry=registry) == 0
        out = capsys.readouterr().out
        bot = load("bot:2", registry)
        cells = {tuple(line.split(maxsplit=1)) for line in out.splitlines() if line}
        assert ("version", "2") in cells
        assert ("aliases", "candidate") in cells
        assert ("vocabulary", f"{len(bot.vocabulary)} words") in cells
        assert ("test_loss", f"{bot.metrics['test_loss']:.6g}") in cells
        assert ("experiment", "small") in cells
        assert ("learning_rate", "1e-06") in cells
        assert ("torch", bot.manifest["lineage"]["versions"]["torch"]) in cells
        assert "candidate set" in out

    def test_json(self, registry, capsys):
        assert models("show", "bot", "--json", registry=registry) == 0
        found = json.loads(capsys.readouterr().out)
        bot = load("bot", registry)
        assert found["configuration"] == bot.config.to_mapping()
        assert found["metrics"] == bot.metrics
        assert found["vocabulary"] == len(bot.vocabulary)
        assert [(h["alias"], h["action"]) for h in found["history"]] == [("production", "set")]

    def test_by_path(self, registry, capsys):
        assert models("show", registry / "bot" / "1", registry="none") == 0
        assert "production" in capsys.readouterr().out

    def test_outside_of_a_registry(self, registry, tmp_path, capsys):
        shutil.copytree(registry / "bot" / "1", tmp_path / "model")
        assert models("show", tmp_path / "model", registry="none") == 0
        assert str(tmp_path / "model") in capsys.readouterr().out

    def test_a_damaged_one_is_refused(self, registry, capsys):
        (registry / "bot" / "1" / "weights.pt").write_bytes(b"")
        assert models("show", "bot", registry=registry) == 2
        captured = capsys.readouterr()
        assert "weights.pt was changed after the model was written." in captured.err
        assert captured.out == ""


class TestDiff:
    def test_what_differs_and_nothing_else(self, registry, capsys):
        assert models("diff", "bot:1", "bot:2", "--json", registry=registry) == 0
        found = json.loads(capsys.readouterr().out)
        one, two = load("bot:1", registry), load("bot:2", registry)
        assert found["a"] == str(one.path)
        differences = found["differences"]
        assert set(differences) == {"configuration", "metrics", "lineage", "weights"}
        assert differences["configuration"] == {"learning_rate": {"a": 0.02, "b": 1e-6}}
        assert differences["metrics"]["val_loss"] == {
            "a": one.metrics["val_loss"],
            "b": two.metrics["val_loss"],
        }
        assert "unigram_val_loss" not in differences["metrics"]
        assert differences["lineage"]["trial"] == {"a": 1, "b": 2}
        assert differences["lineage"]["test_seen_by_versions"] == {"a": [], "b": [1]}

    def test_as_a_table(self, registry, capsys):
        assert models("diff", "bot", "bot:2", registry=registry) == 0
        lines = [line.split() for line in capsys.readouterr().out.splitlines()]
        assert lines[0] == ["section", "field", f"{registry}/bot/1", f"{registry}/bot/2"]
        assert ["configuration", "learning_rate", "0.02", "1e-06"] in lines

    def test_none(self, registry, capsys):
        assert models("diff", "bot", "bot:1", registry=registry) == 0
        assert capsys.readouterr().out == "no difference\n"

    def test_vocabulary_data_and_versions(self, registry, tmp_path):
        bot = load("bot", registry)
        words = [*bot.vocabulary.to_list()[:-2], "ärger"]
        manifest = bot.manifest["lineage"]
        weights = {name: torch.zeros(1) for name in ("a",)}
        other = write_model_directory(
            tmp_path / "other",
            weights=weights,
            config=bot.config,
            vocabulary=Vocabulary.from_list(words),
            metrics=bot.metrics,
            lineage=manifest
            | {"data_fingerprint": "f", "versions": manifest["versions"] | {"torch": "9"}},
        )
        found = difference(bot.path, other)
        assert set(found) == {"data", "vocabulary", "versions", "weights"}
        assert found["versions"] == {"torch": (manifest["versions"]["torch"], "9")}
        assert found["data"] == {"fingerprint": (manifest["data_fingerprint"], "f")}
        gone = " ".join(bot.vocabulary.to_list()[-2:])
        assert found["vocabulary"] == {
            "words": (len(bot.vocabulary), len(bot.vocabulary) - 1),
            "words only here": (gone, "ärger"),
        }

    def test_many_words_are_counted_and_an_order_is_seen(self, registry, tmp_path):
        bot = load("bot", registry)
        words = bot.vocabulary.to_list()
        parts = {
            "weights": {},
            "config": bot.config,
            "metrics": bot.metrics,
            "lineage": bot.manifest["lineage"],
        }
        few = Vocabulary.from_list(words[:-7])
        few = write_model_directory(tmp_path / "few", vocabulary=few, **parts)
        assert difference(bot.path, few)["vocabulary"]["words only here"] == (
            f"{' '.join(words[-7:-2])} and 2 more",
            "none",
        )
        swapped = Vocabulary.from_list([*words[:-2], words[-1], words[-2]])
        swapped = write_model_directory(tmp_path / "swapped", vocabulary=swapped, **parts)
        assert difference(bot.path, swapped)["vocabulary"] == {"order": ("one", "another")}

    def test_a_damaged_one_is_refused(self, registry, capsys):
        (registry / "bot" / "2" / "config.json").write_text("{}")
        assert models("diff", "bot:1", "bot:2", registry=registry) == 2
        assert "2: config.json was changed after the model was written." in capsys.readouterr().err


class TestRollbackAndAlias:
    def test_forth_and_back(self, registry, capsys):
        assert models("alias", "bot@candidate", "production", registry=registry) == 0
        assert capsys.readouterr().out == "bot@production: version 2 of 1, 2\n"
        assert load("bot", registry).path.name == "2"
        assert models("rollback", "bot", registry=registry) == 0
        assert capsys.readouterr().out == "bot@production: version 2 -> 1\n"
        assert load("bot", registry).path.name == "1"
        assert models("rollback", "bot", registry=registry) == 2
        assert "stood for no version before 1" in capsys.readouterr().err

    def test_another_alias(self, registry, capsys):
        models("alias", "bot:1", "candidate", registry=registry)
        assert models("rollback", "bot", "--alias", "candidate", registry=registry) == 0
        assert read_aliases(registry / "bot") == {"production": 1, "candidate": 2}

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["rollback", "bott"], "bott: unknown model, did you mean 'bot'?"),
            (["rollback", "bot", "--alias", "x"], "bot: has no alias 'x'; valid: candidate, "),
            (["alias", "bot:3", "production"], "bot has no version 3; it has 1, 2."),
            (["alias", "bot:1", "a/b"], "'a/b': cannot name an alias; use letters"),
        ],
    )
    def test_refusals(self, registry, capsys, arguments, text):
        before = (registry / "bot" / "aliases.json").read_bytes()
        assert models(*arguments, registry=registry) == 2
        assert text in capsys.readouterr().err
        assert (registry / "bot" / "aliases.json").read_bytes() == before

    def test_a_damaged_version_gets_no_alias(self, registry, capsys):
        (registry / "bot" / "2" / "weights.pt").write_bytes(b"")
        assert models("alias", "bot:2", "production", registry=registry) == 2
        assert "weights.pt was changed" in capsys.readouterr().err
        assert read_aliases(registry / "bot")["production"] == 1

    def test_a_model_outside_of_a_registry_gets_none(self, registry, tmp_path, capsys):
        shutil.copytree(registry / "bot" / "1", tmp_path / "model")
        assert models("alias", tmp_path / "model", "production", registry=registry) == 2
        assert "is not a version of a registry; name one as NAME:VERSION" in capsys.readouterr().err


class TestVerify:
    def test_all_are_whole(self, registry, capsys):
        assert models("verify", registry=registry) == 0
        assert capsys.readouterr().out.splitlines() == [
            f"whole: {registry}/bot/1",
            f"whole: {registry}/bot/2",
            f"whole: {registry}/other/1",
        ]

    def test_every_damaged_file_is_named(self, registry, capsys):
        (registry / "bot" / "1" / "config.json").write_text("{}")
        (registry / "bot" / "1" / "weights.pt").unlink()
        assert models("verify", registry=registry) == 1
        assert capsys.readouterr().out.splitlines() == [
            f"damaged: {registry}/bot/1: config.json was changed after the model was written; "
            "weights.pt is missing.",
            f"whole: {registry}/bot/2",
            f"whole: {registry}/other/1",
            "1 of 3 damaged",
        ]

    def test_some_of_them(self, registry, capsys):
        (registry / "bot" / "1" / "config.json").write_text("{}")
        assert models("verify", "other", "bot:2", registry=registry) == 0
        assert len(capsys.readouterr().out.splitlines()) == 2
        assert models("verify", "bot", registry=registry) == 1, "all versions of it"
        assert models("verify", "bto", registry=registry) == 2
        assert "bto: unknown model, did you mean 'bot'?" in capsys.readouterr().err

    def test_an_added_file_is_told_and_does_no_harm(self, registry, capsys):
        (registry / "bot" / "1" / "notes.txt").write_text("x")
        (registry / "bot" / "1" / "exports").mkdir()
        assert models("verify", "bot:1", registry=registry) == 0
        assert capsys.readouterr().out.splitlines()[1] == (
            f"note: {registry}/bot/1: not of the model, and never read: exports, notes.txt"
        )
        assert added(registry / "bot" / "2") == []
        load("bot:1", registry)

    def test_a_file_that_cannot_be_read_is_damage(self, registry):
        file = registry / "bot" / "1" / "config.json"
        file.unlink()
        file.symlink_to(file)
        assert "config.json is missing" in damage(file.parent)

    def test_what_a_killed_promotion_left_is_told(self, registry, capsys):
        (registry / "bot" / ".building-0123").mkdir()
        assert models("verify", registry=registry) == 0
        assert capsys.readouterr().out.splitlines()[-1] == (
            f"note: {registry}/bot/.building-0123: of a promotion that is under way, or was "
            "killed: then remove it"
        )

    def test_nothing_to_verify(self, tmp_path, capsys):
        assert models("verify", registry=tmp_path / "none") == 0
        assert "no models yet" in capsys.readouterr().out

    def test_no_action(self, capsys):
        assert run("models") == 2
        assert "usage: python -m analysis models" in capsys.readouterr().err


class TestPromoteCommand:
    @pytest.fixture
    def here(self, monkeypatch):
        monkeypatch.setattr(confirmation, "train_runs", in_this_process)

    def test_confirmed(self, experiment, here, tmp_path, capsys):
        registry = tmp_path / "r"
        arguments = ["--confirm", "2", "--top", "2", "--registry", registry]
        assert run("promote", experiment.path, *arguments) == 0
        bot = load("small", registry)
        found = bot.manifest["lineage"]["confirmation"]
        out = capsys.readouterr().out.splitlines()
        assert out[0].split("  ")[0] == "trial"
        assert "fresh mean" in out[0]
        assert [line.split()[0] for line in out[2:4]] == [
            str(each["trials"][0]) for each in found["configurations"]
        ]
        assert "has the best mean: val_loss" in out[5]
        assert "the runner-up, trial" in out[6]
        assert f"promoted are the weights of seed {found['seed']}" in out[7]
        assert out[9].startswith(
            f"trial {bot.manifest['lineage']['trial']}, seed {found['seed']}, iteration 12: "
        )
        assert models("list", registry=registry) == 0
        assert f"{bot.metrics['confirmed_val_loss']:.4g}" in capsys.readouterr().out
        assert models("show", "small", registry=registry) == 0
        shown = capsys.readouterr().out
        assert "confirmed by val_loss over 2 fresh seeds" in shown
        assert str(found["seed"]) in shown

    def test_again_it_is_the_same_model(self, experiment, here, tmp_path):
        for name in ("a", "b"):
            arguments = ["--confirm", "2", "--top", "2", "--registry", tmp_path / name]
            assert run("promote", experiment.path, *arguments) == 0
        for file in ("weights.pt", "config.json", "metrics.json"):
            first, second = (tmp_path / n / "small" / "1" / file for n in ("a", "b"))
            assert first.read_bytes() == second.read_bytes()
        one, two = (verify(tmp_path / n / "small" / "1")["lineage"] for n in ("a", "b"))
        assert one == two

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["--confirm", "1"], "--confirm: must be at least 2: one run has no interval."),
            (["--confirm", "0"], "must be a whole number of at least 1, but got '0'"),
            (["--top", "2"], "--top: only goes with --confirm."),
            (["--workers", "2"], "--workers: only goes with --confirm."),
            (["--confirm", "2", "--trial", "1"], "not allowed with argument"),
            (["--wandb", "maybe"], "invalid choice: 'maybe'"),
        ],
    )
    def test_refusals(self, finished, tmp_path, capsys, arguments, text):
        assert run("promote", finished.path, *arguments, "--registry", tmp_path / "r") == 2
        assert text in capsys.readouterr().err
        assert not (tmp_path / "r").exists()
        assert not (finished.path / "confirmation").exists()

    def test_a_worse_one(self, finished, registry, capsys):
        arguments = [finished.path, "--name", "bot", "--trial", "2", "--registry", registry]
        assert run("promote", *arguments) == 2
        err = capsys.readouterr().err
        assert err.startswith("error: bot@production is version 1 with val_loss ")
        assert err.endswith("promote it beside, --alias candidate, or --force it.\n")
        assert run("promote", *arguments, "--force") == 0
        out = capsys.readouterr().out
        assert "note: the same test split was evaluated for versions 1, 2; " in out
        assert load("bot", registry).path.name == "3"

    def test_ctrl_c_while_confirming(self, finished, tmp_path, monkeypatch, capsys):
        def interrupted(*arguments, **keywords):
            raise KeyboardInterrupt

        monkeypatch.setattr(confirmation, "confirm", interrupted)
        registry = tmp_path / "r"
        assert run("promote", finished.path, "--confirm", "2", "--registry", registry) == 130
        err = capsys.readouterr().err
        assert "finished runs and checkpoints are kept: the same command goes on" in err
        assert not registry.exists()


def test_nothing_half_written_when_the_registry_is_full(finished, tmp_path, monkeypatch, capsys):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    assert run("promote", finished.path, "--registry", tmp_path / "r") == 2
    assert "no space is left on the device" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_reference_in_python(original):
    with pytest.raises(ModelDirectoryError, match="nobody: unknown model"):
        list_versions(original, ["nobody"])

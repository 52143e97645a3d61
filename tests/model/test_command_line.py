"""``python -m model``: what a person types, what they see, and the exit status."""

import json
import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from model.__main__ import main
from model.batching import Batches
from model.cli import run_main, table
from model.evaluation import evaluate, unigram_loss
from model.model_directory import load
from model.prepared_data import PreparedData
from model.training import Trainer
from model.vocabulary import EOS, SOS, UNK
from tests.conftest import exit_status, tiny_corpus

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    *("--hidden-size", "16", "--encoder-layers", "1", "--decoder-layers", "1"),
    *("--batch-size", "8", "--iterations", "12", "--report-every", "4"),
    *("--learning-rate", "0.01", "--teacher-forcing-ratio", "0.5", "--device", "cpu"),
)
DATA = ("--min-count", "1", "--validation-share", "0.2", "--test-share", "0.2")
TIMES = ("tokens_per_second", "train_seconds", "eval_seconds")
QUESTION = "do you like red green or blue ?"


def run(*arguments):
    return exit_status(main, *arguments)


def history(out):
    """The reports of a training run, without what depends on the clock."""
    lines = (out / "history.jsonl").read_text().splitlines()
    reports = [json.loads(line, parse_constant=pytest.fail) for line in lines]
    return [{k: v for k, v in report.items() if k not in TIMES} for report in reports]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The tiny corpus as a file of dialogues."""
    file = tmp_path_factory.mktemp("corpus") / "colours.txt"
    file.write_text("\n\n".join("\n".join(d.turns) for d in tiny_corpus().dialogues) + "\n")
    return file


@pytest.fixture(scope="module")
def foreign(tmp_path_factory):
    """Pairs that differ in words which the tiny corpus does not have."""
    words = ("purple", "mauve", "cyan", "ochre", "teal", "amber")
    pairs = [f"do you like {a} or {b} ?\ni like {a} {b} ." for a in words for b in words]
    file = tmp_path_factory.mktemp("foreign") / "foreign.txt"
    file.write_text("\n\n".join(pairs))
    return file


@pytest.fixture(scope="module")
def prepared(corpus):
    out = corpus.with_name("colours.safetensors")
    assert run("prepare", corpus, *DATA, "--out", out) == 0
    return out


@pytest.fixture(scope="module")
def trained(prepared, tmp_path_factory):
    """A finished training run."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("runs") / "straight"
    assert run("train", prepared, *SMALL, "--out", out) == 0
    return out


@pytest.fixture
def damaged_model(trained, tmp_path):
    directory = shutil.copytree(trained / "model", tmp_path / "m")
    content = bytearray((directory / "weights.pt").read_bytes())
    content[-100] ^= 1
    (directory / "weights.pt").write_bytes(content)
    return directory


class TestPrepare:
    def test_says_what_it_kept_and_dropped(self, foreign, tmp_path, capsys):
        corpus, out = tmp_path / "c.txt", tmp_path / "new" / "data.safetensors"
        corpus.write_text(foreign.read_text() + "\n\na b c d e f g h\nno\n")
        assert run("prepare", corpus, *DATA, "--max-length", "8", "--out", out) == 0
        said = capsys.readouterr().out
        assert f"corpus       {corpus}: 37 pairs in 37 dialogues" in said
        assert "dropped      1 pair with a side of 8 words or more (max_length)" in said
        assert "kept         36 pairs" in said
        assert f"wrote {out}" in said
        data = PreparedData.open(out)
        assert data.fingerprint in said
        assert data.settings["max_length"] == 8
        assert data.settings["corpus"] == str(corpus)

    def test_names_the_file_after_the_corpus(self, corpus, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        assert run("prepare", corpus, *DATA) == 0
        assert [str(p) for p in Path().rglob("*.*")] == ["data/colours.safetensors"]

    def test_the_same_twice_is_the_same_file(self, corpus, prepared, tmp_path):
        assert run("prepare", corpus, *DATA, "--out", tmp_path / "a.safetensors") == 0
        assert (tmp_path / "a.safetensors").read_bytes() == prepared.read_bytes()

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (["none.tsv"], "error: none.tsv: no corpus is there: no such file or directory."),
            (["cornel"], "error: unknown corpus 'cornel', did you mean 'cornell'?"),
            (["cornell"], "Download cornell_movie_dialogs_corpus.zip"),
            (["a.tsv"], "error: a.tsv:1: expected a question and a reply with one tab"),
            (["l1.tsv"], "error: l1.tsv:2: is not UTF-8: byte 0xe9 at 3"),
            (["cut.tsv.gz"], "error: cut.tsv.gz: is damaged or incomplete"),
            (["a.doc"], "error: a.doc: no corpus format has this suffix"),
            (["empty.tsv"], "nothing is left for training"),
            (
                ["ok.tsv", "--max-length", "1", "--min-count", "few", "--rare-words", "drp"],
                "error: command line: --max-length: must be between 2 and 1000, but got 1.\n"
                "error: command line: --min-count: must be a whole number, but got 'few'.\n"
                "error: command line: --rare-words: must be one of drop, unk, but got 'drp'.\n",
            ),
        ],
    )
    def test_bad_input_leaves_nothing(self, tmp_path, monkeypatch, capsys, arguments, text):
        monkeypatch.chdir(tmp_path)
        Path("a.tsv").write_text("no tab\n")
        Path("l1.tsv").write_bytes(b"a\tb\ncaf\xe9\tb\n")
        Path("cut.tsv.gz").write_bytes(b"\x1f\x8b\x08\x00")
        Path("a.doc").write_text("")
        Path("empty.tsv").write_text("")
        Path("ok.tsv").write_text("a\tb\n" * 9)
        before = sorted(tmp_path.rglob("*"))
        assert run("prepare", *arguments, "--out", "out.safetensors") == 2
        captured = capsys.readouterr()
        assert text in captured.err
        assert captured.out == ""
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("out", ["/proc/x.safetensors", "/dev/null/x.safetensors"])
    def test_a_place_that_cannot_be_written_is_named(self, corpus, capsys, out):
        assert run("prepare", corpus, *DATA, "--out", out) == 2
        assert f"error: {out}: cannot be written: " in capsys.readouterr().err


class TestTrain:
    def test_reports_and_writes_a_model_directory(self, trained, prepared, capsys):
        assert [report["iteration"] for report in history(trained)] == [4, 8, 12]
        best = min(history(trained), key=lambda report: report["val_loss"])
        bot = load(trained / "model")
        assert bot.metrics["best_val_loss"] == best["val_loss"]
        data = PreparedData.open(prepared)
        assert bot.manifest["lineage"] == {
            "iteration": best["iteration"],
            "data_fingerprint": data.fingerprint,
        }
        assert bot.config.data.corpus == data.settings["corpus"]
        assert bot.config.data.validation_share == 0.2
        held_out = Batches(data, "validation")
        assert evaluate(bot.model, held_out).loss == pytest.approx(best["val_loss"], rel=1e-6)

    def test_prints_a_line_for_each_report(self, prepared, tmp_path, capsys):
        assert run("train", prepared, *SMALL, "--iterations", "4", "--out", tmp_path / "o") == 0
        captured = capsys.readouterr()
        (line,) = captured.out.splitlines()
        assert line.startswith("iteration 4/4: loss ")
        assert "tokens/s, 0 s left" in line
        assert "a unigram model's val_loss is" in captured.err
        assert f"python -m model chat {tmp_path / 'o' / 'model'}" in captured.err

    def test_a_corpus_gives_the_same_as_its_prepared_data(self, corpus, trained, tmp_path):
        assert run("train", corpus, *DATA, *SMALL, "--out", tmp_path / "o") == 0
        assert history(tmp_path / "o") == history(trained)

    @pytest.mark.parametrize("reports", [1, 2])
    def test_resumed_equals_uninterrupted(
        self, prepared, trained, tmp_path, monkeypatch, capsys, reports
    ):
        """Ctrl-C in the middle of the interval that follows so many reports."""
        out, step, done = tmp_path / "o", Trainer._train_one, []

        def interrupted(self, interval):
            if len(done) == 4 * reports + 2:
                raise KeyboardInterrupt
            done.append(1)
            step(self, interval)

        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_train_one", interrupted)
            assert run("train", prepared, *SMALL, "--out", out) == 130
        assert "interrupted" in capsys.readouterr().err
        assert not (out / "model").exists()
        assert run("train", prepared, *SMALL, "--out", out, "--resume") == 0
        assert f"going on from iteration {4 * reports}" in capsys.readouterr().err
        assert history(out) == history(trained)
        ours, theirs = load(out / "model"), load(trained / "model")
        assert ours.config == theirs.config
        for name, weight in theirs.model.state_dict().items():
            assert torch.equal(ours.model.state_dict()[name], weight)

    def test_threads_are_set(self, prepared, tmp_path, monkeypatch):
        asked = []
        monkeypatch.setattr(torch, "set_num_threads", asked.append)
        run("train", prepared, *SMALL, "--iterations", "1", "--threads", "3", "--out", tmp_path)
        assert asked == [3]

    def test_divergence_is_said_and_is_not_success(self, prepared, tmp_path, capsys):
        wild = ("--optimizer", "sgd", "--clip", "0", "--learning-rate", "1e6")
        assert run("train", prepared, *SMALL, *wild, "--out", tmp_path / "o") == 1
        captured = capsys.readouterr()
        assert "diverged, loss" in captured.out
        assert "diverged before the first report; there is no model to keep" in captured.err
        (report,) = history(tmp_path / "o")
        assert report["iteration"] == 4
        assert not (tmp_path / "o" / "model").exists()

    def test_a_run_that_left_no_checkpoint_leaves_nothing_to_the_next(
        self, prepared, trained, tmp_path
    ):
        """Its weights and history belong to another configuration."""
        out = tmp_path / "o"
        out.mkdir()
        (out / "best.pt").write_bytes((trained / "best.pt").read_bytes())
        (out / "history.jsonl").write_text('{"iteration": 77}\n')
        wild = ("--optimizer", "sgd", "--clip", "0", "--learning-rate", "1e6")
        assert run("train", prepared, *SMALL, *wild, "--out", out) == 1
        assert [report["iteration"] for report in history(out)] == [4]
        assert sorted(p.name for p in out.iterdir()) == ["history.jsonl"]

    def test_an_explosion_later_keeps_the_best_model(self, prepared, tmp_path, monkeypatch):
        step = Trainer._train_one

        def exploding(self, interval):
            step(self, interval)
            if self.iteration == 6:
                with torch.no_grad():
                    self.model.output.bias.fill_(float("nan"))

        monkeypatch.setattr(Trainer, "_train_one", exploding)
        assert run("train", prepared, *SMALL, "--out", tmp_path / "o") == 1
        first, last = history(tmp_path / "o")
        assert last["diverged_loss"] is None
        assert last["best_val_loss"] == first["val_loss"]
        assert load(tmp_path / "o" / "model").metrics["best_val_loss"] == first["val_loss"]


class TestTrainRefuses:
    def refused(self, capsys, *arguments):
        assert run("train", *arguments) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert "Traceback" not in captured.err
        return captured.err

    def test_bad_values_all_at_once(self, prepared, tmp_path, capsys):
        assert self.refused(
            capsys,
            *(prepared, "--optimizer", "adma", "--teacher-forcing-ratio", "1.5"),
            *("--clip", "much", "--out", tmp_path / "o"),
        ).splitlines() == [
            "error: command line: --clip: must be a number, but got 'much'.",
            "error: command line: --optimizer: must be one of adam, adamw, sgd, but got 'adma'.",
            "error: command line: --teacher-forcing-ratio: must be between 0 and 1, but got 1.5.",
        ]
        assert not (tmp_path / "o").exists()

    def test_an_unknown_option(self, capsys):
        assert "unrecognized arguments: --hiden-size" in self.refused(capsys, "--hiden-size", "3")

    def test_data_fields_that_contradict_the_prepared_data(self, prepared, tmp_path, capsys):
        error = self.refused(capsys, prepared, "--max-length", "7", "--out", tmp_path / "o")
        assert "max_length: is 7, but the data set was prepared with 10; leave it out" in error
        assert not (tmp_path / "o").exists()

    def test_a_directory_that_is_taken(self, prepared, trained, capsys):
        before = {p: p.stat().st_mtime_ns for p in trained.rglob("*")}
        for arguments in ((), ("--resume",)):
            error = self.refused(capsys, prepared, *SMALL, *arguments, "--out", trained)
            assert "holds a finished training run; choose another --out." in error
        assert {p: p.stat().st_mtime_ns for p in trained.rglob("*")} == before

    def test_a_directory_with_an_unfinished_run(self, prepared, trained, tmp_path, capsys):
        shutil.copy(trained / "checkpoint.pt", tmp_path)
        error = self.refused(capsys, prepared, *SMALL, "--out", tmp_path)
        assert "holds a training run already; choose another --out, or --resume." in error

    def test_nothing_to_resume(self, prepared, tmp_path, capsys):
        error = self.refused(capsys, prepared, *SMALL, "--resume", "--out", tmp_path / "o")
        assert "checkpoint.pt: cannot be read: no such file or directory." in error
        assert not (tmp_path / "o").exists()

    def test_resuming_with_another_configuration(self, prepared, trained, tmp_path, capsys):
        shutil.copy(trained / "checkpoint.pt", tmp_path)
        error = self.refused(
            capsys, prepared, *SMALL, "--hidden-size", "8", "--resume", "--out", tmp_path
        )
        assert "has another configuration: hidden_size was 16, is 8." in error

    def test_resuming_with_fewer_iterations_than_done(
        self, prepared, tmp_path, monkeypatch, capsys
    ):
        step = Trainer._train_one

        def interrupted(self, interval):
            if self.iteration == 9:
                raise KeyboardInterrupt
            step(self, interval)

        monkeypatch.setattr(Trainer, "_train_one", interrupted)
        assert run("train", prepared, *SMALL, "--out", tmp_path / "o") == 130
        capsys.readouterr()
        error = self.refused(
            capsys, prepared, *SMALL, "--iterations", "4", "--resume", "--out", tmp_path / "o"
        )
        assert "--iterations: is 4, but the checkpoint is of iteration 8 already." in error

    def test_a_damaged_checkpoint(self, prepared, trained, tmp_path, capsys):
        content = (trained / "checkpoint.pt").read_bytes()
        (tmp_path / "checkpoint.pt").write_bytes(content[:-7])
        error = self.refused(capsys, prepared, *SMALL, "--resume", "--out", tmp_path)
        assert "checkpoint.pt: is damaged: its contents do not match their digest." in error

    @pytest.mark.parametrize("out", ["/proc/x", "/dev/null/x"])
    def test_a_place_that_cannot_be_written_at_once(self, prepared, capsys, monkeypatch, out):
        monkeypatch.setattr(Trainer, "train_interval", lambda self: pytest.fail("trained"))
        error = self.refused(capsys, prepared, *SMALL, "--out", out)
        assert f"error: {out}: cannot be written: " in error

    def test_a_file_in_place_of_the_directory(self, prepared, tmp_path, capsys):
        (tmp_path / "o").write_text("")
        error = self.refused(capsys, prepared, *SMALL, "--out", tmp_path / "o")
        assert f"error: {tmp_path / 'o'}: cannot be written: " in error

    @pytest.mark.parametrize("cut", [0, 5, 100, 2000, -1])
    def test_a_truncated_prepared_file(self, prepared, tmp_path, capsys, cut):
        file = tmp_path / "d.safetensors"
        file.write_bytes(prepared.read_bytes()[:cut])
        error = self.refused(capsys, file, *SMALL, "--out", tmp_path / "o")
        assert error.startswith(f"error: {file}: ")
        assert "prepare it again with `python -m model prepare`" in error
        assert not (tmp_path / "o").exists()

    @pytest.mark.parametrize("place", [0.1, 0.3, 0.5, 0.7, 0.9, 1.0])
    def test_a_flipped_bit_in_a_prepared_file(self, prepared, tmp_path, capsys, place):
        content = bytearray(prepared.read_bytes())
        content[int(place * (len(content) - 1))] ^= 1
        file = tmp_path / "d.safetensors"
        file.write_bytes(content)
        error = self.refused(capsys, file, *SMALL, "--out", tmp_path / "o")
        assert error.startswith(f"error: {file}: ")
        assert not (tmp_path / "o").exists()

    def test_a_prepared_file_that_is_not_there(self, tmp_path, capsys):
        error = self.refused(capsys, tmp_path / "no.safetensors", "--out", tmp_path / "o")
        assert "no.safetensors: cannot be read: no such file or directory" in error


class TestEvaluate:
    def figures(self, capsys, *arguments):
        capsys.readouterr()
        assert run("evaluate", *arguments, "--json") == 0
        return json.loads(capsys.readouterr().out)

    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_a_split_of_its_own_data(self, trained, prepared, capsys, split):
        found = self.figures(capsys, trained / "model", "--split", split)
        data = PreparedData.open(prepared)
        direct = evaluate(load(trained / "model").model, Batches(data, split))
        assert found == {
            "model": str(trained / "model"),
            "split": split,
            "examples": len(data.examples[split]),
            "tokens": direct.tokens,
            "loss": direct.loss,
            "perplexity": direct.perplexity,
            "token_accuracy": direct.token_accuracy,
            "unigram_loss": unigram_loss(data, split),
            "unknown_words": 0,
        }
        assert found == self.figures(
            capsys, trained / "model", "--split", split, "--data", prepared
        )

    @pytest.mark.parametrize("first", ["corpus", "prepared"])
    def test_another_vocabulary_is_read_with_unknown_words(
        self, trained, foreign, tmp_path, capsys, first
    ):
        """Every example reads as this one, so that the figures are those of this one."""
        given = foreign
        if first == "prepared":
            given = tmp_path / "f.safetensors"
            assert run("prepare", foreign, *DATA, "--out", given) == 0
        found = self.figures(capsys, trained / "model", "--data", given, "--split", "train")
        bot = load(trained / "model")
        source = [*bot.vocabulary.encode("do you like purple or mauve ?"), EOS]
        target = [*bot.vocabulary.encode("i like purple mauve ."), EOS]
        assert (source.count(UNK), target.count(UNK)) == (2, 2)
        with torch.inference_mode():
            encoded = bot.model.encode(torch.tensor([source]), torch.tensor([len(source)]))
            words = torch.tensor([[SOS, *target[:-1]]])
            hidden, _ = bot.model.decode(words, encoded.state, encoded)
            likelihoods = bot.model.project(hidden)[0].log_softmax(-1)
        losses = -likelihoods[range(len(target)), target]
        assert found["loss"] == pytest.approx(float(losses.mean()), rel=1e-5)
        assert found["tokens"] == found["examples"] * len(target)
        assert found["unknown_words"] == 2 * found["examples"]

    def test_every_pair_of_a_corpus_is_evaluated(self, trained, tmp_path, capsys):
        """However small it is; nothing is held out of what is evaluated."""
        file = tmp_path / "two.tsv"
        file.write_text("do you like red ?\ti like red .\nhello\thi there\n", encoding="utf-8")
        found = self.figures(capsys, trained / "model", "--data", file)
        assert (found["split"], found["examples"], found["unigram_loss"]) == ("test", 2, None)

    def test_a_corpus_without_a_pair(self, trained, tmp_path, capsys):
        file = tmp_path / "long.tsv"
        file.write_text("red " * 30 + "\tred\n", encoding="utf-8")
        assert run("evaluate", trained / "model", "--data", file) == 2
        assert "no pair is left to evaluate; dropped: 1 pair" in capsys.readouterr().err

    def test_data_that_changed_since_are_refused(self, corpus, tmp_path, capsys):
        """What is held out now may have been trained on."""
        file = tmp_path / "mine.txt"
        shutil.copy(corpus, file)
        assert run("train", file, *DATA, *SMALL, "--out", tmp_path / "o") == 0
        assert self.figures(capsys, tmp_path / "o" / "model")["examples"] > 0
        file.write_text("hello\nhi there\n\n" + file.read_text("utf-8"), encoding="utf-8")
        assert run("evaluate", tmp_path / "o" / "model") == 2
        assert "has changed since the model was trained" in capsys.readouterr().err

    def test_the_text_form_shows_every_figure(self, trained, capsys):
        capsys.readouterr()
        assert run("evaluate", trained / "model") == 0
        names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
        assert names == list(self.figures(capsys, trained / "model"))

    @pytest.mark.parametrize(
        ("arguments", "text"),
        [
            (("evaluate", "nobody"), "error: nobody: unknown model; "),
            (("chat", "nobody"), "error: nobody: unknown model; "),
            (("chat", "runs/none"), "error: runs/none: is not a model directory"),
        ],
    )
    def test_an_unknown_model(self, tmp_path, capsys, arguments, text):
        assert run(*arguments, "--registry", tmp_path) == 2
        assert text in capsys.readouterr().err

    @pytest.mark.parametrize("command", ["evaluate", "chat"])
    def test_a_damaged_model(self, damaged_model, capsys, command):
        assert run(command, damaged_model) == 2
        captured = capsys.readouterr()
        assert captured.err == (
            f"error: {damaged_model}: weights.pt was changed after the model was written.\n"
        )

    def test_a_corpus_that_is_not_there(self, trained, tmp_path, capsys):
        assert run("evaluate", trained / "model", "--data", tmp_path / "no.tsv") == 2
        assert "no.tsv: no corpus is there: no such file" in capsys.readouterr().err

    def test_an_unknown_split(self, trained, capsys):
        assert run("evaluate", trained / "model", "--split", "dev") == 2
        assert "invalid choice: 'dev'" in capsys.readouterr().err


class TestChat:
    def test_say(self, trained, capsys):
        capsys.readouterr()
        assert run("chat", trained / "model", "--say", QUESTION, "--say", "你好", "--say", "") == 0
        bot = load(trained / "model")
        assert capsys.readouterr().out == (
            f"you> {QUESTION}\nbot> {bot.reply(QUESTION)}\nyou> 你好\nbot> \nyou> \nbot> \n"
        )

    def test_through_a_pipe_there_is_one_reply_a_line_and_nothing_else(self, trained):
        """Empty lines, unknown words and bytes that are no text included; QUIT ends it."""
        asked = f"{QUESTION}\n\nzebra quux\n".encode() + b"\xff\xfe red\x00\n QUIT \nred\n"
        result = subprocess.run(
            [sys.executable, "-m", "model", "chat", str(trained / "model")],
            input=asked,
            capture_output=True,
            cwd=ROOT,
            check=False,
        )
        bot = load(trained / "model")
        expected = [bot.reply(text) for text in (QUESTION, "", "zebra quux", "red")]
        assert result.stderr == b""
        assert result.stdout.decode().split("\n") == [*expected, ""]
        assert result.returncode == 0

    def test_without_quit_it_ends_with_the_input(self, trained, monkeypatch, capsys, tmp_path):
        (tmp_path / "in").write_text(f"{QUESTION}\nred")
        capsys.readouterr()
        with (tmp_path / "in").open() as lines:
            monkeypatch.setattr(sys, "stdin", lines)
            assert run("chat", trained / "model") == 0
        assert len(capsys.readouterr().out.splitlines()) == 2

    def test_in_a_terminal(self, trained):
        """A prompt; an earlier line comes back with the arrow key; Ctrl-D leaves."""
        ours, theirs = pty.openpty()
        process = subprocess.Popen(
            [sys.executable, "-m", "model", "chat", str(trained / "model")],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            cwd=ROOT,
            env=os.environ | {"TERM": "xterm"},
            start_new_session=True,
        )
        os.close(theirs)
        seen = b""

        def expect(text, times):
            nonlocal seen
            deadline = time.monotonic() + 60
            while seen.count(text.encode()) < times and time.monotonic() < deadline:
                if select.select([ours], [], [], 1)[0]:
                    try:
                        seen += os.read(ours, 4096)
                    except OSError:  # the terminal's other side was closed
                        break
            assert seen.count(text.encode()) >= times, seen

        try:
            expect("you> ", 1)
            assert b"'quit', 'q' or Ctrl-D leaves" in seen
            os.write(ours, QUESTION.encode() + b"\n")
            expect("you> ", 2)
            os.write(ours, b"\x1b[A\n")  # arrow up: the question again
            expect("you> ", 3)
            os.write(ours, "你\n".encode())
            expect("you> ", 4)
            os.write(ours, b"\n")
            expect("you> ", 5)
            os.write(ours, b"\x04")
            assert process.wait(60) == 0
        finally:
            process.kill()
            process.wait()
            os.close(ours)
        reply = load(trained / "model").reply(QUESTION)
        assert seen.count(f"bot> {reply}".encode()) == 2
        assert seen.count(b"bot> (no words that I can read)") == 1
        assert seen.count(b"bot> ") == 3
        assert b"Traceback" not in seen


class TestRunMain:
    def test_ctrl_c(self, capsys):
        def interrupted(argv):
            raise KeyboardInterrupt

        assert run_main(interrupted, []) == 130
        assert capsys.readouterr().err == "\ninterrupted\n"

    def test_a_mistake_of_our_own_is_not_hidden(self):
        with pytest.raises(ZeroDivisionError):
            run_main(lambda argv: 1 // 0, [])

    def test_a_reader_who_left_is_no_error(self):
        """As ``python -m model evaluate ... | head -0``: the text is still in the buffer."""
        code = (
            "import sys; from model.cli import run_main; "
            "sys.stdin.read(); sys.exit(run_main(lambda argv: print('figures') or 0))"
        )
        process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
        )
        process.stdout.close()
        process.stdin.close()
        assert process.stderr.read() == b""
        process.stderr.close()
        assert process.wait() == 0

    def test_a_terminal_without_the_letters_is_no_error(self):
        code = (
            "import sys; from model.cli import run_main; "
            "sys.exit(run_main(lambda argv: print('caf\\u00e9', chr(0xdcff)) or 0))"
        )
        result = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            cwd=ROOT,
            env=os.environ | {"PYTHONIOENCODING": "ascii"},
            check=False,
        )
        assert (result.returncode, result.stderr) == (0, b"")
        assert result.stdout == b"caf\\xe9 \\udcff\n"

    def test_no_command_prints_the_usage(self, capsys):
        assert run() == 2
        assert "usage: python -m model" in capsys.readouterr().err

    def test_help_names_every_field_with_its_default(self, capsys):
        assert run("train", "--help") == 0
        text = " ".join(capsys.readouterr().out.split())
        assert "--teacher-forcing-ratio FLOAT" in text
        assert "(dot, general, concat); default dot" in text


def test_table_by_hand():
    rows = [["a", 1, 0.123456], ["bcd", None, float("nan")]]
    assert table(rows, ("name", "n", "loss")).splitlines() == [
        "name  n    loss",
        "----  -  ------",
        "a     1  0.1235",
        "bcd   -       -",
    ]
    assert table([], ("a", "b")).splitlines() == ["a  b", "-  -"]

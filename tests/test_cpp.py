"""The C++ program of deploy/cpp: built against the wheel's libtorch, and talked to."""

import hashlib
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from analysis.export.build import build
from analysis.export.quiet import quiet
from analysis.export.text import build_text
from model.config import Config
from model.model_directory import load, write_model_directory
from model.training import Trainer

#: The compiler reads torch's headers for some 20 seconds of one core.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SOURCE = Path(__file__).resolve().parents[1] / "deploy" / "cpp"
#: As in chat.cpp.
LONGEST = 100_000


def tool(name):
    """A program of this virtual environment, or else of the system, or None."""
    own = Path(sys.executable).with_name(name)
    return str(own) if own.exists() else shutil.which(name)


@pytest.fixture(scope="module")
def chat(pytestconfig):
    """Builds the program; what does not change is not compiled again at the next run."""
    cmake, compiler = tool("cmake"), shutil.which("g++")
    for name, found in (("cmake", cmake), ("g++", compiler)):
        if found is None:
            pytest.skip(f"{name} is not installed")
    key = hashlib.sha256(f"{torch.__version__} {torch.__file__}".encode()).hexdigest()[:12]
    built = Path(pytestconfig.cache.mkdir(f"chat-{key}"))
    settings = [f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"]
    settings += [f"-DCMAKE_CXX_COMPILER={compiler}"]
    for command in (
        [cmake, "-S", str(SOURCE), "-B", str(built), *settings],
        [cmake, "--build", str(built)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "chat.cpp" not in done.stderr, done.stderr  # no warnings in ours
    return built / "chat"


@pytest.fixture(scope="module")
def model(tmp_path_factory, tiny_data):
    """A model that has learnt the tiny corpus."""
    torch.set_num_threads(1)
    fields = {"hidden_size": 16, "batch_size": 16, "iterations": 150, "report_every": 150}
    fields |= {"learning_rate": 5e-3, "device": "cpu", "precision": "fp32"}
    trainer = Trainer(tiny_data, Config.from_mapping(fields))
    trainer.train_interval()
    directory = write_model_directory(
        tmp_path_factory.mktemp("models") / "m",
        weights=trainer.model.state_dict(),
        config=trainer.config,
        vocabulary=tiny_data.vocabulary,
        metrics={},
        lineage={},
    )
    return load(directory, device="cpu")


@pytest.fixture(scope="module")
def file(tmp_path_factory, model):
    """Its text-in text-out export; the name is beyond ASCII too."""
    file = tmp_path_factory.mktemp("exports") / "modèle text.pt"
    with quiet():
        build_text(model).save(str(file))
    return file


def say(chat, *arguments, lines=b"", **options):
    """What the program makes of its standard input."""
    if isinstance(lines, str):
        lines = lines.encode()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [chat, *arguments],
        input=lines,
        stderr=subprocess.PIPE,
        stdout=options.pop("stdout", subprocess.PIPE),
        env=environment,
        check=False,
        timeout=120,
        **options,
    )


_COLOURS = ("red", "green", "blue", "black", "white", "pink", "brown", "grey")
_DRESSED = (
    "{}",
    "{}!?",
    "Möchtest dü {} ?",
    "¿Do you like «{}» … or “grey” ?",
    "ÇA ME PLAÎT, {}.Non?",
    "do yo\u0301u like\u00a0{} or  blu\u0308e ?",  # combining marks, a no-break space
    "İ lİke {} — ſtraße, ΣΊΣΥΦΟΣ, Ω",
    "你好，{} 吗？🙂🇫🇷 \U0001d4b6",
    "ﬁne ② {}\u200b\ufeff\x00x\t\x0b\x1f",
    "\u202e{} Ж ŭ ǣ ʼn ẞ Å K",
    "{} \U0010ffff \ue000 \u0378",
    "do you like {} grey or white ?",
    "  I LIKE {} .\r",
)
SENTENCES = [
    dressed.format(colour if i % 2 else colour.upper())
    for i, colour in enumerate(_COLOURS)
    for dressed in _DRESSED
][:100]


def test_replies_equal_pythons_on_100_sentences(chat, file, model):
    done = say(chat, file, lines="\n".join(SENTENCES))  # no line feed at the end of the last
    assert (done.returncode, done.stderr) == (0, b"")
    replies = done.stdout.decode().split("\n")
    assert replies.pop() == ""
    assert replies == [model.reply(text) for text in SENTENCES]
    assert len(SENTENCES) == 100
    assert sum(not text.isascii() for text in SENTENCES) > 50
    assert len(set(replies)) > 4


@pytest.mark.parametrize("word", ["quit", "Q", " EXIT \r"])
def test_leaves_when_told_to(chat, file, model, word):
    done = say(chat, file, lines=f"i like red .\n{word}\ni like red .\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == model.reply("i like red .") + "\n"


def test_lines_without_words_have_empty_replies(chat, file, model):
    done = say(chat, file, lines="\n \n123 ♥\nquitter\n")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == "\n\n\n" + model.reply("quitter") + "\n"


def test_nothing_said(chat, file):
    done = say(chat, file)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_long_line_is_read_whole(chat, file, model):
    text = "do you like red " * 200
    assert say(chat, file, lines=text).stdout.decode() == model.reply(text) + "\n"


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"caf\xe9", b"is not UTF-8 at byte 4"),  # Latin-1
        (b"a\xc0\xaf", b"is not UTF-8 at byte 2"),  # an overlong form
        (b"\xe0\x80\x80", b"is not UTF-8 at byte 1"),
        (b"abc \xed\xa0\x80", b"is not UTF-8 at byte 5"),  # a surrogate
        (b"\xf4\x90\x80\x80", b"is not UTF-8 at byte 1"),  # beyond U+10FFFF
        (b"\xf0\x9f\x99", b"is not UTF-8 at byte 1"),  # cut off
        (b"\x80", b"is not UTF-8 at byte 1"),
        (b"a" * (LONGEST + 1), b"is longer than 100000 bytes"),
    ],
)
def test_bad_lines_are_refused_and_the_others_answered(chat, file, model, line, problem):
    done = say(chat, file, lines=b"i like red .\n" + line + b"\ndo you like grey ?\n")
    assert done.returncode == 1
    assert done.stderr == b"error: line 2: " + problem + b".\n"
    expected = [model.reply("i like red ."), "", model.reply("do you like grey ?"), ""]
    assert done.stdout.decode().split("\n") == expected


def test_the_longest_line_is_taken(chat, file):
    done = say(chat, file, lines=b" " * (LONGEST - 3) + b"red")
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_prompt_in_a_terminal(chat, file, model):
    ours, theirs = pty.openpty()
    os.write(ours, b"do you like red ?\n\n123\nquit\n")
    with open(theirs, "rb") as terminal:  # noqa: PTH123 - a descriptor
        done = subprocess.run(
            [chat, file], stdin=terminal, capture_output=True, check=False, timeout=120
        )
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode() == (
        f"Talking to {file}. An empty line is passed over; 'quit', 'q' or Ctrl-D leaves.\n"
        f"you> bot> {model.reply('do you like red ?')}\n"
        "you> you> bot> (no words that I can read)\nyou> "
    )


def test_standard_output_that_cannot_be_written(chat, file):
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "wb") as full:  # noqa: PTH123
        done = say(chat, file, lines=b"i like red .\n" * 3, stdout=full)
    assert done.returncode == 1
    assert done.stderr == b"error: standard output cannot be written.\n"


class TestBadFiles:
    def refused(self, chat, *arguments):
        done = say(chat, *arguments, lines="i like red .\n")
        assert (done.returncode, done.stdout) == (2, b"")
        return done.stderr.decode()

    def test_missing(self, chat, tmp_path):
        file = tmp_path / "gone.pt"
        assert self.refused(chat, file) == f"error: {file}: there is no such file.\n"

    def test_a_directory(self, chat, model):
        assert self.refused(chat, model.path) == f"error: {model.path}: is not a file.\n"

    @pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04" + bytes(1000)])
    def test_not_a_model(self, chat, tmp_path, content):
        file = tmp_path / "other.pt"
        file.write_bytes(content)
        said = self.refused(chat, file)
        assert said.startswith(f"error: {file}: is not a TorchScript file, or a damaged one: ")
        assert said.count("\n") == 1

    def test_weights_alone(self, chat, model):
        said = self.refused(chat, model.path / "weights.pt")
        assert "is not a TorchScript file, or a damaged one: " in said

    def test_cut_off(self, chat, file, tmp_path):
        damaged = tmp_path / "damaged.pt"
        damaged.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
        assert "is not a TorchScript file, or a damaged one: " in self.refused(chat, damaged)

    def test_a_model_of_words_in_numbers(self, chat, model, tmp_path):
        file = tmp_path / "tensors.pt"
        with quiet():
            build(model).save(str(file))
        assert self.refused(chat, file) == (
            f"error: {file}: is a TorchScript file, but not one that takes and gives texts; "
            "make one with: python -m analysis export MODEL --kind text.\n"
        )

    @pytest.mark.parametrize("count", [0, 2])
    def test_not_one_file(self, chat, file, count):
        said = self.refused(chat, *[file] * count)
        assert said == f"usage: chat FILE\nerror: expected one file, but got {count} arguments.\n"

    def test_help(self, chat):
        done = say(chat, "--help")
        assert (done.returncode, done.stderr) == (0, b"")
        assert done.stdout.startswith(b"usage: chat FILE\n")

"""Fixtures shared by all tests: a tiny data set that trains in milliseconds."""

import signal
from pathlib import Path

import pytest
import torch

from model.cli import run_main
from model.config import Config, DataConfig
from model.corpora import Corpus
from model.dialogue import Dialogue
from model.preparation import prepare_corpus
from model.prepared_data import PreparedData

# A shell that runs us in the background ignores Ctrl-C; so would every process that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

CORPORA = Path(__file__).resolve().parents[2] / "shared" / "data"

_WORDS = ("red", "green", "blue", "black", "white", "pink", "brown", "grey")


def exit_status(main, *arguments):
    """The exit status of a command line, run in this process."""
    try:
        return run_main(main, [str(argument) for argument in arguments])
    except SystemExit as stopped:  # argparse
        return stopped.code


def tiny_corpus(dialogues: int = 120) -> Corpus:
    """Dialogues of a pattern: the last of the colours asked about is the one that is liked."""
    lines = []
    for i in range(dialogues):
        first, second, third = _WORDS[i % 8], _WORDS[(i // 8) % 8], _WORDS[(i + i // 64) % 8]
        question = f"do you like {first} {second} or {third} ?"
        lines.append(Dialogue((question, f"i like {third} .", f"{third} is nice")))
    return Corpus(name="tiny", dialogues=lines)


@pytest.fixture(scope="session")
def tiny_data() -> PreparedData:
    config = DataConfig(corpus="tiny", min_count=1, validation_share=0.2, test_share=0.2)
    return prepare_corpus(tiny_corpus(), config)


@pytest.fixture
def tiny_config():
    """Builds a small configuration; keyword arguments change fields."""

    def build(**values) -> Config:
        small = {
            "hidden_size": 16,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "batch_size": 8,
            "iterations": 12,
            "report_every": 4,
            "learning_rate": 1e-3,
            "device": "cpu",
        }
        return Config.from_mapping(small | values)

    return build


@pytest.fixture(autouse=True)
def one_thread():
    """Sums in one order, so that equal means equal; and two cores are soon oversubscribed."""
    torch.set_num_threads(1)

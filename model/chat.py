"""Talking to a model, in a terminal or through a pipe."""

from __future__ import annotations

import contextlib
import io
import sys
from typing import TextIO

from model.model_directory import DialogueModel

_GOODBYES = ("q", "quit", "exit")


def chat(model: DialogueModel, lines: TextIO, replies: TextIO) -> None:
    """Replies to each line, until the end of the input or "quit".

    In a terminal there is a prompt, and the arrow keys bring back earlier lines; through a pipe
    there is one reply for each line, and nothing else.
    """
    if isinstance(lines, io.TextIOWrapper):
        lines.reconfigure(errors="replace")  # bytes that are no text are words nobody knows
    if lines is sys.stdin and lines.isatty():
        _converse(model)
        return
    for line in lines:
        if line.strip().lower() in _GOODBYES:
            return
        print(model.reply(line), file=replies, flush=True)


def _converse(model: DialogueModel) -> None:
    with contextlib.suppress(ImportError):  # some builds of Python lack it
        import readline  # noqa: F401 - gives `input` its line editing and history

    print(f"Talking to {model.path}. An empty line is passed over; 'quit', 'q' or Ctrl-D leaves.")
    while True:
        try:
            line = input("you> ")
        except EOFError:
            print()
            return
        if line.strip().lower() in _GOODBYES:
            return
        if line.strip():
            print(f"bot> {model.reply(line) or '(no words that I can read)'}")

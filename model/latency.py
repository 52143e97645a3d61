"""How long a model takes to reply, for searches that weigh that against how well it does."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from model.decoding import NEVER_SAID, Stepper, best_word
from model.seq2seq import Seq2Seq
from model.vocabulary import SOS, UNK


@torch.inference_mode()
def reply_milliseconds(model: Seq2Seq, *, words: int = 10, calls: int = 10) -> float:
    """Time of one greedy reply, from the source's token ids to the reply's.

    One source at a time, as in a chat. Source and reply have a fixed length, whatever the model
    would say, so that two models are compared by their speed and not by their talkativeness.

    Args:
        model: On the device to measure.
        words: Length of source and reply.
        calls: Replies that are timed, after one that is not. The fastest counts, as in Python's
            `timeit`: what the others took longer for is the other work of the machine.

    Returns:
        Milliseconds. They are comparable only between trials on the same kind of machine, with as
        many threads.
    """
    device = model.embedding.weight.device
    stepper = Stepper(model)
    source = torch.full((1, words), UNK, device=device)
    never = torch.tensor(NEVER_SAID, device=device)

    def reply() -> None:
        encoded = model.encode(source, torch.tensor([words]), stepper.dtype)
        state = list(encoded.state)
        word = torch.tensor([SOS], device=device)
        for _ in range(words):
            scores, state = stepper.step(word, state, encoded)
            word = best_word(scores, never)
        word.item()  # waits for the device

    reply()
    return 1000 * min(_seconds(reply) for _ in range(calls))


def _seconds(call: Callable[[], None]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started

"""Which part of the model an operator belongs to, forward and backward.

**Forward.** `marked` wraps the functions where a component begins, from the outside and only within
its block, in ranges that the PyTorch profiler records; the innermost range around an operator is
its component. The model's own code knows nothing of it.

**Backward.** Every node of the autograd graph has a number, counted up as nodes are made, and the
profiler says the number of each node that it sees run. So it is enough to note the next number
whenever a component begins or ends (`Marks`): a node belongs to the component in which it was made.

Two places cannot be told apart that way, and are told apart by rule in `component_of_events`:
gradients being added up (``AccumulateGrad``, which has no number) belong to the node before them,
for the engine runs them at once; and within the gradient of output layer and loss, which is one
node, the products are the output layer's.
"""

from __future__ import annotations

import functools
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch._C._autograd import DeviceType, _get_sequence_nr

import model.decoding
import model.loss
import model.model_directory
import model.seq2seq
from model.batching import Batches
from model.decoding import Stepper
from model.optim import Optimizers
from model.seq2seq import Seq2Seq
from model.training import Trainer

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

#: What the ranges are called in a trace.
PREFIX = "component: "
EMBEDDING, ENCODER, ATTENTION, DECODER = "embedding", "encoder", "attention", "decoder"
OUTPUT, LOSS, OPTIMIZER = "output layer", "loss", "optimizer"
BATCH, SEARCH, OTHER = "batch", "search", "other"
#: Every component, in the order of a step, and what it holds.
COMPONENTS = {
    BATCH: "gathering the batch, drawing dropout masks",
    EMBEDDING: "looking words up; in training, the table's gradient",
    ENCODER: "its GRU layers",
    DECODER: "its GRU layers, and the layer that joins state and context",
    ATTENTION: "scores, softmax and context vectors",
    OUTPUT: "projection onto the vocabulary",
    SEARCH: "choosing each next word, dropping the rows that have ended",
    LOSS: "softmax and negative log-likelihood",
    OPTIMIZER: "gradient norms, clipping, updates",
    OTHER: "what belongs to none of them: Python and layout between them",
}

_EVALUATE = "autograd::engine::evaluate_function: "
_ACCUMULATE = "AccumulateGrad"
#: Of the one node that is the gradient of output layer and loss, what is the loss's.
_TOKEN_LOSS = "_TokenLossBackward"
_LOSS_OPERATORS = frozenset({"aten::mul_", "aten::neg", "aten::scatter_add_", "aten::unsqueeze"})


@dataclass
class Marks:
    """Where components begin and end, in numbers of the autograd graph's nodes.

    Attributes:
        changes: (number of the next node, component from there on), in the order of time.
    """

    changes: list[tuple[int, str]] = field(default_factory=lambda: [(0, OTHER)])
    _open: list[str] = field(default_factory=lambda: [OTHER])

    @contextmanager
    def range(self, component: str) -> Iterator[None]:
        """A block that belongs to a component, but for what belongs to another within."""
        self._open.append(component)
        self._note()
        try:
            with torch.profiler.record_function(PREFIX + component):
                yield
        finally:
            self._open.pop()
            self._note()

    def within(self, component: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, each call of it a range."""

        @functools.wraps(function)
        def ranged(*arguments: Any, **options: Any) -> Any:
            with self.range(component):
                return function(*arguments, **options)

        return ranged

    def of_node(self, number: int) -> str:
        """The component in which a node of the autograd graph was made."""
        # Of changes at the same number the last counts: no node was made between them.
        return self.changes[bisect_right(self.changes, number, key=lambda c: c[0]) - 1][1]

    def _note(self) -> None:
        self.changes.append((_get_sequence_nr(), self._open[-1]))


@contextmanager
def marked(net: Seq2Seq) -> Iterator[Marks]:
    """Ranges around the components of a model, while the block lasts.

    Args:
        net: The model; of it, and of the modules that train and decode, some functions are wrapped
            and put back at the end, whatever happens.

    Yields:
        What a profiler needs besides its events.
    """
    marks = Marks()
    wrapped: list[tuple[Any, str, str]] = [
        (Batches, "at", BATCH),
        (Trainer, "_dropout", BATCH),
        (net.embedding, "forward", EMBEDDING),
        (net, "encode", ENCODER),
        (net, "encode_packed", ENCODER),
        (net, "decode_packed", DECODER),
        (net.decoder.score, "forward", ATTENTION),
        (model.seq2seq, "attend", ATTENTION),
        (model.decoding, "attend", ATTENTION),
        (model.loss, "linear", OUTPUT),
        (model.loss, "draw_words", SEARCH),
        (model.model_directory, "greedy", SEARCH),
        (model.loss, "_losses", LOSS),
        (Optimizers, "zero_grad", OPTIMIZER),
        (Optimizers, "clip_gradients", OPTIMIZER),
        (Optimizers, "step", OPTIMIZER),
    ]
    with ExitStack() as stack:
        for owner, name, component in wrapped:
            stack.enter_context(_replaced(owner, name, marks.within(component, _of(owner, name))))
        stack.enter_context(_steps_marked(marks))
        yield marks


@contextmanager
def _steps_marked(marks: Marks) -> Iterator[None]:
    """Ranges within a step of `Stepper`: it looks words up in a table and calls `linear` alike."""
    outputs: list[Tensor] = []  # weights of the output layer, of the steps under way
    step, linear = Stepper.step, _of(model.decoding, "linear")

    def marked_step(stepper: Stepper, *arguments: Any, **options: Any) -> Any:
        table = stepper.table
        stepper.table = _Table(table, marks)  # type: ignore[assignment]
        outputs.append(stepper.output[0])
        try:
            with marks.range(DECODER):
                return step(stepper, *arguments, **options)
        finally:
            outputs.pop()
            stepper.table = table

    def marked_linear(inputs: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if outputs and weight is outputs[-1]:
            with marks.range(OUTPUT):
                product: Tensor = linear(inputs, weight, bias)
        else:
            product = linear(inputs, weight, bias)
        return product

    with (
        _replaced(Stepper, "step", marked_step),
        _replaced(model.decoding, "linear", marked_linear),
    ):
        yield


@dataclass(frozen=True)
class _Table:
    """A table whose look-up is a range."""

    table: Tensor
    marks: Marks

    def __getitem__(self, words: Tensor) -> Tensor:
        with self.marks.range(EMBEDDING):
            return self.table[words]


def _of(owner: Any, name: str) -> Callable[..., Any]:
    function: Callable[..., Any] = getattr(owner, name)
    return function


@contextmanager
def _replaced(owner: Any, name: str, replacement: Any) -> Iterator[None]:
    """Another value of an attribute; in the end the owner has what it had itself, or nothing."""
    had = vars(owner).get(name, _NOTHING)
    setattr(owner, name, replacement)
    try:
        yield
    finally:
        if had is _NOTHING:
            delattr(owner, name)
        else:
            setattr(owner, name, had)


_NOTHING = object()


@dataclass(frozen=True)
class Place:
    """Where an operator ran: in which component, and in which pass of it."""

    component: str
    backward: bool = False


def component_of_events(
    events: Iterable[FunctionEvent], marks: Marks
) -> list[tuple[FunctionEvent, Place]]:
    """The place of every event on the CPU, in the order of their start.

    Args:
        events: Of ``profile.events()``, whose parents are known.
        marks: Made while they were recorded.
    """
    places: dict[int, Place] = {}
    before: dict[int, Place] = {}  # of each thread's last node with a number
    found = []
    on_cpu = [e for e in events if e.device_type == DeviceType.CPU]
    for event in sorted(on_cpu, key=lambda e: (e.time_range.start, -e.time_range.end)):
        place = _place(event, marks, places, before)
        places[id(event)] = place
        found.append((event, place))
    return found


def _place(
    event: FunctionEvent, marks: Marks, places: dict[int, Place], before: dict[int, Place]
) -> Place:
    if event.name.startswith(PREFIX):
        return Place(event.name.removeprefix(PREFIX))
    if event.name.startswith(_EVALUATE):
        return _node_place(event, marks, before)
    parent = event.cpu_parent
    if parent is None:
        return Place(OTHER)
    place = places.get(id(parent), Place(OTHER))
    if parent.name == _TOKEN_LOSS and event.name not in _LOSS_OPERATORS:
        return Place(OUTPUT, backward=True)
    return place


def _node_place(event: FunctionEvent, marks: Marks, before: dict[int, Place]) -> Place:
    """Of a node of the autograd graph being run."""
    if event.name.endswith(_ACCUMULATE):
        return before.get(event.thread, Place(OTHER, backward=True))
    numbers = [event.sequence_nr, *(child.sequence_nr for child in event.cpu_children)]
    number = next((n for n in numbers if n >= 0), None)
    component = OTHER if number is None else marks.of_node(number)
    before[event.thread] = Place(component, backward=True)
    return before[event.thread]

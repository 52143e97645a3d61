"""The figures of a profile: shares by component, tables by operator and by kernel.

All times are means over the recorded steps, in milliseconds a step. On the CPU an operator's own
time is the time of the thread that runs the step, without the operators within it; so the own times
add up to the whole. On a GPU it is the time of the kernels that it launched.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from torch._C._autograd import DeviceType

from analysis.profiling.components import COMPONENTS, OTHER, Place

if TYPE_CHECKING:
    from torch.autograd.profiler_util import FunctionEvent

#: The row of the time between operators, on the CPU: Python, and the profiler itself.
BETWEEN = "(between operators)"
_MICROSECONDS = 1000.0


@dataclass(frozen=True, kw_only=True)
class Share:
    """The time of one component.

    Attributes:
        component: One of `COMPONENTS`.
        milliseconds: A step.
        share: Of the whole, in [0, 1]; the shares of a profile add up to 1.
        forward, backward: Milliseconds of either pass.
    """

    component: str
    milliseconds: float
    share: float
    forward: float
    backward: float


@dataclass(frozen=True, kw_only=True)
class Operator:
    """One operator, or one at the same shapes of its inputs.

    Attributes:
        name: As torch names it.
        shapes: Of its inputs, as text; None in the table that does not tell shapes apart.
        calls: A step.
        self_ms, total_ms: On the CPU, without and with the operators within it, a step.
        device_ms: Of the kernels that it launched itself, a step; None on the CPU.
        share: Of all time: of the CPU's, or of the GPU's.
        memory_bytes: Allocated by itself less what it freed, a step.
    """

    name: str
    shapes: str | None
    calls: float
    self_ms: float
    total_ms: float
    device_ms: float | None
    share: float
    memory_bytes: float


@dataclass(frozen=True, kw_only=True)
class Kernel:
    """One kernel of a GPU; calls and milliseconds a step, and its share of all kernels' time."""

    name: str
    calls: float
    milliseconds: float
    share: float


class Placed(NamedTuple):
    """An event on the CPU, where it belongs, and its own microseconds."""

    event: FunctionEvent
    place: Place
    own: float


@dataclass(frozen=True)
class Recorded:
    """The events of some steps, each with its place.

    Attributes:
        placed: Events on the CPU and their places, in the order of their start.
        kernels: Events on the GPU.
        name: Of the range that holds a step.
        steps: How many.
    """

    placed: Sequence[tuple[FunctionEvent, Place]]
    kernels: Sequence[FunctionEvent]
    name: str
    steps: int

    @cached_property
    def inside(self) -> list[Placed]:
        """The events of the steps, without what the profiler does around them."""
        known: set[int] = set()
        found = []
        for event, place in self.placed:
            parent = event.cpu_parent
            if event.name == self.name or (parent is not None and id(parent) in known):
                known.add(id(event))
                found.append(Placed(event, place, event.self_cpu_time_total))
        return found

    @cached_property
    def everywhere(self) -> list[Placed]:
        """All events: on a GPU the backward pass runs in a thread of its own."""
        return [Placed(e, place, e.self_cpu_time_total) for e, place in self.placed]

    def whole_ms(self) -> float:
        """A step, as the profiler saw it."""
        steps = (event for event, _ in self.placed if event.name == self.name)
        return sum(map(microseconds, steps)) / _MICROSECONDS / self.steps


def kernel_places(recorded: Recorded) -> list[tuple[FunctionEvent, Place]]:
    """The place of every kernel: that of the operator that launched it."""
    launchers = {e.id: place for e, place in recorded.placed if e.linked_correlation_id == 0}
    return [(k, launchers.get(k.linked_correlation_id, Place(OTHER))) for k in recorded.kernels]


def shares(recorded: Recorded) -> list[Share]:
    """The time of each component that took any, and of what belongs to none; the largest first."""
    times: dict[Place, float] = defaultdict(float)
    if recorded.kernels:
        for kernel, place in kernel_places(recorded):
            times[place] += microseconds(kernel)
    else:
        for _, place, own in recorded.inside:
            times[place] += own
    whole = sum(times.values())
    scale = _MICROSECONDS * recorded.steps
    found = []
    for component in COMPONENTS:
        forward, backward = (times.get(Place(component, b), 0.0) for b in (False, True))
        if forward or backward or component == OTHER:
            found.append(
                Share(
                    component=component,
                    milliseconds=(forward + backward) / scale,
                    share=(forward + backward) / whole if whole else 0.0,
                    forward=forward / scale,
                    backward=backward / scale,
                )
            )
    return sorted(found, key=lambda share: (share.component == OTHER, -share.share))


def operators(recorded: Recorded, *, by_shape: bool = False) -> list[Operator]:
    """The operators of a step, those first that take the most time of their own."""
    on_gpu = bool(recorded.kernels)
    launched: dict[int, float] = defaultdict(float)
    for kernel in recorded.kernels:
        launched[kernel.linked_correlation_id] += microseconds(kernel)
    rows = recorded.everywhere if on_gpu else recorded.inside
    groups: dict[tuple[str, str | None], list[Placed]] = defaultdict(list)
    for row in rows:
        name = BETWEEN if row.event.is_user_annotation else row.event.name
        shapes = shapes_of(row.event) if by_shape and name != BETWEEN else None
        groups[name, shapes].append(row)
    whole = sum(launched.values()) if on_gpu else sum(row.own for row in rows)
    found = [
        _operator(key, group, launched if on_gpu else None, whole, recorded.steps)
        for key, group in groups.items()
    ]
    return sorted(found, key=lambda o: (-o.share, -o.self_ms, o.name, o.shapes or ""))


def _operator(
    key: tuple[str, str | None],
    rows: Sequence[Placed],
    launched: dict[int, float] | None,
    whole: float,
    steps: int,
) -> Operator:
    name, shapes = key
    scale = _MICROSECONDS * steps
    events = [row.event for row in rows]
    own = sum(row.own for row in rows)
    device = None if launched is None else sum(launched.get(event.id, 0.0) for event in events)
    memory = sum(e.self_cpu_memory_usage + e.self_device_memory_usage for e in events)
    counted = own if device is None else device
    return Operator(
        name=name,
        shapes=shapes,
        calls=len(events) / steps,
        self_ms=own / scale,
        total_ms=(own if name == BETWEEN else sum(map(microseconds, events))) / scale,
        device_ms=None if device is None else device / scale,
        share=counted / whole if whole else 0.0,
        memory_bytes=memory / steps,
    )


def microseconds(event: FunctionEvent) -> float:
    """How long it took, with everything within."""
    return float(event.time_range.end - event.time_range.start)


def shapes_of(event: FunctionEvent) -> str:
    """The shapes of an operator's inputs, such as ``[64, 500] [500]``; numbers have none.

    Those of a list of tensors stand in brackets of their own: ``([64, 500] [500])``.
    """
    inputs: Any = event.structured_input_shapes or event.input_shapes or ()
    return " ".join(text for text in map(_shape_text, inputs) if text)


def _shape_text(shape: Any) -> str:
    if not len(shape):
        return ""
    if isinstance(shape[0], int):
        return str(list(shape))
    return f"({' '.join(str(list(one)) for one in shape)})"


def kernels(recorded: Recorded) -> list[Kernel]:
    """The kernels of a step, those first that take the most time; none on the CPU."""
    calls: Counter[str] = Counter()
    times: dict[str, float] = defaultdict(float)
    for event in recorded.kernels:
        calls[event.name] += 1
        times[event.name] += microseconds(event)
    whole = sum(times.values())
    found = [
        Kernel(
            name=name,
            calls=calls[name] / recorded.steps,
            milliseconds=time / _MICROSECONDS / recorded.steps,
            share=time / whole if whole else 0.0,
        )
        for name, time in times.items()
    ]
    return sorted(found, key=lambda kernel: (-kernel.milliseconds, kernel.name))


def kernel_events(events: Iterable[FunctionEvent]) -> list[FunctionEvent]:
    """The kernels and copies of a GPU, without the shadows that ranges cast on it."""
    return [
        event
        for event in events
        if event.device_type != DeviceType.CPU
        and not event.is_user_annotation
        and event.activity_type != "gpu_user_annotation"
    ]

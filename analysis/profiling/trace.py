"""A profile as a Chrome trace, for https://ui.perfetto.dev or chrome://tracing.

To what torch's profiler writes, a track "components" is added, which shows the component of every
moment of the recorded steps, of the backward pass too, where the profiler itself knows of none.
"""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from analysis.profiling.components import Place
from analysis.profiling.figures import microseconds
from model.errors import ConfigurationError
from model.files import atomic_write

if TYPE_CHECKING:
    import torch
    from torch.autograd.profiler_util import FunctionEvent

SUFFIXES = (".json", ".json.gz")
#: Number of the added track; threads of the system have smaller ones on Linux.
_TRACK = 2**31 - 1
_TRACK_NAME = "components"


@dataclass(frozen=True)
class Trace:
    """The recorded steps, to be written to a file.

    Attributes:
        profiler: That recorded them; None of nothing.
        placed: The events of the steps on the CPU, with their places, in the order of their start.
    """

    profiler: torch.profiler.profile | None
    placed: Sequence[tuple[FunctionEvent, Place]]

    def write(self, file: Path) -> Path:
        """Writes a ``.json`` or ``.json.gz`` file, whole or not at all.

        Raises:
            ConfigurationError: where the file has another suffix.
            StorageError: where it cannot be written.
        """
        check_suffix(file)
        assert self.profiler is not None
        with tempfile.TemporaryDirectory() as directory:
            plain = Path(directory) / "trace.json"
            self.profiler.export_chrome_trace(str(plain))
            trace = json.loads(plain.read_text(encoding="utf-8", errors="replace"))
        trace["traceName"] = file.name
        trace["traceEvents"] += self._track(trace["traceEvents"])
        content = json.dumps(trace, separators=(",", ":")).encode()
        atomic_write(file, gzip.compress(content, mtime=0) if file.suffix == ".gz" else content)
        return file

    def _track(self, written: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """The events of the added track."""
        if not self.placed:
            return []
        first = self.placed[0][0]
        # A trace counts from another moment than the profiler's events do.
        same = [e for e in written if e.get("ph") == "X" and e.get("name") == first.name]
        at = min(same, key=lambda e: float(e["ts"]))
        shift = float(at["ts"]) - first.time_range.start
        common = {"pid": at["pid"], "tid": _TRACK}
        name = {"ph": "M", "name": "thread_name", "args": {"name": _TRACK_NAME}}
        first_row = {"ph": "M", "name": "thread_sort_index", "args": {"sort_index": -1}}
        return [common | name, common | first_row] + [
            common
            | {
                "ph": "X",
                "cat": "component",
                "name": f"{place.component} (backward)" if place.backward else place.component,
                "ts": round(event.time_range.start + shift, 3),
                "dur": round(microseconds(event), 3),
            }
            for event, place in self._changes()
        ]

    def _changes(self) -> Iterator[tuple[FunctionEvent, Place]]:
        """The events whose place is not that of the event around them."""
        places = {id(event): place for event, place in self.placed}
        for event, place in self.placed:
            parent = event.cpu_parent
            if parent is None or places.get(id(parent)) != place:
                yield event, place


def check_suffix(file: Path) -> None:
    """Refuses a file name that says nothing of a trace, before any work is done.

    Raises:
        ConfigurationError: where the file has another suffix.
    """
    if not file.name.endswith(SUFFIXES):
        raise ConfigurationError(
            "command line", [f"--trace: must end in {' or '.join(SUFFIXES)}, but is {file}."]
        )

"""The project's errors, a small tree that callers can catch at the level they need.

DialogueTuneError
 |-- ConfigurationError      a configuration or sweep file with one or more problems
 |-- CorpusError
 |    |-- CorpusNotFoundError    a corpus that is not there, with what to download
 |    |-- CorpusFormatError      a file or a line that is not what its format promises
 |    +-- EmptyCorpusError       nothing left to learn from
 |-- PreparedDataError       a prepared data set that is damaged, foreign or too new
 |-- CheckpointError         a checkpoint that is damaged, foreign or too new
 |-- ModelDirectoryError     a model directory that is damaged, missing or too new
 |-- ExperimentError         an experiment that is unknown, taken, or unreadable
 |-- ExportError             a model that cannot be exported, or a file that is no export
 |    +-- ParityError            an export that says something else than its model
 |-- BenchmarkError          a benchmark of a model without the device or the attention it needs
 |-- ResourceError           more resources asked for than the cluster has
 |    |-- PreflightError         a search that cannot run on a cluster as it is (tuning.preflight)
 |    +-- GpuMemoryError         a configuration that does not fit into its part of a GPU
 |-- StorageError            a place to write that is full, read-only or away
 +-- PreemptedError          a trial leaves its node, which its cloud takes back

Every error keeps its arguments, so that it survives pickling between processes.
A command line catches ``DialogueTuneError``, prints it without a traceback and exits with 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


class DialogueTuneError(Exception):
    """Base of every error that this project raises on purpose."""


class ConfigurationError(DialogueTuneError):
    """A configuration with problems, all of them reported at once.

    Args:
        source: What was read, normally a file name; shown before each problem.
        problems: One line each, ``key.path: what is wrong and what would be right``.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source = source
        self.problems = tuple(problems)
        super().__init__(source, self.problems)

    def __str__(self) -> str:
        return "\n".join(f"{self.source}: {problem}" for problem in self.problems)


class CorpusError(DialogueTuneError):
    """Something is wrong with a corpus."""


class CorpusNotFoundError(CorpusError):
    """A corpus is not where it was looked for; the message says what to put there."""


class CorpusFormatError(CorpusError):
    """A corpus file is not in the format that its reader expects.

    Args:
        file: The file at fault.
        problem: What is wrong, with the offending value.
        line: Line number from 1, or None where the whole file is at fault.
    """

    def __init__(self, file: str | Path, problem: str, line: int | None = None) -> None:
        self.file = str(file)
        self.problem = problem
        self.line = line
        super().__init__(self.file, problem, line)

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.problem}"


class EmptyCorpusError(CorpusError):
    """No example is left after filtering; the message says which filter took them."""


class PreparedDataError(DialogueTuneError):
    """A prepared data set cannot be used: damaged, not one of ours, or a newer format."""


class CheckpointError(DialogueTuneError):
    """A checkpoint cannot be used: damaged, not one of ours, or of another configuration."""


class ModelDirectoryError(DialogueTuneError):
    """A model directory or model reference cannot be used: damaged, missing, or too new."""


class ExperimentError(DialogueTuneError):
    """An experiment is unknown, already there, still running elsewhere, or unreadable."""


class ExportError(DialogueTuneError):
    """An export cannot be made or opened."""


class ParityError(ExportError):
    """An export says something else than the model; the message has the figures."""


class BenchmarkError(DialogueTuneError):
    """Nothing can be measured: no such device, no decoder like it, a side failed, no input."""


class ResourceError(DialogueTuneError):
    """A trial asks for more than any node of the cluster can ever give."""


class GpuMemoryError(ResourceError):
    """A configuration needs more memory than its GPU has for it."""


class StorageError(DialogueTuneError):
    """A file could not be written: the place is full, read-only, or away."""


class PreemptedError(DialogueTuneError):
    """A trial leaves its node, which is taken back; it goes on elsewhere where it was."""

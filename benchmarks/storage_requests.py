"""How many requests a trial makes of an object store, and what they cost.

    python benchmarks/storage_requests.py

Asks a server that speaks S3 (moto's, on this machine) what it was asked while a trial's files are
written as its process writes them: for a report that is the best so far, for a checkpoint (in the
steady state: the third oldest is removed), by an attempt after a restart, and at a trial's end. The
counts are those of Amazon's S3 too, where its client does not repeat a request. Large files are
sent in parts, each of which is a request.

Dear are the requests that S3 charges as PUT, COPY, POST and LIST, cheap the others (GET, HEAD);
DELETE is free. Prices are for a thousand in US East, in dollars
(https://aws.amazon.com/s3/pricing/).
"""

from __future__ import annotations

import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.side_by_side import (  # noqa: E402
    add_output_options,
    make_parser,
    shown,
    write_json,
)
from model.cli import run_main  # noqa: E402
from tests.tuning.storage.object_store import ObjectStore  # noqa: E402

#: Dollars for a thousand requests.
DEAR, CHEAP = 0.005, 0.0004
#: Megabytes of weights: of a tiny model, and of the published size.
SIZES = (1, 73)
_SETTLE_SECONDS = 0.3
_CLASSES = ("dear", "cheap", "free")


Action = Callable[[], object]


def charged(request: str) -> str:
    """How S3 charges a request, of which method and path are given."""
    method, path = request.split(" ", 1)
    if method == "DELETE":
        return "free"
    listing = method == "GET" and re.search(r"[?&](list-type|prefix|delimiter)=", path)
    return "dear" if method in ("PUT", "POST") or listing else "cheap"


def cost(counts: Mapping[str, int]) -> float:
    """Dollars for a thousand times these requests."""
    return counts["dear"] * DEAR + counts["cheap"] * CHEAP


def actions(experiment: Any, trial: int, megabytes: int) -> Iterable[tuple[str, Action]]:
    """What is done with a trial's files, in order; what has no name is not counted.

    Args:
        experiment: Where it is kept.
        trial: Its number.
        megabytes: Of its weights; a checkpoint has three times as much, for Adam's two moments.
    """
    import torch

    from tuning.trials.trial_files import TrialFiles

    files, again = TrialFiles(experiment, trial, 1), TrialFiles(experiment, trial, 2)
    weights, state = (torch.zeros(times * megabytes * 250_000) for times in (1, 3))

    def save(to: TrialFiles, iteration: int) -> Action:
        return partial(to.save, {"iteration": iteration, "state": state})

    def best(to: TrialFiles) -> Action:
        return partial(to.save_best, {"iteration": 300, "weights": weights})

    size = f"{megabytes} MB"
    yield "", save(files, 100)
    yield "", save(files, 200)
    yield f"best weights, {size}", best(files)
    yield f"checkpoint, {size} of weights", save(files, 300)
    yield f"end of a trial, {size}", TrialFiles(experiment, trial).remove_checkpoints
    yield f"taking over, {size}", again.take_over
    yield f"best weights, restarted, {size}", best(again)


def sendings(experiment: Any) -> Iterable[tuple[str, Action]]:
    """What the driver sends every two seconds: the newest segment of the journal."""
    segment = experiment / "journal" / "000001.jsonl"
    for megabytes in (1, 10):  # what the driver sends every two seconds
        yield f"journal, {megabytes} MB", partial(segment.write, bytes(megabytes * 10**6))


def count() -> dict[str, dict[str, int]]:
    """The requests of each action, by how they are charged."""
    from tuning.experiment import MANIFEST
    from tuning.storage.place import place

    found = {}
    with tempfile.TemporaryDirectory() as directory:
        store = ObjectStore(Path(directory) / "log")  # type: ignore[no-untyped-call]
        try:
            with mock.patch.dict(os.environ, store.environment):
                store.make("bucket")  # type: ignore[no-untyped-call]
                experiment = place("s3://bucket/runs/search")
                (experiment / MANIFEST).write(b"{}")  # type: ignore[union-attr]
                todo = [actions(experiment, i, size) for i, size in enumerate(SIZES)]
                for name, action in chain(*todo, sendings(experiment)):
                    before = len(_answered(store))
                    action()
                    new = Counter(charged(each) for each in _answered(store)[before:])
                    if name:
                        found[name] = {each: new[each] for each in _CLASSES}
        finally:
            store.close()  # type: ignore[no-untyped-call]
    return found


def _answered(store: ObjectStore) -> list[str]:
    """The requests so far; the server writes them down just after it has answered."""
    time.sleep(_SETTLE_SECONDS)
    requests: list[str] = store.requests()  # type: ignore[no-untyped-call]
    return requests


def report(results: Mapping[str, Any], markdown: bool = False) -> str:
    """The results as a table."""
    rows = [
        (name, *(counts[each] for each in _CLASSES), f"{cost(counts):.4f}")
        for name, counts in results["requests"].items()
    ]
    headers = ["what", "PUT, COPY, POST, LIST", "GET, HEAD", "DELETE", "$ a thousand"]
    return shown(rows, headers, markdown)


def main(argv: Sequence[str] | None = None) -> int:
    """Counts and prints."""
    parser = make_parser(__doc__ or "")
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    results = {"benchmark": "storage_requests", "requests": count()}
    write_json(arguments.json, results)
    print(report(results, arguments.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

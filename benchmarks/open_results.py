"""How long a large experiment takes to open, and in how much memory.

An experiment of N trials of M reports is made, with as many metrics and configuration fields as
a real one has, and its results are opened in a fresh process: the trials, the history, and what is
missing. Once as a running search leaves it (segments of JSON lines), once as a finished one does
(one compacted table).

    python benchmarks/open_results.py [--trials 10000] [--reports 100] [--repeats 3] [--json FILE]

Seconds are from the start of the process, Python and imports included; CPU seconds are over all
threads, and stay the same on a machine that does other work too; memory is the largest resident set
of the process.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from model.cli import positive, run_main, table  # noqa: E402
from model.config import DEFAULTS  # noqa: E402
from model.files import atomic_write_json  # noqa: E402
from model.machine import usable_cores  # noqa: E402

#: What a search over the published space fixes and searches.
_FIXED = ("hidden_size", "encoder_layers", "decoder_layers", "dropout", "attention", "batch_size")
_OPEN = """
import json, resource, sys, time
begun = time.time()
from analysis import Results
imported = time.time()
results = Results.open(sys.argv[1])
opened = time.time()
trials, history = results.trials, results.history
framed = time.time()
results.problems
best = results.best()
done = time.time()
from model.machine import peak_memory
usage = resource.getrusage(resource.RUSAGE_SELF)
print(json.dumps({
    "trials": len(trials), "reports": len(history), "best": int(best["trial"]),
    "imports": imported - begun, "open": opened - imported, "frames": framed - opened,
    "problems": done - framed, "cpu_seconds": usage.ru_utime + usage.ru_stime,
    "memory_bytes": peak_memory(),
}))
"""


def make(storage: Path, trials: int, reports: int) -> Path:
    """Makes an experiment whose journal is in segments; reports of trials are interleaved."""
    from tuning.journal import FORMAT
    from tuning.journal.segments import SEGMENT_ROWS

    path = storage / "large"
    (path / "journal").mkdir(parents=True)
    sweep = {
        "method": "random",
        "parameters": {
            "clip": {"values": [0, 25, 50, 100]},
            "learning_rate": {"min": 1e-4, "max": 1e-3},
            "decoder_learning_ratio": {"values": [1.0, 3.0, 5.0, 10.0]},
            "optimizer": {"values": ["adam", "sgd"]},
            "teacher_forcing_ratio": {"values": [0.0, 0.5, 1.0]},
            **{name: {"value": DEFAULTS[name]} for name in _FIXED},
        },
    }
    manifest = {
        "format": 1,
        "name": "large",
        "id": "0" * 8,
        "created": "2026-01-01T00:00:00+00:00",
        "sweep_file": "large.yaml",
        "sweep": sweep,
        "seed": 0,
        "trials": trials,
        "objectives": [{"name": "val_loss", "goal": "minimize"}],
        "settings": {},
        "data": {"fingerprint": "0" * 64, "settings": {}, "unigram_val_loss": 6.0},
        "commit": None,
        "versions": {},
    }
    atomic_write_json(path / "experiment.json", manifest)
    file = None
    for seq, row in enumerate(_rows(trials, reports)):
        if seq % SEGMENT_ROWS == 0:
            if file:
                file.close()
            name = f"{seq // SEGMENT_ROWS + 1:06d}.jsonl"
            file = (path / "journal" / name).open("w", encoding="utf-8")
            file.write(json.dumps({"format": FORMAT}) + "\n")
        assert file is not None
        said = {"kind": row.pop("kind"), "seq": seq, "time": 1.8e9 + seq / 100, **row}
        file.write(json.dumps(said, separators=(",", ":")) + "\n")
    if file:
        file.close()
    return path


def _rows(trials: int, reports: int) -> Iterator[dict[str, Any]]:
    """Sixteen trials at once, as sixteen workers would report."""
    for first in range(0, trials, 16):
        batch = range(first, min(first + 16, trials))
        for trial in batch:
            config = _config(trial)
            yield {"kind": "proposed", "trial": trial, "attempt": 1, "config": config,
                   "state": "running"}  # fmt: skip
        for report in range(1, reports + 1):
            for trial in batch:
                yield _report(trial, report, reports)


def _config(trial: int) -> dict[str, Any]:
    return {
        "clip": (0, 25, 50, 100)[trial % 4],
        "learning_rate": 1e-4 + 9e-4 * (trial * 0.6180339887 % 1),
        "decoder_learning_ratio": (1.0, 3.0, 5.0, 10.0)[trial // 4 % 4],
        "optimizer": ("adam", "sgd")[trial // 16 % 2],
        "teacher_forcing_ratio": (0.0, 0.5, 1.0)[trial // 32 % 3],
        **{name: DEFAULTS[name] for name in _FIXED},
    }


def _report(trial: int, report: int, reports: int) -> dict[str, Any]:
    noise = (trial * 7919 + report * 104729) % 10_007 / 10_007
    loss = 3.0 + 4.0 / (1 + report / 10) + 0.3 * noise
    metrics = {
        "loss": loss - 0.2,
        "grad_norm": 3.0 + noise,
        "encoder_grad_norm": 1.0 + noise,
        "decoder_grad_norm": 2.0 + noise,
        "tokens_per_second": 30_000 + 1_000 * noise,
        "train_seconds": 9.0 + noise,
        "iteration": 100 * report,
        "epoch": report / 8 + noise / 1e6,
        "val_loss": loss,
        "val_perplexity": 2.718281828**loss,
        "val_token_accuracy": 0.3 + 0.1 * noise,
        "best_val_loss": loss,
        "best_iteration": 100 * report,
        "eval_seconds": 0.5 + noise / 10,
        "save_seconds": 0.01 * noise,
        "write_seconds": 0.02 * noise,
        "step_seconds": 9.6 + 1.1 * noise,
    }
    done = report == reports
    return {
        "kind": "report",
        "trial": trial,
        "attempt": 1,
        "iteration": 100 * report,
        "config": _config(trial),
        "metrics": metrics,
        "values": [loss],
        "decision": "stop" if done else "continue",
        "state": "finished" if done else "running",
        "worker": f"10.0.0.{trial % 16}:{4000 + trial % 16}",
    }


def measure(path: Path, repeats: int) -> dict[str, float]:
    """Opens an experiment in fresh processes; medians, but the largest memory."""
    runs = []
    for _ in range(repeats):
        started = time.perf_counter()
        result = subprocess.run(
            [sys.executable, "-c", _OPEN, str(path)],
            capture_output=True,
            text=True,
            check=True,
            cwd=ROOT,
        )
        seconds = time.perf_counter() - started
        runs.append(json.loads(result.stdout) | {"seconds": seconds})
    medians = {name: statistics.median(run[name] for run in runs) for name in runs[0]}
    return medians | {"memory_bytes": max(run["memory_bytes"] for run in runs)}


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--trials", type=positive, default=10_000)
    parser.add_argument("--reports", type=positive, default=100)
    parser.add_argument("--repeats", type=positive, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args(argv)
    from tuning.journal import compact

    found: dict[str, Any] = {"cores": usable_cores(), "machine": platform.machine()}
    with tempfile.TemporaryDirectory() as storage:
        path = make(Path(storage), arguments.trials, arguments.reports)
        for form in ("segments", "compacted"):
            if form == "compacted":
                compact(path / "journal")
            size = sum(file.stat().st_size for file in (path / "journal").iterdir())
            found[form] = measure(path, arguments.repeats) | {"journal_bytes": size}
    rows = [
        [
            form,
            found[form]["journal_bytes"] / 1e6,
            found[form]["seconds"],
            *(found[form][part] for part in ("imports", "open", "frames", "problems")),
            found[form]["cpu_seconds"],
            found[form]["memory_bytes"] / 1e9,
        ]
        for form in ("segments", "compacted")
    ]
    headers = (
        "journal",
        "MB",
        "seconds",
        "imports",
        "open",
        "frames",
        "problems",
        "CPU",
        "memory GB",
    )
    print(f"{arguments.trials} trials of {arguments.reports} reports")
    print(table(rows, headers))
    if arguments.json:
        atomic_write_json(arguments.json, found)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

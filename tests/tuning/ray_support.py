"""What the tests with a real Ray share: a small corpus file, a sweep over it, and its truth."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import yaml

from model.checkpoint import read_checkpoint
from model.config import Config
from model.prepared_data import PreparedData
from model.training import Trainer
from tests.conftest import tiny_corpus
from tuning.journal import read_journal

ROOT = Path(__file__).resolve().parents[2]

#: A published sweep file, as the group printed it; it must run as it stands.
PUBLISHED = """\
program: train.py
method: bayes
metric:
  name: loss
  goal: minimize
parameters:
  learning_rate:
    min: 0.0001
    max: 0.001
  clip:
    min: 10
    max: 100
  teacher_forcing_ratio:
    min: 0.5
    max: 1.0
"""


def write_corpus(directory: Path) -> Path:
    """The tiny corpus as a plain text file of dialogues."""
    file = directory / "tiny.txt"
    texts = ["\n".join(dialogue.turns) for dialogue in tiny_corpus().dialogues]
    file.write_text("\n\n".join(texts) + "\n", encoding="utf-8")
    return file


def sweep_mapping(corpus: Path, **parameters) -> dict:
    """A sweep of small models; keyword arguments add or replace parameters."""
    fixed = {
        "corpus": str(corpus),
        "min_count": 1,
        "validation_share": 0.2,
        "test_share": 0.2,
        "hidden_size": 16,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "batch_size": 8,
        "iterations": 24,
        "report_every": 4,
        "device": "cpu",
        "threads": 1,
    }
    searched = {
        "learning_rate": {"min": 0.0005, "max": 0.01},
        "clip": {"values": [0, 25, 50]},
    }
    return {
        "method": "random",
        "parameters": searched
        | {name: {"value": value} for name, value in fixed.items()}
        | {name: v if isinstance(v, dict) else {"value": v} for name, v in parameters.items()},
    }


def write_sweep(directory: Path, **parameters) -> Path:
    """The sweep file of `sweep_mapping`, and its corpus."""
    file = directory / "sweep.yaml"
    mapping = sweep_mapping(write_corpus(directory), **parameters)
    file.write_text(yaml.safe_dump(mapping), encoding="utf-8")
    return file


def train_directly(experiment: Path, config: dict) -> list[dict]:
    """The metrics that a trainer reports for a configuration, without Ray."""
    data = PreparedData.open(experiment / "data.safetensors")
    return [r.metrics for r in Trainer(data, Config.from_mapping(config)).run()]


def check_resumed(results) -> None:
    """Nothing finished ran again, and each trial's curve is that of an uninterrupted trainer."""
    for trial in results.trials["trial"]:
        rows = [row for row in results.rows if row.trial == trial]
        ends = [row for row in rows if row.state not in ("running", None)]
        assert len(ends) == 1, f"trial {trial} ended {len(ends)} times"
        assert rows[-1] is ends[0]
        standing = results.history[results.history["trial"] == trial]
        direct = train_directly(results.experiment.path, rows[0].config)[: len(standing)]
        assert standing["iteration"].tolist() == [m["iteration"] for m in direct]
        assert standing["val_loss"].tolist() == [m["val_loss"] for m in direct]


def check_best_weights(results):
    """What is kept of each trial are the weights of its best report, and nothing else."""
    for _, trial in results.trials.iterrows():
        checkpoint = read_checkpoint(Path(trial["weights"]))
        assert checkpoint["iteration"] == trial["best_iteration"]
        assert checkpoint["metrics"]["val_loss"] == trial["val_loss"]
        kept = {path.name for path in Path(trial["weights"]).parent.iterdir()}
        assert kept - {"attempt"} == {"best.pt"}


def command(*arguments, **options) -> subprocess.Popen:
    """Starts ``python -m tuning ...`` as a process group of its own, as a terminal would."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", "tuning", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env=environment | options.pop("env", {}),
        **options,
    )


def finish(process: subprocess.Popen, timeout: float = 120) -> str:
    """Waits for a process and returns what it printed."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"did not finish in {timeout} s:\n{output}") from None
    return output


def wait_for_reports(experiment: Path, count: int, process: subprocess.Popen) -> None:
    """Waits until a running search has written so many reports."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if (experiment / "journal").is_dir():
            rows = read_journal(experiment / "journal").rows
            if sum(row.kind == "report" for row in rows) >= count:
                return
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    raise AssertionError(f"{count} reports did not come in two minutes")


def wandb_records(file: Path) -> list:
    """The records of a W&B offline file: protocol buffers in the LevelDB log format.

    https://github.com/google/leveldb/blob/main/doc/log_format.md: blocks of 32 KiB, each record
    in one or more chunks of checksum (4 bytes), length (2), type (1: full, 2: first, 3: middle,
    4: last) and data; a chunk's header never crosses a block. W&B puts 7 bytes before the first.
    """
    from wandb.proto import wandb_internal_pb2

    content, position, whole, records = file.read_bytes(), 7, b"", []
    while position + 7 <= len(content):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length = int.from_bytes(content[position + 4 : position + 6], "little")
        kind = content[position + 6]
        whole += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            record = wandb_internal_pb2.Record()
            record.ParseFromString(whole)
            records.append(record)
            whole = b""
    return records

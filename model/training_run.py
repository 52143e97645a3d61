"""One training run from the command line: data in, checkpoints and a model directory out.

OUT/checkpoint.pt   where `--resume` goes on
OUT/best.pt         weights at the best report
OUT/history.jsonl   every report, one JSON object a line
OUT/curve.png       the learning curve, at the end or when interrupted
OUT/model           the model directory, at the end
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from model.batching import Batches
from model.checkpoint import read_checkpoint
from model.config import Config, DataConfig
from model.corpora import read_corpus
from model.curve import read_history, write_curve
from model.data_source import open_or_prepare
from model.errors import ConfigurationError, DialogueTuneError, PreparedDataError, StorageError
from model.evaluation import evaluate, unigram_loss, unknown_words
from model.files import finite, storage_errors
from model.model_directory import DialogueModel, write_model_directory
from model.preparation import prepare_to_evaluate
from model.prepared_data import SUFFIX, PreparedData
from model.training import Report, Trainer


def train(values: Mapping[str, Any], out: Path, *, resume: bool = False) -> bool:
    """Trains one configuration, printing a line for each report.

    Args:
        values: The fields that were given; others take their defaults.
        out: Directory to write.
        resume: Go on from the checkpoint in `out`.

    Returns:
        Whether training reached its end without diverging.

    Raises:
        StorageError: where `out` holds another run, or cannot be written.
        CheckpointError: where the checkpoint to resume is damaged or of another configuration.
    """
    _check_free(out, resume)
    config = Config.from_mapping(values, "command line")
    data = open_or_prepare(values, progress=True)
    config = replace(config, data=DataConfig(**data.settings))
    if config.training.threads is not None:
        torch.set_num_threads(config.training.threads)
    trainer = Trainer(data, config)
    if resume:
        _restore(trainer, out)
    else:
        _make_empty(out)
    print(
        f"{len(trainer.train_batches)} training examples, {len(data.vocabulary)} words, "
        f"{sum(p.numel() for p in trainer.model.parameters()):,} parameters, "
        f"on {trainer.device}; a unigram model's val_loss is {unigram_loss(data):.4f}",
        file=sys.stderr,
    )
    report = trainer.last_report
    started = time.monotonic()
    first = trainer.iteration
    try:
        for report in trainer.run():
            _keep(trainer, report, out)
            seconds = time.monotonic() - started
            _print_report(report, config, seconds / (report.iteration - first))
    finally:
        _draw_curve(out)
    assert report is not None
    if not (out / "best.pt").exists():
        print("diverged before the first report; there is no model to keep", file=sys.stderr)
        return False
    directory = _write_model(out, config, data)
    print(f"wrote {directory}\ntalk to it: python -m model chat {directory}", file=sys.stderr)
    return report.state == "finished"


def _check_free(out: Path, resume: bool) -> None:
    if (out / "model").exists():
        raise StorageError(f"{out}: holds a finished training run; choose another --out.")
    if (out / "checkpoint.pt").exists() and not resume:
        raise StorageError(
            f"{out}: holds a training run already; choose another --out, or --resume."
        )


def _restore(trainer: Trainer, out: Path) -> None:
    trainer.restore(out / "checkpoint.pt")
    wanted = trainer.config.training.iterations
    if trainer.iteration > wanted:
        problem = f"is {wanted}, but the checkpoint is of iteration {trainer.iteration} already."
        raise ConfigurationError("command line", [f"--iterations: {problem}"])
    print(f"going on from iteration {trainer.iteration}", file=sys.stderr)


def _make_empty(out: Path) -> None:
    """Makes the directory, without what a run left that died before its first checkpoint."""
    with storage_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        for name in ("best.pt", "history.jsonl", "curve.png"):
            (out / name).unlink(missing_ok=True)


def _keep(trainer: Trainer, report: Report, out: Path) -> None:
    if report.state != "diverged":
        if report.improved:
            trainer.save_weights(out / "best.pt")
        trainer.save(out / "checkpoint.pt")
    with storage_errors(out), (out / "history.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(finite(report.metrics)) + "\n")


def _draw_curve(out: Path) -> None:
    """Draws what there is, of an interrupted run too; no run fails for want of a picture."""
    file = out / "curve.png"
    try:
        history = out / "history.jsonl"
        if history.exists() and write_curve(read_history(history), file):
            print(f"wrote {file}", file=sys.stderr)
    except ImportError:
        print("note: no curve.png: matplotlib is not installed", file=sys.stderr)
    except (DialogueTuneError, OSError) as error:
        print(f"note: no curve.png: {error}", file=sys.stderr)


def _print_report(report: Report, config: Config, seconds_per_iteration: float) -> None:
    m = report.metrics
    if report.state == "diverged":
        print(f"iteration {report.iteration}: diverged, loss {m['diverged_loss']}", flush=True)
        return
    left = (config.training.iterations - report.iteration) * seconds_per_iteration
    print(
        f"iteration {report.iteration}/{config.training.iterations}: loss {m['loss']:.4f}, "
        f"val_loss {m['val_loss']:.4f} (best {m['best_val_loss']:.4f}), "
        f"val_perplexity {m['val_perplexity']:.1f}, grad_norm {m['grad_norm']:.2f}, "
        f"{m['tokens_per_second']:.0f} tokens/s, {left:.0f} s left",
        flush=True,
    )


def _write_model(out: Path, config: Config, data: PreparedData) -> Path:
    best = read_checkpoint(out / "best.pt")
    return write_model_directory(
        out / "model",
        weights=best["weights"],
        config=config,
        vocabulary=data.vocabulary,
        metrics=best["metrics"],
        lineage={"iteration": best["iteration"], "data_fingerprint": data.fingerprint},
    )


def evaluate_on(model: DialogueModel, corpus: str | None, split: str) -> dict[str, Any]:
    """Figures of a model on held-out data.

    Words are read with the model's vocabulary, unknown ones as ``<unk>``.

    Args:
        model: The model.
        corpus: A prepared data set, of which `split` is evaluated; any other corpus, of which
            every pair within the model's ``max_length`` is; None for the data it was trained on.
        split: ``train``, ``validation`` or ``test``.

    Raises:
        CorpusError: where the corpus is missing, malformed, or has no pair to evaluate.
        PreparedDataError: where the prepared data set is damaged.
    """
    data, split = _data_to_evaluate(model, corpus, split)
    if model.vocabulary.words != data.vocabulary.words:
        data = data.with_vocabulary(model.vocabulary)
    device = model.model.output.weight.device
    found = evaluate(model.model, Batches(data, split, device))
    return {
        "model": str(model.path),
        "split": split,
        "examples": found.examples,
        "tokens": found.tokens,
        "loss": found.loss,
        "perplexity": found.perplexity,
        "token_accuracy": found.token_accuracy,
        "unigram_loss": unigram_loss(data, split) if len(data.examples["train"]) else None,
        "unknown_words": unknown_words(data, split),
    }


def _data_to_evaluate(
    model: DialogueModel, corpus: str | None, split: str
) -> tuple[PreparedData, str]:
    """The data set, and which split of it; a corpus that is not prepared has one, ``test``."""
    settings = model.config.data
    if corpus is None:
        data = open_or_prepare(asdict(settings), progress=True)
        if data.fingerprint != model.manifest["lineage"].get("data_fingerprint"):
            raise PreparedDataError(
                f"{settings.corpus}: has changed since the model was trained, so its splits are "
                "others, and what is held out now may have been trained on; name held-out data "
                "with --data."
            )
        return data, split
    if corpus.endswith(SUFFIX):
        return open_or_prepare({"corpus": corpus}), split
    read = read_corpus(corpus)
    return prepare_to_evaluate(read, replace(settings, corpus=corpus), model.vocabulary), "test"

"""Greedy decoding of real sources, against the baseline's, side by side in one run.

    python benchmarks/greedy_decoding.py --data data/cornell.safetensors
    python benchmarks/greedy_decoding.py --data data/cornell.safetensors --model registry/cornell/1

All sides have the same weights and decode the same batches, encoder included. The baseline always
makes all steps; ours ends when every reply has ended, so the weights matter: an untrained model
hardly ever ends a reply. By default a model is trained first, for as many iterations as
--train-iterations says (0 for none: then nothing ends early, the worst that can be); --model takes
a trained one (a model directory). How many words the replies have is printed too.

Sides: the baseline; ours as `model.decoding.greedy` does it for a single call; and, in fp32 and
bf16, ours with the decoder made ready beforehand, as a served model has it (weights cast, the input
projection folded into the embedding table; on a GPU, recorded as a graph). Printed too: the share
of replies that are the baseline's, word for word. They differ where the baseline attends to padding
and where it says words that ours never says (<unk>, say), and in bf16 where two words are nearly
equally probable.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.baseline import Baseline, build_batch  # noqa: E402
from benchmarks.same_work import copy_weights, open_data, pairs_of  # noqa: E402
from benchmarks.side_by_side import (  # noqa: E402
    BenchmarkError,
    Progress,
    Side,
    Spread,
    Work,
    add_output_options,
    add_turn_options,
    environment,
    make_parser,
    measured,
    run_alone,
    shown,
    write_json,
)
from model.batching import Batches  # noqa: E402
from model.cli import positive, run_main  # noqa: E402
from model.config import DEFAULTS, RULES, Config, ModelConfig  # noqa: E402
from model.decoding import Stepper, greedy  # noqa: E402
from model.graphs import RecordedGreedy  # noqa: E402
from model.model_directory import load  # noqa: E402
from model.seq2seq import Seq2Seq  # noqa: E402
from model.training import Trainer  # noqa: E402
from model.vocabulary import EOS  # noqa: E402

BASELINE = "baseline"
#: Different batches that are decoded in turn, and whose replies are compared.
_BATCHES = 16

# The weights


def train_weights(
    *, data: str, hidden_size: int, iterations: int, threads: int, device: str, file: str
) -> dict[str, Any]:
    """Trains a model and leaves what `_read_model` reads.

    Args:
        data: As of `benchmarks.same_work.open_data`.
        hidden_size: H.
        iterations: Of 64 examples each.
        threads: CPU threads.
        device: ``cpu`` or ``cuda``.
        file: Where to leave weights and configuration.
    """
    torch.set_num_threads(threads)
    fields = {
        **{"hidden_size": hidden_size, "device": device, "threads": threads, "val_examples": 256},
        **dict.fromkeys(("iterations", "report_every"), max(1, iterations)),
        "learning_rate": 5e-4,
    }
    prepared = open_data(data)
    trainer = Trainer(prepared, Config.from_mapping(fields))
    metrics = trainer.train_interval().metrics if iterations else {}
    state = {name: value.cpu() for name, value in trainer.model.state_dict().items()}
    torch.save({"weights": state, "model": asdict(trainer.config.model), "words": None}, file)
    return {"val_loss": metrics.get("val_loss"), "iterations": iterations}


def take_weights(*, directory: str, file: str) -> dict[str, Any]:
    """Leaves the weights of a model directory for `_read_model`; see `train_weights`.

    Raises:
        BenchmarkError: where the baseline cannot have the model's weights.
    """
    loaded = load(directory, device="cpu")
    model = loaded.config.model
    if model.attention != "dot" or model.encoder_layers != model.decoder_layers:
        raise BenchmarkError(
            f"{directory}: has attention {model.attention!r} and {model.encoder_layers} and "
            f"{model.decoder_layers} layers; the baseline has dot attention, and as many layers "
            "in the encoder as in the decoder."
        )
    if model.embedding_size not in (None, model.hidden_size):
        raise BenchmarkError(f"{directory}: the baseline's embedding is as large as its layers.")
    words = loaded.vocabulary.to_list()
    state = loaded.model.state_dict()
    torch.save({"weights": state, "model": asdict(model), "words": words}, file)
    return {"val_loss": loaded.metrics.get("val_loss"), "directory": directory}


def _read_model(file: str) -> tuple[Seq2Seq, list[str] | None]:
    """The model in a file of `train_weights`, and its words where they are not the data's."""
    content = torch.load(file, weights_only=True)
    config = ModelConfig(**content["model"])
    model = Seq2Seq(config, len(content["weights"]["embedding.weight"]))
    model.load_state_dict(content["weights"])
    return model.eval(), content["words"]


# The sides


def _sources(
    data: str, words: list[str] | None, batch_size: int, device: str
) -> list[tuple[Tensor, Tensor]]:
    """Batches of real sources as the baseline takes them: (S, B) longest first, and lengths."""
    from model.vocabulary import Vocabulary

    prepared = open_data(data)
    if words is not None:
        prepared = prepared.with_vocabulary(Vocabulary.from_list(words))
    chosen = Batches(prepared, "test").subset(_BATCHES * batch_size)
    chosen = chosen[torch.randperm(len(chosen), generator=torch.Generator().manual_seed(0))]
    pairs = pairs_of(prepared, "test", chosen)
    batches = [build_batch(pairs[i : i + batch_size]) for i in range(0, len(pairs), batch_size)]
    return [(batch.source.to(device), batch.lengths) for batch in batches]


def build_baseline(
    *, data: str, file: str, batch_size: int, max_words: int, threads: int, device: str
) -> Work:
    """The baseline with the weights of a file.

    Args:
        data: As of `benchmarks.same_work.open_data`.
        file: As of `train_weights`.
        batch_size: B.
        max_words: Steps.
        threads: CPU threads.
        device: ``cpu`` or ``cuda``.
    """
    torch.set_num_threads(threads)
    ours, words = _read_model(file)
    config = ours.config
    model = Baseline(
        ours.vocabulary_size,
        hidden_size=config.hidden_size,
        layers=config.decoder_layers,
        device=device,
    )
    copy_weights(ours.state_dict(), model)

    def decode(source: Tensor, lengths: Tensor) -> Tensor:
        return model.greedy(source, lengths, max_words)[0].t()

    return _work(decode, _sources(data, words, batch_size, device), device)


def build_ours(
    *,
    data: str,
    file: str,
    batch_size: int,
    max_words: int,
    threads: int,
    device: str,
    dtype: str | None,
) -> Work:
    """Ours with the weights of a file; see `build_baseline`.

    Args:
        data: As of `benchmarks.same_work.open_data`.
        file: As of `train_weights`.
        batch_size: B.
        max_words: Longest reply.
        threads: CPU threads.
        device: ``cpu`` or ``cuda``.
        dtype: Of a decoder made ready beforehand, ``float32`` or ``bfloat16``; None for none.
    """
    torch.set_num_threads(threads)
    model, words = _read_model(file)
    model = model.to(device)
    stepper = Stepper(model, getattr(torch, dtype), fold=True) if dtype else None
    sources = [(s.t().contiguous(), n) for s, n in _sources(data, words, batch_size, device)]
    if stepper is not None and device == "cuda":
        width = max(source.shape[1] for source, _ in sources)
        recorded = RecordedGreedy(model, stepper, batch_size, width)
        return _work(lambda source, _: recorded(source, max_words), sources, device)

    def decode(source: Tensor, lengths: Tensor) -> Tensor:
        return greedy(model, source, lengths, max_words, stepper)

    return _work(decode, sources, device)


def _work(
    decode: Callable[[Tensor, Tensor], Tensor], sources: list[tuple[Tensor, Tensor]], device: str
) -> Work:
    endless = itertools.cycle(sources)

    def facts() -> dict[str, Any]:
        return {"replies": [words(row) for s, n in sources for row in decode(s, n).tolist()]}

    wait: Callable[[], object] = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    return Work(lambda: decode(*next(endless)), wait, facts)


def words(row: list[int]) -> list[int]:
    """A decoded row up to its first ``EOS``, that included."""
    return row[: row.index(EOS) + 1] if EOS in row else row


# The comparison


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is measured, and how; see `benchmarks.training_step.Settings`.

    Attributes:
        model: A model directory, or None to train a model first.
        train_iterations: Of that training.
        precisions: Of our sides with a decoder made ready; ``call`` is the single call.
        max_words: Longest reply.
    """

    data: str
    model: str | None = None
    train_iterations: int = 300
    hidden_size: int = 500
    precisions: tuple[str, ...] = ("call", "fp32", "bf16")
    max_words: int = int(DEFAULTS["max_length"])
    threads: int = 1
    device: str = "cpu"
    turns: int = 9
    iterations: int = 8
    warm_up: int = 8


_DTYPES = {"call": None, "fp32": "float32", "bf16": "bfloat16"}


def make_weights(settings: Settings, file: str) -> dict[str, Any]:
    """Trains or takes the weights that all sides have; returns what is known of them."""
    if settings.model is not None:
        found = run_alone("model", take_weights, directory=settings.model, file=file)
    else:
        progress = Progress(f"training {settings.train_iterations} iterations", 1)
        found = run_alone(
            "training",
            train_weights,
            **{name: getattr(settings, name) for name in ("data", "hidden_size", "threads")},
            iterations=settings.train_iterations,
            device=settings.device,
            file=file,
        )
        progress.close()
    return dict(found)


def compare(settings: Settings, batch_size: int, file: str) -> dict[str, Any]:
    """Lets the sides take turns at one batch size; as `benchmarks.training_step.compare`."""
    shared = {name: getattr(settings, name) for name in ("data", "max_words", "threads", "device")}
    shared |= {"file": file, "batch_size": batch_size}
    sides = [Side(BASELINE, build_baseline, shared)] + [
        Side(f"ours {precision}", build_ours, shared | {"dtype": _DTYPES[precision]})
        for precision in settings.precisions
    ]
    found = measured(
        sides,
        f"batch {batch_size}",
        turns=settings.turns,
        iterations=settings.iterations,
        warm_up=settings.warm_up,
    )
    replies = {side: figures.pop("replies") for side, figures in found.items()}
    for side, figures in found.items():
        figures["same_replies"] = same_share(replies[side], replies[BASELINE])
        figures["mean_words"] = sum(map(len, replies[side])) / len(replies[side])
    return {"batch_size": batch_size, "sides": found}


def same_share(replies: Sequence[Sequence[int]], others: Sequence[Sequence[int]]) -> float:
    """Share of replies that are equal, word for word."""
    return sum(a == b for a, b in zip(replies, others, strict=True)) / len(replies)


def run(
    settings: Settings, batch_sizes: Sequence[int], save: Callable[[Any], None]
) -> dict[str, Any]:
    """All comparisons, one after another; as `benchmarks.training_step.run`."""
    results: dict[str, Any] = {
        "benchmark": "greedy_decoding",
        "settings": asdict(settings),
        "environment": environment(settings.device, settings.threads),
        "comparisons": [],
    }
    with tempfile.TemporaryDirectory() as directory:
        file = str(Path(directory) / "weights.pt")
        results["weights"] = make_weights(settings, file)
        for batch_size in batch_sizes:
            results["comparisons"].append(compare(settings, batch_size, file))
            save(results)
    return results


def report(results: dict[str, Any], markdown: bool = False) -> str:
    """The results as text."""
    settings, where = results["settings"], results["environment"]
    used = where.get("gpu") or f"{where['processor']}, {where['threads']} threads"
    rows = [
        (
            comparison["batch_size"],
            side,
            Spread(**found["seconds"]).text(2, scale=1000),
            Spread(**found["ratio"]).text(),
            f"{found['mean_words']:.1f}",
            f"{found['same_replies']:.1%}",
        )
        for comparison in results["comparisons"]
        for side, found in comparison["sides"].items()
    ]
    headers = ("batch", "side", "ms a batch", "times the baseline", "words a reply", "same replies")
    loss = results["weights"]["val_loss"]
    of = "" if loss is None else f", validation loss {loss:.3f}"
    weights = settings["model"] or f"trained {settings['train_iterations']} iterations"
    return (
        f"{weights}{of}; at most {settings['max_words']} words; {used}, torch {where['torch']}; "
        f"medians of {settings['turns']} turns of {settings['iterations']} (quartiles)\n\n"
        f"{shown(rows, headers, markdown)}"
    )


def _whole(text: str) -> int:
    """An argparse type: a whole number of at least 0."""
    return 0 if text == "0" else positive(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Makes the weights, takes turns, and prints medians and ratios."""
    parser = make_parser(__doc__ or "")
    parser.add_argument("--data", required=True, help="prepared data set, or synthetic:WORDS")
    parser.add_argument("--model", metavar="DIR", help="decode with this trained model")
    parser.add_argument(
        "--train-iterations",
        type=_whole,
        default=300,
        help="without --model, train a model so long (%(default)s)",
    )
    parser.add_argument("--hidden-size", type=positive, default=500, help="of it (%(default)s)")
    parser.add_argument(
        "--batch-size", type=positive, nargs="+", default=[64, 1], metavar="B", help="(64 1)"
    )
    parser.add_argument(
        "--precision",
        choices=tuple(_DTYPES),
        nargs="+",
        default=["call", "fp32", "bf16"],
        help="of our sides; call is the single call (call fp32 bf16)",
    )
    parser.add_argument(
        "--max-words", type=positive, default=RULES["max_length"].convert(10), help="(%(default)s)"
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    add_turn_options(parser, turns=9, iterations=8)
    add_output_options(parser)
    arguments = parser.parse_args(argv)
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise BenchmarkError("--device cuda: there is no GPU that torch can use.")
    names = ("data", "model", "train_iterations", "hidden_size", "max_words", "threads", "device")
    settings = Settings(
        **{name: getattr(arguments, name) for name in (*names, "turns", "iterations", "warm_up")},
        precisions=tuple(arguments.precision),
    )
    results = run(settings, arguments.batch_size, lambda found: write_json(arguments.json, found))
    print(report(results, arguments.markdown))
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

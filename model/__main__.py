"""The command line of the model: prepare data, train, evaluate, chat."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from model.cli import add_field_options, fields_given, run_main
from model.config import Config
from model.errors import ConfigurationError


def main(argv: Sequence[str] | None = None) -> int:
    """Parses the command line and runs one command; returns the exit status."""
    arguments = _parser().parse_args(argv)
    status: int = arguments.run(arguments)
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m model", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    prepare = commands.add_parser(
        "prepare",
        help="turn a corpus into a prepared data set",
        description="Turns a corpus into a prepared data set, and says what was kept and why not.",
        epilog="example: python -m model prepare pairs.tsv.xz --out data/pairs.safetensors",
    )
    prepare.add_argument(
        "corpus",
        nargs="?",
        default="everyday",
        help="'everyday' (embedded), 'cornell', or a corpus file or directory",
    )
    prepare.add_argument("--out", type=Path, help="file to write; default data/CORPUS.safetensors")
    add_field_options(prepare, ["data"])
    prepare.set_defaults(run=_prepare)

    train = commands.add_parser(
        "train",
        help="train one model",
        description="Trains one model; Ctrl-C keeps its last checkpoint, and --resume goes on.",
        epilog="example: python -m model train everyday --hidden-size 128 --iterations 500",
    )
    train.add_argument("corpus", nargs="?", default="everyday", help="corpus or prepared data set")
    train.add_argument(
        "--out", type=Path, default=Path("runs/train"), help="directory to write (%(default)s)"
    )
    train.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    add_field_options(train, ["data", "model", "training"])
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate", help="held-out loss of a model", description="Evaluates a model on a split."
    )
    evaluate.add_argument("model", help="model directory, NAME, NAME@alias or NAME:VERSION")
    evaluate.add_argument(
        "--data",
        help="prepared data set, or a corpus of which every pair is evaluated; "
        "default the model's own data",
    )
    evaluate.add_argument(
        "--split",
        choices=("train", "validation", "test"),
        default="validation",
        help="which part of a prepared data set or of the model's own data (%(default)s)",
    )
    evaluate.add_argument("--registry", default="registry", help="directory of named models")
    evaluate.add_argument("--json", action="store_true", help="print JSON instead of text")
    evaluate.set_defaults(run=_evaluate)

    chat = commands.add_parser(
        "chat",
        help="talk to a model",
        description="Talks to a model, in a terminal or through a pipe.",
        epilog="example: echo 'hello !' | python -m model chat everyday",
    )
    chat.add_argument("model", help="model directory, NAME, NAME@alias or NAME:VERSION")
    chat.add_argument("--registry", default="registry", help="directory of named models")
    chat.add_argument(
        "--say", action="append", metavar="TEXT", help="say this, print the reply, and leave"
    )
    chat.set_defaults(run=_chat)
    return parser


def _prepare(arguments: argparse.Namespace) -> int:
    from model.preparation import PreparationReport, prepare
    from model.prepared_data import SUFFIX

    values = fields_given(arguments) | {"corpus": arguments.corpus}
    config = Config.from_mapping(values, "command line").data
    stem = Path(arguments.corpus).name.split(".")[0].replace(" ", "-")
    out = arguments.out or Path("data") / f"{stem}.safetensors"
    if out.suffix != SUFFIX:
        raise ConfigurationError("command line", [f"--out: must end in {SUFFIX}, but is {out}."])
    data = prepare(config, progress=True)
    data.save(out)
    print("\n".join(PreparationReport.of(data).summary_lines()))
    print(f"wrote {out}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    from model.training_run import train

    values = fields_given(arguments) | {"corpus": arguments.corpus}
    finished = train(values, arguments.out, resume=arguments.resume)
    return 0 if finished else 1


def _evaluate(arguments: argparse.Namespace) -> int:
    from model.model_directory import load
    from model.training_run import evaluate_on

    model = load(arguments.model, arguments.registry)
    figures = evaluate_on(model, arguments.data, arguments.split)
    if arguments.json:
        print(json.dumps(figures, indent=2))
    else:
        width = max(map(len, figures))
        for name, value in figures.items():
            print(f"{name:{width}}  {_shown(value)}")
    return 0


def _shown(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _chat(arguments: argparse.Namespace) -> int:
    from model.chat import chat
    from model.model_directory import load

    model = load(arguments.model, arguments.registry)
    if arguments.say:
        for text, reply in zip(arguments.say, model.replies(arguments.say), strict=True):
            print(f"you> {text}\nbot> {reply}")
    else:
        chat(model, sys.stdin, sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(run_main(main))

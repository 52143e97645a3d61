"""`promote`: from an experiment into the registry, confirmed by fresh seeds where asked."""

from __future__ import annotations

import argparse
import shlex
import sys
from typing import TYPE_CHECKING

from analysis.commands.common import Subcommands, add_experiment, note
from analysis.completeness import named
from analysis.promotion.registry import promote
from analysis.results import Results
from model.cli import positive, table
from model.errors import ConfigurationError

if TYPE_CHECKING:
    from analysis.promotion.verdict import Confirmation
    from analysis.promotion.versions import ModelVersion


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    promotion = commands.add_parser(
        "promote",
        help="put a trial's model into the registry",
        description="Copies the best trial's model into the registry, as the next version; with "
        "--confirm after training the best configurations again with fresh seeds.",
        epilog="example: python -m analysis promote latest --confirm 3 --name chatbot",
    )
    add_experiment(promotion)
    promotion.add_argument("--name", help="of the model; default the experiment's name")
    which = promotion.add_mutually_exclusive_group()
    which.add_argument("--trial", type=int, help="promote this trial instead of the best")
    which.add_argument(
        "--confirm",
        type=positive,
        metavar="N",
        help="train the best configurations again with N fresh seeds each (2 or more), and "
        "promote by their mean",
    )
    promotion.add_argument(
        "--top", type=positive, metavar="K", help="how many configurations to confirm (3)"
    )
    promotion.add_argument(
        "--workers", type=positive, help="confirming runs at a time (one a core; one on a GPU)"
    )
    promotion.add_argument("--registry", default="registry", help="directory (%(default)s)")
    promotion.add_argument("--alias", default="production", help="alias to set (%(default)s)")
    promotion.add_argument(
        "--force", action="store_true", help="let production move to a worse version"
    )
    promotion.add_argument(
        "--wandb",
        choices=("online", "offline", "disabled"),
        help="log the model as an artifact (as the search was logged)",
    )
    promotion.set_defaults(run=_promote)


def _promote(arguments: argparse.Namespace) -> int:
    from analysis.promotion.artifact import artifact_mode, log_artifact
    from analysis.promotion.versions import describe

    _check(arguments)
    results = Results.open(arguments.experiment, arguments.storage)
    note(results.problems)
    mode = artifact_mode(results.experiment, arguments.wandb)
    confirmed = _confirm(results, arguments) if arguments.confirm else None
    directory = promote(
        results,
        arguments.name,
        trial=arguments.trial,
        confirmed=confirmed,
        registry=arguments.registry,
        alias=arguments.alias,
        force=arguments.force,
        on_note=_note,
    )
    version = describe(directory)
    if len(results.objectives) > 1 and arguments.trial is None:
        _note(
            f"chosen by {results.objective}, the first of {len(results.objectives)} objectives; on "
            f"the Pareto front: {named(results.pareto()['trial'].tolist())} (see --trial)."
        )
    _print_running(results, version)
    _print_promoted(version, arguments)
    logged = log_artifact(version, arguments.alias, results.experiment, mode)
    if logged.problem:
        _note(logged.problem)
    elif logged.offline:  # its trials are for 'python -m tuning sync', which knows what was sent
        print(f"W&B, offline; to send the model: wandb sync {shlex.quote(str(logged.offline))}")
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """What argparse cannot see."""
    problems = []
    if arguments.confirm == 1:
        problems.append("--confirm: must be at least 2: one run has no interval.")
    if not arguments.confirm:
        given = {"--top": arguments.top, "--workers": arguments.workers}
        problems += [f"{name}: only goes with --confirm." for name, value in given.items() if value]
    if problems:
        raise ConfigurationError("command line", problems)


def _note(text: str) -> None:
    print(f"note: {text}", flush=True)


def _confirm(results: Results, arguments: argparse.Namespace) -> Confirmation:
    from analysis.promotion.confirmation import confirm

    try:
        found = confirm(
            results,
            seeds=arguments.confirm,
            top=arguments.top or 3,
            workers=arguments.workers,
            progress=True,
        )
    except KeyboardInterrupt:
        print("\nfinished runs and checkpoints are kept: the same command goes on", file=sys.stderr)
        raise
    print(confirmation_table(found))
    print("\n".join(["", *found.words(), ""]))
    return found


def confirmation_table(found: Confirmation) -> str:
    """The configurations, the best mean first: what the search said, and what fresh seeds give."""
    rows = [
        [
            ", ".join(map(str, each.trials)),
            each.state,
            each.searched,
            each.searched_whole,
            each.mean,
            each.low,
            each.high,
            " ".join("diverged" if o.value is None else f"{o.value:.4g}" for o in each.outcomes),
        ]
        for each in found.configurations
    ]
    headers = ("trial", "state", "searched", "on all of validation", "fresh mean", "low", "high")
    return table(rows, (*headers, "fresh runs"))


def _print_running(results: Results, version: ModelVersion) -> None:
    trial = version.lineage["trial"]
    state = results.trials.set_index("trial").loc[trial]["state"]
    if state in ("running", "interrupted") and "confirmation" not in version.lineage:
        _note(f"trial {trial} is {state}; it may get better")


def _print_promoted(version: ModelVersion, arguments: argparse.Namespace) -> None:
    metrics, lineage = version.metrics, version.lineage
    seed = f", seed {lineage['confirmation']['seed']}" if "confirmation" in lineage else ""
    perplexity = metrics["test_perplexity"]
    shown = "infinite" if perplexity is None else f"{perplexity:.2f}"
    print(
        f"trial {lineage['trial']}{seed}, iteration {lineage['iteration']}: "
        f"val_loss {metrics['val_loss']:.4f} over all of validation, test_loss "
        f"{metrics['test_loss']:.4f} (perplexity {shown})\n"
        f"promoted to {version.path} ({version.name}:{version.version}, "
        f"{version.name}@{arguments.alias})\n"
        f"talk to it: python -m model chat {version.name}"
        + ("" if arguments.alias == "production" else f"@{arguments.alias}")
        + ("" if arguments.registry == "registry" else f" --registry {arguments.registry}")
    )

"""`models`: the registry: its versions, how they differ, whether they are whole, their aliases."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from analysis.commands.common import Subcommands
from analysis.promotion.aliases import PRODUCTION, read_history, roll_back, set_alias
from analysis.promotion.versions import (
    ModelVersion,
    Section,
    added,
    damage,
    describe,
    difference,
    directories,
    home_of,
    leftovers,
    list_versions,
)
from model.cli import table
from model.errors import ModelDirectoryError
from model.model_directory import resolve, valid_name, verify, versions

#: Exit status of ``verify`` where a model is damaged.
DAMAGED = 1
_MODEL = "model directory, NAME, NAME@alias or NAME:VERSION"
_SHOWN = 60


def register(commands: Subcommands) -> None:
    """Adds the command to the command line."""
    models = commands.add_parser(
        "models",
        help="the registry: list, show, diff, rollback, verify, alias",
        description="Shows and changes the registry of promoted models.",
        epilog="example: python -m analysis models diff chatbot:1 chatbot",
    )
    actions = models.add_subparsers(required=True, metavar="ACTION")

    listing = _action(actions, "list", _list, "all models, versions, aliases and figures")
    listing.add_argument("name", nargs="*", help="only these models")
    _add_json(listing)

    show = _action(actions, "show", _show, "everything about one version, verified")
    show.add_argument("model", help=_MODEL)
    _add_json(show)

    diff = _action(actions, "diff", _diff, "how two versions differ")
    diff.add_argument("first", metavar="A", help=_MODEL)
    diff.add_argument("second", metavar="B", help=_MODEL)
    _add_json(diff)

    rollback = _action(actions, "rollback", _rollback, "let an alias stand for what it did before")
    rollback.add_argument("name", help="of the model")
    rollback.add_argument("--alias", default=PRODUCTION, help="which alias (%(default)s)")

    checking = _action(actions, "verify", _verify, "check every byte; status 1 where any changed")
    checking.add_argument("model", nargs="*", help=f"{_MODEL}; default all versions of all models")

    alias = _action(actions, "alias", _alias, "let an alias stand for a version")
    alias.add_argument("model", help="NAME:VERSION, or NAME@alias")
    alias.add_argument("alias", help="such as production or candidate")


def _action(
    actions: Subcommands, name: str, run: Callable[[argparse.Namespace], int], text: str
) -> argparse.ArgumentParser:
    parser = actions.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    parser.add_argument("--registry", type=Path, default=Path("registry"), help="(%(default)s)")
    parser.set_defaults(run=run)
    return parser


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


# list


def _list(arguments: argparse.Namespace) -> int:
    found = list_versions(arguments.registry, arguments.name)
    if arguments.json:
        _print_json([each.to_mapping() for each in found])
    elif not found:
        print(f"{arguments.registry}: no models yet; put one there: python -m analysis promote")
    else:
        headers = ("model", "version", "aliases", "val_loss", "test_loss", "confirmed")
        print(table([_list_row(each) for each in found], (*headers, "experiment", "trial", "made")))
        for each in found:
            if each.problem:
                print(f"damaged: {each.problem}")
    return 0


def _list_row(each: ModelVersion) -> list[Any]:
    lineage = each.lineage
    confirmation = lineage.get("confirmation") or {}
    return [
        each.name,
        each.version,
        " ".join(each.aliases) or None,
        each.metrics.get("val_loss"),
        each.metrics.get("test_loss"),
        each.metrics.get(f"confirmed_{confirmation.get('objective')}"),
        lineage.get("experiment"),
        lineage.get("trial"),
        str(each.manifest["created"])[:10] if "created" in each.manifest else "damaged",
    ]


# show


def _show(arguments: argparse.Namespace) -> int:
    directory = resolve(arguments.model, arguments.registry)
    verify(directory)
    version = describe(directory)
    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    words = len(json.loads((directory / "vocabulary.json").read_text(encoding="utf-8")))
    history = _history_of(version)
    if arguments.json:
        more = {"configuration": config, "vocabulary": words, "history": history}
        _print_json(version.to_mapping() | more)
        return 0
    lineage = dict(version.lineage)
    confirmation = lineage.pop("confirmation", None)
    packages = lineage.pop("versions", None) or {}
    head = {
        "model": version.name,
        "version": version.version,
        "aliases": " ".join(version.aliases) or None,
        "path": str(version.path),
        "created": version.manifest["created"],
        "vocabulary": f"{words} words",
    }
    sections = {"": head, "metrics": version.metrics, "lineage": lineage, "configuration": config}
    for title, fields in (sections | {"versions": packages}).items():
        print(_fields_table(title, fields))
    if confirmation:
        print(_confirmation_text(confirmation))
    for move in history:
        print(f"{move['time'] or 'earlier'}: {move['alias']} {move['action']}")
    return 0


def _history_of(version: ModelVersion) -> list[dict[str, Any]]:
    """The changes that let an alias stand for this version."""
    if version.version is None:
        return []
    moves = read_history(version.path.resolve().parent)
    return [
        {"alias": move.alias, "action": move.action, "time": move.time}
        for move in moves
        if move.version == version.version
    ]


def _fields_table(title: str, fields: Mapping[str, Any]) -> str:
    rows = [[n, v if isinstance(v, str) else _short(v)] for n, v in fields.items()]
    return table(rows, (title or "field", "value")) + "\n"


def _short(value: Any) -> str | None:
    """A value for a cell; figures with all the digits that matter."""
    if value is None:
        return None
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def _confirmation_text(confirmation: Mapping[str, Any]) -> str:
    name = confirmation["objective"]
    rows = [
        [
            " ".join(map(str, each["trials"])),
            each["searched"],
            each["searched_whole"],
            each["mean"],
            each["low"],
            each["high"],
        ]
        for each in confirmation["configurations"]
    ]
    headers = ("trial", "searched", "on all of validation", "fresh mean", "low", "high")
    apart = {True: "apart from", False: "not separable from", None: "without"}
    return (
        f"confirmed by {name} over {confirmation['seeds']} fresh seeds, "
        f"{apart[confirmation['separable']]} a runner-up; seed {confirmation['seed']} promoted\n"
        f"{table(rows, headers)}\n"
    )


# diff


def _diff(arguments: argparse.Namespace) -> int:
    first, second = (resolve(m, arguments.registry) for m in (arguments.first, arguments.second))
    found = difference(first, second)
    if arguments.json:
        differences = {
            title: {name: {"a": a, "b": b} for name, (a, b) in section.items()}
            for title, section in found.items()
        }
        _print_json({"a": str(first), "b": str(second), "differences": differences})
    elif not found:
        print("no difference")
    else:
        print(table(list(_diff_rows(found)), ("section", "field", str(first), str(second))))
    return 0


def _diff_rows(found: Mapping[str, Section]) -> Iterator[list[Any]]:
    for title, section in found.items():
        for name, (a, b) in section.items():
            yield [title, name, _short(a), _short(b)]


# rollback and alias


def _rollback(arguments: argparse.Namespace) -> int:
    was, now = roll_back(home_of(arguments.name, arguments.registry), arguments.alias)
    print(f"{arguments.name}@{arguments.alias}: version {was} -> {now}")
    return 0


def _alias(arguments: argparse.Namespace) -> int:
    if not valid_name(arguments.alias):
        raise ModelDirectoryError(
            f"{arguments.alias!r}: cannot name an alias; use letters, digits and ._- only, "
            "200 at most."
        )
    directory = resolve(arguments.model, arguments.registry)
    home = directory.resolve().parent
    if not directory.resolve().name.isdecimal():
        raise ModelDirectoryError(
            f"{arguments.model}: is not a version of a registry; name one as NAME:VERSION."
        )
    verify(directory)
    version = int(directory.resolve().name)
    set_alias(home, arguments.alias, version)
    print(
        f"{home.name}@{arguments.alias}: version {version} of {', '.join(map(str, versions(home)))}"
    )
    return 0


# verify


def _verify(arguments: argparse.Namespace) -> int:
    found = directories(arguments.model, arguments.registry)
    if not found:
        print(f"{arguments.registry}: no models yet")
    damaged = 0
    for directory in found:
        problem = damage(directory)
        damaged += problem is not None
        print(f"damaged: {problem}" if problem else f"whole: {directory}")
        if problem is None and (names := added(directory)):
            print(f"note: {directory}: not of the model, and never read: {', '.join(names)}")
    if not arguments.model:
        for path in leftovers(arguments.registry):
            print(f"note: {path}: of a promotion that is under way, or was killed: then remove it")
    if damaged:
        print(f"{damaged} of {len(found)} damaged")
    return DAMAGED if damaged else 0

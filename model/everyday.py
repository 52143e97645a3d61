"""The embedded corpus "everyday": dialogues of everyday English, expanded from templates.

The templates are in ``everyday.txt``, whose first lines describe the format: tables of slot
values, and sections of templates such as ::

    [table countries]
    country | capital
    france  | paris

    [dialogues capital]
    > the capital of {country} is {capital}.
    (what is/tell me) the capital of {country}? | thank you.

A template is one dialogue of 2 to 6 turns; ``>`` gives the second turn that the templates below it
share. Each is expanded into at most `LIMIT` dialogues, which form one group: held out together,
they show how a model answers phrasings that it was not trained on.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from model.dialogue import Dialogue
from model.errors import CorpusFormatError

FILE = Path(__file__).with_name("everyday.txt")

#: Dialogues that one template gives at most, so that none dominates.
LIMIT = 6

_HEADER = re.compile(r"\[(table|dialogues) ([a-z-]+)\]")
_SLOT = re.compile(r"\{([a-z]+)\}")
_ALTERNATIVES = re.compile(r"\(([^()]*/[^()]*)\)")

Row = dict[str, str]


@dataclass
class Templates:
    """What a template file holds: rows of the tables by column name, and templates by identity."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    turns: dict[str, list[str]] = field(default_factory=dict)


def dialogues(file: Path = FILE) -> list[Dialogue]:
    """Every dialogue of the corpus, the same and in the same order each time.

    Args:
        file: A file of templates in the format of the embedded one.

    Raises:
        CorpusFormatError: naming the line that is malformed.
    """
    templates = parse(file)
    return [
        Dialogue(turns, group)
        for position, group in enumerate(templates.turns)
        for turns in _expand(group, templates.turns[group], templates.rows, position * LIMIT)
    ]


def parse(file: Path) -> Templates:
    """Reads and checks a file of templates.

    Raises:
        CorpusFormatError: naming the line that is malformed.
    """
    templates = Templates()
    names: set[str] = set()
    kind = name = reply = ""
    columns: list[str] = []
    table: list[Row] = []
    number = 0
    for place, text in _lines(file):
        cells = [cell.strip() for cell in text.removeprefix(">").split("|")]
        try:
            if text.startswith("["):
                kind, name = _read_header(text, names)
                reply, columns, table, number = "", [], [], 0
            elif not kind:
                raise ValueError(f"expected a section before {text!r}")
            elif "" in cells:
                raise ValueError(f"an empty cell or turn in {text!r}")
            elif kind == "table" and not columns:
                columns = _read_columns(cells, templates.rows)
                templates.rows.update(dict.fromkeys(columns, table))
            elif kind == "table":
                table.append(_read_row(cells, columns))
            elif text.startswith(">"):
                reply = _check_reply(cells, templates.rows)
            else:
                turns = [cells[0], reply, *cells[1:]] if reply else cells
                number += 1
                templates.turns[f"{name}-{number}"] = _check_turns(turns, templates.rows)
        except ValueError as error:
            raise CorpusFormatError(file, f"{error}.", place) from None
    return templates


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    for place, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        if text and not text.startswith("#"):
            yield place, text


def _read_header(text: str, names: set[str]) -> tuple[str, str]:
    header = _HEADER.fullmatch(text)
    if not header:
        raise ValueError(f"expected [table NAME] or [dialogues NAME], but got {text!r}")
    if text in names:
        raise ValueError(f"a second section {text!r}")
    names.add(text)
    return header[1], header[2]


def _read_columns(cells: list[str], rows: dict[str, list[Row]]) -> list[str]:
    for column in cells:
        if column in rows or cells.count(column) > 1:
            raise ValueError(f"a second column {column!r}")
    return cells


def _read_row(cells: list[str], columns: list[str]) -> Row:
    if len(cells) != len(columns):
        raise ValueError(f"expected {len(columns)} cells, but got {len(cells)}")
    return dict(zip(columns, cells, strict=True))


def _check_reply(cells: list[str], rows: dict[str, list[Row]]) -> str:
    if len(cells) > 1:
        raise ValueError("a shared reply is a single turn")
    _check_turn(cells[0], rows)
    return cells[0]


def _check_turns(turns: list[str], rows: dict[str, list[Row]]) -> list[str]:
    if not 2 <= len(turns) <= 6:
        raise ValueError(f"a template has 2 to 6 turns, but got {len(turns)}")
    for turn in turns:
        _check_turn(turn, rows)
    return turns


def _check_turn(turn: str, rows: dict[str, list[Row]]) -> None:
    for column in _SLOT.findall(turn):
        if not rows.get(column):
            raise ValueError(f"no table has a row for the slot {{{column}}} of {turn!r}")
    rest = _ALTERNATIVES.sub("", _SLOT.sub("", turn))
    if re.search(r"[(){}/]", rest):
        raise ValueError(f"a slot or alternatives not written {{column}} or (a/b) in {turn!r}")


def _expand(
    group: str, turns: list[str], rows: dict[str, list[Row]], start: int
) -> Iterator[tuple[str, ...]]:
    """Yields distinct dialogues of one template: rows in turn from `start`, alternatives drawn."""
    random = Random(group)
    tables = [rows[column] for column in _SLOT.findall(" ".join(turns))]
    seen: set[tuple[str, ...]] = set()
    for draw in range(start, start + 8 * LIMIT):
        values: Row = {}
        for table in tables:
            values |= table[draw % len(table)]
        dialogue = tuple(_fill(turn, values, random) for turn in turns)
        if dialogue not in seen and len(seen) < LIMIT:
            seen.add(dialogue)
            yield dialogue


def _fill(turn: str, values: Row, random: Random) -> str:
    chosen = _ALTERNATIVES.sub(lambda found: random.choice(found[1].split("/")), turn)
    filled = " ".join(_SLOT.sub(lambda found: values[found[1]], chosen).split())
    return re.sub(r" ([.,!?])", r"\1", filled)

"""The embedded corpus "everyday": dialogues of everyday English, expanded from templates.

The templates are in ``everyday.txt``, whose first lines describe the format in full::

    [table countries]
    country | capital
    france  | paris

    [dialogues capital]
    > the capital of {country} is {capital}.
    (what is/tell me) the capital of {country}? | thank you.

A template is one dialogue of 2 to 6 turns; ``>`` gives the second turn of the templates below it.
Each is expanded into at most `LIMIT` dialogues, which form one group: held out together, they
show how a model answers phrasings that it was not trained on.
"""

from __future__ import annotations

import re
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
    """The rows of tables by column, the turns of templates by identity, as read line by line."""

    tables: dict[str, list[Row]] = field(default_factory=dict)
    turns: dict[str, list[str]] = field(default_factory=dict)
    _kind: str = ""
    _name: str = ""
    _columns: list[str] = field(default_factory=list)
    _reply: list[str] = field(default_factory=list)
    _count: int = 0

    def read(self, text: str) -> None:
        """Reads one line; raises a ValueError that says what is wrong with it."""
        cells = [cell.strip() for cell in text.removeprefix(">").split("|")]
        if text.startswith("["):
            self._open_section(text)
        elif not self._kind:
            raise ValueError(f"expected a section before {text!r}")
        elif "" in cells:
            raise ValueError(f"an empty cell or turn in {text!r}")
        elif self._kind == "table":
            self._read_row(cells)
        elif text.startswith(">"):
            self._reply = cells
        else:
            self._read_template([cells[0], *self._reply, *cells[1:]])

    def _open_section(self, text: str) -> None:
        header = _HEADER.fullmatch(text)
        if not header:
            raise ValueError(f"expected [table NAME] or [dialogues NAME], but got {text!r}")
        self._kind, self._name = header.groups()
        if f"{self._name}-1" in self.turns:
            raise ValueError(f"a second section of dialogues {self._name!r}")
        self._columns, self._reply, self._count = [], [], 0

    def _read_row(self, cells: list[str]) -> None:
        if not self._columns:
            self._columns, rows = cells, list[Row]()
            for column in cells:
                if column in self.tables:
                    raise ValueError(f"a second column {column!r}")
                self.tables[column] = rows
        elif len(cells) != len(self._columns):
            raise ValueError(f"expected {len(self._columns)} cells, but got {len(cells)}")
        else:
            self.tables[self._columns[0]].append(dict(zip(self._columns, cells, strict=True)))

    def _read_template(self, turns: list[str]) -> None:
        if not 2 <= len(turns) <= 6:
            raise ValueError(f"a template has 2 to 6 turns, but got {len(turns)}")
        for turn in turns:
            for column in _SLOT.findall(turn):
                if not self.tables.get(column):
                    raise ValueError(f"no table has a row for {{{column}}} in {turn!r}")
            if re.search(r"[(){}/]", _ALTERNATIVES.sub("", _SLOT.sub("", turn))):
                raise ValueError(f"expected {{column}} and (this/that), but got {turn!r}")
        self._count += 1
        self.turns[f"{self._name}-{self._count}"] = turns


def parse(file: Path) -> Templates:
    """Reads and checks a file of templates; a `CorpusFormatError` names a malformed line."""
    templates = Templates()
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.strip()
        try:
            if text and not text.startswith("#"):
                templates.read(text)
        except ValueError as error:
            raise CorpusFormatError(file, f"{error}.", number) from None
    return templates


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
        for turns in _expand(templates, group, position * LIMIT)
    ]


def _expand(templates: Templates, group: str, start: int) -> list[tuple[str, ...]]:
    """At most `LIMIT` distinct dialogues: rows in turn from `start`, alternatives at random."""
    template = templates.turns[group]
    tables = [templates.tables[column] for column in _SLOT.findall(" ".join(template))]
    random = Random(group)
    distinct: dict[tuple[str, ...], None] = {}
    for draw in range(start, start + 8 * LIMIT):
        values = {name: value for rows in tables for name, value in rows[draw % len(rows)].items()}
        distinct[tuple(_fill(turn, values, random) for turn in template)] = None
    return list(distinct)[:LIMIT]


def _fill(turn: str, values: Row, random: Random) -> str:
    chosen = _ALTERNATIVES.sub(lambda found: random.choice(found[1].split("/")), turn)
    filled = " ".join(_SLOT.sub(lambda found: values[found[1]], chosen).split())
    return re.sub(r" ([.,!?])", r"\1", filled)

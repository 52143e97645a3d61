"""Reading corpora into dialogues: the embedded one, Cornell's, and files of your own.

The suffix of a file decides its format, never its content:

=======================  ===========================================================================
``.tsv``                 a question, a tab and its reply on each line; where a question equals the
                         reply above it, the dialogue goes on; a blank line ends a dialogue
``.txt``                 an utterance on each line, a blank line between dialogues
``.zip``, a directory    the Cornell Movie-Dialogs Corpus: `movie_lines.txt` and
                         `movie_conversations.txt`, side by side at any depth
=======================  ===========================================================================

``.tsv`` and ``.txt`` may be compressed (``.gz``, ``.xz``, ``.bz2``). They are UTF-8, and lines end
at a line feed only, because other separators (U+0085, say) occur inside of utterances.
"""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from lzma import LZMAError
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import BadZipFile, ZipFile

from model.dialogue import Dialogue
from model.errors import CorpusFormatError, CorpusNotFoundError
from model.files import reason_of
from model.validation import did_you_mean

#: Corpora that are known by name.
NAMES = ("everyday", "cornell")

CORNELL_ARCHIVE = "cornell_movie_dialogs_corpus.zip"
CORNELL_DIRECTORY = "cornell movie-dialogs corpus"
CORNELL_ADDRESS = "https://www.cs.cornell.edu/~cristian/Cornell_Movie-Dialogs_Corpus.html"
_CORNELL_LINES = "movie_lines.txt"
_CORNELL_CONVERSATIONS = "movie_conversations.txt"
_CORNELL_SEPARATOR = " +++$+++ "
_CORNELL_IDS = re.compile(r"\[\s*(?:'[^']*'(?:\s*,\s*'[^']*')*)?\s*\]")

_TEXT_FILE = re.compile(r".*\.(?P<kind>tsv|txt)(?:\.(?P<packed>gz|xz|bz2))?", re.I | re.S)
_FORMATS = (
    ".tsv (a question, a tab, a reply), .txt (an utterance on each line), "
    "both also with .gz, .xz or .bz2, and .zip or a directory (the Cornell Movie-Dialogs Corpus)"
)
_OPENERS: dict[str, Any] = {"": open, "gz": gzip.open, "xz": lzma.open, "bz2": bz2.open}
#: What the standard library raises on damaged files, besides `OSError`; the last two are zipfile's
#: for encryption or an unknown compression, and for offsets and names that make no sense.
_DAMAGE = (EOFError, LZMAError, zlib.error, struct.error, BadZipFile, RuntimeError, ValueError)


@dataclass(frozen=True)
class Corpus:
    """The dialogues of one corpus, in its order.

    Attributes:
        name: What was asked for: a name or a path.
        dialogues: Every dialogue, of one turn or more.
        missing_lines: References to lines that the corpus does not hold; dialogues end there.
    """

    name: str
    dialogues: tuple[Dialogue, ...]
    missing_lines: int = 0


def read_corpus(corpus: str, data_directory: Path = Path("data")) -> Corpus:
    """Reads a whole corpus.

    Args:
        corpus: ``everyday`` (embedded), ``cornell``, or the path of a file or a directory in one
            of the formats above (``./cornell`` for a directory of that name).
        data_directory: Where ``cornell`` is looked for: its archive or the unpacked directory,
            there or in a subdirectory ``cornell``.

    Raises:
        CorpusNotFoundError: where nothing is there, with what to download or the nearest name.
        CorpusFormatError: naming file, line and problem, where a file is not what its suffix
            promises, is damaged, or cannot be read.
    """
    if corpus == "everyday":
        from model.everyday import dialogues

        return Corpus(corpus, tuple(dialogues()))
    if corpus == "cornell":
        return _read_cornell(corpus, _find_cornell(data_directory))
    return _read_path(corpus)


def _read_path(corpus: str) -> Corpus:
    path = Path(corpus)
    if _is_directory(path) or path.suffix.lower() == ".zip":
        return _read_cornell(corpus, path)
    match = _TEXT_FILE.fullmatch(path.name)
    if not match:
        raise CorpusFormatError(path, f"no corpus format has this suffix; valid: {_FORMATS}.")
    lines = _numbered_lines(path, (match["packed"] or "").lower())
    join = _join_pairs if match["kind"].lower() == "tsv" else _join_utterances
    return Corpus(corpus, tuple(Dialogue(tuple(turns)) for turns in join(path, lines)))


def _is_directory(path: Path) -> bool:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise CorpusNotFoundError(_not_found(path, error)) from None
    if not stat.S_ISDIR(mode) and not stat.S_ISREG(mode):
        raise CorpusFormatError(path, "is neither a file nor a directory.")
    return stat.S_ISDIR(mode)


def _not_found(path: Path, error: OSError | ValueError) -> str:
    if not path.suffix and path.name == str(path):
        return (
            f"unknown corpus {path.name!r}{did_you_mean(path.name, NAMES)} "
            "Or give the path of a corpus file or directory."
        )
    reason = reason_of(error) if isinstance(error, OSError) else str(error)
    return f"{path}: no corpus is there: {reason}."


# Lines of text files


def _numbered_lines(path: Path, packed: str) -> Iterator[tuple[int, str]]:
    """Yields each line's number, from 1, and its text without the line feed."""
    with _format_errors(path), _OPENERS[packed](path, "rb") as file:
        for number, raw in enumerate(file, 1):
            yield number, _decode(path, number, raw)


def _decode(path: Path, number: int, raw: bytes) -> str:
    try:
        return raw.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8-sig")
    except UnicodeDecodeError as error:
        problem = (
            f"is not UTF-8: byte 0x{error.object[error.start]:02x} at {error.start}; convert it"
        )
        advice = "(iconv -f ISO-8859-1 -t UTF-8, if that is what it is)."
        raise CorpusFormatError(path, f"{problem} {advice}", number) from None


@contextlib.contextmanager
def _format_errors(path: Path) -> Iterator[None]:
    """Turns errors of opening, reading and unpacking a file into `CorpusFormatError`."""
    try:
        yield
    except OSError as error:
        raise CorpusFormatError(path, f"cannot be read: {reason_of(error)}.") from error
    except _DAMAGE as error:
        problem = str(error).strip().rstrip(".") or type(error).__name__
        raise CorpusFormatError(
            path, f"is damaged or incomplete: {problem}; get the file again."
        ) from error


def _join_pairs(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[list[str]]:
    """Yields the turns of each dialogue of question and reply pairs."""
    turns: list[str] = []
    for number, line in lines:
        pair = line.split("\t") if line else []
        if len(pair) not in (0, 2):
            raise CorpusFormatError(
                path,
                "expected a question and a reply with one tab between them, but got "
                f"{len(pair) - 1} tabs in {_shown(line)}; "
                "a file of an utterance on each line needs the suffix .txt.",
                number,
            )
        if turns and (not pair or turns[-1] != pair[0]):
            yield turns
            turns = []
        turns += pair[1:] if turns else pair
    if turns:
        yield turns


def _join_utterances(path: Path, lines: Iterable[tuple[int, str]]) -> Iterator[list[str]]:
    """Yields the turns of each dialogue of utterances with blank lines between dialogues."""
    turns: list[str] = []
    for number, line in lines:
        if "\t" in line.strip():
            raise CorpusFormatError(
                path,
                f"expected one utterance, but got a tab in {_shown(line)}; "
                "a file of questions and replies needs the suffix .tsv.",
                number,
            )
        if line.strip():
            turns.append(line)
        elif turns:
            yield turns
            turns = []
    if turns:
        yield turns


def _shown(line: str, width: int = 60) -> str:
    return repr(line if len(line) <= width else line[: width - 3] + "...")


# The Cornell Movie-Dialogs Corpus


class _TextFile(NamedTuple):
    name: str
    text: str


def _find_cornell(data_directory: Path) -> Path:
    with _format_errors(data_directory):
        for directory in (data_directory, data_directory / "cornell"):
            for name in (CORNELL_ARCHIVE, CORNELL_DIRECTORY):
                if (directory / name).exists():
                    return directory / name
    raise CorpusNotFoundError(
        f"cornell: the corpus is not under {data_directory.resolve()}. Download {CORNELL_ARCHIVE} "
        "(Cornell Movie-Dialogs Corpus; Danescu-Niculescu-Mizil and Lee, 2011, "
        f'"Chameleons in imagined conversations") from {CORNELL_ADDRESS} and put it at '
        f"{data_directory / CORNELL_ARCHIVE}, or give the path of your copy as the corpus."
    )


def _read_cornell(corpus: str, path: Path) -> Corpus:
    lines, conversations = _cornell_files(path)
    texts = _cornell_texts(lines)
    dialogues: list[Dialogue] = []
    missing = 0
    for number, ids in _cornell_conversations(conversations):
        missing += sum(id_ not in texts for id_ in ids)
        runs = _unbroken(ids, texts)
        group = f"conversation {number}" if len(runs) > 1 else None
        dialogues += (Dialogue(run, group) for run in runs)
    return Corpus(corpus, tuple(dialogues), missing)


def _cornell_files(path: Path) -> list[_TextFile]:
    """Reads the lines and the conversations out of a directory or an archive."""
    names = (_CORNELL_LINES, _CORNELL_CONVERSATIONS)
    with _format_errors(path):
        if path.is_dir():
            found = [
                file.relative_to(path).as_posix() for name in names for file in path.rglob(name)
            ]
            files = [path / _cornell_folder(path, found) / name for name in names]
            return [_TextFile(str(f), f.read_bytes().decode("iso-8859-1")) for f in files]
        with ZipFile(path) as archive:
            folder = _cornell_folder(path, archive.namelist())
            return [
                _TextFile(
                    f"{path}/{folder}{name}", archive.read(folder + name).decode("iso-8859-1")
                )
                for name in names
            ]


def _cornell_folder(path: Path, names: Iterable[str]) -> str:
    """The outermost folder that holds both files: '' or a name that ends in a slash."""
    names = list(names)
    folders = {
        wanted: {name.removesuffix(wanted) for name in names if f"/{name}".endswith(f"/{wanted}")}
        for wanted in (_CORNELL_LINES, _CORNELL_CONVERSATIONS)
    }
    both = set.intersection(*folders.values())
    if both:
        return min(both, key=lambda folder: (folder.count("/"), folder))
    problem = " and ".join(f"no {wanted}" for wanted, found in folders.items() if not found)
    problem = problem or "no folder with both movie_lines.txt and movie_conversations.txt"
    raise CorpusFormatError(path, f"holds {problem}, as the Cornell Movie-Dialogs Corpus does.")


def _cornell_texts(file: _TextFile) -> dict[str, str]:
    """The text of every line, by its id."""
    texts: dict[str, str] = {}
    for number, (id_, *_, text) in _cornell_fields(file, 5):
        if id_ in texts:
            raise CorpusFormatError(file.name, f"line id {_shown(id_)} occurs twice.", number)
        texts[id_] = text
    return texts


def _cornell_conversations(file: _TextFile) -> Iterator[tuple[int, list[str]]]:
    """Yields each conversation's line number and the ids of its lines."""
    for number, (*_, ids) in _cornell_fields(file, 4):
        if not _CORNELL_IDS.fullmatch(ids):
            raise CorpusFormatError(
                file.name, f"expected line ids like ['L1', 'L2'], but got {_shown(ids)}.", number
            )
        yield number, re.findall(r"'([^']*)'", ids)


def _cornell_fields(file: _TextFile, count: int) -> Iterator[tuple[int, list[str]]]:
    for number, line in enumerate(file.text.split("\n"), 1):
        fields = line.removesuffix("\r").split(_CORNELL_SEPARATOR, count - 1)
        if len(fields) == count:
            yield number, fields
        elif line.strip():
            raise CorpusFormatError(
                file.name,
                f"expected {count} fields separated by {_CORNELL_SEPARATOR!r}, "
                f"but got {len(fields)} in {_shown(line)}.",
                number,
            )


def _unbroken(ids: Iterable[str], texts: dict[str, str]) -> list[tuple[str, ...]]:
    """The runs of turns between lines that are missing."""
    runs: list[list[str]] = [[]]
    for id_ in ids:
        if id_ in texts:
            runs[-1].append(texts[id_])
        else:
            runs.append([])
    return [tuple(run) for run in runs if run]

import bz2
import gzip
import lzma
import os
import pickle
import sys
import types
import zipfile
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from model.corpora import Corpus, read_corpus
from model.dialogue import Dialogue
from model.errors import CorpusFormatError, CorpusNotFoundError
from model.text import normalise

REAL = Path(__file__).parents[2].parent / "shared" / "data"
SEPARATOR = " +++$+++ "

LINES = """\
L1 +++$+++ u0 +++$+++ m0 +++$+++ ANN +++$+++ Hello.
L2 +++$+++ u1 +++$+++ m0 +++$+++ BOB +++$+++ Hi +++$+++ there, caf\xe9.\x85 Bye.
L3 +++$+++ u0 +++$+++ m0 +++$+++ ANN +++$+++\x20
L4 +++$+++ u1 +++$+++ m0 +++$+++ BOB +++$+++ So?
"""
CONVERSATIONS = """\
u0 +++$+++ u1 +++$+++ m0 +++$+++ ['L1', 'L2', 'L3']
u0 +++$+++ u1 +++$+++ m0 +++$+++ ['L3','L4']
"""
CORNELL = [("Hello.", "Hi +++$+++ there, caf\xe9.\x85 Bye.", ""), ("", "So?")]


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode(encoding))
    return path


def cornell(directory: Path, lines: str = LINES, conversations: str = CONVERSATIONS) -> Path:
    write(directory / "movie_lines.txt", lines, "iso-8859-1")
    write(directory / "movie_conversations.txt", conversations, "iso-8859-1")
    return directory


def cornell_zip(path: Path, folder: str = "cornell movie-dialogs corpus/") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(folder + "movie_lines.txt", LINES.encode("iso-8859-1"))
        archive.writestr(folder + "movie_conversations.txt", CONVERSATIONS)
        archive.writestr(f"__MACOSX/{folder}._movie_lines.txt", b"\x00")
    return path


def turns(corpus: Corpus) -> list[tuple[str, ...]]:
    return [dialogue.turns for dialogue in corpus.dialogues]


# Pairs


def test_pairs_are_chained_where_the_reply_is_the_next_question(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "one\ttwo\ntwo\tthree\nfour\tfive\n\nfive\tsix\n")
    assert turns(read_corpus(str(path))) == [
        ("one", "two", "three"),
        ("four", "five"),
        ("five", "six"),
    ]


def test_lines_end_at_line_feeds_only(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tsv", "\ufeffa\u0085b\tc\u2028d\r\ne\x0bf\tg\x1ch")
    assert turns(read_corpus(str(path))) == [("a\u0085b", "c\u2028d"), ("e\x0bf", "g\x1ch")]


@pytest.mark.parametrize(("line", "tabs"), [("no tab", 0), ("a\tb\tc", 2)])
def test_a_line_that_is_no_pair(tmp_path: Path, line: str, tabs: int) -> None:
    path = write(tmp_path / "a.tsv", f"a\tb\n{line}\n")
    with pytest.raises(
        CorpusFormatError, match=rf"{path}:2: .* one tab .* got {tabs} tabs in"
    ) as e:
        read_corpus(str(path))
    assert "needs the suffix .txt" in str(e.value)
    assert e.value.line == 2
    assert str(pickle.loads(pickle.dumps(e.value))) == str(e.value)


# Utterances


def test_utterances_with_blank_lines_between_dialogues(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "\none\ntwo\n\n  \nthree\nfour\nfive")
    assert turns(read_corpus(str(path))) == [("one", "two"), ("three", "four", "five")]


def test_a_tab_in_an_utterance(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\n" + "x" * 100 + "\ttwo\n")
    with pytest.raises(CorpusFormatError, match=rf"{path}:2: .* 'x*\.\.\.'; .* suffix \.tsv"):
        read_corpus(str(path))


def test_an_empty_file_has_no_dialogues(tmp_path: Path) -> None:
    assert turns(read_corpus(str(write(tmp_path / "a.txt", "")))) == []


# Suffixes, compression, encoding

PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "gz": gzip.compress,
    "xz": lzma.compress,
    "bz2": bz2.compress,
}


@pytest.mark.parametrize("packed", PACKERS)
@pytest.mark.parametrize("name", ["a.TSV", "my.corpus.txt"])
def test_compressed_files(tmp_path: Path, packed: str, name: str) -> None:
    text = "one\ttwo\n" if "TSV" in name else "one\ntwo\n"
    path = tmp_path / f"{name}.{packed}"
    path.write_bytes(PACKERS[packed](text.encode()))
    assert turns(read_corpus(str(path))) == [("one", "two")]


@pytest.mark.parametrize("packed", PACKERS)
def test_a_truncated_compressed_file(tmp_path: Path, packed: str) -> None:
    whole = PACKERS[packed](os.urandom(5000).hex().encode())
    path = tmp_path / f"a.txt.{packed}"
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        CorpusFormatError, match=f"{path}: is damaged or incomplete: .*get the file"
    ):
        read_corpus(str(path))


@pytest.mark.parametrize("packed", PACKERS)
def test_a_file_that_is_not_compressed(tmp_path: Path, packed: str) -> None:
    path = write(tmp_path / f"a.txt.{packed}", "plain text\n")
    with pytest.raises(CorpusFormatError, match=f"{path}: (is damaged|cannot be read)"):
        read_corpus(str(path))


def test_the_wrong_encoding(tmp_path: Path) -> None:
    path = write(tmp_path / "a.txt", "one\ncaf\xe9\n", "iso-8859-1")
    with pytest.raises(CorpusFormatError, match=f"{path}:2: is not UTF-8: byte 0xe9 at 3; .*iconv"):
        read_corpus(str(path))


@pytest.mark.parametrize("name", ["a.csv", "a.safetensors", "a", "a.gz"])
def test_an_unknown_suffix(tmp_path: Path, name: str) -> None:
    path = write(tmp_path / name, "one\n")
    with pytest.raises(CorpusFormatError, match=r"no corpus format has this suffix; valid: \.tsv"):
        read_corpus(str(path))


def test_a_path_that_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.txt")
    with pytest.raises(CorpusFormatError, match="neither a file nor a directory"):
        read_corpus(str(tmp_path / "a.txt"))


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt.gz", "")

    def refuse(*_args: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules["model.corpora"]._OPENERS, "gz", refuse)
    with pytest.raises(CorpusFormatError, match=f"{path}: cannot be read: permission denied"):
        read_corpus(str(path))


# Names


def test_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(CorpusNotFoundError, match="unknown corpus 'evryday', did you mean 'everyd"):
        read_corpus("evryday")
    with pytest.raises(CorpusNotFoundError, match=r"'zzz'; valid: cornell, everyday\. Or give"):
        read_corpus("zzz")


@pytest.mark.parametrize("name", ["nowhere.tsv", "nowhere/at-all", "x" * 300 + ".txt", "a\0b.txt"])
def test_a_missing_path(tmp_path: Path, name: str) -> None:
    with pytest.raises(
        CorpusNotFoundError, match=r"no corpus is there: (no such|the name|embedded)"
    ):
        read_corpus(str(tmp_path / name))


def test_everyday_is_read_from_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("model.everyday")
    monkeypatch.setattr(module, "dialogues", lambda: [Dialogue(("a", "b"), "g")], raising=False)
    monkeypatch.setitem(sys.modules, "model.everyday", module)
    assert read_corpus("everyday").dialogues == (Dialogue(("a", "b"), "g"),)


# Cornell


def test_cornell_by_name_and_path(tmp_path: Path) -> None:
    archive = cornell_zip(tmp_path / "zip" / "cornell_movie_dialogs_corpus.zip")
    unpacked = cornell(tmp_path / "dir" / "cornell movie-dialogs corpus")
    nested = cornell_zip(tmp_path / "nested" / "cornell" / archive.name)
    for directory in (archive.parent, unpacked.parent, nested.parent.parent):
        assert turns(read_corpus("cornell", directory)) == CORNELL
    for path in (archive, unpacked, unpacked.parent, cornell_zip(tmp_path / "b.ZIP", "")):
        assert turns(read_corpus(str(path))) == CORNELL


def test_cornell_missing_says_what_to_download(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFoundError) as caught:
        read_corpus("cornell", tmp_path)
    message = str(caught.value)
    assert f"not under {tmp_path}" in message
    assert "https://www.cs.cornell.edu/~cristian/Cornell_Movie-Dialogs_Corpus.html" in message
    assert f"put it at {tmp_path}/cornell_movie_dialogs_corpus.zip" in message
    assert "Danescu-Niculescu-Mizil and Lee, 2011" in message
    assert "give the path of your copy as the corpus" in message


def test_a_missing_line_ends_the_dialogue_and_is_counted(tmp_path: Path) -> None:
    conversations = CONVERSATIONS.replace("'L3']", "'L9', 'L3', 'L4', 'L8']")
    corpus = read_corpus(str(cornell(tmp_path, conversations=conversations)))
    assert turns(corpus) == [CORNELL[0][:2], CORNELL[1], CORNELL[1]]
    assert corpus.missing_lines == 2
    assert [dialogue.group for dialogue in corpus.dialogues] == ["conversation 1"] * 2 + [None]


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("L5 +++$+++ u0 +++$+++ m0 +++$+++ ANN", "expected 5 fields .* but got 4 in 'L5"),
        ("nonsense", "expected 5 fields separated by ' .*' but got 1|but got 1 in 'nonsense'"),
        ("L1 +++$+++ u +++$+++ m +++$+++ A +++$+++ x", "line id 'L1' occurs twice"),
    ],
)
def test_malformed_cornell_lines(tmp_path: Path, line: str, problem: str) -> None:
    cornell(tmp_path, lines=LINES + line + "\n")
    with pytest.raises(CorpusFormatError, match=rf"{tmp_path}/movie_lines\.txt:5: {problem}"):
        read_corpus(str(tmp_path))


@pytest.mark.parametrize("ids", ["L1, L2", "['L1', L2]", "['L1'", "__import__('os')", ""])
def test_malformed_cornell_conversations(tmp_path: Path, ids: str) -> None:
    cornell(tmp_path, conversations=CONVERSATIONS + f"u0 +++$+++ u1 +++$+++ m0 +++$+++ {ids}\n")
    with pytest.raises(CorpusFormatError, match=r"movie_conversations\.txt:3: expected line ids"):
        read_corpus(str(tmp_path))


def test_a_missing_member(tmp_path: Path) -> None:
    write(tmp_path / "a" / "movie_lines.txt", LINES)
    with pytest.raises(CorpusFormatError, match=r"holds no movie_conversations\.txt, as the Corn"):
        read_corpus(str(tmp_path))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    with pytest.raises(CorpusFormatError, match=r"no movie_lines\.txt and no movie_conversations"):
        read_corpus(str(tmp_path / "a.zip"))
    write(tmp_path / "b" / "movie_conversations.txt", CONVERSATIONS)
    with pytest.raises(CorpusFormatError, match=r"holds no folder with both movie_lines\.txt and"):
        read_corpus(str(tmp_path))


def test_a_truncated_zip(tmp_path: Path) -> None:
    path = cornell_zip(tmp_path / "a.zip")
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CorpusFormatError, match=f"{path}: is damaged or incomplete: .*get the file"
    ):
        read_corpus(str(path))


# Properties

TEXT = st.text(st.characters(exclude_characters="\n\t", exclude_categories=["Cs"])).map(
    lambda text: text.strip("\r\ufeff")
)


def read_bytes(name: str, content: bytes) -> Corpus:
    with TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(content)
        try:
            return read_corpus(str(path))
        except CorpusFormatError as error:
            assert error.file == str(path)
            raise


@settings(deadline=None)
@given(st.lists(st.tuples(TEXT, TEXT)))
def test_pairs_lose_and_duplicate_nothing(pairs: list[tuple[str, str]]) -> None:
    corpus = read_bytes("a.tsv", "".join(f"{a}\t{b}\n" for a, b in pairs).encode())
    assert [pair for dialogue in corpus.dialogues for pair in pairwise(dialogue.turns)] == pairs


@settings(deadline=None)
@given(st.lists(st.lists(TEXT.filter(str.strip), min_size=1)))
def test_utterances_lose_and_duplicate_nothing(dialogues: list[list[str]]) -> None:
    text = "\n\n".join("\n".join(dialogue) for dialogue in dialogues)
    assert turns(read_bytes("a.txt", text.encode())) == [tuple(d) for d in dialogues]


LINE = st.binary(max_size=20) | st.sampled_from([b"a\tb", b"", b"a", b"\xff", b"a\tb\tc", b"\r"])


@settings(deadline=None)
@given(st.lists(LINE).map(b"\n".join), st.sampled_from(["a.tsv", "a.txt"]))
def test_any_line_parses_or_names_file_and_line(content: bytes, name: str) -> None:
    try:
        corpus = read_bytes(name, content)
    except CorpusFormatError as error:
        assert error.line is not None
        assert 1 <= error.line <= content.count(b"\n") + 1
    else:
        assert all(dialogue.turns for dialogue in corpus.dialogues)


FIELDS = st.lists(st.text(max_size=5) | st.sampled_from(["L1", "L2", "['L1', 'L2']"]), max_size=6)
CORNELL_TEXT = st.lists(FIELDS.map(SEPARATOR.join)).map("\n".join)


@settings(deadline=None)
@given(CORNELL_TEXT, CORNELL_TEXT)
@example(LINES, CONVERSATIONS)
def test_any_cornell_line_parses_or_names_file_and_line(lines: str, conversations: str) -> None:
    with TemporaryDirectory() as name:
        directory = Path(name)
        (directory / "movie_lines.txt").write_bytes(lines.encode("iso-8859-1", "replace"))
        (directory / "movie_conversations.txt").write_bytes(
            conversations.encode("iso-8859-1", "replace")
        )
        try:
            read_corpus(name)
        except CorpusFormatError as error:
            assert error.file.endswith(("movie_lines.txt", "movie_conversations.txt"))
            assert error.line is not None


@settings(deadline=None)
@given(st.data(), st.sampled_from(["zip", *PACKERS]))
def test_any_damage_is_reported_or_harmless(data: st.DataObject, kind: str) -> None:
    if kind == "zip":
        with TemporaryDirectory() as directory:
            whole = bytearray(cornell_zip(Path(directory) / "a.zip").read_bytes())
    else:
        whole = bytearray(PACKERS[kind](b"one\ntwo\n" * 20))
    if data.draw(st.booleans()):
        whole = whole[: data.draw(st.integers(0, len(whole) - 1))]
    else:
        whole[data.draw(st.integers(0, len(whole) - 1))] ^= data.draw(st.integers(1, 255))
    try:
        read_bytes("a.zip" if kind == "zip" else f"a.txt.{kind}", bytes(whole))
    except CorpusFormatError as error:
        assert error.problem


# Real corpora


@pytest.fixture
def real() -> Path:
    if not REAL.is_dir():
        pytest.skip(f"the real corpora are not at {REAL}")
    return REAL


@pytest.mark.corpora
def test_the_real_pairs_and_the_published_figures(real: Path) -> None:
    corpus = read_corpus(str(real / "cornell" / "pairs.tsv.xz"))
    # As published: empty sides stay, words are counted over all kept pairs, both sides of each.
    words = [
        pair
        for dialogue in corpus.dialogues
        for pair in pairwise([normalise(turn).split() for turn in dialogue.turns])
    ]
    assert (len(words), len(corpus.dialogues)) == (220_621, 83_513)
    short = [pair for pair in words if max(map(len, pair)) < 10]
    assert len(short) == 64_171
    counts = Counter(word for pair in short for side in pair for word in side)
    known = {word for word, count in counts.items() if count >= 3}
    assert len(known) == 7_821
    assert sum(known.issuperset(a + b) for a, b in short) == 53_086
    # One of these pairs is "657-2036", which has no words; here it is dropped.
    assert sum(bool(a and b) for a, b in short) == 64_170


@pytest.mark.corpora
def test_the_real_original_layout(real: Path) -> None:
    corpus = read_corpus("cornell", real)
    assert len(corpus.dialogues) == 83_094
    assert sum(len(dialogue.turns) for dialogue in corpus.dialogues) == 304_471
    assert corpus.missing_lines == 0

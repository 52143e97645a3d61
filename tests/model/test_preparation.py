import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model import preparation
from model.config import DataConfig
from model.corpora import Corpus
from model.dialogue import Dialogue
from model.errors import CorpusFormatError, CorpusNotFoundError, EmptyCorpusError
from model.preparation import PreparationReport, prepare, prepare_corpus, split_dialogues
from model.prepared_data import SPLITS, PreparedData
from model.text import normalise

ROOT = Path(__file__).parents[2]
REAL = ROOT.parent / "shared" / "data"


def prepared(
    monkeypatch: pytest.MonkeyPatch, *dialogues: tuple[str, Sequence[str]], **config: Any
) -> PreparedData:
    """Prepares dialogues whose splits are given."""
    monkeypatch.setattr(preparation, "split_dialogues", lambda *_: [d[0] for d in dialogues])
    corpus = Corpus("by hand", tuple(Dialogue(tuple(turns)) for _, turns in dialogues))
    return prepare_corpus(corpus, DataConfig(**({"min_count": 1} | config)))


def texts(data: PreparedData) -> list[str]:
    tokens, bounds = data.tokens.tolist(), data.utterance_offsets.tolist()
    return [data.vocabulary.decode(tokens[start:end]) for start, end in pairwise(bounds)]


def pairs(data: PreparedData, split: str) -> list[tuple[str, str]]:
    """(last turn, reply) of every example, as text."""
    text = texts(data)
    return [(text[reply - 1], text[reply]) for _, reply in data.examples[split].tolist()]


def contexts(data: PreparedData, split: str) -> list[list[str]]:
    """The context and reply of every example, as texts."""
    text = texts(data)
    return [text[first : reply + 1] for first, reply in data.examples[split].tolist()]


def utterances(data: PreparedData) -> int:
    return len(data.utterance_offsets) - 1


HELD_OUT = (("validation", ["hi", "bye"]), ("test", ["bye", "you"]))


def test_a_dialogue_becomes_examples_with_growing_context(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(monkeypatch, ("train", ["Hi!", "Hi, you.", "Bye"]), *HELD_OUT)
    assert contexts(data, "train") == [["hi !", "hi you ."], ["hi !", "hi you .", "bye"]]
    assert data.examples["train"].tolist() == [[0, 1], [0, 2]]
    assert contexts(data, "validation") == [["hi", "bye"]]
    assert data.examples["test"].tolist() == [[5, 6]]
    # Counted over both sides of each pair: hi 1 + 1 + 1, you 2, . 2, ! 1, bye 1.
    assert data.vocabulary.words[4:] == ("hi", ".", "you", "!", "bye")
    assert data.tokens[:3].tolist() == [4, 7, 2]
    data.verify()


def test_a_dialogue_is_cut_where_a_pair_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    turns = ["hi", "you", "one two three", "bye", "...", "1 2 3", "you", "hi"]
    data = prepared(monkeypatch, ("train", turns), *HELD_OUT, max_length=3, rare_words="unk")
    assert contexts(data, "train") == [["hi", "you"], ["you", "hi"]]
    assert utterances(data) == 8  # "bye" and ". . ." stand in no kept pair
    assert data.counts["train_pairs"] == 7
    assert data.counts["train_empty"] == 2
    assert data.counts["train_long"] == 3
    assert data.counts["train_examples"] == 2


def test_max_length_is_not_reached(monkeypatch: pytest.MonkeyPatch) -> None:
    train = ("train", ["hi you", "you bye", "bye you hi", "hi"])
    data = prepared(monkeypatch, train, *HELD_OUT, max_length=3)
    assert pairs(data, "train") == [("hi you", "you bye")]


RARE = (
    ("train", ["hi", "you", "hi you", "rare bye", "bye"]),
    ("validation", ["hi", "you you", "new hi", "bye"]),
    ("test", ["bye", "you hi"]),
)


def test_rare_words_are_dropped_in_every_split(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(monkeypatch, *RARE, min_count=3)
    # Over both sides of each training pair: you 4, bye 3, hi 3, rare 2.
    assert data.vocabulary.words[4:] == ("you", "bye", "hi")
    assert pairs(data, "train") == [("hi", "you"), ("you", "hi you")]
    assert pairs(data, "validation") == [("hi", "you you")]
    assert (data.counts["train_rare"], data.counts["validation_rare"]) == (2, 2)
    assert data.counts["words_seen"] == 4


def test_rare_words_become_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(monkeypatch, *RARE, min_count=3, rare_words="unk")
    assert contexts(data, "train")[-1] == ["hi", "you", "hi you", "<unk> bye", "bye"]
    assert contexts(data, "validation")[-1] == ["hi", "you you", "<unk> hi", "bye"]
    assert data.counts["train_rare"] == 0


def test_no_held_out_pair_occurs_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(
        monkeypatch,
        ("test", ["You?", "hi", "bye", "you"]),  # the order in the corpus does not matter
        ("validation", ["Hi", "YOU", "you ?", "hi"]),
        ("train", ["hi", "you", "hi", "bye", "?"]),
        ("train", ["hi", "you"]),
    )
    assert pairs(data, "validation") == [("you", "you ?"), ("you ?", "hi")]
    assert contexts(data, "test") == [["bye", "you"]]  # "hi", "bye" cuts, and is no context
    assert pairs(data, "train").count(("hi", "you")) == 2
    assert (data.counts["validation_shared"], data.counts["test_shared"]) == (1, 2)


def test_held_out_pairs_are_compared_as_the_model_reads_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = prepared(
        monkeypatch,
        ("train", ["ann you", "hi"]),
        ("train", ["hi", "you", "hi", "you"]),
        ("validation", ["bob you", "hi", "hi"]),
        ("test", ["you", "you"]),
        min_count=2,
        rare_words="unk",
    )
    assert pairs(data, "validation") == [("hi", "hi")]


def test_the_vocabulary_is_of_training_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(monkeypatch, ("train", ["hi", "you", "bye"]), *HELD_OUT, RARE[1])
    assert "new" not in data.vocabulary


# Splitting


def test_splits_by_dialogue_in_shares() -> None:
    dialogues = [Dialogue((str(i),)) for i in range(100)]
    splits = split_dialogues(dialogues, DataConfig())
    assert Counter(splits) == {"train": 90, "validation": 5, "test": 5}
    assert splits == split_dialogues(dialogues, DataConfig())
    assert splits != split_dialogues(dialogues, DataConfig(split_seed=1))


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["a", "b", "c", "d", None]), max_size=30),
    st.floats(0.01, 0.5),
    st.floats(0.01, 0.5),
    st.integers(0, 5),
)
def test_groups_stay_together_and_no_split_is_empty(
    groups: list[str | None], validation: float, test: float, seed: int
) -> None:
    config = DataConfig(validation_share=validation, test_share=test, split_seed=seed)
    splits = split_dialogues([Dialogue(("x",), group) for group in groups], config)
    assert len(splits) == len(groups)
    placed = {(group, split) for group, split in zip(groups, splits, strict=True) if group}
    assert len(placed) == len({group for group, _ in placed})
    if len({group for group in groups if group}) + groups.count(None) >= 3:
        assert set(splits) == set(SPLITS)


def test_the_split_does_not_depend_on_what_is_dropped() -> None:
    dialogues = [Dialogue((f"q{i}", "a " * i)) for i in range(50)]
    assert split_dialogues(dialogues, DataConfig()) == split_dialogues(
        dialogues, DataConfig(max_length=500, min_count=1)
    )


# Errors


def test_nothing_left_says_what_took_it_and_what_to_change(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EmptyCorpusError) as caught:
        prepared(monkeypatch, ("train", ["hi " * 30, "you", "?", "1"]), *HELD_OUT, min_count=5)
    assert str(caught.value) == (
        "by hand: nothing is left for training. "
        "It had 3 pairs in 1 dialogue, of 3 dialogues in all; dropped: "
        "1 pair with a side without words, "
        "1 pair with a side of 10 words or more (max_length), "
        "1 pair with a word seen in training less than 5 times (min_count). "
        "Raise max_length, lower min_count, set rare_words to 'unk', or take a larger corpus: "
        "three dialogues (or groups of dialogues) at least."
    )


def test_every_split_needs_a_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    train = ("train", ["hi", "bye", "you"])
    with pytest.raises(
        EmptyCorpusError, match=r"left for validation.*1 pair held out, but also in"
    ):
        prepared(monkeypatch, train, *HELD_OUT)
    with pytest.raises(
        EmptyCorpusError, match=r"left for test\. It had 0 pairs in 0 dialogues, of 2 dial"
    ):
        prepared(monkeypatch, train, ("validation", ["bye", "bye"]))


@pytest.mark.parametrize("text", ["", "alone\n", "hi\nyou\n"])
def test_a_corpus_that_is_too_small(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.txt").write_text(text)
    with pytest.raises(EmptyCorpusError, match=f"^{tmp_path}/a.txt: nothing is left for"):
        prepare(DataConfig(corpus=str(tmp_path / "a.txt"), min_count=1))


def test_errors_of_reading_pass_through(tmp_path: Path) -> None:
    with pytest.raises(CorpusNotFoundError, match=f"not under {tmp_path}"):
        prepare(DataConfig(corpus="cornell"), data_directory=tmp_path)
    (tmp_path / "a.tsv").write_text("no tab")
    with pytest.raises(CorpusFormatError, match=r"a\.tsv:1"):
        prepare(DataConfig(corpus=str(tmp_path / "a.tsv")))


# The report and the progress bar


def test_the_report(monkeypatch: pytest.MonkeyPatch) -> None:
    data = prepared(monkeypatch, *RARE, min_count=3)
    data.settings["corpus"] = "by hand"
    data.counts["missing_lines"] = 2
    assert PreparationReport.of(data).summary_lines() == [
        "corpus       by hand: 8 pairs in 3 dialogues",
        "missing      2 lines; dialogues end there",
        "dropped      4 pairs with a word seen in training less than 3 times (min_count)",
        "kept         4 pairs",
        "vocabulary   3 of 4 words in training, and 4 special ones",
        "training     2 examples of 1 dialogue",
        "validation   1 example of 1 dialogue",
        "test         1 example of 1 dialogue",
        f"fingerprint  {data.fingerprint}",
    ]


def test_a_progress_bar_only_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus = Corpus("x", tuple(Dialogue(("hi " * n, "hi")) for n in (1, 2, 3)))
    config = DataConfig(min_count=1)
    prepare_corpus(corpus, config, progress=True)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    prepare_corpus(corpus, config, progress=True)
    assert "normalising" in capsys.readouterr().err


# Properties

WORDS = st.lists(st.sampled_from(["a", "B", "c", "é", "?", "7"]), max_size=4).map(" ".join)
DIALOGUES = st.lists(st.lists(WORDS, min_size=1, max_size=6), min_size=3, max_size=12)
CONFIGS = st.builds(
    DataConfig,
    max_length=st.integers(2, 6),
    min_count=st.integers(1, 4),
    rare_words=st.sampled_from(["drop", "unk"]),
    validation_share=st.just(0.2),
    test_share=st.just(0.2),
    split_seed=st.integers(0, 3),
)


def expected_pairs(dialogues: list[list[str]], config: DataConfig) -> dict[str, list[object]]:
    """The same rules again, written plainly over pairs alone."""
    splits = split_dialogues([Dialogue(tuple(turns)) for turns in dialogues], config)
    every = [
        (split, pair)
        for split, turns in zip(splits, dialogues, strict=True)
        for pair in pairwise(normalise(turn).split() for turn in turns)
        if all(0 < len(side) < config.max_length for side in pair)
    ]
    counts = Counter(w for split, (a, b) in every if split == "train" for w in a + b)
    known = {word for word, count in counts.items() if count >= config.min_count}
    kept: dict[str, list[object]] = {}
    seen: set[object] = set()
    for wanted in SPLITS:
        read = [
            tuple(" ".join(w if w in known else "<unk>" for w in side) for side in pair)
            for split, pair in every
            if split == wanted
            and (config.rare_words == "unk" or known.issuperset(pair[0] + pair[1]))
        ]
        kept[wanted] = [pair for pair in read if wanted == "train" or pair not in seen]
        seen.update(kept[wanted])
    return kept


@settings(max_examples=200, deadline=None)
@given(DIALOGUES, CONFIGS)
def test_any_corpus_follows_the_rules(dialogues: list[list[str]], config: DataConfig) -> None:
    corpus = Corpus("x", tuple(Dialogue(tuple(turns)) for turns in dialogues))
    expected = expected_pairs(dialogues, config)
    if not all(expected.values()):
        with pytest.raises(EmptyCorpusError, match="nothing is left"):
            prepare_corpus(corpus, config)
        return
    data = prepare_corpus(corpus, config)
    assert {split: pairs(data, split) for split in SPLITS} == expected
    assert not set(pairs(data, "train")) & set(pairs(data, "validation") + pairs(data, "test"))
    assert not set(pairs(data, "validation")) & set(pairs(data, "test"))
    check_runs(data)
    check_counts(data)
    assert prepare_corpus(corpus, config).as_bytes() == data.as_bytes()


def check_runs(data: PreparedData) -> None:
    """Every utterance is in a kept pair, and every context begins where its run begins."""
    examples = sorted(tuple(e) for split in SPLITS for e in data.examples[split].tolist())
    used = {u for _, reply in examples for u in (reply - 1, reply)}
    assert used == set(range(utterances(data)))
    replies = {reply: first for first, reply in examples}
    assert len(replies) == len(examples)
    for first, reply in examples:
        assert first == reply - 1 or replies[reply - 1] == first
        assert first not in replies


def check_counts(data: PreparedData) -> None:
    for split in SPLITS:
        dropped = sum(data.counts[f"{split}_{reason}"] for reason in preparation.REASONS)
        assert data.counts[f"{split}_pairs"] == dropped + data.counts[f"{split}_examples"]
        assert data.counts[f"{split}_examples"] == len(data.examples[split])
    assert data.counts["words"] == len(data.vocabulary)
    assert data.counts["tokens"] == len(data.tokens)


def test_the_same_everywhere() -> None:
    """Not the order of a hash table, nor a version: a change of this breaks published results."""
    words = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]
    corpus = Corpus("x", tuple(Dialogue((a, b, f"{a} {b}!")) for a in words for b in words))
    data = prepare_corpus(corpus, DataConfig())
    assert data.fingerprint[:12] == "be915d7396cb"


# The embedded and the real corpora


def test_everyday_is_prepared_in_full() -> None:
    pytest.importorskip("model.everyday")
    data = prepare(DataConfig())
    assert min(len(examples) for examples in data.examples.values()) >= 100
    check_runs(data)
    check_counts(data)


@pytest.mark.corpora
def test_the_real_pairs_fast_and_in_little_memory() -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real corpora are not at {REAL}")
    program = """
import json, sys, time
from model.config import DataConfig
from model.machine import peak_memory
from model.preparation import prepare
start = time.monotonic()
data = prepare(DataConfig(corpus=sys.argv[1]))
print(json.dumps({"counts": data.counts, "s": time.monotonic() - start, "bytes": peak_memory()}))
"""
    found = subprocess.run(
        [sys.executable, "-c", program, str(REAL / "cornell" / "pairs.tsv.xz")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        text=True,
    )
    result = json.loads(found.stdout)
    counts = result["counts"]
    assert sum(counts[f"{split}_pairs"] for split in SPLITS) == 220_621
    assert sum(counts[f"{split}_{why}"] for split in SPLITS for why in ("empty", "long")) == 156_451
    assert [counts[f"{split}_examples"] for split in SPLITS] == [47_092, 2_396, 2_295]
    assert counts["words"] == 7_337
    assert result["s"] < 30
    assert result["bytes"] < 1.5e9


@pytest.mark.corpora
def test_the_real_original_layout() -> None:
    if not REAL.is_dir():
        pytest.skip(f"the real corpora are not at {REAL}")
    data = prepare(DataConfig(corpus="cornell"), data_directory=REAL)
    train = set(pairs(data, "train"))
    validation = set(pairs(data, "validation"))
    assert not train & validation
    assert not (train | validation) & set(pairs(data, "test"))
    assert len(data.examples["train"]) == 47_229
    check_runs(data)
    check_counts(data)

"""The embedded corpus: its size and regularity, its format, and the prompts that judge a model."""

import re
from collections import Counter, defaultdict
from itertools import pairwise
from pathlib import Path

import pytest

from model.errors import CorpusFormatError
from model.everyday import FILE, LIMIT, dialogues, parse
from model.text import normalise

PROMPTS = Path(__file__).with_name("everyday_prompts.txt")

TABLE = "[table countries]\ncountry | capital\nfrance | paris\nitaly | rome\n"


@pytest.fixture(scope="module")
def corpus():
    return dialogues()


@pytest.fixture(scope="module")
def pairs(corpus):
    """Every (question, reply), normalised, with repetitions."""
    turns = [[normalise(turn) for turn in dialogue.turns] for dialogue in corpus]
    return [pair for dialogue in turns for pair in pairwise(dialogue)]


@pytest.fixture(scope="module")
def prompts():
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    kept = [line for line in lines if line and not line.startswith("#")]
    return [tuple(line.split(" => ")) for line in kept]


@pytest.fixture
def written(tmp_path):
    """Writes a file of templates."""

    def write(text: str) -> Path:
        file = tmp_path / "templates.txt"
        file.write_text(text, encoding="utf-8")
        return file

    return write


class TestCorpus:
    def test_has_many_templates_none_of_which_dominates(self, corpus):
        sizes = Counter(dialogue.group for dialogue in corpus)
        assert len(sizes) >= 400
        assert max(sizes.values()) <= LIMIT
        assert sum(sizes.values()) / len(sizes) > LIMIT / 2

    def test_has_thousands_of_distinct_pairs(self, pairs):
        assert 3000 <= len(set(pairs)) <= 7000

    def test_is_the_same_each_time(self, corpus):
        assert dialogues() == corpus

    def test_dialogues_are_distinct_and_have_2_to_6_turns(self, corpus):
        assert len({(dialogue.group, dialogue.turns) for dialogue in corpus}) == len(corpus)
        assert all(2 <= len(dialogue.turns) <= 6 for dialogue in corpus)

    def test_turns_are_ascii_and_short(self, corpus):
        turns = {turn for dialogue in corpus for turn in dialogue.turns}
        assert [turn for turn in turns if not turn.isascii()] == []
        assert [turn for turn in turns if not 1 <= len(normalise(turn).split()) <= 9] == []

    def test_nearly_every_word_occurs_three_times(self, pairs):
        counts = Counter(word for pair in set(pairs) for text in pair for word in text.split())
        assert 300 <= len(counts) <= 800
        rare = sorted(word for word, count in counts.items() if count < 3)
        assert len(rare) <= len(counts) / 100, rare

    def test_a_question_has_one_reply(self, pairs):
        replies = defaultdict(set)
        for question, reply in pairs:
            replies[question].add(reply)
        assert {question: found for question, found in replies.items() if len(found) > 1} == {}

    def test_slots_of_a_dialogue_come_from_one_row(self, pairs):
        rows = parse(FILE).tables["capital"]
        right = {f"the capital of {row['country']} is {row['capital']} ." for row in rows}
        found = {reply for _, reply in pairs if reply.startswith("the capital of ")}
        assert found == right


class TestFormat:
    def test_expands_a_template_by_hand(self, written):
        file = written(
            f"# a comment\n\n{TABLE}\n[dialogues capital]\n> it is {{capital}}.\n"
            "what is the capital of {country}? | thanks.\n"
            "[dialogues greeting]\n(hi/hello) (there/). | hello!\n"
        )
        found = dialogues(file)
        assert [(dialogue.group, dialogue.turns) for dialogue in found[:2]] == [
            ("capital-1", ("what is the capital of france?", "it is paris.", "thanks.")),
            ("capital-1", ("what is the capital of italy?", "it is rome.", "thanks.")),
        ]
        assert {dialogue.group for dialogue in found[2:]} == {"greeting-1"}
        assert {dialogue.turns[0] for dialogue in found[2:]} == {
            "hi there.",
            "hi.",
            "hello there.",
            "hello.",
        }

    def test_expansions_cover_a_table_evenly(self, written):
        rows = "".join(f"v{'abcdefghijklmnopqr'[i]}\n" for i in range(3 * LIMIT))
        file = written(
            f"[table t]\nslot\n{rows}[dialogues d]\n" + 3 * "is {slot} (so/not)? | no.\n"
        )
        firsts = [re.findall(r"v[a-r]", dialogue.turns[0])[0] for dialogue in dialogues(file)]
        assert sorted(firsts) == sorted(rows.split())

    @pytest.mark.parametrize(
        ("text", "line", "problem"),
        [
            ("hi. | hello.\n", 1, "expected a section before 'hi. | hello.'"),
            ("[tables x]\n", 1, r"expected \[table NAME\] or \[dialogues NAME\], but got"),
            ("[dialogues x]\nhi. | yo.\n[dialogues x]\n", 3, "a second section of dialogues 'x'"),
            ("[table x]\na | a\n", 2, "a second column 'a'"),
            (TABLE + "[table x]\ncapital\n", 6, "a second column 'capital'"),
            (TABLE + "spain\n", 5, "expected 2 cells, but got 1"),
            (TABLE + "spain |\n", 5, r"an empty cell or turn in 'spain \|'"),
            ("[dialogues x]\nhi.\n", 2, "a template has 2 to 6 turns, but got 1"),
            ("[dialogues x]\na|b|c|d|e|f|g\n", 2, "a template has 2 to 6 turns, but got 7"),
            ("[dialogues x]\n>\nhi.\n", 2, "an empty cell or turn in '>'"),
            ("[dialogues x]\n\nhi. | {nme}\n", 3, r"no table has a row for \{nme\} in '\{nme\}'"),
            ("[table x]\na\n[dialogues x]\nhi {a}. | yo\n", 4, r"no table has a row for \{a\}"),
            ("[dialogues x]\n(hi/hey. | yo.\n", 2, r"expected \{column\} and \(this/that\), but"),
            ("[dialogues x]\n(hi) you. | yo.\n", 2, r"expected \{column\} and \(this/that\), but"),
            ("[dialogues x]\nhi/hey. | yo.\n", 2, r"expected \{column\} and \(this/that\), but"),
            (TABLE + "[dialogues x]\n{country. | yo.\n", 6, r"expected .* but got '\{country\.'"),
        ],
    )
    def test_a_malformed_line_is_refused_with_its_place(self, written, text, line, problem):
        with pytest.raises(CorpusFormatError, match=rf"templates\.txt:{line}: {problem}"):
            dialogues(written(text))


class TestPrompts:
    def test_are_twenty(self, prompts):
        assert len({normalise(prompt) for prompt, _ in prompts}) == 20

    def test_are_absent_from_the_corpus(self, prompts, corpus):
        turns = {normalise(turn) for dialogue in corpus for turn in dialogue.turns}
        assert [prompt for prompt, _ in prompts if normalise(prompt) in turns] == []

    def test_use_words_of_the_corpus_and_fit_its_length(self, prompts, pairs):
        words = {word for pair in pairs for text in pair for word in text.split()}
        for prompt, _ in prompts:
            assert set(normalise(prompt).split()) <= words
            assert len(normalise(prompt).split()) <= 9

    def test_have_replies_that_are_reachable_and_specific(self, prompts, pairs):
        replies = {reply for _, reply in pairs}
        for prompt, acceptable in prompts:
            found = {reply for reply in replies if re.search(acceptable, reply)}
            assert found, f"no reply of the corpus matches {acceptable!r} for {prompt!r}"
            assert len(found) <= 6, f"{acceptable!r} for {prompt!r} takes {sorted(found)}"

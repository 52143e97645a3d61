"""Text in, text out: every code point, bytes that are no text, and replies equal to Python's."""

import sys

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from analysis.export import build_text
from analysis.export.text import ascii_table, beyond_ascii_table
from model.text import normalise
from model.vocabulary import EOS, UNK
from tests.analysis.test_export import by_hand, make_model

CODE_POINTS = [chr(c) for c in range(sys.maxunicode + 1) if not 0xD800 <= c < 0xE000]


@pytest.fixture(scope="module")
def by_bias():
    """Says "b" and ends, whatever it is asked."""
    torch.set_num_threads(1)
    return build_text(by_hand([0.0, 0.0, 0.0, 0.0, 0.0, 1.0], max_length=3))


class TestTables:
    def test_by_hand(self):
        ascii_left, beyond = ascii_table(), beyond_ascii_table()
        assert [ascii_left[ord(c)] for c in "aZ.!? 7,'\x00\x7f"] == [
            *("a", "z", " .", " !", " ?"),
            *([" "] * 6),
        ]
        assert beyond["é"] == "e"
        assert beyond["İ"] == "i"
        assert beyond["\u212a"] == "k"  # the Kelvin sign
        assert beyond["\u1e69"] == "s"  # s with two dots: two marks are dropped
        assert beyond["\u0301"] == ""  # a combining mark vanishes without a space
        for space in "ßﬁａΣς日👍\u00a0\u3000\ufffd":
            assert space not in beyond

    def test_only_what_is_no_space_is_kept(self):
        assert " " not in beyond_ascii_table().values()


class TestNormalise:
    @pytest.mark.parametrize(
        "text",
        [
            *(
                "",
                " ",
                "Hi.You",
                "É é naïve",
                "e\u0301x",
                "ΣΟΦΟΣ aς",
                "İstanbul",
                "ﬁsh",
                "a\u0338b",
            ),
            *("日本語 abc", "👍🏽 ok", "a\x00b", "don't", "3.14", "...!?", "a\u200bb", "\ufeffhi"),
            *("\u212bngstrom \u212belvin", "ｆｕｌｌ", "straße", "a\u302eb", "x" * 3000),
        ],
    )
    def test_as_python(self, by_bias, text):
        assert by_bias.normalise(text) == normalise(text)

    @pytest.mark.slow
    @pytest.mark.parametrize("pattern", ["{}", "a{}b", "{}{}"])
    def test_every_code_point(self, by_bias, pattern):
        """Alone, between letters and twice; "q" keeps them apart, and is no letter of any."""
        for start in range(0, len(CODE_POINTS), 1 << 15):
            chars = CODE_POINTS[start : start + (1 << 15)]
            texts = [pattern.replace("{}", char) for char in chars]
            found = by_bias.normalise(" q ".join(texts)).split("q")
            expected = normalise(" q ".join(texts)).split("q")
            assert found == expected
            # And each for itself, where it is not plainly a space.
            for text, one in zip(texts, expected, strict=False):
                if one.strip() not in ("", "a b"):
                    assert by_bias.normalise(text) == normalise(text)

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_any_text(self, by_bias, text):
        assert by_bias.normalise(text) == normalise(text)

    @settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        st.lists(
            st.sampled_from([b"a", b"\xc3", b"\xa9", b"\xe2", b"\x80", b"\xf0", b"\xff", b" "])
        )
    )
    def test_any_bytes_are_read_as_python_replaces_them(self, by_bias, units):
        """Bytes reach the module as they are, from C++ say."""
        raw = b"".join(units)
        assert by_bias.normalise(raw) == normalise(raw.decode("utf-8", "replace"))

    def test_bytes_that_are_no_text(self, by_bias):
        assert by_bias.normalise(b"\xff\xfea\xe2\x80b\xc3") == "a b"
        assert by_bias([b"\xff", b"\xc3\xa9", b"\xed\xa0\x80"]) == ["", "b b b", ""]


class TestReplies:
    @pytest.fixture(scope="class")
    @staticmethod
    def pair(tmp_path_factory, tiny_data):
        torch.set_num_threads(1)
        home = tmp_path_factory.mktemp("text")
        model = make_model(home / "model", tiny_data, {"encoder_layers": 1, "decoder_layers": 2})
        return model, build_text(model)

    def test_ids(self, by_bias):
        assert by_bias.encode("A b, c") == [4, 5, UNK, EOS]
        assert by_bias.encode("...") == [UNK, UNK, UNK, EOS]
        assert by_bias.encode("123") == [EOS]

    def test_nothing_gives_nothing(self, by_bias):
        assert by_bias(["", " ", "123", "日本"]) == [""] * 4
        assert by_bias([]) == []

    def test_as_python(self, pair, tiny_data):
        model, module = pair
        texts = [tiny_data.vocabulary.decode(tiny_data.utterance(i)) for i in range(0, 300, 3)] + [
            "",
            "Do you LIKE réd?",
            "what is this",
            "123",
            "?!",
            "red " * 30,
        ]
        assert module(texts) == model.replies(texts)
        assert len(set(module(texts))) > 5

    def test_a_text_alone_and_among_others(self, pair):
        _, module = pair
        texts = ["do you like red green or blue ?", "pink", "", "i like grey ."]
        assert [module([text])[0] for text in texts] == module(texts)

    @settings(
        deadline=None,
        max_examples=30,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
    )
    @given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), max_size=5))
    def test_any_texts(self, pair, texts):
        model, module = pair
        assert module(texts) == model.replies(texts)

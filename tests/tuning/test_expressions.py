"""Conditions between hyper-parameters: against Python where it has the same meaning."""

import pickle
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from model.config import RULES
from tuning.spaces.expressions import Expression, ExpressionError

VALUES = {
    "clip": 25,
    "learning_rate": 5e-4,
    "decoder_learning_ratio": 3.0,
    "optimizer": "adam",
    "attention": "dot",
    "embedding_size": None,
    "hidden_size": 500,
    "dropout": 0.0,
}


def true(text, **values):
    return Expression.parse(text, RULES).true_of({**VALUES, **values})


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("optimizer == 'adam'", True),
        ("optimizer != 'adam'", False),
        ("clip > 0 or learning_rate < 0.0005", True),
        ("clip > 25 or learning_rate < 0.0005", False),
        ("clip >= 25 and not clip > 25", True),
        ("10 < clip <= 25 < hidden_size", True),
        ("10 < clip < 25", False),
        ("attention in ('dot', 'general')", True),
        ("attention not in ['dot', 'general']", False),
        ("clip in {0, 25.0}", True),
        ("clip in ()", False),
        ("0.001 <= learning_rate * decoder_learning_ratio <= 0.1", True),
        ("hidden_size - clip * 2 == 450", True),
        ("hidden_size / clip + 1 == 21", True),
        ("-clip < 0", True),
        ("(clip > 30) == (dropout > 0)", True),
        ("True", True),
        ("clip > 0 and True", True),
        ("embedding_size is None", True),
        ("embedding_size is not None", False),
        ("embedding_size == None", True),
        ("None != embedding_size", False),
        ("embedding_size in (None, 100)", True),
        ("  clip > 0  ", True),
    ],
)
def test_by_hand(text, expected):
    assert true(text) is expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("embedding_size > 100", False),
        ("not embedding_size > 100", False),
        ("embedding_size != 100", False),
        ("embedding_size > 100 or clip > 0", True),
        ("embedding_size > 100 or clip < 0", False),
        ("embedding_size > 100 and clip > 0", False),
        ("not (embedding_size > 100 and clip < 0)", True),
        ("embedding_size + 1 > 0", False),
        ("-embedding_size < 0", False),
        ("embedding_size in (100, 200)", False),
        ("embedding_size not in (100, 200)", False),
        ("clip / dropout > 0", False),
        ("not clip / dropout > 0", False),
        ("1e308 * 10 - 1e308 * 10 == 0", False),
        ("clip / 5e-324 > 0", True),  # infinite
    ],
)
def test_a_missing_value_is_neither_true_nor_false(text, expected):
    """As in SQL: not true, nor is its contrary."""
    assert true(text) is expected


def test_fields_that_are_left_out_have_their_defaults():
    assert Expression.parse("clip == 50 and optimizer == 'adam'").true_of({})
    assert not Expression.parse("clip == 50").true_of({"clip": 25})
    with pytest.raises(KeyError, match="nowhere"):
        Expression.parse("nowhere == 50").true_of({})


def test_names_and_text():
    expression = Expression.parse(" clip > 0 or (optimizer == 'sgd' and clip < 9) ")
    assert expression.names == {"clip", "optimizer"}
    assert str(expression) == "clip > 0 or (optimizer == 'sgd' and clip < 9)"
    assert Expression.parse("1 < 2").names == frozenset()


def test_is_plain_data():
    expression = Expression.parse("clip > 0")
    assert expression == Expression.parse("clip > 0 ")
    assert expression != Expression.parse("clip >  0")
    again = pickle.loads(pickle.dumps(expression))
    assert again == expression
    assert again.true_of(VALUES)
    assert len({expression, again}) == 1


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("clop > 0", "unknown field 'clop', did you mean 'clip'? (texts need quotes)"),
        ("optimizer == adam", "unknown field 'adam'"),
        ("optimizer == 'adan'", "optimizer is never 'adan', did you mean 'adam'?"),
        ("'rmsprop' == optimizer", "optimizer is never 'rmsprop'; valid: adam, adamw, sgd."),
        ("optimizer in ('adam', 'adan')", "optimizer is never 'adan', did you mean 'adam'?"),
        ("clip == 'adam'", "cannot compare a number with a text (clip, 'adam')."),
        ("optimizer < 3", "cannot compare a text with a number (optimizer, 3)."),
        ("clip in (1, 'a')", "cannot compare a number with a text (clip, 'a')."),
        ("clip", "must be true or false, but is a number."),
        ("None", "must be true or false, but is a none."),
        ("clip ** 2 > 9", "has something else, which is not allowed: use fields, numbers"),
        ("clip > 0" + " or clip > 0" * 1000, "is longer than 2,000 characters."),
    ],
)
def test_what_is_refused(text, fault):
    with pytest.raises(ExpressionError, match=re.escape(fault)):
        Expression.parse(text, RULES)


def test_kinds_are_found_out_late_where_there_are_no_rules():
    expression = Expression.parse("clip < 3")
    with pytest.raises(ExpressionError, match=re.escape("a number with a text (clip < 3)")):
        expression.true_of({"clip": "a"})


# Properties: where nothing is missing, an expression means what Python means by it.


NUMBER_FIELDS = st.sampled_from(["clip", "learning_rate", "hidden_size", "dropout"])


def numbers():
    literals = st.integers(0, 600).map(str) | st.floats(0, 1).map(repr)
    return st.recursive(
        NUMBER_FIELDS | literals,
        lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(
            lambda parts: f"({' '.join(parts)})"
        ),
        max_leaves=4,
    )


COMPARED = st.sampled_from(["==", "!=", "<", "<=", ">", ">="])
FLAGS = (
    st.tuples(numbers(), COMPARED, numbers()).map(" ".join)
    | st.tuples(numbers(), COMPARED, numbers(), COMPARED, numbers()).map(" ".join)
    | st.sampled_from(
        ["optimizer == 'adam'", "optimizer in ('sgd', 'adamw')", "'dot' != attention"]
    )
)
CONDITIONS = st.recursive(
    FLAGS,
    lambda inner: (
        st.tuples(inner, st.sampled_from([" and ", " or "]), inner).map(
            lambda parts: f"({''.join(parts)})"
        )
        | inner.map(lambda part: f"(not {part})")
    ),
    max_leaves=5,
)


@settings(deadline=None)
@given(
    text=CONDITIONS,
    clip=st.integers(0, 100),
    rate=st.floats(0, 1),
    optimizer=st.sampled_from(["adam", "sgd"]),
)
def test_is_what_python_says(text, clip, rate, optimizer):
    values = {**VALUES, "clip": clip, "learning_rate": rate, "optimizer": optimizer}
    expected = eval(text, {}, values)  # of what this test has made up
    assert true(text, **values) is expected
    assert Expression.parse(text).true_of(values) is expected


@settings(deadline=None)
@given(st.text(alphabet="clip 01.<>=!()'\"andornt+-*/,[]:_xN", max_size=30))
def test_any_text_is_read_or_refused(text):
    try:
        expression = Expression.parse(text, RULES)
    except ExpressionError as error:
        assert str(error)
    else:
        assert expression.true_of(VALUES) in (True, False)

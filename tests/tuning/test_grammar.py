"""What the grammar of conditions refuses, in the same words of results and of sweep files."""

import re

import pandas as pd
import pytest

from analysis.conditions import matches
from model.config import RULES
from tuning.spaces.expressions import Expression
from tuning.spaces.grammar import ExpressionError

FRAME = pd.DataFrame({"clip": [25.0, None], "optimizer": ["adam", "sgd"]})


def of_results(text):
    return matches(FRAME, text).tolist()


def of_sweep_files(text):
    return Expression.parse(text, RULES)


@pytest.mark.parametrize("read", [of_results, of_sweep_files])
@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("clip = 3", "cannot be read at character 6; for equality, write ==."),
        ("optimizer = 'adam'", "cannot be read at character 11; for equality, write ==."),
        ("clip >", "cannot be read at character 7."),
        ("", "cannot be read at character"),
        ("\0", "cannot be read"),
        ("clip > 0\x00", "cannot be read"),
        ("(" * 500 + "clip" + ")" * 500 + " > 0", "cannot be read"),
        ("clip > " + "-" * 150 + "1", "is nested too deep."),
        ("optimizer in 3", "'in' needs a list, such as ('adam', 'sgd')."),
        ("optimizer in ('adam')", "'in' needs a list, such as ('adam', 'sgd')."),
        ("'adam'", "must be true or false"),
        ("not clip", "'not' needs what is true or false, but 'clip' is not."),
        ("clip > 0 and optimizer", "'and' needs what is true or false, but 'optimizer' is not."),
        ("clip > 0 or 3", "'or' needs what is true or false, but '3' is not."),
        ("optimizer + 'x' == 'adamx'", "'+' needs a number, but 'optimizer' is not."),
        ("'x' * 999999999 == 'y'", "'*' needs a number, but \"'x'\" is not."),
        ("-optimizer == 'a'", "'-' needs a number, but 'optimizer' is not."),
        ("clip + None > 0", "'+' needs a number, but 'None' is not."),
        ("(clip > 0) < True", "'clip > 0' is true or false: use == or !=."),
        ("clip is 3", "'is' is for None only; for equality, write ==."),
        ("clip < None", "None can only be compared by 'is None' and 'is not None'."),
        ("clip > 0 & clip < 9", "write 'and' and 'or' instead of & and |."),
        ("(clip > 0) | (clip < 9)", "write 'and' and 'or' instead of & and |."),
        ("~clip > 0", "has something else, which is not allowed: use "),
        ("clip % 2 == 0", "has something else, which is not allowed: use "),
        ("clip // 2 > 9", "has something else, which is not allowed: use "),
        ("open('x') > 0", "has a call, which is not allowed"),
        ("clip.real > 0", "has an attribute (a dot), which is not allowed"),
        ("clip[0] > 0", "has an index, which is not allowed"),
        ("(lambda: 1) == 1", "has a function, which is not allowed"),
        ("(1 if clip else 2) == 1", "has if ... else, which is not allowed"),
        ("f'{clip}' == 'a'", "has a formatted text, which is not allowed"),
        ("(x := 3) > 1", "has an assignment, which is not allowed"),
        ("clip == 3j", "has 3j, which is not allowed"),
        ("clip == b'a'", "has b'a', which is not allowed"),
        ("clip == ...", "has Ellipsis, which is not allowed"),
        ("[clip for clip in (1,)] == 1", "has something else, which is not allowed"),
        ("clip in (1, 2) == True", "has something else, which is not allowed"),
    ],
)
def test_what_is_refused(read, text, fault):
    with pytest.raises(ExpressionError, match=re.escape(fault)):
        read(text)


@pytest.mark.parametrize("read", [of_results, of_sweep_files])
def test_nested_chains_are_read_in_no_time(read):
    """Of which reading the middle of each twice would take 2 to the power of 30."""
    text = "clip > 0"
    for _ in range(30):
        text = f"True == ({text}) == True"
    assert read(text)

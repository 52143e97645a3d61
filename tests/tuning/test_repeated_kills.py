"""Driver and workers killed at random moments: the command that does it, and what it would find."""

from dataclasses import replace

import pytest

from benchmarks import interruptions
from tuning.journal import Row


@pytest.mark.ray
@pytest.mark.chaos
def test_two_kills_in_a_row(tmp_path):
    said = []
    kills = interruptions.interrupt(tmp_path, 2, seed=3, trials=6, say=said.append)
    assert len(kills) == 2
    assert {kill.victim for kill in kills} <= {"driver", "worker"}
    assert said[-1] == f"{kills[-1].search}: nothing lost, nothing repeated"


def rows():
    """Two trials; the first one fails once."""
    events = [
        ("proposed", 0, 1, None, None, "running"),
        ("report", 0, 1, 4, 3.0, "running"),
        ("proposed", 1, 1, None, None, "running"),
        ("failed", 0, 1, 4, 3.0, "running"),
        ("restarted", 0, 2, None, None, "running"),
        ("report", 0, 2, 4, 3.0, "running"),
        ("report", 1, 1, 4, 2.0, "stopped"),
        ("report", 0, 2, 8, 2.5, "finished"),
    ]
    return [
        Row(kind=kind, seq=seq, trial=trial, attempt=attempt, iteration=i, values=[value], state=s)
        for seq, (kind, trial, attempt, i, value, s) in enumerate(events)
    ]


def test_a_search_that_is_as_it_should_be():
    interruptions.check_rows([*rows(), Row(kind="ended", seq=8)], 2)


def changed(place, **values):
    found = rows()
    found[place] = replace(found[place], **values)
    return found


@pytest.mark.parametrize(
    ("found", "trials", "message"),
    [
        (rows()[1:], 2, "rows are lost or repeated"),
        (changed(2, trial=0), 2, "trials are lost or repeated"),
        (rows(), 3, "trials are lost or repeated"),
        (changed(4, attempt=1), 2, "row 4: attempt 1"),
        (changed(5, attempt=1), 2, "row 5: of an earlier attempt"),
        (changed(7, iteration=4), 2, "row 7: iteration 4 again"),
        (changed(7, values=[3.5]), 2, "row 7: the best value worsened"),
        (changed(1, state="finished"), 2, "row 3: trial 0 had ended"),
        (changed(7, state="running"), 2, "1 trials have not ended"),
    ],
)
def test_what_it_would_find(found, trials, message):
    with pytest.raises(AssertionError, match=message):
        interruptions.check_rows(found, trials)

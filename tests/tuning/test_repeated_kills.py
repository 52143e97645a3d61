"""Driver and workers killed at random moments: the command that does it, and what it would find."""

from dataclasses import replace

import pytest

from benchmarks import interruptions
from benchmarks.interruption_checks import LoggedRun, check_rows, check_runs, served_runs
from tests.tuning.wandb_server import WandbServer
from tuning.journal import Row

TRIALS = 6


@pytest.mark.ray
@pytest.mark.chaos
@pytest.mark.long
def test_two_kills_in_a_row(tmp_path):
    """Of a search that logs to W&B online; `test_tracking` has one that is killed offline."""
    said = []
    kills = interruptions.interrupt(
        tmp_path, 2, seed=3, trials=TRIALS, modes=["online"], say=said.append
    )
    assert len(kills) == 2
    assert {kill.victim for kill in kills} <= {"driver", "worker"}
    whole = f"nothing lost, nothing repeated, {TRIALS} W&B runs are whole"
    assert said[-1] == f"{kills[-1].search}: {whole}"


# The journal


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
    check_rows([*rows(), Row(kind="ended", seq=8)], 2)


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
        check_rows(found, trials)


# Weights & Biases


def runs():
    """Two runs: of a trial that finished, and of one that diverged."""
    return {
        "id-0000": LoggedRun(
            [{"_step": step, "val_loss": 1 / step} for step in (4, 8, 12)],
            [0],
            {"state": "finished", "value": 1 / 12},
        ),
        "id-0001": LoggedRun([], [1], {"state": "diverged", "value": None}),
    }


def test_runs_that_are_as_they_should_be():
    """What W&B adds is passed over, and so is a run that was closed twice in the same way."""
    found = runs()
    found["id-0000"].rows[0]["_runtime"] = 1.5
    found["id-0000"].exits.append(0)
    check_runs(found, runs())


def rid(found):
    del found["id-0001"]


def doubled(found):
    found["id-0000-0"] = found["id-0000"]


def repeated(found):
    found["id-0000"].rows.insert(1, found["id-0000"].rows[0])


def shortened(found):
    del found["id-0000"].rows[1]


def swapped(found):
    found["id-0000"].rows.reverse()


def lengthened(found):
    found["id-0000"].rows.append({"_step": 16, "val_loss": 1 / 16})


def falsified(found):
    found["id-0000"].rows[1]["val_loss"] = 1 / 4


def unended(found):
    found["id-0001"].exits.clear()


def interrupted(found):
    found["id-0000"].exits.insert(0, 255)


def misreported(found):
    found["id-0001"].summary["state"] = "finished"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (rid, r"W&B lacks the runs \['id-0001'\] and has \[\] besides"),
        (doubled, r"W&B lacks the runs \[\] and has \['id-0000-0'\] besides"),
        (repeated, r"id-0000: W&B has the iterations \[4\] more than once"),
        (shortened, r"id-0000: W&B lacks the iterations \[8\]"),
        (swapped, r"id-0000: W&B has the iterations \[12, 8, 4\], and not \[4, 8, 12\]"),
        (lengthened, r"id-0000: W&B has the iterations \[4, 8, 12, 16\], and not"),
        (falsified, r"id-0000: iteration 8: W&B has other \['val_loss'\]"),
        (unended, r"id-0001: W&B has it end with \[\], not 1"),
        (interrupted, r"id-0000: W&B has it end with \[255, 0\], not 0"),
        (misreported, r"id-0001: its summary in W&B has state finished, not diverged"),
    ],
)
def test_what_it_would_find_in_wandb(change, message):
    found = runs()
    change(found)
    with pytest.raises(AssertionError, match=message):
        check_runs(found, runs())


def test_what_it_would_find_on_the_server():
    server = WandbServer()
    for line in ('{"_step": 4}', '{"_step": 8}'):  # the second one in the place of the first
        server.run("id-0000").stream(
            {"files": {"wandb-history.jsonl": {"offset": 0, "content": [line]}}}
        )
    with pytest.raises(AssertionError, match="id-0000: W&B's history was overwritten: .*4"):
        served_runs(server)
    server.unknown.append("GET /nothing")
    with pytest.raises(AssertionError, match=r"W&B asked for \['GET /nothing'\]"):
        served_runs(server)

"""A trial on a node that is taken back: it saves where it is, leaves, and goes on elsewhere."""

import pytest

from model.errors import PreemptedError
from tests.tuning.test_saving import CONFIG, best_of, to_the_end
from tests.tuning.trainable_support import local_trainable
from tuning.preemption.marks import Mark, own_mark
from tuning.trials import trainable
from tuning.trials.trial_files import TrialFiles


class Node:
    """The node that a worker is on, with its mark."""

    mark: Mark | None = None


@pytest.fixture
def node(monkeypatch):
    node = Node()
    monkeypatch.setattr(trainable, "own_mark", lambda: node.mark)
    return node


@pytest.fixture
def start(tmp_path, tiny_data, node):
    """Starts the trainable as Ray does in a worker."""
    local = local_trainable(tmp_path, tiny_data)

    def begin(trial=0, attempt=1, reported=0, **fields):
        known = {"trial": trial, "attempt": attempt, "reported": reported}
        return local(known | {"config": CONFIG | fields, "stops_at": frozenset()})

    return begin


def figures(reports):
    return [(r.iteration, r.metrics["val_loss"], r.metrics["loss"]) for r in reports]


def checkpoints(tmp_path):
    return [path.name for path in TrialFiles(tmp_path, 0).checkpoints()]


@pytest.mark.parametrize(
    "fields",
    [{"checkpoint_when": "end"}, {"checkpoint_when": "improved"}, {"checkpoint_every": 100}, {}],
)
def test_it_leaves_a_checkpoint_of_its_last_report_and_goes_on_from_there(
    start, node, tmp_path, fields
):
    quiet = to_the_end(start(trial=1, **fields))
    worker = start(**fields)
    reports = [worker.step()["report"] for _ in range(3)]
    node.mark = Mark(leave=True)
    with pytest.raises(PreemptedError, match="the node is taken back; the trial goes on elsewhere"):
        worker.step()
    assert checkpoints(tmp_path)[0] == f"checkpoint-{reports[-1].iteration:08d}.pt"

    node.mark = None
    later = to_the_end(start(attempt=2, reported=reports[-1].iteration, **fields))
    assert later[0].iteration == reports[-1].iteration
    assert figures(reports + later[1:]) == figures(quiet)
    best = TrialFiles(tmp_path, 0).best_metrics()
    assert best["val_loss"] == best_of(quiet).metrics["val_loss"]


def test_while_ray_has_not_heard_it_stays_and_saves_at_every_report(start, node, tmp_path):
    worker = start(checkpoint_every=100)
    worker.step()
    node.mark = Mark(leave=False)
    second, third = worker.step()["report"], worker.step()["report"]
    worker.cleanup()  # waits for what is being written
    assert checkpoints(tmp_path) == ["checkpoint-00000004.pt", "checkpoint-00000002.pt"]
    assert (second.iteration, third.iteration) == (4, 6)


def test_one_that_would_begin_there_leaves_before_it_has_built_anything(start, node, tmp_path):
    """It was placed there just before, or its worker's last trial has just ended."""
    node.mark = Mark(leave=True)
    worker = start()
    with pytest.raises(PreemptedError):
        worker.step()
    assert worker.trainer is None
    assert not (tmp_path / "trials").exists()


def test_the_next_trial_of_the_same_worker_leaves_too(start, node):
    worker = start()
    to_the_end(worker)
    node.mark = Mark(leave=True)
    worker.reset_config({"trial": 5, "attempt": 1, "config": CONFIG})
    with pytest.raises(PreemptedError):
        worker.step()


def test_without_ray_there_is_no_mark():
    assert own_mark() is None

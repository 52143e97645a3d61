"""The log of a trial: by hand, and of a search on a real Ray whose trials say something."""

import pytest

from model.errors import ExperimentError
from tests.conftest import exit_status
from tuning.__main__ import main
from tuning.experiment import Experiment
from tuning.journal import Row
from tuning.node_logs import written_on_nodes
from tuning.worker_logs import (
    attempts_of,
    choose_attempt,
    heading,
    part_of,
    ray_log_directories,
    written,
)

ROWS = [
    Row(kind="session"),
    Row(kind="proposed", trial=0, attempt=1, state="running"),
    Row(kind="report", trial=0, attempt=1, iteration=4, state="running", worker="10.0.0.1:7"),
    Row(kind="failed", trial=0, attempt=1, iteration=4, state="running", reason="it died"),
    Row(kind="restarted", trial=0, attempt=2, state="running"),
    Row(kind="proposed", trial=1, attempt=1, state="running"),
    Row(kind="report", trial=0, attempt=2, iteration=8, state="finished", worker="10.0.0.2:9"),
    Row(kind="ended", reason="interrupted"),
]


@pytest.fixture
def experiment(tmp_path):
    return Experiment(tmp_path / "runs" / "demo", {"name": "demo"})


class TestAttempts:
    def test_what_the_journal_says(self):
        assert [str(each) for each in attempts_of(ROWS, 0)] == [
            "attempt 1 on 10.0.0.1:7: iteration 4, failed: it died",
            "attempt 2 on 10.0.0.2:9: iteration 8, finished",
        ]
        assert [str(each) for each in attempts_of(ROWS, 1)] == [
            "attempt 1 never reported: iteration 0, running"
        ]

    def test_the_last_unless_another_is_asked_for(self, experiment):
        assert choose_attempt(experiment, ROWS, 0, None)[1].number == 2
        assert choose_attempt(experiment, ROWS, 0, 1)[1].number == 1

    @pytest.mark.parametrize(
        ("rows", "trial", "number", "message"),
        [
            (ROWS, 7, None, "demo: has no trial 7; they are numbered 0 to 1"),
            ([], 0, None, "demo: has no trial 0; there are none yet"),
            (ROWS, 0, 3, "demo: trial 0 has no attempt 3; it has 2"),
        ],
    )
    def test_there_is_no_such(self, experiment, rows, trial, number, message):
        with pytest.raises(ExperimentError, match=message):
            choose_attempt(experiment, rows, trial, number)


class TestFiles:
    def test_a_part_ends_where_the_next_begins(self, tmp_path):
        one, two = (heading(tmp_path, 0, attempt) for attempt in (1, 2))
        file = tmp_path / "worker-a-01-7.err"
        file.write_bytes(
            f":actor:\n{one}\nfirst\n:actor_name:A\nand \udcff\n{two}\n".encode(errors="replace")
        )
        assert part_of(file, one) == "first\nand ?\n"
        assert part_of(file, two) == ""
        assert part_of(file, heading(tmp_path, 1, 1)) is None
        assert part_of(file, heading(tmp_path, 0, 11)) is None
        assert part_of(tmp_path / "gone", one) is None

    def test_bytes_that_are_no_text(self, tmp_path):
        file = tmp_path / "worker-a-01-7.err"
        file.write_bytes(heading(tmp_path, 0, 1).encode() + b"\n\xff\xfe boom")
        assert part_of(file, heading(tmp_path, 0, 1)).endswith(" boom")

    def test_the_newest_session_that_has_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
        mark = heading(tmp_path, 0, 1)
        for session, text in [("session_2026-01-01", "old"), ("session_2026-02-01", "new")]:
            logs = tmp_path / "ray" / session / "logs"
            logs.mkdir(parents=True)
            (logs / "worker-a-01-7.out").write_text(f"{mark}\n{text}\n")
            (logs / "raylet.out").write_text(f"{mark}\nnot a worker\n")
        (tmp_path / "ray" / "session_latest").symlink_to("session_2026-02-01")
        own = [each for each in ray_log_directories() if tmp_path in each.parents]
        assert [each.parent.name for each in own] == ["session_2026-02-01", "session_2026-01-01"]
        newest = str(own[0] / "worker-a-01-7.out")
        assert written(mark) == {newest: "new\n"}
        assert written(heading(tmp_path, 0, 2)) == {}


@pytest.mark.ray
# Ray leaves sockets and file descriptors to the garbage collector when it shuts down.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_logs_of_a_search(search, tmp_path, capsys):
    """Both trials are one worker's; each has its own part."""
    path = search(trials=2, concurrency=1, parameters={"iterations": 4}).path
    capsys.readouterr()
    for trial in range(2):
        assert exit_status(main, "logs", "search", trial, "--storage", path.parent) == 0
        said = capsys.readouterr().out
        assert said.startswith("attempt 1 on ")
        assert ".out\n(nothing)" in said
        assert ".err\n" in said
        assert said.count("worker-") == 2, "one worker's two files"
    assert exit_status(main, "logs", "search", 0, "--storage", path.parent, "--attempt", 2) == 2
    assert "trial 0 has no attempt 2; it has 1" in capsys.readouterr().err
    (tmp_path / "empty").mkdir()
    elsewhere = ("--ray-logs", tmp_path / "empty")
    assert exit_status(main, "logs", "search", 0, "--storage", path.parent, *elsewhere) == 1
    assert (
        "attempt 1: no log of its worker is on this machine; it ran on 127.0.0.1. To read it on "
        "the nodes of a cluster: --address auto." in capsys.readouterr().err
    )


@pytest.mark.ray
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
class TestNodes:
    """One node: this machine. Two and a lost one: `tests/cluster/test_logs_of_hosts.py`."""

    @pytest.fixture
    def said(self, ray, tmp_path):
        """The heading under which a worker has written "boom"."""

        @ray.remote(num_cpus=0)
        def say(path):
            from tuning.trials.observation import announce

            announce(path, 0, 1)
            print("boom", flush=True)

        ray.get(say.remote(tmp_path))
        return heading(tmp_path, 0, 1)

    @pytest.mark.parametrize("host", ["127.0.0.1", None])
    def test_read_by_a_task(self, said, host):
        logs = written_on_nodes(said, host)
        assert logs.problems == []
        texts = {file.rpartition(".")[2]: text for (_, file), text in logs.files.items()}
        assert texts == {"out": "boom\n", "err": ""}
        assert {node for node, _ in logs.files} == {"node 127.0.0.1"}

    def test_a_node_that_the_cluster_never_had(self, said):
        logs = written_on_nodes(said, "10.9.8.7")
        assert logs.files == {}
        assert logs.problems == [
            "node 10.9.8.7: is not a node of this cluster; what its workers wrote lies in Ray's "
            "temporary directory there, if the machine still is. What is known of the attempt is "
            "said above."
        ]

    def test_nobody_has_it(self, ray, tmp_path):
        logs = written_on_nodes(heading(tmp_path, 7, 1), None)
        assert (logs.files, logs.problems) == ({}, [])

    def test_a_node_that_does_not_answer(self, said):
        logs = written_on_nodes(said, None, wait=0.0)
        assert logs.files == {}
        assert logs.problems == ["node 127.0.0.1: does not answer within 0 s."]

"""Searches on a cluster from elsewhere, with a made-up cluster: what is sent, shown and fetched."""

import io
import itertools
import json
from contextlib import closing

import pytest

from model.errors import ExperimentError, ResourceError, StorageError
from tests.conftest import exit_status
from tests.tuning.jobs_support import names_in
from tests.tuning.ray_support import sweep_mapping, write_corpus
from tuning.__main__ import _parser, main
from tuning.commands import run, run_options
from tuning.experiment import Experiment
from tuning.jobs import client as client_module
from tuning.jobs import fetching, following, sending
from tuning.jobs.client import Client, Job
from tuning.journal import Journal, Row, read_journal
from tuning.sweeps.sweep_file import parse_sweep

ADDRESS = "http://127.0.0.1:8265"
SECRETS = {"WANDB_API_KEY": "planted-wandb", "AWS_SECRET_ACCESS_KEY": "planted-aws"}


class MadeUp(Client):
    """A cluster that keeps what it is sent; jobs print `pieces` and are over."""

    def __init__(self, address=ADDRESS):
        self.address = address
        self.sent, self.known, self.pieces, self.stopped, self.deleted = [], [], [], [], []
        self.ending = {"state": "SUCCEEDED", "exit_code": 0}

    def submit(self, job, entrypoint, content, metadata):
        self.sent.append((job, entrypoint, content, metadata))
        verb, name, storage = (metadata[k] for k in ("dialogue_tune", "experiment", "storage"))
        self.known.append(Job(job, verb, name, storage, "RUNNING", started=len(self.known)))

    def jobs(self):
        return self.known

    def job(self, job):
        (known,) = (k for k in self.known if k.id == job)
        return Job(known.id, known.verb, known.experiment, known.storage, **self.ending)

    def log(self, job):
        for piece in self.pieces:
            if isinstance(piece, BaseException):
                raise piece
            yield piece

    def stop(self, job):
        self.stopped.append(job)

    def delete(self, job):
        self.deleted.append(job)


@pytest.fixture
def cluster(monkeypatch):
    made_up = MadeUp()
    monkeypatch.setattr(client_module, "Client", lambda address: made_up)
    return made_up


@pytest.fixture
def sweep_file(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(json.dumps(sweep_mapping(write_corpus(tmp_path))))
    return file


def submit(*arguments):
    return exit_status(main, "submit", "--address", ADDRESS, *arguments)


# The package


# Options


def test_submit_has_every_option_of_run():
    ours = _parser()._subparsers._group_actions[0].choices["submit"]
    theirs = run_options.parser_of(run, "run")
    assert {*theirs._option_string_actions} <= {*ours._option_string_actions}


def test_options_arrive_as_they_were_given():
    given = ["--trials=3", "--seed=0", "--time-budget=1h30m", "--set=clip=-1", "--set=epochs=2"]
    given += ["--cpus-per-trial=0.5", "--warm-start=an experiment", "--wandb=offline"]
    parsed = _parser().parse_args(["submit", "s.yaml", "--address", ADDRESS, *given])
    words = run_options.run_options(parsed)
    parser = run_options.parser_of(run, "run")
    assert parser.parse_args(["s.yaml", *words]) == parser.parse_args(["s.yaml", *given])
    assert "--seed=0" in words  # also where it is the default


@pytest.mark.parametrize("option", ["--trials=0", "--gpus-per-trial=-1", "--time-budget=1x"])
def test_a_bad_value_is_refused_here(option, capsys):
    assert submit("s.yaml", option) == 2
    assert f"argument {option.split('=')[0]}: must be" in capsys.readouterr().err


# Submitting


def test_a_search_is_sent_whole_and_without_secrets(cluster, sweep_file, tmp_path, monkeypatch):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    to_try = tmp_path / "try.yaml"
    to_try.write_text("[{learning_rate: 0.001, clip: 25}]")
    options = ["--data", tmp_path / "tiny.txt", "--try", to_try, "--try", "earlier:2"]
    assert submit(sweep_file, *options, "--name", "one", "--trials", "3") == 0
    ((job, entrypoint, content, metadata),) = cluster.sent
    assert job.startswith("one-run-2")
    assert entrypoint == (
        "exec python -m tuning run submitted/tiny.yaml --trials=3 --try=submitted/try-0-try.yaml "
        "--try=earlier:2 --set=corpus=data/tiny.txt --address=auto --storage=/mnt/runs --name=one"
    )
    assert metadata.pop("commit")
    assert metadata == {"dialogue_tune": "run", "experiment": "one", "storage": "/mnt/runs"}
    sent = {"submitted/tiny.yaml", "submitted/try-0-try.yaml", "data/tiny.txt"}
    assert {n for n in names_in(content) if not n.startswith(("model/", "tuning/"))} - {
        "COMMIT"
    } == sent
    assert b"planted" not in content + repr(cluster.sent).encode()


def test_an_experiment_has_a_name_that_is_known_here(cluster, capsys):
    assert submit("configs/demo.yaml", "--no-follow") == 0
    ((job, entrypoint, _, metadata),) = cluster.sent
    name = metadata["experiment"]
    assert name.startswith("demo-2") and entrypoint.endswith(f"--name={name}") and name in job
    said = capsys.readouterr().out
    assert f"experiment {name}, in /mnt/runs of the cluster: job {job}\n" in said
    assert f"python -m tuning stop {name} --address {ADDRESS}" in said


def test_everything_wrong_is_said_at_once_before_anything_is_sent(cluster, tmp_path, capsys):
    (tmp_path / "try.yaml").write_text("[{clip: 25}]")
    options = ["--cpus-per-trial", "0", "--try", tmp_path / "try.yaml"]
    assert submit("configs/cornell_random.yaml", *options) == 2
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 3 and all(line.startswith("error: submit: ") for line in said)
    assert "error: submit: --cpus-per-trial must be greater than 0" in said[0]
    assert any("try.yaml: [0]: learning_rate: is missing" in line for line in said)
    assert said[-1] == (
        "error: submit: corpus: 'cornell' lies on this machine, and no data are sent unasked; send "
        "it with --data FILE, or name where it lies on the cluster: --set corpus=/PATH"
    )
    assert cluster.sent == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "submit: name a sweep file, or --resume NAME."),
        (["configs/demo.yaml", "--storage", "runs"], "submit: --storage runs: must be a directory"),
        (["configs/demo.yaml", "--name", "a/b"], "submit: --name a/b: must be letters, digits"),
        (["configs/demo.yaml", "--data", "nowhere"], "submit: --data: nowhere: is no file; name"),
        (["configs/nowhere.yaml"], "configs/nowhere.yaml: "),
        (
            ["configs/demo.yaml", "--resume", "one", "--trials=3", "--data", "x"],
            "submit --resume: goes on with what was asked for: leave out FILE, --trials, --data.",
        ),
    ],
)
def test_what_cannot_be_is_refused(cluster, options, said, capsys):
    assert submit(*options) == 2
    assert f"error: {said}" in capsys.readouterr().err
    assert cluster.sent == []


def test_a_name_is_taken_while_a_job_has_it_but_for_one_that_failed(cluster, capsys):
    cluster.known = [Job("one-run-1", "run", "one", "/mnt/runs", "STOPPED")]
    assert submit("configs/demo.yaml", "--name", "one") == 2
    said = capsys.readouterr().err
    assert "error: one: the cluster has a job of that experiment (STOPPED); choose another" in said
    assert f"python -m tuning submit --resume one --address {ADDRESS}" in said
    cluster.known = [Job("one-run-1", "run", "one", "/mnt/runs", "FAILED")]
    assert submit("configs/demo.yaml", "--name", "one", "--no-follow") == 0


def test_a_resume_knows_where_the_experiment_lies(cluster, capsys):
    cluster.known = [Job("one-run-1", "run", "one", "/nfs", "STOPPED")]
    assert submit("--resume", "one", "--concurrency", "2", "--no-follow") == 0
    assert cluster.sent[0][1] == (
        "exec python -m tuning resume one --concurrency=2 --address=auto --storage=/nfs"
    )
    assert submit("--resume", "one") == 2
    assert f"one: is being run by job {cluster.sent[0][0]}; stop it" in capsys.readouterr().err
    assert submit("--resume", "of-the-head", "--storage", "s3://b/runs", "--no-follow") == 0
    assert cluster.sent[-1][1].endswith("--storage=s3://b/runs")


# Following


@pytest.mark.parametrize(
    ("ending", "status", "said"),
    [
        ({"state": "SUCCEEDED", "exit_code": 0}, 0, "fetch the results: python -m tuning fetch"),
        ({"state": "FAILED", "exit_code": 2}, 2, "FAILED, exit status 2\ngo on: python -m tuning"),
        ({"state": "FAILED", "message": "no env"}, 1, ": FAILED: no env\n"),
        ({"state": "STOPPED"}, 130, "go on: python -m tuning submit --resume one --address"),
    ],
)
def test_the_exit_status_is_that_of_the_search(cluster, ending, status, said, capsys):
    cluster.pieces, cluster.ending = ["hello\n", "world\n"], ending
    assert submit("configs/demo.yaml", "--name", "one") == status
    output = capsys.readouterr().out
    assert "\nhello\nworld\njob one-run-" in output and said in output


def test_ctrl_c_ends_following_and_not_the_job(cluster, capsys):
    cluster.pieces = ["hello\n", KeyboardInterrupt()]
    assert submit("configs/demo.yaml", "--name", "one") == 130
    output = capsys.readouterr().out
    assert "hello\n\nno longer following; job one-run-" in output
    assert f"follow it: python -m tuning status one --follow --address {ADDRESS}" in output
    assert cluster.stopped == []


class Breaking(MadeUp):
    """Connections that break: after each piece of `parts`, from the log's beginning each time."""

    def __init__(self, text, parts):
        super().__init__()
        self.text, self.parts = text, iter(parts)
        self.known = [Job("j", "run", "one", "/mnt/runs", "RUNNING")]

    def log(self, job):
        until = next(self.parts, None)
        for start in range(0, len(self.text if until is None else self.text[:until]), 3):
            yield self.text[start : min(start + 3, until or len(self.text))]
        if until is not None:
            raise ResourceError("broken")


def test_a_connection_that_breaks_loses_and_repeats_nothing(monkeypatch):
    monkeypatch.setattr(following, "RETRY_SECONDS", 0)
    text = "one\ntwo\nthree\n"
    for parts in itertools.product(range(len(text) + 1), repeat=2):
        made_up, shown = Breaking(text, parts), []
        assert following.follow(made_up, made_up.known[0], shown.append).is_over
        assert "".join(shown) == text, parts


def test_following_ends_where_the_head_was_started_anew_meanwhile(monkeypatch):
    monkeypatch.setattr(following, "RETRY_SECONDS", 0)
    made_up, said = Breaking("", itertools.repeat(0)), iter([ResourceError("away")] * 2)
    forgotten = ExperimentError("knows no job j")
    made_up.job = lambda job: (_ for _ in ()).throw(next(said, forgotten))
    with pytest.raises(ExperimentError, match="knows no job j"):
        following.follow_and_report(made_up, made_up.known[0])


def test_following_gives_up_at_last(monkeypatch, capsys):
    monkeypatch.setattr(following, "RETRY_SECONDS", 0)
    monkeypatch.setattr(following, "PATIENCE_SECONDS", 0)
    made_up = Breaking("", itertools.repeat(0))
    made_up.job = lambda job: (_ for _ in ()).throw(ResourceError("away"))
    with pytest.raises(ResourceError, match="broken"):
        following.follow_and_report(made_up, made_up.known[0])
    said = capsys.readouterr().err
    assert said.count("connection lost, trying again: broken") == 1
    assert "the job may well go on\nhow it stands: python -m tuning status one" in said


# Status and stop


def test_status_lists_searches_and_finds_the_newest_of_an_experiment(cluster, capsys):
    assert exit_status(main, "status", "--address", ADDRESS) == 0
    assert "no searches yet; start one: python -m tuning submit" in capsys.readouterr().out
    cluster.known = [
        Job("a", "run", "one", "/mnt/runs", "STOPPED", started=1.0, ended=2.0),
        Job("b", "resume", "one", "/mnt/runs", "RUNNING", started=3.0),
        Job("c", "fetch", "one", "/mnt/runs", "RUNNING", started=4.0),
    ]
    assert exit_status(main, "status", "--address", ADDRESS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:3] for line in lines[2:]] == [
        ["one", "run", "STOPPED"],
        ["one", "resume", "RUNNING"],
    ]
    assert cluster.find("one").id == "b" and cluster.find("a").state == "STOPPED"
    with pytest.raises(ExperimentError, match=r"two: the cluster at .* \(it knows: one\)"):
        cluster.find("two")


def test_stop_waits_and_says_how_to_go_on(cluster, capsys):
    cluster.known = [Job("a", "run", "one", "/mnt/runs", "RUNNING")]
    cluster.ending = {"state": "STOPPED"}
    assert exit_status(main, "stop", "one", "--address", ADDRESS) == 0
    assert cluster.stopped == ["a"]
    assert "submit --resume one" in capsys.readouterr().out


# Speaking to a cluster


@pytest.mark.parametrize("address", ["auto", "10.0.0.1:6379", "ray://h:10001", "http://"])
def test_what_is_no_dashboard_is_refused(address):
    with pytest.raises(ResourceError, match="is not the address of a Ray dashboard, such as http"):
        Client(address)


@pytest.mark.parametrize(
    ("address", "openly"),
    [(ADDRESS, False), ("http://localhost:1", False), ("https://h:1", False), ("http://h:1", True)],
)
def test_a_token_on_an_open_network_is_noted(cluster, address, openly, capsys):
    exit_status(main, "status", "--address", address)
    assert ("is not encrypted, the token included" in capsys.readouterr().err) == openly


def test_the_environment_does_not_send_us_elsewhere(monkeypatch, tmp_path):
    token = tmp_path / "token"
    token.write_text("x")
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "no_proxy"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("RAY_AUTH_TOKEN_PATH", str(token))
    monkeypatch.setenv("RAY_ADDRESS", "http://elsewhere:8265")
    monkeypatch.setenv("NO_PROXY", "example.org")
    client_module._prepare(ADDRESS)
    environ = client_module.os.environ
    assert "RAY_ADDRESS" not in environ
    assert environ["RAY_AUTH_MODE"] == "token"
    assert (environ["NO_PROXY"], environ["no_proxy"]) == ("example.org,127.0.0.1", "127.0.0.1")


# Fetching


@pytest.fixture
def experiment(tmp_path, tiny_data):
    sweep = {"method": "random", "parameters": {"clip": {"min": 0.0, "max": 9.0}}}
    made = Experiment.create(
        *(tmp_path / "storage", "one", parse_sweep(sweep, "s.yaml"), tiny_data),
        **{"seed": 3, "trials": 3, "settings": {"max_failures": 1}},
    )
    journal = Journal(made.journal)
    for trial, value in enumerate((3.0, 1.0, 2.0)):
        weights = made.path / "trials" / f"{trial:04d}" / "best.pt"
        weights.parent.mkdir(parents=True)
        weights.write_bytes(bytes([trial]) * 1000)
        row = {"attempt": 1, "iteration": 4, "metrics": {"val_loss": value}, "state": "running"}
        journal.append(Row(kind="report", trial=trial, **row))
    journal.close()
    (made.path / "trials" / "0001" / "checkpoint-00000004.pt").write_bytes(b"not this")
    (made.path / "wandb").mkdir()
    return made


def sent(experiment, top=1, data=False):
    out = io.StringIO()
    sending.send(experiment, sending.files_of(experiment, top=top, data=data), out)
    return out.getvalue()


def receive(text, directory, size=1000):
    directory.mkdir(exist_ok=True)
    with closing(fetching.Receiver(directory)) as receiver:
        for start in range(0, len(text), size):
            receiver.take(text[start : start + size])
    return receiver


def files_in(directory):
    return sorted(p.relative_to(directory).as_posix() for p in directory.rglob("*") if p.is_file())


@pytest.mark.parametrize(
    ("top", "data", "more"),
    [
        (0, False, []),
        (1, False, ["trials/0001/best.pt"]),
        (2, True, ["data.safetensors", "trials/0001/best.pt", "trials/0002/best.pt"]),
    ],
)
def test_the_best_trials_come_and_nothing_but_what_is_needed(experiment, tmp_path, top, data, more):
    receiver = receive(sent(experiment, top, data), tmp_path / "in")
    assert receiver.is_complete
    journal = [f"journal/{p.name}" for p in experiment.journal.iterdir()]
    assert files_in(tmp_path / "in") == sorted(["experiment.json", *more, *journal])
    for name in files_in(tmp_path / "in"):
        assert (tmp_path / "in" / name).read_bytes() == (experiment.path / name).read_bytes()


@pytest.mark.parametrize("size", [1, 7, 64, 100_000])
def test_a_log_in_pieces_of_any_size_is_the_same(experiment, tmp_path, size, monkeypatch):
    monkeypatch.setattr(sending, "CHUNK", 100)
    text = f"Ray says hello\n{sent(experiment)}"
    receiver = receive(text, tmp_path / "in", size)
    assert receiver.is_complete and receiver.said == ["Ray says hello"]
    assert (
        receiver.received
        == receiver.total
        == sum((tmp_path / "in" / name).stat().st_size for name in files_in(tmp_path / "in"))
    )


def test_a_log_that_was_damaged_anywhere_is_refused(experiment, tmp_path, monkeypatch):
    """Any line lost, twice, or changed: it is refused, or not complete."""
    monkeypatch.setattr(sending, "CHUNK", 700)
    lines = sent(experiment).splitlines(keepends=True)
    for number, line in enumerate(lines):
        changed = line[:-3] + ("A" if line[-3] != "A" else "B") + line[-2:]
        for case, instead in enumerate(([], [line, line], [changed])):
            damaged = "".join([*lines[:number], *instead, *lines[number + 1 :]])
            try:
                whole = receive(damaged, tmp_path / f"{number}-{case}").is_complete
            except ExperimentError as error:
                assert "the experiment did not come whole: " in str(error)
                continue
            # What is left: a begin line twice, an id that `put` compares, an end that comes twice.
            assert not whole or line.startswith(("dt-begin", "dt-end")), (number, case)


@pytest.mark.parametrize(
    "path", ["../x", "/etc/x", "trials/../../x", ".lock", "journal/.x", "trials/0001/x.pt"]
)
def test_only_an_experiments_files_are_written(tmp_path, path):
    begin = 'dt-begin {"files": 1, "bytes": 1, "experiment": "x"}\n'
    with pytest.raises(ExperimentError, match="is no file to expect; fetch it again"):
        receive(f"{begin}dt-file {json.dumps({'path': path, 'size': 1})}\n", tmp_path / "in")
    assert files_in(tmp_path) == []


def test_too_much_is_neither_sent_nor_taken(experiment, tmp_path, monkeypatch):
    text = sent(experiment)
    monkeypatch.setattr(fetching, "LIMIT_BYTES", 100)
    with pytest.raises(ExperimentError, match="more than 0 MB"):
        receive(text, tmp_path / "in")
    monkeypatch.setattr(sending, "LIMIT_BYTES", 100)
    with pytest.raises(ExperimentError, match="one: 0 MB are more than .* ray rsync-down cluster"):
        sent(experiment)


def fetched(cluster, experiment, out, *options):
    cluster.pieces = [sent(experiment, *options)]
    cluster.ending = {"state": "STOPPED"}
    return exit_status(main, "fetch", "one", "--address", ADDRESS, "--out", out)


def test_a_fetch_puts_an_experiment_in_its_place(cluster, experiment, tmp_path, capsys):
    cluster.known = [Job("a", "run", "one", "/nfs", "RUNNING")]
    assert fetched(cluster, experiment, tmp_path / "out") == 0
    ((job, entrypoint, _, _),) = cluster.sent
    assert entrypoint == "exec python -m tuning.jobs.sending one --storage=/nfs --top=1"
    assert cluster.stopped == cluster.deleted == [job]
    assert len(read_journal(Experiment.open("one", tmp_path / "out").journal).rows) == 3
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["one"]
    assert f"results: python -m analysis results one --storage {tmp_path}/out" in (
        capsys.readouterr().out
    )


def test_a_second_fetch_takes_the_new_journal_and_keeps_older_weights(
    cluster, experiment, tmp_path
):
    assert fetched(cluster, experiment, tmp_path / "out", 2) == 0
    (segment,) = experiment.journal.iterdir()
    segment.rename(experiment.journal / "renamed.jsonl")
    assert fetched(cluster, experiment, tmp_path / "out", 0) == 0
    there = files_in(tmp_path / "out" / "one")
    assert there[:2] == ["experiment.json", "journal/renamed.jsonl"]
    assert there[2:] == ["trials/0001/best.pt", "trials/0002/best.pt"]


def test_a_fetch_that_does_not_come_whole_changes_nothing(cluster, experiment, tmp_path, capsys):
    assert fetched(cluster, experiment, tmp_path / "out") == 0
    before = files_in(tmp_path / "out")
    text = sent(experiment)
    for cut in (0, 100, len(text) // 2, len(text) - 8):
        cluster.pieces, cluster.ending = [text[:cut]], {"state": "FAILED", "message": "head gone"}
        assert exit_status(main, "fetch", "one", "--address", ADDRESS, "--out", tmp_path / "out")
        assert "(FAILED) before everything had come: head gone" in capsys.readouterr().err
    assert files_in(tmp_path / "out") == before


def test_what_the_job_says_is_wrong_is_said_here(cluster, tmp_path, capsys):
    cluster.pieces = ["Running entrypoint\nerror: one: unknown experiment.\n"]
    assert exit_status(main, "fetch", "one", "--address", ADDRESS, "--out", tmp_path) == 2
    assert capsys.readouterr().err == "error: one: unknown experiment.\n"
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_not_replaced_by_something_else(cluster, experiment, tmp_path, capsys):
    out = tmp_path / "out"
    (out / "one").mkdir(parents=True)
    assert fetched(cluster, experiment, out) == 2
    assert f"{out}/one: is there, and is no experiment" in capsys.readouterr().err
    assert cluster.sent == []
    manifest = json.loads((experiment.path / "experiment.json").read_text()) | {"id": "other"}
    (out / "one" / "experiment.json").write_text(json.dumps(manifest))
    assert fetched(cluster, experiment, out) == 2
    assert "one: is another experiment; choose another --out." in capsys.readouterr().err
    assert files_in(out) == ["one/experiment.json"]


def test_a_journal_that_cannot_be_exchanged_stays(cluster, experiment, tmp_path, monkeypatch):
    assert fetched(cluster, experiment, tmp_path / "out") == 0
    before = files_in(tmp_path / "out")

    def full(*arguments):
        raise OSError(28, "full")

    receive(sent(experiment), tmp_path / "in")
    monkeypatch.setattr(fetching.os, "replace", full)
    with pytest.raises(StorageError, match="no space is left"):
        fetching.put(tmp_path / "in", tmp_path / "out", "one", experiment.manifest["id"])
    assert files_in(tmp_path / "out") == before

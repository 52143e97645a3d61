from pathlib import Path

import pytest

from model.errors import ConfigurationError
from tuning.storage.place import is_uri, place
from tuning.storage.remote_path import RemotePath


@pytest.mark.parametrize("text", ["runs", "/mnt/runs", "a:b", "C:/runs", "./s3:/x", "://x"])
def test_a_directory_is_a_path(text):
    assert not is_uri(text)
    assert place(text) == Path(text)


def test_a_file_uri_is_a_path():
    assert place("file:///mnt/runs") == Path("/mnt/runs")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("s3://bucket/runs", "s3://bucket/runs"),
        ("s3://bucket/runs/", "s3://bucket/runs"),
        ("s3://bucket", "s3://bucket"),
        (
            "s3://b/r?region=eu-west-1&endpoint_override=http://127.0.0.1:9",
            "s3://b/r?endpoint_override=http%3A%2F%2F127.0.0.1%3A9&region=eu-west-1",
        ),
    ],
)
def test_a_uri_is_read_and_written_the_same(text, shown, monkeypatch):
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    there = place(text)
    assert isinstance(there, RemotePath)
    assert str(there) == shown
    assert place(str(there)) == there


ADVICE = (
    "credentials come from the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or "
    "AWS_PROFILE) or from the instance's role; what is in --storage is written down."
)


@pytest.mark.parametrize(
    ("text", "problems"),
    [
        ("s3://AKIA:hunter2@bucket/x", [f"must not hold a user or a password: {ADVICE}"]),
        ("s3://bucket/x?secret_key=hunter2", [f"must not hold secret_key: {ADVICE}"]),
        (
            "s3://bucket/x?access_key=hunter2&session_token=hunter2",
            [f"must not hold access_key: {ADVICE}", f"must not hold session_token: {ADVICE}"],
        ),
        (
            "s3://bucket/x?endpoint=http://h",
            ["unknown option 'endpoint' after the question mark; did you mean 'endpoint_over"],
        ),
        ("gs://bucket/x?region=a", ["unknown option 'region' after the question mark; there"]),
        ("s3:///x", ["names no bucket; write s3://BUCKET/PREFIX."]),
        ("s3://bucket/x#y", ["must not hold a '#'."]),
    ],
)
def test_what_is_wrong_is_said_all_at_once_and_no_secret_shown(text, problems):
    with pytest.raises(ConfigurationError) as raised:
        place(text)
    for problem in problems:
        assert problem in str(raised.value)
    assert len(str(raised.value).splitlines()) == len(problems)
    assert "hunter2" not in str(raised.value)


def test_what_nothing_reaches_is_refused():
    with pytest.raises(ConfigurationError, match="--storage nosuch://bucket: cannot be reached: "):
        place("nosuch://bucket/runs")


def test_what_only_fsspec_reaches_works(tmp_path):
    """Its file system of the process's memory stands for all those that have a package."""
    there = place("memory://bucket/runs")
    (there / "a" / "b.txt").write(b"content")
    assert (there / "a" / "b.txt").read_bytes() == b"content"
    assert [path.name for path in (there / "a").iterdir()] == ["b.txt"]
    assert str(there / "a") == "memory://bucket/runs/a"

import pickle

import pytest

from model.errors import StorageError
from model.files import atomic_write
from tuning.storage.place import place
from tuning.storage.remote_path import is_transient, modified

LARGE = bytes(range(256)) * 24_000  # more than one request


def test_files_and_directories(remote):
    file = remote / "a" / "b.bin"
    assert not (file.exists() or file.is_file() or remote.exists())
    assert list(remote.iterdir()) == []
    file.write(b"one")
    assert file.exists() and file.is_file() and not file.is_dir()
    assert file.parent.is_dir() and not file.parent.is_file()
    assert list(remote.iterdir()) == [remote / "a"]
    assert {path.name for path, _ in remote.walk()} >= {"b.bin"}
    assert (file.name, file.parent.name) == ("b.bin", "a")
    file.write(b"two")
    assert (file.read_bytes(), file.read_text()) == (b"two", "two")
    file.copy_to(remote / "c")
    assert (remote / "c").read_bytes() == b"two"
    file.unlink()
    file.unlink(missing_ok=True)
    for missing in (file.unlink, file.read_bytes):
        with pytest.raises(FileNotFoundError):
            missing()


def test_amazons_own_client_reads_it(remote, store, bucket):
    (remote / "large").write(LARGE)
    (remote / "small").write(lambda file: file.write(b"small"))
    client = store.client()
    for name, content in (("large", LARGE), ("small", b"small")):
        assert client.get_object(Bucket=bucket, Key=f"runs/{name}")["Body"].read() == content
    assert not [name for name in store.names(bucket) if ".tmp-" in name]


def test_a_refusal_leaves_what_was_there(remote, store, bucket):
    file = remote / "weights"
    file.write(b"before")
    seen = []

    def refuse():
        seen.append(file.read_bytes())
        raise StorageError("superseded")

    for content in (b"after", LARGE):
        with pytest.raises(StorageError, match="superseded"):
            file.write(content, refuse)
    assert (seen, file.read_bytes()) == ([b"before", b"before"], b"before")
    assert [name for name in store.names(bucket) if not name.endswith("/")] == ["runs/weights"]


def test_atomic_writes_go_there_too(remote):
    atomic_write(remote / "x", b"content")
    assert (remote / "x").read_bytes() == b"content"


def test_it_travels_to_workers_without_credentials(remote, store):
    (remote / "x").write(b"content")
    for there in (pickle.loads(pickle.dumps(remote / "x")), place(str(remote / "x"))):
        assert there.read_bytes() == b"content"
    for secret in store.environment.values():
        assert secret.encode() not in pickle.dumps(remote)


def test_when_files_were_written(remote):
    (remote / "a").write(b"")
    times = modified([remote / "a", remote / "none"])
    assert list(times) == [remote / "a"]
    assert modified([]) == {}


def test_errors_name_the_file_and_the_reason(bucket):
    nowhere = place("s3://no-such-bucket/runs/x")
    with pytest.raises(
        StorageError, match=r"s3://no-such-bucket/runs/x: cannot be .*NO_SUCH_BUCKET"
    ):
        atomic_write(nowhere, b"")
    with pytest.raises(OSError, match="NO_SUCH_BUCKET") as raised:
        nowhere.write(b"")
    assert not is_transient(raised.value)


def test_a_server_that_is_away_may_come_back(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "k")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    away = place("s3://bucket/x?endpoint_override=http://127.0.0.1:9&region=us-east-1")
    for action in (away.read_bytes, away.exists, lambda: away.write(b"")):
        with pytest.raises(OSError) as raised:
            action()
        assert is_transient(raised.value)
    assert not is_transient(FileNotFoundError(2, "No such file"))
    assert not is_transient(OSError("AWS Error ACCESS_DENIED during PutObject operation"))

import ctypes
import errno
import json
import os
import pickle
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.errors import PreparedDataError, StorageError
from model.prepared_data import SPLITS, PreparedData
from model.vocabulary import Vocabulary

# Ids: hi 4, you 5, bye 6. Utterances: "hi", "hi you", "bye", "you bye hi".
VOCABULARY = Vocabulary.from_list(["<pad>", "<sos>", "<eos>", "<unk>", "hi", "you", "bye"])
PARTS: dict[str, Any] = {
    "vocabulary": VOCABULARY,
    "tokens": torch.tensor([4, 2, 4, 5, 2, 6, 2, 5, 6, 4, 2], dtype=torch.int32),
    "utterance_offsets": torch.tensor([0, 2, 5, 7, 11]),
    "examples": {
        "train": torch.tensor([[0, 1], [0, 2]]),
        "validation": torch.tensor([[2, 3]]),
        "test": torch.tensor([[1, 2], [1, 3], [0, 3]]),
    },
    "settings": {"corpus": "some/where.txt", "max_length": 10, "validation_share": 0.05},
    "counts": {"words": 7, "train_rare": 0},
}


def create(**changes: Any) -> PreparedData:
    return PreparedData.create(**(PARTS | changes))


def assert_same(a: PreparedData, b: PreparedData) -> None:
    assert (a.vocabulary, a.fingerprint, a.settings, a.counts) == (
        (b.vocabulary, b.fingerprint, b.settings, b.counts)
    )
    for one, other in [
        (a.tokens, b.tokens),
        (a.utterance_offsets, b.utterance_offsets),
        *((a.examples[split], b.examples[split]) for split in SPLITS),
    ]:
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def header_of(data: bytes) -> dict[str, Any]:
    return dict(json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]))


def with_header(data: bytes, header: object) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data[8 + int.from_bytes(data[:8], "little") :]


# What it holds


def test_an_utterance_is_read_with_its_end() -> None:
    data = create()
    assert data.utterance(1).tolist() == [4, 5, 2]
    assert data.vocabulary.decode(data.utterance(3)) == "you bye hi"


def test_saved_and_opened_is_the_same(tmp_path: Path) -> None:
    data = create()
    data.save(tmp_path / "x.safetensors")
    opened = PreparedData.open(tmp_path / "x.safetensors")
    assert_same(opened, data)
    opened.verify()
    assert opened.as_bytes() == data.as_bytes() == (tmp_path / "x.safetensors").read_bytes()


def test_an_empty_split_is_read_back() -> None:
    data = create(examples=PARTS["examples"] | {"test": torch.empty(0, 2, dtype=torch.int64)})
    opened = PreparedData.from_buffer(data.as_bytes())
    assert_same(opened, data)
    assert opened.examples["test"].shape == (0, 2)


def test_the_data_begins_and_lies_aligned() -> None:
    data = create().as_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    assert start % 64 == 0
    for name, entry in header_of(data).items():
        if name != "__metadata__":
            width = {"I64": 8, "I32": 4, "U8": 1}[entry["dtype"]]
            assert (start + entry["data_offsets"][0]) % width == 0


def test_any_safetensors_reader_opens_it(tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    data = create()
    data.save(tmp_path / "x.safetensors")
    with safetensors.safe_open(tmp_path / "x.safetensors", "pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        assert file.metadata()["fingerprint"] == data.fingerprint
        assert json.loads(file.metadata()["settings"]) == data.settings
    assert torch.equal(arrays["tokens"], data.tokens)
    assert torch.equal(arrays["utterance_offsets"], data.utterance_offsets)
    assert torch.equal(arrays["test"], data.examples["test"])
    assert bytes(arrays["vocabulary"].tolist()).decode().split("\n") == VOCABULARY.to_list()


# Without a copy


def test_tensors_share_a_buffer() -> None:
    buffer = bytearray(create().as_bytes())
    data = PreparedData.from_buffer(buffer)
    begin = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    for tensor in (data.tokens, data.utterance_offsets, *data.examples.values()):
        assert begin <= tensor.data_ptr() < begin + len(buffer)
    place = buffer.index(data.tokens.numpy().tobytes())
    buffer[place] = 6
    assert data.tokens[0] == 6


def test_tensors_share_a_read_only_array_as_of_rays_object_store() -> None:
    numpy = pytest.importorskip("numpy")
    array = numpy.frombuffer(create().as_bytes(), dtype=numpy.uint8)
    assert not array.flags.writeable
    data = PreparedData.from_buffer(array)
    assert array.ctypes.data <= data.tokens.data_ptr() < array.ctypes.data + array.nbytes
    del array
    data.verify()


def test_an_opened_file_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    create().save(path)
    data = PreparedData.open(path)
    maps = Path("/proc/self/maps").read_text().splitlines()
    begin, end = next(
        (int(n, 16) for n in line.split()[0].split("-"))
        for line in maps
        if line.endswith(str(path))
    )
    assert begin <= data.tokens.data_ptr() < end
    path.unlink()
    data.verify()


# The fingerprint


def test_the_fingerprint_is_of_the_content_not_of_the_place() -> None:
    data = create()
    elsewhere = create(settings=PARTS["settings"] | {"corpus": "else/where.txt"}, counts={})
    assert elsewhere.fingerprint == data.fingerprint
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint)


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": PARTS["settings"] | {"max_length": 11}},
        {"vocabulary": Vocabulary((*VOCABULARY.words[:-1], "ciao"))},
        {"tokens": torch.tensor([5, 2, 4, 5, 2, 6, 2, 5, 6, 4, 2], dtype=torch.int32)},
        {"examples": PARTS["examples"] | {"train": torch.tensor([[0, 1]])}},
        {"examples": PARTS["examples"] | {"train": PARTS["examples"]["train"].flip(0)}},
    ],
)
def test_the_fingerprint_changes_with_everything_else(changes: dict[str, Any]) -> None:
    assert create(**changes).fingerprint != create().fingerprint


def test_verify_finds_what_no_other_check_can() -> None:
    buffer = bytearray(create().as_bytes())
    buffer[buffer.index(PARTS["tokens"].numpy().tobytes())] = 6  # hi -> bye
    data = PreparedData.from_buffer(buffer)
    with pytest.raises(
        PreparedDataError, match=r"x: is damaged: its fingerprint is .*prepare it a"
    ):
        data.verify("x")
    with pytest.raises(PreparedDataError, match="is damaged"):
        replace(create(), fingerprint="0" * 64).verify()


# Parts and files that are refused


def int32(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers, dtype=torch.int32)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"tokens": PARTS["tokens"].long()}, r"'tokens' is not torch\.int32 of 1 axes"),
        ({"tokens": PARTS["tokens"][:-1]}, "utterances that are not in the tokens"),
        ({"tokens": int32(4, 2, 4, 5, 2, 6, 2, 5, 6, 7, 2)}, "word ids outside of its vocabulary"),
        ({"tokens": int32(4, 2, 4, -1, 2, 6, 2, 5, 6, 4, 2)}, "outside of its vocabulary of 7"),
        ({"tokens": int32(4, 2, 4, 2, 5, 6, 2, 5, 6, 4, 2)}, "do not end where <eos> is"),
        ({"tokens": int32(4, 2, 2, 5, 2, 6, 2, 5, 6, 4, 2)}, "do not end where <eos> is"),
        ({"utterance_offsets": torch.tensor([0, 5, 2, 7, 11])}, "utterances in the wrong order"),
        ({"utterance_offsets": torch.tensor([1, 2, 5, 7, 11])}, "that are not in the tokens"),
        ({"utterance_offsets": torch.empty(0).long()}, "that are not in the tokens"),
        (
            {"examples": PARTS["examples"] | {"test": torch.tensor([[3, 4]])}},
            "test examples of utt",
        ),
        ({"examples": PARTS["examples"] | {"test": torch.tensor([[2, 2]])}}, "that are not there"),
        ({"examples": PARTS["examples"] | {"test": torch.tensor([[-1, 2]])}}, "that are not there"),
        ({"examples": PARTS["examples"] | {"test": torch.tensor([[1]])}}, "of 1 numbers, not 2"),
        (
            {"examples": PARTS["examples"] | {"test": torch.tensor([1])}},
            "'test' is not torch.int64",
        ),
    ],
)
def test_parts_that_contradict_each_other(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(PreparedDataError, match=problem):
        create(**changes)


def test_truncated_files_are_refused_at_every_length(tmp_path: Path) -> None:
    whole = create().as_bytes()
    path = tmp_path / "x.safetensors"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(
            PreparedDataError, match=rf"^{path}: is (cut off|empty).*; prepare it ag"
        ):
            PreparedData.open(path)


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"{nonsense", "is not a prepared data set: its header is not JSON"),
        (b"[" * 100_000, "its header is not JSON"),
        (b"\xff\xff", "its header is not JSON"),
        ([], "its header is not a mapping"),
        ({}, "its header has no prepared_data_format"),
        ({"__metadata__": {"format": "pt"}}, "its header has no prepared_data_format"),
        ({"__metadata__": {"prepared_data_format": "1"}}, "damaged metadata"),
    ],
)
def test_foreign_headers(header: object, problem: str) -> None:
    with pytest.raises(PreparedDataError, match=f"x: .*{problem}.*python -m model prepare"):
        PreparedData.from_buffer(with_header(create().as_bytes(), header), "x")


def test_a_newer_format() -> None:
    whole = create().as_bytes()
    header = header_of(whole)
    header["__metadata__"]["prepared_data_format"] = "2"
    with pytest.raises(
        PreparedDataError, match=r"written by a newer version \(format 2; this one r"
    ):
        PreparedData.from_buffer(with_header(whole, header))


@pytest.mark.parametrize(
    ("name", "entry", "problem"),
    [
        ("tokens", {"dtype": "I64"}, "describes array 'tokens' wrongly"),
        ("tokens", {"shape": [12]}, "describes array 'tokens' wrongly"),
        ("tokens", {"shape": [-11]}, "describes array 'tokens' wrongly"),
        ("tokens", {"shape": "11"}, "describes array 'tokens' wrongly"),
        ("tokens", {"shape": [True] * 11}, "describes array 'tokens' wrongly"),
        ("tokens", {"data_offsets": [0]}, "describes array 'tokens' wrongly"),
        ("test", {"shape": [10**30, 0], "data_offsets": [0, 0]}, "describes array 'test' wrongly"),
        ("tokens", {"data_offsets": [10**6, 10**6 + 44]}, "is cut off: it has .* ends at 100"),
        ("more", {"dtype": "U8"}, r"missing or unknown arrays \(more\)"),
    ],
)
def test_wrong_descriptions_of_arrays(name: str, entry: dict[str, Any], problem: str) -> None:
    whole = create().as_bytes()
    header = header_of(whole)
    header[name] = header.get(name, {}) | entry
    with pytest.raises(PreparedDataError, match=problem):
        PreparedData.from_buffer(with_header(whole, header))


def test_a_missing_array_and_a_damaged_vocabulary() -> None:
    whole = create().as_bytes()
    header = header_of(whole)
    del header["tokens"]
    with pytest.raises(PreparedDataError, match=r"missing or unknown arrays \(tokens\)"):
        PreparedData.from_buffer(with_header(whole, header))
    for words in (b"hi\nyou\nyou", b"hi\nyou\nb\xffe", b"hi\n\nyou\nby", b"hi\nyou\nb e"):
        with pytest.raises(PreparedDataError, match="has a damaged vocabulary"):
            PreparedData.from_buffer(whole.replace(b"hi\nyou\nbye", words))


@pytest.mark.parametrize("buffer", [b"", b"\x00" * 7, b"PK\x03\x04" * 50, b"\xff" * 100])
def test_foreign_bytes(buffer: bytes) -> None:
    with pytest.raises(PreparedDataError, match=r"prepared data: is (cut off|not a prepared data)"):
        PreparedData.from_buffer(buffer)


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(
        PreparedDataError, match=r"no\.safetensors: cannot be read: no such file or"
    ):
        PreparedData.open(tmp_path / "no.safetensors")
    with pytest.raises(PreparedDataError, match="cannot be read: it is a directory"):
        PreparedData.open(tmp_path)


def test_a_save_that_fails_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    path = tmp_path / "x.safetensors"
    with pytest.raises(
        StorageError, match=f"{path}: cannot be written: no space is left.*; free s"
    ):
        create().save(path)
    assert list(tmp_path.iterdir()) == []


def test_errors_survive_pickling() -> None:
    with pytest.raises(PreparedDataError) as caught:
        PreparedData.from_buffer(b"", "x")
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@settings(deadline=None)
@given(st.data())
def test_any_changed_byte_is_found_or_harmless(data: st.DataObject) -> None:
    original = create()
    whole = bytearray(original.as_bytes())
    start = 8 + int.from_bytes(whole[:8], "little")
    place = data.draw(st.integers(0, len(whole) - 1))
    whole[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = PreparedData.from_buffer(whole)
        changed.verify()
    except PreparedDataError:
        return
    assert place < start, "a change of the arrays went unnoticed"
    assert torch.equal(changed.tokens, original.tokens)


@settings(deadline=None)
@given(st.binary(max_size=200), st.booleans())
def test_any_bytes_are_refused(content: bytes, lead: bool) -> None:
    buffer = len(content).to_bytes(8, "little") + content if lead else content
    with pytest.raises(PreparedDataError):
        PreparedData.from_buffer(buffer)

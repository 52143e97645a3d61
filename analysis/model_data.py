"""The data that a model was trained on, wherever they are at hand, or others in their place."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from model.corpora import read_corpus
from model.data_source import open_or_prepare
from model.errors import DialogueTuneError, PreparedDataError
from model.model_directory import DialogueModel
from model.preparation import prepare_to_evaluate
from model.prepared_data import SUFFIX, PreparedData

_EMBEDDED = "everyday"


@dataclass(frozen=True, kw_only=True)
class ModelData:
    """Data for a model.

    Attributes:
        data: In the model's vocabulary; words that it does not have are ``<unk>``.
        origin: What they are, in words.
        own: Whether the model was trained on them: they have the fingerprint of its data.
        note: Why they are not its own, where nobody asked for others.
    """

    data: PreparedData
    origin: str
    own: bool
    note: str | None = None


def find_data(
    model: DialogueModel, corpus: str | None = None, *, training: bool = False
) -> ModelData:
    """Opens data for a model.

    Without a corpus they are sought by their fingerprint in ``data/*.safetensors`` and in
    ``runs/EXPERIMENT/data.safetensors``; then the model's corpus is prepared again; and where that
    is not at hand, or comes out otherwise, the embedded corpus is taken, with a note.

    Args:
        model: The model.
        corpus: A prepared data set or any other corpus; None for the data it was trained on.
        training: Split another corpus as for training. Otherwise every pair of it is held out.

    Raises:
        CorpusError: where the corpus that was named is missing, malformed or empty.
        PreparedDataError: where the prepared data set that was named is damaged.
    """
    if corpus is None:
        own = next(_trained_on(model), None)
        if own is not None:
            return own
    data = _open(model, corpus or _EMBEDDED, training)
    own_data = _is_own(model, data)
    note = None
    if corpus is None:
        note = (
            f"{model.config.data.corpus}, which the model was trained on, is not at hand; the "
            "embedded corpus stands in for it, whose words the model may not know; name data "
            "with --data"
        )
    if data.vocabulary.words != model.vocabulary.words:
        data = data.with_vocabulary(model.vocabulary)
    origin = corpus or _EMBEDDED
    return ModelData(
        data=data, origin=f"{origin}, trained on" if own_data else origin, own=own_data, note=note
    )


def _open(model: DialogueModel, corpus: str, training: bool) -> PreparedData:
    if corpus.endswith(SUFFIX):
        return open_or_prepare({"corpus": corpus})
    settings = replace(model.config.data, corpus=corpus)
    if training:
        return open_or_prepare(asdict(settings))
    return prepare_to_evaluate(read_corpus(corpus), settings, model.vocabulary)


def _is_own(model: DialogueModel, data: PreparedData) -> bool:
    fingerprint = model.manifest.get("lineage", {}).get("data_fingerprint")
    return fingerprint is not None and data.fingerprint == fingerprint


def _trained_on(model: DialogueModel) -> Iterator[ModelData]:
    """What has the fingerprint of the model's data, the nearest at hand first."""
    for file in _places(model):
        try:
            data = PreparedData.open(file)
            if _is_own(model, data):
                data.verify(str(file))
                yield ModelData(data=data, origin=f"{file}, trained on", own=True)
        except PreparedDataError:  # not ours, or not whole: then it is not what we look for
            continue
    try:
        data = open_or_prepare(asdict(model.config.data))
    except DialogueTuneError:  # moved, say, or prepared anew with other settings
        return
    if _is_own(model, data):
        yield ModelData(data=data, origin=f"{model.config.data.corpus}, trained on", own=True)


def _places(model: DialogueModel) -> list[Path]:
    files = sorted(Path("data").glob(f"*{SUFFIX}"))
    experiment = model.manifest.get("lineage", {}).get("experiment")
    if experiment:
        files.append(Path("runs") / str(experiment) / f"data{SUFFIX}")
    return files

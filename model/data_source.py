"""From the data fields that a person gave to a prepared data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from model.config import DEFAULTS, DataConfig
from model.preparation import prepare
from model.prepared_data import SUFFIX, PreparedData
from model.validation import Problems, rules_of


def open_or_prepare(given: Mapping[str, Any], *, progress: bool = False) -> PreparedData:
    """Opens the prepared data set that ``corpus`` names, or prepares the corpus that it names.

    Args:
        given: The data fields that were given, others of a configuration being passed over;
            what was not given takes its default, or what the prepared data set has.
        progress: Show a progress bar while preparing.

    Raises:
        ConfigurationError: where a given field differs from what a prepared data set was made
            with.
        CorpusError: where the corpus is missing, malformed or leaves nothing.
        PreparedDataError: where the prepared data set is damaged.
    """
    fields = {name: given[name] for name in rules_of(DataConfig) if name in given}
    corpus = str(fields.get("corpus", DEFAULTS["corpus"]))
    if not corpus.endswith(SUFFIX):
        return prepare(DataConfig(**fields), progress=progress)
    data = PreparedData.open(Path(corpus))
    data.verify(corpus)
    problems = Problems(corpus)
    for name, value in fields.items():
        if name != "corpus" and value != data.settings[name]:
            problems.add(
                name,
                f"is {value!r}, but the data set was prepared with {data.settings[name]!r}; "
                "leave it out, or prepare the corpus again.",
            )
    problems.raise_if_any()
    return data

"""What can go wrong with an export."""

from __future__ import annotations

from model.errors import DialogueTuneError


class ExportError(DialogueTuneError):
    """An export cannot be made or opened."""


class ParityError(ExportError):
    """An export says something else than the model; the message has the figures."""

"""The dialogue model and how it is trained; needs torch, and nothing of Ray, W&B or pandas.

import model
bot = model.load("everyday")     # a promoted model, by name or path
bot.reply("hello, how are you?")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from model.model_directory import DialogueModel, load

__all__ = ["DialogueModel", "load"]


def __getattr__(name: str) -> Any:
    """Imports the public names on first use, so that ``import model`` does not load torch."""
    if name in __all__:
        from model import model_directory

        return getattr(model_directory, name)
    raise AttributeError(f"module 'model' has no attribute {name!r}")

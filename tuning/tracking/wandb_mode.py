"""Whether and how Weights & Biases is used: key, mode, what it leaves out, how long it may take."""

from __future__ import annotations

import os
from dataclasses import dataclass
from netrc import NetrcParseError, netrc
from pathlib import Path

from model.errors import ConfigurationError

#: Numbers alone: no code, no console, no packages, no system figures; and nothing printed.
QUIET = {
    "silent": True,
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "save_code": False,
    "x_disable_stats": True,
    "x_disable_meta": True,
    "x_save_requirements": False,
}


def has_key() -> bool:
    """Whether a Weights & Biases key is configured, without asking for one."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("//")[-1].split("/")[0]
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return netrc(str(file)).authenticators(host) is not None
    except (OSError, NetrcParseError):
        return False


def choose_mode(asked: str | None) -> str:
    """The mode to use: as asked, or online with a key and offline without.

    Raises:
        ConfigurationError: where online is asked for and there is no key.
    """
    if asked == "online" and not has_key():
        raise ConfigurationError(
            "--wandb", ["online: needs a key; set WANDB_API_KEY or run 'wandb login' first."]
        )
    return asked or ("online" if has_key() else "offline")


@dataclass(frozen=True)
class Patience:
    """How long to wait for W&B, in seconds.

    Attributes:
        open: For a run to open.
        finish: For a run to be sent whole at its end.
        close: For everything, at the end of the search.
    """

    open: float = 30.0
    finish: float = 60.0
    close: float = 120.0

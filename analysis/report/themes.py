"""Colours of the report's plots, in light and dark; told apart by the colour-blind too.

A trace does not carry a colour but a role (``trace.meta.role``), and the page looks the role up in
the theme that the reader's system asks for. What colour tells, dashes and symbols tell as well.
"""

from __future__ import annotations

from typing import Any

#: How many shades the ranks of trials are drawn in, from the worst (0) to the best.
SHADES = 16
#: How many curves have a colour of their own.
CURVES = 10

#: How lines and markers of each state look, beside their colour.
DASHES = {
    "finished": "solid",
    "stopped": "dot",
    "diverged": "dashdot",
    "failed": "dash",
    "interrupted": "longdash",
    "running": "longdashdot",
}
SYMBOLS = {
    "finished": "circle",
    "stopped": "circle-open",
    "diverged": "x",
    "failed": "x-thin-open",
    "interrupted": "square-open",
    "running": "diamond-open",
}
STATE_WORDS = {
    "finished": "finished",
    "stopped": "stopped early",
    "diverged": "diverged",
    "failed": "failed",
    "interrupted": "interrupted",
    "running": "running",
}

_LIGHT = {
    "finished": "#0b6bb5",
    "stopped": "#b45309",
    "diverged": "#7a3fb0",
    "failed": "#b3123f",
    "interrupted": "#57606a",
    "running": "#0f766e",
    "accent": "#0b6bb5",
    "negative": "#b45309",
    "muted": "#57606a",
    "point": "#1b1f24",
}
_DARK = {
    "finished": "#56b4e9",
    "stopped": "#f0a13a",
    "diverged": "#c9a0ff",
    "failed": "#ff7a90",
    "interrupted": "#a3acb7",
    "running": "#4fd1b5",
    "accent": "#56b4e9",
    "negative": "#f0a13a",
    "muted": "#a3acb7",
    "point": "#f2f4f7",
}
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def themes() -> dict[str, Any]:
    """Both themes: colours of roles, a scale from the worst to the best, and a layout template."""
    # The best is what stands out from the background: dark on white, bright on black.
    light = _scale(0.92, 0.0)
    dark = _scale(0.18, 1.0)
    return {
        "light": _theme(_LIGHT, light, ink="#1b1f24", grid="#d8dee4", paper="#ffffff"),
        "dark": _theme(_DARK, dark, ink="#e6e9ed", grid="#353c45", paper="#14171b"),
    }


def _scale(worst: float, best: float) -> list[str]:
    """Colours of Viridis, which keeps its order in grey and for the colour-blind."""
    from plotly.colors import sample_colorscale

    places = [worst + (best - worst) * i / (SHADES - 1) for i in range(SHADES)]
    return [_hex(colour) for colour in sample_colorscale("Viridis", places)]


def _hex(colour: str) -> str:
    red, green, blue = (round(float(part)) for part in colour[4:-1].split(","))
    return f"#{red:02x}{green:02x}{blue:02x}"


def _theme(
    roles: dict[str, str], scale: list[str], *, ink: str, grid: str, paper: str
) -> dict[str, Any]:
    shades = {f"shade{i}": colour for i, colour in enumerate(scale)}
    curves = {f"curve{i}": scale[-1 - i * (SHADES - 2) // CURVES] for i in range(CURVES)}
    axis = {
        "gridcolor": grid,
        "linecolor": grid,
        "zerolinecolor": grid,
        "tickcolor": grid,
        "automargin": True,
    }
    layout = {
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": ink, "family": _FONT, "size": 12},
        "hoverlabel": {"bgcolor": paper, "bordercolor": grid, "font": {"color": ink}},
        "xaxis": axis,
        "yaxis": axis,
    }
    return {
        "roles": roles | shades | curves,
        "scale": [[i / (SHADES - 1), colour] for i, colour in enumerate(scale)],
        "ink": ink,
        "veil": f"{paper}d0",  # the paper's colour, not quite opaque
        "layout": layout,
    }

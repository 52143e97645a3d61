"""One self-contained HTML file about an experiment, which needs no network and no server.

Words are computed from the figures in `summary`; plots are plotly's, by Optuna where it
draws them; the page is ``templates/report.html.j2``. Made twice from the same experiment it has
the same bytes: dates are the experiment's own, ids are fixed, and random numbers have a seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from analysis.importance.estimates import Importance, importances
from analysis.overhead import PARTS, overhead, total
from analysis.promotion.verdict import SoFar
from analysis.report import importance_figures, parameter_figures, run_figures, summary, tables
from analysis.report.figures import Figure, view
from analysis.report.pareto_figures import pareto_figures
from analysis.report.themes import STATE_WORDS, themes
from analysis.report.timeline import timeline
from analysis.report.wording import duration, loss, number, without_directories
from analysis.results import Results
from model.errors import DialogueTuneError, ExperimentError
from model.files import atomic_write

if TYPE_CHECKING:
    from tqdm import tqdm

#: The most rows of the table of trials.
_MOST_ROWS = 1000
#: A contour of the finished trials alone needs so many of them.
_ENOUGH_FINISHED = 8
_TEMPLATES = resources.files("analysis.report") / "templates"


def write_report(
    results: Results,
    out: str | Path | None = None,
    *,
    bootstraps: int = 100,
    seed: int = 0,
    progress: bool = False,
) -> Path:
    """Writes the report of an experiment, finished, running or interrupted.

    Args:
        results: The experiment.
        out: The file; None takes ``report.html`` in the experiment's directory.
        bootstraps: Samples of the intervals of importance; 0 for none.
        seed: Of these samples.
        progress: Show a bar on standard error.

    Returns:
        The file.

    Raises:
        StorageError: where it cannot be written.
    """
    out = results.experiment.path / "report.html" if out is None else Path(out)
    html = render(results, bootstraps=bootstraps, seed=seed, progress=progress)
    atomic_write(out, html.encode())
    return out


def render(
    results: Results, *, bootstraps: int = 100, seed: int = 0, progress: bool = False
) -> str:
    """The report as a page; arguments are those of `write_report`."""
    import jinja2
    from markupsafe import Markup
    from plotly.offline import get_plotlyjs

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("analysis.report", "templates"),
        autoescape=True,  # names and reasons come from outside
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"loss": loss, "number": number, "duration": duration, "code": _code}
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    contents = _Contents(results, bootstraps, seed).collect(progress)
    return environment.get_template("report.html.j2").render(
        **contents,
        themes=themes(),
        plotly=Markup(get_plotlyjs()),  # these three are files of packages
        css=Markup(_text("report.css")),
        javascript=Markup(_text("report.js")),
    )


def _text(name: str) -> str:
    return (_TEMPLATES / name).read_text(encoding="utf-8")


def _code(text: str) -> Any:
    """Escapes a sentence, and shows what it has in backquotes as code."""
    from markupsafe import Markup, escape

    parts = str(escape(text)).split("`")
    pieces = [f"<code>{part}</code>" if i % 2 else part for i, part in enumerate(parts)]
    return Markup("".join(pieces))  # escaped above


class _Contents:
    """Collects what the page shows, part by part; a part that cannot be made says why."""

    def __init__(self, results: Results, bootstraps: int, seed: int) -> None:
        self.results = results
        self.bootstraps = bootstraps
        self.seed = seed
        self.problems = tables.problems_of(results)
        self.contents: dict[str, Any] = {}
        self.found: list[Importance] = []
        self.parameters = list(results.searched)

    def collect(self, progress: bool) -> dict[str, Any]:
        """Everything that the template shows, by name."""
        from tqdm import tqdm

        parts: list[Callable[[], None]] = [
            self._summary,
            self._importance,
            self._parameter_figures,
            self._run_figures,
            self._ranking,
            self._time,
            self._table,
            self._environment,
        ]
        bar: tqdm[Callable[[], None]]
        with tqdm(parts, desc="report", unit="part", disable=not progress, leave=False) as bar:
            for part in bar:
                part()
        figures = [value for value in self.contents.values() if isinstance(value, Figure)]
        for value in self.contents.values():
            if isinstance(value, list):
                figures += [each for each in value if isinstance(each, Figure)]
        specs = {figure.id: figure.spec for figure in figures if figure.spec is not None}
        # The same problem may have been met by several parts.
        problems = [without_directories(text) for text in dict.fromkeys(self.problems)]
        return self.contents | {"specs": specs, "problems": problems}

    def _summary(self) -> None:
        results = self.results
        confirmed = self._confirmed()
        best = None if results.ranked().empty else results.best()
        self.contents |= {
            "name": results.experiment.name,
            "objective": results.objective,
            "reference": summary.reference(results),
            "state": summary.state_of(results),
            "date": tables.date_of(results),
            "headline": summary.headline(results),
            "standing": summary.standing(results),
            "meaning": summary.meaning(results),
            "sureness": summary.sureness(results, confirmed),
            "confirmed": tables.confirmed_rows(confirmed),
            "pareto": pareto_figures(results),
            "front": summary.front(results),
            "best": None if best is None else tables.configuration_of(results, best),
        }

    def _confirmed(self) -> SoFar:
        from analysis.promotion.confirmation import confirmed_so_far

        try:
            found = confirmed_so_far(self.results)
        except DialogueTuneError as error:
            self.problems.append(f"No fresh runs: {error}")
            return SoFar()
        self.problems += found.problems
        return found

    def _importance(self) -> None:
        try:
            self.found = importances(self.results, bootstraps=self.bootstraps, seed=self.seed)
        except ExperimentError as error:
            self.problems.append(f"No importance: {error}")
        if self.found and len(self.found[0].frame):
            order = self.found[0].frame["parameter"].tolist()
            self.parameters = [*order, *(n for n in self.parameters if n not in order)]
        objective, ascending = self.results.objective, self.results.ascending
        figures = importance_figures.importance_figures(self.found)
        correlation = importance_figures.correlation_figure(self.found, objective, ascending)
        warnings = dict.fromkeys(text for each in self.found for text in each.warnings)
        self.contents |= {
            "importance": figures + ([correlation] if correlation else []),
            "importance_warnings": list(warnings),
            "importance_rule": self.found[0].rule if self.found else "",
            "importance_trials": self.found[0].trials if self.found else 0,
            "importance_tables": [tables.importance_table(each) for each in self.found],
            "bootstraps": self.bootstraps,
            "leaders": tables.leaders(self.found),
        }

    def _parameter_figures(self) -> None:
        every, finished = self._view(None), self._view(("finished",))
        enough = finished is not None and len(finished.numbers) >= _ENOUGH_FINISHED
        of_contours = finished if enough else every
        self.contents |= {
            "parallel": parameter_figures.parallel_coordinates(every),
            "slices": parameter_figures.slices(every, self.parameters),
            "slices_note": every.note if every else "",
            "contours": parameter_figures.contours(of_contours, self.parameters),
            "contours_note": of_contours.note if of_contours else "",
            "contours_finished": enough,
        }

    def _view(self, states: tuple[str, ...] | None) -> Any:
        try:
            return view(self.results, states)
        except ExperimentError as error:
            self.problems.append(f"No figures of parameters: {error}")
            return None

    def _run_figures(self) -> None:
        self.contents |= {
            "incumbent": run_figures.incumbent(self.results),
            "curves_best": run_figures.best_curves(self.results),
            "curves_all": run_figures.all_curves(self.results),
            "timeline": timeline(self.results),
        }

    def _ranking(self) -> None:
        from analysis.importance.ranking import ranking

        try:
            found = ranking(self.results, bootstraps=5 * self.bootstraps)
        except ExperimentError as error:
            self.problems.append(f"No comparison of rankings: {error}")
            self.contents |= {"ranking": [], "ranking_notes": []}
            return
        notes = [f"ranked are {found.trials} trials: {found.rule}.", *found.warnings]
        self.contents |= {"ranking": found.words, "ranking_notes": notes}

    def _time(self) -> None:
        sessions = overhead(self.results)
        seconds, parts = sum(s.worker_seconds for s in sessions), total(sessions)
        self.contents |= {
            "spent": tables.spent(sessions),
            "parts": [
                (part, what, duration(parts[part]), f"{100 * parts[part] / seconds:.1f}")
                for part, what in PARTS.items()
                if seconds and parts[part]
            ],
        }

    def _table(self) -> None:
        results = self.results
        trials = results.trials
        ranked = results.ranked()
        frame = pd.concat([ranked, trials.drop(ranked.index)])
        columns = tables.columns_of(results)
        shown = frame[columns].head(_MOST_ROWS)
        self.contents |= {
            "columns": columns,
            "rows": [tables.cells(row, results.objective) for row in shown.to_dict("records")],
            "rows_left_out": len(frame) - len(shown),
            "states": STATE_WORDS,
        }

    def _environment(self) -> None:
        manifest = self.results.experiment.manifest
        sweep = self.results.experiment.sweep()
        self.contents |= {
            "command": tables.command_of(manifest["command"]),
            "environment": tables.environment_of(manifest, self.results.rows),
            "space": tables.space_of(sweep),
            "method": sweep.method,
            "sweep": json.dumps(tables.shortened(manifest["sweep"]), indent=2, ensure_ascii=False),
        }

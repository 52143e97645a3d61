"""What a search found, in sentences: how it stands, the best configuration, how sure that is."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd

from analysis.completeness import named
from analysis.promotion.verdict import Confirmed, SoFar
from analysis.report.themes import STATE_WORDS
from analysis.report.wording import loss, number
from analysis.results import Results
from model.wording import listing, plural
from tuning.journal import trials_asked_for
from tuning.searchers import STATES

#: The runs whose last reports the noise is read from, the reports of each, and the fewest.
_RUNS, _LAST, _FEWEST = 10, 6, 4
#: A value this close to an end of its range, as a share of the range, is at the end.
_EDGE = 0.05
#: Differences within so many times the noise tell nothing apart.
_APART = 2.0
#: From so many trials on, the best value flatters noticeably.
_MANY = 5


def state_of(results: Results) -> str:
    """How the experiment stands: ``running``, ``complete`` or ``interrupted``."""
    if results.running:
        return "running"
    last = results.rows[-1] if results.rows else None
    return "complete" if last is not None and last.completes else "interrupted"


def reference(results: Results) -> str:
    """How a command names the experiment: its name, and where it is if not in ``runs``."""
    storage = results.experiment.path.parent.name
    return results.experiment.name + ("" if storage == "runs" else f" --storage {storage}")


def standing(results: Results) -> str:
    """How many trials there are and how they ended, in a sentence or two."""
    trials = results.trials
    states = Counter(trials["state"])
    target = trials_asked_for(results.experiment.manifest["trials"], results.rows)
    ended = sum(states[state] for state in STATES)
    counts = listing([f"{n} {STATE_WORDS.get(state, state)}" for state, n in states.most_common()])
    of = f" of {target}" if target is not None and target != ended else ""
    have = "has" if ended == 1 and not of else "have"
    trials_noun = plural(ended, "trial") if not of else f"{ended}{of} trials"
    said = f"{trials_noun} {have} ended" + (f": {counts}." if len(trials) else ".")
    openings = {
        "running": "It is still running, and what follows may change. ",
        "interrupted": "It was interrupted, and can be resumed. " if results.rows else "",
    }
    return openings.get(state_of(results), "") + said


def headline(results: Results) -> str:
    """The answer in one sentence."""
    ranked = results.ranked()
    if ranked.empty:
        return (
            "No trial has a result yet."
            if state_of(results) == "running"
            else "No trial gave a result."
        )
    best = ranked.iloc[0]
    only = len(ranked) == 1
    of = "is the only one with a result" if only else f"is the best of {len(ranked)} with a result"
    return (
        f"Trial {best['trial']} {of}: {results.objective} {loss(best[results.objective])} "
        f"at iteration {best['best_iteration']}."
    )


def front(results: Results) -> str:
    """Who is on the Pareto front, in words; nothing where there is one objective."""
    if len(results.objectives) < 2:
        return ""
    trials = results.pareto()["trial"].tolist()
    if not trials:
        return f"No trial has a value of {listing(results.objectives)} yet."
    return (
        f"The trial named above is the best by {results.objective} alone. By "
        f"{listing(results.objectives)} together there is no single best one: on the Pareto front "
        f"{'is' if len(trials) == 1 else 'are'} {named(trials)}. To promote another of them, name "
        "it with `--trial`."
    )


def meaning(results: Results) -> list[str]:
    """What the best value means beside others that a reader knows."""
    ranked = results.ranked()
    if ranked.empty:
        return []
    best = ranked.iloc[0]
    direction = "Lower" if results.ascending else "Higher"
    said = [f"{direction} is better; it is measured on conversations that no trial trains on."]
    perplexity = best.get("val_perplexity")
    if results.objective != "val_perplexity" and not pd.isna(perplexity):
        said.append(f"Its perplexity there is {number(perplexity)}.")
    unigram = results.experiment.manifest["data"].get("unigram_val_loss")
    if results.objective == "val_loss" and unigram:
        share = 1 - best["val_loss"] / unigram
        side = "below" if share >= 0 else "above"
        said.append(
            f"That is {100 * abs(share):.0f} % {side} a model that knows only how frequent each "
            f"word is ({loss(unigram)} nats a token)."
        )
    return said


def noise(results: Results) -> float | None:
    """How much the objective of the best runs wavers from report to report.

    The median, over the ten best runs, of the standard deviation of the differences between
    consecutive ones of the last six reports, divided by the square root of 2; a steady trend does
    not count. None where no run has four reports.
    """
    history = results.history
    found = []
    for trial in results.ranked()["trial"].head(_RUNS):
        values = history.loc[history["trial"] == trial, results.objective].to_numpy()[-_LAST:]
        if len(values) >= _FEWEST and np.isfinite(values).all():
            found.append(float(np.std(np.diff(values), ddof=1) / math.sqrt(2)))
    return float(np.median(found)) if found else None


def sureness(results: Results, confirmed: SoFar) -> list[str]:
    """How sure the choice is, a sentence or two each."""
    if results.ranked().empty:
        return []
    return [
        *_against_the_second(results),
        *_the_luckiest(results),
        *_of_the_seeds(results, confirmed),
        *_of_its_run(results),
        *_at_the_edge(results),
    ]


def _against_the_second(results: Results) -> Iterator[str]:
    """How far the next configuration is; trials of the best one's own are not rivals."""
    ranked = results.ranked()
    best, others = ranked.iloc[0], ranked.iloc[1:]
    if others.empty:
        yield "No other trial has a result to compare it with."
        return
    searched = results.searched
    same = pd.Series(
        [_equal(row, best[searched]) for _, row in others[searched].iterrows()], others.index
    )
    if same.any():
        twins = [str(trial) for trial in others.loc[same, "trial"]]
        yield (
            f"Trial{'s' if len(twins) > 1 else ''} {listing(twins)} had the same configuration as "
            "the best."
        )
    rivals = others[~same]
    if rivals.empty:
        yield "No other configuration has a result to compare it with."
        return
    second = rivals.iloc[0]
    gaps = (rivals[results.objective] - best[results.objective]).abs()
    share = f" ({100 * gaps.iloc[0] / abs(top):.2g} %)" if (top := best[results.objective]) else ""
    yield f"The second best, trial {second['trial']}, is {loss(gaps.iloc[0])}{share} behind."
    wavers = noise(results)
    if wavers is None:
        yield "There are too few reports to say how noisy these figures are."
        return
    near = int((gaps <= _APART * wavers).sum())
    within = (
        "no other trial lies within twice that of the best."
        if not near
        else f"{plural(near, 'other trial')} {'lies' if near == 1 else 'lie'} within twice that of "
        "the best: this search cannot tell them apart."
    )
    runs = "the best runs" if len(ranked) < _RUNS else "the ten best runs"
    yield (
        f"From report to report, {results.objective} of {runs} wavers by {loss(wavers)} "
        f"(standard deviation over their last reports, without the trend); {within}"
    )


def _equal(one: pd.Series[Any], other: pd.Series[Any]) -> bool:
    """Whether two configurations are the same; what is lost equals nothing."""
    pairs = zip(one, other, strict=True)
    return all(not (pd.isna(a) or pd.isna(b)) and a == b for a, b in pairs)


def _the_luckiest(results: Results) -> Iterator[str]:
    valued = len(results.ranked())
    if valued >= _MANY:
        yield (
            f"It is the best of {valued} figures with noise in each, so that it flatters: expect "
            "slightly worse of another run."
        )


def _of_the_seeds(results: Results, confirmed: SoFar) -> Iterator[str]:
    again = f"`python -m analysis promote {reference(results)} --confirm 3`"
    if confirmed.configurations:
        yield from _confirmed_words(results, confirmed.configurations)
    elif not confirmed.unfinished:
        yield (
            "Each configuration was trained once, so that differences smaller than those between "
            f"two seeds mean nothing, and those were not measured. {again} measures them."
        )
    if confirmed.unfinished:
        which = [str(each.trials[0]) for each in confirmed.unfinished]
        trials = f"trial{'s' if len(which) > 1 else ''} {listing(which)}"
        yield f"Fresh runs of {trials} are not finished and not compared; {again} makes them."


def _confirmed_words(results: Results, configurations: Sequence[Confirmed]) -> Iterator[str]:
    first = configurations[0]
    seeds = plural(len(first.outcomes), "fresh seed")
    if first.mean is None:
        yield (
            f"It is not confirmed: trained again with {seeds}, each configuration diverged before "
            "its first report at least once."
        )
        return
    interval = _interval(first, ", 95 %")
    means = f"mean {results.objective} on the whole validation split"
    if len(configurations) == 1:
        yield (
            f"Trained again with {seeds}, the configuration of trial {first.trials[0]} has a "
            f"{means} of {interval}; no other has as many runs to compare it with."
        )
        return
    best = results.best()["trial"]
    same = "It was confirmed" if best in first.trials else "Confirmation prefers another"
    yield (
        f"{same}: trained again with {seeds}, the configuration of trial {first.trials[0]} has "
        f"the best {means}, {interval}."
    )
    second = configurations[1]
    if second.mean is None:
        yield "Of every other configuration a fresh run diverged before its first report."
        return
    yield (
        f"The runner-up, trial {second.trials[0]}, has {_interval(second)}: "
        + ("the intervals overlap." if first.overlaps(second) else "the intervals are apart.")
    )


def _interval(each: Confirmed, which: str = "") -> str:
    assert each.mean is not None and each.low is not None and each.high is not None
    return f"{loss(each.mean)} ({loss(each.low)} to {loss(each.high)}{which})"


def _of_its_run(results: Results) -> Iterator[str]:
    best = results.ranked().iloc[0]
    if best["state"] in ("stopped", "running", "interrupted"):
        words = {"stopped": "was stopped early", "running": "is still running"}
        said = words.get(best["state"], "was interrupted")
        yield f"Its run {said} at iteration {best['iteration']}: it may not be at its best."
        return
    last, at_best = best[f"last_{results.objective}"], best[results.objective]
    if best["best_iteration"] == best["iteration"]:
        yield "It was at its best when it ended: longer training may give more."
    elif not pd.isna(last) and abs(last - at_best) > _APART * (noise(results) or 0):
        yield (
            f"Its best was at iteration {best['best_iteration']} of {best['iteration']}; by the "
            f"end it had gone to {loss(last)}. The weights kept are those of its best."
        )


def _at_the_edge(results: Results) -> Iterator[str]:
    """Ranges at whose ends the best value lies: there may be better beyond."""
    best = results.ranked().iloc[0]
    ends = []
    for name, distribution in results.experiment.sweep().space.searched.items():
        low, high = getattr(distribution, "low", None), getattr(distribution, "high", None)
        if low is None or high is None or pd.isna(best[name]):  # its configuration may be lost
            continue
        value = float(best[name])
        if not low <= value <= high:  # the default of a field that was not searched there
            continue
        log = getattr(distribution, "log", False) and low > 0  # steps may begin at 0
        place = _place(value, low, high, log=log)
        if not _EDGE < place < 1 - _EDGE:
            end = low if place < 0.5 else high
            ends.append(f"{name} {number(value)} is at the end of its range ({number(end)})")
    if ends:
        yield f"Its {listing(ends)}: there may be better beyond."


def _place(value: float, low: float, high: float, *, log: bool) -> float:
    if log:
        value, low, high = math.log(value), math.log(low), math.log(high)
    return (value - low) / (high - low)

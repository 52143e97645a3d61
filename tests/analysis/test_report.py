"""The report: its words by hand, every kind of experiment, and what must never be in the file."""

import dataclasses
import json
import re
from html.parser import HTMLParser

import pytest

from analysis import Results
from analysis.__main__ import main
from analysis.promotion.fresh_runs import configuration_key
from analysis.promotion.verdict import SoFar
from analysis.report.figures import clip, cut_of, sample, view
from analysis.report.page import render, write_report
from analysis.report.parameter_figures import contours, parallel_coordinates, slices
from analysis.report.run_figures import all_curves, best_curves, incumbent
from analysis.report.summary import headline, noise, standing, state_of, sureness
from analysis.report.timeline import attempts, timeline
from analysis.report.wording import duration, loss, number, without_directories
from model.cli import run_main
from model.config import Config, DataConfig
from model.wording import listing, plural
from tests.analysis.conftest import make_experiment, proposed, reported
from tests.analysis.synthetic import SWEEP, search
from tuning.journal import Journal, Row, compact


@pytest.fixture(scope="module")
def searched(tmp_path_factory, tiny_data):
    """Thirty trials in every state, by four workers."""
    return Results.open(search(tmp_path_factory.mktemp("runs"), tiny_data).path)


@pytest.fixture(scope="module")
def page(searched):
    return render(searched, bootstraps=3)


class Text(HTMLParser):
    """What a reader sees, and the elements there are."""

    def __init__(self, page):
        super().__init__()
        self.said, self.tags, self.hidden = [], [], 0
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.hidden += tag in ("script", "style")

    def handle_endtag(self, tag):
        self.hidden -= tag in ("script", "style")

    def handle_data(self, data):
        if not self.hidden:
            self.said.append(data)

    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.said))


def seen(results, **options):
    return Text(render(results, bootstraps=0, **options)).text()


def specs_of(page):
    match = re.search(r'<script type="application/json" id="specs">(.*?)</script>', page, re.S)
    return json.loads(match.group(1))


# Words and figures by hand


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (number(0.000512345), "0.0005123"),
        (number(64.0), "64"),
        (number(12345.6), "12346"),
        (number(1.5), "1.5"),
        (number(None), "-"),
        (number(float("nan")), "-"),
        (number(True), "True"),
        (number("adam"), "adam"),
        (loss(2.34567), "2.3457"),
        (loss(0.01234567), "0.01235"),
        (loss(0.0), "0.0000"),
        (plural(1, "trial"), "1 trial"),
        (plural(0, "trial"), "0 trials"),
        (listing(["a", "b", "c"]), "a, b and c"),
        (listing([]), ""),
        (duration(0.0), "0 s"),
        (duration(7.04), "7 s"),
        (duration(95), "1 min 35 s"),
        (duration(3599.7), "1 h"),
        (duration(8000), "2 h 13 min"),
        (duration(90000), "1 d 1 h"),
    ],
)
def test_figures_in_words(said, expected):
    assert said == expected


def test_directories_are_left_out_but_not_those_of_addresses_and_relative_paths():
    assert without_directories("/home/ada/runs/demo/best.pt: gone") == "best.pt: gone"
    assert without_directories("File '/a/b/c.py', line 3") == "File 'c.py', line 3"
    for kept in ("configs/demo.yaml", "https://host/a/b", "3/12 trials", "a / b", "~/x/y"):
        assert without_directories(kept) == kept


def test_values_far_beyond_most_are_cut_off():
    assert cut_of([1, 2, 3, 4, 5], ascending=True) == 5  # nothing is far
    assert cut_of([1, 2, 3, 4, 5, 5, 5, 5, 1000], ascending=True) == 1 + 3 * (5 - 1)
    assert cut_of([-1, -2, -3, -4, -5, -5, -5, -5, -1000], ascending=False) == -13
    assert cut_of([2, 2, 2, 2, 9], ascending=True) == 9  # most are equal: no scale to judge by
    assert clip(7, 5, ascending=True) == 5
    assert clip(7, 5, ascending=False) == 7


def test_a_sample_has_the_best_half_and_others_evenly():
    assert sample([3, 1, 2], most=3) == [3, 1, 2]
    assert sample(list(range(100)), most=6) == [0, 1, 2, 3, 51, 99]


def hand(by_hand, values, **more):
    """An experiment of finished trials with these values at iterations 10, 20, ..."""
    rows = []
    for trial, curve in enumerate(values):
        rows.append(proposed(trial, clip=1.0 + trial))
        for i, value in enumerate(curve, start=1):
            state = "finished" if i == len(curve) else "running"
            rows.append(reported(trial, 10 * i, state, val_loss=value))
    return Results.open(by_hand(rows, **more).path)


def test_the_noise_is_what_wavers_around_a_trend(by_hand):
    steady = hand(by_hand, [[5.0, 4.0, 3.0, 2.0]], name="steady")
    assert noise(steady) == pytest.approx(0, abs=1e-12)
    # Differences of -1, 1, -1: mean -1/3, variance ((2/3)^2 + (4/3)^2 + (2/3)^2) / 2 = 4/3.
    wavering = hand(by_hand, [[5.0, 4.0, 5.0, 4.0]], name="wavering")
    assert noise(wavering) == pytest.approx((4 / 3 / 2) ** 0.5)
    assert noise(hand(by_hand, [[3.0, 2.0, 1.0]], name="short")) is None


def test_a_gap_within_the_noise_is_called_a_tie(by_hand):
    results = hand(by_hand, [[5.0, 4.0, 5.0, 4.0], [5.0, 4.5, 5.0, 4.5], [99.0, 98.0, 99.0, 98.0]])
    said = " ".join(sureness(results, SoFar()))
    assert "The second best, trial 1, is 0.5000 (12 %) behind." in said
    assert "wavers by 0.8165" in said
    assert "1 other trial lies within twice that of the best: this search cannot tell" in said
    assert "`python -m analysis promote hand --confirm 3` measures them." in said


def test_a_trial_of_the_same_configuration_is_no_rival(by_hand):
    rows = []
    for trial, (norm, value) in enumerate([(1.0, 3.0), (2.0, 3.5), (1.0, 3.25), (1.0, 3.0)]):
        rows += [proposed(trial, clip=norm), reported(trial, 10, "finished", val_loss=value)]
    said = " ".join(sureness(Results.open(by_hand(rows).path), SoFar()))
    assert "Trials 3 and 2 had the same configuration as the best." in said
    assert "The second best, trial 1, is 0.5000 (17 %) behind." in said
    alone = " ".join(sureness(Results.open(by_hand(rows[:2] + rows[4:], name="a").path), SoFar()))
    assert "No other configuration has a result to compare it with." in alone


def test_a_clear_gap_is_called_one(by_hand):
    results = hand(by_hand, [[5.0, 4.0, 3.0, 2.0], [9.0, 8.0, 7.0, 6.0]])
    said = " ".join(sureness(results, SoFar()))
    assert "no other trial lies within twice that of the best." in said
    assert "It was at its best when it ended: longer training may give more." in said
    assert "flatters" not in said  # of two there is little to choose


def test_a_best_that_lies_at_the_end_of_its_range_or_of_its_run(by_hand):
    rows = [proposed(0, clip=8.9)]
    rows += [reported(0, 10 * i, val_loss=v) for i, v in enumerate([3.0, 2.0, 2.5, 2.4], start=1)]
    rows.append(reported(0, 50, "finished", val_loss=4.0))
    said = " ".join(sureness(Results.open(by_hand(rows).path), SoFar()))
    assert "clip 8.9 is at the end of its range (9): there may be better beyond." in said
    assert "Its best was at iteration 20 of 50; by the end it had gone to 4.0000." in said
    assert "No other trial has a result to compare it with." in said


def test_a_range_in_steps_may_begin_at_0_and_a_field_that_is_not_searched_lies_outside(
    tmp_path, tiny_data
):
    sweep = {
        "method": "random",
        "parameters": {
            "clip": {"distribution": "q_log_uniform_values", "min": 0.2, "max": 9.0, "q": 1},
            "dropout": {"distribution": "log_uniform_values", "min": 0.01, "max": 0.5},
            "corpus": {"value": "tiny"},
        },
    }
    experiment = make_experiment(tmp_path, tiny_data, sweep)
    journal = Journal(experiment.journal)
    first = proposed(0, clip=0)
    config = {**first.config, "dropout": 0.0}  # a default that the range does not have
    for row in (first, reported(0, 10, "finished", val_loss=3.0)):
        journal.append(dataclasses.replace(row, config=config))
    journal.close()
    said = " ".join(sureness(Results.open(experiment.path), SoFar()))
    assert "Its clip 0 is at the end of its range (0): there may be better beyond." in said


def test_trials_asked_for_are_those_of_extensions_too(by_hand):
    rows = [proposed(0), Row(kind="extended", metrics={"trials": 4})]
    assert "trials asked for 13" in seen(Results.open(by_hand(rows).path))


def test_the_headline_counts_what_has_a_result(by_hand):
    rows = [proposed(0), reported(0, 10, "stopped", val_loss=3.25), proposed(1)]
    results = Results.open(by_hand(rows).path)
    assert headline(results) == (
        "Trial 0 is the only one with a result: val_loss 3.2500 at iteration 10."
    )
    assert standing(results) == (
        "It was interrupted, and can be resumed. 1 of 9 trials have ended: 1 stopped early and 1 "
        "interrupted."
    )
    assert "Its run was stopped early at iteration 10" in " ".join(sureness(results, SoFar()))


def test_a_higher_objective_is_better_where_the_sweep_says_so(tmp_path, tiny_data):
    metric = {"name": "val_token_accuracy", "goal": "maximize"}
    results = Results.open(search(tmp_path, tiny_data, metric=metric, trials=8).path)
    best = results.trials["val_token_accuracy"].max()
    said = seen(results)
    assert f"val_token_accuracy {loss(best)} at iteration" in said
    assert "Higher is better" in said
    line = next(t for t in incumbent(results).spec["data"] if t["name"] == "best so far")
    assert line["y"] == sorted(line["y"])  # it rises
    assert line["y"][-1] == pytest.approx(best, rel=1e-5)


# Figures


def test_the_incumbent_only_gets_better_and_ends_at_the_best(searched):
    figure = incumbent(searched)
    line = next(t for t in figure.spec["data"] if t["name"] == "best so far")
    assert line["y"] == sorted(line["y"], reverse=True)
    assert line["y"][-1] == pytest.approx(searched.best()["val_loss"], rel=1e-5)
    marks = [y for t in figure.spec["data"] if t["mode"] == "markers" for y in t["y"]]
    assert len(marks) == len(searched.ranked())


def test_each_state_has_a_colour_dash_and_symbol_of_its_own(searched):
    traces = all_curves(searched).spec["data"]
    states = set(searched.trials.loc[searched.trials["iteration"] > 0, "state"])
    assert {t["meta"]["role"] for t in traces} == states
    for kind, looks in (("line", "dash"), ("marker", "symbol")):
        of_kind = [t for t in traces if kind in t]
        assert len({t[kind][looks] for t in of_kind}) == len(of_kind) == len(states) > 2
    ends = {n: y for t in traces if "marker" in t for n, y in zip(t["text"], t["y"], strict=True)}
    last = searched.history.dropna(subset="val_loss").groupby("trial")["val_loss"].last()
    assert ends == {str(n): pytest.approx(value, rel=1e-5) for n, value in last.items()}


def test_the_best_curves_are_those_of_the_best_trials(searched):
    names = [t["name"].split(",")[0] for t in best_curves(searched).spec["data"]]
    ranked = searched.ranked()["trial"].head(10)
    assert names == [f"{i}. trial {n}" for i, n in enumerate(ranked, start=1)]


def test_long_curves_are_thinned_and_keep_their_best(tmp_path, tiny_data):
    results = Results.open(search(tmp_path, tiny_data, trials=3, reports=2000).path)
    figure = best_curves(results)
    line = figure.spec["data"][0]
    assert len(line["x"]) <= 400
    assert min(line["y"]) == pytest.approx(results.best()["val_loss"], rel=1e-5)
    iterations = results.history.loc[
        results.history["trial"] == results.best()["trial"], "iteration"
    ]
    assert (line["x"][0], line["x"][-1]) == (iterations.min(), iterations.max())


def test_many_trials_are_sampled_and_it_is_said(tmp_path, tiny_data):
    experiment = search(tmp_path, tiny_data, trials=620, reports=3, states="finished")
    results = Results.open(experiment.path)
    seen_trials = view(results)
    assert len(seen_trials.numbers) == 500
    assert set(results.ranked()["trial"].head(250)) <= set(seen_trials.numbers)
    said = "Drawn are 500 of 620 trials: the best 250, and others evenly from the rest by rank."
    assert said in seen_trials.note
    assert said in all_curves(results).caption


def test_lines_of_the_parallel_coordinates_belong_to_their_trials(searched):
    seen_trials = view(searched)
    spec = parallel_coordinates(seen_trials).spec
    brush = spec["layout"]["meta"]["brush"]
    assert sorted(brush["trials"]) == sorted(searched.ranked()["trial"])
    assert len(spec["data"]) == len(brush["trials"])
    place = brush["axes"].index("teacher_forcing_ratio")
    ratios = searched.trials.set_index("trial")["teacher_forcing_ratio"][brush["trials"]].tolist()
    low, high = min(ratios), max(ratios)
    drawn = [line["y"][place] for line in spec["data"]]
    assert drawn == pytest.approx([(r - low) / (high - low) for r in ratios], abs=1e-5)
    shades = {
        n: line["meta"]["role"] for n, line in zip(brush["trials"], spec["data"], strict=True)
    }
    ranked = searched.ranked()["trial"].tolist()
    assert shades[ranked[0]] == "shade15"
    assert shades[ranked[-1]] == "shade0"


def test_slices_name_categories_in_the_sweeps_order_and_log_axes_are_log(searched):
    figures = {f.title: f for f in slices(view(searched), searched.searched)}
    assert list(figures) == searched.searched
    axis = figures["optimizer"].spec["layout"]["xaxis"]
    assert axis["categoryarray"] == ["sgd", "adam"]
    assert {x for t in figures["optimizer"].spec["data"] for x in t["x"]} == {"sgd", "adam"}
    assert figures["clip"].spec["layout"]["xaxis"]["categoryarray"] == ["0", "10", "25", "50"]
    assert figures["learning_rate"].spec["layout"]["xaxis"]["type"] == "log"
    assert "type" not in figures["teacher_forcing_ratio"].spec["layout"]["xaxis"]
    trials = searched.trials.set_index("trial")
    for points in figures["learning_rate"].spec["data"]:
        for text, x in zip(points["customdata"], points["x"], strict=True):
            n = int(text.removeprefix("trial "))
            assert x == pytest.approx(trials["learning_rate"][n], rel=1e-5)
            assert trials["state"][n] == points["meta"]["role"]


def test_contours_take_the_most_important_pairs_first(searched):
    figures = contours(view(searched), ["optimizer", "learning_rate", "clip", "hidden_size"])
    assert [f.title for f in figures] == [
        "optimizer and learning_rate",
        "optimizer and clip",
        "optimizer and hidden_size",
    ]
    surface, points = figures[0].spec["data"]
    assert len(surface["x"]) <= 32  # thirty places and a margin at both ends
    assert set(points["y"]) == {"sgd", "adam"} or set(points["x"]) == {"sgd", "adam"}
    assert len(points["x"]) == len(searched.ranked())


def test_the_timeline_has_every_attempt_on_its_worker(finished):
    """Trial 1 fails once and goes on, trial 4 fails twice."""
    results = Results.open(finished.path)
    found = {(a.trial, a.number): (a.state, a.worker) for a in attempts(results)}
    assert found[1, 1] == ("failed", "host:1")
    assert found[1, 2] == ("finished", "host:2")
    assert found[4, 2][0] == "failed"
    bars = timeline(results).spec["data"]
    assert sum(len(bar["x"]) for bar in bars) == len(found)


def test_an_attempt_that_another_driver_took_up_was_interrupted(by_hand):
    restarted = dataclasses.replace(proposed(0), kind="restarted", attempt=2)
    rows = [proposed(0), reported(0, 10, val_loss=3.0), restarted]
    rows.append(reported(0, 20, "finished", attempt=2, val_loss=2.0))
    results = Results.open(by_hand(rows).path)
    assert [(a.number, a.state) for a in attempts(results)] == [(1, "interrupted"), (2, "finished")]


# The page


def test_the_page_says_what_matters_in_order(page, searched):
    said = Text(page).text()
    best = searched.best()
    places = [
        said.index(text)
        for text in (
            f"Trial {best['trial']} is the best of {len(searched.ranked())} with a result",
            "How sure is that?",
            "Which hyper-parameters mattered",
            "Parallel coordinates",
            "One parameter at a time",
            "The most important pairs",
            "The best so far, over time",
            "The ten best runs",
            "All runs",
            "What choosing by training loss would have cost",
            "Timeline of the workers",
            "Environment",
        )
    ]
    assert places == sorted(places)
    assert "python -m tuning run small.yaml" in said
    assert "2025-06-15 15:0" in said  # the time of the last row


def test_the_table_begins_with_the_best(page, searched):
    body = page[page.index('id="table"') :]
    numbers = [int(float(n)) for n in re.findall(r'<tr><td class="n" data-by="([^"]+)"', body)]
    ranked = searched.ranked()["trial"].tolist()
    assert numbers[: len(ranked)] == ranked
    assert sorted(numbers) == searched.trials["trial"].tolist()


def test_every_figure_has_its_element_and_ids_are_unique(page):
    ids = [a["id"] for _, a in Text(page).tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert set(specs_of(page)) <= set(ids)
    assert {"parallel", "incumbent", "curves-best", "curves-all", "timeline"} <= set(specs_of(page))
    assert {"importance-ped-anova", "correlation", "slice-clip"} <= set(specs_of(page))


def test_the_page_is_small_and_asks_for_nothing(page):
    assert len(page.encode()) < 6_500_000
    tags = Text(page).tags
    assert not [a for _, a in tags if a.get("src")]
    assert {a["href"].split(":")[0][:1] for _, a in tags if "href" in a} <= {"#", "d"}
    policy = next(a["content"] for t, a in tags if t == "meta" and "http-equiv" in a)
    assert policy.startswith("default-src 'none';")


def test_made_twice_it_is_the_same(page, searched):
    again = render(Results.open(searched.experiment.path), bootstraps=3)
    assert again == page


def test_no_path_of_the_machine_is_in_it(page, searched, tmp_path_factory):
    base = str(tmp_path_factory.getbasetemp())
    assert base not in page
    assert str(searched.experiment.path.parent) not in page


def test_directories_of_the_corpus_are_not_in_it(tmp_path, tiny_data):
    corpus = "/home/ada/all my data/pairs.tsv"
    sweep = SWEEP | {"parameters": SWEEP["parameters"] | {"corpus": {"value": corpus}}}
    experiment = search(tmp_path, tiny_data, trials=4, sweep=sweep)
    manifest = json.loads((experiment.path / "experiment.json").read_text())
    manifest["command"] += ["--set", f"corpus={corpus}", "--storage", "/home/ada/all my/runs"]
    manifest["sweep"]["description"] = "see /home/ada/notes.md"
    (experiment.path / "experiment.json").write_text(json.dumps(manifest))
    page = render(Results.open(experiment.path), bootstraps=0)
    assert "/home/ada" not in page
    assert "all my" not in page
    said = Text(page).text()
    assert "--set corpus=pairs.tsv --storage runs" in said
    assert re.search(r"corpus +pairs\.tsv", said)
    assert '"corpus": { "value": "pairs.tsv" }' in said
    assert '"description": "see notes.md"' in said


def test_text_from_outside_cannot_become_markup(tmp_path, tiny_data):
    evil = "</script><script>alert(1)</script><img src=x onerror=alert(2)> & /home/ada/x.py"
    experiment = search(tmp_path, tiny_data, trials=4, states="failed", reason=evil)
    manifest = json.loads((experiment.path / "experiment.json").read_text())
    manifest["command"].append("</pre><b>")
    manifest["versions"]["torch"] = "<i>2</i>"
    manifest["sweep"]["description"] = evil
    (experiment.path / "experiment.json").write_text(json.dumps(manifest))
    page = render(Results.open(experiment.path), bootstraps=0)
    tags = Text(page).tags
    assert not [a for _, a in tags if "onerror" in a]
    assert sum(tag == "script" for tag, _ in tags) == page.count("<script") == 4
    assert "<i>2</i>" not in page
    assert "/home/ada" not in page
    assert "alert(1)&lt;/script&gt;" in page
    assert "x.py" in page


def test_categories_are_text_in_plots_too(tmp_path, tiny_data):
    """plotly reads a little HTML in its labels."""
    sweep = {
        "method": "random",
        "parameters": {
            "optimizer": {"values": ["adam", "sgd"]},
            "clip": {"min": 0.0, "max": 9.0},
            "corpus": {"value": "tiny"},
        },
    }
    results = Results.open(search(tmp_path, tiny_data, sweep=sweep, trials=8).path)
    page = render(results, bootstraps=0)
    specs = json.dumps(specs_of(page))
    assert "<a" not in specs
    assert "<script" not in specs


# Experiments that are not whole


def test_an_experiment_without_trials(by_hand):
    said = seen(Results.open(by_hand([]).path))
    assert "No trial gave a result." in said
    assert "There are no trials yet." in said
    assert "There are too few results to say." in said


def test_all_failed(tmp_path, tiny_data):
    results = Results.open(search(tmp_path, tiny_data, trials=6, states="failed").path)
    said = seen(results)
    assert "6 trials have ended: 6 failed." in said
    assert "ValueError: on purpose" in said


def test_one_trial(tmp_path, tiny_data):
    said = seen(Results.open(search(tmp_path, tiny_data, trials=1, states="finished").path))
    assert "Trial 0 is the only one with a result" in said
    assert "1 trial has ended: 1 finished." in said


def test_all_diverged_at_once(by_hand):
    rows = []
    for trial in range(3):
        rows += [proposed(trial), reported(trial, 10, "diverged", val_loss=float("nan"))]
    said = seen(Results.open(by_hand(rows).path))
    assert "No trial gave a result." in said


def test_missing_metrics_are_left_out(by_hand):
    """Reports with the objective alone: no training loss, no seconds."""
    said = seen(hand(by_hand, [[3.0, 2.0], [4.0, 3.5], [5.0, 4.0]]))
    assert "Trial 0 is the best of 3 with a result: val_loss 2.0000 at iteration 20." in said


def test_trials_that_are_all_the_same(by_hand):
    rows = []
    for trial in range(6):
        rows += [proposed(trial), reported(trial, 10, "finished", val_loss=2.0)]
    assert "is the best of 6" in seen(Results.open(by_hand(rows).path))


def test_a_running_search_says_so(tmp_path, tiny_data, locked):
    experiment = search(tmp_path, tiny_data, trials=3, states="running", ended=False)
    locked(experiment)
    results = Results.open(experiment.path)
    assert state_of(results) == "running"
    said = seen(results)
    assert "still running" in said
    assert "It is still running, and what follows may change. 0 of 3 trials have ended" in said


def test_a_torn_row_is_said_without_its_directory(tmp_path, tiny_data):
    experiment = search(tmp_path, tiny_data, trials=4)
    with (experiment.journal / "000001.jsonl").open("a") as file:
        file.write('{"kind": "rep')
    said = seen(Results.open(experiment.path))
    assert "What is missing or damaged" in said
    assert "torn" in said
    assert str(tmp_path) not in said


def test_a_configuration_outside_the_space_takes_the_figures_of_parameters_alone(by_hand):
    rows = [proposed(0, clip=-5.0), reported(0, 10, "finished", val_loss=2.0)]
    said = seen(Results.open(by_hand(rows).path))
    assert "No figures of parameters:" in said
    assert "clip is -5.0, which is not in the sweep's space" in said
    assert "val_loss 2.0000" in said


def fresh(results, trial, values):
    """Writes runs of a trial's configuration with fresh seeds; without a value one diverged."""
    about = results.experiment.manifest["data"]
    config = Config.from_mapping({"clip": 1.0 + trial, "corpus": "tiny"})
    config = dataclasses.replace(config, data=DataConfig(**about["settings"]))
    key = configuration_key(config, about["fingerprint"])
    for seed, value in values.items():
        run = {"format": 1, "state": "diverged" if value is None else "finished"}
        file = results.experiment.path / f"confirmation/{key}/trials/{seed:04d}/run.json"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(run | ({} if value is None else {"val_loss": value})))
    return file


def test_fresh_runs_are_compared_where_there_are_any(by_hand):
    results = hand(by_hand, [[3.0, 2.0], [4.0, 3.5]])
    fresh(results, 0, {1: 2.1, 2: 2.3})
    fresh(results, 1, {1: 4.0, 2: 4.0})
    said = seen(results)
    # 2.2 -+ t(1, 0.975) s / sqrt(2) = 12.706 * 0.1
    assert (
        "It was confirmed: trained again with 2 fresh seeds, the configuration of trial 0 has the "
        "best mean val_loss on the whole validation split, 2.2000 (0.9294 to 3.4706, 95 %)."
    ) in said
    assert "The runner-up, trial 1, has 4.0000 (4.0000 to 4.0000): the intervals are apart." in said
    assert "0 2.2000 0.9294 to 3.4706 2 0 1 4.0000 4.0000 to 4.0000 2 0" in said


def test_a_run_without_a_value_takes_its_configuration_to_the_end(by_hand):
    """As `promote --confirm` has it: there is no mean of the others."""
    results = hand(by_hand, [[3.0, 2.0], [4.0, 3.5]])
    fresh(results, 0, {1: 1.0, 2: 1.1, 3: None})
    fresh(results, 1, {1: 4.0, 2: 4.1, 3: 4.2})
    said = seen(results)
    assert "Confirmation prefers another: trained again with 3 fresh seeds, the" in said
    assert "the configuration of trial 1 has the best mean" in said
    assert "Of every other configuration a fresh run diverged before its first report." in said
    assert re.search(r"1 4\.1000 [\d.]+ to [\d.]+ 3 0 0 none - 3 1 ", said)


def test_where_each_diverged_none_is_confirmed(by_hand):
    results = hand(by_hand, [[3.0, 2.0]])
    fresh(results, 0, {1: None, 2: 2.0})
    assert (
        "It is not confirmed: trained again with 2 fresh seeds, each configuration diverged before "
        "its first report at least once."
    ) in seen(results)


def test_a_confirmation_that_was_cut_off(by_hand):
    results = hand(by_hand, [[3.0, 2.0], [4.0, 3.5], [5.0, 4.5]])
    fresh(results, 0, {1: 2.1, 2: 2.3, 3: 9.0})
    fresh(results, 1, {1: 1.0, 2: 1.2, 3: 1.3})
    file = fresh(results, 2, {1: 0.5})
    said = seen(results)
    assert "Confirmation prefers another: trained again with 3 fresh seeds" in said
    assert "the configuration of trial 1 has the best mean" in said
    unfinished = "Fresh runs of trial 2 are not finished and not compared; `python"
    assert unfinished.replace("`", "") in said
    assert "2 unfinished - 1 0" in said
    file.write_text("{")
    said = seen(results)
    assert "run.json: is damaged; remove 0001, and the run is made again." in said
    assert "unfinished" not in said


def test_one_confirmed_configuration_has_nothing_beside_it(by_hand):
    results = hand(by_hand, [[3.0, 2.0], [4.0, 3.5]])
    fresh(results, 0, {1: 2.1, 2: 2.3})
    assert "; no other has as many runs to compare it with." in seen(results)


# Trials whose configuration is lost


def without_configurations(experiment, lost):
    """Compacts the journal, and damages the configurations of some of its trials."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    compact(experiment.journal)
    file = experiment.journal / "compacted.parquet"
    table = pq.read_table(file)
    trials, configs = table.column("trial").to_pylist(), table.column("config")
    left = [
        "{}" if trial in lost else config
        for trial, config in zip(trials, configs.to_pylist(), strict=True)
    ]
    place = table.column_names.index("config")
    pq.write_table(table.set_column(place, "config", pa.array(left, configs.type)), file)
    return Results.open(experiment.path)


def test_lost_configurations_are_left_out_of_the_plots(tmp_path, tiny_data):
    experiment = search(tmp_path, tiny_data, trials=12, states="finished")
    best = int(Results.open(experiment.path).best()["trial"])
    results = without_configurations(experiment, {best, (best + 1) % 12})
    assert "the configuration is lost" in " ".join(results.problems)
    shown = view(results)
    assert len(shown.numbers) == 10
    assert best not in shown.numbers
    assert shown.lost == 2
    assert shown.note.startswith("2 trials with a lost configuration left out.")
    assert shown.parameters() == view(results, ("finished",)).parameters()
    page = render(results, bootstraps=0)
    said = Text(page).text()
    assert f"Trial {best} is the best of 12 with a result" in said
    assert "is at the end of its range" not in said
    brush = specs_of(page)["parallel"]["layout"]["meta"]["brush"]
    assert sorted(brush["trials"]) == sorted(shown.numbers)


def test_all_configurations_are_lost(tmp_path, tiny_data):
    experiment = search(tmp_path, tiny_data, trials=6, states="finished")
    results = without_configurations(experiment, set(range(6)))
    said = seen(results)
    assert "is the best of 6 with a result" in said
    assert "No trial has a value and a configuration that varies." in said
    assert "the configuration is lost: trials 0, 1, 2, 3, 4 and 5." in said


# The command line


def test_the_command_writes_beside_the_experiment(experiment, capsys):
    assert main(["report", str(experiment.path), "--bootstraps", "0"]) == 0
    file = experiment.path / "report.html"
    assert capsys.readouterr().out.startswith(f"wrote {file} (")
    assert file.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_command_writes_where_it_is_told_and_opens_it(
    experiment, tmp_path, monkeypatch, capsys
):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)))
    out = tmp_path / "somewhere" / "r.html"
    arguments = ["report", str(experiment.path), "--bootstraps", "0", "--out", str(out), "--open"]
    assert main(arguments) == 0
    assert opened == [out.resolve().as_uri()]
    assert "no browser could be started" in capsys.readouterr().out


def test_a_place_that_cannot_be_written(experiment, tmp_path, capsys):
    file = tmp_path / "file"
    file.write_text("")
    out = file / "r.html"
    status = run_main(
        main, ["report", str(experiment.path), "--bootstraps", "0", "--out", str(out)]
    )
    assert status == 2
    assert "file/r.html: cannot be written: file exists." in capsys.readouterr().err


@pytest.mark.parametrize("given", ["-1", "many"])
def test_a_bad_number_of_samples(given, capsys):
    with pytest.raises(SystemExit):
        main(["report", "x", f"--bootstraps={given}"])
    assert f"must be a whole number of at least 0, but got {given!r}" in capsys.readouterr().err


def test_write_report_takes_a_path_as_text(searched, tmp_path):
    out = write_report(searched, str(tmp_path / "r.html"), bootstraps=0)
    assert out == tmp_path / "r.html"
    assert out.stat().st_size > 4_000_000

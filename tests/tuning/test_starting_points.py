"""What a search begins with: points to try, warm starts, choices, repetitions."""

import json

import pytest
import yaml

from model.errors import ConfigurationError, ExperimentError
from tests.tuning.ray_support import sweep_mapping, write_corpus
from tuning.choices import load_chosen, with_choices
from tuning.coordinator import Coordinator
from tuning.distributions import Uniform
from tuning.environment import environment
from tuning.experiment import MANIFEST, Experiment
from tuning.journal import Journal
from tuning.repetition import plan_repetition
from tuning.scheduling import FifoScheduler
from tuning.searchers import Outcome, PastTrial, RandomSearcher, TPESearcher, make_searcher
from tuning.spaces.search_space import SearchSpace
from tuning.starting.starting_points import StartingPoints
from tuning.starting.try_first import points_to_try
from tuning.starting.warm_start import past_trials_of
from tuning.sweeps.sweep_file import parse_sweep

SWEEP = {
    "method": "bayes",
    "metric": {"name": "val_loss", "goal": "minimize"},
    "parameters": {
        "learning_rate": {"min": 0.001, "max": 0.01},
        "clip": {"values": [0.0, 25.0, 50.0]},
        "hidden_size": {"value": 16},
    },
}
CONDITIONAL = {
    "method": "random",
    "parameters": {
        "optimizer": {"values": ["adam", "sgd"]},
        "decoder_learning_ratio": {"min": 1.0, "max": 10.0},
    },
    "dialogue_tune": {
        "parameters": {"decoder_learning_ratio": {"when": "optimizer == 'adam'"}},
        "constraints": ["decoder_learning_ratio < 9"],
    },
}


@pytest.fixture
def past(tmp_path, tiny_data):
    """An experiment with trials of known values: (learning_rate, clip, values of its reports)."""

    def make(trials, name="past", mapping=SWEEP, data=tiny_data, end="finished", **objective):
        sweep = parse_sweep(mapping | objective)
        experiment = Experiment.create(
            *(tmp_path / "runs", name, sweep, data), seed=0, trials=len(trials), settings={}
        )
        searcher = RandomSearcher(sweep.space, 0)
        searcher.enqueue([{"learning_rate": rate, "clip": clip} for rate, clip, _ in trials])
        c = Coordinator(
            searcher,
            FifoScheduler(),
            Journal(experiment.journal),
            experiment.objectives,
            trials=len(trials),
        )
        for trial, (_, _, values) in enumerate(trials):
            c.next_assignment()
            for i, value in enumerate(values, start=1):
                state = end if i == len(values) else "running"
                c.report(trial, 4 * i, {sweep.objective.name: value}, state=state)
        return experiment

    return make


class TestFiles:
    @pytest.fixture
    def read(self, tmp_path):
        def read(content, mapping=SWEEP, name="points.yaml"):
            file = tmp_path / name
            file.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
            return points_to_try([file], parse_sweep(mapping).space, tmp_path / "runs")

        return read

    def test_yaml_and_json(self, read):
        expected = [{"learning_rate": 0.002, "clip": 25.0, "hidden_size": 16}]
        assert read("- {learning_rate: 2e-3, clip: 25}") == expected
        text = json.dumps([{"learning_rate": 0.002, "clip": 25, "hidden_size": 16}])
        assert read(text, name="points.json") == expected

    def test_one_that_is_there_twice_is_tried_once(self, read):
        assert (
            len(read("- {learning_rate: 0.002, clip: 25}\n- {clip: 25.0, learning_rate: 2e-3}"))
            == 1
        )

    def test_everything_wrong_is_said_at_once(self, read):
        with pytest.raises(ConfigurationError) as caught:
            read(
                [
                    {"learning_rte": 0.002, "clip": 25.0},
                    {"learning_rate": 0.5, "clip": 26},
                    {"learning_rate": 0.002, "clip": 25.0, "hidden_size": 32},
                    7,
                ]
            )
        said = [line.split("points.yaml: ")[1] for line in str(caught.value).splitlines()]
        assert said == [
            "[0]: learning_rte: unknown key, did you mean 'learning_rate'?",
            "[0]: learning_rate: is missing; every searched field must be named.",
            "[1]: learning_rate: must be 0.001 to 0.01, uniform, but got 0.5.",
            "[1]: clip: must be one of 0.0, 25.0, 50.0, but got 26.0.",
            "[2]: hidden_size: is fixed to 16 by the sweep; leave it out.",
            "[3]: must be a mapping from field to value, but got 7.",
        ]

    @pytest.mark.parametrize("content", ["{clip: 1}", "[]", "7"])
    def test_no_list(self, read, content):
        with pytest.raises(ConfigurationError, match="must be a list of mappings from field to va"):
            read(content)

    def test_what_is_no_file_and_no_experiment(self, tmp_path):
        space = parse_sweep(SWEEP).space
        with pytest.raises(ConfigurationError, match="--try: demo: no such file; name a YAML or J"):
            points_to_try(["demo"], space, tmp_path)
        with pytest.raises(ConfigurationError, match=r"nowhere.yaml: no such file"):
            points_to_try([tmp_path / "nowhere.yaml"], space, tmp_path)

    def test_fields_under_a_condition(self, read):
        points = [{"optimizer": "sgd"}, {"optimizer": "adam", "decoder_learning_ratio": 2.0}]
        assert [point["decoder_learning_ratio"] for point in read(points, CONDITIONAL)] == [
            5.0,
            2.0,
        ]
        with pytest.raises(
            ConfigurationError, match="decoder_learning_ratio: is missing; every se"
        ):
            read([{"optimizer": "adam"}], CONDITIONAL)
        with pytest.raises(
            ConfigurationError, match="breaks the constraint decoder_learning_ratio"
        ):
            read([{"optimizer": "adam", "decoder_learning_ratio": 9.5}], CONDITIONAL)
        with pytest.raises(ConfigurationError, match="must have its default"):
            read([{"optimizer": "sgd", "decoder_learning_ratio": 2.0}], CONDITIONAL)


class TestBestOf:
    TRIALS = ((0.002, 0.0, (3.0, 2.5)), (0.003, 25.0, (2.0, 2.9)), (0.002, 0.0, (2.4,)))

    def test_the_best_first_and_each_once(self, past, tmp_path):
        past(self.TRIALS)
        space = parse_sweep(SWEEP).space

        def tried(reference):
            points = points_to_try([reference], space, tmp_path / "runs")
            return [point["learning_rate"] for point in points]

        assert tried("past:1") == [0.003]
        assert tried("past:9") == [0.003, 0.002]
        assert tried("latest:2") == [0.003, 0.002]

    def test_fields_that_it_did_not_search_had_their_default(self, past, tmp_path):
        past(self.TRIALS)
        mapping = {"method": "random", "parameters": {"decoder_learning_ratio": {"values": [5, 6]}}}
        points = points_to_try(["past:3"], parse_sweep(mapping).space, tmp_path / "runs")
        assert points == [{"decoder_learning_ratio": 5.0}]

    def test_what_is_outside_of_the_space_is_refused(self, past, tmp_path):
        past(self.TRIALS)
        narrow = {"method": "random", "parameters": {"learning_rate": {"min": 0.0025, "max": 0.01}}}
        with pytest.raises(
            ConfigurationError, match="--try: past: trial 2: learning_rate: must be"
        ):
            points_to_try(["past:3"], parse_sweep(narrow).space, tmp_path / "runs")

    @pytest.mark.parametrize(
        ("reference", "text"),
        [("past:0", "past:0: asks for none; N is at least 1"), ("past:2", "no trial with a value")],
    )
    def test_none(self, past, tmp_path, reference, text):
        past(())
        with pytest.raises(ConfigurationError, match=text):
            points_to_try([reference], parse_sweep(SWEEP).space, tmp_path / "runs")

    def test_unknown(self, past, tmp_path):
        past(())
        with pytest.raises(ExperimentError, match="pst: unknown experiment, did you mean 'past'"):
            points_to_try(["pst:2"], parse_sweep(SWEEP).space, tmp_path / "runs")


class TestWarmStart:
    TRIALS = ((0.002, 0.0, (3.0, 2.5)), (0.003, 25.0, (2.0, 2.9)), (0.004, 50.0, ()))

    def start(self, tmp_path, data, mapping=SWEEP):
        return past_trials_of(["past"], parse_sweep(mapping), data, tmp_path / "runs")

    def test_ended_trials_with_their_reports(self, past, tmp_path, tiny_data):
        past(self.TRIALS)
        first, second = self.start(tmp_path, tiny_data)  # the third never ended
        assert first.configuration == {"learning_rate": 0.002, "clip": 0.0, "hidden_size": 16}
        assert first.outcome == Outcome("finished", 2.5, 8)
        assert first.reports == ((4, 3.0), (8, 2.5))
        assert second.reports == ((4, 2.0), (8, 2.0)), "the best so far"

    def test_what_does_not_change_what_is_found_may_differ(self, past, tmp_path, tiny_data):
        past(self.TRIALS)
        parameters = SWEEP["parameters"] | {
            "seed": {"value": 7},
            "threads": {"value": 1},
            "attention": {"value": "dot"},  # the default
        }
        mapping = SWEEP | {"parameters": parameters}
        found = self.start(tmp_path, tiny_data, mapping)
        assert found[0].configuration["attention"] == "dot"
        make_searcher(parse_sweep(mapping), 0).warm_start(found)

    def test_all_differences_are_named(self, past, tmp_path, tiny_data):
        experiment = past(self.TRIALS)
        manifest = json.loads((experiment.path / MANIFEST).read_text())
        manifest["data"]["fingerprint"] = "f" * 64
        manifest["data"]["settings"]["min_count"] = 77
        (experiment.path / MANIFEST).write_text(json.dumps(manifest))
        mapping = {
            "method": "random",
            "metric": {"name": "val_token_accuracy", "goal": "maximize"},
            "parameters": {
                "learning_rate": {"min": 0.001, "max": 0.02},
                "clip": {"values": [0.0, 25.0, 50.0]},
            },
            "dialogue_tune": {"constraints": ["clip < 50"]},
        }
        with pytest.raises(ConfigurationError) as caught:
            self.start(tmp_path, tiny_data, mapping)
        said = str(caught.value)
        assert said.count("--warm-start: past: its ") == 5
        assert f"its data is ffffffffffff, but here {tiny_data.fingerprint[:12]}: min_count" in said
        assert "objective is minimize val_loss, but here maximize val_token_accuracy." in said
        assert "learning_rate is 0.001 to 0.01, uniform, but here 0.001 to 0.02, uniform." in said
        assert "its hidden_size is 16, but here 500." in said
        assert "its dialogue_tune.constraints is None, but here ['clip < 50']." in said

    def test_nothing_to_learn_from(self, past, tmp_path, tiny_data):
        past(())
        with pytest.raises(ConfigurationError, match="past: none of its trials has ended"):
            self.start(tmp_path, tiny_data)

    def test_what_was_found_changes_the_first_proposal(self, past, tmp_path, tiny_data):
        trials = [(0.001 + 0.0002 * i, 25.0, (1.0 + i,)) for i in range(12)]
        past(trials)
        sweep = parse_sweep(SWEEP)
        warm, cold = make_searcher(sweep, 5), make_searcher(sweep, 5)
        StartingPoints(past=self.start(tmp_path, tiny_data)).give_to(warm)
        assert warm.ask() != cold.ask()
        assert warm.asked == 1, "they count as no trials of this search"


class TestChoices:
    def test_a_searcher_takes_the_place_of_the_method(self):
        sweep = with_choices(parse_sweep(SWEEP), "sobol", None)
        assert make_searcher(sweep, 0).name == "sobol"
        assert make_searcher(parse_sweep(sweep.to_mapping()), 0).name == "sobol"

    def test_random_over_what_a_grid_could_not(self):
        grid = {"method": "grid", "parameters": {"clip": {"values": [0.0, 25.0]}}}
        assert make_searcher(with_choices(parse_sweep(grid), "random", None), 0).name == "random"

    def test_a_scheduler_takes_the_place_of_early_termination(self):
        early = SWEEP | {"early_terminate": {"type": "hyperband", "min_iter": 2}}
        sweep = with_choices(parse_sweep(early), None, "median")
        assert (sweep.early_terminate, sweep.scheduler.kind) == (None, "median")
        none = with_choices(parse_sweep(early), None, "none")
        assert none.scheduler.kind == "none"

    def test_the_same_scheduler_keeps_its_options(self):
        early = SWEEP | {"early_terminate": {"type": "hyperband", "min_iter": 2}}
        sweep = with_choices(parse_sweep(early), None, "asha")
        assert sweep.early_terminate.min_iter == 2

    def test_nothing_chosen_changes_nothing(self):
        sweep = parse_sweep(SWEEP)
        assert with_choices(sweep, None, None) is sweep

    @pytest.mark.parametrize(
        ("searcher", "scheduler", "text"),
        [
            ("tpee", None, "--searcher: unknown name 'tpee', did you mean 'tpe'"),
            (None, "medain", "--scheduler: unknown name 'medain', did you mean 'median'"),
            ("grid", None, "sweep --searcher grid: parameters.learning_rate: "),
        ],
    )
    def test_refused(self, searcher, scheduler, text):
        with pytest.raises(ConfigurationError, match=text):
            with_choices(parse_sweep(SWEEP), searcher, scheduler)


class TestRepetition:
    @pytest.fixture
    def corpus(self, tmp_path):
        return write_corpus(tmp_path)

    @pytest.fixture
    def experiment(self, tmp_path, corpus):
        from model.data_source import open_or_prepare

        sweep = parse_sweep(sweep_mapping(corpus))
        data = open_or_prepare(sweep.space.constants)
        return Experiment.create(
            *(tmp_path / "runs", "first", sweep, data), seed=3, trials=4, settings={}
        )

    def test_the_same_again(self, experiment):
        plan = plan_repetition(experiment.path)
        assert plan.said == [
            f"repeating first of {experiment.manifest['created']}; "
            "nothing of its environment is different"
        ]
        assert plan.data.fingerprint == experiment.manifest["data"]["fingerprint"]
        assert plan.sweep.space.searched == experiment.sweep().space.searched
        assert plan.trials == 4

    def test_an_extension_is_repeated_too(self, experiment):
        c = Coordinator(
            RandomSearcher(experiment.sweep().space, 0),
            FifoScheduler(),
            Journal(experiment.journal),
            experiment.objectives,
            trials=4,
        )
        c.extend(3)
        assert plan_repetition(experiment.path).trials == 7

    def test_what_differs_is_said(self, experiment):
        file = experiment.path / MANIFEST
        manifest = json.loads(file.read_text())
        manifest["commit"], manifest["machine"] = "c" * 40, {"cores": 512}
        manifest["versions"]["torch"] = "0.1"
        file.write_text(json.dumps(manifest))
        said = plan_repetition(experiment.path).said
        now = environment()
        assert said[0].endswith("; different now:")
        assert f"  commit: was {'c' * 40}, is {now['commit'] or 'not known'}" in said
        assert f"  torch: was 0.1, is {now['versions']['torch']}" in said
        assert f"  cores: was 512, is {now['machine']['cores']}" in said

    def test_data_are_prepared_again(self, experiment):
        experiment.data_file.unlink()
        plan = plan_repetition(experiment.path)
        assert plan.data.fingerprint == experiment.manifest["data"]["fingerprint"]
        assert "data: prepared again, the same as before; " in plan.said[1]

    def test_other_data_are_said(self, experiment, corpus):
        experiment.data_file.write_bytes(b"damaged")
        corpus.write_text(corpus.read_text() + "\n\nhello .\nwho is there ?\n", encoding="utf-8")
        plan = plan_repetition(experiment.path)
        before = experiment.manifest["data"]["fingerprint"][:12]
        assert f"data: fingerprint was {before}, is {plan.data.fingerprint[:12]}; " in plan.said[1]

    def test_without_data_it_is_refused(self, experiment, corpus):
        experiment.data_file.unlink()
        corpus.unlink()
        with pytest.raises(ExperimentError) as caught:
            plan_repetition(experiment.path)
        said = str(caught.value)
        assert "first: cannot be repeated, for its data cannot be had. " in said
        assert "data.safetensors: cannot be read: no such file" in said
        assert "Nor can they be prepared again: " in said
        assert "tiny.txt: no corpus is there" in said


class TestNotes:
    def test_points_beyond_the_trials_and_a_warm_start_that_teaches_nothing(self):
        space = SearchSpace({"clip": Uniform(0, 1)})
        past = [PastTrial({"clip": 0.5}, Outcome("finished", 1.0, 10))]
        starting = StartingPoints([{"clip": 0.1}, {"clip": 0.2}], past)
        assert list(starting.notes(RandomSearcher(space), 1)) == [
            "1 of the 2 points to try are tried; the others come with extend.",
            "random learns nothing from the 1 trial of the warm start; it only leaves them out.",
        ]
        assert list(starting.notes(TPESearcher(space), 2)) == []
        assert list(StartingPoints().notes(RandomSearcher(space), 1)) == []


def test_a_field_that_is_set_need_not_fit_the_searcher(tmp_path):
    """A grid cannot have a range, but has none where that field is fixed."""
    file = tmp_path / "grid.yaml"
    ranges = {"clip": {"min": 0.0, "max": 9.0}, "optimizer": {"values": ["adam", "sgd"]}}
    file.write_text(yaml.safe_dump({"method": "grid", "parameters": ranges}))
    sweep = load_chosen(file, None, {"clip": 5.0})
    assert sweep.space.constants == {"clip": 5.0}
    assert list(sweep.space.searched) == ["optimizer"]
    assert sweep.source == str(file)
    with pytest.raises(ConfigurationError) as raised:
        load_chosen(file, "sobol", {"dropout": 2})
    assert str(raised.value).startswith(f"{file} --set dropout=2 --searcher sobol: ")
    with pytest.raises(ConfigurationError, match="parameters.clip: a grid cannot enumerate"):
        load_chosen(file, None, {"dropout": 0.2})

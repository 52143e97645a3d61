"""Rankings: four trials worked out by hand, then what real and broken experiments give."""

import json
import math

import pytest

from analysis import Results
from analysis.importance.ranking import ranking
from model.errors import ConfigurationError
from tests.analysis.planted import rows_of_trial, write_journal
from tests.analysis.test_importance import run

#: {iteration: (val_loss, training loss)}. Training loss at the end puts trial 1 first; it had
#: passed its minimum. At the best reports, iteration 4 or 8, trials 1 and 0 are in order, and
#: 3 is before 2.
CURVES = [
    {4: (3.25, 3.5), 8: (3.0, 2.5)},
    {4: (3.2, 3.0), 8: (3.9, 2.0)},
    {4: (3.5, 3.6), 8: (3.4, 2.8)},
    {4: (3.6, 2.7), 8: (3.7, 3.0)},
]


@pytest.fixture
def trials_of(by_hand):
    """Builds an experiment of trials with these curves and states."""

    def build(curves, states=None, metric=None):
        experiment = by_hand([], metric and {"name": metric, "goal": "maximize"})
        experiment.journal.joinpath("000001.jsonl").unlink(missing_ok=True)
        experiment.journal.rmdir()
        rows = [
            row
            for trial, curve in enumerate(curves)
            for row in rows_of_trial(
                trial,
                {"clip": float(trial), "corpus": "tiny"},
                curve,
                (states or ["finished"] * len(curves))[trial],
                metric or "val_loss",
            )
        ]
        return Results.open(write_journal(experiment, rows).path)

    return build


class TestByHand:
    def test_taus(self, trials_of):
        """Six pairs; at the end only (0, 1) is out of order: (5 - 1) / 6.

        At the best reports the losses are 2.5, 3.0, 2.8, 2.7: against 0, 1, 2, 3 the pairs (1, 2),
        (1, 3) and (2, 3) are out of order: (3 - 3) / 6.
        """
        found = ranking(trials_of(CURVES))
        assert found.at_end.tau == pytest.approx(4 / 6)
        assert found.at_best.tau == pytest.approx(0.0)
        assert found.trials == 4

    def test_ranks_and_moves(self, trials_of):
        frame = ranking(trials_of(CURVES)).frame
        assert frame["trial"].tolist() == [0, 1, 2, 3]
        assert frame["val_loss"].tolist() == [3.0, 3.2, 3.4, 3.6]
        assert frame["loss"].tolist() == [2.5, 2.0, 2.8, 3.0]
        assert frame["loss_at_best"].tolist() == [2.5, 3.0, 2.8, 2.7]
        assert frame["rank"].tolist() == [1, 2, 3, 4]
        assert frame["rank_by_loss"].tolist() == [2, 1, 3, 4]
        assert frame["rank_by_loss_at_best"].tolist() == [1, 4, 3, 2]
        assert frame["moved"].tolist() == [1, -1, 0, 0]

    def test_costs(self, trials_of):
        found = ranking(trials_of(CURVES))
        assert (found.best, found.chosen) == (0, 1)
        assert found.cost == pytest.approx(3.2 - 3.0)
        assert found.cost_at_end == pytest.approx(3.9 - 3.0)
        assert found.words[-1] == (
            "Training loss at the end chooses trial 1, val_loss 3.2000 (rank 2), where trial 0 has "
            "3.0000: a cost of 0.2000 nats a token, a perplexity 1.22 times as high. Keeping its "
            "last weights as well costs 0.9000 nats a token, a perplexity 2.46 times as high."
        )

    def test_words_of_tau(self, trials_of):
        found = ranking(trials_of(CURVES), bootstraps=0)
        assert found.words[0] == (
            "Rank by training loss at the last report against rank by val_loss: Kendall's tau "
            "0.67, about 83 of 100 pairs of trials in the same order."
        )
        # sqrt(2 (8 + 5) / (36 * 3)) = 0.4907, times 1.6449
        assert "of 4 trials have a tau between -0.81 and 0.81 nine times in ten" in found.words[2]

    def test_the_trials_that_move_most(self, trials_of):
        """The last by val_loss is the first by training loss: it moves by 3, the others by 1."""
        curves = [{4: (3.0 + i, 2.0 + (i + 1) % 4)} for i in range(4)]
        found = ranking(trials_of(curves))
        assert found.moved_most(2)["trial"].tolist() == [3, 0]
        assert found.moved_most()["moved"].tolist() == [-3, 1, 1, 1]
        assert found.chosen == 3

    def test_the_same_choice_costs_nothing(self, trials_of):
        found = ranking(trials_of([{4: (1.0, 1.0)}, {4: (2.0, 2.0)}, {4: (3.0, 3.0)}]))
        assert (found.chosen, found.cost, found.cost_at_end) == (0, 0.0, 0.0)
        assert found.at_end.tau == 1.0
        assert (
            "chooses trial 0, val_loss 1.0000, which no other trial beats. Its last weights"
            in found.words[-1]
        )
        assert found.words[-1].endswith(" are its best.")
        assert "interval" not in found.words[0]

    def test_ties(self, trials_of):
        """Two level in one ranking: 5 pairs in order, of 6 and of 5 that are not level."""
        values, losses = [1.0, 2.0, 3.0, 4.0], [1.0, 1.0, 3.0, 4.0]
        found = ranking(trials_of([{4: pair} for pair in zip(values, losses, strict=True)]))
        assert found.at_end.tau == pytest.approx(5 / math.sqrt(6 * 5))
        assert found.frame["rank_by_loss"].tolist() == [1, 1, 3, 4]
        assert found.chosen == 0  # of the two, the earlier trial

    def test_a_goal_to_maximise(self, trials_of):
        """Low training loss goes with high accuracy: the same order."""
        curves = [{4: (0.2, 3.0)}, {4: (0.6, 1.0)}, {4: (0.5, 2.0), 8: (0.4, 1.5)}]
        found = ranking(trials_of(curves, metric="val_token_accuracy"))
        assert found.frame["trial"].tolist() == [1, 2, 0]
        assert found.at_end.tau == 1.0
        assert (found.best, found.chosen, found.cost) == (1, 1, 0.0)

    def test_the_cost_of_a_maximised_objective_is_positive(self, trials_of):
        curves = [{4: (0.25, 1.0)}, {4: (0.75, 2.0)}]
        found = ranking(trials_of(curves, metric="val_token_accuracy"))
        assert (found.chosen, found.cost, found.at_end.tau) == (0, 0.5, -1.0)
        assert "a cost of 0.5000. Its last" in found.words[-1]


class TestIntervals:
    def test_hold_tau_and_are_repeatable(self, trials_of):
        curves = [{4: (float(i), float(i + 3 * (i % 2)))} for i in range(12)]
        results = trials_of(curves)
        one, other = ranking(results).at_end, ranking(results).at_end
        assert one == other
        assert -1 < one.low < one.tau < one.high <= 1
        assert ranking(results, seed=1).at_end != one
        assert math.isnan(ranking(results, bootstraps=0).at_end.low)

    def test_perfect_agreement_has_no_width(self, trials_of):
        found = ranking(trials_of([{4: (float(i), float(i))} for i in range(6)])).at_end
        assert (found.tau, found.low, found.high) == pytest.approx((1.0, 1.0, 1.0))


class TestBudgets:
    STATES = ("finished", "finished", "stopped", "diverged")

    def test_finished_trials_by_default(self, trials_of):
        found = ranking(trials_of(CURVES, self.STATES))
        assert found.frame["trial"].tolist() == [0, 1]
        assert found.rule == "finished trials, each by its best val_loss"
        assert found.warnings[:2] == [
            "left out: 1 diverged; what makes training break is not seen here.",
            "left out: 1 stopped; early stopping chose the finished trials by their early values, "
            "which hides what decides early.",
        ]

    def test_all(self, trials_of):
        found = ranking(trials_of(CURVES, self.STATES), rule="all")
        assert found.frame["trial"].tolist() == [0, 1, 2]

    def test_unknown_rule(self, trials_of):
        message = r"trials: unknown rule 'finish', did you mean 'finished'\?"
        with pytest.raises(ConfigurationError, match=message):
            ranking(trials_of(CURVES), rule="finish")


class TestTooLittle:
    def test_no_trials(self, trials_of):
        found = ranking(trials_of([]))
        assert (found.trials, found.best, found.chosen) == (0, None, None)
        assert math.isnan(found.cost)
        assert found.frame.empty
        assert found.words == [
            "0 trials can be ranked: at least two are needed to compare rankings, and 20 would do, "
            "since unrelated rankings of 20 differ from tau 0 by less than 0.27 nine times in ten."
        ]

    def test_one_trial(self, trials_of):
        found = ranking(trials_of(CURVES[:1]))
        assert math.isnan(found.at_end.tau)
        assert found.words[0].startswith("1 trial can be ranked: at least two are needed")

    def test_level_losses(self, trials_of):
        found = ranking(trials_of([{4: (float(i), 2.0)} for i in range(4)]))
        assert math.isnan(found.at_end.tau)
        assert "Kendall's tau is undefined, since all trials are level" in found.words[0]

    def test_a_missing_training_loss(self, trials_of):
        found = ranking(trials_of([*CURVES, {4: (1.0, None)}]))
        assert found.trials == 4
        assert "left out: 1 without a finite training loss." in found.warnings

    def test_no_training_loss_at_all(self, trials_of):
        found = ranking(trials_of([{4: (1.0, None)}, {4: (2.0, None)}]))
        assert found.trials == 0

    def test_a_trial_without_a_value(self, trials_of):
        found = ranking(trials_of([*CURVES, {4: (None, 1.0)}]))
        assert found.trials == 4
        assert "left out: 1 without a figure of val_loss yet." in found.warnings


class TestCommand:
    def test_text(self, trials_of, capsys):
        results = trials_of(CURVES)
        assert run("ranking", results.experiment.path, "--top", 1) == 0
        out = capsys.readouterr().out
        assert out.startswith("hand: 4 trials ranked\nfinished trials, each by its best val_loss")
        assert "Kendall's tau 0.67 (90 % interval " in out
        table = out.split("Those that change places most:\n")[1].splitlines()
        assert table[0].split()[:2] == ["trial", "val_loss"]
        assert table[2].split()[0] == "0"
        assert len(table) == 3

    def test_json(self, trials_of, capsys):
        results = trials_of([*CURVES, {4: (1.0, None)}])
        assert run("ranking", results.experiment.path, "--json", "--trials", "all") == 0
        read = json.loads(capsys.readouterr().out)
        assert read["experiment"] == "hand"
        assert read["at_end"]["tau"] == pytest.approx(4 / 6)
        assert [row["trial"] for row in read["ranked"]] == [0, 1, 2, 3]
        assert read["cost"] == pytest.approx(0.2)

    def test_json_without_trials_has_nulls(self, trials_of, capsys):
        assert run("ranking", trials_of([]).experiment.path, "--json") == 0
        read = json.loads(capsys.readouterr().out)
        assert (read["best"], read["cost"], read["at_end"]["tau"]) == (None, None, None)

    def test_a_real_experiment_twice_the_same(self, finished, capsys):
        texts = []
        for _ in range(2):
            assert run("ranking", finished.path, "--trials", "all") == 0
            texts.append(capsys.readouterr().out)
        assert texts[0] == texts[1]
        assert "small: 3 trials ranked" in texts[0]
        assert "note: left out: 1 diverged, 1 failed" in texts[0]
        assert "note: unequal budgets: these trials trained 4 to 12 iterations" in texts[0]

    def test_unchanged_places_are_said(self, trials_of, capsys):
        results = trials_of([{4: (1.0, 1.0)}, {4: (2.0, 2.0)}])
        run("ranking", results.experiment.path)
        assert "No trial changes its place." in capsys.readouterr().out

    def test_unknown_experiment(self, tmp_path, capsys):
        assert run("ranking", "nowhere", "--storage", tmp_path) == 2
        assert "nowhere" in capsys.readouterr().err

    def test_bad_rule(self, capsys):
        assert run("ranking", "x", "--trials", "some") == 2
        assert "invalid choice: 'some'" in capsys.readouterr().err

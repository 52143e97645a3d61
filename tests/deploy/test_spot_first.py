"""Spot workers with on-demand ones in their place where AWS has none, by Ray's own autoscaler."""

import importlib.util
import re
import subprocess
import sys

import pytest
from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary

from tests.deploy.autoscaling import FirstAutoscaler, asked_by_second_autoscaler, with_resources
from tests.deploy.files import AWS, DEPLOY, load, prepared

HALF_AN_HOUR = 30 * 60


@pytest.fixture
def module(monkeypatch):
    """deploy/spot_first.py, importable as it is on the head."""
    spec = importlib.util.spec_from_file_location("spot_first", DEPLOY / "spot_first.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setitem(sys.modules, "spot_first", module)
    return module


@pytest.fixture
def config(monkeypatch):
    return with_resources(prepared(AWS), monkeypatch)


@pytest.fixture
def autoscaler(module, config, monkeypatch):
    """With the scorer that the head's start command names."""
    command = load(AWS)["head_start_ray_commands"][-1]
    name = re.search(r"RAY_AUTOSCALER_UTILIZATION_SCORER=([\w.]+);", command)[1]
    monkeypatch.setenv("RAY_AUTOSCALER_UTILIZATION_SCORER", name)
    return FirstAutoscaler(config)


def availability(**refused):
    return NodeAvailabilitySummary.from_fields(
        node_availabilities={
            name: {"node_type": name, "is_available": not value, "last_checked_timestamp": 0}
            for name, value in refused.items()
        }
    )


# By hand

MACHINE = {"CPU": 4, "GPU": 1}
TRIAL = {"CPU": 1, "GPU": 0.5}


def test_the_score_by_hand(module):
    nothing_known = availability()
    spot = module.score(MACHINE, [TRIAL], "gpu-spot", node_availability_summary=nothing_known)
    other = module.score(MACHINE, [TRIAL], "gpu-x", node_availability_summary=nothing_known)
    # Both resources are asked for; a quarter of the CPUs and half of the GPU would be used. Ray
    # weighs an amount of n of which the share u is used as n * u ** 3: 4 / 64 and 1 / 8.
    fit = (True, 2, 1 / 16, (1 / 16 + 1 / 8) / 2)
    assert (spot, other) == ((True, fit, True), (True, fit, False))
    assert spot > other


def test_what_was_refused_comes_last_even_where_it_fits_better(module):
    refused = availability(**{"gpu-spot": True, "gpu-on-demand": False})
    spot = module.score(MACHINE, [TRIAL] * 2, "gpu-spot", node_availability_summary=refused)
    large = {"CPU": 64, "GPU": 8}
    other = module.score(large, [TRIAL] * 2, "gpu-on-demand", node_availability_summary=refused)
    assert spot[1] > other[1]
    assert spot < other


def test_a_machine_on_which_no_trial_fits_has_no_score(module):
    known = availability()
    head = {"CPU": 0}
    assert module.score(head, [TRIAL], "head", node_availability_summary=known) is None


# With Ray's scheduler, launcher and AWS provider


def test_ray_fills_in_what_the_machines_have(config):
    resources = {name: node["resources"] for name, node in config["available_node_types"].items()}
    assert resources["gpu-spot"] == resources["gpu-on-demand"]
    assert resources["gpu-spot"]["CPU"] == 4
    assert resources["gpu-spot"]["GPU"] == 1
    assert resources["head"] == {"CPU": 0}


def test_spot_machines_while_there_are_any(autoscaler):
    assert autoscaler.step(waiting=2) == {"gpu-spot": 1}  # two trials share its GPU
    assert autoscaler.step(waiting=2) == {"gpu-spot": 1}
    assert autoscaler.ec2.asked == ["spot", "spot"]


def test_on_demand_after_a_refusal_in_every_zone(autoscaler):
    autoscaler.ec2.refuses = True
    assert autoscaler.step(waiting=2) == {"gpu-spot": 1}
    assert set(autoscaler.ec2.asked) == {"spot"}
    assert len(autoscaler.ec2.asked) >= 2  # zones
    assert autoscaler.running() == []

    assert autoscaler.step(waiting=2) == {"gpu-on-demand": 1}
    assert autoscaler.ec2.asked[-1] == "on demand"
    assert [kind for _, kind in autoscaler.running()] == ["gpu-on-demand"]


def test_spot_again_half_an_hour_after_the_refusal(autoscaler):
    autoscaler.ec2.refuses = True
    autoscaler.step(waiting=2)
    autoscaler.ec2.refuses = False
    autoscaler.now += HALF_AN_HOUR - 10
    assert autoscaler.step(waiting=2) == {"gpu-on-demand": 1}
    autoscaler.now += 20
    assert autoscaler.step(waiting=2) == {"gpu-spot": 1}


def test_a_worker_that_runs_is_not_exchanged_for_a_cheaper_one(autoscaler):
    autoscaler.ec2.refuses = True
    autoscaler.step(waiting=2)
    autoscaler.step(waiting=2)
    autoscaler.ec2.refuses = False
    autoscaler.now += 2 * HALF_AN_HOUR
    assert autoscaler.step(waiting=0) == {}
    assert autoscaler.step(waiting=2, free=True) == {}  # it takes the next trials too


def test_no_more_workers_than_allowed_over_both_types(autoscaler):
    autoscaler.step(waiting=2)
    autoscaler.ec2.refuses = True
    for _ in range(6):
        autoscaler.step(waiting=40)
    kinds = [kind for _, kind in autoscaler.running()]
    assert len(kinds) == autoscaler.config["max_workers"]
    assert set(kinds) == {"gpu-spot", "gpu-on-demand"}


# Why it is needed


def test_rays_own_score_asks_for_the_same_type_again(config, monkeypatch):
    monkeypatch.delenv("RAY_AUTOSCALER_UTILIZATION_SCORER", raising=False)
    autoscaler = FirstAutoscaler(config)
    autoscaler.ec2.refuses = True
    assert [autoscaler.step(waiting=2) for _ in range(4)] == [{"gpu-spot": 1}] * 4


def test_rays_second_autoscaler_asks_for_the_same_type_again(config):
    """Even with a priority. Once this fails, cluster.yaml can do without spot_first.py."""
    config["available_node_types"]["gpu-spot"]["priority"] = 1
    assert asked_by_second_autoscaler(config, rounds=6) == ["gpu-spot"] * 6


def test_the_head_starts_the_first_autoscaler_with_the_scorer(config):
    assert config["file_mounts"]["~/dialogue-tune/deploy/spot_first.py"] == "deploy/spot_first.py"
    copy = config["head_setup_commands"][-1]
    assert copy == ("cp ~/dialogue-tune/deploy/spot_first.py ~/venv/lib/python3.11/site-packages/")
    settings = config["head_start_ray_commands"][-1].split("ray start")[0]
    # "ray up" puts RAY_enable_autoscaler_v2=1 before the command: the later word counts.
    shown = f"export RAY_enable_autoscaler_v2=1; {settings} echo $RAY_enable_autoscaler_v2"
    answer = subprocess.run(["bash", "-c", shown], capture_output=True, text=True, check=True)
    assert answer.stdout == "0\n"

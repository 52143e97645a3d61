"""What Ray says of a failed attempt, in our words."""

from types import SimpleNamespace

import pytest

from tuning.adapters import SearchAdapter, reason_in
from tuning.journal.row import (
    CONNECTION_LOST,
    NODE_LOST,
    PREEMPTED,
    STORAGE_LOST,
    is_blameless,
)

DIED = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n"
SHORT = "out of memory: Ray ended the worker because its node ran low on memory"
FEWER = "let fewer trials run there at once (--cpus-per-trial, --concurrency)."


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DIED + "The actor died because its node has died. Node Id: 3f, Ip: 10.0.0.2", NODE_LOST),
        (
            DIED + "Worker unexpectedly exits with a connection error code 2. End of file.",
            "the worker process died (killed, out of memory, or crashed)",
        ),
        (
            "ray.exceptions.RayTaskError(PreemptedError): ray::Bundle.train()\n"
            "model.errors.PreemptedError: the node is taken back; the trial goes on elsewhere.",
            PREEMPTED,
        ),
        ("", "the worker process died (killed, out of memory, or crashed)"),
        (
            "ray.exceptions.ActorUnavailableError: The actor 3f is unavailable: RpcError 14.",
            CONNECTION_LOST,
        ),
        (
            "The actor 3f is unavailable: The actor is temporarily unavailable: RpcError: RPC "
            "error: Socket closed rpc_code: 14. The task may or may not have been executed.",
            CONNECTION_LOST,
        ),
        (
            "ray.exceptions.OutOfMemoryError: 1 worker(s) were killed due to the node running low "
            "on memory. Memory on the node (IP: 10.0.0.2, ID: c5) was 23.01GB used / 23.54GB limit "
            "(0.977)\nOOM kill reason: Memory usage\nRefer to the documentation on how to",
            f"{SHORT} (23.01GB of 23.54GB used); {FEWER}",
        ),
        (
            DIED + "Worker exit type: NODE_OUT_OF_MEMORY Worker exit detail: Task was killed due "
            "to the node running low on memory.",
            f"{SHORT}; {FEWER}",
        ),
        (
            "ray.exceptions.RayTaskError(GpuMemoryError): ray::Bundle.train()\n"
            "model.errors.GpuMemoryError: out of GPU memory: needs more than 23.6 GiB.\n",
            "out of GPU memory: needs more than 23.6 GiB.",
        ),
        (
            'Traceback:\n  File "x.py", line 3\nValueError: the loss is text\n\n',
            "ValueError: the loss is text",
        ),
    ],
)
def test_reasons(text, reason):
    assert reason_in(text) == reason


def test_losing_its_node_is_no_fault_of_an_attempt():
    for reason in (NODE_LOST, PREEMPTED, CONNECTION_LOST, f"{STORAGE_LOST}: node x: away"):
        assert is_blameless(reason)
    for reason in (None, "", "the worker process died (killed, out of memory, or crashed)"):
        assert not is_blameless(reason)


@pytest.mark.parametrize(
    ("death", "cause", "reason"),
    [
        ("AUTOSCALER_DRAIN_PREEMPTED", "", PREEMPTED),
        (
            "UNEXPECTED_TERMINATION",
            "Worker unexpectedly exits with a connection error code 2.",
            "the worker process died (killed, out of memory, or crashed)",
        ),
    ],
)
def test_ray_names_no_cause_of_a_worker_that_ended_with_a_drained_node(death, cause, reason):
    from ray.core.generated.common_pb2 import ActorDiedErrorContext, NodeDeathInfo
    from ray.exceptions import ActorDiedError

    context = ActorDiedErrorContext(actor_id=b"3" * 16, error_message=cause)
    context.node_death_info.reason = NodeDeathInfo.Reason.Value(death)
    error = ActorDiedError(context)
    assert error.preempted == (reason == PREEMPTED)
    # As Ray Tune writes it.
    assert reason_in(f"Failure # 1 (occurred at 2026-11-22_00-03-54)\n{error}\n") == reason


AWAY = "node 10.0.0.3: runs/x: cannot be written: the network file system is away."
FULL = "node 10.0.0.3: runs/x: cannot be written: no space is left on the device; free some space."


class TestStorageOfOneNode:
    """A worker could not write; whether the search ends depends on who else can."""

    @pytest.fixture
    def failed(self):
        return []

    @pytest.fixture
    def adapter(self, failed):
        coordinator = SimpleNamespace(
            failed=lambda trial, reason, *, retry: failed.append((trial, reason, retry))
        )
        return SearchAdapter(coordinator, lambda: 2, storage_works=lambda: True)

    def fail(self, adapter, reason, *, beside=1):
        adapter.running = {"a": 0} | {f"b{i}": i + 1 for i in range(beside)}
        adapter.reasons["a"] = f"model.errors.StorageError: {reason}"
        adapter.on_trial_complete("a", error=True)

    def test_the_driver_can_write_so_the_trial_goes_on_elsewhere(self, adapter, failed):
        self.fail(adapter, AWAY)
        assert adapter.error is None
        assert failed == [(0, f"{STORAGE_LOST}: {AWAY}", True)]
        assert is_blameless(failed[0][1])

    def test_the_driver_cannot_either(self, adapter, failed):
        adapter.storage_works = lambda: False
        self.fail(adapter, AWAY)
        assert str(adapter.error) == AWAY
        assert failed == []

    def test_a_full_place_is_full_for_all(self, adapter, failed):
        self.fail(adapter, FULL)
        assert str(adapter.error) == FULL
        assert failed == []

    def test_all_workers_lose_it_and_none_reports(self, adapter, failed):
        for _ in range(4):
            self.fail(adapter, AWAY)
        assert adapter.error is None
        self.fail(adapter, AWAY)
        assert str(adapter.error) == AWAY
        assert len(failed) == 4

    def test_many_places_may_be_on_one_node(self, adapter):
        for _ in range(16):
            self.fail(adapter, AWAY, beside=7)
        assert adapter.error is None

"""What Ray says of a failed attempt, in our words."""

import pytest

from tuning.adapters import reason_in
from tuning.journal.row import NODE_LOST, PREEMPTED

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
            "the connection to the worker was lost",
        ),
        (
            "The actor 3f is unavailable: The actor is temporarily unavailable: RpcError: RPC "
            "error: Socket closed rpc_code: 14. The task may or may not have been executed.",
            "the connection to the worker was lost",
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

"""What Ray says of a failed attempt, in our words."""

import pytest

from tuning.adapters import reason_in
from tuning.journal.row import NODE_LOST

DIED = "ray.exceptions.ActorDiedError: The actor died unexpectedly before finishing this task.\n"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (DIED + "The actor died because its node has died. Node Id: 3f, Ip: 10.0.0.2", NODE_LOST),
        (
            DIED + "Worker unexpectedly exits with a connection error code 2. End of file.",
            "the worker process died (killed, out of memory, or crashed)",
        ),
        ("", "the worker process died (killed, out of memory, or crashed)"),
        (
            "ray.exceptions.ActorUnavailableError: The actor 3f is unavailable: RpcError 14.",
            "the connection to the worker was lost",
        ),
        (
            'Traceback:\n  File "x.py", line 3\nValueError: the loss is text\n\n',
            "ValueError: the loss is text",
        ),
    ],
)
def test_reasons(text, reason):
    assert reason_in(text) == reason

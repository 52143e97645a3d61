"""Keeping torch's compiler out of processes that compile nothing.

Some methods of torch's optimizers are shielded from ``torch.compile`` by wrappers that import the
whole compiler when they are first called: over a second of every process that trains. Where
another version of torch is made otherwise, nothing is changed here and the compiler is imported
as before.
"""

from __future__ import annotations

import inspect

import torch

_SHIELDED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")


def leave_dynamo_out() -> None:
    """Lets the optimizers' shielded methods be called as they are.

    Of use before the first optimizer is made, and not where a compiled function calls them. The
    shield (``torch._compile``) keeps what it calls in this attribute of the method within.
    """
    for name in _SHIELDED:
        method = getattr(torch.optim.Optimizer, name)
        plain = inspect.unwrap(method)
        if plain is not method:
            plain.__dict__.setdefault("__dynamo_disable", plain)


def plain_step(optimizer: torch.optim.Optimizer) -> None:
    """Steps an optimizer without the wrappers of its step, and the hooks that they would call.

    One of them turns gradients off: call it under ``torch.no_grad()``.
    """
    inspect.unwrap(type(optimizer).step)(optimizer)

"""Processes that train do not load torch's compiler, and step as torch's optimizers do."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from model.dynamo import plain_step

ROOT = Path(__file__).resolve().parents[2]

TRAIN = """
import sys
from model.config import Config, DataConfig
from model.preparation import prepare_corpus
from model.training import Trainer
from tests.conftest import tiny_corpus

data = prepare_corpus(tiny_corpus(), DataConfig(corpus="tiny", min_count=1))
for optimizer in ("adam", "adamw", "sgd"):
    config = Config.from_mapping(
        {"hidden_size": 8, "iterations": 4, "report_every": 2, "optimizer": optimizer}
    )
    trainer = Trainer(data, config)
    trainer.train_interval()
    trainer.optimizers.load_state_dict(trainer.state()["optimizers"])
    trainer.train_interval()
print([name for name in ("torch._dynamo", "torch._inductor", "sympy") if name in sys.modules])
"""


def test_training_does_not_load_the_compiler():
    done = subprocess.run(
        [sys.executable, "-c", TRAIN], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


@pytest.mark.parametrize("rule", [torch.optim.Adam, torch.optim.AdamW, torch.optim.SGD])
def test_a_plain_step_is_the_optimizers_step(rule):
    weights = [torch.linspace(-1, 1, 5).requires_grad_() for _ in range(2)]
    optimizers = [rule([weight], lr=0.1, fused=True) for weight in weights]
    for _ in range(3):
        for weight in weights:
            weight.grad = weight.detach() ** 2
        optimizers[0].step()
        with torch.no_grad():
            plain_step(optimizers[1])
    assert torch.equal(*weights)
    state = [optimizer.state_dict()["state"] for optimizer in optimizers]
    torch.testing.assert_close(*state, rtol=0, atol=0)

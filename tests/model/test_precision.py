import sys

import pytest
import torch

from model.evaluation import evaluate
from model.precision import compute_dtype, keep_freed_memory
from model.training import Trainer

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("precision", "knows_bf16", "expected"),
    [
        ("auto", True, torch.bfloat16),
        ("auto", False, torch.float32),
        ("fp32", True, torch.float32),
        ("tf32", True, torch.float32),
        ("bf16", False, torch.bfloat16),
    ],
)
def test_dtype_on_the_cpu(monkeypatch, precision, knows_bf16, expected):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: knows_bf16)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert compute_dtype(precision, CPU) == expected


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), "float32"), ((9, 0), "bfloat16")])
def test_dtype_on_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert compute_dtype("auto", torch.device("cuda")) == getattr(torch, expected)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc is Linux's")
def test_freed_memory_is_kept():
    """The C library takes every option; a second call changes nothing."""
    assert keep_freed_memory() == keep_freed_memory()


@pytest.mark.parametrize("ratio", [1.0, 0.0, 0.5])
def test_bf16_trains_as_fp32_does(tiny_data, tiny_config, ratio):
    reports = {}
    for precision in ("fp32", "bf16"):
        config = tiny_config(
            precision=precision, iterations=60, report_every=30, teacher_forcing_ratio=ratio
        )
        reports[precision] = list(Trainer(tiny_data, config).run())[-1].metrics
    for name in ("loss", "val_loss", "best_val_loss"):
        assert reports["bf16"][name] == pytest.approx(reports["fp32"][name], rel=0.02)
    assert reports["bf16"]["loss"] != reports["fp32"]["loss"], "computed in another precision"


def test_weights_and_optimizer_stay_in_fp32(tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config(precision="bf16"))
    trainer.train_interval()
    assert {p.dtype for p in trainer.model.parameters()} == {torch.float32}
    assert {p.grad.dtype for p in trainer.model.parameters()} == {torch.float32}
    states = [o.state.values() for o in trainer.optimizers.optimizers.values()]
    assert {t.dtype for side in states for s in side for t in s.values()} == {torch.float32}


def test_held_out_losses_are_computed_in_fp32(tiny_data, tiny_config):
    trainer = Trainer(tiny_data, tiny_config(precision="bf16"))
    reported = trainer.train_interval().metrics["val_loss"]
    plain = Trainer(tiny_data, tiny_config(precision="fp32"))
    plain.model.load_state_dict(trainer.model.state_dict())
    assert evaluate(plain.model, plain.val_batches, plain.val_indices).loss == reported


def test_a_resumed_bf16_run_is_equal_to_the_last_bit(tmp_path, tiny_data, tiny_config):
    config = tiny_config(precision="bf16", dropout=0.2, teacher_forcing_ratio=0.5)
    whole = Trainer(tiny_data, config)
    whole.train_interval()
    whole.save(tmp_path / "c.pt")
    expected = whole.train_interval().metrics
    resumed = Trainer(tiny_data, config)
    resumed.restore(tmp_path / "c.pt")
    found = resumed.train_interval().metrics
    for name in ("loss", "val_loss", "grad_norm"):
        assert found[name] == expected[name]
    for p, q in zip(whole.model.parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q)

"""Devices: TF32 left out for a while, and generators by device."""

from __future__ import annotations

import torch

from clipcond.runtime.devices import device_rng, exact_convolutions, set_device_rng


def test_convolutions_in_float32_on_cuda_are_without_tf32_for_a_while() -> None:
    flags = torch.backends.cudnn.conv
    before = flags.fp32_precision, torch.backends.cudnn.allow_tf32
    with exact_convolutions(torch.device("cuda"), torch.float32):
        assert flags.fp32_precision == "ieee"
    assert (flags.fp32_precision, torch.backends.cudnn.allow_tf32) == before
    for device, dtype in (("cuda", torch.float16), ("cpu", torch.float32)):
        with exact_convolutions(torch.device(device), dtype):
            assert flags.fp32_precision == before[0]


def test_the_cpu_s_own_generator_is_no_device_s() -> None:
    state, cpu = torch.get_rng_state(), torch.device("cpu")
    assert len(device_rng(cpu)) == 0
    set_device_rng(cpu, torch.zeros(16, dtype=torch.uint8))
    assert torch.equal(torch.get_rng_state(), state)

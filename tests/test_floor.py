"""benchmarks/timing/floor.py: its counts against counts by hand."""

import contextlib
import functools
import sys

import floor
import pytest
import torch

from scribbleseg.methods import METHODS
from scribbleseg.networks import build_network

SIZE = 32
counted = functools.cache(floor.count)


def convolutions() -> list[tuple[int, int]]:
    """(operations, values written) of each convolution of the U-Net for one slice, by its definition."""
    found, network = [], build_network("unet", 1, 4).eval()

    def note(module, given, output):
        taps = module.in_channels * module.kernel_size[0] * module.kernel_size[1]
        found.append((2 * taps * output.numel(), output.numel()))

    for module in network.modules():
        if isinstance(module, torch.nn.Conv2d):
            module.register_forward_hook(note)
    with torch.no_grad():
        network(torch.zeros(1, 1, SIZE, SIZE))
    return found


def test_a_plain_step_is_three_forward_passes():
    """Forward, gradient of the input, gradient of the weights; the image needs no gradient."""
    layers = convolutions()
    line = counted("pce", SIZE)
    assert line["gflop"] * 1e9 == 12 * (3 * sum(operations for operations, _ in layers) - layers[0][0])
    assert line["convolved_values"] == 12 * sum(values for _, values in layers)


def test_effdnet_is_a_student_on_24_slices_and_a_teacher_on_12():
    layers = convolutions()
    line, once = counted("effdnet", SIZE), sum(operations for operations, _ in layers)
    networks = 24 * (3 * once - layers[0][0]) + 12 * once
    assert networks <= line["gflop"] * 1e9 < 1.05 * networks, "FBSL's products are the rest"
    assert line["convolved_values"] == 36 * sum(values for _, values in layers)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_counted(name):
    line = counted(name, SIZE)
    assert 0 < line["fused_gb"] < line["eager_gb"]


@pytest.mark.slow  # ScribFormer is large
def test_attention_is_counted(monkeypatch):
    """Forward, and two products backward for each of the two forward."""
    whole, tokens, dim, depth = counted("scribformer", SIZE)["gflop"], (SIZE // 16) ** 2 + 1, 384, 12
    monkeypatch.setattr(floor, "sdpa_kernel", lambda backend: contextlib.nullcontext())
    assert whole * 1e9 - floor.count("scribformer", SIZE)["gflop"] * 1e9 == 8 * depth * 3 * 2 * (2 * tokens**2 * dim)


def test_bytes_of_one_convolution():
    traffic = floor.Traffic()
    image, weight = torch.zeros(2, 3, 8, 8), torch.zeros(5, 3, 3, 3)
    with traffic:
        torch.nn.functional.conv2d(image, weight, padding=1).relu()
    bytes_, output = 4 * (image.numel() + weight.numel()), 4 * 2 * 5 * 8 * 8
    assert (traffic.fused, traffic.convolved) == (bytes_ + output, 2 * 5 * 8 * 8)
    assert (traffic.eager, traffic.operations) == (bytes_ + output + 2 * output, 2)


def test_the_table_divides_by_the_rates(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(floor, "METHODS", {"pce": METHODS["pce"]})
    monkeypatch.setattr(
        floor, "count", lambda name, size: dict(zip(floor.COLUMNS, (name, 12, 500.0, 5e6, 3.0, 10.0, 700)))
    )
    monkeypatch.setattr(sys, "argv", ["floor.py", "--tflops", "1000", "--tbs", "2", "--results", str(tmp_path)])
    floor.main()
    assert (
        capsys.readouterr().out.splitlines()[-1]
        == "| pce | 12 | 500 | 5 | 3.00 | 10.00 | 700 | 0.50 | 1.50 | 5.00 | 1.50 | 667 |"
    )
    assert (tmp_path / "floor-256.csv").read_text(encoding="utf-8").splitlines()[
        1
    ] == "pce,12,500.0,5000000.0,3.0,10.0,700"


def test_rates_are_needed(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["floor.py"])
    with pytest.raises(SystemExit):
        floor.main()
    assert "--tflops, --tbs" in capsys.readouterr().err

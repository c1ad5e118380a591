"""The name that stands beside measured times."""

import pytest
import torch

from scribbleseg.core import device
from scribbleseg.core.errors import InputError

CORE = "processor\t: {}\ncpu family\t: 26\nmodel\t\t: 2\nmodel name\t: AMD EPYC\n"
TWO_CORES = f"{CORE.format(0)}\n{CORE.format(1)}"


@pytest.mark.parametrize(
    "text, said", [(TWO_CORES, " family 26 model 2"), ("processor\t: 0\nCPU architecture: 8\n", ""), (None, "")]
)
def test_a_cpu_is_told_from_others_of_its_name(tmp_path, text, said):
    path = tmp_path / "cpuinfo"
    if text is not None:
        path.write_text(text)
    assert device._cpu_model(path) == said


def test_the_name_says_cpu_and_threads(monkeypatch):
    monkeypatch.setattr(device, "_cpu", lambda: {"cpu_name": "Some CPU"})
    monkeypatch.setattr(device, "_cpu_model", lambda: " family 1 model 2")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert device.device_name(torch.device("cpu")) == "Some CPU family 1 model 2, 2 threads"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert device.device_name(torch.device("cpu")) == "Some CPU family 1 model 2, 1 thread"


def test_the_gpu_of_a_mac_is_taken_by_name_only(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(InputError, match="sees no GPU of a Mac"):
        device.pick_device("mps")
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(device, "_cpu", lambda: {"amx_bf16": True})
    assert device.pick_device("mps").type == "mps" and device.pick_device("auto").type == "cpu"
    assert device.pick_precision("auto", torch.device("mps")) == torch.float32
    assert device.pick_precision("auto", torch.device("cpu")) == torch.bfloat16

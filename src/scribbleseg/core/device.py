"""Choose the device and its number format; the device's name and memory for the records."""

import ctypes
import re
import resource
import sys
from pathlib import Path

import psutil
import torch

from .errors import InputError, counted

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # malloc.h


def pick_device(name: str) -> torch.device:
    """auto → CUDA if there is a GPU, else the CPU; `mps`, the GPU of a Mac, only by name.

    Raises InputError for a device that this machine does not have.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"no device '{name}'. Use auto, cpu, cuda, cuda:N or mps.") from error
    if device.type not in ("cpu", "cuda", "mps"):
        raise InputError(f"device '{name}' is not supported. Use auto, cpu, cuda, cuda:N or mps.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(
            f"device '{name}': PyTorch {torch.__version__} sees {torch.cuda.device_count()} CUDA devices. "
            "Use --device cpu, or install a CUDA build."
        )
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise InputError(f"device '{name}': PyTorch {torch.__version__} sees no GPU of a Mac here. Use --device cpu.")
    return device


def pick_precision(name: str, device: torch.device) -> torch.dtype:
    """auto → bfloat16 if the device computes in it, else float32."""
    if name != "auto":
        return {"float32": torch.float32, "bfloat16": torch.bfloat16}[name]
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float32
    able = _cpu() if device.type == "cpu" else {}
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def prepare_cpu() -> None:
    """Treat denormals as zero. Keep freed memory, because to return and request pages in every step is slower."""
    torch.set_flush_denormal(True)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "mallopt"):  # glibc
        libc.mallopt(M_MMAP_MAX, 0)
        libc.mallopt(M_TRIM_THRESHOLD, -1)


def free_memory(device: torch.device) -> int:
    """Free bytes of the GPU's memory or, for a CPU, of the machine's."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return psutil.virtual_memory().available


def device_name(device: torch.device) -> str:
    """The device's name for tables of times. On Linux with family and model, because different CPUs share a name."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    count = torch.get_num_threads()
    return f"{_cpu().get('cpu_name', 'CPU')}{_cpu_model()}, {counted(count, 'thread')}"


def _cpu_model(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """For example ` family 26 model 2`. Empty if the file is missing or has no such lines (not Linux, not x86)."""
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    family, model = (re.search(rf"^{key}\s*: (\d+)$", text, re.MULTILINE) for key in ("cpu family", "model"))
    return f" family {family[1]} model {model[1]}" if family and model else ""


def peak_memory_mib(device: torch.device) -> float:
    """Peak memory so far. On CUDA of allocated tensors; on a CPU of the whole process, Python and data set included."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)


def _cpu() -> dict:
    return getattr(torch.cpu, "get_capabilities", dict)()  # newer than torch 2.8

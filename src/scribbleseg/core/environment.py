"""Versions, commit and machine, which are stored with every result."""

import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from .. import __version__
from . import distributed
from .device import device_name


def environment(device: torch.device, dtype: torch.dtype) -> dict:
    """Versions, commit and machine of this process. `commit` is None if the package is not in a git checkout.

    `waiting`: OMP_WAIT_POLICY, how threads wait for each other; None if nobody set it.
    """
    return {
        "scribbleseg": __version__,
        "commit": _commit() or os.environ.get("SCRIBBLESEG_COMMIT") or None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "device": device_name(device),
        "precision": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "waiting": os.environ.get("OMP_WAIT_POLICY"),
        "processes": distributed.processes(),
        "platform": f"{platform.system()} {platform.machine()}",
    }


def devices(stored: Mapping) -> str:
    """The devices that trained a run, in their order: `NVIDIA H200, then AMD EPYC, 1 thread`.

    stored: the run's environment.json, whose `continued` says what changed when it was carried on.
    """
    parts = [stored, *stored.get("continued", [])]
    return ", then ".join(dict.fromkeys(part["device"] for part in parts if "device" in part))


def _commit() -> str | None:
    """`git describe` of the repository that tracks this file. None if no repository tracks it."""
    if shutil.which("git") is None:
        return None
    file = Path(__file__)
    tracked, described = (
        subprocess.run(["git", "-C", str(file.parent), *words], capture_output=True, text=True)
        for words in (("ls-files", "--error-unmatch", file.name), ("describe", "--always", "--dirty"))
    )
    return described.stdout.strip() if tracked.returncode == 0 else None

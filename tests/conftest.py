import os
from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)  # many times faster on a small machine
torch.set_flush_denormal(True)  # as the training loop does


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout (or SCRIBBLESEG_DATA); the test is skipped where there is none."""
    folder = Path(os.environ.get("SCRIBBLESEG_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real ACDC and MSCMR files beside the checkout (or where SCRIBBLESEG_DATA points); the test is skipped without them."""
    folder = Path(os.environ.get("SCRIBBLESEG_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder

"""What can be known of a CUDA step without a GPU: where every tensor lies, that nothing crosses to the host, what
autocast makes of it.

Not the optimisers of CUDA, nor how a batch gets there from the host.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from test_methods import every_method

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def wrong(tmp_path_factory) -> dict[str, str]:
    """What pretended_cuda.py found, in a process of its own."""
    if torch.backends.cuda.is_built():
        pytest.skip("needs a CPU build of PyTorch; on a GPU tests/test_step.py tests the same")
    if (compiler := shutil.which("g++")) is None:
        pytest.skip("needs g++")
    library, where = tmp_path_factory.mktemp("pretended") / "cuda.so", Path(torch.__file__).parent
    links = [f"-L{where}/lib", f"-Wl,-rpath,{where}/lib", "-lc10", "-ltorch_cpu"]
    subprocess.run(
        [
            compiler,
            "-std=c++20",
            "-shared",
            "-fPIC",
            f"-I{where}/include",
            HERE / "pretended_cuda.cpp",
            "-o",
            library,
            *links,
        ],
        check=True,
    )
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    return json.loads(
        subprocess.run(
            [sys.executable, HERE / "pretended_cuda.py", library],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        ).stdout
    )


@every_method
@pytest.mark.parametrize("format", ["float32", "bfloat16"])
def test_a_step_stays_on_its_device(wrong, name, format):
    assert wrong[f"{name} {format}"] == ""

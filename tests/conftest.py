"""Fixtures of all tests. PyTorch is imported within them: xdist's first process imports this file and runs no test."""

import multiprocessing
import multiprocessing.forkserver
import os
import signal
from pathlib import Path

import pytest

# a script's background job ignores Ctrl-C, and one under nohup ignores SIGHUP; all that tests start would with it
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout (or SCRIBBLESEG_DATA); the test is skipped where there is none."""
    folder = Path(os.environ.get("SCRIBBLESEG_DATA", Path(__file__).parents[1].parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    import torch

    torch.set_num_threads(1)  # many times faster on a small machine
    torch.set_flush_denormal(True)  # as the training loop does


@pytest.fixture(autouse=True, scope="session")
def no_fsync():
    """It counts only when the power fails, and on a slow disk it takes a tenth of the time of all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: None)
        yield


@pytest.fixture(autouse=True)
def seeded():
    import torch

    torch.manual_seed(0)


@pytest.fixture
def no_step_is_timed(monkeypatch):
    """`check` would take two steps each time."""
    monkeypatch.setattr("scribbleseg.training.outlook.time_step", lambda *_: 1.0)


@pytest.fixture(scope="session")
def trainers() -> multiprocessing.context.ForkServerContext:
    """`trainers.Process(target=main, args=(words,))`: with PyTorch imported once, not for every process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")  # as many as here: sums of two threads are rounded otherwise
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["scribbleseg.cli", "scribbleseg.training.train", "torch._dynamo"])
        multiprocessing.forkserver.ensure_running()
    return context


@pytest.fixture
def in_time():
    """A test that waits for a lock for ever fails after five minutes."""

    def late(*_: object) -> None:
        pytest.fail("not done after five minutes")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(300)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture(scope="session")
def small(tmp_path_factory) -> Path:
    """small_dataset with the default settings, to be read only."""
    from small import small_dataset

    return small_dataset(tmp_path_factory.mktemp("small") / "data")


@pytest.fixture(scope="session")
def trained(small, tmp_path_factory) -> Path:
    """A run of pCE on it, two iterations at 32 pixels, to be read only."""
    from scribbleseg.config import Train
    from scribbleseg.training.train import train

    run = tmp_path_factory.mktemp("trained") / "run"
    return train(Train(small, run, method="pce", iterations=2, size=32, batch=4, precision="float32", device="cpu"))


@pytest.fixture
def quick_budget(tmp_path, monkeypatch):
    """quick_budget(iterations): `--budget quick` is that short, at 32 pixels, in this process and in those that a bench
    starts.
    """

    from scribbleseg.training import recipe

    def set_budget(iterations: int) -> None:
        budget = {"size": 32, "iterations": iterations}
        monkeypatch.setitem(recipe.BUDGETS, "quick", budget)
        folder = tmp_path / "path"  # Python runs sitecustomize.py before anything else
        folder.mkdir()
        hook = (
            "import sys\n"
            "started = sys.orig_argv\n"
            "ray = any('default_worker' in word for word in started)\n"
            "if ray or 'bench' in started or 'scribbleseg.bench' in started:\n"
            "    from scribbleseg.training.recipe import BUDGETS\n"
            f"    BUDGETS['quick'] = {budget}\n"
        )
        (folder / "sitecustomize.py").write_text(hook, encoding="utf-8")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(folder), *filter(None, [os.environ.get("PYTHONPATH")])]))
        monkeypatch.setenv("OMP_NUM_THREADS", "1")

    return set_budget

"""benchmarks/studies/papers.py: the small state of a run that is carried on elsewhere."""

import dataclasses
import shutil

import carried
import papers
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from small import small_dataset

from scribbleseg.bench.plan import Job
from scribbleseg.config import Bench, Train
from scribbleseg.training.train import train


@pytest.fixture
def job() -> Job:
    return Job("small", "final", 0, "effdnet", "effdnet", (), 0, "paper")


def test_a_run_goes_on_from_its_small_state(tmp_path, job, monkeypatch, capsys):
    config = Bench("plans", "paper", datasets=tmp_path, runs=tmp_path / "runs", results=tmp_path / "results")
    small_dataset(tmp_path / "small")
    run = config.runs / job.place
    train(Train(tmp_path / "small", run, method="effdnet", iterations=5, size=32, batch=2))
    before = load_file(run / "last.safetensors")
    path = papers.state_file(job, config)
    with monkeypatch.context() as patch:
        patch.setattr(papers, "LARGEST", 1000)
        papers.keep_small(job, config, total=20)
    assert not path.exists() and "so it is not kept" in capsys.readouterr().out
    papers.keep_small(job, config, total=20)
    with safe_open(path, "pt") as file:
        assert file.metadata()["iteration"] == "5"
        assert not [key for key in file.keys() if key.startswith("teacher.")]
    assert path.stat().st_size < 4 * 2**20
    written = path.stat().st_mtime_ns
    papers.keep_small(job, config, total=20)
    assert path.stat().st_mtime_ns == written, "the same fifth is written once"

    shutil.rmtree(run)
    papers.restore_small(job, config)
    stored = torch.load(run / "resume.pt", weights_only=True)
    assert stored["iteration"] == 5 and stored["optimizer"]["state"] == {}
    for key, value in before.items():
        expected = value.half().to(value.dtype) if value.dim() and value.is_floating_point() else value
        assert torch.equal(stored["method"][f"network.{key}"], expected)
        assert torch.equal(stored["method"][f"teacher.{key}"], expected)
    assert stored["method"]["steps"] == 5


def test_the_runs_are_those_of_the_plans(tmp_path):
    config = Bench("plans", "paper", runs=tmp_path / "runs")
    assert [job.run for job in papers.jobs(config)] == [
        "mscmr/25-5-15-0/scn-s0",
        "acdc/622-0/scn-s0",
        "acdc/cv5-0/effdnet-s0",
    ]


@pytest.mark.slow
def test_a_run_is_carried_on_from_its_checkpoint_and_from_a_small_state(tmp_path, monkeypatch):
    data = small_dataset(tmp_path / "small")
    options = ("--method", "effdnet", "--size", "32", "--batch", "2", "--val-share", "0.3", "--iterations", 40)
    monkeypatch.setattr(carried, "OPTIONS", options)
    monkeypatch.setattr(carried, "ITERATIONS", 40)
    line = carried.compare(data, tmp_path / "runs", 3)
    assert line["seed"] == 3 and 20 <= line["stopped_at"] < 40
    for kind in ("whole", "small"):
        assert (tmp_path / "runs" / f"{kind}-s3" / "log.jsonl").read_text().count('"val_mean_dice"') == 10
    ends = [load_file(tmp_path / "runs" / f"{kind}-s3" / "last.safetensors") for kind in ("whole", "small")]
    assert ends[0].keys() == ends[1].keys() and any((ends[0][key] != ends[1][key]).any() for key in ends[0])


def test_the_first_run_that_is_not_finished_is_carried_on(tmp_path, job, monkeypatch, capsys):
    small_dataset(tmp_path / "small")
    done, begun, later = (dataclasses.replace(job, seed=seed) for seed in (0, 1, 2))
    run = tmp_path / "runs" / begun.place
    train(Train(tmp_path / "small", run, method="effdnet", iterations=4, size=32, batch=2))
    carried_on = []
    monkeypatch.setattr(papers, "jobs", lambda config: [done, begun, later])
    monkeypatch.setattr(papers, "read_records", lambda folder: {done.run: {}})
    monkeypatch.setattr(papers, "carry_on", lambda job, config, until: carried_on.append(job))
    words = ["papers.py", "--datasets", str(tmp_path), "--runs", str(tmp_path / "runs"), "--results", str(tmp_path)]
    for more, expected in (["--status"], []), ([], [begun]):
        monkeypatch.setattr("sys.argv", [*words, *more])
        papers.main()
        assert carried_on == expected, "what is done is passed over, and what follows waits"
        first, second, third = capsys.readouterr().out.splitlines()
        assert first == "small/final-0/effdnet-s0: done"
        assert second.startswith("small/final-0/effdnet-s1: iteration 4 of 60000, ") and " hours left at its" in second
        assert third == "small/final-0/effdnet-s2: iteration 0 of 60000"

"""What test_distributed.py starts under torchrun: small runs, one after the other, each compared over the processes."""

import dataclasses
import hashlib
import io
import json
import sys
from pathlib import Path

import spread_runs
import torch
import torch.distributed as dist
from test_methods import make_batch, make_method

from scribbleseg import cli
from scribbleseg.config import Train
from scribbleseg.core.distributed import joined, wait_for_all
from scribbleseg.core.errors import InputError
from scribbleseg.data.voxels import Slices
from scribbleseg.methods import METHODS, effdnet, pce, scn
from scribbleseg.networks.dropout import Dropout
from scribbleseg.training.train import resume, train

STEPS = 3
latest = None  # the method of the latest run
stop_at = None  # a step that does not happen


class Watched:
    def losses(self, batch, progress):
        spread_runs.latest = self
        if spread_runs.stop_at is not None and int(self.steps) == spread_runs.stop_at:
            raise KeyboardInterrupt
        return super().losses(batch, progress)


class Quiet(Watched):
    """What two processes compute as one does: in float64, without dropout and with random numbers of its own."""

    def __init__(self, network, **options):
        super().__init__(network, **options)
        self.double()
        for module in self.modules():
            if isinstance(module, Dropout):
                module.p = 0.0
        network.register_forward_pre_hook(lambda module, inputs: inputs[0].double())

    def losses(self, batch, progress):
        with torch.random.fork_rng([]):
            return super().losses(dataclasses.replace(batch, image=batch.image.double()), progress)

    def pictures(self, batch):
        return super().pictures(dataclasses.replace(batch, image=batch.image.double()))


class QuietPCE(Quiet, pce.PCE):
    pass


class QuietEFFDNet(Quiet, effdnet.EFFDNet):
    def __init__(self, network):
        super().__init__(network, noise=0.0, fadc=False)


class QuietSCN(Quiet, scn.SCN):
    def __init__(self, network):
        super().__init__(network, rsr=False)  # regions are drawn; without them nothing reaches the projections


class EFFDNet(Watched, effdnet.EFFDNet):
    pass


QUIET = {
    "pce": {"method": "spread_runs:QuietPCE", "val_share": 0.3},
    "effdnet": {"method": "spread_runs:QuietEFFDNet"},
    "scn": {"method": "spread_runs:QuietSCN", "optimizer": "sgd", "lr": 0.01},
}


def settings(data: Path, run: Path, **changes) -> Train:
    return Train(
        data, run, **{"iterations": STEPS, "size": 32, "batch": 4, "precision": "float32", "device": "cpu", **changes}
    )


def state_is_equal() -> bool:
    """Weights, teacher, thresholds and counts of the latest run are the same in all processes, bit for bit."""
    own = {
        name: hashlib.sha256(value.numpy().tobytes()).digest()
        for name, value in spread_runs.latest.state_dict().items()
    }
    everyone = [None] * dist.get_world_size()
    dist.all_gather_object(everyone, own)
    return all(one == own for one in everyone)


def sums_over_processes() -> dict[str, list[int]]:
    """How often each method sums over processes: in its losses, and in all else, which process 0 does alone."""
    reduce, calls, counts = dist.all_reduce, [], {}
    for name in METHODS:
        method = make_method(name)
        batch = make_batch(method)
        calls.clear()
        dist.all_reduce = lambda *args: calls.append(1) or reduce(*args)
        method.losses(batch, torch.tensor(0.9))
        counts[name] = [len(calls)]
        calls.clear()
        dist.all_reduce = lambda *args: calls.append(1)  # counted, but no waiting for process 1
        if dist.get_rank() == 0:
            method.monitor()
            method.after_step(torch.tensor(0.9))
            method.eval()
            with torch.no_grad():
                method.network(batch.image)  # validation
                method.pictures(batch)
                slices = Slices(batch.image, batch.label, dict(batch.maps), batch.truth)
                if method.sweeps:
                    method.sweep(slices, torch.tensor(0.9))
                method.resume(slices)
        counts[name].append(len(calls))
        dist.all_reduce = reduce
        wait_for_all()
    return counts


def main(data: Path, out: Path) -> None:
    torch.set_num_threads(1)
    equal = {}
    with joined():
        if dist.get_rank():
            sys.stderr = io.StringIO()
        sums = sums_over_processes()
        for name, changes in QUIET.items():
            train(settings(data, out / name, **changes))
            equal[name] = state_is_equal()
        command = [
            "train",
            data,
            out / "noisy",
            "--method",
            "spread_runs:EFFDNet",
            "--iterations",
            STEPS,
            "--size",
            32,
            "--batch",
            4,
            "--device",
            "cpu",
        ]
        assert cli.main([str(word) for word in [*command, "--precision", "float32"]]) == 0
        equal["noisy"] = state_is_equal()
        spread_runs.stop_at = 2
        try:
            train(settings(data, out / "cut", method="spread_runs:EFFDNet", checkpoint_every=0.0))
        except KeyboardInterrupt:
            spread_runs.stop_at = None
        assert torch.load(out / "cut" / "resume.pt", weights_only=True)["iteration"] == 2
        resume(out / "cut", "spread_runs:EFFDNet")
        equal["cut"] = state_is_equal()
        if dist.get_rank() == 0:
            (out / "equal.json").write_text(json.dumps(equal), encoding="utf-8")
            (out / "sums.json").write_text(json.dumps(sums), encoding="utf-8")
        else:
            (out / "said.txt").write_text(sys.stderr.getvalue(), encoding="utf-8")
            sys.stderr = sys.__stderr__
        train(settings(data, out / "odd", batch=3))


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except InputError as error:  # as the command line does
        print(f"scribbleseg: {error}", file=sys.stderr)
        sys.exit(2)

"""One dataclass per verb: the Python argument, the command line's options and the run's config.json are this object."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Device = Annotated[str, arg(help="auto (CUDA when there is one), cpu, cuda or cuda:N.")]


@dataclass
class Train:
    """Train a model on the scribbles of a data set; RUN receives weights, log and settings.

    `scribbleseg train RUN --resume` carries on a run that was cut off.
    """

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Data set in the nnU-Net raw layout with an `ignore` label."""
    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """New folder for the run."""
    method: str = "effdnet"
    """A name from `scribbleseg methods`, or package.module:Class."""
    set: Annotated[tuple[str, ...], arg(metavar="NAME=VALUE ...")] = ()
    """The method's hyperparameters, as NAME=VALUE; `scribbleseg methods NAME` lists them."""
    split: str = "auto"
    """Protocol: a file of splits/, `final` (splits_final.json) or `all`. auto: the only named one, else final, else all."""
    fold: int = 0
    """Which fold of the protocol is held out."""
    budget: Literal["paper", "quick"] = "paper"
    """paper: the method's own size and iterations. quick: 128 pixels, 600 iterations, SGD from .03: ten minutes on two cores."""
    iterations: Annotated[int | None, arg(metavar="N")] = None
    """Optimiser steps, instead of the budget's."""
    size: Annotated[int | None, arg(metavar="PIXELS")] = None
    """Slices are resized to SIZE × SIZE pixels, instead of the budget's."""
    batch: Annotated[int | None, arg(metavar="N")] = None
    """Slices per step, of all processes together, instead of the method's."""
    optimizer: Literal["sgd", "adam", "adamw"] | None = None
    """Instead of the method's."""
    lr: Annotated[float | None, arg(metavar="RATE")] = None
    """Learning rate at the start, instead of the method's."""
    schedule: Literal["poly", "cosine", "step", "constant"] | None = None
    """Learning rate schedule, instead of the method's."""
    network: Annotated[str | None, arg(metavar="NAME")] = None
    """Instead of the method's: unet, or monai:NAME with the `monai` extra (monai:BasicUNet, ...)."""
    val_share: float = 0.0
    """Share of the training patients set aside for validation when the split names none."""
    validations: int = 10
    """How many times a run is validated, evenly spread (only with validation cases)."""
    seed: int = 0
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the device has it in hardware."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, and on CUDA one graph per step. auto: on CUDA, as far as it pays; not on CPUs, where it is slower."""
    deterministic: bool = False
    """Repeat a run bit for bit on one machine."""
    checkpoint_every: float = 60.0
    """Seconds between resumable checkpoints."""
    tensorboard: bool = False
    """Write scalars and images for TensorBoard into RUN/tensorboard."""


@dataclass
class Predict:
    """Segment volumes with a trained run, or with the mean of several runs' probabilities."""

    runs: Annotated[Positional[tuple[Path, ...]], arg(metavar="RUN [RUN ...]", help_behavior_hint="(required)")]
    """Run folders. Networks, sizes and methods may differ; classes and channels may not."""
    input: Annotated[Positional[Path], arg(metavar="INPUT")]
    """A volume (NIfTI, NRRD, MHA), a folder of volumes, or a data set (the cases that every run held out)."""
    output: Annotated[Positional[Path], arg(metavar="OUTPUT")]
    """File or folder to write."""
    weights: Literal["last", "best"] = "last"
    """best: chosen on the validation split, where the run had one."""
    probabilities: bool = False
    """Also write CASE_prob_CLASS files, one per class."""
    uncertainty: bool = False
    """Also write CASE_entropy: entropy of the softmax divided by ln(classes), 0 to 1."""
    tta: bool = False
    """Average the softmax over the four flips."""
    batch: int = 32
    """Slices per forward pass."""
    device: Device = "auto"

    def __post_init__(self):
        if isinstance(self.runs, (str, Path)):  # Predict(run, ...): one run is an ensemble of one
            self.runs = (Path(self.runs),)


@dataclass
class Evaluate:
    """Score predictions against dense masks: Dice, HD95 and ASSD in mm."""

    predictions: Annotated[Positional[Path], arg(metavar="PREDICTIONS")]
    """A mask or a folder of masks."""
    truth: Annotated[Positional[Path], arg(metavar="TRUTH")]
    """The dense mask, or a folder with masks of the same names."""
    out: Annotated[Path | None, arg(metavar="CSV")] = None
    """Per-case table, CSV."""
    classes: tuple[str, ...] = ()
    """Names of the foreground classes 1, 2, …; read from dataset.json beside TRUTH when not given."""


@dataclass
class Phantom:
    """Make a data set of synthetic short-axis hearts with simulated scribbles."""

    dst: Annotated[Positional[Path], arg(metavar="DST")]
    """New folder."""
    cases: int = 24
    seed: int = 0


@dataclass
class Import:
    """Bring a public data set into the nnU-Net raw layout with its named protocols."""

    source: Positional[Literal["acdc", "wsl4mis", "mscmr", "nci-isbi"]]
    src: Annotated[Positional[Path], arg(metavar="SRC")]
    """Folder as its source ships it."""
    dst: Annotated[Positional[Path], arg(metavar="DST")]
    """New folder."""


@dataclass
class Simulate:
    """Draw scribbles from the dense masks of a data set (labelsTr_dense → labelsTr)."""

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    coverage: float = 0.85
    """Share of each structure's curves that is drawn, 0 to 1."""
    thickness: int = 1
    """Width of a stroke in pixels."""
    seed: int = 0
    overwrite: bool = False
    """Replace scribbles that exist."""


@dataclass
class Check:
    """Say what is in a data set and what is wrong with it; exit code 1 when it cannot be trained on."""

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]


@dataclass
class Report:
    """Write RUN/report.html: settings, curves, pictures, scores; one self-contained file."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]


@dataclass
class Bench:
    """Run the methods × data sets × folds × seeds of a plan, skip what is done, make the tables."""

    plan: Annotated[Positional[Path], arg(metavar="PLAN")]
    """A TOML file of benchmarks/plans."""
    budget: Literal["paper", "quick"] = "quick"
    """As in `scribbleseg train`."""
    folds: Annotated[tuple[int, ...], arg(metavar="N ...")] = ()
    """Of the plan's folds only these."""
    datasets: Path = field(default_factory=lambda: Path("datasets"))
    """Folder that holds the data sets."""
    runs: Path = field(default_factory=lambda: Path("runs"))
    """Folder for the runs: weights, logs, predictions."""
    results: Path = field(default_factory=lambda: Path("benchmarks/results"))
    """Folder for the scores and the tables: small, to be committed."""
    table_only: bool = False
    """Run nothing; make the tables of what is done."""
    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine. ray: tasks of a Ray cluster, with the `ray` extra."""
    jobs: Annotated[int, arg(metavar="N")] = 0
    """local: how many runs at once, on shared GPUs and cores. 0: one per GPU, on a CPU one."""
    address: str = "auto"
    """ray: auto (the cluster that this machine belongs to), HOST:PORT, or local (a cluster of this machine alone)."""
    checkpoint_every: float = 60.0
    """As in `scribbleseg train`."""
    device: Device = "auto"


@dataclass
class Methods:
    """List the methods, or one method's hyperparameters."""

    name: Annotated[Positional[str | None], arg(metavar="[METHOD]")] = None


@dataclass
class Demo:
    """Phantom, training of EFFDNet and pCE, prediction, scores and report, in a few minutes."""

    run: Path = field(default_factory=lambda: Path("runs/demo"))
    """Folder for everything the demo makes."""
    device: Device = "auto"

"""One dataclass per verb: the Python argument, the command line's options and the run's config.json are this object."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

Device = Annotated[str, arg(metavar="DEVICE", help="auto (CUDA when there is one), cpu, cuda or cuda:N.")]
Seconds = Annotated[float, arg(metavar="SECONDS", help="Time between checkpoints to resume from.")]
Seed = Annotated[int, arg(metavar="N", help="Seed of the random numbers.")]
BUDGETS, METHODS = "(default: the budget's or preset's)", "(default: the method's or preset's)"


@dataclass
class Train:
    """Train a model on the scribbles of a data set; RUN receives weights, log and settings.
    `scribbleseg train RUN --resume` carries on a run that was cut off."""

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Data set in the nnU-Net raw layout with an `ignore` label."""
    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """New folder for the run."""
    method: Annotated[
        str | None, arg(metavar="NAME", help_behavior_hint="(default: effdnet; scn with --preset fast)")
    ] = None
    """A name from `scribbleseg methods`, or package.module:Class."""
    set: Annotated[
        tuple[str, ...], arg(metavar="NAME=VALUE ...", help_behavior_hint="(default: the paper's values)")
    ] = ()
    """The method's hyperparameters; `scribbleseg methods NAME` lists them. Takes every word after it: write DATASET and RUN first."""
    split: Annotated[str, arg(metavar="NAME")] = "auto"
    """Protocol: a file of splits/, `final` (splits_final.json) or `all`. auto: the only named one but `tuning`, else final, else all."""
    fold: Annotated[int, arg(metavar="N")] = 0
    """Which fold of the protocol is held out."""
    budget: Literal["paper", "quick"] = "paper"
    """paper: the method's own size and iterations. quick: 128 pixels, 600 iterations (SGD methods from .03): for most 5 to 20 minutes on one CPU core."""
    preset: Literal["paper", "fast"] = "paper"
    """fast: a recipe of our own in place of the method's and the budget's, for two cores and little time; docs/speed.md says what it reaches."""
    iterations: Annotated[int | None, arg(metavar="N", help_behavior_hint=BUDGETS)] = None
    """Optimiser steps."""
    size: Annotated[int | None, arg(metavar="PIXELS", help_behavior_hint=BUDGETS)] = None
    """Slices are resized to PIXELS × PIXELS, a multiple of 16."""
    batch: Annotated[int | None, arg(metavar="N", help_behavior_hint=METHODS)] = None
    """Slices per step, of all processes together."""
    optimizer: Annotated[
        Literal["sgd", "adam", "adamw"] | None, arg(metavar="{sgd,adam,adamw}", help_behavior_hint=METHODS)
    ] = None
    """Optimiser."""
    lr: Annotated[float | None, arg(metavar="RATE", help_behavior_hint=METHODS)] = None
    """Learning rate at the start; of onecycle at its peak."""
    schedule: Annotated[
        Literal["poly", "cosine", "onecycle", "step", "constant"] | None,
        arg(metavar="{poly,cosine,onecycle,step,constant}", help_behavior_hint=METHODS),
    ] = None
    """Learning rate schedule."""
    network: Annotated[str | None, arg(metavar="NAME", help_behavior_hint=METHODS)] = None
    """unet, or monai:NAME (monai:BasicUNet, …; needs `pip install monai`)."""
    val_share: Annotated[float, arg(metavar="SHARE")] = 0.0
    """Share of the training patients with dense masks (with scribbles, where no mask is), 0 to below 1, set aside for validation when the split names none; at least one."""
    validations: Annotated[int, arg(metavar="N")] = 10
    """How many times a run is validated, evenly spread (only with validation cases)."""
    seed: Seed = 0
    device: Device = "auto"
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """auto: bfloat16 autocast where the device has it in hardware."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile, and on CUDA one graph per step. auto: on CUDA, as far as it pays; not on CPUs, where it is slower."""
    deterministic: bool = False
    """Repeat a run bit for bit on one machine."""
    checkpoint_every: Seconds = 60.0
    tensorboard: bool = False
    """Write scalars and images for TensorBoard into RUN/tensorboard (needs `pip install tensorboard`)."""


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
    overwrite: bool = False
    """Also replace files in OUTPUT that predict did not write, or that were changed since."""
    batch: Annotated[int, arg(metavar="N")] = 32
    """Slices per forward pass."""
    device: Device = "auto"

    def __post_init__(self):
        if isinstance(self.runs, (str, Path)):  # Predict(run, ...): one run is an ensemble of one
            self.runs = (Path(self.runs),)


@dataclass
class Evaluate:
    """Score predictions against dense masks: Dice, HD95 and ASSD in mm (in voxels, where a data set has no spacing)."""

    predictions: Annotated[Positional[Path], arg(metavar="PREDICTIONS")]
    """A mask or a folder of masks."""
    truth: Annotated[Positional[Path], arg(metavar="TRUTH")]
    """The dense mask, or a folder with masks of the same names."""
    out: Annotated[Path | None, arg(metavar="CSV", help_behavior_hint="(default: only print the summary)")] = None
    """File for the per-case table."""
    classes: Annotated[
        tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: those of dataset.json beside TRUTH)")
    ] = ()
    """Names of the foreground classes 1, 2, …. Takes every word after it: write PREDICTIONS and TRUTH first."""


@dataclass
class Phantom:
    """Make a data set of synthetic short-axis hearts with simulated scribbles."""

    dst: Annotated[Positional[Path], arg(metavar="DST")]
    """New folder."""
    cases: Annotated[int, arg(metavar="N")] = 24
    """How many hearts, two of each patient; 3 or more."""
    seed: Seed = 0


@dataclass
class Import:
    """Bring a public data set into the nnU-Net raw layout with its named protocols."""

    source: Positional[Literal["acdc", "wsl4mis", "mscmr", "nci-isbi"]]
    """Which data set; docs/data.md says where each comes from."""
    src: Annotated[Positional[Path], arg(metavar="SRC")]
    """The data set's folder, as its source ships it."""
    dst: Annotated[Positional[Path], arg(metavar="DST")]
    """New folder."""


@dataclass
class Simulate:
    """Draw the scribbles that are missing from the dense masks of a data set (labelsTr_dense → labelsTr)."""

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Data set with dense masks in labelsTr_dense."""
    coverage: Annotated[float, arg(metavar="SHARE")] = 0.85
    """Share of each structure's curves that is drawn, above 0 to 1."""
    thickness: Annotated[int, arg(metavar="PIXELS")] = 1
    """Width of a stroke."""
    seed: Seed = 0
    overwrite: bool = False
    """Replace scribbles that exist."""


@dataclass
class Check:
    """Say what is in a data set and what is wrong with it; exit code 1 when it cannot be trained on."""

    dataset: Annotated[Positional[Path], arg(metavar="DATASET")]
    """Data set in the nnU-Net raw layout."""


@dataclass
class Report:
    """Write RUN/report.html: settings, curves, pictures, scores; one self-contained file."""

    run: Annotated[Positional[Path], arg(metavar="RUN")]
    """Run folder; the cases that it held out are predicted and scored first, where that is not done."""


@dataclass
class Bench:
    """Run the methods × data sets × folds × seeds of a plan, skip what is done, make the tables."""

    plan: Annotated[Positional[Path], arg(metavar="PLAN")]
    """A plan, a TOML file: your own, or one of benchmarks/plans; docs/bench.md says what it holds."""
    budget: Literal["paper", "quick"] = "quick"
    """As in `scribbleseg train`."""
    folds: Annotated[tuple[int, ...], arg(metavar="N ...", help_behavior_hint="(default: all)")] = ()
    """Of the plan's folds only these. Takes every word after it: write PLAN first."""
    datasets: Path = field(default_factory=lambda: Path("datasets"))
    """Folder that holds the data sets."""
    runs: Path = field(default_factory=lambda: Path("runs"))
    """Folder for the runs: weights, logs, predictions."""
    results: Path = field(default_factory=lambda: Path("benchmarks/results"))
    """Folder for the scores and the tables: small, to be committed."""
    table_only: bool = False
    """Run nothing; make the tables of what is done."""
    engine: Literal["local", "ray"] = "local"
    """local: processes of this machine. ray: tasks of a Ray cluster (needs `pip install ray`)."""
    jobs: Annotated[int, arg(metavar="N")] = 0
    """local: how many runs at once, on shared GPUs and cores. 0: one per GPU, on a CPU one."""
    address: Annotated[str, arg(metavar="HOST:PORT")] = "auto"
    """ray: auto (the cluster that this machine belongs to), HOST:PORT, or local (a cluster of this machine alone)."""
    checkpoint_every: Seconds = 60.0
    device: Device = "auto"


@dataclass
class Methods:
    """List the methods, or one method's hyperparameters."""

    name: Annotated[Positional[str | None], arg(metavar="[METHOD]", help_behavior_hint="(default: list all)")] = None
    """The method whose settings are shown."""


@dataclass
class Demo:
    """Phantom, training of EFFDNet and pCE, prediction, scores and report, in a few minutes."""

    run: Path = field(default_factory=lambda: Path("runs/demo"))
    """Folder for everything the demo makes."""
    device: Device = "auto"

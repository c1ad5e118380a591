"""One dataclass per verb: the argument of its Python function, the command's options and the run's config.json."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple


class Argument(NamedTuple):
    """How the command line shows a field that is given by its place."""

    metavar: str
    help: str


class Option(NamedTuple):
    """How the command line shows a field that is given by its name; of a bool, `metavar` is empty."""

    metavar: str
    help: str
    default: str = ""  # in words, where the field's own default does not say it
    name: str = ""  # where it is not the field's name


BUDGETS, METHODS = "from the budget or preset", "from the method or preset"
DEVICE = Option("DEVICE", "auto (CUDA if there is a CUDA device), cpu, cuda, cuda:N, or mps on a Mac (untested).")
CHECKPOINT_EVERY = Option("SECONDS", "Seconds between two checkpoints. A stopped run resumes from the last one.")
SEED = Option("N", "Seed of the random numbers.")
OWN_NETWORK = Option(
    "NAME", "For a network of somebody's own: its name, package.module:Class, to allow that its code runs."
)
DATASET = Argument("DATASET", "Data set in the nnU-Net raw layout with an `ignore` label.")
DST = Argument("DST", "Folder to create.")


def _as_paths(settings: object, *names: str) -> None:
    """Turn text into Path: in Python a path may be given as either."""
    for name in names:
        setattr(settings, name, Path(getattr(settings, name)))


@dataclass
class Train:
    """Train a model on the scribbles of a data set. Weights, log and settings are written to RUN.

    `scribbleseg train RUN --resume` continues a run that was stopped.
    """

    dataset: Annotated[Path, DATASET]
    run: Annotated[Path, Argument("RUN", "Folder to create for the run.")]
    method: Annotated[
        str | None,
        Option(
            "NAME",
            "A method that `scribbleseg methods` lists, or package.module:Class.",
            "effdnet, or corral with a preset",
        ),
    ] = None
    set: Annotated[
        tuple[str, ...],
        Option(
            "NAME=VALUE",
            "A hyperparameter of the method. `scribbleseg methods NAME` lists them. "
            "Give the option once per hyperparameter.",
            "the paper's values",
        ),
    ] = ()
    split: Annotated[
        str,
        Option(
            "NAME",
            "Which protocol divides the cases: a file of splits/, `final` (splits_final.json) or `all`. auto: the file "
            "of splits/ if there is exactly one (`tuning` is not counted), otherwise final; without splits, all.",
        ),
    ] = "auto"
    fold: Annotated[int, Option("N", "Which fold of the protocol is held out.")] = 0
    budget: Annotated[
        Literal["paper", "quick"],
        Option(
            "",
            "paper: the method's own size and iterations. quick: 128 pixels and 600 iterations (SGD methods start at a "
            "learning rate of 0.03). Most methods then need 5 to 20 minutes on one CPU core.",
        ),
    ] = "paper"
    preset: Annotated[
        Literal["paper", "fast", "best"],
        Option(
            "",
            "fast, best: our own recipes for two cores. They train corral if no method is named, and replace the "
            "recipe of the method and the budget. fast: 5 to 20 minutes. best: 2 to 3 times as long, with flips and "
            "quarter turns; halfway through it labels what was not drawn. paper: neither; the budget decides.",
        ),
    ] = "paper"
    preparation: Annotated[
        Literal["auto", "slices", "patches", "rings"],
        Option(
            "",
            "slices: whole slices are resized to a square, as in the papers. rings: each slice is cut to the part "
            "where the rings of background strokes lie, and that part is resized to a square. New scans have no "
            "strokes, so a small network is trained too, which finds this part in them. patches: squares are cut from "
            "the slices, and the data decide the pixel size. auto: rings with a preset, if the strokes of the training "
            "cases enclose structures on less than half of a slice; otherwise slices.",
        ),
    ] = "auto"
    dims: Annotated[
        Literal["2", "3", "auto"],
        Option(
            "",
            "2: patches are squares of a slice. 3: patches are blocks of the volume (needs `pip install "
            "'scribbleseg[monai]'`). auto: 3 if the method works in 3-D and at least half of the volumes are suited to "
            "it; otherwise 2. A volume is suited if it has at least 16 voxels on each axis, and if its largest voxel "
            "spacing is at most 3 times its smallest.",
        ),
    ] = "2"
    enclosure: Annotated[
        Literal["auto", "on", "off"],
        Option(
            "",
            "on: pixels that lie outside of the background strokes (outside of their hull) count as background in "
            "training, although nothing was drawn there. auto: on with a preset, if the background strokes enclose the "
            "structures in half of the slices or more; otherwise off.",
        ),
    ] = "auto"
    iterations: Annotated[int | None, Option("N", "Number of optimiser steps.", BUDGETS)] = None
    size: Annotated[
        int | None,
        Option(
            "PIXELS",
            "Slices are resized to PIXELS × PIXELS, or patches have this side. It must be a multiple of 16. In 3-D the "
            "default follows from the volumes and the memory.",
            BUDGETS,
        ),
    ] = None
    batch: Annotated[
        int | None,
        Option("N", "Slices or patches per step, over all processes together. In 3-D the default is 2.", METHODS),
    ] = None
    optimizer: Annotated[Literal["sgd", "adam", "adamw"] | None, Option("", "Optimiser.", METHODS)] = None
    lr: Annotated[
        float | None, Option("RATE", "Learning rate at the start. With onecycle: the highest learning rate.", METHODS)
    ] = None
    schedule: Annotated[
        Literal["poly", "cosine", "onecycle", "step", "constant"] | None,
        Option("", "How the learning rate changes over the run.", METHODS),
    ] = None
    step_at: Annotated[
        tuple[float, ...],
        Option(
            "SHARE",
            "With --schedule step: the share of the run after which the learning rate is multiplied by --gamma. Give "
            "the option once per step.",
            METHODS,
        ),
    ] = ()
    gamma: Annotated[float | None, Option("FACTOR", "With --schedule step: see --step-at.", METHODS)] = None
    weight_decay: Annotated[float | None, Option("NUMBER", "Weight decay of the optimiser.", METHODS)] = None
    network: Annotated[
        str | None,
        Option(
            "NAME",
            "unet, in 3-D unet3d, monai:NAME such as monai:BasicUNet (3-D and monai:NAME need `pip install "
            "'scribbleseg[monai]'`), or package.module:Class.",
            METHODS,
        ),
    ] = None
    augmentation: Annotated[
        str | None,
        Option(
            "NAME",
            "papers: quarter turns, flips and rotations. upright: rotations, scales, shifts and grey values, without "
            "flips. Both are for whole slices; patches have their own. Or package.module:function.",
            METHODS,
        ),
    ] = None
    init: Annotated[
        Path | None,
        Option(
            "RUN",
            "Start from the last weights of this run (a warm start). It must have the same network, classes and "
            "channels.",
            "random weights",
        ),
    ] = None
    val_share: Annotated[
        float,
        Option(
            "SHARE",
            "Share of the training patients (0 to below 1) that is kept for validation, at least one patient. Used "
            "only if the split names no validation cases. The share is taken from the patients with dense masks. If no "
            "case has a dense mask, it is taken from the patients with scribbles.",
        ),
    ] = 0.0
    validations: Annotated[
        int, Option("N", "How often the run is validated, at equal intervals. Only if there are validation cases.")
    ] = 10
    seed: Annotated[int, SEED] = 0
    device: Annotated[str, DEVICE] = "auto"
    precision: Annotated[
        Literal["auto", "float32", "bfloat16"],
        Option(
            "",
            "How exactly the network computes. float32: 32 bits per number. bfloat16: 16 bits per number where that is "
            "safe (autocast). auto: bfloat16 if the hardware computes in it, otherwise float32; float32 for 3-D on a "
            "CPU.",
        ),
    ] = "auto"
    compile: Annotated[
        Literal["auto", "on", "off"],
        Option(
            "",
            "torch.compile. auto: on CUDA if the run is long enough to gain from it. On CPUs it is off, because it is "
            "slower there.",
        ),
    ] = "auto"
    graph: Annotated[
        Literal["auto", "off"],
        Option(
            "",
            "auto: on an NVIDIA GPU a training step is recorded once (as a CUDA graph) and then replayed, which saves "
            "time. off: no step is recorded.",
        ),
    ] = "auto"
    deterministic: Annotated[bool, Option("", "Make the run repeatable bit for bit on the same machine.")] = False
    checkpoint_every: Annotated[float, CHECKPOINT_EVERY] = 60.0
    tensorboard: Annotated[
        bool,
        Option(
            "",
            "Write scalars and images for TensorBoard to RUN/tensorboard (needs `pip install "
            "'scribbleseg[tensorboard]'`).",
        ),
    ] = False
    mlflow: Annotated[
        bool, Option("", "Write scalars for MLflow to RUN/mlflow (needs `pip install 'scribbleseg[mlflow]'`).")
    ] = False
    wandb: Annotated[
        bool,
        Option(
            "", "Write scalars for Weights & Biases to RUN/wandb, offline (needs `pip install 'scribbleseg[wandb]'`)."
        ),
    ] = False

    def __post_init__(self) -> None:
        _as_paths(self, "dataset", "run")
        self.init = None if self.init is None else Path(self.init)


@dataclass
class Predict:
    """Segment volumes with a trained run, or with the mean of the probabilities of several runs."""

    runs: Annotated[
        tuple[Path, ...],
        Argument(
            "RUN",
            "Run folders or packed models. Networks, sizes and methods may differ. Classes and channels must be the "
            "same.",
        ),
    ]
    input: Annotated[
        Path,
        Argument(
            "INPUT",
            "A volume (NIfTI, NRRD, MHA, PNG, TIFF), a folder with a DICOM series, a folder of these, or a data set. "
            "Of a data set, the cases that every run held out are segmented.",
        ),
    ]
    output: Annotated[Path, Argument("OUTPUT", "File or folder to write.")]
    weights: Annotated[
        Literal["last", "best"],
        Option("", "last: the last checkpoint. best: the best on the validation cases, if the run had any."),
    ] = "last"
    probabilities: Annotated[bool, Option("", "Also write one map per class, CASE_prob_CLASS.")] = False
    uncertainty: Annotated[
        bool,
        Option(
            "",
            "Also write CASE_entropy, a map of how unsure the model is: 0 where it is certain of one class, 1 where "
            "all classes are equally likely. It is the entropy of the softmax divided by ln(classes).",
        ),
    ] = False
    tta: Annotated[
        bool,
        Option(
            "",
            "Segment each slice several times and average the probabilities: flipped in four ways, or slightly shifted "
            "if the run was trained without flips. This takes four to five times as long.",
        ),
    ] = False
    largest: Annotated[
        bool, Option("", "Keep the largest connected piece of each class only. For structures of which a scan has one.")
    ] = False
    overwrite: Annotated[
        bool, Option("", "Also replace files in OUTPUT that predict did not write, or that were changed afterwards.")
    ] = False
    batch: Annotated[int, Option("N", "Slices per forward pass.")] = 32
    networks: Annotated[
        tuple[str, ...],
        Option(
            "NAME",
            "For a run with a network of somebody's own: its name, package.module:Class, to allow that its code runs. "
            "Give the option once per network.",
            name="network",
        ),
    ] = ()
    device: Annotated[str, DEVICE] = "auto"

    def __post_init__(self) -> None:
        if isinstance(self.runs, (str, Path)):  # Predict(run, ...): one run is an ensemble of one
            self.runs = (Path(self.runs),)
        self.runs = tuple(map(Path, self.runs))
        _as_paths(self, "input", "output")


@dataclass
class Evaluate:
    """Compare predictions with dense masks: Dice, and HD95 and ASSD in mm (in voxels if the files have no spacing)."""

    predictions: Annotated[Path, Argument("PREDICTIONS", "A mask or a folder of masks.")]
    truth: Annotated[Path, Argument("TRUTH", "The dense mask, or a folder with masks of the same names.")]
    out: Annotated[Path | None, Option("CSV", "File for the scores of every case.", "only print the summary")] = None
    classes: Annotated[
        tuple[str, ...],
        Option(
            "NAME",
            "Name of a foreground class. Give the option once per class, in the order of the label values.",
            "those of dataset.json beside TRUTH",
            "class-name",
        ),
    ] = ()
    same_voxels: Annotated[
        bool,
        Option(
            "",
            "Compare masks of the same shape voxel by voxel, even if their headers say that they lie at different "
            "places.",
        ),
    ] = False

    def __post_init__(self) -> None:
        _as_paths(self, "predictions", "truth")
        self.out = None if self.out is None else Path(self.out)


@dataclass
class Phantom:
    """Make a data set of synthetic scans with simulated scribbles: short-axis hearts in MR, or abdomens in CT."""

    dst: Annotated[Path, DST]
    anatomy: Annotated[
        Literal["heart", "abdomen"],
        Option("", "heart: 3 classes, 8 to 10 slices. abdomen: 4 organs and a rare lesion, about 28 slices of 7 mm."),
    ] = "heart"
    cases: Annotated[
        int, Option("N", "Number of scans, at least 3. Hearts: two per patient. Every fourth abdomen has a lesion.")
    ] = 24
    isotropic: Annotated[bool, Option("", "Abdomen: voxels are cubes of about 3 mm.")] = False
    pet: Annotated[bool, Option("", "Abdomen: a PET is the second channel.")] = False
    seed: Annotated[int, SEED] = 0

    def __post_init__(self) -> None:
        _as_paths(self, "dst")


@dataclass
class Import:
    """Convert a public data set, or your own folders of scans and labels, to the nnU-Net raw layout.

    A public data set also gets its named protocols. `scribbleseg import folders IMAGES LABELS DST --class liver=1
    --class background=5 --not-drawn 0` takes the labels of any tool.
    """

    source: Annotated[
        Literal["acdc", "wsl4mis", "mscmr", "nci-isbi", "folders", "dataset"],
        Argument(
            "{acdc,wsl4mis,mscmr,nci-isbi,folders,dataset}",
            "Which data set. docs/data.md says where to get each of them. folders: your own scans and labels. dataset: "
            "a data set of scribbleseg, copied with a label for every image, as nnU-Net wants it.",
        ),
    ]
    src: Annotated[
        tuple[Path, ...],
        Argument("SRC", "The folder of the data set, as downloaded. For folders: IMAGES and LABELS."),
    ]
    dst: Annotated[Path, DST]
    classes: Annotated[
        tuple[str, ...],
        Option(
            "NAME=VALUE",
            "With folders: a class and its value in the label files, or the name of its segment in a .seg.nrrd of "
            "Slicer. Give the option once per class, background included.",
            "none",
            "class",
        ),
    ] = ()
    not_drawn: Annotated[
        tuple[str, ...],
        Option(
            "VALUE",
            "With folders: a value (or segment) that means that nothing was drawn. Give the option once per value.",
            "0, unless a class has it",
        ),
    ] = ()
    channels: Annotated[
        tuple[str, ...],
        Option(
            "NAME",
            "With folders: the name of a channel. It decides how grey values are normalised: CT, noNorm, "
            "rescale_to_0_1, rgb_to_0_1, or any other name. Give the option once per channel.",
            "image",
            "channel",
        ),
    ] = ()
    same_voxels: Annotated[
        bool,
        Option(
            "",
            "With folders and mscmr: accept labels that have the shape of their image, even if their headers say that "
            "they lie at another place or have another spacing.",
        ),
    ] = False

    def __post_init__(self) -> None:
        if isinstance(self.src, (str, Path)):
            self.src = (Path(self.src),)
        self.src = tuple(map(Path, self.src))
        _as_paths(self, "dst")


@dataclass
class Simulate:
    """Draw scribbles from the dense masks of a data set (labelsTr_dense → labelsTr), for cases without scribbles."""

    dataset: Annotated[Path, Argument("DATASET", "Data set with dense masks in labelsTr_dense.")]
    coverage: Annotated[
        float, Option("SHARE", "Share of the curves of each structure that is drawn, above 0 to 1.")
    ] = 0.85
    thickness: Annotated[int, Option("PIXELS", "Width of a stroke.")] = 1
    seed: Annotated[int, SEED] = 0
    overwrite: Annotated[bool, Option("", "Replace existing scribbles.")] = False

    def __post_init__(self) -> None:
        _as_paths(self, "dataset")


@dataclass
class Draw:
    """Draw strokes in the browser, train on them, look at the segmentations and correct them.

    A folder of scans becomes a data set beside it, FOLDER_scribbles; its files stay as they are. The page is for this
    computer only.
    """

    folder: Annotated[
        Path,
        Argument(
            "FOLDER",
            "A data set, or a folder of volumes (NIfTI, NRRD, MHA), of pictures (PNG, TIFF) or of DICOM: a folder per "
            "series.",
        ),
    ]
    classes: Annotated[
        tuple[str, ...],
        Option(
            "NAME[=COLOUR]",
            "A class, such as liver or liver=green. Give the option once per class. Background needs no option. In a "
            "data set that has classes: these in their order, then those to add.",
            "named in the page",
            "class",
        ),
    ] = ()
    port: Annotated[int, Option("N", "Port of the page on this computer.", "a free one")] = 0
    no_browser: Annotated[bool, Option("", "Print the address and open no browser.")] = False

    def __post_init__(self) -> None:
        _as_paths(self, "folder")


@dataclass
class Check:
    """List what is in a data set and what is wrong with it. Exit code 1 means that it cannot be used for training."""

    dataset: Annotated[Path, DATASET]

    def __post_init__(self) -> None:
        _as_paths(self, "dataset")


@dataclass
class Report:
    """Write RUN/report.html with settings, curves, pictures and scores, and RUN/model_card.md.

    The page is one self-contained file.
    """

    run: Annotated[
        Path,
        Argument("RUN", "Run folder. Missing predictions and scores of the held-out cases are computed first."),
    ]
    network: Annotated[str | None, OWN_NETWORK] = None

    def __post_init__(self) -> None:
        _as_paths(self, "run")


@dataclass
class Pack:
    """Pack a run into one file that `predict` takes: weights in half precision, settings and model card.

    No training data, case names or folders of this machine are in the file.
    """

    run: Annotated[Path, Argument("RUN", "Run folder.")]
    output: Annotated[Path, Argument("MODEL.zip", "File to write.")]

    def __post_init__(self) -> None:
        _as_paths(self, "run", "output")


@dataclass
class Export:
    """Export a run for other programs: an ONNX file with a script that needs no PyTorch, or a MONAI bundle.

    One run at a time. To a colleague who has scribbleseg, send what `scribbleseg pack` makes.
    """

    run: Annotated[Path, Argument("RUN", "Run folder.")]
    output: Annotated[Path, Argument("OUT", "Folder to create.")]
    format: Annotated[
        Literal["onnx", "monai"],
        Option(
            "",
            "onnx: model.onnx, model.json and predict.py, for runs on whole slices (needs "
            "`pip install 'scribbleseg[export]'`). monai: a bundle that runs scribbleseg.",
        ),
    ] = "onnx"
    network: Annotated[str | None, OWN_NETWORK] = None

    def __post_init__(self) -> None:
        _as_paths(self, "run", "output")


@dataclass
class Bench:
    """Run the methods, data sets, folds and seeds of a plan and make the tables. Finished runs are skipped."""

    plan: Annotated[
        Path, Argument("PLAN", "A TOML file: your own or one of benchmarks/plans. docs/bench.md describes it.")
    ]
    budget: Annotated[Literal["paper", "quick"], Option("", "As in `scribbleseg train`.")] = "quick"
    folds: Annotated[
        tuple[int, ...],
        Option("N", "Run only this fold of the plan. Give the option once per fold.", "all folds", "fold"),
    ] = ()
    datasets: Annotated[Path, Option("FOLDER", "Folder that holds the data sets.")] = Path("datasets")
    runs: Annotated[Path, Option("FOLDER", "Folder for the runs: weights, logs, predictions.")] = Path("runs")
    results: Annotated[
        Path, Option("FOLDER", "Folder for scores and tables. These files are small and meant to be committed.")
    ] = Path("benchmarks/results")
    table_only: Annotated[bool, Option("", "Start no run. Make the tables of the runs that are done.")] = False
    engine: Annotated[
        Literal["local", "ray"],
        Option(
            "",
            "local: processes on this machine. ray: tasks of a Ray cluster (needs `pip install 'scribbleseg[ray]'`).",
        ),
    ] = "local"
    jobs: Annotated[
        int,
        Option("N", "With the local engine: number of runs at the same time. 0: one per GPU, or one on a CPU."),
    ] = 0
    address: Annotated[
        str,
        Option(
            "HOST:PORT",
            "With the ray engine: auto (the cluster that this machine belongs to), HOST:PORT, or local (a new cluster "
            "on this machine).",
        ),
    ] = "auto"
    checkpoint_every: Annotated[float, CHECKPOINT_EVERY] = 60.0
    device: Annotated[str, DEVICE] = "auto"

    def __post_init__(self) -> None:
        _as_paths(self, "plan", "datasets", "runs", "results")


@dataclass
class Methods:
    """List the methods, or the hyperparameters of one method."""

    name: Annotated[str | None, Argument("[METHOD]", "The method to describe. Without it, all methods are listed.")] = (
        None
    )


@dataclass
class Demo:
    """Make a phantom, train EFFDNet and pCE on it, predict, score, write a report: 5 to 20 minutes on a CPU."""

    run: Annotated[Path, Option("FOLDER", "Folder for all files of the demo.")] = Path("runs/demo")
    device: Annotated[str, DEVICE] = "auto"

    def __post_init__(self) -> None:
        _as_paths(self, "run")


@dataclass
class Resume:
    """`train RUN --resume`: carry on a run that was stopped."""

    run: Path
    method: str | None = None  # these repeat the names of what is not scribbleseg's own code
    network: str | None = None
    augmentation: str | None = None

    def __post_init__(self) -> None:
        _as_paths(self, "run")


# verb → (settings, module:function that takes them), in the order of a user's work
VERBS: dict[str, tuple[type, str]] = {
    "demo": (Demo, "demo:demo"),
    "phantom": (Phantom, "data.synthetic.phantom:phantom"),
    "import": (Import, "data.importers:import_dataset"),
    "simulate": (Simulate, "data.synthetic.simulate:simulate"),
    "draw": (Draw, "draw.draw:draw"),
    "check": (Check, "training.outlook:check"),
    "train": (Train, "training.train:train"),
    "predict": (Predict, "inference.predict:predict"),
    "evaluate": (Evaluate, "evaluation.scores:evaluate"),
    "report": (Report, "reporting.report:report"),
    "pack": (Pack, "sharing.pack:pack"),
    "export": (Export, "sharing.export:export"),
    "bench": (Bench, "bench:bench"),
    "methods": (Methods, "methods.listing:methods"),
}

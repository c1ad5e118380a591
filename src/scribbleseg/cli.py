"""The command line: one dataclass of `config` per verb. Nothing heavy is imported until a verb runs."""

import dataclasses
import errno
import importlib
import os
import shlex
import sys
from pathlib import Path
from typing import Annotated, Union

import tyro

from . import __version__, config
from .core.errors import InputError, nearest

LISTS = ("--set", "--classes", "--folds")  # options that take every word after them

# verb → (settings, module:function that takes them)
VERBS = {
    "demo": (config.Demo, "demo:demo"),
    "phantom": (config.Phantom, "data.synthetic.phantom:phantom"),
    "import": (config.Import, "data.importers:import_dataset"),
    "simulate": (config.Simulate, "data.synthetic.simulate:simulate"),
    "check": (config.Check, "data.check:check"),
    "train": (config.Train, "training.train:train"),
    "predict": (config.Predict, "inference.predict:predict"),
    "evaluate": (config.Evaluate, "evaluation.scores:evaluate"),
    "report": (config.Report, "report.page:report"),
    "bench": (config.Bench, "bench:bench"),
    "methods": (config.Methods, "methods.listing:methods"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Exit code 0, 1 (`check` found the data set not usable), 2 (bad input), 130 (Ctrl-C)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    verb = argv[0] if argv else ""
    try:
        if verb in ("--version", "-V"):
            print(f"scribbleseg {__version__}")
            return 0
        if verb not in VERBS and verb not in ("-h", "--help"):
            raise InputError(
                f"no verb '{verb}'. {nearest(verb, VERBS)}"
                if verb
                else f"what to do? {nearest('', VERBS)} See scribbleseg --help."
            )
        if verb == "train" and "--resume" in argv:
            rest = [word for word in argv[1:] if word != "--resume"]
            if len(rest) != 1 or rest[0].startswith("-"):
                raise InputError(
                    "--resume takes the run folder alone, with the settings it was started with: scribbleseg train RUN --resume"
                )
            return _run("training.train:resume", Path(rest[0]))
        if verb in VERBS:
            _check_options(argv)
            _check_places(argv)
        settings = _parse(argv)
        return _run(VERBS[verb][1], settings)
    except InputError as error:
        print(f"scribbleseg: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"scribbleseg: stopped.{_carry_on(argv)}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # the system's own words: disk full, no permission, a file in the place of a folder
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        way_out = " Choose another place, or change its permissions." if denied else _carry_on(argv)
        print(f"scribbleseg: {error}.{way_out}", file=sys.stderr)
        return 2


def _carry_on(argv: list[str]) -> str:
    """How to resume a training: `train DATASET RUN ...` or `train RUN --resume` name the run, an order with options first does not."""
    if argv[0] == "bench":
        return " Carry on with the same command; with --table-only it makes the tables of what is done."
    if argv[0] == "demo":
        return " Carry on with the same command."
    if argv[0] != "train":
        return ""
    words = [word for word in argv[1:3] if not word.startswith("-")]
    named = len(words) == (1 if "--resume" in argv else 2)
    if named and not (Path(words[-1]) / "config.json").is_file():
        return " No run was begun yet: give the same command again."
    return f" Carry on with: scribbleseg train {shlex.quote(words[-1]) if named else 'RUN'} --resume"


def _check_options(argv: list[str]) -> None:
    """Raises InputError for an option that the verb does not have, with the nearest name, and for a list given twice."""
    kind, _ = VERBS[argv[0]]
    names = [field.name.replace("_", "-") for field in dataclasses.fields(kind) if field.name not in _places(kind)]
    known = {f"--{name}" for name in names} | {"--help"} | ({"--resume"} if argv[0] == "train" else set())
    for option in LISTS:
        if sum(word.partition("=")[0] == option for word in argv) > 1:
            raise InputError(
                f"{option} is given twice; only one would count. Write all its values after one: {option} A B."
            )
    for word in argv[1:]:
        option = word.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known and option.replace("--no-", "--", 1) not in known:
            raise InputError(f"scribbleseg {argv[0]} has no option '{option}'. {nearest(option, known)}")


def _check_places(argv: list[str]) -> None:
    """Raises InputError when a word is missing and a list option may have taken it, as in `bench --folds 0 1 PLAN`."""
    kind, _ = VERBS[argv[0]]
    given = [option for option in LISTS if option in argv]
    missing = [name.upper() for name in _places(kind)][len(_options_and_words(kind, argv[1:])[1]) :]
    if given and missing and not {"-h", "--help"} & set(argv):
        order = " ".join(["scribbleseg", argv[0], *map(str.upper, _places(kind)), given[0], "..."])
        raise InputError(
            f"{' and '.join(missing)} missing. {given[0]} takes every word after it; put the others first: {order}"
        )


def _places(kind: type) -> list[str]:
    """The settings that are words without an option's name."""
    return [
        field.name
        for field in dataclasses.fields(kind)
        if tyro.conf.Positional in getattr(field.type, "__metadata__", ())
    ]


def _parse(argv: list[str]):
    if argv and argv[0] in VERBS:
        kind, _ = VERBS[argv[0]]
        words = argv[1:]
        if argv[0] == "predict":  # behind RUN [RUN ...] tyro finds INPUT and OUTPUT only at the very end of the line
            words = sum(_options_and_words(kind, words), [])
        return tyro.cli(kind, args=words, prog=f"scribbleseg {argv[0]}", config=(tyro.conf.OmitArgPrefixes,))
    # only reached for --help: the list of verbs
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(verb)] for verb, (kind, _) in VERBS.items())
    return tyro.cli(
        Union[kinds], args=argv, prog="scribbleseg", description="Segmentation of medical volumes from scribbles."
    )


def _options_and_words(kind: type, argv: list[str]) -> tuple[list[str], list[str]]:
    """Options with their values, and the other words."""
    switches = [field.name.replace("_", "-") for field in dataclasses.fields(kind) if field.type is bool]
    alone = {"--help", *(f"--{name}" for name in switches), *(f"--no-{name}" for name in switches)}  # no value follows
    options, words, rest = [], [], list(argv)
    while rest:
        word = rest.pop(0)
        (options if word.startswith("-") else words).append(word)
        if word.startswith("--") and word.replace("_", "-") not in alone and "=" not in word:
            count = (
                next((i for i, other in enumerate(rest) if other.startswith("--")), len(rest)) if word in LISTS else 1
            )
            options += rest[:count]
            del rest[:count]
    return options, words


def _run(target: str, settings) -> int:
    module, _, function = target.partition(":")
    result = getattr(importlib.import_module(f"scribbleseg.{module}"), function)(settings)
    if result is False:
        return 1
    said = _what_next(settings, result)
    if said and os.environ.get("RANK", "0") == "0":  # of torchrun's processes one speaks
        print(said, file=sys.stderr)
    return 0


def _what_next(settings, result) -> str:
    """What a verb wrote and what comes after it, where the verb has not said so; may be empty."""
    match settings:
        case config.Train(run=run) | (Path() as run):  # a path: train RUN --resume
            return f"run: {run}; next: {_order('predict', run, 'INPUT', 'OUTPUT')}, or {_order('report', run)}"
        case config.Predict(input=source, output=output):
            truths = [
                source / part
                for part in ("labelsTr_dense", "labelsTs")
                if any((source / part / path.name).is_file() for path in result)
            ]
            score = f"; next: {_order('evaluate', output, truths[0])}" if truths else ""
            return f"predictions: {output}, {len(result)} file{'s' * (len(result) > 1)}{score}"
        case config.Phantom(dst=dataset) | config.Import(dst=dataset) | config.Simulate(dataset=dataset):
            return f"data set: {dataset}; next: {_order('check', dataset)}"
        case config.Check(dataset=dataset):
            held_out = (dataset / "splits").is_dir() or (dataset / "splits_final.json").is_file()
            share = () if held_out else ("--val-share", "0.2")
            return f"next: {_order('train', dataset, 'RUN', '--method', 'scn', '--budget', 'quick', *share)}"
        case config.Evaluate(out=Path() as table):
            return f"scores: {table}"
        case config.Demo(run=folder):
            other = _order("train", folder / "phantom", "runs/scn", "--method", "scn", "--budget", "quick")
            return f"next: open the report, or try another method: {other}"
    return ""


def _order(*words) -> str:
    return shlex.join(["scribbleseg", *map(str, words)])

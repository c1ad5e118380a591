"""The command line: one dataclass of `config` per verb. Nothing heavy is imported until a verb runs."""

import dataclasses
import importlib
import os
import shlex
import sys
from itertools import islice
from pathlib import Path
from typing import Annotated, Union

import tyro

from . import __version__, config
from .errors import InputError, nearest

# verb → (settings, module:function that takes them)
VERBS = {
    "demo": (config.Demo, "demo:demo"),
    "phantom": (config.Phantom, "data.phantom:phantom"),
    "import": (config.Import, "data.imports:import_dataset"),
    "simulate": (config.Simulate, "data.simulate:simulate"),
    "check": (config.Check, "data.check:check"),
    "train": (config.Train, "train:train"),
    "predict": (config.Predict, "predict:predict"),
    "evaluate": (config.Evaluate, "evaluate:evaluate"),
    "report": (config.Report, "report:report"),
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
            raise InputError(f"no verb '{verb}'. {nearest(verb, VERBS)}" if verb else f"what to do? {nearest('', VERBS)} See scribbleseg --help.")
        if verb == "train" and "--resume" in argv:
            rest = [word for word in argv[1:] if word != "--resume"]
            if len(rest) != 1 or rest[0].startswith("-"):
                raise InputError("--resume takes the run folder alone, with the settings it was started with: scribbleseg train RUN --resume")
            return _run("train:resume", Path(rest[0]))
        _check_options(argv)
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
        print(f"scribbleseg: {error}.{_carry_on(argv)}", file=sys.stderr)
        return 2


def _carry_on(argv: list[str]) -> str:
    """How to resume a training: `train DATASET RUN ...` or `train RUN --resume` name the run, an order with options first does not."""
    if argv[0] == "bench":
        return " Carry on with the same command."
    if argv[0] != "train":
        return ""
    words = [word for word in argv[1:3] if not word.startswith("-")]
    named = len(words) == (1 if "--resume" in argv else 2)
    return f" Carry on with: scribbleseg train {shlex.quote(words[-1]) if named else 'RUN'} --resume"


def _check_options(argv: list[str]) -> None:
    """Raises InputError for an option that the verb does not have, with the nearest name, and for a list given twice."""
    if argv[0] not in VERBS:
        return
    names = [field.name.replace("_", "-") for field in dataclasses.fields(VERBS[argv[0]][0])]
    known = {f"--{name}" for name in names} | {"--help"} | ({"--resume"} if argv[0] == "train" else set())
    for option in ("--set", "--classes", "--folds"):
        if sum(word.partition("=")[0] == option for word in argv) > 1:
            raise InputError(f"{option} is given twice; only one would count. Write all its values after one: {option} A B.")
    for word in argv[1:]:
        option = word.partition("=")[0].replace("_", "-")
        if option.startswith("--") and option not in known and option.replace("--no-", "--", 1) not in known:
            raise InputError(f"scribbleseg {argv[0]} has no option '{option}'. {nearest(option, known)}")


def _parse(argv: list[str]):
    if argv and argv[0] in VERBS:
        kind, _ = VERBS[argv[0]]
        words = _options_first(kind, argv[1:]) if argv[0] == "predict" else argv[1:]
        return tyro.cli(kind, args=words, prog=f"scribbleseg {argv[0]}", config=(tyro.conf.OmitArgPrefixes,))
    # only reached for --help: the list of verbs
    kinds = tuple(Annotated[kind, tyro.conf.subcommand(verb)] for verb, (kind, _) in VERBS.items())
    return tyro.cli(Union[kinds], args=argv, prog="scribbleseg", description="Segmentation of medical volumes from scribbles.")


def _options_first(kind: type, words: list[str]) -> list[str]:
    """Options with their value, then the other words: behind RUN [RUN ...] tyro finds INPUT and OUTPUT only at the very end of the line."""
    flags = {"--help"} | {f"--{no}{field.name}" for field in dataclasses.fields(kind) if field.type is bool for no in ("", "no-")}
    options, others, rest = [], [], iter(words)
    for word in rest:
        (options if word.startswith("-") else others).append(word)
        if word.startswith("--") and word not in flags and "=" not in word:
            options += list(islice(rest, 1))
    return options + others


def _run(target: str, settings) -> int:
    module, _, function = target.partition(":")
    result = getattr(importlib.import_module(f"scribbleseg.{module}"), function)(settings)
    return 1 if result is False else 0

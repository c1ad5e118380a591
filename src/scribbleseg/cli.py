"""The command line: one click command per dataclass of `config`. Nothing heavy is imported until a verb runs."""

import dataclasses
import errno
import importlib
import inspect
import io
import os
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click
from click.core import ParameterSource

from . import __version__, config
from .config import VERBS
from .core.console import say
from .core.errors import InputError, counted
from .core.signals import stops

NO_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory")  # PyTorch's words


def main(argv: list[str] | None = None) -> int:
    """Run one verb.

    Exit code 0, 1 (`check`: the data set cannot be used), 2 (bad input), 130 (Ctrl-C, SIGTERM, SIGHUP).
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal without → and λ, a file's name that is no text
    with stops():
        return _main(argv)


def _main(argv: list[str]) -> int:
    settings = None
    try:
        settings = parse(argv)
        if settings is None:
            return 0
        resumes = isinstance(settings, config.Resume)
        return _run("training.train:carry_on" if resumes else VERBS[argv[0]][1], settings)
    except InputError as error:
        say(f"scribbleseg: {error}")
        return 2
    except KeyboardInterrupt:
        say(f"scribbleseg: stopped.{_how_to_continue(settings)}")
        return 130
    except (MemoryError, RuntimeError) as error:
        if not (isinstance(error, MemoryError) or NO_MEMORY.search(str(error))):
            raise
        said = " ".join(str(error).split()[:25])
        say(f"scribbleseg: out of memory ({said or 'no more to have'}). {_way_out_of_memory(settings)}")
        return 2
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # disk full, no permission, a file where a folder is needed: the system's own words
        denied = error.errno in (errno.EACCES, errno.EPERM, errno.EROFS)
        advice = " Change its permissions, or name another place." if denied else _how_to_continue(settings)
        say(f"scribbleseg: {error}.{advice}")
        return 2


def parse(argv: list[str]) -> Any:
    """The settings that a command line gives, or None after --help and --version.

    Raises InputError for an unknown verb or option, a missing argument and a value of another type.
    """
    group = _Verbs(
        "scribbleseg",
        {verb: _command(verb, kind) for verb, (kind, _) in VERBS.items()},
        help="Segmentation of medical volumes from scribbles. `scribbleseg COMMAND --help` describes a command.",
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
    group = click.version_option(__version__, "-V", "--version", message="%(prog)s %(version)s")(group)
    try:
        settings = group.main(argv, prog_name="scribbleseg", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        raise InputError(f"No command given. Known: {', '.join(VERBS)}. See scribbleseg --help.") from error
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx else "scribbleseg"
        said = error.format_message()
        stop = "" if said.endswith((".", "?", "?)")) else "."
        raise InputError(f"{said}{stop}{_repeat(error)} See {command} --help.") from error
    return None if settings == 0 else settings  # click returns the exit code 0 after --help


class _Verbs(click.Group):
    """The commands in the order of VERBS; click sorts them by name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


def _command(verb: str, kind: type) -> click.Command:
    hints = get_type_hints(kind, include_extras=True)
    params = [_parameter(field, *get_args(hints[field.name])) for field in dataclasses.fields(kind)]
    text = inspect.cleandoc(kind.__doc__ or "")
    make: Callable = kind
    if kind is config.Train:
        make = _train_or_resume
        words = "Continue the run in RUN, the only folder to give, with the settings that it was started with."
        # eager: it is read first, and says whether DATASET and RUN are both required
        params.append(click.Option(["--resume"], is_flag=True, is_eager=True, callback=_takes_one, help=words))
    return click.Command(verb, params=params, callback=make, help=text, short_help=text.splitlines()[0])


def _parameter(field: dataclasses.Field, kind: Any, shown: config.Argument | config.Option) -> click.Parameter:
    """The click parameter of a field: a tuple takes several values, a Literal offers its choices."""
    if get_origin(kind) in (Union, UnionType):  # the last that is not None: of `str | Path | None` Path
        kind = [part for part in get_args(kind) if part is not type(None)][-1]
    several = get_origin(kind) is tuple
    if several:
        kind = get_args(kind)[0]
    of_type: Any = click.Choice(get_args(kind)) if get_origin(kind) is Literal else kind
    required = field.default is dataclasses.MISSING
    if isinstance(shown, config.Argument):
        return click.Argument(
            [field.name],
            type=of_type,
            help=shown.help,
            metavar=f"{shown.metavar} [{shown.metavar} ...]" if several else shown.metavar,
            nargs=-1 if several else 1,
            required=required and not several,  # the verb says what is missing of RUN [RUN ...] INPUT OUTPUT
        )
    return click.Option(
        [f"--{shown.name or field.name.replace('_', '-')}", field.name],
        type=of_type,
        help=shown.help,
        metavar=shown.metavar or None,
        multiple=several,
        is_flag=kind is bool,
        default=field.default,
        show_default=shown.default or (kind is not bool),
    )


def _repeat(error: click.UsageError) -> str:
    """How to give several values, where the user seems to have written them after one option."""
    if error.ctx is None:
        return ""
    near = (getattr(error, "possibilities", None) or [""])[0]
    for param in error.ctx.command.params:
        if isinstance(param, click.Option) and param.multiple:
            option, value = param.opts[0], param.metavar
            extra = "extra argument" in error.message and error.ctx.params.get(param.name or "")
            if extra or option == near:
                return f" Repeat the option for each value: {option} {value} {option} {value}."
    return ""


def _takes_one(context: click.Context, _: click.Parameter, resume: bool) -> bool:
    for param in context.command.params:
        param.required = param.required and not resume
    return resume


def _train_or_resume(resume: bool, **given: Any) -> config.Train | config.Resume:
    if not resume:
        return config.Train(**given)
    context, own = click.get_current_context(), ("method", "network", "augmentation")
    said = [name for name in given if context.get_parameter_source(name) is ParameterSource.COMMANDLINE]
    more = [f"--{name.replace('_', '-')}" for name in said if name not in ("dataset", "run", *own)]
    more += [str(given["run"])] if "run" in said else []
    if more or "dataset" not in said:
        found = f"It was also given {', '.join(more)}" if more else "No folder was given"
        raise InputError(
            "--resume takes only the run folder (and a --method, --network or --augmentation that is not one of "
            f"scribbleseg's). {found}. The settings are those that the run was started with: "
            "scribbleseg train RUN --resume"
        )
    return config.Resume(given["dataset"], **{name: given[name] for name in own})


def _beside_others() -> bool:
    """Whether other programs use more than half a core; watches for .1 s. False where the system does not tell."""
    import psutil

    try:
        return psutil.cpu_percent(0.1) * (psutil.cpu_count() or 1) > 50
    except OSError:
        return False


def _run(target: str, settings: Any) -> int:
    module, _, function = target.partition(":")
    computes = isinstance(settings, (config.Train, config.Resume, config.Predict))
    if computes and "OMP_WAIT_POLICY" not in os.environ and _beside_others():
        os.environ["OMP_WAIT_POLICY"] = "passive"  # PyTorch's threads that wait leave their core to others
    result = getattr(importlib.import_module(f"scribbleseg.{module}"), function)(settings)
    if result is False:
        return 1
    said = _what_next(settings, result)
    if said and os.environ.get("RANK", "0") == "0":  # only one of torchrun's processes prints it
        say(said)
    return 0


def _how_to_continue(settings: Any) -> str:
    """The command that continues what was stopped; empty for verbs that start again, and where it is not known."""
    try:
        return _continuation(settings)
    except OSError:  # a folder that may not be read, a name that is too long
        return ""


def _continuation(settings: Any) -> str:
    match settings:
        case config.Bench():
            return " Continue with the same command. With --table-only it makes the tables of the runs that are done."
        case config.Demo():
            return " Continue with the same command."
        case config.Draw(folder=folder):
            from .draw import scribbles_folder  # which imports no PyTorch: its import may have been stopped

            made = (folder / "dataset.json").is_file() or (scribbles_folder(folder) / "dataset.json").is_file()
            return f" {'The strokes are saved' if made else 'No class was named'}. Continue with the same command."
        case config.Train(run=run) | config.Resume(run=run):
            if (run / "config.json").is_file():
                named = _own(settings, "method", "network", "augmentation")
                return f" Continue with: {_order('train', run, '--resume', *named)}"
            return " The run had not started yet: give the same command again."
    return ""


def _own(settings: config.Train | config.Resume, *options: str) -> list[str]:
    """Those of the options that name code of the user's own, as they are given again."""
    given = {option: getattr(settings, option) or "" for option in options}
    own = {option: name for option, name in given.items() if ":" in name and not name.startswith("monai:")}
    return [word for option, name in own.items() for word in (f"--{option}", name)]


def _way_out_of_memory(settings: Any) -> str:
    match settings:
        case config.Train():
            return "Give a smaller --batch or --size, or another --device."
        case config.Predict():
            return "Give a smaller --batch, leave out --probabilities, or give another --device."
    return "End other programs, or use a machine with more memory."


def _what_next(settings: Any, result: Any) -> str:
    """What a verb wrote and what comes after it, where the verb has not said so; may be empty."""
    match settings:
        case config.Train(run=run) | config.Resume(run=run):
            named = _own(settings, "network")
            predict, report = _order("predict", run, "INPUT", "OUTPUT", *named), _order("report", run, *named)
            return f"run: {run}; next: {predict}, or {report}"
        case config.Predict(input=source, output=output):
            truths = [
                source / part
                for part in ("labelsTr_dense", "labelsTs")
                if any((source / part / path.name).is_file() for path in result)
            ]
            score = f"; next: {_order('evaluate', output, truths[0])}" if truths else ""
            return f"predictions: {output}, {counted(len(result), 'file')}{score}"
        case config.Phantom(dst=dataset) | config.Import(dst=dataset) | config.Simulate(dataset=dataset):
            return f"data set: {dataset}; next: {_order('check', dataset)}"
        case config.Check(dataset=dataset):
            return f"next: {_order('train', dataset, 'RUN', '--preset', 'fast', *_split_options(dataset))}"
        case config.Pack(output=model):
            return f"packed model: {model}; next: {_order('predict', model, 'INPUT', 'OUTPUT')}"
        case config.Export(output=folder):
            return f"exported: {folder}; README.md in it is the model card"
        case config.Evaluate(out=Path() as table):
            return f"scores: {table}"
        case config.Demo(run=folder):
            other = _order("train", folder / "phantom", "runs/scn", "--method", "scn", "--budget", "quick")
            return f"next: open the report, or try another method: {other}"
    return ""


def _split_options(folder: Path) -> tuple[str, ...]:
    """What `train` needs to be told about the splits of a data set."""
    from .data.layout import read_dataset

    dataset = read_dataset(folder)
    splits = dataset.splits()
    if not splits:
        return ("--val-share", "0.2") if len({dataset.patient(case) for case in dataset.cases}) > 1 else ()
    try:
        dataset.default_split()
    except InputError:
        return "--split", min(splits, key=lambda name: name == "tuning")
    return ()


def _order(*words: object) -> str:
    return shlex.join(["scribbleseg", *map(str, words)])

"""What the options of methods may be, and that one rule holds wherever they are given."""

import json
from typing import Annotated

import numpy as np
import pytest
from torch import nn

from scribbleseg import cli
from scribbleseg.config import Train
from scribbleseg.core.errors import InputError
from scribbleseg.methods import METHODS, hyperparameters, method_class, method_options, parse_options
from scribbleseg.methods.base import Method
from scribbleseg.methods.effdnet import EFFDNet
from scribbleseg.methods.options import above, at_least, between, one_of
from scribbleseg.networks import build_network
from scribbleseg.networks.scribformer import ScribFormerNetwork
from scribbleseg.networks.unet import UNet
from scribbleseg.training.train import resume, train


@pytest.mark.parametrize(
    "allowed, inside, outside",
    [
        (above(0), (1e-9, 5), (0, -1, 0.0)),
        (at_least(1), (1, 2.5), (0, 0.999)),
        (between(0, 1), (0, 0.5, 1), (-1e-9, 1.001)),
        (one_of("inside", "outside"), ("inside", "outside"), ("insid", "", "Inside")),
        (one_of(1, 2, 4), (1, 4), (3, 0)),
    ],
)
def test_ranges_hold_up_to_their_ends(allowed, inside, outside):
    assert all(map(allowed.holds, inside))
    assert not any(map(allowed.holds, outside))


@pytest.mark.parametrize("name", METHODS)
def test_every_option_of_ours_says_what_it_may_be_and_means(name):
    for option in method_options(name).values():
        assert option.allows(option.default), option
        assert option.meaning, f"{option.name}: say what it is"
        assert option.range or isinstance(option.default, bool), f"{option.name}: declare its range"


@pytest.mark.parametrize("name", METHODS)
def test_what_is_not_finite_or_of_another_type_is_refused_everywhere(name):
    for key, option in method_options(name).items():
        wrong = ["no", "nan", "inf", "-inf"] if isinstance(option.default, (bool, int, float)) else ["no"]
        wrong += ["1.5"] if isinstance(option.default, int) else []
        for text in wrong:
            with pytest.raises(InputError, match=rf"^--set {key}={text}: '{text}' is not .*the default is "):
                parse_options(name, (f"{key}={text}",))
        values = [None, [1], float("nan"), float("inf")]
        values += [1] if isinstance(option.default, (bool, str)) else ["1", True]
        for value in values:
            with pytest.raises(InputError, match=f": {key} is .*; expected "):
                method_class(name)(nn.Identity(), **{key: value})


REFUSED = [
    ("effdnet", "blocks", 0, "a whole number of 1 or more"),
    ("effdnet", "alpha", 2.0, "a number from 0 to 1"),
    ("effdnet", "noise", -1.0, "a number of 0 or more"),
    ("effdnet", "lam", -1.0, "a number of 0 or more"),
    ("effdnet", "delta", -0.1, "a number of 0 or more"),
    ("effdnet", "temperature", 0.0, "a number above 0"),
    ("effdnet", "box", "forground", "annotated or foreground"),
    ("scn", "threshold", 1.5, "a number from 0 to 1"),
    ("scn", "rows", 0, "a whole number of 1 or more"),
    ("scn", "dim", 0, "a whole number of 1 or more"),
    ("scn", "momentum", 2.0, "a number from 0 to 1"),
    ("scn", "temperature", 0.0, "a number above 0"),
    *(("scn", f"lambda{i}", -1.0, "a number of 0 or more") for i in (1, 2, 3, 4)),
    ("scn", "stride", 3, "1, 2, 4, 8 or 16"),
    ("scn", "scale", "outsid", "inside or outside"),
    ("scn", "overlap", "regio", "region or mask"),
    ("ustm", "entropy_base", "three", "classes or two"),
    ("ustm", "passes", 0, "a whole number of 1 or more"),
    ("rw", "missing", "backgroud", "present or background"),
    ("rloss", "radius", -1, "a whole number of 0 or more"),
    ("rloss", "sigma_px", 0.0, "a number above 0"),
    ("s2l", "confidence", 1.5, "a number from 0 to 1"),
    ("s2l", "sweep_batch", 0, "a whole number of 1 or more"),
    ("dmpls", "dropout", 1.5, "a number from 0 to 1"),
    ("fddseg", "target_share", -0.5, "a number from 0 to 1"),
    ("fddseg", "reach", -1, "a whole number of 0 or more"),
    ("tv", "weight", -0.1, "a number of 0 or more"),
]


@pytest.mark.parametrize("name, key, value, expected", REFUSED)
def test_a_value_out_of_range_is_refused_by_set_and_in_python(name, key, value, expected):
    default = hyperparameters(name)[key]
    with pytest.raises(InputError) as caught:
        parse_options(name, (f"{key}={value}",))
    assert str(caught.value) == f"--set {key}={value}: '{value}' is not {expected} (the default is {default})."
    kind = method_class(name)
    with pytest.raises(InputError) as caught:
        kind(nn.Identity(), **{key: value})
    assert str(caught.value) == (
        f"{kind.__name__}: {key} is {value!r}; expected {expected} (the default is {default!r})."
    )


def test_whole_numbers_and_numpys_may_stand_for_floats():
    network = UNet(1, 2, (4, 4), (0.0, 0.0))
    assert EFFDNet(network, lam=1, alpha=np.float32(0.5), blocks=np.int64(2)).blocks == 2
    assert parse_options("effdnet", ("lam=1", "fbsl=FALSE", "box=foreground")) == {
        "lam": 1.0,
        "fbsl": False,
        "box": "foreground",
    }


def test_unknown_and_incomplete_options_are_named():
    with pytest.raises(InputError, match=r"--set lamb=1: effdnet has no option 'lamb'\. Did you mean 'lam'\?"):
        parse_options("effdnet", ("lamb=1",))
    with pytest.raises(InputError, match="pce has no option 'lam'. This method has no options. Write NAME=VALUE"):
        parse_options("pce", ("lam=1",))
    with pytest.raises(InputError, match=r"--set lam: the value is missing\. Write NAME=VALUE, such as lam=0\.6"):
        parse_options("effdnet", ("lam",))
    with pytest.raises(InputError, match="EFFDNet: no option 'lamb'. Did you mean 'lam'"):
        EFFDNet(UNet(1, 2, (4, 4), (0.0, 0.0)), lamb=1.0)


@pytest.mark.parametrize("changed, said", [({"lam": -1.0}, "lam is -1.0"), ({"lamb": 1.0}, "no option 'lamb'")])
def test_an_edited_run_folder_is_refused(small, tmp_path, changed, said):
    short = {"iterations": 1, "size": 32, "batch": 2, "precision": "float32", "device": "cpu"}
    run = train(Train(small, tmp_path / "run", method="effdnet", **short))
    stored = json.loads((run / "config.json").read_text(encoding="utf-8"))
    stored["plan"]["options"] = changed
    (run / "config.json").write_text(json.dumps(stored), encoding="utf-8")
    for name in ("resume.pt", "last.safetensors"):
        (run / name).unlink()
    with pytest.raises(InputError, match=said):
        resume(run)


class Plain(Method):
    """Somebody's method, without declared ranges."""

    def __init__(self, network, *, weight=1.0, steps=(1, 2), note=None):
        super().__init__(network)
        self.weight, self.steps, self.note = weight, steps, note


class Open(EFFDNet):
    """Somebody's method that hands options on."""

    def __init__(self, network, **options):
        super().__init__(network, **options)


class Quoted(Method):
    """Its annotations are texts, as with `from __future__ import annotations`; one cannot be resolved."""

    def __init__(self, network: "nn.Module", *, weight: "Annotated[float, above(0), 'w']" = 1.0):
        super().__init__(network)


class Unresolved(Method):
    def __init__(self, network: "Missing", *, weight: float = 1.0):  # noqa: F821
        super().__init__(network)


def test_methods_without_declared_ranges_still_work():
    name = f"{__name__}:Plain"
    assert Plain(nn.Identity(), weight=-3.0, steps=[5], note="any").steps == [5]
    assert parse_options(name, ("weight=-3",)) == {"weight": -3.0}
    with pytest.raises(InputError, match="weight is 'x'; expected a number"):
        Plain(nn.Identity(), weight="x")
    for key in ("steps", "note"):
        with pytest.raises(InputError, match=rf"--set {key}=3: '3' is not a \w+ \(only from Python\)"):
            parse_options(name, (f"{key}=3",))
    assert method_options(f"{__name__}:Unresolved")["weight"].range is None
    assert Unresolved(nn.Identity(), weight=-1.0)


def test_options_that_are_handed_on_are_checked_by_who_declares_them():
    with pytest.raises(InputError, match="Open: alpha is 2; expected a number from 0 to 1"):
        Open(UNet(1, 2, (4, 4), (0.0, 0.0)), alpha=2)


def test_annotations_may_be_texts():
    assert method_options(f"{__name__}:Quoted")["weight"].meaning == "w"
    with pytest.raises(InputError, match="Quoted: weight is 0; expected a number above 0"):
        Quoted(nn.Identity(), weight=0)


@pytest.mark.parametrize("name", METHODS)
def test_the_network_that_is_built_by_default_has_what_a_method_needs(name):
    kind = method_class(name)
    network = ScribFormerNetwork(1, 2, 16, 64, 6) if kind.network_name == "scribformer" else build_network("unet", 1, 2)
    assert all(hasattr(network, need) for need in kind.needs)


@pytest.mark.parametrize("name", [name for name in METHODS if method_class(name).needs])
def test_a_network_that_lacks_something_is_refused(name):
    kind = method_class(name)
    with pytest.raises(InputError) as caught:
        kind(nn.Linear(1, 1))
    said = ", ".join(kind.needs)
    assert str(caught.value) == (
        f"{kind.__name__} needs a network with {said}; Linear has no {said}. "
        f"Use --network {kind.network_name}, or another method."
    )


@pytest.mark.parametrize(
    "name, network, lacking",
    [
        ("dmpls", ScribFormerNetwork(1, 2, 16, 64, 6), "encode"),
        ("scribformer", UNet(1, 2, (4, 4), (0.0, 0.0)), "branches"),
    ],
)
def test_only_what_is_lacking_is_named(name, network, lacking):
    with pytest.raises(InputError, match=f"{type(network).__name__} has no {lacking}\\. Use --network"):
        method_class(name)(network)


def test_the_listing_shows_default_range_and_meaning(capsys):
    assert cli.main(["methods", "effdnet"]) == 0
    said = capsys.readouterr().out.splitlines()
    lines = {line.split()[1]: line.split(maxsplit=2)[2] for line in said if line.startswith("  --set ")}
    assert lines["lam=0.6"] == "a number of 0 or more; λ, weight of L_P and FBSL"
    assert lines["fbsl=true"].startswith("true or false; foreground-background separation")
    assert lines["box=annotated"].startswith("annotated or foreground; ")
    assert len(lines) == len(hyperparameters("effdnet"))
    assert cli.main(["methods", "pce"]) == 0 and "--set" not in capsys.readouterr().out

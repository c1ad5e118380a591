"""How every method is trained and its defaults, against the numbers of its paper or released code, written out here."""

import dataclasses

import pytest
import torch
from torch import nn

from scribbleseg.core.recipe import Recipe
from scribbleseg.methods import METHODS, hyperparameters, method_class
from scribbleseg.training.optimizer import make_optimizer

SHARED = {
    "optimizer": "sgd",
    "lr": 0.01,
    "schedule": "poly",
    "weight_decay": 1e-4,
    "batch": 12,
    "iterations": 60_000,
    "ema": 0.0,
    "augmentation": "papers",
}
EFFDNET = {"lam": 0.6, "delta": 0.3, "fbsl": True, "fadc": True, "blocks": 8, "temperature": 0.07, "box": "annotated"}
LITERAL_EFFDNET = {  # the printed forms are off
    "averages": "labelled",
    "pool": "batch",
    "anchors": "with positives",
    "resize": "nearest",
    "warm_up": True,
}
SCN = {
    "pap": True,
    "rsr": True,
    "cgtm": True,
    "cacl": True,
    "lambda1": 1.0,
    "lambda2": 0.3,
    "lambda3": 0.25,
    "lambda4": 0.1,
}
FDDSEG = {
    "pseudo_weight": 0.5,
    "side_weight": 0.35,
    "distill_weight": 0.15,
    "target_share": 0.4,
    "dropout": 0.5,
    "reach": 7,
}
EXPECTED = {  # what differs from the shared recipe, and the options
    "pce": ({"lr": 0.03}, {}),
    "fullsup": ({"lr": 0.03}, {}),
    "nnunet-pl": ({}, {"dice_weight": 1.0}),
    "entmin": ({}, {"weight": 0.1}),
    "tv": ({}, {"weight": 0.01}),
    "rloss": ({}, {"weight": 0.1, "radius": 5, "sigma_px": 6.0, "sigma_intensity": 0.1}),
    "mloss": ({}, {"weight": 1e-6, "swapped": False, "length": "prediction"}),
    "ustm": ({}, {"weight": 1.0, "passes": 8, "noise": 0.1, "alpha": 0.99, "entropy_base": "classes"}),
    "dmpls": ({}, {"weight": 0.5, "dropout": 0.5}),
    "effdnet": ({}, EFFDNET | LITERAL_EFFDNET | {"noise": 0.1, "alpha": 0.99, "teacher_dropout": True}),
    "rw": ({}, {"beta": 100.0, "missing": "present"}),
    "s2l": ({}, {"sweeps": 600, "alpha": 0.2, "confidence": 0.8, "weight": 0.5, "start": 0.1, "sweep_batch": 64}),
    "scribformer": (
        {"optimizer": "adamw", "lr": 1e-3, "schedule": "constant", "weight_decay": 5e-4, "batch": 8},
        {"pseudo_weight": 0.5, "cam_weight": 0.1},
    ),
    "fddseg": ({"batch": 4}, FDDSEG),
    "corral": (
        {"optimizer": "adamw", "lr": 1e-3, "schedule": "onecycle", "weight_decay": 0.01, "iterations": 6000}
        | {"ema": 0.99},
        {"enclosed": 1.0, "taught": 0.0, "beta": 200.0, "gamma": 0.7, "narrow": 0.5, "soft": 0.0},
    ),
    "scn": (
        {"optimizer": "adam", "lr": 1e-3, "schedule": "step", "weight_decay": 0.0, "batch": 24, "iterations": 30_000}
        | {"step_at": (0.25, 0.5, 0.75), "gamma": 0.5},
        SCN
        | {"stride": 8, "dim": 64, "scale": "inside", "rows": 128, "overlap": "region"}
        | {"threshold": 0.85, "momentum": 0.999, "towards": "class maximum", "region_threshold": 0.85}
        | {"temperature": 0.1}
        | {"projections": True, "region_cut": 0.5, "growth": "at once", "cosine": True, "averages": "labelled"},
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_recipe_and_defaults_are_the_papers(name):
    assert name in EXPECTED, "write its recipe and defaults here, as its paper has them"
    changes, options = EXPECTED[name]
    recipe = dataclasses.asdict(method_class(name).recipe)
    if recipe["schedule"] != "step":
        del recipe["step_at"], recipe["gamma"]
    assert recipe == SHARED | changes
    assert hyperparameters(name) == options


@pytest.mark.parametrize(
    "kind, named", [(torch.optim.SGD, "sgd"), (torch.optim.Adam, "adam"), (torch.optim.AdamW, "adamw")]
)
def test_the_optimiser_has_the_recipes_numbers(kind, named):
    optimizer = make_optimizer(
        Recipe(optimizer=named, lr=0.25, weight_decay=0.125), nn.Linear(1, 1), torch.device("cpu")
    )
    assert type(optimizer) is kind
    (group,) = optimizer.param_groups
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert group["momentum"] == 0.9 if named == "sgd" else group["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("name", METHODS)
def test_options_that_came_later_are_options(name):
    assert set(method_class(name).later) <= hyperparameters(name).keys()

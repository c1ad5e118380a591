"""How a method is trained: optimiser, schedule and length, as its paper gives them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """The training settings of a method, as its paper gives them. They are printed with the results."""

    optimizer: str = "sgd"  # sgd | adam | adamw
    lr: float = 0.01
    schedule: str = "poly"  # poly (power .9 per iteration) | cosine | onecycle | step | constant
    weight_decay: float = 1e-4
    batch: int = 12
    iterations: int = 60_000
    step_at: tuple[float, ...] = ()  # schedule="step": the shares of the run after which the rate is multiplied by
    gamma: float = 0.1
    augmentation: str = "papers"  # papers: quarter turns and flips | upright: orientation is kept
    ema: float = 0.0  # above 0: what is evaluated is the exponential mean of the weights with this decay

"""Losses: functions of tensors. Unlabelled pixels (UNLABELED) never receive a gradient."""

from .regularizers import entropy, gated_crf, mumford_shah, total_variation
from .separation import foreground_augmentation, foreground_background_separation
from .supervised import dice_loss, partial_cross_entropy

__all__ = [
    "dice_loss",
    "entropy",
    "foreground_augmentation",
    "foreground_background_separation",
    "gated_crf",
    "mumford_shah",
    "partial_cross_entropy",
    "total_variation",
]

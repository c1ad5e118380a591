"""The value that stands for "not drawn" in every label array."""

UNLABELED = 255

"""Labels: values, recoding, boxes."""

UNLABELED = 255

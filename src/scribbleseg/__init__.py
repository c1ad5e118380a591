"""scribbleseg: segmentation of medical volumes from scribbles."""

__version__ = "0.1.0"

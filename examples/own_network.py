"""A network and an augmentation of your own, named on the command line, without a change to scribbleseg.

From the folder above this one:

    export PYTHONPATH=.
    scribbleseg train DATASET RUN --network examples.own_network:Dilated --augmentation examples.own_network:mirror
    scribbleseg predict RUN INPUT OUTPUT --network examples.own_network:Dilated

Once your package is installed, name it `your_package.module:YourClass`; PYTHONPATH is not needed then.
"""

import torch
from torch import nn


class Dilated(nn.Module):
    """Five 3 × 3 convolutions at full resolution, with dilations 1 to 16: each pixel sees 63 × 63 pixels."""

    def __init__(self, channels, classes):
        super().__init__()
        layers = []
        for step in (1, 2, 4, 8, 16):
            layers += [nn.Conv2d(channels, 16, 3, padding=step, dilation=step), nn.BatchNorm2d(16), nn.LeakyReLU(0.01)]
            channels = 16
        self.body, self.head = nn.Sequential(*layers), nn.Conv2d(16, classes, 1)

    # [N, channels, H, W] → [N, classes, H, W]
    def forward(self, image):
        return self.features_and_logits(image)[1]

    # for methods that read a feature map, such as effdnet
    def features_and_logits(self, image):
        features = self.body(image)
        return features, self.head(features).float()


def mirror(image, labels):
    """Mirror half of the slices: image [N, channels, H, W], and with it all labels [N, maps, H, W]."""
    chosen = torch.rand(len(image), 1, 1, 1, device=image.device) < 0.5
    return torch.where(chosen, image.flip(3), image), torch.where(chosen, labels.flip(3), labels)

"""A training loop of your own in plain PyTorch, with losses and an augmentation from scribbleseg.

    python examples/plain_pytorch.py

They take tensors: image [N, C, H, W], label [N, H, W] with UNLABELED (255) where nothing was drawn.
"""

import numpy as np
import torch
from torch import nn

from scribbleseg.data.synthetic.heart import draw_patient
from scribbleseg.data.synthetic.simulate import simulate_scribbles
from scribbleseg.losses import foreground_augmentation, foreground_background_separation, partial_cross_entropy

CLASSES = 4


class Network(nn.Module):
    """You can use any network. FBSL needs a feature map: here it is the input of the last layer."""

    def __init__(self, width: int = 16):
        super().__init__()
        layers, channels = [], 1
        for dilation in (1, 2, 4, 8):
            layers += [
                nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation),
                nn.BatchNorm2d(width),
                nn.ReLU(),
            ]
            channels = width
        self.body, self.head = nn.Sequential(*layers), nn.Conv2d(width, CLASSES, 1)

    def forward(self, image):
        features = self.body(image)
        return features, self.head(features)


def slices(seed: int, size: int):
    """One synthetic patient's slices at half resolution: image and scribble."""
    heart = draw_patient(seed)[0]
    scribble = simulate_scribbles(heart.truth, CLASSES, thickness=2, seed=seed)
    middle = tuple((length - 2 * size) // 2 for length in heart.truth.shape[1:])
    window = (slice(None), *(slice(start, start + 2 * size, 2) for start in middle))
    image = torch.from_numpy(np.clip(heart.image[window], 0, 1)).unsqueeze(1)
    return image, torch.from_numpy(scribble[window]).long()


def main(steps: int = 60, size: int = 48, patients: int = 2) -> list[float]:
    """Train on some patients' scribbles; returns the cross-entropy on scribbled pixels of every step.

    It shows how the parts are used. It is too short for a good segmentation.
    """
    torch.manual_seed(0)
    image, scribble = (torch.cat(part) for part in zip(*(slices(seed, size) for seed in range(patients))))
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    losses = []
    for _ in range(steps):
        index = torch.randint(len(image), (8,))
        x, y = image[index], scribble[index]
        features, logits = network(x)
        scribbled = partial_cross_entropy(logits, y)  # scribbled pixels only
        separation = foreground_background_separation(features, y)  # FBSL
        # FADC changes image, scribble and pseudo-label alike
        mixed_x, mixed_y, mixed_pseudo = foreground_augmentation(x, y, logits.argmax(1))
        mixed = network(mixed_x)[1]
        pasted = partial_cross_entropy(mixed, mixed_y) + 0.2 * partial_cross_entropy(mixed, mixed_pseudo)
        loss = scribbled + 0.2 * separation + pasted
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(scribbled.item())
    return losses


if __name__ == "__main__":
    losses = main()
    print(f"cross-entropy on scribbled pixels: {losses[0]:.3f} in the first step, {losses[-1]:.3f} in the last")

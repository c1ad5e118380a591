"""A training loop of your own, in plain PyTorch: only losses and an augmentation come from scribbleseg.

    python examples/plain_pytorch.py

They take tensors: image [N, C, H, W], label [N, H, W] with UNLABELED (255) wherever nothing was drawn.
"""

import numpy as np
import torch
from torch import nn

from scribbleseg.augment import foreground_augmentation
from scribbleseg.data.phantom import draw_patient
from scribbleseg.data.simulate import simulate_scribbles
from scribbleseg.losses import foreground_background_separation, partial_cross_entropy

CLASSES = 4


class Network(nn.Module):
    """Any network does. FBSL wants a feature map; here it is the input of the last layer."""

    def __init__(self, width: int = 24):
        super().__init__()
        layers, channels = [], 1
        for dilation in (1, 2, 4, 8, 4, 1):
            layers += [nn.Conv2d(channels, width, 3, padding=dilation, dilation=dilation), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        self.body, self.head = nn.Sequential(*layers), nn.Conv2d(width, CLASSES, 1)

    def forward(self, image):
        features = self.body(image)
        return features, self.head(features)


def slices(seed: int, size: int):
    """One synthetic patient's slices at half resolution: image, scribble, dense mask."""
    heart = draw_patient(seed)[0]
    scribble = simulate_scribbles(heart.truth, CLASSES, thickness=2, seed=seed)
    middle = tuple((length - 2 * size) // 2 for length in heart.truth.shape[1:])
    window = (slice(None), *(slice(start, start + 2 * size, 2) for start in middle))
    image = torch.from_numpy(np.clip(heart.image[window], 0, 1)).unsqueeze(1)
    return image, torch.from_numpy(scribble[window]).long(), torch.from_numpy(heart.truth[window]).long()


def main(steps: int = 60, size: int = 48, patients: int = 3) -> float:
    """Train on some patients' scribbles; returns the accuracy of the last patient's foreground, which was not trained on."""
    torch.manual_seed(0)
    image, scribble, _ = (torch.cat(part) for part in zip(*(slices(seed, size) for seed in range(patients))))
    network = Network()
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    for step in range(steps):
        index = torch.randint(len(image), (8,))
        x, y = image[index], scribble[index]
        features, logits = network(x)
        pseudo = logits.argmax(1)
        loss = partial_cross_entropy(logits, y)  # scribbled pixels only
        loss = loss + 0.2 * foreground_background_separation(features, y)  # FBSL
        mixed_x, mixed_y, _ = foreground_augmentation(x, y, pseudo)  # FADC: image, scribble and pseudo-label alike
        loss = loss + partial_cross_entropy(network(mixed_x)[1], mixed_y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 20 == 0:
            print(f"step {step}: loss {loss.item():.3f}")
    network.eval()
    image, _, truth = slices(patients, size)
    with torch.no_grad():
        found = network(image)[1].argmax(1)
    return float((found == truth)[truth > 0].float().mean())


if __name__ == "__main__":
    print(f"foreground accuracy on a new patient: {main():.2f}")

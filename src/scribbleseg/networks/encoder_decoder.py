"""What the U-Nets share: maps, features and logits from an encoder, a decoder and a head."""

from torch import Tensor, nn


class EncoderDecoder(nn.Module):
    """A network made of `encode`, `decode` and `head`, with `map_widths` (stride → channels of the encoder's maps)."""

    head: nn.Module
    map_widths: dict[int, int]

    def encode(self, x: Tensor) -> list[Tensor]:
        """The encoder's maps, the finest first."""
        raise NotImplementedError

    def decode(self, maps: list[Tensor]) -> Tensor:
        """The input of the head, [N, widths[0], *space]."""
        raise NotImplementedError

    def maps_features_and_logits(self, x: Tensor) -> tuple[dict[int, Tensor], Tensor, Tensor]:
        """Stride in the plane → the encoder's map; the input of the head; the logits in float32."""
        maps = self.encode(x)
        features = self.decode(maps)
        return dict(zip(self.map_widths, maps)), features, self.head(features).float()

    def features_and_logits(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.maps_features_and_logits(x)[1:]

    def forward(self, x: Tensor) -> Tensor:
        return self.features_and_logits(x)[1]

"""EFFDNet (MICCAI 2025): mean teacher, foreground-background separation, foreground augmentation with diverse context."""

import torch
from torch.nn.modules.dropout import _DropoutNd

from ..core.errors import InputError
from ..losses.separation import check_box, foreground_augmentation, foreground_background_separation
from ..losses.supervised import partial_cross_entropy
from ..networks.dropout import Dropout
from .base import Method
from .teacher import ema_decay, ema_update, make_teacher


class EFFDNet(Method):
    """L = L¹ + L², L¹ = L_S + λ(L_P + δ·FBSL) on the batch, L² = L_S + λL_P on its FADC samples.

    L_S = CE over scribbled pixels; L_P = CE over all pixels against ŷ = argmax teacher(x + noise). The teacher is the
    exponential mean of the student's weights and runs in train mode [released code].
    """

    def __init__(
        self,
        network,
        *,
        lam: float = 0.6,  # λ
        delta: float = 0.3,  # δ
        fbsl: bool = True,
        fadc: bool = True,
        blocks: int = 8,  # K
        temperature: float = 0.07,  # τ [released code; the paper gives none]
        box: str = "annotated",  # or "foreground"
        noise: float = 0.1,  # standard deviation, clipped at half of it [released code]
        alpha: float = 0.99,
        teacher_dropout: bool = True,  # [released code]; batch statistics are the batch's either way
    ):
        super().__init__(network)
        check_box(box)
        if blocks < 1:
            raise InputError(f"effdnet: blocks is {blocks}; it is 1 or more.")
        if not 0 <= alpha <= 1:
            raise InputError(f"effdnet: alpha is {alpha}; the share of the teacher that stays lies between 0 and 1.")
        for name, value in (("lam", lam), ("delta", delta)):
            if not value >= 0:
                raise InputError(f"effdnet: {name} is {value}; the weight of a term is 0 or more.")
        if not temperature > 0:
            raise InputError(f"effdnet: temperature is {temperature}; it is above 0.")
        if not noise >= 0:
            raise InputError(f"effdnet: noise is {noise}; a standard deviation is 0 or more.")
        self.lam, self.delta, self.fbsl, self.fadc = lam, delta, fbsl, fadc
        self.blocks, self.temperature, self.box, self.noise, self.alpha = blocks, temperature, box, noise, alpha
        self.teacher = make_teacher(network)
        if not teacher_dropout:
            for module in self.teacher.modules():
                if isinstance(module, (Dropout, _DropoutNd)):
                    module.p = 0.0
        self.register_buffer("steps", torch.zeros(()))

    def losses(self, batch, progress):
        image, scribble = batch.image, batch.label
        pseudo = self.pseudo_label(image)
        both = (image, scribble, pseudo)
        if self.fadc:
            mixed = foreground_augmentation(image, scribble, pseudo, self.box)
            both = tuple(torch.cat(pair) for pair in zip(both, mixed))
        image, scribble, pseudo = both

        features, logits = self.network.features_and_logits(image)
        names = ("", "_fadc")[: 1 + self.fadc]
        terms = {}
        for name, logit, drawn, target in zip(names, *(x.chunk(len(names)) for x in (logits, scribble, pseudo))):
            terms[f"pce{name}"] = partial_cross_entropy(logit, drawn)
            terms[f"pseudo{name}"] = self.lam * partial_cross_entropy(logit, target)
        if self.fbsl:
            count = len(batch.image)
            separation = foreground_background_separation(
                features[:count], scribble[:count], self.blocks, self.temperature
            )
            terms["fbsl"] = self.lam * self.delta * separation
        return terms

    @torch.no_grad()
    def pseudo_label(self, image):
        self.teacher.train()
        limit = self.noise / 2
        noisy = image + (self.noise * torch.randn_like(image)).clamp(-limit, limit)
        return self.teacher(noisy).argmax(1)

    def after_step(self, progress):
        ema_update(self.teacher, self.network, ema_decay(self.steps, self.alpha))
        self.steps += 1

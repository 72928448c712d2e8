"""Adversarial hardening: the second views are changed to where the contrast is hardest.

Projected gradient ascent on the contrastive loss inside training, as in "HSAT" (arXiv 2503.10629).

Dimension legend: n images, h rows, w columns.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from limpet.contracts.images import ImagePreprocessing
from limpet.training.navigation.config import NavigationConfig

STEP = 2.5
"""An attack of k steps moves by this share of size / k at each, so that it reaches every corner."""


def harden(
    encoder: nn.Module,
    images: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    config: NavigationConfig,
) -> Tensor:
    """The images, the second half of them attacked. (n, 3, h, w)

    Args:
        encoder: Attacked as it is in use, with its running statistics, which stay as they are.
        images: Normalised; both halves show the same poses. (n, 3, h, w)
        loss_of: What the attack increases, of the embeddings of all images.
        config: Size and steps of the attack.
    """
    clean, second = images.chunk(2)
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.no_grad():
            anchors = encoder(clean)

        def loss_of_second(changed: Tensor) -> Tensor:
            return loss_of(torch.cat([anchors, encoder(changed)]))

        attacked = attack(
            second, loss_of_second, config.image, config.attack_size, config.attack_steps
        )
    finally:
        encoder.train(was_training)
    return torch.cat([clean, attacked])


def attack(
    images: Tensor,
    loss_of: Callable[[Tensor], Tensor],
    how: ImagePreprocessing,
    size: float,
    steps: int,
) -> Tensor:
    """Images within `size` of these at which the loss is larger. (n, 3, h, w)

    Args:
        images: Normalised. (n, 3, h, w)
        loss_of: What is increased.
        how: Normalisation, which `size` and black and white are brought to.
        size: Largest change of a pixel, in units of full scale.
        steps: Steps of gradient ascent.
    """
    mean, scale = (
        torch.tensor(x, device=images.device)[:, None, None] for x in (how.mean, how.scale)
    )
    low = torch.maximum(images - size / scale, -mean / scale)
    high = torch.minimum(images + size / scale, (1.0 - mean) / scale)
    changed = images
    for _ in range(steps):
        changed = changed.detach().requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss_of(changed), changed)
        moved = changed.detach() + STEP * size / steps / scale * gradient.sign()
        changed = torch.minimum(torch.maximum(moved, low), high)
    return changed.detach()

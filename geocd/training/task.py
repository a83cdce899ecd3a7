"""What is trained: the network, its training-only heads, and the losses of one pass."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from geocd.errors import ConfigError, WeightsError
from geocd.models.adversarial import PatchDiscriminator
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import Weights, load_weights
from geocd.models.network import ChangeNetwork
from geocd.models.registry import build_model
from geocd.models.siam_nested_lite import SiamNestedLite, load_imagenet_encoder
from geocd.training.losses import (
    build_loss,
    deep_supervision,
    discriminator_loss,
    distillation,
    drawn_and_true,
    generator_loss,
    map_l1,
)
from geocd.training.recipe import NetworkConfig, Recipe

_HEAD_WIDTH = 32
_CRITIC_WIDTH = 32


class SegmentationHead(nn.Module):
    """What stands on each date, from the encoder's maps: a dense gradient for the encoder.

    Used in training only, and left out of the weights.

    Args:
        channels: channels of the maps at strides 2, 4, 8...
        classes: independent outputs.
    """

    def __init__(self, channels: tuple[int, ...], classes: int) -> None:
        super().__init__()
        self.reduce = nn.ModuleList(nn.Conv2d(c, _HEAD_WIDTH, 1) for c in channels)
        self.head = nn.Sequential(
            nn.Conv2d(_HEAD_WIDTH, _HEAD_WIDTH, 3, padding=1, bias=False),
            nn.BatchNorm2d(_HEAD_WIDTH),
            nn.ReLU(inplace=True),
            nn.Conv2d(_HEAD_WIDTH, classes, 1),
        )

    def forward(self, maps: list[Tensor]) -> Tensor:
        """Logits (2 * B, classes, H/2, W/2) from the maps of both dates."""
        total = self.reduce[-1](maps[-1])
        for reduce, m in zip(list(self.reduce)[-2::-1], maps[-2::-1], strict=True):
            total = reduce(m) + F.interpolate(total, scale_factor=2.0)
        out: Tensor = self.head(total)
        return out


def initial_network(recipe: Recipe) -> ChangeNetwork:
    """The network of a recipe with the weights that it starts from.

    Raises:
        ConfigError: there is no encoder to take ImageNet's weights.
        WeightsError: the initial weights are those of another architecture or of other classes.
    """
    config = recipe.network
    if config.initial not in ("imagenet", "random"):
        return _continued(config, recipe)
    network = build_model(
        config.architecture, bands=3, classes=len(recipe.classes), width=config.width,
        options=config.options,
    )  # fmt: skip
    if config.initial == "imagenet":
        if not isinstance(network, SiamNestedLite):
            raise ConfigError(
                f"{config.architecture} has no encoder that takes ImageNet's weights; "
                'set initial = "random" in [network]'
            )
        load_imagenet_encoder(network)
    return network


def _continued(config: NetworkConfig, recipe: Recipe) -> ChangeNetwork:
    weights = load_weights(config.initial)
    card = weights.card
    found = (card.architecture, card.width, dict(card.options), card.classes)
    wanted = (config.architecture, config.width, dict(config.options), recipe.classes)
    if found != wanted:
        raise WeightsError(
            f"{config.initial} holds {found[0]} of width {found[1]} {found[2] or ''} for "
            f"{', '.join(found[3])}; the recipe wants {wanted[0]} of width {wanted[1]} "
            f"{wanted[2] or ''} for {', '.join(wanted[3])}"
        )
    _check_input(card, config, "the initial weights")
    # No dropout or batch norm may stay in evaluation mode.
    return weights.network.train()


def _check_input(card: WeightsCard, config: NetworkConfig, role: str) -> None:
    """What weights are fed with must be what the recipe feeds."""
    if card.mean != (config.mean,) * 3 or card.std != (config.std,) * 3:
        raise WeightsError(
            f"{role} {card.name} wants {len(card.bands)} bands with mean {card.mean} and std "
            f"{card.std}; training has 3 bands, so give [network] the same mean and std"
        )


class TrainingTask(nn.Module):
    """One module that turns a batch into losses, so that it can be wrapped as a whole.

    Args:
        recipe: what to train.

    Raises:
        ConfigError: the recipe asks of the network what it cannot give.
        WeightsError: initial weights or teacher do not fit.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.recipe = recipe
        self.network = initial_network(recipe)
        for stage in recipe.stages:
            if stage.crop % self.network.stride:
                raise ConfigError(
                    f"crops of {stage.crop} px do not fit {recipe.network.architecture}, whose "
                    f"sides are multiples of {self.network.stride}"
                )
        self.auxiliary: SegmentationHead | None = None
        if recipe.loss.auxiliary:
            if not self.network.map_channels:
                raise ConfigError(
                    f"{recipe.network.architecture} gives no maps of single dates to segment; "
                    "set auxiliary = 0 in [loss]"
                )
            self.auxiliary = SegmentationHead(self.network.map_channels, len(recipe.planes))
        self._teacher = [_teacher(recipe)] if recipe.loss.teacher else []  # hidden: not trained
        self._loss = build_loss(
            recipe.loss.change, exclusive=recipe.exclusive,
            positive_weight=recipe.loss.positive_weight, focal_gamma=recipe.loss.focal_gamma,
        )  # fmt: skip

    def normal(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W), uint8, as the network sees them."""
        config = self.recipe.network
        return ((images.float() - config.mean) / config.std).contiguous(
            memory_format=torch.channels_last
        )

    def forward(
        self, before: Tensor, after: Tensor, change: Tensor, dates: Tensor,
        critic: PatchDiscriminator | None = None,
    ) -> tuple[dict[str, Tensor], Tensor]:  # fmt: skip
        """Losses by name, each a scalar with its weight in, and the logits (B, K, H, W)."""
        weights, exclusive = self.recipe.loss, self.recipe.exclusive
        a, b = self.normal(before), self.normal(after)
        answers = self.network.answers(a, b)
        logits = answers.logits[-1]
        losses = {"change": deep_supervision(self._loss, answers.logits, change)}
        if self.auxiliary is not None:
            segmented = self.auxiliary(answers.maps)
            segmentation = build_loss("bce+dice")(segmented, dates[:, :, ::2, ::2])
            losses["dates"] = weights.auxiliary * segmentation
        for teacher in self._teacher:
            with torch.no_grad():
                soft = teacher.network.to(logits.device)(a, b)
            everywhere = torch.ones_like(logits[:, :1], dtype=torch.bool)
            far = distillation(logits, soft, everywhere, exclusive=exclusive)
            losses["teacher"] = weights.imitation * far
        if weights.l1:
            losses["l1"] = weights.l1 * map_l1(logits, change, exclusive=exclusive)
        if critic is not None:
            drawn, _ = drawn_and_true(logits, change, exclusive=exclusive)
            losses["critic"] = weights.adversarial * generator_loss(critic(a, b, drawn))
        return losses, logits

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameters for the optimizer: encoder and rest, matrices and others apart."""
        config = self.recipe.optimizer
        pretrained = self.recipe.network.initial != "random"
        groups: dict[tuple[bool, bool], list[Tensor]] = {}
        for name, parameter in self.named_parameters():
            slow = pretrained and name.startswith("network.encoder.")
            groups.setdefault((slow, parameter.ndim > 1), []).append(parameter)
        return [
            {
                "params": parameters,
                "scale": config.encoder_rate if slow else 1.0,
                # Biases and batch norms are not decayed.
                "weight_decay": config.weight_decay if is_matrix else 0.0,
            }
            for (slow, is_matrix), parameters in groups.items()
        ]

    @torch.no_grad()
    def segment(self, images: Tensor) -> Tensor:
        """Scores (N, planes, H, W), 0..1, of what stands on single dates (N, 3, H, W), uint8."""
        assert self.auxiliary is not None
        maps = self.network.encode(self.normal(images))
        scores = self.auxiliary(maps).float().sigmoid()
        return F.interpolate(scores, scale_factor=2.0, mode="bilinear", align_corners=False)


def _teacher(recipe: Recipe) -> Weights:
    teacher = load_weights(recipe.loss.teacher)
    card, config = teacher.card, recipe.network
    if card.classes != recipe.classes:
        raise WeightsError(
            f"the teacher {card.name} tells {', '.join(card.classes)}, the recipe wants "
            f"{', '.join(recipe.classes)}; they must be the same classes"
        )
    _check_input(card, config, "the teacher")
    teacher.network.requires_grad_(requires_grad=False)
    return teacher


class Critic(nn.Module):
    """The patch discriminator with the loss that trains it.

    Args:
        recipe: bands and classes.
    """

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.exclusive = recipe.exclusive
        self.judge = PatchDiscriminator(bands=3, classes=len(recipe.classes), width=_CRITIC_WIDTH)

    def forward(self, before: Tensor, after: Tensor, logits: Tensor, change: Tensor) -> Tensor:
        """What the critic pays for not telling drawn maps from true ones; a scalar."""
        drawn, true = drawn_and_true(logits.detach(), change, exclusive=self.exclusive)
        return discriminator_loss(self.judge(before, after, true), self.judge(before, after, drawn))

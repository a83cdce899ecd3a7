"""Losses of change, with pixels of unknown label.

Outputs are either independent (sigmoid, one plane a class) or exclusive (softmax over "none" and
the classes). The truth is the same for both: one plane a class of change, shape (B, C, H, W),
uint8, 0, 1 or ``IGNORE``. Independent logits have the shape of the truth; exclusive logits have
one plane more, "none" first.

Everything is computed in float32, whatever the logits come in, so that sums over a batch of bf16
logits do not lose the rare class. Where nothing is known, a loss is zero with a zero gradient.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from geocd.errors import ConfigError, ShapeError
from geocd.training.tiles import IGNORE

Loss = Callable[[Tensor, Tensor], Tensor]
"""From logits (B, K, H, W) and truth (B, C, H, W) to a scalar."""

PositiveWeight = float | Sequence[float]
"""How much a changed pixel counts beside an unchanged one: one number, or one a class."""

_PLANE = (0, 2, 3)  # the dimensions of the batch and the plane


# What is known


def _check(logits: Tensor, target: Tensor, *, exclusive: bool) -> None:
    B, C, H, W = target.shape
    expected = (B, C + exclusive, H, W)
    if logits.shape != expected:
        kind = 'exclusive, so one more for "none"' if exclusive else "independent"
        raise ShapeError(
            f"logits are {tuple(logits.shape)}, but a truth of {tuple(target.shape)} wants "
            f"{expected} (outputs are {kind}); check the classes and exclusive"
        )


def exclusive_target(target: Tensor) -> Tensor:
    """Index of each pixel's class, from one plane a class.

    A pixel with one class is of that class, even where other planes do not know; a pixel with
    two is unknown, since exclusive outputs cannot say both.

    Args:
        target: shape (B, C, H, W), uint8: 0, 1 or ``IGNORE``.

    Returns:
        Shape (B, H, W), int64: 0 for "none", k + 1 for plane k, or ``IGNORE``.
    """
    present = target == 1  # (B, C, H, W)
    count = present.sum(dim=1)  # (B, H, W)
    unknown = (count > 1) | ((count == 0) & (target == IGNORE).any(dim=1))
    index = torch.where(count > 0, present.long().argmax(dim=1) + 1, 0)
    return torch.where(unknown, IGNORE, index)


def _planes(target: Tensor, *, exclusive: bool) -> tuple[Tensor, Tensor]:
    """Truth and what is known of it, float32 0 or 1, one plane an output, "none" included."""
    if not exclusive:
        return (target == 1).float(), (target != IGNORE).float()
    index = exclusive_target(target)  # (B, H, W)
    outputs = torch.arange(target.shape[1] + 1, device=target.device).view(1, -1, 1, 1)
    known = (index != IGNORE).float().unsqueeze(1)  # (B, 1, H, W)
    return (index.unsqueeze(1) == outputs).float(), known.expand(-1, outputs.shape[1], -1, -1)


def scores(logits: Tensor, *, exclusive: bool) -> Tensor:
    """Scores of logits (B, K, H, W), 0..1, float32."""
    logits = logits.float()
    return logits.softmax(dim=1) if exclusive else logits.sigmoid()


def _mean_over_known(values: Tensor, known: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean over the known pixels of each plane, then over the planes that are known at all.

    Args:
        values: shape (B, K, H, W).
        known: likewise, 0 or 1.
        weight: divides instead of the number of known pixels, where given; likewise.
    """
    share = known if weight is None else known * weight
    total = share.sum(dim=_PLANE)  # (K,)
    # A plane's weight may be below 1: clamping at 1 would shrink its loss.
    mean = (values * known).sum(dim=_PLANE) / total.where(total > 0, torch.ones_like(total))
    return _mean_over_planes(mean, known)


def _mean_over_planes(values: Tensor, known: Tensor) -> Tensor:
    """Mean of (K,) over the planes of which a pixel is known."""
    present = (known.sum(dim=_PLANE) > 0).float()  # (K,)
    return (values * present).sum() / present.sum().clamp(min=1)


def _class_weights(weight: PositiveWeight, classes: int, like: Tensor) -> Tensor:
    """Shape (1, classes, 1, 1)."""
    weights = [weight] * classes if isinstance(weight, int | float) else list(weight)
    if len(weights) != classes:
        raise ShapeError(
            f"{len(weights)} positive weights for {classes} classes of change; give one, or one "
            "for each"
        )
    return torch.tensor(weights, dtype=torch.float32, device=like.device).view(1, -1, 1, 1)


# Pixel by pixel


def bce(logits: Tensor, target: Tensor, *, positive_weight: PositiveWeight = 1.0) -> Tensor:
    """Binary cross entropy of independent outputs.

    Args:
        logits: shape (B, C, H, W).
        target: shape (B, C, H, W), uint8: 0, 1 or ``IGNORE``.
        positive_weight: what the pixels of change are multiplied by.

    Returns:
        A scalar: the mean over the known pixels of each class, then over the classes.

    Raises:
        ShapeError: the shapes, or the number of weights, do not fit.
    """
    return focal(logits, target, gamma=0.0, positive_weight=positive_weight)


def cross_entropy(
    logits: Tensor, target: Tensor, *, positive_weight: PositiveWeight = 1.0
) -> Tensor:
    """Weighted cross entropy of exclusive outputs; "none" weighs 1.

    Args:
        logits: shape (B, 1 + C, H, W), "none" first.
        target: shape (B, C, H, W), uint8: 0, 1 or ``IGNORE``.
        positive_weight: weight of the classes of change.

    Returns:
        A scalar: the weighted mean over the known pixels.

    Raises:
        ShapeError: the shapes, or the number of weights, do not fit.
    """
    return focal(logits, target, exclusive=True, gamma=0.0, positive_weight=positive_weight)


def focal(
    logits: Tensor,
    target: Tensor,
    *,
    exclusive: bool = False,
    gamma: float = 2.0,
    positive_weight: PositiveWeight = 1.0,
) -> Tensor:
    """Cross entropy in which pixels count less the better they are answered.

    Each pixel's cross entropy is multiplied by ``(1 - p) ** gamma``, p the score of its true
    state. The paper divides by the number of positives; here the mean is that of ``bce`` and
    ``cross_entropy``, which are this loss with a gamma of 0, so that a batch without change
    still teaches.

    Args:
        logits: shape (B, C, H, W), or (B, 1 + C, H, W) if exclusive.
        target: shape (B, C, H, W), uint8: 0, 1 or ``IGNORE``.
        exclusive: the outputs exclude one another.
        gamma: 0: plain cross entropy.
        positive_weight: weight of change beside 1 for no change (alpha / (1 - alpha)).

    Returns:
        A scalar.

    Raises:
        ShapeError: the shapes, or the number of weights, do not fit.

    Source:
        Lin et al. (2017), Focal loss for dense object detection, doi 10.1109/ICCV.2017.324.
    """
    _check(logits, target, exclusive=exclusive)
    truth, known = _planes(target, exclusive=exclusive)  # (B, K, H, W)
    positive = _class_weights(positive_weight, target.shape[1], logits)  # (1, C, 1, 1)
    logits = logits.float()
    weight: Tensor | None = None
    if exclusive:
        entropy = -(logits.log_softmax(dim=1) * truth).sum(dim=1, keepdim=True)  # (B, 1, H, W)
        none = torch.ones_like(positive[:, :1])
        weight = (truth * torch.cat([none, positive], dim=1)).sum(dim=1, keepdim=True)
        known = known[:, :1]
        values = entropy * weight
    else:
        entropy = F.binary_cross_entropy_with_logits(logits, truth, reduction="none")
        values = entropy * (1 + (positive - 1) * truth)
    if gamma > 0:
        # The entropy is -log p. Kept off 0, where the slope of a root has no end.
        values = values * (-torch.expm1(-entropy)).clamp(min=1e-12).pow(gamma)
    return _mean_over_known(values, known, weight)


# Over the plane


def dice(logits: Tensor, target: Tensor, *, exclusive: bool = False) -> Tensor:
    """One minus the overlap of score and truth, over the batch and the plane, for each class.

    "None" is left out of exclusive outputs: it fills nearly every plane, so its overlap is near 1
    whatever becomes of the change.

    Args:
        logits: shape (B, C, H, W), or (B, 1 + C, H, W) if exclusive.
        target: shape (B, C, H, W), uint8: 0, 1 or ``IGNORE``.
        exclusive: the outputs exclude one another.

    Returns:
        A scalar, 0..1: the mean over the classes that are known at all.

    Raises:
        ShapeError: the shapes do not fit.

    Source:
        Milletari et al. (2016), V-Net, doi 10.1109/3DV.2016.79, with the sum of the scores, not
        of their squares, below; one is added above and below, for planes without change.
    """
    _check(logits, target, exclusive=exclusive)
    truth, known = _planes(target, exclusive=exclusive)  # (B, K, H, W)
    score = scores(logits, exclusive=exclusive)
    if exclusive:
        truth, known, score = truth[:, 1:], known[:, 1:], score[:, 1:]  # (B, C, H, W)
    score = score * known
    overlap = (score * truth).sum(dim=_PLANE)  # (C,)
    total = score.sum(dim=_PLANE) + truth.sum(dim=_PLANE)
    return _mean_over_planes(1 - (2 * overlap + 1) / (total + 1), known)


# By name


_EXCLUSIVE_ONLY, _INDEPENDENT_ONLY = {"ce"}, {"bce"}
_NAMES = ("bce", "ce", "dice", "focal")


def build_loss(
    name: str,
    *,
    exclusive: bool = False,
    positive_weight: PositiveWeight = 1.0,
    focal_gamma: float = 2.0,
) -> Loss:
    """The loss of a name: ``bce``, ``ce``, ``dice``, ``focal``, or a sum such as ``bce+dice``.

    Args:
        name: what to sum.
        exclusive: the outputs exclude one another (``ce``) or are independent (``bce``).
        positive_weight: weight of change in all but dice.
        focal_gamma: exponent of ``focal``.

    Raises:
        ConfigError: an unknown name, one that does not fit the outputs, or an impossible number.
    """
    weights = [positive_weight] if isinstance(positive_weight, int | float) else positive_weight
    if not all(0 < w < math.inf for w in weights):
        raise ConfigError(f"positive_weight must be above 0, got {positive_weight}")
    if not 0 <= focal_gamma < math.inf:
        raise ConfigError(f"focal_gamma must be 0 or more, got {focal_gamma}")
    known: dict[str, Loss] = {
        "bce": partial(bce, positive_weight=positive_weight),
        "ce": partial(cross_entropy, positive_weight=positive_weight),
        "dice": partial(dice, exclusive=exclusive),
        "focal": partial(
            focal, exclusive=exclusive, gamma=focal_gamma, positive_weight=positive_weight
        ),
    }
    terms = [known[part] for part in _parse(name, exclusive=exclusive)]

    def total(logits: Tensor, target: Tensor) -> Tensor:
        return torch.stack([term(logits, target) for term in terms]).sum()

    return total


def _parse(name: str, *, exclusive: bool) -> list[str]:
    parts = [part.strip() for part in name.split("+")]
    for part in parts:
        if part not in _NAMES:
            raise ConfigError(
                f"no loss called {part!r} in {name!r}; known are {', '.join(_NAMES)}, and sums "
                "such as bce+dice"
            )
        if part in (_INDEPENDENT_ONLY if exclusive else _EXCLUSIVE_ONLY):
            kind, instead = ("exclusive", "ce") if exclusive else ("independent", "bce")
            raise ConfigError(f"{part} is not for {kind} outputs; use {instead}")
    if len(set(parts)) < len(parts):
        raise ConfigError(f"a loss stands twice in {name!r}; name each once")
    return parts


# From other than one answer and its truth


def deep_supervision(loss: Loss, outputs: Sequence[Tensor], target: Tensor) -> Tensor:
    """The sum of a loss over several answers of one network, each (B, K, H, W).

    Source:
        Li et al. (2020), Siam-NestedUNet, doi 10.1145/3437802.3437810: each head counts the same.
    """
    return torch.stack([loss(logits, target) for logits in outputs]).sum()


def distillation(
    logits: Tensor,
    teacher_logits: Tensor,
    known: Tensor,
    *,
    exclusive: bool = False,
    temperature: float = 1.0,
) -> Tensor:
    """How far the scores are from a teacher's: the Kullback-Leibler divergence, 0 where equal.

    Multiplied by the squared temperature, so that the gradient keeps its size. No gradient
    reaches the teacher.

    Args:
        logits: shape (B, K, H, W).
        teacher_logits: likewise.
        known: where the teacher is listened to, boolean, shape (B, K, H, W) or (B, 1, H, W);
            exclusive outputs have (B, 1, H, W) only.
        exclusive: the outputs exclude one another.
        temperature: divides both logits; above 1, the teacher's doubts count for more.

    Returns:
        A scalar: the mean over the known pixels of each output, then over the outputs.

    Raises:
        ShapeError: the shapes do not fit.
        ConfigError: the temperature is not above 0.

    Source:
        Hinton et al. (2015), Distilling the knowledge in a neural network, arXiv 1503.02531.
    """
    if not 0 < temperature < math.inf:
        raise ConfigError(f"temperature must be above 0, got {temperature}")
    B, K, H, W = logits.shape
    planes = (1,) if exclusive else (1, K)
    if teacher_logits.shape != logits.shape or known.shape not in [(B, p, H, W) for p in planes]:
        raise ShapeError(
            f"logits are {tuple(logits.shape)}, the teacher's {tuple(teacher_logits.shape)} and "
            f"what is known {tuple(known.shape)}; logits must be alike, and known have "
            f"{' or '.join(map(str, planes))} planes"
        )
    student = logits.float() / temperature
    teacher = teacher_logits.detach().float() / temperature
    if exclusive:
        log_s, log_t = student.log_softmax(dim=1), teacher.log_softmax(dim=1)
        values = (log_t.exp() * (log_t - log_s)).sum(dim=1, keepdim=True)  # (B, 1, H, W)
    else:
        yes = teacher.sigmoid() * (F.logsigmoid(teacher) - F.logsigmoid(student))
        no = (-teacher).sigmoid() * (F.logsigmoid(-teacher) - F.logsigmoid(-student))
        values = yes + no  # (B, K, H, W)
    return temperature**2 * _mean_over_known(values, known.float().expand_as(values))


# Against a critic


def drawn_and_true(
    logits: Tensor, target: Tensor, *, exclusive: bool = False
) -> tuple[Tensor, Tensor]:
    """The change maps that a critic compares: the generator's and the true one.

    Both are 0 where the truth is unknown, so that the critic cannot tell them apart by that.

    Args:
        logits: shape (B, C, H, W), or (B, 1 + C, H, W) if exclusive.
        target: shape (B, C, H, W), uint8: 0, 1 or ``IGNORE``.
        exclusive: the outputs exclude one another.

    Returns:
        Two maps of the logits' shape, 0..1, float32; the gradient flows through the first.

    Raises:
        ShapeError: the shapes do not fit.
    """
    _check(logits, target, exclusive=exclusive)
    truth, known = _planes(target, exclusive=exclusive)
    return scores(logits, exclusive=exclusive) * known, truth * known


def map_l1(logits: Tensor, target: Tensor, *, exclusive: bool = False) -> Tensor:
    """Mean absolute difference between the scores and the truth, on known pixels; 0..1.

    Arguments and errors are those of ``drawn_and_true``. pix2pix weighs it 100 beside the
    critic's 1.
    """
    drawn, true = drawn_and_true(logits, target, exclusive=exclusive)
    _, known = _planes(target, exclusive=exclusive)
    return _mean_over_known((drawn - true).abs(), known)


def _judged(verdict: Tensor, *, true: bool, least_squares: bool) -> Tensor:
    verdict = verdict.float()
    wanted = torch.full_like(verdict, float(true))
    if least_squares:
        return F.mse_loss(verdict, wanted)
    return F.binary_cross_entropy_with_logits(verdict, wanted)


def discriminator_loss(true: Tensor, drawn: Tensor, *, least_squares: bool = False) -> Tensor:
    """What the critic pays: true maps shall score 1, drawn ones 0.

    Args:
        true: the critic's logits for true maps, shape (B, 1, h, w).
        drawn: its logits for drawn maps, which must be detached from the generator.
        least_squares: squared distance instead of cross entropy.

    Returns:
        A scalar, the mean of both.

    Source:
        Goodfellow et al. (2014), arXiv 1406.2661; least squares: Mao et al. (2017), doi
        10.1109/ICCV.2017.304; halved as in Isola et al. (2017), doi 10.1109/CVPR.2017.632.
    """
    found = _judged(true, true=True, least_squares=least_squares)
    return (found + _judged(drawn, true=False, least_squares=least_squares)) / 2


def generator_loss(drawn: Tensor, *, least_squares: bool = False) -> Tensor:
    """What the generator pays the critic: its maps shall score 1 (the non-saturating form).

    Args:
        drawn: the critic's logits for drawn maps, shape (B, 1, h, w).
        least_squares: squared distance instead of cross entropy.

    Source:
        As ``discriminator_loss``.
    """
    return _judged(drawn, true=True, least_squares=least_squares)

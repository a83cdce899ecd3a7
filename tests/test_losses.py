"""Losses equal their formulas, respect what is not known, and survive low precision."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from geocd.errors import ConfigError, ShapeError
from geocd.models.adversarial import PatchDiscriminator, StackedUNet
from geocd.training.losses import (
    build_loss,
    deep_supervision,
    discriminator_loss,
    distillation,
    drawn_and_true,
    exclusive_target,
    generator_loss,
    map_l1,
)
from geocd.training.tiles import IGNORE

NAMES = [
    (name, exclusive)
    for exclusive, names in {
        False: ("bce", "dice", "focal", "bce+dice", "focal+dice"),
        True: ("ce", "dice", "focal", "ce+dice", "focal+dice"),
    }.items()
    for name in names
]
EVERY = pytest.mark.parametrize(("name", "exclusive"), NAMES)


def _case(exclusive, *, seed=0, classes=2, size=8):
    """Random logits and truth; no pixel is of two classes."""
    generator = torch.Generator().manual_seed(seed)
    index = torch.randint(0, classes + 1, (2, size, size), generator=generator)
    target = torch.stack([index == k + 1 for k in range(classes)], dim=1).byte()
    logits = torch.randn((2, classes + exclusive, size, size), generator=generator) * 3
    return logits, target


def _right(target, exclusive):
    """Logits that are as sure of the truth as one can be."""
    if exclusive:
        return F.one_hot(exclusive_target(target), target.shape[1] + 1).movedim(-1, 1) * 40.0
    return (target.float() * 2 - 1) * 40


# All losses


@EVERY
def test_a_perfect_answer_costs_nothing_and_a_wrong_one_much(name, exclusive):
    _, target = _case(exclusive)
    loss = build_loss(name, exclusive=exclusive)
    right = _right(target, exclusive)
    assert loss(right, target) < 1e-3
    assert loss(-right, target) > 0.9


@EVERY
def test_pixels_of_unknown_label_do_not_count(name, exclusive):
    logits, target = _case(exclusive)
    target[:, :, :4] = IGNORE
    loss = build_loss(name, exclusive=exclusive, positive_weight=3.0)
    other = logits.clone()
    other[:, :, :4] += torch.randn(other[:, :, :4].shape) * 20
    assert loss(logits, target) == loss(other, target)
    # The answer is that of the known half alone, wherever it lies.
    torch.testing.assert_close(
        loss(logits, target), loss(logits[:, :, 4:].clone(), target[:, :, 4:].clone())
    )


@EVERY
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_where_nothing_is_known_the_loss_is_zero_with_a_zero_gradient(name, exclusive, dtype):
    logits, target = _case(exclusive)
    logits = logits.to(dtype).requires_grad_()
    loss = build_loss(name, exclusive=exclusive)(logits, torch.full_like(target, IGNORE))
    loss.backward()
    assert loss == 0
    assert torch.equal(logits.grad, torch.zeros_like(logits))


@pytest.mark.parametrize("name", ["bce", "dice", "focal"])
def test_a_class_of_which_nothing_is_known_does_not_dilute_the_others(name):
    logits, target = _case(False)
    target[:, 1] = IGNORE
    loss = build_loss(name)
    torch.testing.assert_close(loss(logits, target), loss(logits[:, :1], target[:, :1]))


@EVERY
def test_autocast_and_bf16_logits_cost_what_float32_costs(name, exclusive):
    logits, target = _case(exclusive, size=64)
    logits = logits.bfloat16()
    loss = build_loss(name, exclusive=exclusive)
    wanted = loss(logits.float(), target)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(logits, target)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, wanted)


@EVERY
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
@pytest.mark.parametrize("sign", [-1, 1])
def test_extreme_logits_leave_loss_and_gradient_finite(name, exclusive, gamma, sign):
    _, target = _case(exclusive)
    logits = (_right(target, exclusive) * sign * 100).requires_grad_()
    loss = build_loss(name, exclusive=exclusive, focal_gamma=gamma)(logits, target)
    loss.backward()
    assert loss.isfinite()
    assert logits.grad.isfinite().all()


@EVERY
def test_following_the_gradient_finds_the_truth(name, exclusive):
    logits, target = _case(exclusive)
    # Undecided at first: dice alone hardly moves a pixel that is sure of the wrong.
    logits = (0.1 * logits).requires_grad_()
    loss = build_loss(name, exclusive=exclusive)
    optimizer = torch.optim.Adam([logits], lr=0.5)
    for _ in range(50):
        optimizer.zero_grad()
        loss(logits, target).backward()
        optimizer.step()
    _, true = drawn_and_true(logits, target, exclusive=exclusive)
    found = logits > 0 if not exclusive else logits == logits.amax(dim=1, keepdim=True)
    assert torch.equal(found, true.bool())


# Each against its formula


@pytest.mark.parametrize("weight", [1.0, 4.0, (0.5, 3.0)])
def test_bce_is_torchs_where_all_is_known(weight):
    logits, target = _case(False)
    positive = torch.tensor(weight).expand(2).view(1, 2, 1, 1)
    wanted = F.binary_cross_entropy_with_logits(logits, target.float(), pos_weight=positive)
    loss = build_loss("bce", positive_weight=weight)
    torch.testing.assert_close(loss(logits, target), wanted)


@pytest.mark.parametrize("weight", [1.0, 0.01, (0.5, 3.0)])
def test_cross_entropy_is_torchs_with_class_weights_and_ignored_pixels(weight):
    logits, target = _case(True)
    target[0, :, :3] = IGNORE
    weights = torch.cat([torch.ones(1), torch.tensor(weight).expand(2)])
    wanted = F.cross_entropy(logits, exclusive_target(target), weight=weights, ignore_index=IGNORE)
    loss = build_loss("ce", exclusive=True, positive_weight=weight)
    torch.testing.assert_close(loss(logits, target), wanted)


def test_one_known_pixel_of_a_light_class_costs_its_full_entropy():
    logits = torch.tensor([0.2, 0.7, 0.1]).log().view(1, 3, 1, 1)
    target = torch.tensor([1, 0]).byte().view(1, 2, 1, 1)
    loss = build_loss("ce", exclusive=True, positive_weight=0.01)
    assert loss(logits, target).item() == pytest.approx(-math.log(0.7), rel=1e-5)


def test_focal_multiplies_each_pixels_entropy_by_the_power_of_its_error():
    # Scores 0.9 and 0.2 of two pixels, the first changed, the second not; weight 3 on change.
    logits = torch.tensor([math.log(9), math.log(0.25)]).view(1, 1, 1, 2)
    target = torch.tensor([1, 0]).byte().view(1, 1, 1, 2)
    wanted = (3 * 0.1**2 * -math.log(0.9) + 0.2**2 * -math.log(0.8)) / 2
    loss = build_loss("focal", positive_weight=3.0, focal_gamma=2.0)
    assert loss(logits, target).item() == pytest.approx(wanted, rel=1e-5)


def test_focal_of_exclusive_outputs_looks_at_the_score_of_the_true_class():
    logits = torch.tensor([0.2, 0.7, 0.1]).log().view(1, 3, 1, 1)
    target = torch.tensor([1, 0]).byte().view(1, 2, 1, 1)
    loss = build_loss("focal", exclusive=True, focal_gamma=1.5)
    assert loss(logits, target).item() == pytest.approx(0.3**1.5 * -math.log(0.7), rel=1e-5)


@pytest.mark.parametrize(("focal", "plain", "exclusive"), [("focal", "bce", False),
                                                           ("focal", "ce", True)])  # fmt: skip
def test_focal_without_gamma_is_plain_cross_entropy(focal, plain, exclusive):
    logits, target = _case(exclusive)
    options = {"exclusive": exclusive, "positive_weight": 2.0}
    found = build_loss(focal, focal_gamma=0.0, **options)(logits, target)
    torch.testing.assert_close(found, build_loss(plain, **options)(logits, target))


def test_dice_is_taken_over_the_batch_and_the_plane_for_each_class():
    # Class 0: 8 of 16 pixels found, 4 of them rightly, of 12. Class 1: all 6 found.
    target = torch.zeros(2, 2, 4, 2).byte()
    target[0, 0] = target[1, 0, :2] = 1
    target[1, 1, :3] = 1
    found = torch.zeros_like(target)
    found[0, 0, :2] = found[1, 0, 2:] = 1
    found[1, 1, :3] = 1
    wanted = ((1 - (2 * 4 + 1) / (8 + 12 + 1)) + (1 - (2 * 6 + 1) / (6 + 6 + 1))) / 2
    loss = build_loss("dice")((found.float() * 2 - 1) * 40, target)
    assert loss.item() == pytest.approx(wanted, rel=1e-5)


def test_dice_of_exclusive_outputs_leaves_none_out():
    # One pixel in a hundred has changed and is missed: "none" is found almost perfectly.
    target = torch.zeros(1, 1, 10, 10).byte()
    target[0, 0, 0, 0] = 1
    logits = torch.zeros(1, 2, 10, 10)
    logits[:, 0] = 40
    loss = build_loss("dice", exclusive=True)(logits, target)
    assert loss.item() == pytest.approx(1 - 1 / 2)


def test_a_sum_costs_what_its_terms_cost_together():
    logits, target = _case(False)
    terms = [build_loss(name)(logits, target) for name in ("bce", "dice")]
    torch.testing.assert_close(build_loss("bce + dice")(logits, target), sum(terms))


@pytest.mark.parametrize(
    ("planes", "index"),
    [
        ((0, 0), 0),
        ((1, 0), 1),
        ((0, 1), 2),
        ((1, IGNORE), 1),
        ((IGNORE, 1), 2),
        ((0, IGNORE), IGNORE),
        ((IGNORE, IGNORE), IGNORE),
        ((1, 1), IGNORE),
    ],
)
def test_planes_tell_the_class_of_a_pixel_or_that_it_is_unknown(planes, index):
    target = torch.tensor(planes).byte().view(1, 2, 1, 1)
    assert exclusive_target(target).item() == index


# Refusals


@pytest.mark.parametrize("name", ["", "mse", "bce+", "bce+mse", "BCE"])
def test_an_unknown_loss_is_refused_with_the_known_ones(name):
    with pytest.raises(ConfigError, match="bce, ce, dice, focal"):
        build_loss(name)


@pytest.mark.parametrize(("name", "exclusive", "instead"), [("ce", False, "bce"),
                                                            ("bce+dice", True, "ce")])  # fmt: skip
def test_a_loss_that_does_not_fit_the_outputs_is_refused_with_the_one_that_does(
    name, exclusive, instead
):
    with pytest.raises(ConfigError, match=f"use {instead}$"):
        build_loss(name, exclusive=exclusive)


@pytest.mark.parametrize(
    "options",
    [
        {"positive_weight": 0.0},
        {"positive_weight": math.nan},
        {"positive_weight": (1.0, -1.0)},
        {"focal_gamma": -0.1},
        {"focal_gamma": math.inf},
    ],
)
def test_impossible_numbers_are_refused(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        build_loss("focal", **options)


def test_a_loss_named_twice_is_refused():
    with pytest.raises(ConfigError, match="twice"):
        build_loss("bce+bce")


@pytest.mark.parametrize("exclusive", [False, True])
def test_logits_that_would_be_stretched_to_fit_the_truth_are_refused(exclusive):
    logits, target = _case(exclusive)
    with pytest.raises(ShapeError, match="check the classes"):
        build_loss("dice", exclusive=exclusive)(logits[:, :1], target)


def test_weights_for_another_number_of_classes_are_refused():
    logits, target = _case(False)
    with pytest.raises(ShapeError, match="3 positive weights for 2 classes"):
        build_loss("bce", positive_weight=(1.0, 1.0, 1.0))(logits, target)


# Deep supervision and distillation


def test_deep_supervision_sums_over_the_heads():
    logits, target = _case(False)
    heads = [(logits * k).requires_grad_() for k in (1, 2, 3)]
    loss = build_loss("bce")
    total = deep_supervision(loss, heads, target)
    torch.testing.assert_close(total, sum(loss(head, target) for head in heads))
    total.backward()
    assert all(head.grad.any() for head in heads)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize("exclusive", [False, True])
def test_distillation_is_the_divergence_from_the_teachers_scores(exclusive, temperature):
    logits, _ = _case(exclusive)
    teacher, _ = _case(exclusive, seed=1)
    known = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    found = distillation(logits, teacher, known, exclusive=exclusive, temperature=temperature)
    if exclusive:
        q = torch.distributions.Categorical(logits=logits.movedim(1, -1) / temperature)
        p = torch.distributions.Categorical(logits=teacher.movedim(1, -1) / temperature)
    else:
        q = torch.distributions.Bernoulli(logits=logits / temperature)
        p = torch.distributions.Bernoulli(logits=teacher / temperature)
    wanted = torch.distributions.kl_divergence(p, q).mean() * temperature**2
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("exclusive", [False, True])
def test_a_pupil_that_equals_its_teacher_pays_nothing_and_the_teacher_learns_nothing(exclusive):
    logits, _ = _case(exclusive)
    pupil, teacher = logits.clone().requires_grad_(), (logits + 0.0).requires_grad_()
    loss = distillation(
        pupil, teacher, torch.ones(2, 1, 8, 8, dtype=torch.bool), exclusive=exclusive
    )
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6)
    assert pupil.grad.abs().max() < 1e-6
    assert teacher.grad is None


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_teacher_is_heard_only_where_it_is_known(exclusive):
    logits, _ = _case(exclusive)
    teacher, _ = _case(exclusive, seed=1)
    known = torch.zeros(2, 1, 8, 8, dtype=torch.bool)
    known[:, :, :4] = True
    half = distillation(logits, teacher, known, exclusive=exclusive)
    wanted = distillation(logits[:, :, :4], teacher[:, :, :4], known[:, :, :4], exclusive=exclusive)
    torch.testing.assert_close(half, wanted)
    nowhere = logits.clone().bfloat16().requires_grad_()
    loss = distillation(nowhere, teacher, torch.zeros_like(known), exclusive=exclusive)
    loss.backward()
    assert loss == 0
    assert not nowhere.grad.any()


def test_distillation_of_extreme_logits_is_finite():
    logits = torch.full((1, 2, 2, 2), 500.0, requires_grad=True)
    known = torch.ones(1, 1, 2, 2, dtype=torch.bool)
    for exclusive in (False, True):
        loss = distillation(logits, -logits.detach(), known, exclusive=exclusive)
        loss.backward()
        assert loss.isfinite()
        assert logits.grad.isfinite().all()


def test_a_teacher_of_other_classes_or_without_warmth_is_refused():
    logits, _ = _case(False)
    known = torch.ones(2, 1, 8, 8, dtype=torch.bool)
    with pytest.raises(ShapeError, match="must be alike"):
        distillation(logits, logits[:, :1], known)
    with pytest.raises(ShapeError, match="1 planes"):
        distillation(logits, logits, known.expand(-1, 2, -1, -1), exclusive=True)
    with pytest.raises(ConfigError, match="temperature"):
        distillation(logits, logits, known, temperature=0)


# Against a critic


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_critic_sees_scores_and_truth_with_nothing_where_the_truth_is_unknown(exclusive):
    logits, target = _case(exclusive)
    target[:, :, :4] = IGNORE
    logits.requires_grad_()
    drawn, true = drawn_and_true(logits, target, exclusive=exclusive)
    assert drawn.shape == true.shape == logits.shape
    assert not drawn[:, :, :4].any()
    assert not true[:, :, :4].any()
    scores = logits.softmax(1) if exclusive else logits.sigmoid()
    assert torch.equal(drawn[:, :, 4:], scores[:, :, 4:])
    assert torch.equal(true[:, exclusive:, 4:], target[:, :, 4:].float())
    drawn.sum().backward()
    assert logits.grad is not None


@pytest.mark.parametrize("exclusive", [False, True])
def test_the_distance_of_the_maps_is_the_mean_over_known_pixels(exclusive):
    _, target = _case(exclusive)
    target[:, :, :4] = IGNORE
    known = target.clone()
    known[:, :, :4] = 0
    right = _right(known, exclusive)
    assert map_l1(right, target, exclusive=exclusive) < 1e-6
    indifferent = map_l1(torch.zeros(2, 2, 8, 8), target, exclusive=False)
    assert indifferent.item() == pytest.approx(0.5)


@pytest.mark.parametrize("least_squares", [False, True])
def test_a_critic_that_tells_maps_apart_pays_less_than_one_that_errs(least_squares):
    high, low = torch.full((2, 1, 4, 4), 1.0), torch.full((2, 1, 4, 4), 0.0)
    able = discriminator_loss(high, low, least_squares=least_squares)
    fooled = discriminator_loss(low, high, least_squares=least_squares)
    assert able < fooled


def test_an_undecided_critic_pays_the_entropy_of_a_coin():
    undecided = torch.zeros(2, 1, 4, 4)
    assert discriminator_loss(undecided, undecided).item() == pytest.approx(math.log(2))
    assert generator_loss(undecided).item() == pytest.approx(math.log(2))
    assert discriminator_loss(undecided, undecided, least_squares=True).item() == 0.5
    assert generator_loss(undecided, least_squares=True).item() == 1


@pytest.mark.parametrize("least_squares", [False, True])
def test_a_generator_that_is_seen_through_still_gets_a_gradient(least_squares):
    verdict = torch.full((1, 1, 2, 2), -30.0, requires_grad=True)
    generator_loss(verdict, least_squares=least_squares).backward()
    assert verdict.grad.sum() < -0.9


def test_the_critic_teaches_the_generator_and_not_the_other_way_round():
    generator, critic = StackedUNet(width=4), PatchDiscriminator(width=4)
    before, after = torch.randn(2, 2, 3, 64, 64)
    target = torch.randint(0, 2, (2, 2, 64, 64)).byte()
    drawn, true = drawn_and_true(generator(before, after), target)
    generator_loss(critic(before, after, drawn)).backward()
    assert all(p.grad is not None for p in generator.parameters())
    assert generator.head.weight.grad.any()
    generator.zero_grad()
    verdicts = (critic(before, after, change) for change in (true, drawn.detach()))
    discriminator_loss(*verdicts).backward()
    assert all(p.grad is None for p in generator.parameters())

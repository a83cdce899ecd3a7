"""What every network promises, whatever its architecture: one contract for the whole registry."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from geocd.errors import ConfigError, UnknownModelError
from geocd.models.adversarial import PatchDiscriminator
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import Weights, load_weights, save_weights
from geocd.models.registry import build_model, known_models, known_options
from geocd.predict import runtime
from geocd.predict.torch import TorchPredictor

CASES = [
    pytest.param(name, dict(zip(known_options(name), values, strict=True)),
                 id="-".join([name, *values]))
    for name in known_models()
    for values in itertools.product(*known_options(name).values())
]  # fmt: skip


def _images(network, size=1, bands=3, tiles=2):
    """Random before and after, ``tiles`` strides high and one wider."""
    shape = (2, size, bands, tiles * network.stride, (tiles + 1) * network.stride)
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def _lively(name, options, width=8, seed=0):
    """A network as if trained: batch norms have seen images, and logits spread over some units.

    A fresh network's last layer is so small that every comparison of its logits would pass.
    """
    torch.manual_seed(seed)
    network = build_model(name, bands=3, classes=2, width=width, options=options)
    for parameter in network.parameters():
        if parameter.ndim > 1:
            nn.init.kaiming_normal_(parameter)
        else:
            nn.init.normal_(parameter, mean=float(parameter.mean() > 0.5), std=0.1)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # the plain mean of what was seen
    with torch.no_grad():
        for _ in range(2):
            network.train()(*_images(network, size=2))
    return network.eval()


def _card(name, options):
    return WeightsCard(
        name="test", architecture=name, width=8, options=options, classes=("building", "road"),
        exclusive=False, thresholds=(0.5, 0.5), bands=("red", "green", "blue"),
        mean=(127.0,) * 3, std=(64.0,) * 3,
    )  # fmt: skip


@pytest.mark.parametrize(("name", "options"), CASES)
class TestNetworkContract:
    @pytest.mark.parametrize(("bands", "classes", "width"), [(3, 2, 8), (1, 1, 4), (4, 3, 8)])
    def test_logits_have_the_size_of_the_images(self, name, options, bands, classes, width):
        network = build_model(name, bands=bands, classes=classes, width=width, options=options)
        before, after = _images(network, size=2, bands=bands)
        assert network(before, after).shape == (2, classes, *before.shape[2:])

    def test_every_parameter_gets_a_gradient(self, name, options):
        without = None
        # Attention squeezes into two units here, which one draw of weights can leave at zero.
        for seed in range(3):
            network = _lively(name, options, seed=seed).train()
            network(*_images(network, size=2)).square().sum().backward()
            assert [n for n, p in network.named_parameters() if p.grad is None] == []
            # A bias before a batch norm is taken out again: its gradient is zero but for rounding.
            unmoved = {n for n, p in network.named_parameters() if p.ndim > 1 and not p.grad.any()}
            without = unmoved if without is None else without & unmoved
        assert without == set()

    def test_both_dates_matter(self, name, options):
        network = _lively(name, options)
        before, after = _images(network)
        with torch.inference_mode():
            first = network(before, after)
            assert not torch.allclose(first, network(before.flip(-1), after), atol=1e-3)
            assert not torch.allclose(first, network(before, after.flip(-1)), atol=1e-3)

    def test_answers_end_with_the_logits_and_bring_the_maps_that_are_declared(self, name, options):
        network = _lively(name, options)
        before, after = _images(network)
        with torch.inference_mode():
            answers = network.answers(before, after)
            assert torch.equal(answers.logits[-1], network(before, after))
            alone = network.encode(after) if network.map_channels else []
        assert {logits.shape for logits in answers.logits} == {(1, 2, *before.shape[2:])}
        assert tuple(m.shape[1] for m in answers.maps) == network.map_channels
        for i, m in enumerate(answers.maps, start=1):
            assert m.shape[0] == 2
            assert m.shape[2:] == tuple(side // 2**i for side in before.shape[2:])
            torch.testing.assert_close(alone[i - 1], m[1:], atol=1e-3, rtol=0)

    def test_the_seed_decides_the_weights(self, name, options):
        def build(seed):
            torch.manual_seed(seed)
            network = build_model(name, bands=3, classes=2, width=4, options=options)
            return torch.cat([p.flatten() for p in network.parameters()])

        assert torch.equal(build(1), build(1))
        assert not torch.equal(build(1), build(2))

    def test_a_pair_is_scored_alike_alone_and_in_a_batch(self, name, options):
        network = _lively(name, options)
        before, after = _images(network, size=3)
        with torch.inference_mode():
            together = network(before, after)
            alone = torch.cat([network(before[i : i + 1], after[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(together, alone, atol=1e-4, rtol=1e-4)

    def test_any_size_can_be_scored(self, name, options):
        predictor = TorchPredictor(
            Weights(_lively(name, options), _card(name, options)), device="cpu"
        )
        for size in ((37, 51), (1, 40)):
            images = np.random.default_rng(0).integers(0, 256, (2, 1, 3, *size), dtype=np.uint8)
            scores = predictor(*images)
            assert scores.shape == (1, 2, *size)
            assert scores.dtype == np.uint8
            assert 0 <= scores.min() < scores.max() <= 254

    def test_weights_and_options_survive_the_file(self, name, options, tmp_path):
        network = _lively(name, options)
        save_weights(tmp_path / "w.safetensors", network, _card(name, options))
        loaded = load_weights(str(tmp_path / "w.safetensors"))
        assert loaded.card.options == options
        pair = _images(network)
        with torch.inference_mode():
            assert torch.equal(loaded.network(*pair), network(*pair))

    def test_symmetry_in_time_is_what_the_network_declares(self, name, options):
        network = _lively(name, options)
        before, after = _images(network)
        with torch.inference_mode():
            forth, back = network(before, after), network(after, before)
        assert torch.allclose(forth, back, atol=1e-4) == network.symmetric

    def test_openvino_gives_the_same_logits_in_float32(self, name, options):
        """To a thousandth of their spread; sizes other than the traced one included."""
        network = _lively(name, options)
        exported = runtime.converter()(network, example_input=tuple(_images(network)))
        compiled = runtime.openvino().compile_model(
            exported, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
        )
        for size, tiles in ((1, 2), (2, 1)):
            before, after = _images(network, size=size, tiles=tiles)
            with torch.inference_mode():
                wanted = network(before, after).numpy()
            found = compiled([before.numpy(), after.numpy()])[0]
            np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-3 * wanted.std())


def test_an_unknown_architecture_is_refused_with_the_known_ones():
    for refused in (build_model, lambda name, **_: known_options(name)):
        with pytest.raises(UnknownModelError, match="snunet"):
            refused("resnet", bands=3, classes=2, width=8)


@pytest.mark.parametrize(
    ("name", "options", "known"),
    [
        ("snunet", {"upsample": "bilinear"}, "upsampling"),
        ("snunet", {"upsampling": "cubic"}, "transposed, bilinear"),
        ("fc-siam-diff", {"upsampling": "bilinear"}, "none"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(name, options, known):
    with pytest.raises(ConfigError, match=f"known are: {known}"):
        build_model(name, bands=3, classes=2, width=8, options=options)


@pytest.mark.parametrize(
    ("name", "width", "millions"), [("fc-siam-diff", 16, 1.35), ("fc-siam-conc", 16, 1.55)]
)
def test_fc_siam_networks_have_the_published_number_of_parameters(name, width, millions):
    network = build_model(name, bands=3, classes=2, width=width)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions


def test_without_change_the_skips_of_fc_siam_diff_are_empty():
    network = _lively("fc-siam-diff", {})
    image = torch.randn(1, 8, 4, 4)
    assert not network.compare(image, image).any()


def test_the_critic_scores_patches_of_70_pixels():
    critic = PatchDiscriminator(bands=3, classes=2, width=4).eval()
    before, after = torch.randn(2, 1, 3, 256, 256)
    change = torch.rand(1, 2, 256, 256, requires_grad=True)
    scores = critic(before, after, change)
    assert scores.shape == (1, 1, 30, 30)
    scores[0, 0, 15, 15].backward()
    rows = change.grad.abs().sum(dim=(0, 1, 3)).nonzero()
    assert rows.max() - rows.min() + 1 == 70


@pytest.mark.parametrize("which", [0, 1, 2])
def test_the_critic_looks_at_both_images_and_the_map(which):
    critic = PatchDiscriminator(bands=1, classes=1, width=4).eval()
    inputs = [torch.rand(1, 1, 64, 64) for _ in range(3)]
    first = critic(*inputs)
    inputs[which] = 1 - inputs[which]
    assert not torch.allclose(first, critic(*inputs), atol=1e-5)


def test_the_critic_is_no_network_that_weights_can_name():
    assert not any("discriminator" in name for name in known_models())

"""Nested networks equal the reference, cards travel, pickles are never executed."""

from __future__ import annotations

import dataclasses
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from geocd.errors import (
    ConfigError,
    DamagedWeightsError,
    OutputExistsError,
    PickleRefusedError,
    UnknownWeightsError,
    WeightsError,
)
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import (
    import_checkpoint,
    load_weights,
    save_weights,
)
from geocd.models.files import bundled_weights, find_weights, read_card
from geocd.models.registry import known_models
from geocd.models.snunet import SiamNestedUNet, SNUNet
from geocd_cli.models import models


def _card(**changes: object) -> WeightsCard:
    card = WeightsCard(
        name="test", architecture="snunet", width=8, classes=("none", "change"), exclusive=True,
        thresholds=(0.5,), bands=("red", "green", "blue"), mean=(0.0,) * 3, std=(1.0,) * 3,
    )  # fmt: skip
    return dataclasses.replace(card, **changes)


@pytest.mark.parametrize(
    ("name", "network"),
    [("snunet_ecam_w8", SNUNet), ("siam_nestedunet_conc_w8", SiamNestedUNet)],
)
def test_outputs_equal_the_reference_network(reference, name, network):
    model = network(width=8).eval()
    model.load_state_dict(load_file(reference / f"{name}.safetensors"))
    io = np.load(reference / f"{name}_io.npz")
    before, after = torch.from_numpy(io["before"]), torch.from_numpy(io["after"])
    with torch.inference_mode():
        outputs = model.answers(before, after).logits
    expected = sorted(key for key in io.files if key.startswith("logits"))
    assert len(outputs) == len(expected)
    for output, key in zip(outputs, expected, strict=True):
        np.testing.assert_allclose(output.numpy(), io[key], atol=1e-4)


@pytest.mark.parametrize(
    ("width", "parameters"), [(8, 754_762), (16, 3_012_178), (32, 12_034_978), (48, 27_068_402)]
)
def test_snunet_has_the_published_number_of_parameters(width, parameters):
    assert sum(p.numel() for p in SNUNet(width=width).parameters()) == parameters


def test_weights_and_card_survive_the_file(tmp_path):
    network = SNUNet(width=8)
    written = save_weights(tmp_path / "w.safetensors", network, _card(limitations=("a", "b")))
    loaded = load_weights(str(tmp_path / "w.safetensors"))
    assert loaded.card == written
    for key, value in loaded.network.state_dict().items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(value, network.state_dict()[key])


def test_half_precision_weights_are_close(tmp_path):
    network = SNUNet(width=8).eval()
    save_weights(tmp_path / "w.safetensors", network, _card(), half=True)
    loaded = load_weights(str(tmp_path / "w.safetensors")).network
    before, after = torch.rand(2, 1, 3, 32, 32) * 255
    with torch.inference_mode():
        wanted = network(before, after).softmax(1)
        torch.testing.assert_close(loaded(before, after).softmax(1), wanted, atol=1e-2, rtol=0)


def test_existing_weights_are_not_replaced_unasked(tmp_path):
    (tmp_path / "w.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputExistsError):
        save_weights(tmp_path / "w.safetensors", SNUNet(width=8), _card())
    assert (tmp_path / "w.safetensors").read_bytes() == b"precious"


def test_one_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "w.safetensors"
    save_weights(path, SNUNet(width=8), _card())
    data = bytearray(path.read_bytes())
    data[-5] ^= 1
    path.write_bytes(data)
    with pytest.raises(DamagedWeightsError, match="do not match the card"):
        load_weights(str(path))


@pytest.mark.parametrize("content", [b"", b"not weights at all", b"\xff" * 64])
def test_a_file_that_is_no_weights_file_is_refused(tmp_path, content):
    (tmp_path / "w.safetensors").write_bytes(content)
    with pytest.raises(DamagedWeightsError):
        load_weights(str(tmp_path / "w.safetensors"))


def test_weights_of_another_shape_are_refused(tmp_path):
    save_weights(tmp_path / "w.safetensors", SNUNet(width=8), _card(width=16))
    with pytest.raises(WeightsError, match="does not fit"):
        load_weights(str(tmp_path / "w.safetensors"))


def test_unknown_weights_are_refused_with_the_bundled_ones():
    with pytest.raises(UnknownWeightsError, match="geocd-vhr"):
        find_weights("nothing-of-that-name")


def test_a_checkpoint_is_not_taken_for_weights_but_told_how_to_import(tmp_path):
    (tmp_path / "net.pth").write_bytes(b"x")
    with pytest.raises(WeightsError, match="geocd models import"):
        find_weights(str(tmp_path / "net.pth"))


def test_bundled_weights_load_and_say_where_they_come_from():
    assert bundled_weights() == ["geocd-snunet", "geocd-vhr", "pcb"]
    for name in bundled_weights():
        card = load_weights(name).card
        kinds = ("tiles", "pairs", "defects")
        sources = [source for kind in kinds for source in card.training.get(kind, ())]
        assert sources
        assert all(source["origin"] and source["terms"] for source in sources)
        assert card.training.get("runs") or card.training["steps"]
        assert card.terms
        assert card.limitations
        assert card.validation


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("upsampling", ["transposed", "bilinear"])
@pytest.mark.parametrize("network", [SNUNet, SiamNestedUNet])
def test_published_checkpoints_are_imported(tmp_path, prefix, wrapped, upsampling, network):
    original = network(width=8, upsampling=upsampling).eval()
    state = {prefix + key: value for key, value in original.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3} if wrapped else state, tmp_path / "net.pth")
    card = import_checkpoint(tmp_path / "net.pth", tmp_path / "net.safetensors")
    assert (card.width, card.classes) == (8, ("none", "change"))
    imported = load_weights(str(tmp_path / "net.safetensors")).network
    before, after = torch.rand(2, 1, 3, 32, 32)
    with torch.inference_mode():
        assert torch.equal(imported(before, after), original(before, after))


def test_reference_weights_are_imported(reference, tmp_path):
    card = import_checkpoint(reference / "snunet_ecam_w8.safetensors", tmp_path / "w.safetensors")
    assert (card.architecture, card.width) == ("snunet", 8)


class _Tripwire:
    """Pickles to something that writes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_is_refused_and_never_executed(tmp_path):
    trace = tmp_path / "executed"
    torch.save(_Tripwire(trace), tmp_path / "module.pth")
    (tmp_path / "plain.pkl").write_bytes(pickle.dumps(_Tripwire(trace)))
    for name in ("module.pth", "plain.pkl"):
        with pytest.raises(PickleRefusedError, match="state_dict"):
            import_checkpoint(tmp_path / name, tmp_path / "out.safetensors")
    assert not trace.exists()
    assert not (tmp_path / "out.safetensors").exists()


def test_a_whole_module_is_refused_with_what_to_do(tmp_path):
    torch.save(SNUNet(width=8), tmp_path / "module.pth")
    with pytest.raises(PickleRefusedError, match=r"torch.save\(model.state_dict\(\)"):
        import_checkpoint(tmp_path / "module.pth", tmp_path / "out.safetensors")


@pytest.mark.parametrize("content", [b"", b"junk", b"PK\x03\x04truncated"])
def test_a_damaged_checkpoint_is_refused(tmp_path, content):
    (tmp_path / "net.pth").write_bytes(content)
    with pytest.raises(WeightsError):
        import_checkpoint(tmp_path / "net.pth", tmp_path / "out.safetensors")


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    save_file({"layer.weight": torch.zeros(2, 2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match="no network that geocd knows"):
        import_checkpoint(tmp_path / "other.safetensors", tmp_path / "out.safetensors")


def test_a_checkpoint_with_a_missing_tensor_is_refused(tmp_path):
    state = SNUNet(width=8).state_dict()
    del state["conv2_1.conv1.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"conv2_1\.conv1\.weight"):
        import_checkpoint(tmp_path / "net.pth", tmp_path / "out.safetensors")


def test_a_bilinear_checkpoint_has_no_upsampling_tensors_and_its_card_says_so(tmp_path):
    state = SNUNet(width=8, upsampling="bilinear").state_dict()
    assert not [key for key in state if key.startswith("Up")]
    torch.save(state, tmp_path / "net.pth")
    card = import_checkpoint(tmp_path / "net.pth", tmp_path / "net.safetensors")
    assert card.options == {"upsampling": "bilinear"}


def test_a_transposed_checkpoint_without_one_of_its_convolutions_is_not_taken_for_bilinear(
    tmp_path,
):
    state = SNUNet(width=8).state_dict()
    del state["Up1_0.up.weight"]
    torch.save(state, tmp_path / "net.pth")
    with pytest.raises(WeightsError, match=r"missing \(Up1_0\.up\.weight"):
        import_checkpoint(tmp_path / "net.pth", tmp_path / "out.safetensors")


def test_weights_that_do_not_have_the_upsampling_of_their_card_are_refused(tmp_path):
    card = _card(options={"upsampling": "bilinear"})
    save_weights(tmp_path / "w.safetensors", SNUNet(width=8), card)
    with pytest.raises(WeightsError, match=r"not known \(Up"):
        load_weights(str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize("options", [{"upsampling": "nearest"}, {"attention": "none"}])
def test_a_card_with_an_option_that_the_network_lacks_is_refused(tmp_path, options):
    save_weights(tmp_path / "w.safetensors", SNUNet(width=8), _card(options=options))
    with pytest.raises(ConfigError, match="known are: "):
        load_weights(str(tmp_path / "w.safetensors"))


def test_a_card_of_before_there_were_options_can_be_read():
    table = json.loads(_card().to_json())
    del table["options"]
    assert WeightsCard.from_json(json.dumps(table)) == _card()


def test_a_card_round_trips_through_json():
    options = {"upsampling": "bilinear"}
    card = _card(
        gsd=(0.4, 1.0), options=options, training={"data": [{"origin": "x"}]}, limitations=("none",)
    )
    assert WeightsCard.from_json(card.to_json()) == card


@pytest.mark.parametrize(
    "changes",
    [{"thresholds": (0.5, 0.5)}, {"mean": (0.0,)}, {"classes": ("change", "none")}],
)
def test_a_card_that_contradicts_itself_is_refused(changes):
    with pytest.raises(WeightsError):
        _card(**changes)


def test_a_card_can_be_read_without_the_tensors(tmp_path):
    save_weights(tmp_path / "w.safetensors", SNUNet(width=8), _card())
    assert read_card(tmp_path / "w.safetensors").name == "test"


def test_models_list_shows_every_architecture_with_its_options():
    done = CliRunner().invoke(models, ["list"])
    assert done.exit_code == 0
    lines = {line.split()[0]: line for line in done.stdout.splitlines()}
    assert set(known_models()) < set(lines)
    assert lines["snunet"].endswith("upsampling: transposed or bilinear")
    assert lines["fc-siam-diff"].strip() == "fc-siam-diff"


def test_models_import_says_that_the_upsampling_is_bilinear(tmp_path):
    torch.save(SNUNet(width=8, upsampling="bilinear").state_dict(), tmp_path / "net.pth")
    arguments = ["import", str(tmp_path / "net.pth"), "-o", str(tmp_path / "net.safetensors")]
    done = CliRunner().invoke(models, arguments)
    assert done.exit_code == 0
    assert "snunet, width 8, bilinear, 3 bands, classes none, change" in done.stdout

"""Backends agree, the cache is made once, and what a machine lacks is said."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
import warnings
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

from geocd.config import PredictConfig
from geocd.errors import BackendError, ConfigError, DeviceMemoryError, GeocdWarning
from geocd.models.attention import POOLED_SIDE
from geocd.models.card import WeightsCard
from geocd.models.checkpoint import load_weights, save_weights
from geocd.models.files import bundled_weights, find_weights
from geocd.models.fold import fold_batch_norms
from geocd.models.registry import build_model
from geocd.predict import backends, cache, openvino
from geocd.predict import torch as torch_backend
from geocd.predict.backends import open_predictor
from geocd.predict.openvino import OpenVINOPredictor
from geocd.predict.torch import TorchPredictor
from geocd.testing.pairs import paint_pairs

TOLERANCE = {"float32": (1, 0.01), "bf16": (25, 0.5)}
"""Largest and mean difference to float32 torch, in levels of 254."""


def _forget():
    """As a new process would be."""
    for remembered in (openvino._network, openvino._compile, cache._warn_once):
        remembered.cache_clear()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(autouse=True)
def _surroundings(shared, monkeypatch):
    monkeypatch.setenv("GEOCD_CACHE", str(shared))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    _forget()


def _saved(
    path, *, bands=3, exclusive=False, classes=("building", "road"), name="fc-siam-conc", width=4
):
    torch.manual_seed(0)
    network = build_model(name, bands=bands, classes=len(classes), width=width)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):  # as if trained: norms that are not the identity
            module.running_mean.normal_(0, 0.3)
            module.running_var.uniform_(0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0, 0.2)
        elif isinstance(module, nn.Conv2d) and module.out_channels == len(classes):
            nn.init.normal_(module.weight, 0, 0.3)
    card = WeightsCard(
        name="tiny", architecture=name, width=width, classes=classes, exclusive=exclusive,
        thresholds=(0.5,) * (len(classes) - exclusive), mean=(127.0,) * bands,
        std=(64.0,) * bands, bands=tuple(f"b{i}" for i in range(bands)),
    )  # fmt: skip
    save_weights(path, network, card)
    return path


def _noise(number, *shape, bands=3):
    return np.random.default_rng(1).integers(0, 256, (2, number, bands, *shape), np.uint8)


def _gap(first, second):
    return np.abs(first.astype(int) - second.astype(int))


# Parity: every backend against torch in float32


@pytest.fixture(scope="module")
def painted():
    """Painted windows of both dates, (4, 3, 256, 256) each."""
    pairs = list(paint_pairs(4, gsd=0.8))
    return tuple(np.stack(images) for images in zip(*pairs, strict=True))


@pytest.mark.parametrize("weights", bundled_weights())
def test_trained_weights_give_the_same_on_every_backend(weights, painted):
    wanted = TorchPredictor(load_weights(weights), device="cpu", precision="float32")(*painted)
    assert wanted.max() > 200  # there is change to be found
    card = load_weights(weights).card
    threshold = 254 * card.thresholds[0]
    rounded = card.options.get("fine") == "rounded"  # its fine maps are in half precision, too
    found = {("torch", "bf16"): TorchPredictor(load_weights(weights), precision="bf16")(*painted)}
    for precision in {"float32", "bf16"} & set(openvino.precisions()):
        predictor = OpenVINOPredictor(find_weights(weights), precision=precision)
        found["openvino", precision] = predictor(*painted)
    for (_, precision), levels in found.items():
        assert levels.dtype == np.uint8
        gap, (largest, mean) = _gap(levels, wanted), TOLERANCE[precision]
        if rounded and precision == "bf16":
            largest *= 2
        assert gap.max() <= largest
        assert gap.mean() <= mean
        assert ((levels >= threshold) != (wanted >= threshold)).mean() < 1e-3


def test_half_precision_spares_what_the_network_declares():
    if "bf16" not in openvino.precisions():
        pytest.skip("this processor has no bf16")
    form = OpenVINOPredictor(find_weights("geocd-vhr"), precision="bf16")._form
    front, rest = openvino._compile(form, (64, 64), "bf16", 1, 1)
    hints = [m.get_property("INFERENCE_PRECISION_HINT").to_string() for m in (front, rest)]
    assert hints == ["f32", "bf16"]
    assert [list(o.shape) for o in front.outputs] == [[2, 16, 32, 32], [2, 24, 16, 16]]
    assert len(openvino._compile(form, (64, 64), "float32", 1, 1)) == 1


@pytest.mark.parametrize(
    ("name", "bands", "classes", "exclusive"),
    [
        ("snunet", 1, ("change",), False),
        ("siam-nested-unet", 4, ("none", "change"), True),
        ("fc-siam-diff", 3, ("none", "a", "b"), True),
    ],
)
def test_odd_bands_and_classes_give_the_same_on_both_backends(
    tmp_path, name, bands, classes, exclusive
):
    path = _saved(
        tmp_path / "w.safetensors", name=name, bands=bands, classes=classes, exclusive=exclusive
    )
    pair = _noise(3, 37, 51, bands=bands)
    wanted = TorchPredictor(load_weights(str(path)), device="cpu", precision="float32")(*pair)
    found = OpenVINOPredictor(path, precision="float32")(*pair)
    assert found.shape == wanted.shape == (3, len(classes) - exclusive, 37, 51)
    assert wanted.std() > 1
    assert _gap(found, wanted).max() <= 1


def test_windows_in_which_attention_looks_at_parts_give_the_same(tmp_path):
    assert openvino.FREE_UP_TO == POOLED_SIDE * 5 // 4
    path = _saved(tmp_path / "w.safetensors", name="snunet")
    predictor = OpenVINOPredictor(path, precision="float32")
    reference = TorchPredictor(load_weights(str(path)), device="cpu", precision="float32")
    for shape in ((64, 64), (320, 48), (400, 48), (64, 64)):
        pair = _noise(1, *shape)
        assert _gap(predictor(*pair), reference(*pair)).max() <= 1


@pytest.mark.parametrize("name", ["snunet", "siam-nested-lite", "fc-siam-conc", "stacked-unet"])
def test_folding_changes_no_logit_and_leaves_the_network_as_it_was(tmp_path, name):
    network = load_weights(str(_saved(tmp_path / "w.safetensors", name=name, width=8))).network
    before, after = torch.randn(2, 1, 3, 64, 64)
    with torch.inference_mode():
        wanted = network(before, after)
        folded = fold_batch_norms(network)
        torch.testing.assert_close(folded(before, after), wanted, atol=1e-4, rtol=1e-4)
        assert torch.equal(network(before, after), wanted)
    norms = [sum(isinstance(m, nn.BatchNorm2d) for m in n.modules()) for n in (network, folded)]
    # SNUNet's skip needs what comes before the first norm of a block; that one stays.
    assert norms[1] == (norms[0] // 2 if name == "snunet" else 0)


# The cache


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """The path of a weights file."""
    return _saved(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture
def folder(tiny, tmp_path, monkeypatch):
    """A cache of the test's own, and a conversion that takes no time."""
    form = OpenVINOPredictor(tiny, precision="float32")._form
    converted = openvino._network(form)
    monkeypatch.setattr(openvino, "_converted", lambda form: converted)
    monkeypatch.setenv("GEOCD_CACHE", str(tmp_path / "cache"))
    _forget()
    return tmp_path / "cache" / "networks"


def _score(path, shape=(32, 32)):
    return OpenVINOPredictor(path, precision="float32")(*_noise(2, *shape))


def test_weights_are_converted_once_per_machine(tiny, folder, monkeypatch):
    first = _score(tiny)
    _forget()
    monkeypatch.setattr(openvino, "_converted", lambda form: pytest.fail("converted again"))
    assert np.array_equal(_score(tiny), first)
    assert len(list(folder.iterdir())) == 1


def test_other_weights_another_card_and_8_bits_are_converted_apart(tiny, tmp_path):
    weights = load_weights(str(tiny))
    save_weights(tmp_path / "card.safetensors", weights.network,
                 dataclasses.replace(weights.card, mean=(0.0,) * 3))  # fmt: skip
    next(weights.network.parameters()).data += 1
    save_weights(tmp_path / "other.safetensors", weights.network, weights.card)
    keys = {
        OpenVINOPredictor(path, precision=precision)._form.key
        for path in (tiny, tmp_path / "card.safetensors", tmp_path / "other.safetensors")
        for precision in ("float32", "int8")
    }
    assert len(keys) == 6


@pytest.mark.parametrize("victim", ["model.xml", "model.bin", "facts.json"])
def test_a_damaged_entry_is_made_anew(tiny, folder, victim):
    wanted = _score(tiny)
    (entry,) = folder.iterdir()
    content = bytearray((entry / victim).read_bytes())
    content[len(content) // 2] ^= 1
    (entry / victim).write_bytes(content[:-3])
    _forget()
    assert cache.find_entry(entry.name) is None
    assert np.array_equal(_score(tiny), wanted)
    assert cache.find_entry(entry.name) == entry


def test_without_a_usable_cache_folder_it_goes_on_and_says_so_once(
    tiny, folder, tmp_path, monkeypatch
):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("GEOCD_CACHE", str(tmp_path / "file"))
    with pytest.warns(GeocdWarning, match="GEOCD_CACHE"):
        _score(tiny)
    openvino._network.cache_clear()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        _score(tiny, (32, 48))


def test_entries_made_at_once_do_not_meet(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOCD_CACHE", str(tmp_path))
    folder = tmp_path / "networks"

    def _write(draft):
        barrier.wait()
        (draft / "model.bin").write_bytes(b"x" * 1000)

    barrier = threading.Barrier(4)
    made = []
    makers = [
        threading.Thread(
            target=lambda: made.append(cache.store_entry("key", _write, {"stride": 1}))
        )
        for _ in range(4)
    ]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    assert made == [folder / "key"] * 4
    assert [p.name for p in folder.iterdir()] == ["key"]
    assert cache.read_facts(folder / "key") == {"stride": 1}


def test_entries_that_nobody_used_for_long_go_when_one_is_made(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOCD_CACHE", str(tmp_path))
    folder = tmp_path / "networks"

    def _make(key):
        cache.store_entry(key, lambda draft: (draft / "model.bin").write_bytes(b"x"), {})

    def _age(name, days):
        then = time.time() - days * 86400
        os.utime(folder / name, (then, then))

    for key in ("fresh", "stale", "used"):
        _make(key)
    (folder / ".new-killed").mkdir()
    for name, days in (
        ("fresh", cache.KEPT_DAYS - 1), ("stale", cache.KEPT_DAYS + 1),
        ("used", cache.KEPT_DAYS + 1), (".new-killed", cache.KEPT_DAYS + 1),
    ):  # fmt: skip
        _age(name, days)
    cache.find_entry("used")
    _make("new")
    assert sorted(path.name for path in folder.iterdir()) == ["fresh", "new", "used"]


def test_an_entry_that_another_process_removes_meanwhile_is_made_anew(tiny, folder, monkeypatch):
    wanted = _score(tiny)
    _forget()
    find = cache.find_entry

    def _found_and_removed(key):
        entry = find(key)
        if entry is not None:
            shutil.rmtree(entry)
        return entry

    monkeypatch.setattr(openvino.cache, "find_entry", _found_and_removed)
    assert np.array_equal(_score(tiny), wanted)


@pytest.mark.parametrize(
    ("platform", "variable", "wanted"),
    [("linux", "XDG_CACHE_HOME", "geocd"), ("win32", "LOCALAPPDATA", "geocd")],
)
def test_the_cache_is_where_the_system_keeps_caches(
    tmp_path, monkeypatch, platform, variable, wanted
):
    monkeypatch.delenv("GEOCD_CACHE")
    monkeypatch.setenv(variable, str(tmp_path))
    monkeypatch.setattr(sys, "platform", platform)
    assert cache.cache_folder() == tmp_path / wanted


_QUIET = """
import socket, sys
def refuse(*args, **kwargs): raise SystemExit("a connection was tried")
socket.socket.connect = socket.create_connection = socket.getaddrinfo = refuse
from geocd.config import PredictConfig
from geocd.predict.backends import open_predictor
predictor = open_predictor(sys.argv[1], window=(64, 64), config=PredictConfig(device="cpu"))
assert "OpenVINO" in predictor.description, predictor.description
print("torch" in sys.modules, "openvino_telemetry" in sys.modules)
"""


def test_openvino_reports_to_nobody_and_runs_from_the_cache_without_torch(tiny, tmp_path):
    """In processes of their own: a first that converts, a second that finds it converted."""
    home = tmp_path / "home"
    home.mkdir()
    hidden = {"CI", "TF_BUILD", "GITHUB_ACTIONS", "JENKINS_URL"}  # these too would silence it
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"HOME": str(home), "GEOCD_CACHE": str(tmp_path / "cache")}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-c", _QUIET, str(tiny)], env=environment, capture_output=True,
            text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        said.append(done.stdout.split())
    assert said == [["True", "False"], ["False", "False"]]
    assert list(home.iterdir()) == []


# What a machine lacks


def _open(weights, **settings):
    return open_predictor(
        str(weights), window=(32, 32), config=PredictConfig(device="cpu", **settings)
    )


def test_auto_runs_openvino_on_the_processor_and_says_in_what(tiny):
    predictor = _open(tiny)
    assert isinstance(predictor, OpenVINOPredictor)
    assert predictor.precision in predictor.description
    assert predictor.description.startswith("OpenVINO 2")


def test_a_processor_without_bf16_computes_in_float32(tiny, monkeypatch, tmp_path):
    monkeypatch.setattr(openvino, "precisions", lambda: ("float32", "int8"))
    assert _open(tiny).precision == "float32"
    with pytest.raises(ConfigError, match=r"bf16.*has float32, int8"):
        _open(tiny, precision="bf16")
    (tmp_path / "cpuinfo").write_text("flags : sse2 avx2")
    monkeypatch.setattr(torch_backend, "_CPU_FACTS", tmp_path / "cpuinfo")
    assert _open(tiny, backend="torch").precision == "float32"
    (tmp_path / "cpuinfo").write_text("flags : avx512f avx512_bf16")
    assert _open(tiny, backend="torch").precision == "bf16"


@pytest.mark.parametrize("backend", ["torch", "openvino"])
def test_a_precision_that_a_backend_lacks_is_refused_with_those_it_has(tiny, backend, monkeypatch):
    monkeypatch.setattr(openvino, "precisions", lambda: ("float32", "bf16"))
    with pytest.raises(ConfigError, match="float32, bf16"):
        _open(tiny, backend=backend, precision="fp16")
    with pytest.raises(ConfigError, match="float32, bf16"):
        _open(tiny, backend=backend, precision="int8")


def test_where_openvino_is_missing_torch_takes_over_unless_openvino_was_asked_for(
    tiny, monkeypatch
):
    def _missing():
        raise ImportError("No module named 'openvino'")

    openvino._core.cache_clear()
    monkeypatch.setattr(openvino, "openvino", _missing)
    with pytest.warns(GeocdWarning, match=r"No module named.*torch runs the network"):
        predictor = _open(tiny)
    assert isinstance(predictor, TorchPredictor)
    with pytest.raises(BackendError, match="No module named"):
        _open(tiny, backend="openvino")


def test_where_openvino_cannot_compile_torch_takes_over_unless_openvino_was_asked_for(
    tiny, monkeypatch
):
    class _Core:
        def __getattr__(self, name):
            return getattr(core, name)

        def compile_model(self, *args):
            raise RuntimeError("Exception from src/core.cpp:\nno such instruction")

    core = openvino._core()
    monkeypatch.setattr(openvino, "_core", _Core)
    with pytest.warns(GeocdWarning, match="no such instruction"):
        predictor = _open(tiny)
    assert isinstance(predictor, TorchPredictor)
    with pytest.raises(BackendError, match=r"cannot compile.*--backend torch"):
        _open(tiny, backend="openvino")


def test_int8_without_nncf_says_what_to_install(tiny, monkeypatch):
    monkeypatch.setitem(sys.modules, "nncf", None)
    with pytest.raises(ConfigError, match=r"geocd\[int8\]"):
        open_predictor(str(tiny), window=(32, 32), config=PredictConfig(precision="int8"),
                       calibration=lambda card: paint_pairs(1, gsd=0.5))  # fmt: skip


@pytest.fixture
def eight_bits(monkeypatch):
    """Stands in for NNCF: 8 bits that change nothing, unless told to add to the scores."""
    ov = openvino.openvino()

    def _quantise(model, pairs, *, precise):
        changed = model.clone()
        if added:
            result = changed.get_results()[0]
            levels = result.input_value(0)
            more = ov.opset13.add(levels, ov.opset13.constant(np.uint8(added)))
            result.input(0).replace_source_output(more.output(0))
        return changed

    added = 0

    def _add(levels):
        nonlocal added
        added = levels

    monkeypatch.setattr("geocd.predict.convert.quantise", _quantise)
    return _add


def _open_int8(weights):
    return open_predictor(
        str(weights), window=(32, 32), config=PredictConfig(precision="int8"),
        calibration=lambda card: paint_pairs(2, gsd=0.5, size=32),
    )  # fmt: skip


def test_int8_tells_its_loss(tiny, tmp_path, eight_bits, monkeypatch):
    monkeypatch.setenv("GEOCD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "precisions", lambda: ("float32", "int8"))
    assert "int8 (0.00% of the pixels of painted pairs" in _open_int8(tiny).description


def test_int8_that_changes_the_map_is_refused(tiny, tmp_path, eight_bits, monkeypatch):
    monkeypatch.setenv("GEOCD_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(openvino, "precisions", lambda: ("float32", "int8"))
    eight_bits(127)
    with pytest.raises(BackendError, match="8 bits are not enough"):
        _open_int8(tiny)


@pytest.mark.parametrize(
    "settings",
    [{"backend": "openvino", "device": "cuda"}, {"backend": "openvino", "compile": True}],
)
def test_settings_that_exclude_each_other_are_refused(tiny, settings):
    with pytest.raises(ConfigError):
        open_predictor(str(tiny), window=(32, 32), config=PredictConfig(**settings))


@pytest.mark.parametrize("wrong", [{"backend": "onnx"}, {"precision": "fp8"}, {"device": "tpu"}])
def test_unknown_choices_are_refused_with_the_known_ones(wrong):
    with pytest.raises(ConfigError, match="must be one of auto, "):
        PredictConfig(**wrong)


def test_a_gpu_is_looked_for_by_torch_only_where_there_may_be_one(tiny, monkeypatch):
    config = PredictConfig()
    monkeypatch.setattr(backends, "_may_have_gpu", lambda: True)
    monkeypatch.setattr(torch_backend, "choose_device", lambda name: torch.device("cuda"))
    assert backends._choose(config) == "torch"
    monkeypatch.setattr(torch_backend, "choose_device", lambda name: torch.device("cpu"))
    assert backends._choose(config) == "openvino"


# GPUs, by stand-ins: nothing here says how fast one is


class _SmallMemory(nn.Module):
    """Adds the dates; holds ``most`` window pairs."""

    def __init__(self, most, refusal=None):
        super().__init__()
        self.most, self.sizes = most, []
        self.refusal = refusal or torch.OutOfMemoryError("CUDA out of memory")

    def forward(self, before, after):
        self.sizes.append(len(before))
        if len(before) > self.most:
            raise self.refusal
        return (before // 2 + after // 2)[:, :1]


def _lane(graph):
    return torch_backend._Lane(graph, torch.device("cpu"), "float32")


def test_a_batch_that_the_memory_cannot_hold_is_halved_once_and_for_all():
    graph = _SmallMemory(most=3)
    lane, pair = _lane(graph), _noise(8, 16, 16)
    with pytest.warns(GeocdWarning, match="at a time") as said:
        levels = lane(*pair)
    np.testing.assert_array_equal(levels, (pair[0] // 2 + pair[1] // 2)[:, :1])
    assert [str(w.message).rpartition("now on ")[2] for w in said] == [
        "4 at a time", "2 at a time"
    ]  # fmt: skip
    assert graph.sizes == [8, 4, 2, 2, 2, 2]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lane(*pair)
    assert max(graph.sizes[6:]) == 2


@pytest.mark.parametrize("text", ["MPS backend out of memory", "can't allocate memory: 9 bytes"])
def test_devices_that_tell_of_full_memory_in_words_only_are_understood(text):
    graph = _SmallMemory(most=1, refusal=RuntimeError(text))
    with pytest.warns(GeocdWarning, match="at a time"):
        _lane(graph)(*_noise(2, 16, 16))
    assert graph.sizes == [2, 1, 1]
    with pytest.raises(RuntimeError, match="another"):
        _lane(_SmallMemory(most=1, refusal=RuntimeError("another")))(*_noise(2, 16, 16))


def test_what_is_computed_in_float32_on_cuda_is_not_cut_to_19_bits(tiny, monkeypatch):
    seen = []
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    predictor = TorchPredictor(load_weights(str(tiny)), device="cpu", precision="float32")
    predictor.device = torch.device("cuda")
    predictor._lanes = [
        lambda *pair: seen.append(torch.backends.cudnn.allow_tf32) or pair[0][:, :1]
    ]
    predictor(*_noise(1, 32, 32))
    assert seen == [False]
    assert torch.backends.cudnn.allow_tf32


def test_a_window_that_the_memory_cannot_hold_says_what_to_try():
    with pytest.warns(GeocdWarning), pytest.raises(DeviceMemoryError, match="--tile-size"):
        _lane(_SmallMemory(most=0))(*_noise(2, 16, 16))


def test_windows_are_split_among_devices_and_come_back_in_order(tiny):
    predictor = TorchPredictor(load_weights(str(tiny)), device="cpu", precision="float32")
    pair = _noise(5, 32, 32)
    alone = predictor(*pair)
    predictor._lanes *= 3
    np.testing.assert_array_equal(predictor(*pair), alone)
    assert predictor(*pair[:, :1]).shape == (1, 2, 32, 32)


def test_uploads_overlap_with_computing_in_the_right_order(monkeypatch):
    """The compute stream waits for each half's upload, and for all of it before bytes are read."""
    told = []
    stream = SimpleNamespace(
        wait_stream=lambda other: told.append(f"wait for {other}"),
        synchronize=lambda: told.append("synchronise"),
    )
    monkeypatch.setattr(torch.cuda, "device", lambda device: nullcontext())
    monkeypatch.setattr(torch.cuda, "stream", lambda s: told.append(f"on {s}") or nullcontext())
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stream)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda self: self)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda self, s: None)
    graph = _SmallMemory(most=8)
    lane, pair = _lane(graph), _noise(5, 16, 16)
    lane._upload = "upload"
    np.testing.assert_array_equal(lane(*pair), (pair[0] // 2 + pair[1] // 2)[:, :1])
    assert graph.sizes == [3, 2]
    assert told == ["on upload", "wait for upload"] * 2 + ["synchronise"]

"""What a protocol says of its model is what training gets."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from labctl import bench, data, document
from labctl.data import Dataset, Split
from labctl.protocol import ADAPTER, TrainProtocol
from labctl.reservoir import Reservoir
from labctl.run import model
from labctl.training.blackbox import DeviceLayer
from labctl.training.surrogate.settings import OpticalLayout, SurrogateSettings

ENTRY = bench.load("sim-small").file.reservoir
Read = Callable[..., TrainProtocol]


@pytest.fixture
def read(small: Path) -> Read:
    def protocol(*overrides: str) -> TrainProtocol:
        value = document.read(small, ADAPTER, overrides=overrides).value
        assert isinstance(value, TrainProtocol)
        return value

    return protocol


def digits(protocol: TrainProtocol) -> Dataset:
    return data.load_entry(protocol.data, Path())


def test_sizes_are_those_of_the_reservoir() -> None:
    sizes = model.Sizes(ENTRY.model_copy(update={"macropixels": (4, 6)}))
    assert (sizes.layout, sizes.pixels, sizes.outputs) == ((4, 6), 24, 9)
    with pytest.raises(RuntimeError, match="expected an open reservoir"):
        sizes(torch.zeros(1, 24), category="train", layer=0, step=0)


def test_a_model_is_built_layer_by_layer(read: Read) -> None:
    layers = (
        "model=[{layer: linear, outputs: 20}, {layer: activation, function: sigmoid}, "
        "{layer: device, encoding: split, split: 0.25}, {layer: standardise}, "
        "{layer: linear}]"
    )
    protocol = read(layers)
    generator = torch.Generator().manual_seed(0)
    built = model.build(protocol, digits(protocol), model.Sizes(ENTRY), generator)
    first, _, device, _, last = built.layers
    assert first.weight.shape == (20, 64)
    assert isinstance(device, DeviceLayer)
    assert last.weight.shape == (10, 9)


def test_layers_that_do_not_fit_are_refused(read: Read) -> None:
    protocol = read("reservoir.macropixels=[3, 5]")
    entry = ENTRY.model_copy(update={"macropixels": (3, 5)})
    with pytest.raises(ValueError, match="features=64, expected 1 to 15"):
        model.build(protocol, digits(protocol), model.Sizes(entry), torch.Generator())


def test_every_entry_of_the_protocol_reaches_training(read: Read) -> None:
    protocol = read(
        "surrogate.loss=[{name: mse}, {name: gen, weight: 0.5, a: 0.3}]",
        "surrogate.modes=7",
        "probes.paired_per_step=3",
        "probes.dither_rad=[0.4, 0.1]",
        "training.learning_rate_theta=0.07",
    )
    settings = model.surrogate_settings(protocol.surrogate)
    assert settings.modes == 7
    assert [(t.name, t.weight, t.a) for t in settings.loss] == [
        ("mse", 1.0, protocol.surrogate.loss[0].a),
        ("gen", 0.5, 0.3),
    ]
    probing = model.probing(protocol.probes)
    assert (probing.paired_per_step, probing.dither_rad) == (3, (0.4, 0.1))
    assert model.optimisation(protocol.training).learning_rate_theta == 0.07


def test_a_course_counts_what_the_protocol_asks_for(read: Read) -> None:
    protocol = read("estimator.name=control-variate", "estimator.probes=5")
    course = model.course(protocol, digits(protocol))
    assert (course.train, course.validation, course.batch) == (96, 20, 16)
    assert (course.probes_per_sample, course.exposures) == (5, 1)
    trust = model.course(read(), digits(protocol))
    assert trust.probes_per_sample == 0


@pytest.mark.parametrize(
    ("y", "kind"),
    [
        (np.array([0, 2, 1]), torch.int64),
        (np.array([[0.5], [1.5], [2.0]]), torch.float32),
    ],
)
def test_samples_keep_classes_whole_and_targets_real(
    y: np.ndarray, kind: torch.dtype
) -> None:
    x = np.arange(12, dtype=np.float64).reshape(3, 4)
    samples = model.samples(Split(x, y))
    assert samples.x.dtype == torch.get_default_dtype()
    assert samples.y.dtype == kind
    assert samples.y.tolist() == y.tolist()


def test_reference_lines_are_booked_as_evaluation() -> None:
    with bench.open(bench.load("sim-small")) as table:
        device = Reservoir(table)
        reservoir = model.AsEvaluation(device)
        reservoir(torch.zeros(2, device.pixels), category="train", layer=1, step=3)
        assert {k: v for k, v in device.ledger.counts.items() if v} == {"evaluate": 2}
        assert (reservoir.layout, reservoir.pixels) == (device.layout, device.pixels)
        assert reservoir.outputs == device.outputs


def test_a_surrogate_is_told_sizes_and_layout_and_nothing_else() -> None:
    file = bench.load("sim-small").file
    ports = model.ports(file, file.reservoir)
    assert (ports.pixels, ports.outputs, ports.layout) == (256, 9, (16, 16))
    assert ports.optics == OpticalLayout(
        (32, 32), 8, 0.1, (3, 3, 27, 27), (3, 3), lens=True
    )
    bare = file.model_copy(update={"optics": None})
    assert model.ports(bare, file.reservoir).optics is None


def test_a_surrogate_that_learns_the_layout_is_told_bins_and_lens_alone() -> None:
    file = bench.load("sim-small").file
    settings = SurrogateSettings("twin-optics", optics="learned", points=3)
    ports = model.ports(file, file.reservoir, settings)
    assert ports.optics == OpticalLayout.guess((16, 16), (3, 3), points=3, lens=True)
    bare = file.model_copy(update={"optics": None, "view": "image"})
    optics = model.ports(bare, file.reservoir, settings).optics
    assert optics is not None
    assert not optics.lens


def test_refuses_a_region_that_the_layout_does_not_place() -> None:
    file = bench.load("sim-small").file
    assert file.optics is not None
    placed = file.optics.model_copy(update={"region": (4, 4, 24, 24)})
    file = file.model_copy(update={"optics": placed})
    ports = model.ports(file, file.reservoir)
    assert ports.optics is not None
    assert ports.optics.region == (4, 4, 24, 24)
    entry = file.reservoir.model_copy(update={"region": (0, 0, 32, 32)})
    with pytest.raises(ValueError, match=r"region=\[0, 0, 32, 32\], expected \[3, 3,"):
        model.ports(file, entry)

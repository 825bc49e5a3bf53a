import inspect
import math
from dataclasses import MISSING, Field, fields, is_dataclass
from typing import Any

import pytest

from drivers.sim.camera import CameraOptions
from drivers.sim.options import (
    DriftOptions,
    LightOptions,
    MediumOptions,
    MeterOptions,
    Options,
    PanelOptions,
    SensorOptions,
    parse,
)

SECTIONS: tuple[type[Any], ...] = (
    MediumOptions,
    LightOptions,
    PanelOptions,
    SensorOptions,
    MeterOptions,
    DriftOptions,
    CameraOptions,
    Options,
)


def numbers() -> list[tuple[str, str, Field[Any]]]:
    """Every option that takes a number: section, name and field."""
    return [
        (_key(section), part.name, part)
        for section in SECTIONS
        if section is not CameraOptions
        for part in fields(section)
        if part.metadata
    ]


def _key(section: type[Any]) -> str:
    return section.__name__.removesuffix("Options").lower()


def _given(section: str, name: str, value: object) -> dict[str, object]:
    return {section: {name: value}} if section else {name: value}


@pytest.mark.parametrize(
    ("section", "name", "part"), numbers(), ids=lambda value: str(value)[:24]
)
def test_no_number_takes_what_is_no_number_or_beyond_its_limits(
    section: str, name: str, part: Field[Any]
) -> None:
    where = ".".join(each for each in ("world", section, name) if each)
    low, high = part.metadata["low"], part.metadata["high"]
    bad: list[object] = ["3", True, [1], math.nan, math.inf, -math.inf]
    bad.append(low - 1 if isinstance(part.default, int) else low - 1e-3 - abs(low))
    bad.append(2 * high + 1)
    for value in bad:
        with pytest.raises((TypeError, ValueError)) as caught:
            parse(Options, _given(section, name, value))
        text = str(caught.value)
        assert text.startswith(f"{where}={value!r}, expected a"), text


@pytest.mark.parametrize("section", SECTIONS, ids=lambda made: str(made.__name__))
def test_every_default_says_where_it_comes_from(section: type[Any]) -> None:
    page = inspect.getdoc(section) or ""
    entries: dict[str, str] = {}
    names: list[str] = []
    for line in page.partition("----------")[2].splitlines():
        if line and not line.startswith(" "):
            names = line.split(", ")
        for name in names:
            entries[name] = entries.get(name, "") + line
    for part in fields(section):
        neutral = part.default in (0, None, False) or part.default is MISSING
        if is_dataclass(part.default) or neutral:
            continue
        text = entries[part.name]
        assert any(mark in text for mark in ("[S", "[G", "[D")), (part.name, text)


def test_takes_nested_keys_and_whole_numbers_for_real_ones() -> None:
    made = parse(
        Options, {"grid": [32, 48], "medium": {"b": -2, "saturation": None, "steps": 8}}
    )
    assert made.grid == (32, 48)
    assert made.medium.b == -2.0
    assert isinstance(made.medium.b, float)
    assert made.medium.saturation is None
    assert made.sensor.well_e == 15_000


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"gird": [8, 8]}, TypeError, r"world\.gird is not known, expected one of"),
        ({"medium": {"is": 1}}, TypeError, r"world\.medium\.is is not known"),
        ({"medium": 3}, TypeError, r"world\.medium=3, expected keys and values"),
        ({"medium": {"b": "3"}}, TypeError, r"medium\.b='3', expected a number"),
        ({"medium": {"b": True}}, TypeError, r"medium\.b=True, expected a number"),
        ({"medium": {"steps": 8.0}}, TypeError, "expected a whole number"),
        (
            {"medium": {"steps": 0}},
            ValueError,
            "steps=0, expected a whole number from 1",
        ),
        ({"medium": {"fresnel": float("nan")}}, ValueError, "fresnel=nan, expected"),
        (
            {"medium": {"steps": 6}},
            ValueError,
            r"world\.medium\.steps=6, expected a mul",
        ),
        (
            {"medium": {"kind": "plasma"}},
            ValueError,
            r"medium\.kind='plasma', expected one of",
        ),
        (
            {"medium": {"kappa": 1.0}},
            ValueError,
            r"world\.medium\.kappa=1, expected 0 unless kind is shg",
        ),
        (
            {"medium": {"kind": "grin_kerr"}},
            ValueError,
            r"medium\.guide=0, expected another number with kind grin_kerr",
        ),
        (
            {"medium": {"kind": "grin_kerr", "guide": 32.0, "steps": 8}},
            ValueError,
            r"world\.medium\.steps=8, expected at least 41: fewer under-sample",
        ),
        (
            {"medium": {"steps": 20}},
            ValueError,
            r"steps=20, expected a multiple of twice medium\.screens=4, such as 24",
        ),
        (
            {"medium": {"kind": "shg", "kappa": 1.0, "domains": 5}},
            ValueError,
            r"steps=16, expected a multiple of medium\.domains=5, such as 20",
        ),
        (
            {"medium": {"domains": 8}},
            ValueError,
            r"world\.medium\.domains=8, expected 0 unless kind is shg",
        ),
        (
            {"medium": {"kind": "shg", "kappa": 1.0, "memory_rad": 1.0}},
            ValueError,
            r"memory_rad=1, expected 0 unless kind is free, grin_kerr, kerr, kerr_sat",
        ),
        (
            {"drift": {"speckle": 0.02}, "medium": {"screens": 0}},
            ValueError,
            r"world\.drift\.speckle=0\.02, expected 0 where nothing is disordered",
        ),
        (
            {"medium": {"fresnel": 50.0}},
            ValueError,
            r"world\.medium\.steps=16, expected at least 79: fewer under-sample the d",
        ),
        (
            {
                "medium": {
                    "kind": "tm_shg",
                    "conversion": 0.1,
                    "transmission": "dense",
                }
            },
            ValueError,
            r"transmission='dense' on 4096 grid points, expected at most 1024",
        ),
        ({"view": "through_medium"}, ValueError, "view='through_medium', expected"),
        ({"ideal": 1}, TypeError, "ideal=1, expected true or false"),
        ({"grid": [8]}, TypeError, "expected two whole numbers, rows and columns"),
        ({"grid": [8, 10]}, ValueError, r"grid=\[8, 10\], expected multiples of 4"),
        ({"precision": "half"}, ValueError, "precision='half', expected one of"),
        ({"panel": {"lut_error": 0.5}}, ValueError, r"lut_error=0\.5, expected"),
        (
            {"panel": {"fast_s": 0.02}},
            ValueError,
            r"world\.panel\.fast_s=0\.02, expected more than 0 and at most slow_s=",
        ),
        (
            {"panel": {"slow_s": 0.0}},
            ValueError,
            r"world\.panel\.fast_s=0\.00192308, expected .* or 0 for both",
        ),
        (
            {"grid": [16, 24], "sensor": {"binning": 3}},
            ValueError,
            r"world\.sensor\.binning=3, expected a number that divides both sides of "
            r"\[16, 24\] pixels",
        ),
        (
            {"panel": {"refresh_hz": 1e-9}},
            ValueError,
            r"world\.panel\.refresh_hz=1e-09, expected 0 for none, or at least 1",
        ),
        (
            {"sensor": {"temperature_c": -80}},
            ValueError,
            r"world\.sensor\.temperature_c=-80, expected a number from -60 to 80",
        ),
        (
            {"grid": [4096, 4096]},
            ValueError,
            r"world\.grid=\[4096, 4096\], expected at most 4,194,304 points",
        ),
    ],
)
def test_refuses_what_cannot_be(
    options: dict[str, object], kind: type[Exception], message: str
) -> None:
    with pytest.raises(kind, match=message):
        parse(Options, options)


def test_ideal_makes_every_imperfection_neutral() -> None:
    made = parse(Options, {"ideal": True, "panel": {"lut_error": 0.01}}).effective()
    assert made.light.power_noise == made.light.pointing_px == 0
    panel = made.panel
    assert panel.lut_error == panel.lut_overshoot == panel.crosstalk_macropixels == 0
    assert panel.zero_order == panel.flicker_rad == panel.fast_s == panel.slow_s == 0
    sensor = made.sensor
    assert not sensor.shot_noise
    assert sensor.prnu == sensor.dsnu_e == sensor.dark_e_per_s == 0
    assert sensor.read_noise_e == sensor.offset_dn == made.meter.noise == 0


def test_not_ideal_changes_nothing() -> None:
    made = Options()
    assert made.effective() is made


@pytest.mark.parametrize(
    ("kind", "own", "b", "saturation"),
    [
        ("kerr_sat", {}, 3.0, 1.0),
        ("kerr", {}, 3.0, None),
        ("free", {}, 0.0, None),
        ("grin_kerr", {"guide": 1.0}, 3.0, 1.0),
        ("shg", {"kappa": 1.0}, 0.0, None),
        ("tm_shg", {"conversion": 0.1}, 0.0, None),
    ],
)
def test_what_an_equation_lacks_is_neutral(
    kind: str, own: dict[str, float], b: float, saturation: float | None
) -> None:
    made = parse(Options, {"medium": {"kind": kind, **own}}).effective()
    assert (made.medium.b, made.medium.saturation) == (b, saturation)
    assert made.medium.screens == (0 if kind == "tm_shg" else 4)

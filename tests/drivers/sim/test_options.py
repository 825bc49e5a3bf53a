import pytest

from drivers.sim.options import Options, parse


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

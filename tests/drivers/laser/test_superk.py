"""SuperK by properties of its codec and scripts of bytes: unproved on a peer."""

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drivers.laser.superk import HOST, crc16, pack, superk, unpack
from labctl.devices import Watchdog
from labctl.errors import (
    DeviceError,
    DeviceTimeoutError,
    InterlockError,
    LaserStillOnError,
)

DEVICE = 15
Bodies = st.binary(min_size=4, max_size=40)


def test_the_checksum_is_the_bus_one() -> None:
    # CRC-16/XMODEM of the check string, from its catalogue.
    assert crc16(b"123456789") == 0x31C3


def test_a_telegram_as_the_manual_writes_it() -> None:
    body = bytes((DEVICE, 0x66, 4, 0x30))
    check = crc16(body)
    assert pack(body) == bytes((0x0D, *body, check >> 8, check & 255, 0x0A))


@settings(deadline=None)  # real time says nothing here
@given(body=Bodies)
def test_what_was_packed_is_unpacked_and_has_no_end_inside(body: bytes) -> None:
    telegram = pack(body)
    assert not {0x0A, 0x0D} & set(telegram[1:-1])
    assert unpack(telegram) == body


@settings(deadline=None)  # real time says nothing here
@given(body=Bodies, at=st.integers(1, 30), flip=st.integers(1, 255))
def test_a_damaged_byte_is_noticed(body: bytes, at: int, flip: int) -> None:
    telegram = bytearray(pack(body))
    telegram[at % len(telegram)] ^= flip
    with suppress(ValueError):
        assert unpack(bytes(telegram)) != body


@settings(deadline=None)  # real time says nothing here
@given(noise=st.binary(max_size=30))
def test_noise_is_no_telegram(noise: bytes) -> None:
    with pytest.raises(ValueError, match=r"ends|escape|checksum"):
        unpack(noise)


def read(register: int, data: bytes) -> tuple[bytes, bytes]:
    ask = pack(bytes((DEVICE, HOST, 4, register)))
    return ask, pack(bytes((HOST, DEVICE, 8, register)) + data)


def write(register: int, data: bytes) -> tuple[bytes, bytes]:
    ask = pack(bytes((DEVICE, HOST, 5, register)) + data)
    return ask, pack(bytes((HOST, DEVICE, 3, register)))


Script = list[tuple[bytes, bytes]]


@dataclass(frozen=True)
class Kind:
    """A type of module, as its register file has it."""

    number: int
    lit: int
    powers: tuple[int, ...]
    half: bytes
    watchdog: int
    setup: bytes


EXTREME = Kind(0x60, 3, (0x37,), b"\xf4\1", 0x36, b"\1\0")
EVO = Kind(0x7D, 2, (0x21, 0x27), b"\xf4\1", 0x36, b"\0")
COMPACT = Kind(0x74, 1, (0x3E,), b"\x32", 0x35, b"")


def opening(kind: Kind = EXTREME) -> Script:
    setup = [write(0x31, kind.setup), read(0x31, kind.setup)] if kind.setup else []
    return [
        read(0x61, bytes((kind.number,))),
        read(0x65, b"SN0042\0\0"),
        read(0x64, bytes((14, 1))),
        *dark(kind)[:2],
        write(kind.watchdog, b"\0"),  # no earlier: it may be all that still works
        read(kind.watchdog, b"\0"),
        *setup,
        *dark(kind)[2:],
    ]


def dark(kind: Kind = EXTREME) -> Script:
    off = [write(0x30, b"\0"), read(0x66, b"\0\0")]
    return off + [write(each, bytes(len(kind.half))) for each in kind.powers]


@pytest.mark.parametrize("kind", [EXTREME, EVO, COMPACT], ids=lambda kind: kind.number)
def test_each_type_has_its_registers(
    script: Any,  # noqa: ANN401
    kind: Kind,
) -> None:
    watchdog = kind.watchdog
    script.expect(*opening(kind))
    laser = superk(address="x", full_mw=100, wavelength_nm=650, clock=script.clock)
    laser.open()
    assert laser.identity().serial == "SN0042"
    assert laser.identity().firmware == "1.14"
    script.expect(
        *(write(each, kind.half) for each in kind.powers),
        *(read(each, kind.half) for each in kind.powers),
        write(watchdog, b"\2"),
        read(watchdog, b"\2"),
        read(0x32, b"\2\0"),
        read(0x66, b"\0\0"),
        write(0x30, bytes((kind.lit,))),
        read(0x66, b"\0\0"),
        write(watchdog, b"\2"),  # while it starts
        read(watchdog, b"\2"),
        read(0x66, b"\1\0"),
        write(watchdog, b"\2"),
        read(watchdog, b"\2"),
    )
    laser.set_power_mw(50)
    assert isinstance(laser, Watchdog)
    laser.arm(2.9)  # never later than asked for
    laser.emission(True)
    laser.kick()
    script.expect(
        write(0x30, b"\0"),
        read(0x66, b"\0\0"),
        write(watchdog, b"\0"),
        read(watchdog, b"\0"),
        *dark(kind),
    )
    laser.emission(False)
    laser.close()


def test_a_mode_that_is_not_taken_is_refused(script: Any) -> None:  # noqa: ANN401
    script.expect(*opening()[:8], read(0x31, b"\4\0"))  # it is dark
    laser = superk(address="x", full_mw=100, wavelength_nm=650, clock=script.clock)
    with pytest.raises(DeviceError, match="setup=0x0004 read back, expected 0x0001"):
        laser.open()


@pytest.mark.parametrize(
    ("bits", "told"),
    [
        (1, []),
        (1 << 5, ["supply voltage low"]),
        (1 << 6 | 1 << 4, ["disabled from outside", "temperature out of range"]),
        (1 << 15, ["error 77"]),
        (1 << 14, []),  # something is in its log
    ],
)
def test_faults_are_those_of_the_register_file(
    script: Any,  # noqa: ANN401
    bits: int,
    told: list[str],
) -> None:
    laser = opened(script)
    error = [read(0x67, b"\x4d")] if bits >> 15 else []
    status = read(0x66, bits.to_bytes(2, "little"))
    script.expect(read(0x32, b"\2\0"), status, *error)
    assert laser.faults() == told
    script.expect(*dark())
    laser.close()


def test_the_other_setpoint_of_an_evo_counts_too(script: Any) -> None:  # noqa: ANN401
    script.expect(*opening(EVO))
    laser = superk(address="x", full_mw=100, wavelength_nm=650, clock=script.clock)
    laser.open()
    script.expect(read(0x21, b"\0\0"), read(0x27, b"\xe8\3"))
    assert laser.setpoint_mw() == 100
    script.expect(*dark(EVO))
    laser.close()


def test_an_unknown_type_is_refused_before_anything_is_written(script: Any) -> None:  # noqa: ANN401
    script.expect(read(0x61, b"\x70"))
    laser = superk(address="x", full_mw=100, wavelength_nm=650, clock=script.clock)
    with pytest.raises(DeviceError, match="module type=0x70, expected one of 0x60"):
        laser.open()
    assert script.closed == 1


def opened(script: Any) -> Any:  # noqa: ANN401
    script.expect(*opening())
    laser = superk(address="x", full_mw=100, wavelength_nm=650, clock=script.clock)
    laser.open()
    return laser


def test_an_open_interlock_and_a_refusal_are_told(script: Any) -> None:  # noqa: ANN401
    laser = opened(script)
    script.expect(read(0x32, b"\1\0"))
    with pytest.raises(InterlockError, match="interlock open"):
        laser.emission(True)
    ask = pack(bytes((DEVICE, HOST, 5, 0x37)) + b"\xf4\1")
    script.expect((ask, pack(bytes((HOST, DEVICE, 0, 0x37)))))
    with pytest.raises(DeviceError, match="not understood"):
        laser.set_power_mw(50)
    script.expect(*dark())
    laser.close()


def test_a_foreign_telegram_is_skipped_and_silence_ends(script: Any) -> None:  # noqa: ANN401
    laser = opened(script)
    ask, answer = read(0x66, b"\0\0")
    late = read(0x37, b"\xff\xff")[1]
    script.expect((ask, late + b"\x0d\x99\x0a" + answer))
    assert laser.is_emitting() is False
    script.expect((ask, b"\x0d\x99"), (ask, b""))
    with pytest.raises(DeviceTimeoutError, match="no answer"):
        laser.is_emitting()
    script.expect(*dark())
    laser.close()


@pytest.mark.parametrize("ends", [(HOST, DEVICE + 1), (HOST - 1, DEVICE)])
def test_what_another_module_or_another_host_is_told_is_no_answer(
    ends: tuple[int, int],
    script: Any,  # noqa: ANN401
) -> None:
    laser = opened(script)
    ask, answer = read(0x66, b"\0\0")
    lit = pack(bytes((*ends, 8, 0x66)) + b"\1\0")
    script.expect((ask, lit + answer))
    assert laser.is_emitting() is False
    script.expect(*dark())
    laser.close()


def test_a_watchdog_that_is_not_taken_is_an_error(script: Any) -> None:  # noqa: ANN401
    laser = opened(script)
    script.expect(write(0x36, b"\2"), read(0x36, b"\0"))
    with pytest.raises(DeviceError, match="watchdog=0 s read back, expected 2 s"):
        laser.arm(2)
    script.expect(*dark())
    laser.close()


def test_what_does_not_go_dark_keeps_its_watchdog(script: Any) -> None:  # noqa: ANN401
    laser = opened(script)
    script.expect(
        write(0x36, b"\2"),
        read(0x36, b"\2"),
        read(0x32, b"\2\0"),
        read(0x66, b"\0\0"),
        write(0x30, b"\3"),
        read(0x66, b"\1\0"),
    )
    laser.arm(2)
    laser.emission(True)
    busy = write(0x30, b"\0")[0], pack(bytes((HOST, DEVICE, 2, 0x30)))
    again = opening()[:3]
    script.expect(busy, *again, busy, dark()[2])  # and the least power
    with pytest.raises(LaserStillOnError, match="busy"):
        laser.emission(False)
    script.expect(read(0x37, b"\0\0"), read(0x66, b"\1\0"))
    assert laser.settings()["watchdog_s"] == 2


@pytest.mark.parametrize("wrong", [{"full_mw": 0}, {"device": 0}, {"wavelength_nm": 0}])
def test_options_that_make_no_sense_are_refused(wrong: dict[str, Any]) -> None:
    options: dict[str, Any] = {"full_mw": 100, "wavelength_nm": 650} | wrong
    with pytest.raises(ValueError, match="expected above 0"):
        superk(address="COM3", **options)

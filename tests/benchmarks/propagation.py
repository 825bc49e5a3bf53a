"""One process that times ways to cross a medium, interleaved: run by the benchmark.

Prints one JSON object. Threads are set by the parent, before anything is imported.
Every output is compared with complex128 before it is timed.
"""

import argparse
import ctypes
import importlib.util
import itertools
import json
import math
import os
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from ruamel.yaml import YAML
from torch import Tensor

from drivers.sim.camera import SimCamera
from drivers.sim.laser import SimLaser
from drivers.sim.light import Illumination
from drivers.sim.sequence import SimSequence
from drivers.sim.slm import SimSLM
from drivers.sim.world import World
from labctl.optics.kernel import choose
from labctl.optics.medium import SaturableKerr
from labctl.optics.propagation import Crossing, plan, propagate

Fields = NDArray[np.complex64]
Way = Callable[[], Fields]

WINDOW_M, WAVELENGTH_M, LENGTH_M = 4e-3, 1.064e-6, 50e-3
B, SATURATION, STEPS, BLOCKS = 3.0, 1.0, 16, 8
WORST = 1e-3
BENCH = Path(__file__).parents[2] / "calibrations" / "sim" / "bench.yaml"


@dataclass(frozen=True)
class Case:
    """Gaussian beams behind random macropixels."""

    side: int
    fields: Fields

    @property
    def pitch_m(self) -> float:
        return WINDOW_M / self.side

    @property
    def wavenumber(self) -> float:
        return 2 * math.pi / WAVELENGTH_M

    def medium(self, steps: int = STEPS) -> SaturableKerr:
        """In units of grid points: a macropixel of 1."""
        fresnel = LENGTH_M / (self.wavenumber * self.pitch_m**2)
        return SaturableKerr(b=B, saturation=SATURATION, fresnel=fresnel, steps=steps)

    def transfer(self) -> NDArray[np.complex128]:
        """Paraxial diffraction over one step."""
        q = 2 * np.pi * np.fft.fftfreq(self.side, self.pitch_m)
        lag = (q[:, None] ** 2 + q[None] ** 2) * LENGTH_M / STEPS / 2 / self.wavenumber
        factor: NDArray[np.complex128] = np.exp(-1j * lag)
        return factor

    def exact(self) -> NDArray[np.complex128]:
        ready = plan(self.medium(), (self.side, self.side), 1.0, dtype=torch.complex128)
        found: NDArray[np.complex128] = propagate(
            torch.from_numpy(self.fields.astype(np.complex128)), ready
        ).numpy()
        return found


def case(side: int, count: int) -> Case:
    source = np.random.default_rng(11)
    phase = math.pi * source.random((count, BLOCKS, BLOCKS))
    phase = phase.repeat(side // BLOCKS, 1).repeat(side // BLOCKS, 2)
    at = np.linspace(-0.5, 0.5, side, endpoint=False) * WINDOW_M
    beam = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (WINDOW_M / 4) ** 2)
    return Case(side, (beam * np.exp(1j * phase)).astype(np.complex64))


# --- the ways


def torch_core(of: Case) -> Way:
    ready = plan(of.medium(), (of.side, of.side), 1.0)
    fields = torch.from_numpy(of.fields)
    return lambda: propagate(fields, ready).numpy()


def fused(of: Case) -> Way:
    ready = choose(plan(of.medium(), (of.side, of.side), 1.0), "fused").crossing
    fields = torch.from_numpy(of.fields)
    return lambda: propagate(fields, ready).numpy()


def naive_torch(of: Case) -> Way:
    """As one writes it first: complex exponentials, the whole batch at once."""
    factor = torch.from_numpy(of.transfer().astype(np.complex64))
    fields = torch.from_numpy(of.fields)

    def kick(field: Tensor, b: float) -> Tensor:
        light = field.abs() ** 2
        return field * torch.exp(1j * b * light / (1 + light / SATURATION))

    def cross() -> Fields:
        field = kick(fields, B / STEPS / 2)
        for step in range(STEPS):
            field = torch.fft.ifft2(torch.fft.fft2(field) * factor)
            field = kick(field, B / STEPS / (2 if step == STEPS - 1 else 1))
        return field.numpy()

    return cross


def jax_jit(of: Case) -> Way:
    import jax  # noqa: PLC0415 - only where it is installed
    import jax.numpy as jnp  # noqa: PLC0415

    factor = jnp.asarray(of.transfer().astype(np.complex64))

    def kick(field: Any, b: float) -> Any:  # noqa: ANN401 - jax's array
        light = field.real**2 + field.imag**2
        angle = b * light / (1 + light / SATURATION)
        return field * jax.lax.complex(jnp.cos(angle), jnp.sin(angle))

    def cross(field: Any) -> Any:  # noqa: ANN401 - jax's array
        def step(_: int, field: Any) -> Any:  # noqa: ANN401 - jax's array
            return kick(jnp.fft.ifft2(jnp.fft.fft2(field) * factor), B / STEPS)

        field = jax.lax.fori_loop(0, STEPS - 1, step, kick(field, B / STEPS / 2))
        return kick(jnp.fft.ifft2(jnp.fft.fft2(field) * factor), B / STEPS / 2)

    ready, parts = (
        jax.jit(cross),
        of.fields.reshape(-1, min(4, len(of.fields)), of.side, of.side),
    )
    chunks = [jnp.asarray(part) for part in parts]
    return lambda: np.concatenate([np.asarray(ready(chunk)) for chunk in chunks])


def kicked(field: NDArray[Any], b: float) -> NDArray[Any]:
    light = field.real**2 + field.imag**2
    kick: NDArray[Any] = field * np.exp(1j * b * light / (1 + light / SATURATION))
    return kick


def torchoptics(of: Case) -> Way:
    """Its own propagation without padding, in its complex128, and our kick."""
    from torchoptics import Field  # noqa: PLC0415 - only where it is installed

    size = (of.side, of.side)
    given = torch.from_numpy(of.fields.astype(np.complex128))

    def kick(field: Tensor, b: float) -> Tensor:
        light = field.real.square() + field.imag.square()
        angle = b * light / (1 + light / SATURATION)
        return field * torch.polar(torch.ones_like(angle), angle)

    def one(data: Tensor) -> Tensor:
        data = kick(data, B / STEPS / 2)
        for step in range(STEPS):
            field = Field(data, WAVELENGTH_M, spacing=of.pitch_m)
            data = field.propagate(
                size,
                LENGTH_M / STEPS,
                spacing=of.pitch_m,
                propagation_method="ASM",
                asm_pad=0,
            ).data
            data = kick(data, B / STEPS / (2 if step == STEPS - 1 else 1))
        turned: Tensor = data * np.exp(-1j * of.wavenumber * LENGTH_M)
        return turned

    return lambda: torch.stack([one(each) for each in given]).numpy()


def lightpipes(of: Case) -> Way:
    """Its own propagation, in its complex128, and our kick; without its carrier."""
    import LightPipes  # noqa: PLC0415 - only where it is installed

    empty = LightPipes.Begin(WINDOW_M, WAVELENGTH_M, of.side)

    def one(data: NDArray[Any]) -> NDArray[Any]:
        data = kicked(data.astype(np.complex128), B / STEPS / 2)
        for step in range(STEPS):
            field = LightPipes.Field.copy(empty)
            field.field = data
            data = LightPipes.Forvard(field, LENGTH_M / STEPS).field
            data = kicked(data, B / STEPS / (2 if step == STEPS - 1 else 1))
        carrier = 2 * 3.141592654 / WAVELENGTH_M * LENGTH_M  # its own pi
        turned: NDArray[Any] = data * np.exp(-1j * carrier)
        return turned

    return lambda: np.stack([one(each) for each in of.fields])


def nlse(of: Case) -> Way:
    """Symmetric steps of NLSE, from the folder that the environment names.

    It scales every field to the power that it is given, in W, and its field is in
    V/m: the power is that at which our intensity 1 is its 1 W/m^2.
    """
    import multiprocessing  # noqa: PLC0415 - only for what follows

    multiprocessing.cpu_count = lambda: 1  # it takes as many threads as that
    sys.path.insert(0, os.environ["LABCTL_NLSE"])
    from NLSE import NLSE  # noqa: PLC0415 - only where it is given

    light = 299_792_458.0 * 8.854_187_8128e-12 / 2
    power = float(np.sum(np.abs(of.fields[0]) ** 2)) * of.pitch_m**2
    solver = NLSE(
        alpha=0.0,
        puiss=power,
        window=WINDOW_M,
        n2=B / (of.wavenumber * LENGTH_M),
        V=None,
        L=2 * LENGTH_M,
        NX=of.side,
        NY=of.side,
        Isat=SATURATION,
        wvl=WAVELENGTH_M,
        backend="CPU",
    )
    solver.delta_z = LENGTH_M / STEPS
    # It adds up its steps in floating point, so half a step less is not one more.
    length_m = LENGTH_M * (1 - 0.5 / STEPS)

    def cross() -> Fields:
        out = solver.out_field(
            of.fields.copy(), length_m, plot=False, precision="double", verbose=False
        )
        found: Fields = out * np.float32(math.sqrt(light))
        return found

    return cross


def torch_transforms(of: Case) -> Way:
    """Nothing but the Fourier transforms: a bound, no physics."""
    fields = torch.from_numpy(of.fields)
    chunk = plan(of.medium(), (of.side, of.side), 1.0).chunk

    def cross() -> Fields:
        parts = []
        for at in range(0, len(fields), chunk):
            part = fields[at : at + chunk]
            for _ in range(STEPS):
                part = torch.fft.ifft2(torch.fft.fft2(part))
            parts.append(part)
        return torch.cat(parts).numpy()

    return cross


def fftw_transforms(of: Case) -> Way:
    """The same by FFTW, planned patiently, in place."""
    import pyfftw  # noqa: PLC0415 - only where it is installed

    shape = (of.side, of.side)
    own = pyfftw.zeros_aligned(shape, dtype="complex64")
    flags = ("FFTW_PATIENT",)
    forward = pyfftw.FFTW(own, own, (0, 1), "FFTW_FORWARD", flags, 1)
    backward = pyfftw.FFTW(own, own, (0, 1), "FFTW_BACKWARD", flags, 1)

    def cross() -> Fields:
        for _ in range(STEPS * len(of.fields)):
            forward.execute()
            backward.execute()
        return of.fields

    return cross


# Way, whether it does the physics, and what it needs.
WAYS: dict[str, tuple[Callable[[Case], Way], bool, str]] = {
    "fused": (fused, True, ""),
    "torch": (torch_core, True, ""),
    "naive torch": (naive_torch, True, ""),
    "JAX": (jax_jit, True, "jax"),
    "torchoptics": (torchoptics, True, "torchoptics"),
    "LightPipes": (lightpipes, True, "LightPipes"),
    "NLSE": (nlse, True, "LABCTL_NLSE"),
    "FFTW only": (fftw_transforms, False, "pyfftw"),
    "torch FFT only": (torch_transforms, False, ""),
}


def there(needed: str) -> bool:
    if needed.startswith("LABCTL_"):
        return needed in os.environ
    return not needed or importlib.util.find_spec(needed) is not None


def timed(
    ways: Mapping[str, Callable[[], object]], rounds: int
) -> dict[str, list[float]]:
    """CPU seconds of each way, one after the other in every round."""
    spent: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 2):
        for name, way in ways.items():
            start = time.process_time()
            way()
            if turn >= 2:
                spent[name].append(time.process_time() - start)
    return spent


def contest(side: int, count: int, rounds: int) -> dict[str, Any]:
    """Check every way, then time it where it is right: shots per CPU second."""
    of = case(side, count)
    exact = of.exact()
    ways, errors, absent = {}, {}, []
    for name, (make, physics, needed) in WAYS.items():
        if not there(needed):
            absent.append(name)
            continue
        ways[name] = make(of)
        if physics:
            found = ways[name]()
            errors[name] = float(np.abs(found - exact).max() / np.abs(exact).max())
            if not errors[name] < WORST:
                del ways[name]
    seconds = timed(ways, rounds)
    shots = {name: count / float(np.median(each)) for name, each in seconds.items()}
    return {"shots": shots, "errors": errors, "absent": absent}


def growth(kernel: str, rounds: int) -> dict[str, Any]:
    """Shots per CPU second with batch, grid and steps."""
    grid = {"batch 1": (64, 1, 16), "batch 8": (64, 8, 16), "batch 64": (64, 64, 16)}
    grid |= {"grid 32": (32, 32, 16), "grid 128": (128, 8, 16)}
    grid |= {"grid 256": (256, 2, 16), "grid 512": (512, 1, 16)}
    grid |= {"8 steps": (64, 8, 8), "32 steps": (64, 8, 32)}
    ways, counts = {}, {}
    for name, (side, count, steps) in grid.items():
        of = case(side, count)
        ready = plan(of.medium(steps), (side, side), 1.0)
        crossing = choose(ready, "fused" if kernel == "fused" else "torch").crossing
        fields = torch.from_numpy(of.fields)
        repeats = max(1, 64 // count) if side < 128 else 1
        counts[name] = count * repeats
        ways[name] = crossed(fields, crossing, repeats)
    seconds = timed(ways, rounds)
    return {
        name: counts[name] / float(np.median(each)) for name, each in seconds.items()
    }


def crossed(fields: Tensor, crossing: Crossing, repeats: int) -> Way:
    def cross() -> Fields:
        for _ in range(repeats):
            out = propagate(fields, crossing)
        return out.numpy()

    return cross


def alone(kernel: str) -> None:
    """Cross 256 fields of 64 x 64 at each line that comes, and tell what it took."""
    of = case(64, 8)
    ready = plan(of.medium(), (64, 64), 1.0)
    crossing = choose(ready, "fused" if kernel == "fused" else "torch").crossing
    way = crossed(torch.from_numpy(of.fields), crossing, 32)
    way()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for _ in sys.stdin:
        wall, spent = time.perf_counter(), time.process_time()
        way()
        taken = [time.perf_counter() - wall, time.process_time() - spent]
        sys.stdout.write(json.dumps(taken) + "\n")
        sys.stdout.flush()


def memory(kernel: str, folder: Path) -> dict[str, dict[str, float]]:
    """Most memory that a crossing takes beside its fields, in fields.

    Of one chunk as torch allocates it, by grid; and of one field of 1024 x 1024 as the
    system sees it, Fourier transforms and all.
    """
    allocated = {}
    for side in (64, 128, 256, 512, 1024):
        crossing, chunk = _made(kernel, side)
        fields = torch.from_numpy(case(side, chunk).fields)
        propagate(fields, crossing)
        allocated[str(side)] = (
            _peak_bytes(partial(propagate, fields, crossing), folder / "trace.json")
            / fields.nbytes
        )
    return {"allocated": allocated, "resident": {"1024": _resident_fields(kernel)}}


def _made(kernel: str, side: int) -> tuple[Crossing, int]:
    ready = plan(case(side, 1).medium(2), (side, side), 1.0)
    crossing = choose(ready, "fused" if kernel == "fused" else "torch").crossing
    return crossing, crossing.chunk


def _peak_bytes(work: Callable[[], object], trace: Path) -> int:
    with torch.profiler.profile(profile_memory=True) as seen:
        work()
    seen.export_chrome_trace(str(trace))
    events = json.loads(trace.read_text(encoding="utf-8"))["traceEvents"]
    told = [each["args"] for each in events if each.get("name") == "[memory]"]
    held = [0, *itertools.accumulate(int(each["Bytes"]) for each in told)]
    return max(held)


def _resident_fields(kernel: str) -> float:
    crossing, _ = _made(kernel, 1024)
    fields = torch.from_numpy(case(1024, 1).fields)
    small, _ = _made("torch", 64)  # what is loaded at the first use is no field's
    propagate(torch.from_numpy(case(64, 1).fields), small)
    # Free memory goes back to Linux, which then forgets the greatest size so far.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = _resident("VmRSS")
    propagate(fields, crossing)
    return (_resident("VmHWM") - before) / fields.nbytes


def shot(rounds: int, folder: Path) -> dict[str, float]:
    """CPU time of the parts of a settled shot of `sim`, in microseconds, in turns."""
    file = YAML(typ="safe").load(BENCH.read_text(encoding="utf-8"))
    settings = file["reservoir"]
    levels = np.random.default_rng(8).integers(0, 256, (32, 16, 16), dtype=np.uint8)
    shown = levels.repeat(4, 1).repeat(4, 2)
    ways: dict[str, Callable[[], object]] = {}
    for kernel in ("torch", "fused"):
        options = file["world"]["options"] | {"kernel": kernel}
        world = World(seed=1, beam=folder / kernel, **options)
        slm = SimSLM(world=world, clock=world.clock)
        camera = SimCamera(world=world, clock=world.clock)
        laser = SimLaser(beam=folder / kernel)
        for device in (laser, slm, camera):
            device.open()
        laser.set_power_mw(settings["power_mw"])
        laser.emission(on=True)
        taken = camera.configure(
            exposure_s=settings["exposure_s"], region=tuple(settings["region"])
        )
        sequence = SimSequence(slm=slm, camera=camera, world=world)
        frames = sequence.play(shown, settle_s=0.06).frames
        world.light.plan.through(torch.zeros((1, 64, 64), dtype=torch.complex64))
        lit = Illumination(torch.ones(32), torch.zeros((32, 2)), torch.zeros(32))
        given = torch.from_numpy(shown).float()
        fields = world.light.entrance(given, lit)
        dark = world.options.sensor.offset_dn
        light_e = (frames - dark).clip(0) / world.options.sensor.gain_dn_per_e
        ways |= {
            f"whole, {kernel}": partial(sequence.play, shown, settle_s=0.06),
            f"medium, {kernel}": partial(propagate, fields, world.light.plan),
            "panel and beam": partial(world.light.entrance, given, lit),
            "lens": partial(world.light.seen, fields),
            "noise": partial(world.sensor.counts, light_e, taken, range(32)),
        }
    seconds = timed(ways, rounds)
    return {name: float(np.median(each)) / 32 * 1e6 for name, each in seconds.items()}


def _resident(name: str) -> int:
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        if line.startswith(name)
    )
    return 1024 * int(line.split()[1])


def main() -> None:
    words = argparse.ArgumentParser()
    words.add_argument("what", choices=["contest", "growth", "alone", "memory", "shot"])
    words.add_argument("--kernel", default="torch")
    words.add_argument("--side", type=int, default=128)
    words.add_argument("--count", type=int, default=16)
    words.add_argument("--rounds", type=int, default=5)
    asked = words.parse_args()
    torch.set_num_threads(1)
    with torch.no_grad():
        if asked.what == "alone":
            alone(asked.kernel)
            return
        found: dict[str, Any]
        if asked.what == "contest":
            found = contest(asked.side, asked.count, asked.rounds)
        elif asked.what == "growth":
            found = growth(asked.kernel, asked.rounds)
        elif asked.what == "shot":
            found = shot(asked.rounds, Path.cwd())
        else:
            found = memory(asked.kernel, Path.cwd())
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()

"""How large on the device what a picture shows is: for scale bars."""

import math

from labctl.recording.reader import Record

Size = tuple[float, float] | None
"""Height and width of an element of a picture, in um; None where not known."""


def _size(tall: float, wide: float) -> Size:
    """Give a size that something can have; none where it is nothing or no number."""
    fits = 0 < tall < math.inf and 0 < wide < math.inf
    return (tall, wide) if fits else None


def macropixel_um(record: Record) -> Size:
    """Say how large a macropixel is on the panel, in um.

    Parameters
    ----------
    record
        Of a run on a bench.

    Returns
    -------
    size
        Height and width; None where the record does not say it.
    """
    panel = record.instrument.get("slm", {})
    pitch, shape = panel.get("pitch_um"), panel.get("shape")
    if pitch is None or shape is None:
        return None
    # As many whole pixels as fit: what Blocks shows.
    tall, wide = (
        float(pitch) * (int(total) // int(count))
        for total, count in zip(shape, record.reservoir["macropixels"], strict=True)
    )
    return _size(tall, wide)


def pitch_um(record: Record) -> Size:
    """Say how large a pixel of the panel is, in um.

    Parameters
    ----------
    record
        Of a run on a bench.

    Returns
    -------
    size
        Height and width; None where the record does not say it.
    """
    pitch = record.instrument.get("slm", {}).get("pitch_um")
    return None if pitch is None else _size(float(pitch), float(pitch))


def pixel_um(record: Record) -> Size:
    """Say how large a pixel of the camera is, in um.

    Parameters
    ----------
    record
        Of a run on a bench.

    Returns
    -------
    size
        Height and width; None where the record does not say it.
    """
    camera = record.instrument.get("camera", {})
    if "y_pixel_size" not in camera or "x_pixel_size" not in camera:
        return None
    return _size(float(camera["y_pixel_size"]), float(camera["x_pixel_size"]))


def bin_um(record: Record) -> Size:
    """Say how large a bin is on the camera, in um.

    Parameters
    ----------
    record
        Of a run on a bench.

    Returns
    -------
    size
        Height and width; None where the record does not say it, or where the pixels
        do not divide into equal bins.
    """
    pixel = pixel_um(record)
    region, bins = record.reservoir.get("region"), record.reservoir["bins"]
    if pixel is None or region is None:
        return None
    if any(n % count for n, count in zip(region[2:], bins, strict=True)):
        return None
    tall, wide = (
        um * (int(pixels) // int(count))
        for um, pixels, count in zip(pixel, region[2:], bins, strict=True)
    )
    return _size(tall, wide)

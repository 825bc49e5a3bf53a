"""One self-contained page of figures and numbers from a record."""

import base64
import hashlib
import os
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jinja2

from labctl.errors import InputError, RecordError
from labctl.recording.reader import BESIDE, Record, is_hdf5
from labctl.report import content, figure
from labctl.report.figure import Drawing
from labctl.report.section import Page


def write(
    record: str | os.PathLike[str],
    out: str | os.PathLike[str],
    png: str | os.PathLike[str] | None = None,
) -> Path:
    """Write the page of a record.

    The page needs no network, and no script but that of its interactive figures,
    which the page's policy names by hash; every text of the record is escaped.

    Parameters
    ----------
    record
        The record; running, ended or left by a crash.
    out
        The page to write; one that is there is replaced, an HDF5 file never.
    png
        Folder that gets every figure as a PNG file too; None for none.

    Returns
    -------
    page
        Where it was written.

    Raises
    ------
    InputError
        The record cannot be read, or the page cannot be written.
    """
    target = Path(out)
    _check_target(target, record)
    try:
        with Record.open(record) as source:
            page, kind = _read(source), source.kind
    except RecordError as err:
        # Nothing was begun that could fail: the file is not one to make a page of.
        raise InputError(str(err)) from err
    draw = partial(_rendered, f"{record}", kind)
    html = _html(page, Path(record).name, draw)
    try:
        target.write_text(html, encoding="utf-8", newline="\n")
        if png is not None:
            _write_png(page, Path(png), draw)
    except OSError as err:
        text = (
            f"{err.filename or target}: cannot be written ({err.strerror}), expected a "
            "place with leave to write. Choose another with --out or --png."
        )
        raise InputError(text) from err
    return target


def _check_target(target: Path, record: str | os.PathLike[str]) -> None:
    """Refuse to replace a record or what belongs to one.

    Raises
    ------
    InputError
        The page would be written over it.
    """
    # Not resolve: it raises where a name is too long or links go in a circle.
    if os.path.realpath(target) == os.path.realpath(record):
        said = "the record itself, expected another file"
    elif is_hdf5(target):
        said = "an HDF5 file, which a page would replace, expected another name"
    elif target.suffix in BESIDE:
        said = f"{target.suffix} is kept for files beside a record, expected .html"
    else:
        return
    text = f"{target}: {said}. Change --out."
    raise InputError(text)


def _read(record: Record) -> Page:
    """Gather what the page says.

    Raises
    ------
    InputError
        The record opens, and holds something else than a run leaves.
    """
    try:
        with warnings.catch_warnings():
            # What is no number is told as such, or drawn as a gap.
            warnings.simplefilter("ignore", RuntimeWarning)
            return content.read(record)
    except KeyError as err:
        text = (
            f"{record.path}: {err.args[0]!r} is missing, expected what labctl records "
            f"of a run of kind {record.kind}. Restore the file from a copy."
        )
        raise InputError(text) from err
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        said = f"{type(err).__name__} {err}".partition("\n")[0]  # pydantic's go on
        text = (
            f"{record.path}: {said}, expected what labctl records of a run of kind "
            f"{record.kind}. Restore the file from a copy."
        )
        raise InputError(text) from err


Draw = Callable[[Drawing, figure.Format], bytes]


def _rendered(record: str, kind: str, drawing: Drawing, form: figure.Format) -> bytes:
    """Draw a figure in light colours.

    Raises
    ------
    InputError
        The record does not hold what the figure shows.
    """
    try:
        return figure.render(drawing, "light", form)
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as err:
        lacks = isinstance(err, KeyError) and f"{err.args[0]!r} is missing"
        said = lacks or f"{type(err).__name__} {err}".partition("\n")[0]
        text = (
            f"{record}: figure {drawing.name} cannot be drawn ({said}), expected the "
            f"numbers that labctl records of a run of kind {kind}. Restore the file "
            "from a copy."
        )
        raise InputError(text) from err


def _write_png(page: Page, folder: Path, draw: Draw) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for drawing in (each for part in page.sections for each in part.on_paper):
        # Names may come from a record, and must not lead out of the folder.
        path = folder / f"{figure.slug(drawing.name)}.png"
        path.write_bytes(draw(drawing, "png"))


def _html(page: Page, file: str, draw: Draw) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("labctl.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    style = environment.get_template("page.css").render()
    names = {part.explorer.name for part in page.sections if part.explorer}
    if any(part.table and part.table.sortable for part in page.sections):
        names.add("sortable")
    if any(part.gallery for part in page.sections):
        names.add("gallery")
    scripts = [
        environment.get_template(f"{name}.js").render() for name in sorted(names)
    ]
    shown = [drawing for part in page.sections for drawing in part.on_page]
    images = {drawing.name: _uris(drawing, draw) for drawing in shown}
    return environment.get_template("page.html").render(
        page=page,
        images=images,
        file=file,
        style_hash=_hash(style),
        scripts=sorted(names),
        script_hashes=[_hash(script) for script in scripts],
    )


def _hash(text: str) -> str:
    """Name a text as a content security policy does."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


def _uris(drawing: Drawing, draw: Draw) -> dict[str, str]:
    light = draw(drawing, "svg")
    both = {"light": light, "dark": figure.recoloured(light)}
    head = "data:image/svg+xml;base64,"
    return {theme: head + base64.b64encode(svg).decode() for theme, svg in both.items()}

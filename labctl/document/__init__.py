"""YAML documents that a person writes: read, checked, every fault at once."""

import functools
import hashlib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath
from typing import Any, Final, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, TypeAdapter
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema
from typing_extensions import override

from labctl.document.teller import check, listing
from labctl.document.tree import LARGEST_BYTES, TOO_LARGE, Node, apply, build
from labctl.document.words import nearest
from labctl.errors import Fault, ProtocolError

T = TypeVar("T")
Folder = Literal["protocols", "calibrations"]
MOST_FAULTS: Final = 50


class Schema(BaseModel):
    """A part of a document: frozen, finite numbers, unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @classmethod
    @override
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchemaValue:
        """Take the meaning of each key from the docstring."""
        schema = handler(core_schema)
        body = handler.resolve_ref_schema(schema)
        summary, meanings = _documented(cls)
        body["description"] = summary
        for name, value in body.get("properties", {}).items():
            value.pop("title", None)
            if name in meanings:
                value["description"] = meanings[name]
        return schema


@dataclass(frozen=True)
class Document(Generic[T]):
    """A document that passed every check.

    Parameters
    ----------
    value
        The validated model.
    path
        Where it was read from; None for text.
    text
        As given.
    data
        The plain tree after overrides, before defaults.
    sha256
        Hash of the bytes as given.
    root
        The tree with its places.
    """

    value: T
    path: Path | None
    text: str
    data: dict[str, Any]
    sha256: str
    root: Node = field(repr=False, compare=False)

    def fault(self, key: str, text: str) -> Fault:
        """Say what is wrong with a key, where it stands.

        Parameters
        ----------
        key
            Dotted path, such as ``model.0.encoding``; a key that is not there
            takes the place of the section above it.
        text
            What was got, what was expected, what to do.

        Returns
        -------
        fault
            Ready for a :class:`ProtocolError`.
        """
        # A text that names its section by itself shall not do so twice.
        for known in (key, key.rpartition(".")[0]):
            text = text.removeprefix(f"{known}: ") if known else text
        return self.root.place(key.split(".")).fault(key, text)


def read(
    path: Path, model: type[T] | TypeAdapter[T], *, overrides: Sequence[str] = ()
) -> Document[T]:
    """Read a document from a file and check it.

    Parameters
    ----------
    path
        The file.
    model
        The model that it must fit.
    overrides
        Changes ``key.path=value``, applied before the check.

    Returns
    -------
    document
        The model, the text and their places.

    Raises
    ------
    ProtocolError
        The file cannot be read, or something in it is wrong: every fault.
    """
    found = parse(_text(path), model, where=str(path), overrides=overrides)
    return replace(found, path=path)


def parse(
    text: str,
    model: type[T] | TypeAdapter[T],
    *,
    where: str,
    overrides: Sequence[str] = (),
) -> Document[T]:
    """Check a document that is given as text.

    Parameters
    ----------
    text
        YAML 1.2: maps, lists and scalars.
    model
        The model that it must fit.
    where
        What messages call it.
    overrides
        Changes ``key.path=value``, applied before the check; the value is YAML,
        list items are counted from 0: ``model.0.modes=64``.

    Returns
    -------
    document
        The model, the text and their places.

    Raises
    ------
    ProtocolError
        Something is wrong: every fault.
    """
    adapter = model if isinstance(model, TypeAdapter) else _adapter(model)  # type: ignore[arg-type]  # mypy doubts that every class can be hashed
    root, faults = build(text, where)
    for change in overrides:
        faults += apply(root, change, functools.partial(listing, adapter, root))
    refused = {fault.key for fault in faults}
    values, found = check(adapter, root)
    # A key that was already refused needs no second sentence.
    faults += [fault for fault in found if not _is_under(fault.key, refused)]
    if faults:
        raise ProtocolError(in_order(faults))
    data = root.plain()
    digest = hashlib.sha256(text.encode("utf-8")).hexdigest()
    return Document(values[0], None, text, data, digest, root)  # type: ignore[arg-type]  # a root that is no map was refused


def glance(path: Path) -> dict[str, Any]:
    """Read a document without any check of what it says.

    Tells kinds of documents apart, and a real bench from a simulated one where the
    file has faults.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    content
        The plain tree: nothing in it can be relied on. Empty where the file is no map.

    Raises
    ------
    ProtocolError
        The file cannot be read, or is no YAML.
    """
    root, _ = build(_text(path), str(path))
    plain = root.plain()
    return plain if isinstance(plain, dict) else {}


def find(name: str | Path, folder: Folder) -> Path:
    """Find a protocol or bench file by name.

    Parameters
    ----------
    name
        A file's path; or a name, with or without ``.yaml``, in the current
        directory's folder or among those that labctl ships.
    folder
        Where names are looked up.

    Returns
    -------
    path
        The file, there and readable or not.

    Raises
    ------
    ProtocolError
        There is none; says which there are.
    """
    for candidate in (Path(name), Path(f"{name}.yaml")):
        if is_file(candidate):
            return candidate
    there = available(folder)
    wanted = PurePath(name).as_posix().removesuffix(".yaml")
    if wanted in there:
        return there[wanted]
    raise ProtocolError([Fault(str(name), None, None, "", _no_such(wanted, there))])


def find_bench(name: str | Path) -> Path:
    """Find a bench file by the name of its bench.

    Parameters
    ----------
    name
        Name of a bench, such as ``sim``; or the path of a bench file or of its
        folder.

    Returns
    -------
    path
        The bench file.

    Raises
    ------
    ProtocolError
        There is none; says which there are.
    """
    for candidate in (Path(name), Path(name) / "bench.yaml"):
        if is_file(candidate):
            return candidate
    there = benches()
    if str(name) in there:
        return there[str(name)]
    raise ProtocolError([Fault(str(name), None, None, "", _no_such(str(name), there))])


def available(folder: Folder) -> dict[str, Path]:
    """List the documents that can be found by name.

    Parameters
    ----------
    folder
        Where to look: in the current directory first, then what labctl ships.

    Returns
    -------
    there
        Path by name, without ``.yaml``.
    """
    there: dict[str, Path] = {}
    for home in (Path(folder), _shipped(folder)):
        for path in sorted(home.rglob("*.yaml")):
            name = path.relative_to(home).with_suffix("").as_posix()
            there.setdefault(name, path)
    return there


def benches() -> dict[str, Path]:
    """List the bench files that can be found by name.

    Returns
    -------
    there
        Path of the bench file by name of the bench.
    """
    end = "/bench"
    return {
        name.removesuffix(end): path
        for name, path in available("calibrations").items()
        if name.endswith(end)
    }


def is_shipped(path: Path) -> bool:
    """Whether a file is package data, found anywhere but in the current directory.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    shipped
        Nobody writes beside it.
    """
    there = path.resolve()
    package = Path(__file__).resolve().parents[1]
    if there.is_relative_to(package / "shipped"):
        return True
    checkout = package.parent
    is_here = there.is_relative_to(Path.cwd())
    return there.is_relative_to(checkout / "calibrations") and not is_here


@functools.lru_cache(maxsize=16)
def _adapter(model: type[T]) -> TypeAdapter[T]:
    return TypeAdapter(model)


def _shipped(folder: Folder) -> Path:
    package = Path(__file__).parents[1]
    checkout = package.parent / folder
    if (package.parent / "pyproject.toml").is_file() and checkout.is_dir():
        return checkout
    return package / "shipped" / folder


def is_file(path: Path) -> bool:
    """Tell whether a file is there; a name that no disk takes is none.

    Parameters
    ----------
    path
        Where it would be.

    Returns
    -------
    there
        It is a file.
    """
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _no_such(wanted: str, there: Mapping[str, Path]) -> str:
    listed = ", ".join(there) if there else "none"
    return f"no such file, expected a path or one of: {listed}.{nearest(wanted, there)}"


def _text(path: Path) -> str:
    """Read a file of bounded size.

    Raises
    ------
    ProtocolError
        It is no file, too large, or no UTF-8.
    """
    where = str(path)
    if not is_file(path):
        got = "a folder" if path.is_dir() else "no such file"
        text = f"{got}, expected a YAML file. Check the path."
        raise ProtocolError([Fault(where, None, None, "", text)])
    try:
        with path.open("rb") as stream:
            raw = stream.read(LARGEST_BYTES + 1)
    except OSError as err:
        text = f"cannot be read: {err.strerror}. Check its permissions."
        raise ProtocolError([Fault(where, None, None, "", text)]) from err
    if len(raw) > LARGEST_BYTES:
        raise ProtocolError([Fault(where, None, None, "", TOO_LARGE)])
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as err:
        line = raw.count(b"\n", 0, err.start) + 1
        text = f"byte {raw[err.start]:#04x}, expected UTF-8 text. Save it as UTF-8."
        raise ProtocolError([Fault(where, line, None, "", text)]) from err


def _is_under(key: str, others: set[str]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in others)


def in_order(faults: Sequence[Fault]) -> list[Fault]:
    """Sort by place, overrides last, each once, and no more than a screenful.

    Parameters
    ----------
    faults
        As they were found.

    Returns
    -------
    ordered
        Ready for a :class:`ProtocolError`.
    """
    single = dict.fromkeys(faults)
    ordered = sorted(single, key=lambda f: (f.line is None, f.line or 0, f.column or 0))
    more = len(ordered) - MOST_FAULTS
    if more > 0:
        rest = Fault(ordered[0].where, None, None, "", f"and {more} more faults.")
        return [*ordered[:MOST_FAULTS], rest]
    return ordered


def _documented(model: type[BaseModel]) -> tuple[str, dict[str, str]]:
    """Read the summary and the meaning of each key from numpydoc docstrings."""
    meanings: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, Schema) and base is not Schema:
            meanings |= _parameters(inspect.cleandoc(base.__doc__ or ""))
    summary = inspect.cleandoc(model.__doc__ or "").split("\n\n")[0]
    return " ".join(summary.split()), meanings


def _parameters(text: str) -> dict[str, str]:
    _, _, section = text.partition("Parameters\n----------\n")
    found: dict[str, str] = {}
    names: list[str] = []
    for line in section.split("\n\n")[0].splitlines():
        if not line.startswith(" "):
            names = [name.strip() for name in line.split(",")]
            continue
        for name in names:
            found[name] = f"{found.get(name, '')} {line.strip()}".strip()
    return found

"""Typed look-ups in an open HDF5 file."""

import h5py

from labctl.errors import InputError


def group(parent: h5py.Group, path: str) -> h5py.Group:
    """Return the group at that path.

    Raises
    ------
    InputError
        There is none.
    """
    found = parent.get(path)
    if isinstance(found, h5py.Group):
        return found
    raise InputError(_missing(parent, path, "group"))


def dataset(parent: h5py.Group, path: str) -> h5py.Dataset:
    """Return the dataset at that path.

    Raises
    ------
    InputError
        There is none.
    """
    found = parent.get(path)
    if isinstance(found, h5py.Dataset):
        return found
    raise InputError(_missing(parent, path, "dataset"))


def names(parent: h5py.Group) -> list[str]:
    """Return the names of everything in a group."""
    return [str(name) for name in parent]


def columns(parent: h5py.Group) -> tuple[str, ...]:
    """Return the names of the datasets of a group that grow."""
    return tuple(name for name in names(parent) if _grows(dataset(parent, name)))


def check_self_contained(file: h5py.File) -> None:
    """Refuse a file in which anything leads out of it, before it is followed.

    Raises
    ------
    InputError
        It has an external link, external storage or a virtual dataset.
    """
    left: list[h5py.Group] = [group(file, "/")]
    seen: set[h5py.Group] = set()
    while left:
        parent = left.pop()
        if parent in seen:  # hard links may form a ring
            continue
        seen.add(parent)
        for name in names(parent):
            link = parent.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue
            # Asked before the object is: opening an external link follows it.
            if not isinstance(link, h5py.HardLink) or _leads_out(parent[name]):
                raise InputError(_untrusted(parent, name))
            if isinstance(parent[name], h5py.Group):
                left.append(group(parent, name))


def _grows(item: h5py.Dataset) -> bool:
    return bool(item.maxshape) and item.maxshape[0] is None


def _leads_out(item: object) -> bool:
    return isinstance(item, h5py.Dataset) and bool(item.external or item.is_virtual)


def _untrusted(parent: h5py.Group, name: str) -> str:
    return (
        f"{parent.file.filename}: {parent.name}/{name} is an external link, external "
        "storage or a virtual dataset, expected a file that holds everything itself. "
        "Do not trust it."
    )


def _missing(parent: h5py.Group, path: str, what: str) -> str:
    place = f"{parent.name}/{path}".replace("//", "/")
    return f"{parent.file.filename}: {place} is missing, expected a {what}."

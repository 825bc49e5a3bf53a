"""Make a record readable again whose writer was killed: 48 bytes are rewritten.

A killed writer leaves two flags in the superblock of the file and an end-of-file
that may lie before its true end. ``h5clear -s`` of HDF5 cuts the file there and
loses rows, so labctl rewrites the superblock itself: flags cleared, end-of-file
the greater of both, checksum anew. Nothing else is touched.
"""

import errno
import io
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from typing_extensions import Buffer, override

from labctl.errors import InputError, RecordError

if sys.platform != "win32":
    import fcntl

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
# Superblock of version 2 or 3 with 8-byte addresses, no user block (HDF5 file
# format specification 3.0, II.A.2): byte 8 version, 9 size of addresses, 11 flags,
# 28 end-of-file, 36 header of the root group, 44 checksum of what is before it.
_VERSIONS = (2, 3)
_ADDRESS_BYTES = 8
_SUPERBLOCK_BYTES = 48
_VERSION, _ADDRESSES, _FLAGS, _END, _ROOT, _CHECKSUM = 8, 9, 11, 28, 36, 44
_HEADER_BYTES = 4  # its signature
# Flags of a file that is written under SWMR.
_LEFT = 5
# How far a writer may have been ahead of what it had written: as far as it had come,
# and a batch of large frames. More was put there by somebody else.
_AHEAD, _AHEAD_BYTES = 2, 2**30
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_WORDS = struct.Struct("<III")
_MASK = 0xFFFFFFFF
# Rounds of lookup3: words of the state that are changed and mixed in, rotation.
_MIX = (
    (0, 2, 1, 4),
    (1, 0, 2, 6),
    (2, 1, 0, 8),
    (0, 2, 1, 16),
    (1, 0, 2, 19),
    (2, 1, 0, 4),
)
_FINAL = (
    (2, 1, 14),
    (0, 2, 11),
    (1, 0, 25),
    (2, 1, 16),
    (0, 2, 4),
    (1, 0, 14),
    (2, 1, 24),
)


@dataclass(frozen=True)
class Repair:
    """What was done to a file.

    Parameters
    ----------
    flags
        Flags that were set; 0 means that nothing had to be done.
    stored_bytes
        End-of-file that was stored.
    file_bytes
        Size of the file before and after.
    """

    flags: int
    stored_bytes: int
    file_bytes: int


def is_flagged(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file looks like one that is being written.

    Parameters
    ----------
    path
        An HDF5 file.

    Returns
    -------
    flagged
        True for a record of a live writer and of one that was killed.

    Raises
    ------
    RecordError
        The file has not the superblock that labctl writes.
    """
    with Path(path).open("rb") as file:
        block = file.read(_SUPERBLOCK_BYTES)
    _check(Path(path), block)
    return block[_FLAGS] != 0


def is_bare(path: str | os.PathLike[str]) -> bool:
    """Tell whether nothing was ever written of a record but its superblock.

    Its writer declares everything at once: until then the root group is not there, and
    it stays for ever after.

    Parameters
    ----------
    path
        An HDF5 file.

    Returns
    -------
    bare
        True for a record that is being made, and for one whose writer was killed then.

    Raises
    ------
    RecordError
        The file has not the superblock that labctl writes.
    """
    with Path(path).open("rb") as file:
        block = file.read(_SUPERBLOCK_BYTES)
        _check(Path(path), block)
        (root,) = _U64.unpack_from(block, _ROOT)
        if root >= Path(path).stat().st_size:
            return block[_FLAGS] != 0
        file.seek(root)
        return not any(file.read(_HEADER_BYTES))


def is_whole(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file is as long as its superblock says.

    Parameters
    ----------
    path
        An HDF5 file.

    Returns
    -------
    whole
        False for one that was cut short: HDF5 would wait for the rest for ever.

    Raises
    ------
    RecordError
        The file has not the superblock that labctl writes.
    """
    source = Path(path)
    with source.open("rb") as file:
        block = file.read(_SUPERBLOCK_BYTES)
    _check(source, block)
    return int(_U64.unpack_from(block, _END)[0]) <= source.stat().st_size


def mark_left(path: Path) -> None:
    """Say of a record that could not be written to its end that it was left so.

    A file at its size limit is closed shorter than its superblock says, and HDF5
    refuses it then; yet everything that was committed is in it. With its flags set
    again it is read, and continued, as after a kill.

    Parameters
    ----------
    path
        A record that was closed; a whole one is not touched.

    Raises
    ------
    RecordError
        The file has not the superblock that labctl writes, or the disk failed.
    """
    if is_whole(path) or is_flagged(path):
        return
    try:
        with path.open("r+b") as file:
            block = file.read(_SUPERBLOCK_BYTES)
            file.seek(0)
            file.write(_resealed(block, flags=_LEFT))
    except OSError as err:
        text = f"{path}: {err}, expected a file that can be written."
        raise RecordError(text) from err


def is_written(path: Path) -> bool:
    """Tell whether somebody writes a record at this moment.

    Parameters
    ----------
    path
        A record that is there.

    Returns
    -------
    written
        False for one that was left by a killed writer, or comes from elsewhere.

    Raises
    ------
    InputError
        That cannot be told: its lock cannot be asked.
    """
    name = path.with_name(path.name + ".lock")
    if not name.is_file():  # a writer makes it first, and nobody removes it
        return False
    try:
        return not _is_free(name)
    except OSError as err:
        text = (
            f"{path}: nobody can tell whether it is being written, as {name.name} "
            f"beside it {_unlocked(err)}"
        )
        raise InputError(text) from err


if sys.platform == "win32":

    def _is_free(name: Path) -> bool:
        lock = FileLock(name, thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            return False
        lock.release()
        return True

else:

    def _is_free(name: Path) -> bool:
        # Whoever may read a record may ask, also where he may not write: the file is
        # only read, and the lock shared. No link, and nothing that waits.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        handle = os.open(name, flags)
        try:
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        finally:
            os.close(handle)  # which gives the lock up
        return True


_DENIED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})
_LOCKLESS: Final = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


def _unlocked(error: OSError) -> str:
    """Say why a lock file cannot be locked, what was expected, and what to do."""
    if error.errno in _DENIED:
        return (
            f"may not be used by you ({error.strerror}), expected leave to. Ask its "
            "owner, or copy the record to a folder of your own."
        )
    if error.errno in _LOCKLESS:
        return (
            f"cannot be locked ({error.strerror}), expected a drive that knows locks. "
            "Copy the record to a local disk."
        )
    return (
        f"cannot be locked ({error.strerror}), expected a file, or room for one. "
        "Remove what is there, or copy the record to a folder of your own."
    )


def repair(path: str | os.PathLike[str]) -> Repair:
    """Make a record readable by any program, and open to be continued.

    Parameters
    ----------
    path
        The record.

    Returns
    -------
    repair
        What was done.

    Raises
    ------
    InputError
        There is no such file, its writer lives, or was killed before it held anything.
    RecordError
        The file has not the superblock that labctl writes, or the disk failed.
    """
    source = Path(path)
    with locked(source):
        if is_bare(source):
            raise InputError(bare(source))
        return rewrite(source)


def bare(path: Path) -> str:
    """Say what to do with a record of which nothing was ever written."""
    return (
        f"{path}: holds no group, expected a record: it was killed before it held "
        "anything. Run the protocol anew, with --overwrite."
    )


@contextmanager
def locked(source: Path) -> Iterator[None]:
    """Keep every writer away from a record that is there.

    Parameters
    ----------
    source
        The record.

    Yields
    ------
    None
        While the lock is held.

    Raises
    ------
    InputError
        There is no such file, its writer lives, or it cannot be locked.
    """
    if not source.is_file():
        text = f"{source}: not there, expected a record. Check the name."
        raise InputError(text)
    lock = FileLock(source.with_name(source.name + ".lock"), thread_local=False)
    try:
        lock.acquire(timeout=0)
    except Timeout as err:
        text = (
            f"{source}: its writer lives, expected a record that nobody writes. "
            "Wait for the run to end, or stop it."
        )
        raise InputError(text) from err
    except OSError as err:
        text = f"{source}: {source.name}.lock beside it {_unlocked(err)}"
        raise InputError(text) from err
    try:
        yield
    finally:
        lock.release()


def rewrite(path: Path) -> Repair:
    """Rewrite the superblock of a record whose lock the caller holds.

    Parameters
    ----------
    path
        The record.

    Returns
    -------
    repair
        What was done.

    Raises
    ------
    RecordError
        The file has not the superblock that labctl writes, or the disk failed.
    """
    try:
        return _rewrite(path)
    except OSError as err:
        text = f"{path}: {err}, expected a file that can be written."
        raise RecordError(text) from err


def _rewrite(path: Path) -> Repair:
    with path.open("r+b") as file:
        block = file.read(_SUPERBLOCK_BYTES)
        _check(path, block)
        size = path.stat().st_size
        stored = _stored(path, block, size)
        done = Repair(block[_FLAGS], stored, size)
        if done.flags == 0:
            return done
        end = max(stored, size)
        file.truncate(end)  # first: where there is no room, nothing was touched
        file.seek(0)
        file.write(_mended(block, end))
        file.flush()
        os.fsync(file.fileno())
    return done


def _stored(path: Path, block: bytes, size: int) -> int:
    """Return the end-of-file that is stored.

    Raises
    ------
    RecordError
        No writer was ever so far ahead of the file.
    """
    (stored,) = _U64.unpack_from(block, _END)
    most = _AHEAD * size + _AHEAD_BYTES
    if block[_FLAGS] and stored > most:
        text = (
            f"{path}: says that it has {stored} bytes, expected at most {most}, as "
            f"there are {size}. It was not touched; restore it from a copy, and do not "
            "trust it."
        )
        raise RecordError(text)
    return int(stored)


def _mended(block: bytes, end: int) -> bytes:
    made = bytearray(block)
    _U64.pack_into(made, _END, end)
    return _resealed(bytes(made), flags=0)


def _resealed(block: bytes, flags: int) -> bytes:
    made = bytearray(block)
    made[_FLAGS] = flags
    _U32.pack_into(made, _CHECKSUM, lookup3(bytes(made[:_CHECKSUM])))
    return bytes(made)


class Image(io.RawIOBase):
    """A record whose writer was killed, read as if it had been repaired.

    The file is not touched. HDF5 takes it for a file.

    Parameters
    ----------
    path
        The record.

    Raises
    ------
    RecordError
        The file has not the superblock that labctl writes.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file = path.open("rb")
        block = self._file.read(_SUPERBLOCK_BYTES)
        try:
            _check(path, block)
            size = path.stat().st_size
            self._end = max(_stored(path, block, size), size)
        except BaseException:
            self._file.close()
            raise
        self._head = _mended(block, self._end)

    @override
    def __repr__(self) -> str:
        return str(self._path)  # HDF5 calls the file so in its messages

    @override
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        if whence == io.SEEK_END:
            return self._file.seek(self._end + offset)
        return self._file.seek(offset, whence)

    @override
    def tell(self) -> int:
        return self._file.tell()

    @override
    def seekable(self) -> bool:
        return True

    @override
    def readable(self) -> bool:
        return True

    @override
    def readinto(self, buffer: Buffer, /) -> int:
        # Bytes that a kill kept from being written read as zeros.
        view, start = memoryview(buffer).cast("B"), self._file.tell()
        found = self._file.readinto(view)
        view[found:] = bytes(len(view) - found)
        if start < len(self._head):
            head = self._head[start : start + len(view)]
            view[: len(head)] = head
        return len(view)

    @override
    def close(self) -> None:
        self._file.close()
        super().close()


def _check(path: Path, block: bytes) -> None:
    fits = (
        len(block) == _SUPERBLOCK_BYTES
        and block.startswith(_SIGNATURE)
        and block[_VERSION] in _VERSIONS
        and block[_ADDRESSES] == _ADDRESS_BYTES
    )
    if not fits:
        text = (
            f"{path}: starts otherwise than a record, expected the superblock that "
            "labctl writes. It was not touched; restore it from a copy."
        )
        raise RecordError(text)
    (stored,) = _U32.unpack_from(block, _CHECKSUM)
    if stored != lookup3(block[:_CHECKSUM]):
        text = (
            f"{path}: checksum of the superblock={stored:#010x}, expected "
            f"{lookup3(block[:_CHECKSUM]):#010x}. It was not touched; restore it "
            "from a copy."
        )
        raise RecordError(text)


def lookup3(data: bytes) -> int:
    """Return the checksum that HDF5 gives to metadata.

    Parameters
    ----------
    data
        At least one byte.

    Returns
    -------
    checksum
        32 bits.

    References
    ----------
    .. [1] Bob Jenkins, "lookup3.c", 2006, hashlittle with initial value 0.
    """
    state = [(0xDEADBEEF + len(data)) & _MASK] * 3
    while len(data) > _WORDS.size:
        _add(state, data[: _WORDS.size])
        for changed, other, third, bits in _MIX:
            rotated = _rotate(state[other], bits)
            state[changed] = ((state[changed] - state[other]) & _MASK) ^ rotated
            state[other] = (state[other] + state[third]) & _MASK
        data = data[_WORDS.size :]
    _add(state, data.ljust(_WORDS.size, b"\0"))
    for changed, other, bits in _FINAL:
        mixed = state[changed] ^ state[other]
        state[changed] = (mixed - _rotate(state[other], bits)) & _MASK
    return state[2]


def _add(state: list[int], chunk: bytes) -> None:
    for place, word in enumerate(_WORDS.unpack(chunk)):
        state[place] = (state[place] + word) & _MASK


def _rotate(word: int, bits: int) -> int:
    return (word << bits | word >> (32 - bits)) & _MASK

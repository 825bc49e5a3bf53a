"""What several checks refuse, told at once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from labctl.document import Document, in_order
from labctl.errors import Fault, InputError, ProtocolError

Refused = tuple[InputError, ...]


class Refusals:
    """Gathers what checks raise, so that a person mends it all in one go.

    Parameters
    ----------
    errors
        What was refused before.
    """

    def __init__(self, errors: Iterable[InputError] = ()) -> None:
        self._errors = list(errors)

    @property
    def errors(self) -> Refused:
        """What was refused so far, in the order of the checks."""
        return tuple(self._errors)

    @property
    def keys(self) -> frozenset[str]:
        """Dotted paths of the keys that were refused."""
        return frozenset(
            fault.key
            for error in self._errors
            if isinstance(error, ProtocolError)
            for fault in error.faults
        )

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Keep what a check raises, and go on behind the block.

        Yields
        ------
        nothing
            The check is made in the block.
        """
        try:
            yield
        except InputError as error:
            self._errors.append(error)

    def add(self, faults: Iterable[Fault]) -> None:
        """Keep faults that a check found.

        Parameters
        ----------
        faults
            Any number of them, none too.
        """
        found = tuple(faults)
        if found:
            self._errors.append(ProtocolError(found))

    def tell(self) -> None:
        """Raise all that was gathered as one error; nothing where all is well.

        Raises
        ------
        InputError
            What :meth:`joined` makes of it.
        """
        if self._errors:
            raise self.joined() from self._errors[0].__cause__

    def joined(self) -> InputError:
        """Make one error of all that was gathered: at least one.

        Returns
        -------
        error
            The one thing that was refused, as its check raised it; or every fault,
            in the order of the document. What has no place in it comes last.
        """
        first = self._errors[0]
        if len(self._errors) == 1 and not isinstance(first, ProtocolError):
            return first
        return ProtocolError(in_order([*_faults(self._errors)]))


def _faults(errors: Iterable[InputError]) -> Iterator[Fault]:
    placeless: list[Fault] = []
    for error in errors:
        if isinstance(error, ProtocolError):
            yield from error.faults
        else:
            placeless.append(Fault("", None, None, "", str(error)))
    yield from placeless


def placed(given: Document[Any], default: str, error: Exception) -> Fault:
    """Show what a part refused where the document says it.

    Messages begin with the section and the key that they are about, as in
    ``surrogate: starts=2, expected …``.

    Parameters
    ----------
    given
        The document.
    default
        Key that is shown where the message names none of the document's.
    error
        What was raised.

    Returns
    -------
    fault
        Ready to be told.
    """
    head, _, rest = str(error).partition(": ")
    section = getattr(given.value, head, None)
    if section is None or not rest:
        return given.fault(default, str(error))
    name = rest.partition("=")[0]
    is_key = name.isidentifier() and hasattr(section, name)
    return given.fault(f"{head}.{name}" if is_key else head, rest)

"""Options of a driver, by its annotations: what is of another type is refused."""

import inspect
import json
from collections.abc import Callable, Mapping
from typing import Any

import pydantic

from labctl.document import Schema, teller, tree
from labctl.errors import Fault, ProtocolError


def check(
    factory: Callable[..., Any], where: str, arguments: Mapping[str, Any]
) -> None:
    """Compare options with the annotations of what takes them, as a document is.

    Parameters
    ----------
    factory
        Makes the driver.
    where
        Place in the bench file: ``devices.slm``.
    arguments
        As the bench file has them.

    Raises
    ------
    ProtocolError
        Every option of another type, without file and line.
    """
    takes = inspect.signature(factory).parameters
    fields: dict[str, Any] = {
        name: (takes[name].annotation, ...)
        for name in arguments
        if name in takes and _is_comparable(takes[name].annotation)
    }
    model = pydantic.create_model("Options", __base__=Schema, **fields)
    text = json.dumps({name: arguments[name] for name in fields})
    root, _ = tree.build(text, "")
    _, faults = teller.check(pydantic.TypeAdapter(model), root)
    # Of a choice of types each may say that it is not it.
    told = {each.key: f"{each.text} Correct the bench file." for each in faults}
    if told:
        raise ProtocolError(
            [
                Fault("", None, None, f"{where}.options.{key}", text)
                for key, text in told.items()
            ]
        )


def _is_comparable(annotation: Any) -> bool:  # noqa: ANN401 - any annotation there is
    if annotation is inspect.Parameter.empty or isinstance(annotation, str):
        return False
    try:
        pydantic.TypeAdapter(annotation)
    except pydantic.PydanticUserError:  # a class of its own: no option of a file
        return False
    return True

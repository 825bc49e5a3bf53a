"""What the page may ask for: checked here, before anything is done."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from labctl.errors import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Light(_Message):
    """Bring light onto the panel.

    Parameters
    ----------
    do
        ``light``.
    power_mw
        How much.
    """

    do: Literal["light"]
    power_mw: Positive


class Dark(_Message):
    """Take the light away.

    Parameters
    ----------
    do
        ``dark``.
    """

    do: Literal["dark"]


class Expose(_Message):
    """Set the camera.

    Parameters
    ----------
    do
        ``expose``.
    exposure_s, gain_db
        As a run sets them.
    view
        The whole ``sensor``, or the ``region`` that the bench file decodes.
    """

    do: Literal["expose"]
    exposure_s: Positive
    gain_db: NotNegative = 0.0
    view: Literal["sensor", "region"] = "sensor"


class Flat(_Message):
    """One level everywhere.

    Parameters
    ----------
    do
        ``flat``.
    level
        Which.
    """

    do: Literal["flat"]
    level: Annotated[int, Field(ge=0)] = 0


class Grating(_Message):
    """A blaze.

    Parameters
    ----------
    do
        ``grating``.
    period_px
        Panel pixels a turn.
    angle_deg
        Where the phase rises to.
    """

    do: Literal["grating"]
    period_px: Annotated[float, Field(ge=2, le=65_536)]
    angle_deg: Annotated[float, Field(ge=-360, le=360)] = 0.0


class Checker(_Message):
    """Squares of half a turn.

    Parameters
    ----------
    do
        ``checker``.
    size_px
        Their side, in panel pixels.
    """

    do: Literal["checker"]
    size_px: Annotated[int, Field(ge=1, le=65_536)]


class Leave(_Message):
    """Give the bench back.

    Parameters
    ----------
    do
        ``leave``.
    """

    do: Literal["leave"]


Command = Light | Dark | Expose | Flat | Grating | Checker | Leave
_Told = Annotated[Command, Field(discriminator="do")]
_COMMANDS: Final[TypeAdapter[Command]] = TypeAdapter(_Told)


def read(data: bytes) -> Command:
    """Read a command.

    Parameters
    ----------
    data
        JSON.

    Returns
    -------
    command
        What is asked for.

    Raises
    ------
    InputError
        It is no command, or a value of it makes no sense.
    """
    try:
        return _COMMANDS.validate_json(data)
    except ValidationError as err:
        first = err.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "command"
        text = f"{where}: {first['msg']}, got {first['input']!r}. Correct it."
        raise InputError(text) from err

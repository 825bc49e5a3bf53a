"""YAML documents that a person writes: read, checked, every fault at once."""

from pydantic import BaseModel, ConfigDict


class Schema(BaseModel):
    """A part of a document: frozen, and unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)

"""The base of everything that is science in data: plans and recipes."""

from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, SerializerFunctionWrapHandler, model_serializer


class Section(BaseModel):
    """Base of every part of a plan or recipe: frozen, unknown keys refused.

    A field that joins a section later than its first files is named in `_joined_later` and is None by default: while it
    is, it stays out of dumps, so that the hashes of older plans and recipes stand.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    _joined_later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_unused_newcomers(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        content: dict[str, Any] = dump(self)
        unused = [key for key in self._joined_later if content.get(key) is None]
        for key in unused:
            content.pop(key, None)
        return content

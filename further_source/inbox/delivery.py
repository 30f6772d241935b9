"""Reads one delivery; pure.

A delivery has the shape of an answer of the API. In the format `url`, the `data` of a step is an object with a `url`,
and the file behind it holds what `data` would have held: put in its place, the delivery is like one in the format
`inline`, and is read by the same code as an answer.
"""

import codecs
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from further_source import jsontext
from further_source.executions import ExecutionId
from further_source.settings import ID_PATTERN
from further_source.text import shown

__all__ = ["Delivery", "NoDelivery", "has_steps", "read_delivery", "read_payload", "urls_of"]

_SHORT = 100  # bytes
_IDS = ("workflow_id", "workflow_execution_id")
_is_id = re.compile(ID_PATTERN).fullmatch


class NoDelivery(Exception):
    """A document is no delivery; the text says why."""


class Delivery(NamedTuple):
    """A delivery whose steps have not been read. `body` is its text."""

    execution: ExecutionId
    status: str
    body: bytes


class _Head(msgspec.Struct):
    workflow_id: str
    workflow_execution_id: str
    status: str
    steps: msgspec.Raw = msgspec.Raw(b"null")


_read_head = msgspec.json.Decoder(_Head).decode


def read_delivery(body: bytes) -> Delivery:
    """The delivery that a document is.

    Raises:
        NoDelivery: It is no JSON object, or has no ids or no status that could be those of an execution.
    """
    body = body.removeprefix(codecs.BOM_UTF8)
    head: Mapping[str, Any]
    try:
        head = msgspec.structs.asdict(_read_head(body))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        head = _head_of_any(body)
    ids = [_id(key, head.get(key)) for key in _IDS]
    status = head.get("status")
    if not isinstance(status, str):
        raise NoDelivery("it has no text `status`")
    return Delivery(ExecutionId(*ids), status, body)


def _head_of_any(body: bytes) -> Mapping[str, Any]:
    """The whole delivery, which is not as documented, or holds what is no plain JSON.

    Raises:
        NoDelivery: It is no JSON object.
    """
    if not body.strip():
        raise NoDelivery("it is empty")
    payload = _payload(body)
    if not isinstance(payload, dict):
        raise NoDelivery("it is no JSON object")
    return payload


def _id(key: str, value: object) -> str:
    if isinstance(value, str) and _is_id(value):
        return value
    if value is None:
        raise NoDelivery(f"it has no `{key}`")
    raise NoDelivery(f"its `{key}` is {shown(value)}, which is not an id (letters, digits, - and _, 1 to 128)")


class _UrlData(msgspec.Struct):
    url: str
    data: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET


class _UrlStep(msgspec.Struct):
    data: msgspec.Raw = msgspec.Raw(b"null")


_read_steps = msgspec.json.Decoder(list[_UrlStep]).decode
_read_data = msgspec.json.Decoder(_UrlData).decode
_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What is raised where a delivery is of another shape, or holds what is no plain JSON."""


def urls_of(delivery: Delivery) -> dict[int, str]:
    """The URL of each step that has one in place of its data, by the step's index.

    Raises:
        NoDelivery: It is not JSON.
    """
    try:
        steps = _read_steps(_read_head(delivery.body).steps)
    except _UNREADABLE:
        found = _steps_of(_payload(delivery.body))
        return {index: step["data"]["url"] for index, step in enumerate(found) if _has_url(step)}
    return {index: url for index, step in enumerate(steps) if (url := _url(step.data)) is not None}


def _url(data: msgspec.Raw) -> str | None:
    try:
        found = _read_data(data)
    except _UNREADABLE:
        return None
    return found.url if found.data is msgspec.UNSET else None


def _has_url(step: Any) -> bool:
    data = step.get("data") if isinstance(step, dict) else None
    return isinstance(data, dict) and isinstance(data.get("url"), str) and "data" not in data


def read_payload(delivery: Delivery, data: Mapping[int, bytes]) -> dict[str, Any]:
    """The delivery as an answer of the API, with these texts in place of the data of its steps, by their indexes.

    Raises:
        NoDelivery: It is not JSON.
        ValueError: A text is neither a JSON object nor a list, or not JSON.
    """
    read = {index: _read_text(text) for index, text in data.items()}
    payload = _payload(delivery.body)
    if not read:
        return payload
    steps = _steps_of(payload)
    for index, of_step in read.items():
        steps[index]["data"] = of_step
    return {**payload, "steps": steps}


def _payload(body: bytes) -> dict[str, Any]:
    try:
        payload: dict[str, Any] = jsontext.loads(body, unread="steps")
    except ValueError as error:
        raise NoDelivery(f"it is {error}") from None
    return payload


def _steps_of(payload: Mapping[str, Any]) -> list[Any]:
    steps = payload.get("steps")
    if isinstance(steps, jsontext.Unread):
        steps = jsontext.loads_checked(bytes(steps.text))
    if isinstance(steps, dict):
        steps = [steps]
    return steps if isinstance(steps, list) else []


def _read_text(text: bytes) -> Any:
    """Data of a step; the rows of what is large stay unread, like those of a large answer."""
    if not text.removeprefix(codecs.BOM_UTF8).lstrip().startswith((b"{", b"[")):
        raise ValueError("neither a JSON object nor a list")
    return jsontext.loads(text, unread="data")


def has_steps(payload: Mapping[str, Any]) -> bool:
    """Whether there is any step: a delivery in the format `inline` that was too large has come with none."""
    steps = payload.get("steps")
    if isinstance(steps, jsontext.Unread) and len(memoryview(steps.text)) > _SHORT:
        return True
    return bool(_steps_of(payload))

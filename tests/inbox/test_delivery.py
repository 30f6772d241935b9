"""What is a delivery and what is none, and that URLs are replaced by what is behind them."""

import json
from typing import Any

import pytest

from further_source.executions import ExecutionId
from further_source.inbox.delivery import NoDelivery, has_steps, read_delivery, read_payload, urls_of
from further_source.jsontext import MANY_BYTES
from further_source.sandbox import cell, step
from further_source.tables.answer import normalize_steps
from tests.support.deliveries import inline

IDS = b'"workflow_id": "wf", "workflow_execution_id": "a", "status": "completed"'

NO_DELIVERIES = {
    "empty": (b"  ", "it is empty"),
    "no JSON": (b"<html>", "it is not JSON"),
    "cut short": (json.dumps(inline("a")).encode()[:-9], "it is not JSON at byte"),
    "text after it": (json.dumps(inline("a")).encode() + b"x", "it is not JSON at byte"),
    "no object": (b"[1]", "it is no JSON object"),
    "no workflow": (b'{"workflow_execution_id": "a", "status": "completed"}', "it has no `workflow_id`"),
    "no execution": (b'{"workflow_id": "wf", "status": "completed"}', "it has no `workflow_execution_id`"),
    "no status": (b'{"workflow_id": "wf", "workflow_execution_id": "a"}', "it has no text `status`"),
    "a status that is no text": (
        b'{"workflow_id": "wf", "workflow_execution_id": "a", "status": 1}',
        "it has no text `status`",
    ),
    "a path for an id": (
        b'{"workflow_id": "wf", "workflow_execution_id": "../../etc", "status": "completed"}',
        "its `workflow_execution_id` is '../../etc', which is not an id",
    ),
    "a number for an id": (
        b'{"workflow_id": 7, "workflow_execution_id": "a", "status": "completed"}',
        "its `workflow_id` is 7, which is not an id",
    ),
    "a gateway's envelope": (b'{"body": "{}", "isBase64Encoded": false}', "it has no `workflow_id`"),
}


@pytest.mark.parametrize(("body", "reason"), NO_DELIVERIES.values(), ids=NO_DELIVERIES)
def test_what_is_no_delivery_is_told_why(body: bytes, reason: str) -> None:
    with pytest.raises(NoDelivery) as raised:
        read_delivery(body)
    assert str(raised.value).startswith(reason)


@pytest.mark.parametrize("body", [b"{%s}" % IDS, b'\xef\xbb\xbf{"x": NaN, %s}' % IDS, b'{"x": 1e999, %s}' % IDS])
def test_what_can_be_read_is_a_delivery(body: bytes) -> None:
    delivery = read_delivery(body)

    assert delivery.execution == ExecutionId("wf", "a")
    assert delivery.status == "completed"
    assert urls_of(delivery) == {}


def of_url(*steps: Any, **extra: Any) -> bytes:
    return json.dumps({**inline("a"), "steps": list(steps), **extra}).encode()


URL = {"url": "https://x/?sig=1"}


@pytest.mark.parametrize(
    ("body", "urls"),
    [
        (of_url({"step_name": "A", "data": URL}, step("B", []), {"data": URL}), {0: URL["url"], 2: URL["url"]}),
        (of_url({"data": URL}, None, "odd"), {0: URL["url"]}),
        (of_url({"data": URL}, odd=float("nan")), {0: URL["url"]}),
        (json.dumps({**inline("a"), "steps": {"data": URL}}).encode(), {0: URL["url"]}),
        (of_url({"data": {"url": 1}}, {"data": [URL]}, {"data": {**URL, "data": []}}, {"data": None}), {}),
    ],
    ids=["some steps", "beside odd steps", "beside a constant", "one step in place of a list", "no URLs"],
)
def test_urls_are_found_whatever_else_is_there(body: bytes, urls: dict[int, str]) -> None:
    assert urls_of(read_delivery(body)) == urls


@pytest.mark.parametrize("odd", [{}, {"odd": float("nan")}], ids=["plain", "with a constant"])
def test_with_the_data_in_its_place_it_is_like_an_inline_one(odd: dict[str, Any]) -> None:
    whole = {
        **inline("a"),
        "steps": [step("A", [{"x": cell(2**70, 0.5)}], metadata={"pages": 2}), step("B", [])],
        **odd,
    }
    delivery = read_delivery(of_url({"step_name": "A", "data": URL}, step("B", []), **odd))

    payload = read_payload(delivery, {0: b"\xef\xbb\xbf" + json.dumps(whole["steps"][0]["data"]).encode()})

    expected = read_payload(read_delivery(json.dumps(whole).encode()), {})
    assert normalize_steps(payload) == normalize_steps(expected)
    assert {key: repr(value) for key, value in payload.items() if key != "steps"} == {
        key: repr(value) for key, value in expected.items() if key != "steps"
    }


def test_what_is_large_stays_unread_like_a_large_answer() -> None:
    large = json.dumps(step("A", [{"x": cell("y" * 1000, 0.5)}] * 1100)["data"]).encode()
    assert len(large) > MANY_BYTES

    payload = read_payload(read_delivery(of_url({"step_name": "A", "data": URL})), {0: large})

    assert [(one.name, one.blocks, len(one.unread)) for one in normalize_steps(payload)] == [("A", [], 1100)]


@pytest.mark.parametrize("data", [b"", b"null", b'"text"', b"<Error/>", b"{", b'{"a": }', b'{"data": ["\xff"]}'])
def test_what_is_no_data_is_not_taken_for_it(data: bytes) -> None:
    with pytest.raises(ValueError):
        read_payload(read_delivery(of_url({"data": URL})), {0: data})


@pytest.mark.parametrize("steps", [[], None, "missing", " " * (MANY_BYTES + 1)])
def test_a_delivery_without_steps_is_known(steps: Any) -> None:
    delivery = {**inline("a"), "steps": steps}
    if isinstance(steps, str):
        delivery = {**inline("a"), "steps": [], "filler": steps}

    assert not has_steps(read_payload(read_delivery(json.dumps(delivery).encode()), {}))
    assert has_steps(read_payload(read_delivery(json.dumps(inline("a")).encode()), {}))

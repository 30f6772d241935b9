"""The recipes of docs/webhooks.md: what they write is an inbox, and proxies are given the limits of the receiver."""

import ast
import base64
import json
import re
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto import mock_aws

from further_source.command.arguments.parser import command_parser, parse
from further_source.inbox.delivery import read_delivery
from further_source.receiver.metrics import OUTCOMES
from tests.support.deliveries import inline
from tests.support.documents import PROJECT, Document, names

PAGE = Document(PROJECT / "docs" / "webhooks.md")
RECIPES = PAGE.blocks("py")


@pytest.mark.parametrize("block", RECIPES, ids=str)
def test_a_recipe_is_python_and_never_names_a_file_by_what_came(block: Any) -> None:
    tree = ast.parse(block.code)

    assert len(block.code.splitlines()) <= 20
    [name] = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == "name"
    ]
    assert isinstance(name, ast.JoinedStr)
    assert re.match(r"f'inbox/.*\.json'", ast.unparse(name).replace('"', "'"))
    compile(tree, str(block), "exec")


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for name, value in {
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "INBOX_BUCKET": "deliveries",
        "INBOX_KEY": "key",
    }.items():
        monkeypatch.setenv(name, value)
    with mock_aws():
        s3 = boto3.client("s3")
        s3.create_bucket(Bucket="deliveries")
        yield s3


def handler_of(block: Any) -> Any:
    scope: dict[str, Any] = {}
    exec(compile(block.code, str(block), "exec"), scope)  # noqa: S102
    return scope["handler"]


def stored(s3: Any) -> list[bytes]:
    listed = s3.list_objects_v2(Bucket="deliveries", Prefix="inbox/").get("Contents", [])
    return [s3.get_object(Bucket="deliveries", Key=one["Key"])["Body"].read() for one in listed]


def test_the_lambda_behind_a_gateway_stores_what_comes_with_the_key(bucket: Any) -> None:
    handler = handler_of(RECIPES[0])
    body = json.dumps(inline("a"))
    packed = base64.b64encode(json.dumps(inline("b")).encode()).decode()

    assert handler({"headers": {}, "body": body}, None) == {"statusCode": 401}
    assert handler({"headers": {"x-inbox-key": "wrong"}, "body": body}, None) == {"statusCode": 401}
    assert stored(bucket) == []
    key = {"x-inbox-key": "key"}
    assert handler({"headers": key, "body": body}, None) == {"statusCode": 202}
    assert handler({"headers": key, "body": packed, "isBase64Encoded": True}, None) == {"statusCode": 202}
    assert [str(read_delivery(one).execution) for one in stored(bucket)] == ["wf/a", "wf/b"]


def test_the_lambda_behind_a_queue_stores_each_message(bucket: Any) -> None:
    bodies = [json.dumps(inline(name)) for name in ("a", "b")]

    handler_of(RECIPES[1])(
        {"Records": [{"messageId": f"m{index}", "body": body} for index, body in enumerate(bodies)]}, None
    )

    assert stored(bucket) == [body.encode() for body in bodies]


def test_the_proxies_pass_what_the_receiver_takes() -> None:
    [nginx], [caddy] = PAGE.blocks("nginx"), PAGE.blocks("caddyfile")
    defaults = parse(command_parser(), ["receive", "--inbox", "inbox"])

    [megabytes] = re.findall(r"client_max_body_size (\d+)m;", nginx.code)
    assert int(megabytes) * 1_048_576 >= defaults.hard_max_bytes
    [seconds] = re.findall(r"proxy_read_timeout (\d+)s;", nginx.code)
    assert int(seconds) > defaults.body_timeout
    for code in (nginx.code, caddy.code):
        assert code.count("{") == code.count("}")
        assert f"{defaults.host}:{defaults.port}" in code


def test_the_outcomes_of_the_metrics_are_those_of_the_receiver() -> None:
    [[_, deliveries, *_]] = [table for table in PAGE.tables("The receiver") if table[0] == ["metric", "what"]]

    assert tuple(names(deliveries[1])[1:]) == OUTCOMES

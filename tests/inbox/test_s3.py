"""An inbox in a bucket: loaded, archived and quarantined there, as in a directory."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import dlt
import pytest
from moto.server import ThreadedMotoServer

from further_source import run_in_slices
from further_source.sandbox import Sandbox
from tests.inbox.conftest import MakeWebhooks
from tests.support.deliveries import by_url, failing, inline, outcomes
from tests.support.loading import WORKFLOW, asked

LOCATION = "s3://deliveries/inbox"


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
    }.items():
        monkeypatch.setenv(name, value)
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="deliveries")
    yield s3
    server.stop()


def put(s3: Any, name: str, body: Any) -> None:
    s3.put_object(Bucket="deliveries", Key=f"inbox/{name}", Body=body if isinstance(body, bytes) else json.dumps(body))


def found(s3: Any) -> list[str]:
    names = [one["Key"].removeprefix("inbox/") for one in s3.list_objects_v2(Bucket="deliveries").get("Contents", [])]
    return sorted(name.rpartition("/")[0][:7] + "/" + name.rpartition("/")[2] for name in names)


@pytest.mark.slow
def test_a_bucket_is_loaded_archived_and_quarantined(
    bucket: Any, sandbox: Sandbox, pipeline: dlt.Pipeline, webhooks: MakeWebhooks
) -> None:
    put(bucket, "a.json", inline("a"))
    put(bucket, "2026/11/b.json", by_url(sandbox, inline("b")))
    put(bucket, "c.json", failing("c"))
    put(bucket, "bad.json", b"{ no JSON")
    put(bucket, ".part.json", b"{")
    sandbox.serve(WORKFLOW, "d", inline("d"))
    put(bucket, "d.json", by_url(sandbox, inline("d"), expires_in=-1))

    report = run_in_slices(pipeline, webhooks(inbox=LOCATION))

    assert outcomes(pipeline) == {"a": "completed", "b": "completed", "c": "failed", "d": "completed"}
    assert asked(sandbox) == {"d": 1}
    assert report.deliveries["quarantined"] == 1
    archived = [f"archive/{name}.json" for name in "abcd"]
    assert found(bucket) == ["/.part.json", *archived, "quarant/bad.json", "quarant/bad.json.reason.txt"]

    put(bucket, "again.json", inline("a"))
    report = run_in_slices(pipeline, webhooks(inbox=LOCATION, inbox_loaded="delete"))
    assert report.deliveries == {"delivered": 1, "doubled": 1}
    assert len(found(bucket)) == 7

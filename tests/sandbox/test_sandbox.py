"""The sandbox as its clients see it, over real HTTP."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from further_source.sandbox import (
    DemoExecution,
    Reply,
    Sandbox,
    cell,
    completed,
    create_execution,
    demo_executions,
    error,
    failed,
    running,
    step,
)

EXECUTIONS = "/api/v1/workflow-builder/workflows/{}/executions"
STEPS = [step("Extract Policy Details", [{"policy_number": cell("POL-AUTO-78901", 0.97)}])]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with Sandbox() as started:
        yield started


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as opened:
        opened.trust_env = False
        yield opened


class Client:
    """Asks a sandbox with a token that is valid."""

    def __init__(self, sandbox: Sandbox, session: requests.Session) -> None:
        self.sandbox, self.session = sandbox, session
        session.headers["Authorization"] = f"Bearer {sandbox.issue_token()}"

    def get(self, workflow_id: str, execution_id: str) -> requests.Response:
        url = self.sandbox.base_url + EXECUTIONS.format(workflow_id) + "/" + execution_id
        return self.session.get(url, timeout=5)

    def create(self, workflow_id: str) -> requests.Response:
        return self.session.post(self.sandbox.base_url + EXECUTIONS.format(workflow_id), timeout=5)

    def token(self, **body: str) -> requests.Response:
        return self.session.post(self.sandbox.base_url + "/api/v1/oauth2/access_token", json=body, timeout=5)


@pytest.fixture
def client(sandbox: Sandbox, session: requests.Session) -> Client:
    return Client(sandbox, session)


def raw_get(sandbox: Sandbox, timeout: float = 5) -> tuple[int, bytes]:
    """GET of execution ex of workflow wf without the politeness of requests."""
    connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=timeout)
    try:
        headers = {"Authorization": f"Bearer {sandbox.issue_token()}"}
        connection.request("GET", EXECUTIONS.format("wf") + "/ex", headers=headers)
        response = connection.getresponse()
        return response.status, response.read()
    finally:
        connection.close()


# Tokens


def test_the_token_endpoint_answers_as_documented(sandbox: Sandbox, client: Client) -> None:
    response = client.token(client_id=sandbox.client_id, client_secret=sandbox.client_secret)

    assert response.status_code == 200
    answer = response.json()
    token = answer.pop("access_token")
    assert answer == {"token_type": "bearer", "expires_in": 3600}
    assert token.count(".") == 2
    client.session.headers["Authorization"] = f"Bearer {token}"
    assert client.get("wf", "ex").status_code == 404


def test_wrong_credentials_are_401(sandbox: Sandbox, client: Client) -> None:
    response = client.token(client_id=sandbox.client_id, client_secret="wrong")

    assert (response.status_code, list(response.json())) == (401, ["detail"])


def test_a_missing_field_is_422_in_the_documented_form(sandbox: Sandbox, client: Client) -> None:
    response = client.token(client_secret=sandbox.client_secret)

    assert response.status_code == 422
    assert response.json() == {
        "detail": [{"loc": ["body", "client_id"], "msg": "field required", "type": "value_error.missing"}]
    }


def test_a_token_request_that_is_no_json_object_is_422(sandbox: Sandbox, client: Client) -> None:
    url = sandbox.base_url + "/api/v1/oauth2/access_token"

    assert [client.session.post(url, data=data).status_code for data in (b"", b"{", b"[]")] == [422, 422, 422]


@pytest.mark.parametrize("authorization", [None, "Bearer", "Bearer nonsense", "Basic YTpi"])
def test_without_a_valid_token_everything_is_401(
    sandbox: Sandbox, session: requests.Session, authorization: str | None
) -> None:
    sandbox.add("wf", "ex", running("wf", "ex"))
    headers = {} if authorization is None else {"Authorization": authorization}
    paths = [EXECUTIONS.format("wf") + "/ex", EXECUTIONS.format("wf") + "/unknown", "/elsewhere"]

    responses = [session.get(sandbox.base_url + path, headers=headers) for path in paths]
    responses.append(session.post(sandbox.base_url + EXECUTIONS.format("wf"), headers=headers))

    assert [response.status_code for response in responses] == [401] * 4
    assert all(isinstance(response.json()["detail"], str) for response in responses)


def test_an_expired_token_is_401(sandbox: Sandbox, client: Client) -> None:
    sandbox.add("wf", "ex", running("wf", "ex"))
    client.session.headers["Authorization"] = f"Bearer {sandbox.issue_token(expires_in=0)}"

    assert client.get("wf", "ex").status_code == 401


def test_revoked_tokens_are_401_and_new_ones_work(sandbox: Sandbox, client: Client) -> None:
    sandbox.add("wf", "ex", running("wf", "ex"))
    sandbox.revoke_tokens()
    revoked = client.get("wf", "ex").status_code
    client.session.headers["Authorization"] = f"Bearer {sandbox.issue_token()}"

    assert (revoked, client.get("wf", "ex").status_code) == (401, 200)


def test_a_token_script_repeats_its_last_reply_and_none_answers_as_usual(sandbox: Sandbox, client: Client) -> None:
    sandbox.script_token(error(500), None, error(401))
    credentials = {"client_id": sandbox.client_id, "client_secret": sandbox.client_secret}
    scripted = [client.token(**credentials).status_code for _ in range(4)]
    sandbox.script_token()

    assert scripted == [500, 200, 401, 401]
    assert client.token(**credentials).status_code == 200


# Executions


def test_unknown_executions_and_paths_are_404(sandbox: Sandbox, client: Client) -> None:
    sandbox.add("wf", "ex", running("wf", "ex"))

    assert client.get("wf", "other").status_code == 404
    assert client.get("other", "ex").status_code == 404, "ids are scoped to the workflow"
    assert client.session.get(sandbox.base_url + "/nowhere").json() == {"detail": "Not Found"}


def test_other_methods_are_405(sandbox: Sandbox, client: Client) -> None:
    url = sandbox.base_url + EXECUTIONS.format("wf")

    assert client.session.get(url).status_code == 405
    assert client.session.delete(url + "/ex").status_code == 405


def test_a_created_execution_runs_and_then_completes(client: Client) -> None:
    workflow_id = "wf-9"
    created = client.create(workflow_id)
    answer = created.json()
    execution_id = answer.pop("workflow_execution_id")
    assert created.status_code == 200
    assert answer == {"status": "running", "message": "Execution triggered successfully"}
    assert execution_id == create_execution(workflow_id, 1).execution_id

    first = client.get(workflow_id, execution_id).json()
    assert first == running(workflow_id, execution_id, metadata=first["metadata"])
    deadline = time.monotonic() + 6
    while (last := client.get(workflow_id, execution_id).json())["status"] == "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert last == create_execution(workflow_id, 1).payload
    assert last["metadata"] == first["metadata"]


def test_every_created_execution_is_another(client: Client) -> None:
    ids = {client.create(workflow_id).json()["workflow_execution_id"] for workflow_id in "aabb"}

    assert len(ids) == 4


def test_a_scripted_execution_answers_in_order_and_repeats_the_last(sandbox: Sandbox, client: Client) -> None:
    end = completed("wf", "ex", STEPS, metadata={"external_id": "INV-2024-001"})
    sandbox.add("wf", "ex", running("wf", "ex"), Reply(503, b"<html>", {"Content-Type": "text/html"}), end)

    responses = [client.get("wf", "ex") for _ in range(4)]

    assert [response.status_code for response in responses] == [200, 503, 200, 200]
    assert responses[0].json() == {
        "workflow_id": "wf",
        "workflow_execution_id": "ex",
        "status": "running",
        "metadata": {},
    }
    assert (responses[1].text, responses[1].headers["Content-Type"]) == ("<html>", "text/html")
    assert responses[2].json() == responses[3].json() == end


def test_bytes_are_sent_as_they_are(sandbox: Sandbox, client: Client) -> None:
    sandbox.add("wf", "ex", b'{"status": "running", "n": 123456789012345678901234567890}')

    response = client.get("wf", "ex")

    assert response.content == b'{"status": "running", "n": 123456789012345678901234567890}'
    assert response.headers["Content-Type"] == "application/json"


def test_a_served_execution_runs_from_its_first_request(sandbox: Sandbox, client: Client) -> None:
    end = failed("wf", "ex", metadata={"external_id": "A"}, error={"message": "unreadable"})
    sandbox.serve("wf", "ex", end, after=0.15)
    time.sleep(0.2)

    first = client.get("wf", "ex").json()
    time.sleep(0.2)

    assert first == running("wf", "ex", metadata={"external_id": "A"})
    assert client.get("wf", "ex").json() == end


def test_a_served_execution_without_an_end_keeps_running(sandbox: Sandbox, client: Client) -> None:
    sandbox.serve("wf", "ex", completed("wf", "ex", STEPS), after=None)

    assert {client.get("wf", "ex").json()["status"] for _ in range(3)} == {"running"}


def test_a_script_without_replies_and_an_unknown_fault_are_refused(sandbox: Sandbox) -> None:
    with pytest.raises(ValueError, match="at least one reply"):
        sandbox.add("wf", "ex")
    with pytest.raises(ValueError, match="no such fault: 'explode'"):
        Reply(fault="explode")  # type: ignore[arg-type]


# Faults


def test_reset_resets_the_connection(sandbox: Sandbox) -> None:
    sandbox.add("wf", "ex", Reply(fault="reset"))

    with pytest.raises(ConnectionResetError) as raised:
        raw_get(sandbox)
    assert not isinstance(raised.value, http.client.RemoteDisconnected)


def test_close_ends_the_connection_without_an_answer(sandbox: Sandbox) -> None:
    sandbox.add("wf", "ex", Reply(fault="close"))

    with pytest.raises(http.client.RemoteDisconnected):
        raw_get(sandbox)


@pytest.mark.parametrize("body", [running("wf", "ex"), b""])
def test_truncated_promises_more_than_it_sends(sandbox: Sandbox, body: Any) -> None:
    sandbox.add("wf", "ex", Reply(body=body, fault="truncated"))

    with pytest.raises(http.client.IncompleteRead):
        raw_get(sandbox)


def test_empty_is_a_status_without_a_body(sandbox: Sandbox) -> None:
    sandbox.add("wf", "ex", Reply(body=running("wf", "ex"), fault="empty"))

    assert raw_get(sandbox) == (200, b"")


def test_silent_never_answers(sandbox: Sandbox) -> None:
    sandbox.add("wf", "ex", Reply(fault="silent"))

    with pytest.raises(TimeoutError):
        raw_get(sandbox, timeout=0.2)


@pytest.mark.parametrize("fault", ["drip", "drip_headers"])
def test_dripping_outlasts_a_timeout_for_each_read(sandbox: Sandbox, fault: Any) -> None:
    sandbox.add("wf", "ex", Reply(body=b'{"status": "running"}', fault=fault, delay=0.007))
    started = time.monotonic()

    assert raw_get(sandbox, timeout=0.1) == (200, b'{"status": "running"}')
    assert time.monotonic() - started > 0.12


def test_a_delay_comes_before_the_answer(sandbox: Sandbox) -> None:
    sandbox.add("wf", "ex", Reply(body=running("wf", "ex"), delay=0.15))
    started = time.monotonic()

    assert raw_get(sandbox)[0] == 200
    assert time.monotonic() - started >= 0.15


def test_a_fault_leaves_the_sandbox_working(sandbox: Sandbox) -> None:
    sandbox.add("wf", "ex", Reply(fault="reset"), running("wf", "ex"))
    with pytest.raises(ConnectionResetError):
        raw_get(sandbox)

    assert raw_get(sandbox)[0] == 200


def test_a_malformed_request_is_refused_in_json(sandbox: Sandbox) -> None:
    with socket.create_connection(("127.0.0.1", sandbox.port), timeout=5) as connection:
        connection.sendall(b"GET nothing HTTP/9.9.9\r\n\r\n")
        head, _, body = connection.makefile("rb").read().partition(b"\r\n\r\n")

    assert head.startswith(b"HTTP/1.1 400 ")
    assert list(json.loads(body)) == ["detail"]


# What was asked, how fast, and the end


def test_requests_are_recorded_as_they_came(sandbox: Sandbox, client: Client) -> None:
    sandbox.add("wf", "ex", running("wf", "ex"), Reply(fault="close"))
    before = time.monotonic()
    client.get("wf", "ex")
    client.session.get(sandbox.base_url + "/nowhere?page=2")
    with pytest.raises(requests.ConnectionError):
        client.get("wf", "ex")

    asked, nowhere, closed = sandbox.requests
    assert (asked.method, asked.path) == ("GET", EXECUTIONS.format("wf") + "/ex")
    assert (asked.workflow_id, asked.workflow_execution_id, asked.status) == ("wf", "ex", 200)
    assert asked.headers["authorization"] == client.session.headers["Authorization"]
    assert before <= asked.at <= nowhere.at <= closed.at <= time.monotonic()
    assert (nowhere.path, nowhere.workflow_id, nowhere.workflow_execution_id) == (
        "/nowhere?page=2",
        None,
        None,
    )
    assert closed.status is None
    assert (sandbox.asked("wf", "ex"), sandbox.asked("wf", "other")) == (2, 0)


def test_refused_requests_count_as_asked(sandbox: Sandbox, session: requests.Session) -> None:
    session.get(sandbox.base_url + EXECUTIONS.format("wf") + "/ex")

    assert sandbox.asked("wf", "ex") == 1


def test_many_requests_share_a_connection(sandbox: Sandbox, client: Client) -> None:
    sandbox.add("wf", "ex", running("wf", "ex"))
    client.get("wf", "ex")
    started = time.monotonic()
    for _ in range(50):
        assert client.get("wf", "ex").status_code == 200

    # 40 ms each if small packets waited for acknowledgements.
    assert time.monotonic() - started < 1.5


def test_more_requests_than_the_rate_are_429_with_retry_after(session: requests.Session) -> None:
    with Sandbox(requests_per_second=3) as sandbox:
        client = Client(sandbox, session)
        sandbox.add("wf", "ex", running("wf", "ex"))
        responses = [client.get("wf", "ex") for _ in range(5)]
        time.sleep(1.0)
        later = client.get("wf", "ex")

    assert [response.status_code for response in responses] == [200, 200, 200, 429, 429]
    assert responses[3].headers["Retry-After"] == "1"
    assert later.status_code == 200
    assert sandbox.asked("wf", "ex") == 6


def test_stop_does_not_wait_for_hung_connections(session: requests.Session) -> None:
    replies = [Reply(fault="silent"), Reply(body=b"x" * 999, fault="drip", delay=9), Reply(delay=99)]
    sandbox = Sandbox().start()
    connections = []
    for reply in replies:
        sandbox.add("wf", "ex", reply)
        connection = http.client.HTTPConnection("127.0.0.1", sandbox.port, timeout=5)
        headers = {"Authorization": f"Bearer {sandbox.issue_token()}"}
        connection.request("GET", EXECUTIONS.format("wf") + "/ex", headers=headers)
        connections.append(connection)
        while sandbox.asked("wf", "ex") < len(connections):
            time.sleep(0.005)

    started = time.monotonic()
    sandbox.stop()

    assert time.monotonic() - started < 1
    with pytest.raises(requests.ConnectionError):
        session.get(sandbox.base_url)
    for connection in connections:
        connection.close()


def test_a_sandbox_started_again_keeps_its_port_and_its_executions(session: requests.Session) -> None:
    sandbox = Sandbox()
    with pytest.raises(RuntimeError):
        _ = sandbox.base_url
    sandbox.add("wf", "ex", running("wf", "ex"))
    with sandbox:
        client, base_url = Client(sandbox, session), sandbox.base_url
        assert client.get("wf", "ex").status_code == 200
    with sandbox:
        assert sandbox.base_url == base_url
        assert client.get("wf", "ex").status_code == 200


def test_it_listens_on_loopback_only(sandbox: Sandbox) -> None:
    assert sandbox.base_url == f"http://127.0.0.1:{sandbox.port}"
    with pytest.raises(OSError), socket.create_connection(("127.0.0.2", sandbox.port), timeout=1):
        pass


# The demo


def cells_of(execution: DemoExecution) -> Iterator[tuple[str, str, Any, float]]:
    """Step name, field, value and confidence of each cell."""
    for one_step in execution.payload.get("steps", []):
        for row in one_step["data"]["data"]:
            for field, one_cell in row.items():
                assert sorted(one_cell) == ["confidence_score", "value"]
                yield one_step["step_name"], field, one_cell["value"], one_cell["confidence_score"]


def amount(value: Any) -> float:
    return float(re.sub(r"[$,]", "", value)) if isinstance(value, str) else float(value)


def test_demo_executions_are_the_same_every_time() -> None:
    assert demo_executions() == demo_executions()
    assert create_execution("wf", 3) == create_execution("wf", 3)


def test_demo_executions_end_in_time_but_for_one_that_fails_and_one_that_never_ends() -> None:
    executions = demo_executions()

    assert len({(execution.workflow_id, execution.execution_id) for execution in executions}) == 24
    assert len({execution.workflow_id for execution in executions}) == 4
    statuses = [execution.payload["status"] for execution in executions]
    assert (statuses.count("completed"), statuses.count("failed"), statuses.count("running")) == (22, 1, 1)
    assert [e.payload["status"] for e in executions if e.after is None] == ["running"]
    assert all(0 <= e.after <= 8 for e in executions if e.after is not None)
    assert all(e.payload["metadata"]["external_id"] for e in executions)
    assert next(e.payload["error"]["message"] for e in executions if e.payload["status"] == "failed")


def test_demo_data_has_the_mix_that_makes_such_data_hard() -> None:
    cells = [found for execution in demo_executions() for found in cells_of(execution)]
    values: dict[str, list[Any]] = {}
    for _, field, value, _ in cells:
        values.setdefault(field, []).append(value)
    confidences = [confidence for *_, confidence in cells]

    assert {name for name, *_ in cells} == {
        "Extract Policy Details",
        "Extract Coverages",
        "Extract Loss Run Summary",
        "Extract Claims",
        "Extract Statement of Values",
        "Extract Submission",
        "Extract Loss History",
        "Extract Schedule of Vehicles",
    }
    assert all(0 <= confidence <= 1 for confidence in confidences)
    assert sum(confidence >= 0.9 for confidence in confidences) > 0.8 * len(cells)
    assert 0.04 < sum(confidence < 0.7 for confidence in confidences) / len(cells) < 0.15
    assert {str, int} <= {type(value) for value in values["building_value"]}
    assert {str, int} <= {type(value) for value in values["zip_code"]}
    assert "02139" in values["zip_code"]
    assert "tomorrow" in values["effective_date"]
    assert "upon receipt" in values["premium_due_date"]
    assert any(isinstance(value, list) and value for value in values["additional_insureds"])
    assert any(isinstance(value, dict) for value in values["mortgagee"])
    assert None in values["mortgagee"]
    assert set(values["sprinklered"]) == {True, False}


def test_demo_amounts_add_up() -> None:
    checked = 0
    for execution in demo_executions():
        for one_step in execution.payload.get("steps", []):
            rows = [{field: c["value"] for field, c in row.items()} for row in one_step["data"]["data"]]
            for row in rows:
                parts: tuple[str, ...]
                if "incurred" in row:
                    parts, total = ("paid", "reserved"), "incurred"
                elif "total_insured_value" in row:
                    parts, total = ("building_value", "contents_value", "business_income"), "total_insured_value"
                else:
                    continue
                assert sum(amount(row[part]) for part in parts) == pytest.approx(amount(row[total]), abs=0.005)
                checked += 1
    assert checked > 200


def test_a_loss_run_adds_up_to_its_summary() -> None:
    loss_runs = [e for e in demo_executions() if len(e.payload.get("steps", [])) == 2]
    loss_runs = [e for e in loss_runs if e.payload["steps"][1]["step_name"] == "Extract Claims"]
    assert len(loss_runs) == 6
    for execution in loss_runs:
        summary, claims = (one_step["data"]["data"] for one_step in execution.payload["steps"])
        total = sum(amount(claim["incurred"]["value"]) for claim in claims)
        assert amount(summary[0]["total_incurred"]["value"]) == pytest.approx(total, abs=0.005)
        assert summary[0]["claim_count"]["value"] == len(claims)


def test_serve_demo_serves_all_of_them(sandbox: Sandbox, client: Client) -> None:
    ids = sandbox.serve_demo()

    assert ids == [(execution.workflow_id, execution.execution_id) for execution in demo_executions()]
    for execution in demo_executions():
        answer = client.get(execution.workflow_id, execution.execution_id).json()
        if execution.after == 0:
            assert answer == execution.payload
        else:
            assert answer == running(*ids[len(sandbox.requests) - 1], metadata=execution.payload["metadata"])


# The command


COMMAND = [sys.executable, "-m", "further_source.sandbox"]


@pytest.mark.skipif(os.name == "nt", reason="SIGTERM cannot be caught there")
def test_the_command_serves_until_it_is_told_to_stop(session: requests.Session) -> None:
    with subprocess.Popen([*COMMAND, "--port", "0"], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            first_line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+", first_line)
            assert found, first_line
            url = found[0] + "/api/v1/oauth2/access_token"
            credentials = {"client_id": "sandbox-client", "client_secret": "sandbox-secret"}
            assert session.post(url, json=credentials, timeout=5).status_code == 200
            process.send_signal(signal.SIGTERM)
            rest = process.stdout.read()
            assert process.wait(timeout=5) == 0
        finally:
            process.kill()

    assert f"export SOURCES__FURTHER_SOURCE__BASE_URL={found[0]}\n" in rest
    listed = re.findall(r"^([0-9a-f-]{36})/([0-9a-f-]{36})$", rest, re.MULTILINE)
    assert listed == [(execution.workflow_id, execution.execution_id) for execution in demo_executions()]


def test_the_command_says_in_one_line_that_its_port_is_in_use(sandbox: Sandbox) -> None:
    command = [*COMMAND, "--port", str(sandbox.port)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert f"127.0.0.1:{sandbox.port}" in done.stderr


def test_the_command_tells_wrong_usage_in_one_line() -> None:
    done = subprocess.run([*COMMAND, "--port", "99999"], capture_output=True, text=True, timeout=20)

    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "--port" in done.stderr


def test_the_command_lists_the_demo_executions_to_pipe_into_a_load() -> None:
    done = subprocess.run([*COMMAND, "--list"], capture_output=True, text=True, timeout=20)

    assert done.returncode == 0
    lines = done.stdout.splitlines()
    assert lines == [f"{execution.workflow_id}/{execution.execution_id}" for execution in demo_executions()]

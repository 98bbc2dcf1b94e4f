"""What schemathesis must know of this API beside its document."""

import json

import schemathesis

APPLICATIONS = ["my-apns-app", "my-apns-token-app", "my-fcm-app", "my-gcm-app"]
LINES = ("application/x-ndjson", "application/ndjson", "application/jsonl")


@schemathesis.serializer(*LINES, "application/wasm")
def as_it_is(context, value):
    """Text or bytes; anything else is what a confused caller may send."""
    if isinstance(value, bytes):
        return value
    return (value if isinstance(value, str) else json.dumps(value)).encode("utf-8", "surrogatepass")


@schemathesis.deserializer("application/x-ndjson")
def lines(context, response):
    return response.text


@schemathesis.deserializer("application/openmetrics-text")
def metrics(context, response):
    return response.text


def one_of(names, value):
    """The same for the same value, so that a failure can be repeated."""
    return names[len(value) % len(names)]


@schemathesis.hook
def map_body(context, body):
    """Most requests are for an application that is there: the others are told 404 before anything else is read."""
    if isinstance(body, dict) and isinstance(body.get("application_id"), str) and body["application_id"]:
        if context.operation.path != "/register_application":
            return {**body, "application_id": one_of(APPLICATIONS, body["application_id"])}
    if isinstance(body, str) and context.operation.path == "/v1/notifications:stream":
        header = {"application_id": one_of(APPLICATIONS, body), "notification": {"body": "hello"}}
        return f"{json.dumps(header)}\n{json.dumps({'target': 'ab' * 32})}\n{body}"
    return body


@schemathesis.hook
def map_path_parameters(context, parameters):
    """The same for paths. What replaces and deletes finds its own, so that the applications stay."""
    if isinstance(parameters, dict) and isinstance(parameters.get("id"), str):
        if context.operation.method.upper() not in ("PUT", "DELETE") or "collection" in parameters:
            return {**parameters, "id": one_of(APPLICATIONS, parameters["id"])}
    return parameters


@schemathesis.check
def lines_conform(context, response, case):
    """Each line of a stream's answer is a result with an index, the last one a summary of them."""
    if not response.headers.get("content-type", [""])[0].startswith("application/x-ndjson"):
        return
    *results, end = [json.loads(line) for line in response.text.splitlines()]
    assert end["summary"]["total"] == len(results), end
    assert sorted(result["index"] for result in results) == list(range(len(results)))
    assert all(isinstance(result["status"], str) for result in results)

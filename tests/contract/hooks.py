"""What schemathesis must know of this API beside its document."""

import json
import zlib

import schemathesis

# By id, with the provider.
APPLICATIONS = {"my-apns-app": "apns", "my-apns-token-app": "apns", "my-fcm-app": "fcm", "my-gcm-app": "gcm"}
OPERATOR = "Bearer the-operators-own-key"
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


def as_operator(request):
    """Instead of the login that all other requests have."""
    request.headers["Authorization"] = OPERATOR
    return request


@schemathesis.hook
def before_call(context, case, kwargs):
    """Most requests are about an application that is there: the others are told 404 before anything else is read.
    What replaces and deletes applications finds others, so that these stay."""
    path, parameters = case.operation.path, case.path_parameters
    if path.startswith("/v1/tenants"):
        kwargs["auth"] = as_operator
        return
    if isinstance(parameters, dict) and isinstance(parameters.get("id"), str):
        stays = "{collection}" in path or case.method not in ("PUT", "DELETE")
        parameters["id"] = known(parameters["id"]) if stays else f"other-{parameters['id']}"
    if isinstance(parameters, dict) and parameters.get("item") and "{item}" in path:
        # Apple's ids are base64.
        parameters["item"] = "dHN0LXNyY2gtY2hubA=="
    if path == "/v1/notifications:stream":
        case.body = stream(case.body)
    elif path != "/register_application" and isinstance(case.body, dict):
        id = case.body.get("application_id")
        if isinstance(id, str) and id:
            case.body = fitting(case, {**case.body, "application_id": known(id)})
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and 0 < len(key) < 200:
        # The same key for another request is told of (422) before anything else is done.
        case.headers["Idempotency-Key"] = f"{key}{zlib.crc32(repr(case.body).encode('utf-8', 'replace')):x}"


def known(id):
    """An application that is there, mostly; the same for the same id, so that a failure can be repeated."""
    names = [*APPLICATIONS, id]
    return names[sum(id.encode("utf-8", "surrogatepass")) % len(names)]


def fitting(case, body):
    """Without the fields of other providers, which would be all that is told of, if the provider is known."""
    provider = APPLICATIONS.get(body["application_id"])
    schemas = case.operation.schema.raw_schema["components"]["schemas"]
    fields = schemas["Notification"]["properties"]

    def fits(name):
        providers = fields.get(name, {}).get("x-providers")
        return provider is None or providers is None or provider in providers

    def fit(value):
        if isinstance(value, dict):
            return {name: inner for name, inner in value.items() if fits(name)}
        return value

    if case.operation.path == "/v1/notifications":
        return {**body, "notification": fit(body["notification"])} if "notification" in body else body
    return fit(body)


def stream(body):
    """Behind a header that is right, and a line that is: whatever comes."""
    if not isinstance(body, str):
        return body
    header = {"application_id": known(body), "notification": {"body": "hello"}}
    return f"{json.dumps(header)}\n{json.dumps({'target': 'ab' * 32})}\n{body}"


@schemathesis.check
def lines_conform(context, response, case):
    """Each line of a stream's answer is a result with an index, the last one a summary of them."""
    if not response.headers.get("content-type", [""])[0].startswith("application/x-ndjson"):
        return
    *results, end = [json.loads(line) for line in response.text.splitlines()]
    assert end["summary"]["total"] == len(results), end
    assert sorted(result["index"] for result in results) == list(range(len(results)))
    assert all(isinstance(result["status"], str) for result in results)

"""The provider acme: turns notifications into requests of a webhook, and its answers into outcomes.

Pure functions: no clock, no socket, no secret. The server adds the credential and sends.
"""

import json
from email.utils import parsedate_to_datetime
from urllib.parse import quote

from componentize_py_types import Err
from wit_world import exports
from wit_world.exports import codec, manifest as m
from wit_world.imports import types


class Manifest(exports.Manifest):
    def describe(self):
        """What the provider is and needs. The server asks once, and refuses what is not declared here."""

        def endpoint(environment, origin):
            return m.Endpoint("push", environment, m.Transport.HTTPS, m.Origin_Fixed(origin))

        return m.ProviderManifest(
            name="acme",
            title="Acme",
            vendor="acme",
            version="0.1.0",
            description="Posts notifications to Acme's webhook.",
            also_answers=[],
            settings=[field("acme_channel", m.ValueKind.TEXT, "The channel in which it appears.")],
            credentials=[
                m.Credential(
                    name="token",
                    secrets=[m.Secret("acme_token", m.SecretFormat.TEXT, None, "The token that Acme gave.")],
                    companions=[],
                    authentication=m.Authentication_Secret(
                        ("acme_token", m.Placement(m.Place_Header("authorization"), "Bearer "))
                    ),
                    required_settings=["acme_channel"],
                    derivations=[],
                    inline=False,
                    connection_settings=[],
                )
            ],
            options=[field("pinned", m.ValueKind.BOOLEAN, "Keep the message at the top.")],
            target_options=[],
            environments=[types.Environment.PRODUCTION, types.Environment.DEVELOPMENT],
            targets=[m.TargetKind.DEVICE],
            endpoints=[
                endpoint(types.Environment.PRODUCTION, "https://push.acme.example"),
                endpoint(types.Environment.DEVELOPMENT, "https://sandbox.acme.example"),
            ],
            targets_per_exchange=1,
            targets_per_call=500,
            # Answers are shown with these headers alone.
            response_headers=["retry-after"],
            entropy=0,
            examples=[
                m.Example(
                    settings=[("acme_channel", "news")],
                    credential="token",
                    notification='{"title":"Hello","body":"World"}',
                    target="device-1",
                    target_options=[],
                )
            ],
        )


class Codec(exports.Codec):
    def check_application(self, application):
        """Called when an application is registered: refuse here what would fail with each send."""
        if "/" in (setting(application, "acme_channel") or ""):
            raise Err(invalid("acme_channel", "acme_channel must not hold a slash"))

    def encode(self, context, application, notification, recipients):
        """One request for each target; what they have in common stands in one message."""
        channel = segment(setting(application, "acme_channel") or "default")
        exchanges, refusals = [], []
        for place, recipient in enumerate(recipients):
            target = recipient.target
            if isinstance(target, types.Target_Device) and len(target.value) <= 1000:
                path = f"/v1/{channel}/{segment(target.value[:300])}"
                exchanges.append(codec.Exchange([place], 0, None, path, [], False))
            else:
                # A bad target gets a refusal of its own, and costs the others nothing.
                rejection = invalid("device_token", "a device of Acme has at most 1000 characters")
                refusals.append(codec.Refusal([place], rejection))
        return codec.Encoded([message(notification)] if recipients else [], exchanges, refusals)

    def decode(self, context, application, answers, native):
        return [
            codec.Reply([outcome(answer.response, context.now) for _ in answer.targets], None)
            for answer in answers
        ]


def message(notification):
    alert = notification.alert
    body = {"title": alert and alert.title, "text": alert and alert.body}
    for name, value in notification.options:
        if name == "pinned":
            body["pinned"] = json.loads(value)
    if notification.data is not None:
        body["data"] = json.loads(notification.data)
    return codec.Message(
        endpoint="push",
        method=codec.Method.POST,
        headers=[("content-type", "application/json")],
        body=json.dumps(body).encode(),
        authenticate=True,
    )


def outcome(response, now):
    """What became of a target. Say unregistered only when the service says so: callers delete it."""
    body = parsed(response.body)

    def text(name):
        value = body.get(name)
        return value if isinstance(value, str) else None

    keep = types.ConnectionHint.KEEP
    return types.Outcome(disposition(response, now), text("id"), text("error"), text("message"), keep)


def disposition(response, now):
    status, wait = response.status, retry_after(response, now)
    if 200 <= status < 300:
        return types.Disposition_Delivered()
    if status in (401, 403):
        return types.Disposition_CredentialRejected(types.CredentialFault.REFUSED)
    if status in (404, 410):
        return types.Disposition_Unregistered(None)
    if status == 429:
        return types.Disposition_Throttled(types.Throttle(types.Scope.APPLICATION, wait))
    if 400 <= status < 500:
        return types.Disposition_Rejected()
    if status >= 500:
        return types.Disposition_Unavailable(wait)
    return types.Disposition_Unknown()


def retry_after(response, now):
    """Retry-After in milliseconds: it is in seconds, or a date (RFC 9110 section 10.2.3)."""
    value = next((value.strip() for name, value in response.headers if name == "retry-after"), "")
    if value.isascii() and value.isdigit() and len(value) < 10:
        return int(value) * 1000
    try:
        date = parsedate_to_datetime(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return max(0, int(date.timestamp() * 1000) - now)


def setting(application, name):
    return dict(application.settings).get(name)


def field(name, kind, description):
    return m.Field(
        name=name,
        kind=kind,
        required=False,
        choices=[],
        default=None,
        minimum=None,
        maximum=None,
        max_length=None,
        unit=None,
        description=description,
    )


def invalid(field, text):
    return types.Rejection(f"invalid_{field}", text, field, [])


def segment(text):
    """A text as a segment of a path, which cannot leave its place."""
    return quote(text, safe="").replace(".", "%2E")


def parsed(body):
    """The object in a body, or an empty one if it is anything else."""
    try:
        text = body.decode()
        # What is nested deeply would exhaust the stack.
        value = json.loads(text) if depth(text) <= 100 else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def depth(text):
    depth = most = 0
    for letter in text:
        if letter in "[{":
            depth += 1
            most = max(most, depth)
        elif letter in "]}":
            depth -= 1
    return most

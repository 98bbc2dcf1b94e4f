"""Helpers for push providers of Pushlet.

The types of the contract are those of ``wit_world``, which componentize-py makes of ``provider.wit``.
"""

from __future__ import annotations

import json
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import quote

try:
    from wit_world.exports import codec, manifest
    from wit_world.imports import types
except ModuleNotFoundError as missing:
    # Without bindings only `python -m pushlet_provider` is of use, with which they are made.
    if missing.name != "wit_world":
        raise

__all__ = [
    "delivered",
    "endpoints",
    "exchange",
    "field",
    "header",
    "invalid",
    "json_object",
    "option",
    "outcome",
    "outcome_of",
    "retry_after",
    "secret",
    "segment",
    "setting",
]


def field(name: str, kind: manifest.ValueKind, description: str, **more: Any) -> manifest.Field:
    """A field of a manifest: a setting, an option, an option of a target."""
    given = {
        "required": False,
        "choices": [],
        "default": None,
        "minimum": None,
        "maximum": None,
        "max_length": None,
        "unit": None,
    } | more
    return manifest.Field(name=name, kind=kind, description=description, **given)


def endpoints(name: str, production: str, development: str | None = None) -> list[manifest.Endpoint]:
    """An endpoint of both environments, over HTTPS."""

    def of(environment: types.Environment, origin: str) -> manifest.Endpoint:
        return manifest.Endpoint(name, environment, manifest.Transport.HTTPS, manifest.Origin_Fixed(origin))

    return [
        of(types.Environment.PRODUCTION, production),
        of(types.Environment.DEVELOPMENT, development or production),
    ]


def secret(
    name: str, secret_name: str, description: str, header: str = "authorization", prefix: str = "Bearer "
) -> manifest.Credential:
    """A credential of one text, which the host writes into a header."""
    placement = manifest.Placement(manifest.Place_Header(header), prefix)
    return manifest.Credential(
        name=name,
        secrets=[manifest.Secret(secret_name, manifest.SecretFormat.TEXT, None, description)],
        companions=[],
        authentication=manifest.Authentication_Secret((secret_name, placement)),
        required_settings=[],
        derivations=[],
        inline=False,
        connection_settings=[],
    )


def setting(application: types.Application, name: str) -> str | None:
    """The value of a setting of an application; None: it has none."""
    return dict(application.settings).get(name)


def option(of: types.Notification | types.Recipient, name: str) -> Any:
    """The value of an option of a notification or a recipient, read as JSON; None: it has none."""
    value = dict(of.options).get(name)
    return None if value is None else json.loads(value)


def invalid(field: str, message: str) -> types.Rejection:
    """Why something is refused, with the name of the field."""
    return types.Rejection(f"invalid_{field}", message, field, [])


def exchange(covers: list[int], path: str, message: int = 0, idempotent: bool = False) -> codec.Exchange:
    """A request for the targets with these indices, of the message with this index."""
    return codec.Exchange(covers, message, None, path, [], idempotent)


def segment(text: str) -> str:
    """A text as a segment of a path, which cannot leave its place."""
    return quote(text, safe="").replace(".", "%2E")


def outcome(
    disposition: types.Disposition, id: str | None = None, code: str | None = None, message: str | None = None
) -> types.Outcome:
    """What became of a target."""
    return types.Outcome(disposition, id, code, message, types.ConnectionHint.KEEP)


def delivered(id: str | None = None) -> types.Outcome:
    return outcome(types.Disposition_Delivered(), id)


def outcome_of(response: codec.Response, now: int, gone: tuple[int, ...] = (410,), **told: Any) -> types.Outcome:
    """What an HTTP status says by itself.

    A 404 is ``rejected`` unless the service means by it that the target is gone: callers delete what is reported as
    unregistered.
    """
    return outcome(_disposition(response, now, gone), **told)


def _disposition(response: codec.Response, now: int, gone: tuple[int, ...]) -> types.Disposition:
    status, wait = response.status, retry_after(response, now)
    if 200 <= status < 300:
        return types.Disposition_Delivered()
    if status in gone:
        return types.Disposition_Unregistered(None)
    if status in (401, 403):
        return types.Disposition_CredentialRejected(types.CredentialFault.REFUSED)
    if status == 429:
        return types.Disposition_Throttled(types.Throttle(types.Scope.APPLICATION, wait))
    if 400 <= status < 500:
        return types.Disposition_Rejected()
    if status >= 500:
        return types.Disposition_Unavailable(wait)
    return types.Disposition_Unknown()


def header(response: codec.Response, name: str) -> str | None:
    """The first header of this name, in lower case; None: there is none."""
    return next((value for known, value in response.headers if known == name), None)


def retry_after(response: codec.Response, now: int) -> int | None:
    """Retry-After in milliseconds: it is in seconds, or a date (RFC 9110 section 10.2.3)."""
    value = (header(response, "retry-after") or "").strip()
    if value.isascii() and value.isdigit():
        return int(value) * 1000 if len(value) < 10 else None
    try:
        date = parsedate_to_datetime(value)
        return max(0, int(date.timestamp() * 1000) - now) if date.tzinfo else None
    except (TypeError, ValueError, OverflowError):
        return None


def json_object(body: bytes) -> dict[str, Any]:
    """The object in a body, or an empty one if it is anything else."""
    try:
        text = body.decode()
        # What is nested deeply would exhaust the stack.
        value = json.loads(text) if _depth(text) <= 100 else None
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _depth(text: str) -> int:
    depth = most = 0
    for letter in text:
        if letter in "[{":
            depth += 1
            most = max(most, depth)
        elif letter in "]}":
            depth -= 1
    return most

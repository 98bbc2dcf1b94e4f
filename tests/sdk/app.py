"""A provider that uses the helpers of the package."""

import json

from pushlet_provider import endpoints, exchange, field, invalid, json_object, option, outcome_of, secret, segment
from wit_world import exports
from wit_world.exports import codec, manifest
from wit_world.imports import types


class Manifest(exports.Manifest):
    def describe(self):
        return manifest.ProviderManifest(
            name="chat",
            title="Chat",
            vendor="example",
            version="1",
            description="Posts a notification to a room.",
            also_answers=[],
            settings=[],
            credentials=[secret("token", "chat_token", "The token of the robot.")],
            options=[field("silent", manifest.ValueKind.BOOLEAN, "Without a sound.")],
            target_options=[],
            environments=[types.Environment.PRODUCTION, types.Environment.DEVELOPMENT],
            targets=[manifest.TargetKind.DEVICE],
            endpoints=endpoints("api", "https://chat.example", "https://dev.chat.example"),
            targets_per_exchange=1,
            targets_per_call=500,
            response_headers=["retry-after"],
            entropy=0,
            examples=[manifest.Example([], "token", '{"title":"Hello","body":"World"}', "room-1", [])],
        )


class Codec(exports.Codec):
    def check_application(self, application):
        pass

    def encode(self, context, application, notification, recipients):
        alert = notification.alert
        body = {"title": alert and alert.title, "text": alert and alert.body, "silent": option(notification, "silent")}
        exchanges, refusals = [], []
        for place, recipient in enumerate(recipients):
            target = recipient.target
            if isinstance(target, types.Target_Device) and len(target.value) <= 100:
                exchanges.append(exchange([place], f"/rooms/{segment(target.value)}"))
            else:
                rejection = invalid("device_token", "a room has at most 100 characters")
                refusals.append(codec.Refusal([place], rejection))
        headers = [("content-type", "application/json")]
        message = codec.Message("api", codec.Method.POST, headers, json.dumps(body).encode(), True)
        return codec.Encoded([message] if exchanges else [], exchanges, refusals)

    def decode(self, context, application, answers, native):
        return [codec.Reply([self.outcome(answer, context.now) for _ in answer.targets], None) for answer in answers]

    def outcome(self, answer, now):
        error = json_object(answer.response.body).get("error")
        return outcome_of(answer.response, now, code=error if isinstance(error, str) else None)

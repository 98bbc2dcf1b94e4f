"""PyPI's firebase-admin: Google's own client."""

import json

import firebase_admin
import simulator
from firebase_admin import credentials, exceptions, messaging

simulator.clear()
firebase_admin.initialize_app(credentials.Certificate(simulator.file("fcm-service-account.json")))


def message(**target):
    return messaging.Message(
        notification=messaging.Notification(title="hello", body="from firebase-admin"),
        data={"key": "value"},
        android=messaging.AndroidConfig(
            ttl=60, notification=messaging.AndroidNotification(color="#00ff00")
        ),
        apns=messaging.APNSConfig(headers={"apns-priority": "10"}),
        **target,
    )


assert messaging.send(message(token="device-1")).startswith(f"projects/{simulator.PROJECT}/messages/")
batch = messaging.send_each([message(token="device-2"), message(token="UNREGISTERED-1"), message(topic="news")])
assert [one.success for one in batch.responses] == [True, False, True], batch.responses
assert isinstance(batch.responses[1].exception, messaging.UnregisteredError), batch.responses[1].exception
try:
    wrong = messaging.APNSConfig(headers={"apns-priority": "loud"})
    messaging.send(messaging.Message(token="device-3", apns=wrong))
    raise AssertionError("a header that Apple would refuse was taken")
except exceptions.InvalidArgumentError:
    pass

sent = simulator.received("fcm")
assert len(sent) == 5, sent
first = json.loads(sent[0]["body"])["message"]
assert (first["token"], first["android"]["ttl"]) == ("device-1", "60s"), first
assert all(one["status"] == 200 for one in simulator.received("oauth"))
simulator.ok("firebase-admin for Python")

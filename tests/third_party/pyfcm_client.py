"""PyPI's pyfcm."""

import json

import simulator
from pyfcm import FCMNotification, errors

simulator.clear()
service_account = simulator.file("fcm-service-account.json")
client = FCMNotification(service_account_file=service_account, project_id=simulator.PROJECT)
hello = {"notification_title": "hello", "notification_body": "from pyfcm"}
answer = client.notify(fcm_token="device-1", data_payload={"key": "value"}, **hello)
assert answer["name"].startswith(f"projects/{simulator.PROJECT}/messages/"), answer
client.notify(topic_name="news", **hello)
try:
    client.notify(fcm_token="UNREGISTERED-1", **hello)
    raise AssertionError("a dead token was taken")
except errors.FCMError:
    pass

sent = simulator.received("fcm")
assert [one["status"] for one in sent] == [200, 200, 404], sent
message = json.loads(sent[0]["body"])["message"]
assert message["notification"] == {"title": "hello", "body": "from pyfcm"}, message
assert all(one["status"] == 200 for one in simulator.received("oauth"))
simulator.ok("pyfcm")

"""What the Python clients' scripts share: where the simulator is, and what it received."""

import json
import os
import sys
import urllib.request

DIRECTORY, CONTROL = sys.argv[1:3]
DEVICE = "00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9"
DEAD = "dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9"
TOPIC = "com.example.app"
KEY_ID, TEAM_ID = "SIMKEY0001", "SIMTEAM001"
PROJECT = "pushlet-simulator"


def file(name):
    return os.path.join(DIRECTORY, name)


def clear():
    urllib.request.urlopen(urllib.request.Request(f"{CONTROL}/received", method="DELETE")).close()


def received(service):
    with urllib.request.urlopen(f"{CONTROL}/received?service={service}&limit=1000") as response:
        return json.load(response)["received"]


def check_apns(production, alert):
    """One push arrived at the device and one at the dead token, in this environment."""
    pushes = received("apns")
    environment = "production" if production else "development"
    assert [push["environment"] for push in pushes] == [environment] * 2, pushes
    assert {push["token"]: push["status"] for push in pushes} == {DEVICE: 200, DEAD: 410}, pushes
    for push in pushes:
        assert json.loads(push["body"])["aps"]["alert"] == alert, push


def ok(what):
    print(f"ok - {what}", flush=True)

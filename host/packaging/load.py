#!/usr/bin/env python3
"""Pushes on every route, through the providers of Apple and Google, to a server whose push services are the simulators: what `profile.sh`
counts the code of. Each of them must be delivered.

usage: load.py URL FOLDER SECONDS [APPLICATION...]
FOLDER: of the simulator. SECONDS: for each route and application. APPLICATION: one of those below; none: all of them.
"""

import http.client
import json
import pathlib
import sys
import time
import urllib.parse
import uuid
from concurrent.futures import ThreadPoolExecutor

CALLERS = 16
TARGETS = 100
LINES = 1000
OK = b'{"response":"ok"}'
DELIVERED = b'"status":"delivered"'
FORM = "application/x-www-form-urlencoded"
ALERT = {"alert": "Your order is on its way"}
# Of each: its fields, those that are files of the simulator, what a push on the classic route says, how it is answered.
APPLICATIONS = {
    "token": (
        {"apns_key_id": "SIMKEY0001", "apns_team_id": "SIMTEAM001", "apns_topic": "com.example.app"},
        {"apns_p8": "apns.p8"},
        ALERT,
        OK,
    ),
    "certificate": ({}, {"apns_p12": "apns.p12"}, ALERT, OK),
    "fcm": ({}, {"fcm_service_account": "fcm-service-account.json"}, ALERT, OK),
    "gcm": ({"gcm_api_key": "key"}, {}, {"data": '{"text":"Your order is on its way"}'}, b'"success":1'),
}


class Server:
    def __init__(self, url):
        self.address = urllib.parse.urlsplit(url).netloc

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=60)

    def wait_until_ready(self):
        for _ in range(600):
            try:
                connection = self.connect()
                connection.request("GET", "/readyz")
                if connection.getresponse().status == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        sys.exit("the server does not become ready")

    def read_metrics(self):
        """As whatever watches a server does, so that this does not lie among what nobody uses either."""
        connection = self.connect()
        connection.request("GET", "/metrics")
        response = connection.getresponse()
        if response.status != 200 or not response.read():
            sys.exit("there are no metrics")

    def register(self, application, fields, files):
        boundary = uuid.uuid4().hex
        parts = [(name, value.encode()) for name, value in {"application_id": application, **fields}.items()]
        parts += [(name, path.read_bytes()) for name, path in files.items()]
        body = b"".join(
            f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'.encode() + value + b"\r\n"
            for name, value in parts
        )
        body += f"--{boundary}--\r\n".encode()
        kind = f"multipart/form-data; boundary={boundary}"
        send(self.connect(), "/register_application", kind, body, b'"application_id"', 1)

    def repeat(self, seconds, path, *request):
        """Sends the same again and again, by several callers. Returns how often. `request`: see `send`."""
        end = time.monotonic() + seconds

        def call(_):
            connection, count = self.connect(), 0
            while time.monotonic() < end:
                send(connection, path, *request)
                count += 1
            return count

        with ThreadPoolExecutor(CALLERS) as callers:
            return sum(callers.map(call, range(CALLERS)))


def send(connection, path, kind, body, accepted, times):
    """`accepted`: stands in the response so many `times` if all went well."""
    connection.request("POST", path, body, {"content-type": kind})
    response = connection.getresponse()
    text = response.read()
    if response.status != 200 or text.count(accepted) != times:
        raise RuntimeError(f"{path}: {response.status} {text[:500]!r}")


def device(number):
    return f"{number + 1:064x}"


def main(url, folder, seconds, applications):
    server = Server(url)
    server.wait_until_ready()
    for application in applications or APPLICATIONS:
        fields, files, message, accepted = APPLICATIONS[application]
        server.register(application, fields, {name: pathlib.Path(folder) / file for name, file in files.items()})
        form = urllib.parse.urlencode({"application_id": application, "device_token": device(0), **message})
        count = server.repeat(seconds, "/send_notification", FORM, form, accepted, 1)
        print(f"{application}: {count} pushes", flush=True)
        send_many(server, seconds, application)
    server.read_metrics()


def send_many(server, seconds, application):
    head = {"application_id": application, "notification": {"title": "Hello", "body": "Your order is on its way"}}
    batch = json.dumps({**head, "targets": [device(number) for number in range(TARGETS)]})
    count = server.repeat(seconds, "/v1/notifications", "application/json", batch, DELIVERED, TARGETS)
    lines = [json.dumps(head)] + [json.dumps({"target": device(number)}) for number in range(LINES)]
    text = "\n".join(lines) + "\n"
    kind = "application/x-ndjson"
    streams = server.repeat(seconds / 4, "/v1/notifications:stream", kind, text, DELIVERED, LINES)
    print(f"{application}: {count} requests with {TARGETS} targets, {streams} streams of {LINES}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4:])

"""A gateway sends Web Push messages to a service that reads them with PyPI's http_ece and py_vapid, which share nothing
with Pushlet.

usage: gateway_webpush.py SIMULATOR_DIR PUSHLET
"""

import base64
import http.server
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.request

import http_ece
import py_vapid
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

DIRECTORY, PUSHLET = sys.argv[1:3]
SERVICE_PORT, GATEWAY_PORT = 9553, 9554
GATEWAY = f"http://127.0.0.1:{GATEWAY_PORT}"
received = []


def b64(data):
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Service(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        received.append((self.path, dict(self.headers.items()), body))
        self.send_response(201)
        self.send_header("location", f"/m/{len(received)}")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


class Browser:
    """A subscription."""

    def __init__(self, number):
        self.path = f"/push/{number}"
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = os.urandom(16)

    def target(self):
        point = self.key.public_key().public_bytes(
            serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint
        )
        return {
            "url": f"https://127.0.0.1:{SERVICE_PORT}{self.path}",
            "options": {"p256dh": b64(point), "auth": b64(self.auth)},
        }

    def read(self, body):
        return http_ece.decrypt(body, private_key=self.key, auth_secret=self.auth, version="aes128gcm")


def serve():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", SERVICE_PORT), Service)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(os.path.join(DIRECTORY, "server.pem"))
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def start():
    config = os.path.join(DIRECTORY, "webpush.toml")
    with open(config, "w") as file:
        file.write(f'listen = "127.0.0.1:{GATEWAY_PORT}"\n')
        file.write(f'endpoints.webpush.production = "https://127.0.0.1:{SERVICE_PORT}"\n')
        file.write(f"tls.extra_roots = [{json.dumps(os.path.join(DIRECTORY, 'ca.pem'))}]\n")
    gateway = subprocess.Popen([PUSHLET, "serve", "--config", config])
    for _ in range(600):
        try:
            urllib.request.urlopen(f"{GATEWAY}/healthz").close()
            return gateway
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the gateway did not start")


def call(method, path, body):
    request = urllib.request.Request(
        GATEWAY + path, json.dumps(body).encode(), {"content-type": "application/json"}, method=method
    )
    with urllib.request.urlopen(request) as response:
        return json.load(response)


def main():
    serve()
    gateway = start()
    try:
        key = os.path.join(DIRECTORY, "vapid.key")
        public = subprocess.check_output([PUSHLET, "vapid-key", key], text=True).strip()
        with open(key) as file:
            credentials = {"vapid_private_key": file.read()}
        settings = {"vapid_subject": "mailto:push@example.com"}
        registration = {"provider": "webpush", "settings": settings, "credentials": credentials}
        call("PUT", "/v1/applications/web", registration)
        browsers = {browser.path: browser for browser in map(Browser, range(50))}
        targets = [browser.target() for browser in browsers.values()]
        notification = {"title": "Grüße", "body": "Order 7 中", "ttl": 60}
        body = {"application_id": "web", "notification": notification, "targets": targets}
        results = call("POST", "/v1/notifications", body)["results"]
        assert [result["status"] for result in results] == ["delivered"] * 50, results
        assert sorted(path for path, _, _ in received) == sorted(browsers), "each once"
        for path, headers, body in received:
            message = json.loads(browsers[path].read(body))
            assert message == {"notification": {"title": "Grüße", "body": "Order 7 中"}}, message
            headers = {name.lower(): value for name, value in headers.items()}
            assert headers["content-encoding"] == "aes128gcm" and headers["ttl"] == "60", headers
        print("ok - PyPI http_ece reads what 50 subscriptions got, each with its own key", flush=True)

        authorization = headers["authorization"]
        # It splits at the last blank, and the example of RFC 8292 has one between the parameters, as ours has.
        assert py_vapid.Vapid02.verify(authorization.replace(", ", ",")), authorization
        assert f"k={public}" in authorization.replace(" ", ""), authorization
        claims = authorization.split("t=")[1].split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        assert claims["aud"] == f"https://127.0.0.1:{SERVICE_PORT}", claims
        print("ok - PyPI py_vapid verifies the token", flush=True)
    finally:
        gateway.terminate()
        gateway.wait()


main()

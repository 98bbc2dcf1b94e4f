"""PyPI's apns2-up, of the line of PyAPNs2."""

import simulator
from apns2.client import APNsClient
from apns2.credentials import CertificateCredentials, TokenCredentials
from apns2.errors import Unregistered
from apns2.payload import Payload


def check(name, production, credentials):
    simulator.clear()
    client = APNsClient(credentials, use_sandbox=not production)
    hello = Payload(alert="hello from apns2", badge=3)
    client.send_notification(simulator.DEVICE, hello, simulator.TOPIC)
    try:
        client.send_notification(simulator.DEAD, hello, simulator.TOPIC)
        raise AssertionError("a dead token was taken")
    except Unregistered:
        pass
    simulator.check_apns(production, "hello from apns2")
    simulator.ok(f"apns2-up with {name}{' in production' if production else ''}")


for production in (False, True):
    key = TokenCredentials(simulator.file("apns.p8"), simulator.KEY_ID, simulator.TEAM_ID)
    check("a provider token", production, key)
    check("a certificate", production, CertificateCredentials(simulator.file("apns.pem")))

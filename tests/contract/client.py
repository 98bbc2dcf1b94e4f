"""Sends with the generated client. usage: client.py URL DIRECTORY_OF_THE_SIMULATOR"""

import json
import sys
from pathlib import Path
from urllib.request import urlopen

from generated_pushlet import Client
from generated_pushlet.api.applications import get_application, put_application
from generated_pushlet.api.classic import send_notification
from generated_pushlet.api.notifications import send_notifications
from generated_pushlet.api.providers import list_providers
from generated_pushlet.models import Credentials, Notification, Registration, Send, SendJson, Settings

DEVICE = "00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9"
DEAD = "dead" + DEVICE[4:]


def main(url: str, simulator: Path) -> None:
    client = Client(base_url=url, raise_on_unexpected_status=True)
    names = [provider.name for provider in list_providers.sync(client=client).providers]
    assert names == ["apns", "apns-binary", "fcm", "gcm", "hms", "smpp", "webpush"], names

    registration = Registration(
        provider="apns",
        settings=Settings(apns_key_id="SIMKEY0001", apns_team_id="SIMTEAM001", apns_topic="com.example.app"),
        credentials=Credentials(apns_p8=(simulator / "apns.p8").read_text()),
    )
    application = put_application.sync("from-a-client", client=client, body=registration)
    assert application.credential.credential == "token", application
    assert get_application.sync("from-a-client", client=client) == application

    notification = Notification(title="Order 7", body="On its way", interruption_level="time-sensitive")
    send = Send(application_id="from-a-client", notification=notification, targets=[DEVICE, DEAD])
    answer = send_notifications.sync(client=client, body=send)
    assert [result.status for result in answer.results] == ["delivered", "unregistered"], answer
    assert (answer.summary.total, answer.summary.delivered) == (2, 1), answer

    wrong = Send(application_id="nobody", notification=notification, targets=[DEVICE])
    refused = send_notifications.sync(client=client, body=wrong)
    assert refused.error == "application_not_found", refused

    accepted = send_notification.sync(
        client=client, body=SendJson(device_token=DEVICE, application_id="from-a-client", alert="hello")
    )
    assert accepted.response == "ok", accepted

    received = json.load(urlopen("http://127.0.0.1:9445/received?service=apns&limit=10"))
    text = json.dumps(received)
    assert "Order 7" in text and "time-sensitive" in text, text
    print(f"the generated client sent to {answer.summary.total} devices, and was told the truth about each")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))

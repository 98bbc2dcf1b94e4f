"""PyPI's aioapns."""

import asyncio

import simulator
from aioapns import APNs, NotificationRequest, PushType


async def check(name, production, **credential):
    simulator.clear()
    apns = APNs(use_sandbox=not production, max_connections=1, **credential)
    results = {}
    for token in (simulator.DEVICE, simulator.DEAD):
        message = {"aps": {"alert": "hello from aioapns"}}
        request = NotificationRequest(device_token=token, message=message, push_type=PushType.ALERT)
        results[token] = await apns.send_notification(request)
    assert results[simulator.DEVICE].is_successful, vars(results[simulator.DEVICE])
    dead = results[simulator.DEAD]
    assert (str(dead.status), dead.description) == ("410", "Unregistered"), vars(dead)
    simulator.check_apns(production, "hello from aioapns")
    simulator.ok(f"aioapns with {name}{' in production' if production else ''}")


async def main():
    with open(simulator.file("apns.p8")) as file:
        p8 = file.read()
    for production in (False, True):
        key = {"key": p8, "key_id": simulator.KEY_ID, "team_id": simulator.TEAM_ID}
        await check("a provider token", production, topic=simulator.TOPIC, **key)
        await check("a certificate", production, client_cert=simulator.file("apns.pem"))


asyncio.run(main())

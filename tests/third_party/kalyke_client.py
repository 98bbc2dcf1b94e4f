"""PyPI's kalyke-apns."""

import asyncio

import simulator
from kalyke import ApnsClient, ApnsConfig, Payload, VoIPApnsConfig, VoIPCertificateClient
from kalyke.exceptions import Unregistered


async def check(production):
    simulator.clear()
    client = ApnsClient(
        use_sandbox=not production,
        team_id=simulator.TEAM_ID,
        auth_key_id=simulator.KEY_ID,
        auth_key_filepath=simulator.file("apns.p8"),
    )
    hello = Payload(alert="hello from kalyke", badge=3)
    config = ApnsConfig(topic=simulator.TOPIC)
    assert await client.send_message(simulator.DEVICE, hello, config)
    try:
        await client.send_message(simulator.DEAD, hello, config)
        raise AssertionError("a dead token was taken")
    except Unregistered:
        pass
    simulator.check_apns(production, "hello from kalyke")
    simulator.ok(f"kalyke-apns with a provider token{' in production' if production else ''}")


async def check_voip():
    simulator.clear()
    client = VoIPCertificateClient(use_sandbox=True, auth_key_filepath=simulator.file("apns-voip.pem"))
    config = VoIPApnsConfig(topic=f"{simulator.TOPIC}.voip")
    assert await client.send_message(simulator.DEVICE, {"caller": "Ada"}, config)
    [push] = simulator.received("apns")
    assert push["status"] == 200 and push["client_certificate"], push
    simulator.ok("kalyke-apns with a VoIP certificate")


async def main():
    for production in (False, True):
        await check(production)
    await check_voip()


asyncio.run(main())

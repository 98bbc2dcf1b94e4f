"""Needs the bindings of componentize-py in the search path."""

import unittest

import pushlet_provider as sdk
from wit_world.exports import codec
from wit_world.imports import types

NOW = 1_700_000_000_000


def response(status, *headers):
    return codec.Response(status, list(headers), b"")


class Tests(unittest.TestCase):
    def test_a_status_says_what_became_of_a_target(self):
        def of(status, **more):
            return sdk.outcome_of(response(status, ("retry-after", "2")), NOW, **more).disposition

        self.assertEqual(of(204), types.Disposition_Delivered())
        self.assertEqual(of(404), types.Disposition_Rejected())
        self.assertEqual(of(404, gone=(404, 410)), types.Disposition_Unregistered(None))
        self.assertEqual(of(401), types.Disposition_CredentialRejected(types.CredentialFault.REFUSED))
        self.assertEqual(of(429), types.Disposition_Throttled(types.Throttle(types.Scope.APPLICATION, 2000)))
        self.assertEqual(of(503), types.Disposition_Unavailable(2000))
        self.assertEqual(of(302), types.Disposition_Unknown())
        self.assertEqual(sdk.outcome_of(response(400), NOW, code="bad").code, "bad")

    def test_a_time_to_wait_is_in_milliseconds(self):
        def of(value):
            return sdk.retry_after(response(503, ("retry-after", value)), NOW)

        self.assertEqual(of("120"), 120_000)
        self.assertEqual(of("Tue, 14 Nov 2023 22:15:20 GMT"), 120_000)
        self.assertEqual(of("Tue, 14 Nov 2023 22:00:00 GMT"), 0)
        for value in ["", "-1", "1.5", "soon", "9" * 20, "²"]:
            self.assertIsNone(of(value), value)
        self.assertIsNone(sdk.retry_after(response(503), NOW))

    def test_only_an_object_is_one(self):
        self.assertEqual(sdk.json_object(b'{"a":1}'), {"a": 1})
        deep = b"[" * 5000 + b"]" * 5000
        for body in [b"", b"null", b"[]", b"1", b'"a"', b'{"a":', b"\xff", deep, b'{"a":' + deep + b"}"]:
            self.assertEqual(sdk.json_object(body), {}, body[:20])

    def test_a_segment_stays_in_its_place(self):
        self.assertEqual(sdk.segment("../é?"), "%2E%2E%2F%C3%A9%3F")

    def test_what_a_manifest_is_made_of(self):
        [production, development] = sdk.endpoints("push", "https://a.example", "https://b.example")
        self.assertEqual((production.origin.value, development.origin.value), ("https://a.example", "https://b.example"))
        self.assertEqual(development.environment, types.Environment.DEVELOPMENT)
        credential = sdk.secret("token", "acme_token", "The token.")
        self.assertEqual(credential.authentication.value[0], "acme_token")


if __name__ == "__main__":
    unittest.main()

import json
import sys
import unittest

sys.path.insert(0, "bindings")

import app
from wit_world.exports import codec
from wit_world.imports import types


def response(status):
    return codec.Response(status, [("retry-after", "2")], b"")


class Tests(unittest.TestCase):
    def test_answers_become_outcomes(self):
        def of(status):
            return app.outcome(response(status), 0).disposition

        self.assertEqual(of(200), types.Disposition_Delivered())
        self.assertEqual(of(410), types.Disposition_Unregistered(None))
        self.assertEqual(of(400), types.Disposition_Rejected())
        self.assertEqual(of(503), types.Disposition_Unavailable(2000))
        self.assertEqual(of(302), types.Disposition_Unknown())

    def test_a_text_stays_in_its_place(self):
        self.assertEqual(app.segment("../é?"), "%2E%2E%2F%C3%A9%3F")

    def test_the_example_names_its_settings(self):
        example = app.Manifest().describe().examples[0]
        self.assertIn("title", json.loads(example.notification))


if __name__ == "__main__":
    unittest.main()

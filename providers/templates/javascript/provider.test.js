import assert from "node:assert/strict";
import test from "node:test";
import { codec, manifest, outcome } from "./provider.js";
import { text, utf8 } from "./text.js";

test("answers become outcomes", () => {
  const of = (status) => outcome({ status, headers: [["retry-after", "2"]], body: utf8("") }, 0).disposition;
  assert.equal(of(200).tag, "delivered");
  assert.equal(of(410).tag, "unregistered");
  assert.equal(of(400).tag, "rejected");
  assert.deepEqual(of(503), { tag: "unavailable", val: 2000 });
  assert.equal(of(302).tag, "unknown");
});

test("the example is encoded", () => {
  const [example] = manifest.describe().examples;
  const notification = { alert: { title: "Hello", body: "Wörld 🎉" }, options: [["pinned", "true"]] };
  const recipients = [example.target, "../a"].map((val) => ({ target: { tag: "device", val }, options: [] }));
  const encoded = codec.encode({ now: 0 }, { settings: example.settings }, notification, recipients);
  assert.deepEqual(encoded.exchanges.map(({ path }) => path), ["/v1/news/device-1", "/v1/news/%2E%2E%2Fa"]);
  assert.deepEqual(JSON.parse(text(encoded.messages[0].body)), { title: "Hello", text: "Wörld 🎉", pinned: true });
});

import assert from "node:assert/strict";
import test from "node:test";
import * as sdk from "./index.js";

const response = (status, headers = []) => ({ status, headers, body: sdk.utf8("") });

test("a status says what became of a target", () => {
  const of = (status, more) => sdk.outcomeOf(response(status, [["retry-after", "2"]]), 0, more).disposition;
  assert.deepEqual(of(204), { tag: "delivered" });
  assert.deepEqual(of(404), { tag: "rejected" });
  assert.deepEqual(of(404, { gone: [404, 410] }), { tag: "unregistered", val: undefined });
  assert.deepEqual(of(401), { tag: "credential-rejected", val: "refused" });
  assert.deepEqual(of(429), { tag: "throttled", val: { scope: "application", retryAfter: 2000 } });
  assert.deepEqual(of(503), { tag: "unavailable", val: 2000 });
  assert.deepEqual(of(302), { tag: "unknown" });
  assert.equal(sdk.outcomeOf(response(400), 0, { code: "bad" }).code, "bad");
});

test("a time to wait is in milliseconds", () => {
  const of = (value) => sdk.retryAfter(response(503, [["retry-after", value]]), Date.UTC(2023, 10, 14, 22, 13, 20));
  assert.equal(of("120"), 120_000);
  assert.equal(of("Tue, 14 Nov 2023 22:15:20 GMT"), 120_000);
  assert.equal(of("Tue, 14 Nov 2023 22:00:00 GMT"), 0);
  for (const value of ["", "-1", "1.5", "soon", "9".repeat(20)]) assert.equal(of(value), undefined);
  assert.equal(sdk.retryAfter(response(503), 0), undefined);
});

test("UTF-8 is that of Node.js", () => {
  const every = Array.from({ length: 0x110000 }, (_, code) => String.fromCodePoint(code)).join("");
  assert.deepEqual(sdk.utf8(every), new TextEncoder().encode(every));
  const sound = every.toWellFormed();
  assert.equal(sdk.text(new TextEncoder().encode(sound)), sound);
  assert.throws(() => sdk.text(Uint8Array.of(0xff)));
});

test("only an object is one", () => {
  assert.deepEqual(sdk.json(sdk.utf8('{"a":1}')), { a: 1 });
  const deep = "[".repeat(5000) + "]".repeat(5000);
  for (const body of ["", "null", "[]", "1", '"a"', '{"a":', deep, `{"a":${deep}}`]) {
    assert.deepEqual(sdk.json(sdk.utf8(body)), {}, body.slice(0, 20));
  }
  assert.deepEqual(sdk.json(Uint8Array.of(0xff)), {});
});

test("a segment stays in its place", () => {
  assert.equal(sdk.segment("../é?"), "%2E%2E%2F%C3%A9%3F");
  assert.equal(sdk.segment("\ud800"), "%EF%BF%BD");
});

test("settings and options are found by name", () => {
  assert.equal(sdk.setting({ settings: [["a", "1"]] }, "a"), "1");
  assert.equal(sdk.setting({ settings: [] }, "a"), undefined);
  assert.equal(sdk.option({ options: [["pinned", "true"]] }, "pinned"), true);
  assert.equal(sdk.option({ options: [] }, "pinned"), undefined);
});

// The types are held against the contract by name: a record or case that the contract has and the types lack is found.
test("the types have every name of the contract", async () => {
  const { readFile } = await import("node:fs/promises");
  const wit = await readFile(new URL("../../wit/provider.wit", import.meta.url), "utf8");
  const types = await readFile(new URL("index.d.ts", import.meta.url), "utf8");
  const camel = (name) => name.replace(/-(.)/g, (_, letter) => letter.toUpperCase());
  const pascal = (name) => camel(`-${name}`);
  let seen = 0;
  for (const part of ["types", "manifest", "codec"]) {
    const body = wit.split(`interface ${part} {`)[1].split("\n}\n")[0].replace(/\/\/\/.*/g, "");
    for (const [, kind, name, content] of body.matchAll(/\b(record|enum|variant) ([\w-]+) \{([^}]*)\}/g)) {
      const start = kind === "record" ? `export interface ${pascal(name)} {` : `export type ${pascal(name)} =`;
      const declared = types.split(start)[1]?.split(kind === "record" ? "\n}" : ";\n")[0];
      assert.ok(declared !== undefined, `${kind} ${name}`);
      const names = kind === "record" ? [...content.matchAll(/([\w-]+):/g)] : [...content.matchAll(/([a-z][\w-]*)(?:\([^)]*\))?,?/g)];
      for (const [, member] of names) {
        const wanted = kind === "record" ? new RegExp(`\\b${camel(member)}\\??: `) : new RegExp(`"${member}"`);
        assert.match(declared, wanted, `${name}.${member}`);
        seen++;
      }
    }
  }
  assert.ok(seen > 200, `${seen} names`);
});

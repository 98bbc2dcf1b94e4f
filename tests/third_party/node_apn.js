// Sends through the simulator with @parse/node-apn: a client that shares nothing with Pushlet.
// usage: node node_apn.js SIMULATOR_DIR CONTROL_URL
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');

const modules = process.env.THIRD_PARTY_MODULES || path.join(__dirname, 'node_modules');
const apn = require(path.join(modules, '@parse/node-apn'));
const [directory, control] = process.argv.slice(2);
const file = (name) => fs.readFileSync(path.join(directory, name));

const DEVICE = '00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';
const DEAD = 'dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';

function provider(credential, production) {
  return new apn.Provider({ production, requestTimeout: 5000, ...credential });
}

function notification(alert) {
  const note = new apn.Notification();
  note.alert = alert;
  note.badge = 3;
  note.sound = 'ding.aiff';
  note.topic = 'com.example.app';
  note.pushType = 'alert';
  note.payload = { key: [1, 2] };
  return note;
}

async function received() {
  const response = await fetch(`${control}/received?service=apns&limit=1000`);
  return (await response.json()).received;
}

async function check(name, credential, production) {
  await fetch(`${control}/received`, { method: 'DELETE' });
  const sender = provider(credential, production);
  const result = await sender.send(notification(`hello from ${name}`), [DEVICE, DEAD]);
  await sender.shutdown();
  assert.deepStrictEqual(result.sent.map((sent) => sent.device), [DEVICE], JSON.stringify(result));
  assert.strictEqual(result.failed.length, 1, JSON.stringify(result));
  assert.strictEqual(String(result.failed[0].status), '410', JSON.stringify(result));
  assert.strictEqual(result.failed[0].response.reason, 'Unregistered');
  const pushes = await received();
  assert.strictEqual(pushes.length, 2);
  for (const push of pushes) assert.strictEqual(push.environment, production ? 'production' : 'development');
  const push = pushes.find((one) => one.token === DEVICE);
  assert.deepStrictEqual(JSON.parse(push.body), {
    aps: { alert: `hello from ${name}`, badge: 3, sound: 'ding.aiff' },
    key: [1, 2],
  });
  console.log(`ok - @parse/node-apn with ${name}${production ? ' in production' : ''}`);
}

(async () => {
  for (const production of [false, true]) {
    await check('a provider token', { token: { key: file('apns.p8'), keyId: 'SIMKEY0001', teamId: 'SIMTEAM001' } }, production);
    await check('a certificate', { cert: file('apns.pem'), key: file('apns.pem') }, production);
    await check('a PKCS#12 file', { pfx: file('apns.p12'), passphrase: '' }, production);
  }
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

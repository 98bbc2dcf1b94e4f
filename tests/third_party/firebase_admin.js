// Sends through the simulator with npm's firebase-admin: Google's own client.
// usage: node firebase_admin.js SIMULATOR_DIR CONTROL_URL
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');

const modules = process.env.THIRD_PARTY_MODULES || path.join(__dirname, 'node_modules');
const { initializeApp, cert } = require(path.join(modules, 'firebase-admin/lib/app'));
const { getMessaging } = require(path.join(modules, 'firebase-admin/lib/messaging'));
const [directory, control] = process.argv.slice(2);

async function received(service) {
  const response = await fetch(`${control}/received?service=${service}&limit=1000`);
  return (await response.json()).received;
}

(async () => {
  await fetch(`${control}/received`, { method: 'DELETE' });
  const account = JSON.parse(fs.readFileSync(path.join(directory, 'fcm-service-account.json')));
  const messaging = getMessaging(initializeApp({ credential: cert(account) }));

  const message = {
    notification: { title: 'hello', body: 'from firebase-admin' },
    data: { key: 'value' },
    android: { priority: 'high', ttl: 60000, notification: { color: '#00ff00' } },
    apns: { headers: { 'apns-priority': '10' }, payload: { aps: { badge: 3 } } },
    fcmOptions: { analyticsLabel: 'label' },
  };
  const id = await messaging.send({ token: 'device-1', ...message });
  assert.match(id, /^projects\/pushlet-simulator\/messages\/./);
  const batch = await messaging.sendEach([
    { token: 'device-2', ...message },
    { token: 'UNREGISTERED-1', ...message },
    { topic: 'news', ...message },
  ]);
  assert.deepStrictEqual(batch.responses.map((one) => one.success), [true, false, true], JSON.stringify(batch));
  assert.strictEqual(batch.responses[1].error.code, 'messaging/registration-token-not-registered');
  await assert.rejects(
    messaging.send({ token: 'device-3', fcmOptions: { analyticsLabel: 'a'.repeat(51) } }),
    (error) => error.code === 'messaging/invalid-argument',
  );

  const sent = await received('fcm');
  assert.strictEqual(sent.length, 5);
  const first = JSON.parse(sent[0].body).message;
  assert.strictEqual(first.token, 'device-1');
  assert.deepStrictEqual(first.notification, message.notification);
  assert.strictEqual(first.android.ttl, '60s');
  assert.ok((await received('oauth')).every((one) => one.status === 200));
  console.log('ok - firebase-admin for Node.js');
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

// A gateway sends text messages through the SMPP server of npm's smpp, which shares nothing with Pushlet.
// usage: node gateway_smpp.js SIMULATOR_DIR PUSHLET
'use strict';
const assert = require('node:assert');
const { spawn } = require('node:child_process');
const fs = require('node:fs');
const path = require('node:path');

const modules = process.env.THIRD_PARTY_MODULES || path.join(__dirname, 'node_modules');
const smpp = require(path.join(modules, 'smpp'));
const [directory, pushlet] = process.argv.slice(2);
const SERVER_PORT = 9551;
const GATEWAY_PORT = 9552;

const received = [];
const commands = [];

function serve() {
  const pem = fs.readFileSync(path.join(directory, 'server.pem'));
  const server = smpp.createServer({ key: pem, cert: pem }, (session) => {
    session.on('pdu', (pdu) => commands.push(pdu.command));
    session.on('bind_transmitter', (pdu) => {
      const wrong = pdu.system_id !== 'pushlet' || pdu.password !== 'secret';
      session.send(pdu.response(wrong ? { command_status: smpp.ESME_RBINDFAIL } : { system_id: 'third' }));
    });
    session.on('submit_sm', (pdu) => {
      received.push(pdu);
      const bad = pdu.destination_addr === '4900';
      const answer = bad ? { command_status: smpp.ESME_RINVDSTADR } : { message_id: `m${received.length}` };
      session.send(pdu.response(answer));
    });
    session.on('enquire_link', (pdu) => session.send(pdu.response()));
    session.on('unbind', (pdu) => {
      session.send(pdu.response());
      session.close();
    });
    session.on('error', () => {});
  });
  return new Promise((resolve) => server.listen(SERVER_PORT, '127.0.0.1', () => resolve(server)));
}

async function start() {
  const config = path.join(directory, 'smpp.toml');
  fs.writeFileSync(config, `listen = "127.0.0.1:${GATEWAY_PORT}"
endpoints.smpp.production = "https://127.0.0.1:${SERVER_PORT}"
tls.extra_roots = [${JSON.stringify(path.join(directory, 'ca.pem'))}]
`);
  const gateway = spawn(pushlet, ['serve', '--config', config], { stdio: 'inherit' });
  for (let turn = 0; turn < 600; turn += 1) {
    const response = await fetch(`http://127.0.0.1:${GATEWAY_PORT}/healthz`).catch(() => null);
    if (response && response.ok) return gateway;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error('the gateway did not start');
}

async function post(where, body) {
  const url = `http://127.0.0.1:${GATEWAY_PORT}${where}`;
  const headers = { 'content-type': 'application/json' };
  const response = await fetch(url, { method: 'POST', headers, body: JSON.stringify(body) });
  return response.json();
}

async function send(text, numbers) {
  const answer = await post('/v1/notifications', { application_id: 'sms', notification: { body: text }, targets: numbers });
  return answer.results.map((result) => result.status);
}

(async () => {
  const server = await serve();
  const gateway = await start();
  try {
    const registered = await post('/register_application', {
      application_id: 'sms', smpp_system_id: 'pushlet', smpp_password: 'secret', smpp_source_address: 'Pushlet',
    });
    assert.strictEqual(registered.application_id, 'sms', JSON.stringify(registered));
    const text = 'Hello {€} @ Ünit_1';
    assert.deepStrictEqual(await send(text, ['+49170000001', '+4900']), ['delivered', 'rejected']);
    const first = received.find((pdu) => pdu.destination_addr === '49170000001');
    assert.strictEqual(first.short_message.message, text);
    assert.deepStrictEqual([first.source_addr, first.source_addr_ton, first.dest_addr_ton], ['Pushlet', 5, 1]);
    console.log('ok - npm smpp reads a text of the GSM alphabet, and its statuses become results');

    received.length = 0;
    assert.deepStrictEqual(await send('Grüße 中', ['+49170000001']), ['delivered']);
    assert.strictEqual(received[0].short_message.message, 'Grüße 中');
    console.log('ok - npm smpp reads a text in UCS-2');

    received.length = 0;
    const long = 'Long € '.repeat(60);
    assert.deepStrictEqual(await send(long, ['+49170000001']), ['delivered']);
    assert.strictEqual(received.map((pdu) => pdu.short_message.message).join(''), long);
    assert.ok(received.length > 1 && received.every((pdu) => pdu.short_message.udh));
    console.log('ok - npm smpp reads a long text in parts');

    const many = Array.from({ length: 500 }, (_, number) => `+4917000${String(number).padStart(5, '0')}`);
    received.length = 0;
    assert.ok((await send('x', many)).every((status) => status === 'delivered'));
    assert.strictEqual(new Set(received.map((pdu) => pdu.destination_addr)).size, 500);
    assert.strictEqual(received.length, 500);
    console.log('ok - npm smpp gets each of 500 messages once');
  } finally {
    gateway.kill('SIGTERM');
    await new Promise((resolve) => gateway.once('exit', resolve));
    server.close();
  }
  assert.ok(commands.includes('unbind'), 'the gateway did not take its leave');
  console.log('ok - npm smpp sees the gateway unbind');
  process.exit(0);
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

// As small as a push server in Node can be: HTTP in, @parse/node-apn out. For node_apn.toml.
// usage: node node_apn.js PORT APNS_PORT CA KEY TOPIC
'use strict';
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');

const modules = process.env.THIRD_PARTY_MODULES || path.join(__dirname, 'node_modules');
const apn = require(path.join(modules, '@parse/node-apn'));
const [port, apns, ca, key, topic] = process.argv.slice(2);

const provider = new apn.Provider({
  token: { key: fs.readFileSync(key), keyId: 'ABC123DEFG', teamId: 'DEF123GHIJ' },
  address: '127.0.0.1',
  port: Number(apns),
  ca: [fs.readFileSync(ca)],
  production: true,
});

async function send(body) {
  const { token, message } = JSON.parse(body);
  const note = new apn.Notification();
  note.alert = message;
  note.topic = topic;
  note.pushType = 'alert';
  const { sent } = await provider.send(note, token);
  return sent.length === 1;
}

const server = http.createServer((request, response) => {
  const parts = [];
  request.on('data', (part) => parts.push(part));
  request.on('end', async () => {
    const delivered = await send(Buffer.concat(parts)).catch(() => false);
    response.writeHead(delivered ? 200 : 502, { 'content-type': 'application/json' });
    response.end(JSON.stringify({ delivered }));
  });
});
server.listen(Number(port), '127.0.0.1');

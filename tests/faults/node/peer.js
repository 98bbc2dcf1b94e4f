// An HTTP/2 server on Node's own implementation that misbehaves: GOAWAY, refused and reset streams, other
// limits, cut sessions. Arguments: key and certificate files, a seed. It prints its port; on a line of input it
// prints how often each push was processed, and what it did, and ends.
'use strict';
const http2 = require('node:http2');
const fs = require('node:fs');
const readline = require('node:readline');

const [keyFile, certificateFile, seed] = process.argv.slice(2);
const { NGHTTP2_REFUSED_STREAM, NGHTTP2_INTERNAL_ERROR, NGHTTP2_NO_ERROR } = http2.constants;

// mulberry32: small, seeded, good enough.
let state = Number(seed) >>> 0;
function random() {
  state = (state + 0x6d2b79f5) >>> 0;
  let mixed = Math.imul(state ^ (state >>> 15), state | 1);
  mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
  return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
}
const below = (limit) => Math.floor(random() * limit);

const processed = new Map();
const events = {};
const count = (name) => { events[name] = (events[name] ?? 0) + 1; };

const server = http2.createSecureServer({
  key: fs.readFileSync(keyFile),
  cert: fs.readFileSync(certificateFile),
  settings: { maxConcurrentStreams: 100 },
});
server.on('session', (session) => {
  session.touched = 0;
  session.highest = 0;
  session.bound = Infinity;
  session.on('error', () => {});
});
server.on('sessionError', () => {});

server.on('stream', (stream, headers) => {
  const { session } = stream;
  stream.on('error', () => {});
  // The session was cut while the stream's head was read.
  if (!session) return;
  session.highest = Math.max(session.highest, stream.id);
  const push = parseInt(headers[':path'].slice('/3/device/'.length), 16);
  stream.resume();
  stream.on('end', () => {
    setTimeout(() => settle(session, stream, push), below(10));
    if (below(150) === 0) trouble(session);
  });
});

function settle(session, stream, push) {
  if (stream.destroyed || stream.closed || session.destroyed || stream.id > session.bound) return;
  session.touched = Math.max(session.touched, stream.id);
  const dice = below(200);
  if (dice < 4) {
    count('refused stream');
    return stream.close(NGHTTP2_REFUSED_STREAM);
  }
  if (dice < 5) {
    count('reset');
    return stream.close(NGHTTP2_INTERNAL_ERROR);
  }
  if (dice < 7) {
    count('rejection');
    stream.respond({ ':status': 503 });
    return stream.end(JSON.stringify({ reason: 'ServiceUnavailable' }));
  }
  processed.set(push, (processed.get(push) ?? 0) + 1);
  if (dice < 8) {
    count('reset after processing');
    return stream.close(NGHTTP2_INTERNAL_ERROR);
  }
  stream.respond({ ':status': 200 }, { endStream: true });
}

function trouble(session) {
  if (session.destroyed || session.bound !== Infinity) return;
  const dice = below(10);
  if (dice < 4) {
    count('settings');
    session.settings({ maxConcurrentStreams: [1, 10, 50, 200][below(4)] });
  } else if (dice < 8) {
    count('goaway');
    // 0 would mean "the last one" to nghttp2.
    session.bound = Math.max(1, session.touched);
    session.goaway(NGHTTP2_NO_ERROR, session.bound, Buffer.from('{"reason":"Shutdown"}'));
    setTimeout(() => session.destroy(), below(60));
  } else {
    count('cut');
    session.destroy();
  }
}

server.listen(0, '127.0.0.1', () => console.log(server.address().port));
readline.createInterface({ input: process.stdin }).on('line', () => {
  process.stdout.write(JSON.stringify({ processed: [...processed], events }) + '\n', () => process.exit(0));
});

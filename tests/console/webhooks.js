// Webhooks by hand, with a receiver of messages that is in trouble at first.
'use strict';
const assert = require('node:assert');
const crypto = require('node:crypto');
const https = require('node:https');
const path = require('node:path');
const { says, isAccessible, isAsWideAs } = require('./browser.js');

const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };
const DEAD = 'dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';

async function run(browser, world) {
  const { server, file, signIn, api } = world;
  const receiver = await receive(file);
  await api('PUT', 'applications/hooked', { credentials: { apns_p12: { base64: file('apns.p12').toString('base64') } } });
  const page = await browser.page(server, { viewport: WIDE });
  await signIn(page);
  await says(page.locator('#webhooks-none'), 'There is none yet');
  const secret = await make(page, world, receiver);
  await seesAttempts(page, world, receiver, secret);
  await page.close();
  for (const [name, viewport, colorScheme] of [['webhooks-narrow', NARROW, 'light'], ['webhooks-narrow-dark', NARROW, 'dark']]) {
    await looksGood(browser, world, { name, viewport, colorScheme });
  }
  await changesAndDeletes(browser, world);
  await api('DELETE', 'applications/hooked');
  receiver.close();
}

/** Keeps what it gets; answers 500 to the first message. */
async function receive(file) {
  const messages = [];
  const service = https.createServer({ key: file('hooks.key'), cert: file('hooks.pem') }, (request, response) => {
    const parts = [];
    request.on('data', (part) => parts.push(part));
    request.on('end', () => {
      messages.push({ headers: request.headers, body: Buffer.concat(parts).toString() });
      response.writeHead(messages.length === 1 ? 500 : 204).end();
    });
  });
  await new Promise((listening) => service.listen(0, '127.0.0.1', listening));
  return { messages, url: `https://127.0.0.1:${service.address().port}/hooks?of=console`, close: () => service.close() };
}

async function make(page, { pictures, api }, { url }) {
  const opened = page.getByRole('dialog');
  await page.getByRole('button', { name: 'New webhook' }).click();
  await opened.getByRole('button', { name: 'Create' }).click();
  await says(opened.getByRole('alert'), 'Type an id for the webhook.');
  await opened.getByLabel('Id', { exact: true }).fill('backend');
  await opened.getByLabel('URL', { exact: true }).fill('http://hooks.example/');
  await opened.getByRole('button', { name: 'Create' }).click();
  await says(opened.getByRole('alert'), /\(\w+\)/);
  assert.strictEqual(await opened.locator('[aria-invalid]').getAttribute('name'), 'url');
  await opened.getByLabel('URL', { exact: true }).fill(url);
  await opened.getByLabel('Only these').check();
  await opened.getByRole('button', { name: 'Create' }).click();
  await says(opened.getByRole('alert'), 'Choose the events that it hears of.');
  await opened.getByLabel('Dead tokens').check();
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'webhook-new.png') });
  await opened.getByRole('button', { name: 'Create' }).click();
  await says(opened, 'It is shown only now.');
  const secret = await opened.locator('.secret code').innerText();
  await opened.getByRole('button', { name: 'Close' }).click();
  await says(page.locator('#webhooks-message'), 'backend was created.');
  await says(page.getByRole('row').filter({ hasText: 'backend' }), /127\.0\.0\.1[^]*1 kind[^]*On[^]*0/);
  assert.deepStrictEqual((await api('GET', 'webhooks/backend')).events, ['token.dead']);
  return secret;
}

/** The first attempt fails, the second one arrives, signed with the secret that was shown. */
async function seesAttempts(page, { pictures, api }, { messages }, secret) {
  await api('POST', 'notifications', { application_id: 'hooked', notification: { body: 'x' }, targets: [DEAD] });
  while ((await api('GET', 'webhooks/backend/attempts')).attempts.length < 2) await new Promise((resolve) => setTimeout(resolve, 50));
  const opened = page.getByRole('dialog');
  await page.getByRole('button', { name: 'backend' }).click();
  const attempts = opened.getByRole('list', { name: 'Attempts' }).getByRole('listitem');
  await says(attempts.nth(0), /204[^]*token\.dead[^]*Attempt 2/);
  await says(attempts.nth(1), /500[^]*token\.dead[^]*First attempt/);
  const [, { headers, body }] = messages;
  const key = Buffer.from(secret.replace('whsec_', ''), 'base64');
  const signed = `${headers['webhook-id']}.${headers['webhook-timestamp']}.${body}`;
  assert.strictEqual(headers['webhook-signature'], `v1,${crypto.createHmac('sha256', key).update(signed).digest('base64')}`);
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'webhook.png') });
  await opened.getByRole('button', { name: 'New secret' }).click();
  assert.notStrictEqual(await opened.locator('.secret code').innerText(), secret);
  await opened.getByRole('button', { name: 'Close' }).click();
}

/** With a long URL, as wide as a phone. */
async function looksGood(browser, { server, pictures, signIn, api }, { name, viewport, colorScheme }) {
  await api('PUT', 'webhooks/long', { url: `https://hooks.example/${'averyverylongpath'.repeat(12)}` });
  const page = await browser.page(server, { viewport, colorScheme });
  await signIn(page);
  const region = page.getByRole('region', { name: 'Webhooks' });
  await says(region.getByRole('row').filter({ hasText: 'long' }), 'All');
  await isAsWideAs(page, viewport.width, name);
  await isAccessible(page);
  await region.screenshot({ path: path.join(pictures, `${name}.png`) });
  await region.getByRole('button', { name: 'long' }).click();
  await says(page.getByRole('dialog'), 'None since the server started.');
  await isAsWideAs(page, viewport.width, `the dialog of ${name}`);
  await page.close();
}

async function changesAndDeletes(browser, { server, signIn, api }) {
  const page = await browser.page(server, { viewport: WIDE });
  await signIn(page);
  const opened = page.getByRole('dialog');
  const row = page.getByRole('row').filter({ hasText: 'backend' });
  await row.getByRole('button', { name: 'backend' }).click();
  await opened.getByRole('button', { name: 'Change' }).click();
  await opened.getByLabel('A limit was reached').check();
  await opened.getByRole('button', { name: 'Change' }).click();
  await says(page.locator('#webhooks-message'), 'backend was changed.');
  await says(row, '2 kinds');
  assert.deepStrictEqual((await api('GET', 'webhooks/backend')).events, ['token.dead', 'limit.reached']);
  for (const id of ['backend', 'long']) {
    await page.getByRole('region', { name: 'Webhooks' }).getByRole('button', { name: id }).click();
    await opened.getByRole('button', { name: 'Delete' }).click();
    await says(opened.getByRole('status'), 'are not sent any more');
    await opened.getByRole('button', { name: 'Delete it' }).click();
    await says(page.locator('#webhooks-message'), `${id} was deleted.`);
  }
  await says(page.locator('#webhooks-none'), 'There is none yet');
  await page.close();
}

module.exports = { run };

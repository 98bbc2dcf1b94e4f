// What people do with the console page, in a real browser against a real server.
// usage: node console.js SERVER OPEN_SERVER SIMULATOR_CONTROL DIRECTORY PICTURES
'use strict';
const assert = require('node:assert');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { open, says, isAccessible } = require('./browser.js');

const [server, openServer, control, directory, pictures] = process.argv.slice(2);
const [NAME, PASSWORD] = ['me', 'öpen:sesame'];
const DEVICE = '00fe15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';
const DEAD = 'dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';
const STRANGE = 'face15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';
/** Names and reasons that are markup. */
const HOSTILE = '"><img src=x onerror=window.hacked=1><script>window.hacked=1</script>';
const REASON = '<img src=x onerror=window.hacked=1>';

const file = (name) => fs.readFileSync(path.join(directory, name));

const BASIC = `Basic ${Buffer.from(`${NAME}:${PASSWORD}`).toString('base64')}`;
const OPERATORS_KEY = process.env.PUSHLET_ADMIN_KEY;

async function api(method, where, body, authorization = BASIC) {
  const headers = { authorization, 'content-type': 'application/json' };
  const response = await fetch(`${server}/v1/${where}`, { method, headers, body: JSON.stringify(body) });
  assert.ok(response.ok, `${method} ${where}: ${response.status} ${await response.clone().text()}`);
  return response.status === 204 ? null : response.json();
}

async function prepare() {
  const binary = (name) => ({ base64: file(name).toString('base64') });
  const applications = {
    shop: { apns_p12: binary('apns.p12') },
    'a-soon': { apns_pem: binary('soon.pem') },
    'z-very-soon': { apns_pem: binary('very-soon.pem') },
    droid: { fcm_service_account: file('fcm-service-account.json').toString() },
    gone: { apns_p12: binary('apns.p12') },
    [HOSTILE]: { apns_p12: binary('apns.p12') },
  };
  for (const [id, credentials] of Object.entries(applications)) {
    await api('PUT', `applications/${encodeURIComponent(id)}`, { credentials });
  }
  const script = { service: 'apns', token: 'face*', status: 400, body: { reason: REASON } };
  const response = await fetch(`${control}/script`, { method: 'POST', body: JSON.stringify(script) });
  assert.ok(response.ok, await response.text());
}

async function signIn(page, password = PASSWORD) {
  await page.getByLabel('Name', { exact: true }).fill(NAME);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

async function signInWithKey(page, key) {
  await page.getByRole('radio', { name: 'API key' }).check();
  await page.locator('input[name=key]').fill(key);
  await page.getByRole('button', { name: 'Sign in' }).click();
}

async function send(page, application, targets, title) {
  const form = page.getByRole('region', { name: 'Send a test push' });
  await form.getByLabel('Application').selectOption(application);
  await form.getByLabel('Tokens, one a line').fill(targets.join('\n'));
  await form.getByLabel('Title').fill(title);
  await form.getByRole('button', { name: 'Send' }).click();
  return { said: form.getByRole('status'), results: form.getByRole('listitem') };
}

const tile = (page, name) => page.locator('#tiles > div').filter({ hasText: name }).locator('strong');
const application = (page, name) => page.getByRole('row').filter({ hasText: name });
const failures = (page) => page.getByRole('region', { name: 'Recent failures' });

async function received(title) {
  const response = await fetch(`${control}/received?service=apns&limit=100`);
  const bodies = (await response.json()).received.map((push) => JSON.parse(push.body));
  return bodies.filter((body) => body.aps?.alert?.title === title);
}

async function byMouse(browser) {
  const page = await browser.page(server, { colorScheme: 'light', viewport: { width: 1280, height: 900 } });
  await signIn(page, 'wrong');
  await says(page.getByRole('alert'), 'The name or the password is wrong.');
  await signInWithKey(page, 'no-such-key');
  await says(page.getByRole('alert'), 'The key is wrong, or was revoked.');
  await page.getByLabel('Name and password').check();
  await signIn(page);

  await says(application(page, 'shop'), 'days left');
  const rows = page.locator('#applications-table tbody tr');
  assert.match(await rows.nth(0).innerText(), /^z-very-soon[^]*2 days left/);
  assert.match(await rows.nth(1).innerText(), /^a-soon[^]*19 days left/);
  await says(application(page, 'droid'), 'Does not expire');
  await says(page.getByRole('region', { name: 'Providers' }).getByRole('listitem'), 'Apple Push Notification service');

  const good = await send(page, 'shop', [DEVICE], 'From the page');
  await says(good.said, '1 of 1 target delivered.');
  await says(good.results, 'Delivered');
  assert.strictEqual((await received('From the page')).length, 1);
  const dead = await send(page, 'shop', [DEAD, DEVICE], 'Twice');
  await says(dead.said, '1 of 2 targets delivered.');
  await says(dead.results, /Dead token\s*Unregistered/);
  await says(tile(page, 'Delivered'), /^2$/);
  await says(tile(page, 'Dead tokens'), /^1$/);
  await says(failures(page).getByRole('listitem'), /Unregistered[^]*shop by apns to dead15a27d5d…/);
  await says(application(page, 'shop').getByRole('cell').nth(4), /^2$/);
  await says(page.getByRole('region', { name: 'Providers' }).getByRole('listitem'), /Warm, 1 instance/);
  await page.locator('#chart polyline.all').waitFor({ state: 'attached' });
  assert.match(await page.locator('#chart').getAttribute('aria-label'), /pushes per second now/);
  await showsMarkupAsText(page);
  await errorsAreTold(page);
  await page.getByRole('button', { name: 'Show tenants' }).click();
  await says(page.locator('#tenants-message'), "This needs the operator's key.");
  return page;
}

async function showsMarkupAsText(page) {
  const strange = await send(page, HOSTILE, [STRANGE], HOSTILE);
  await says(strange.results, REASON);
  await says(failures(page).getByRole('listitem'), REASON);
  await says(application(page, HOSTILE), HOSTILE);
  assert.strictEqual(await page.locator('main img, main script, main [onerror]').count(), 0);
  assert.strictEqual(await page.evaluate(() => window.hacked), undefined);
}

async function errorsAreTold(page) {
  const form = page.getByRole('region', { name: 'Send a test push' });
  const none = await send(page, 'shop', [], 'To nobody');
  await says(none.said, 'Name at least one target.');
  assert.strictEqual(await form.locator('[aria-invalid]').getAttribute('name'), 'targets');
  await api('DELETE', 'applications/gone');
  await says((await send(page, 'gone', [DEVICE], 'Too late')).said, 'application_not_found');

  await page.context().setOffline(true);
  await says(page.locator('#connection'), 'No connection');
  await says(page.locator('#trouble'), 'The server can not be reached.');
  await page.context().setOffline(false);
  await says(page.locator('#connection'), 'Live');
  await page.locator('#trouble').waitFor({ state: 'hidden' });
}

async function nothingIsLeft(page) {
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  const left = await page.evaluate(() => [document.body.innerText, document.body.textContent, sessionStorage.length, localStorage.length, document.cookie]);
  assert.ok(!left[1].includes('shop') && !left[1].includes('Unregistered'), left[1]);
  assert.deepStrictEqual(left.slice(2), [0, 0, '']);

  await page.getByLabel('Stay signed in').check();
  await signIn(page);
  await says(application(page, 'shop'), 'shop');
  await page.reload();
  await says(application(page, 'shop'), 'shop');
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.reload();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
}

/** Tabs until the focus is on the element; every stop must be visible. */
async function tabTo(page, what) {
  for (let stops = 0; stops < 40; stops += 1) {
    await page.keyboard.press('Tab');
    const focus = await page.evaluate(() => {
      const { outlineStyle, outlineWidth } = getComputedStyle(document.activeElement);
      return { id: document.activeElement.id, name: document.activeElement.name, text: document.activeElement.textContent, outline: `${outlineStyle} ${outlineWidth}` };
    });
    assert.match(focus.outline, /^(solid|auto) [23]/, `the focus on ${JSON.stringify(focus)} can not be seen`);
    if ([focus.id, focus.name, focus.text].includes(what)) return;
  }
  assert.fail(`${what} can not be reached with the Tab key`);
}

async function byKeyboard(browser) {
  const page = await browser.page(server, { colorScheme: 'dark', viewport: { width: 1280, height: 900 } });
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'sign-in.png') });
  const keys = page.keyboard;
  await keys.type(NAME);
  await tabTo(page, 'password');
  await keys.type(PASSWORD);
  await keys.press('Enter');
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  await says(page.locator('h1:focus'), 'Overview');
  await tabTo(page, 'application');
  await keys.type('shop');
  await tabTo(page, 'targets');
  await keys.type(`${DEVICE}\n${DEAD}`);
  await tabTo(page, 'title');
  await keys.type('By keyboard');
  await tabTo(page, 'Send');
  await keys.press('Space');
  await says(page.locator('#send-message'), '1 of 2 targets delivered.');
  await says(page.locator('button:focus'), 'Send');
  assert.strictEqual((await received('By keyboard')).length, 2);
  await tabTo(page, 'failures-list');
  await tabTo(page, 'Show tenants');
  await keys.press('Enter');
  await says(page.locator('#tenants-message'), "This needs the operator's key.");
  await page.reload();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.close();
}

/** All sizes and colours, with some minutes of traffic in the picture. */
async function picture(browser, name, settings) {
  const page = await browser.page(server, settings);
  await signIn(page);
  await says(application(page, 'shop'), 'shop');
  await send(page, 'shop', [DEVICE, DEAD], 'Order 7');
  await says(page.locator('#send-message'), '1 of 2');
  await page.waitForTimeout(Number(process.env.CONSOLE_TRAFFIC ?? 5) * 1000);
  await isAccessible(page);
  await page.evaluate(() => {
    document.activeElement.blur();
    window.scrollTo({ top: 0, behavior: 'instant' });
  });
  const width = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(width <= settings.viewport.width, `${name} is ${width} pixels wide`);
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
  await page.close();
}

/** The operator sees tenants and nothing else; a tenant sees itself, until its key is taken away. */
async function tenants(browser) {
  const operator = (method, where, body) => api(method, where, body, `Bearer ${OPERATORS_KEY}`);
  const { api_key: key } = await operator('PUT', 'tenants/acme', {});
  await operator('PUT', 'tenants/idle', { suspended: true });

  const page = await browser.page(server, { viewport: { width: 1280, height: 900 } });
  await signInWithKey(page, OPERATORS_KEY);
  await says(page.getByRole('row').filter({ hasText: 'acme' }), 'Active');
  await says(page.getByRole('row').filter({ hasText: 'idle' }), 'Suspended');
  assert.deepStrictEqual(await page.locator('h2:visible').allInnerTexts(), ['Tenants']);
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'operator.png') });
  await page.getByRole('button', { name: 'Sign out' }).click();

  await signInWithKey(page, key);
  await says(page.locator('#server'), 'Tenant acme.');
  await says(page.locator('#applications-none'), 'There is none yet');
  assert.ok(!(await page.locator('main').innerText()).includes('shop'));
  await operator('PUT', 'tenants/acme', { suspended: true });
  await says(page.locator('#connection'), 'Not live');
  await says(page.locator('#trouble'), /suspended/);
  await operator('DELETE', 'tenants/acme');
  await says(page.getByRole('alert'), 'You are not signed in any more');
  await page.close();
}

async function withoutCredentials(browser) {
  const page = await browser.page(openServer, { viewport: { width: 1280, height: 900 } });
  await says(page.locator('#connection'), 'Live');
  await says(page.locator('#applications-none'), 'There is none yet');
  assert.strictEqual(await page.getByRole('button', { name: 'Sign out' }).count(), 0);
  const uploaded = page.getByRole('region', { name: 'Providers' }).getByRole('list', { name: 'Uploaded versions' });
  for (const [name, state] of [['two', 'In use'], ['one', 'Kept']]) {
    const digest = crypto.createHash('sha256').update(file(`${name}.wasm`)).digest('hex');
    await says(uploaded.getByRole('listitem').filter({ hasText: digest.slice(0, 12) }), state);
  }
  await page.getByRole('link', { name: 'API reference' }).click();
  await page.waitForURL(`${openServer}/docs`);
  await page.close();
}

/** A page of another origin, whose requests the browser sends though it may not read the answers. */
async function anotherSite(browser) {
  const site = http.createServer((_, response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>Hello</p>'));
  await new Promise((listening) => site.listen(0, '127.0.0.1', listening));
  const page = await browser.stranger(`http://127.0.0.1:${site.address().port}/`);
  const statuses = [];
  page.on('response', (response) => statuses.push(response.status()));
  await page.evaluate(async ([to, pem]) => {
    const post = (where, body) => fetch(`${to}/${where}`, { method: 'POST', mode: 'no-cors', credentials: 'include', body });
    const form = new FormData();
    form.set('application_id', 'planted');
    form.set('apns_pem', pem);
    await post('register_application', form);
    await post('application_feedback', new URLSearchParams({ application_id: 'planted' }));
    await post('v1/notifications', JSON.stringify({ application_id: 'planted', notification: {}, targets: ['a'] }));
    await post('v1/notifications:stream', new Blob(['{"application_id":"planted"}']));
  }, [openServer, file('soon.pem').toString()]);
  assert.deepStrictEqual(statuses, [403, 403, 403, 403]);
  const { applications } = await (await fetch(`${openServer}/v1/applications`)).json();
  assert.deepStrictEqual(applications, []);
  await page.context().close();
  site.close();
}

/** Sends in the background until stopped. */
function traffic() {
  let isOn = true;
  const random = (count) => Math.floor(Math.random() * count);
  const run = async () => {
    for (let tick = 0; isOn; tick += 1) {
      const good = Array.from({ length: 8 + random(10) + Math.round(5 * Math.sin(tick / 9)) }, (_, index) => `${index}`.padStart(64, '0'));
      const bad = random(4) === 0 ? [DEAD, 'bad001'.padEnd(64, '0')] : [];
      await api('POST', 'notifications', { application_id: 'shop', notification: { body: 'Hello' }, targets: [...good, ...bad] });
      await api('POST', 'notifications', { application_id: 'droid', notification: { body: 'Hello' }, targets: ['token-a', 'token-b'] });
      await new Promise((resolve) => setTimeout(resolve, 400));
    }
  };
  const running = run();
  return async () => {
    isOn = false;
    await running;
  };
}

(async () => {
  await prepare();
  const browser = await open('/usr/bin/chromium');
  const page = await byMouse(browser);
  console.log('ok - signs in, shows, sends and tells errors');
  await nothingIsLeft(page);
  await page.close();
  console.log('ok - leaves nothing after signing out');
  await byKeyboard(browser);
  console.log('ok - by keyboard alone');
  await tenants(browser);
  console.log('ok - the operator sees tenants, a tenant sees itself');
  await withoutCredentials(browser);
  console.log('ok - a server without credentials needs no form, and shows uploaded versions');
  await anotherSite(browser);
  console.log('ok - a page of another site changes nothing');
  await api('DELETE', `applications/${encodeURIComponent(HOSTILE)}`);
  const stop = traffic();
  await Promise.all([
    picture(browser, 'light', { colorScheme: 'light', viewport: { width: 1280, height: 900 } }),
    picture(browser, 'dark', { colorScheme: 'dark', viewport: { width: 1280, height: 900 } }),
    picture(browser, 'narrow', { colorScheme: 'light', viewport: { width: 360, height: 740 } }),
    picture(browser, 'narrow-dark', { colorScheme: 'dark', viewport: { width: 360, height: 740 } }),
  ]);
  await stop();
  console.log(`ok - pictures in ${pictures}`);
  await browser.close();
  console.log('ok - no error in the browser, no request to another place');
})().catch((error) => {
  console.error(error);
  process.exit(1);
});

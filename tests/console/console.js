// What people do with the console and the API reference, in a real browser against a real server.
// usage: node console.js SERVER OPEN_SERVER SIMULATOR_CONTROL DIRECTORY PICTURES
'use strict';
const assert = require('node:assert');
const crypto = require('node:crypto');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { open, says, isAccessible, isAsWideAs } = require('./browser.js');
const reference = require('./reference.js');
const inventory = require('./inventory.js');
const webhooks = require('./webhooks.js');

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
  await form.getByLabel('Application').fill(application);
  await form.getByLabel('Application').blur();
  await form.getByLabel('Tokens, one a line').fill(targets.join('\n'));
  await form.getByLabel('Title').fill(title);
  await form.getByRole('button', { name: 'Send', exact: true }).click();
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
  await page.locator('#chart rect.all.running').waitFor({ state: 'attached' });
  await failuresAreGrouped(page);
  await theChartTellsItsValues(page);
  await sendsWhatTheProviderKnows(page);
  await showsMarkupAsText(page);
  await errorsAreTold(page);
  assert.ok(!(await page.locator('main').innerText()).includes('Tenants'), 'tenants are for the operator');
  await says(page.getByRole('region', { name: 'Limits' }), 'of 10,000');
  return page;
}

/** One line for each reason however often it occurs, and the last failures one by one. */
async function failuresAreGrouped(page) {
  await send(page, 'shop', [DEAD], 'Again');
  const first = failures(page).getByRole('listitem').first();
  await says(first, /^2[^]*Unregistered[^]*2 times since/);
  assert.strictEqual(await failures(page).getByRole('listitem').count(), 1);
  await failures(page).getByText('Latest').click();
  await says(first, /^(?!2)[^]*Unregistered/);
  assert.strictEqual(await failures(page).getByRole('listitem').count(), 2);
  await failures(page).getByText('By reason').click();
}

/** By pointer and by arrow keys; and the numbers for other times. */
async function theChartTellsItsValues(page) {
  const chart = page.getByRole('slider', { name: 'Pushes per minute' });
  const box = await chart.boundingBox();
  await page.mouse.move(box.x + box.width - 3, box.y + box.height / 2);
  await says(page.locator('#chart .values'), /running[^]*[1-9] delivered[^]*[1-9] not delivered/);
  await page.mouse.move(0, 0);
  await page.locator('#chart .values').waitFor({ state: 'hidden' });
  await chart.focus();
  await chart.press('ArrowLeft');
  assert.match(await chart.getAttribute('aria-valuetext'), /\d\d:\d\d: \d+ delivered, \d+ not delivered/);
  await chart.press('End');
  await says(page.locator('#chart .values'), 'running');
  for (const [time, words] of [['5 minutes', 'Outcomes in the last 5 minutes'], ['Since start', 'Outcomes since the server started'], ['1 hour', 'Outcomes in the last hour']]) {
    await page.getByText(time, { exact: true }).click();
    await says(page.locator('#outcomes-window'), words);
    await says(tile(page, 'Delivered'), /^2$/);
  }
}

/** What the server kept is there at the first look: nobody needs to keep the page open. */
async function theHourIsThereAtOnce(browser) {
  const page = await browser.page(server, { viewport: { width: 1280, height: 900 } });
  await signIn(page);
  await page.locator('#chart rect').first().waitFor({ state: 'attached' });
  const { minutes } = await api('GET', 'status');
  const total = minutes.reduce((sum, { outcomes }) => sum + (outcomes.delivered ?? 0), 0);
  assert.ok(total > 0);
  await says(tile(page, 'Delivered'), new RegExp(`^${total}$`));
  await page.close();
}

/** A server that hangs gives no error, and is not "Live". */
async function aHangingServerIsNotLive(browser) {
  const page = await browser.page(server, { viewport: { width: 1280, height: 900 } });
  await signIn(page);
  await says(page.locator('#connection'), 'Live');
  process.kill(Number(process.env.CONSOLE_SERVER_PID), 'SIGSTOP');
  try {
    await page.locator('#connection').filter({ hasText: 'No answer' }).waitFor({ timeout: 7000 });
    await says(page.locator('#trouble'), 'has not answered');
  } finally {
    process.kill(Number(process.env.CONSOLE_SERVER_PID), 'SIGCONT');
  }
  await says(page.locator('#connection'), 'Live');
  await page.close();
}

/** Data, badge, sound, an option that the provider has, and the notification as JSON. */
async function sendsWhatTheProviderKnows(page) {
  const form = page.getByRole('region', { name: 'Send a test push' });
  await form.getByLabel('Application').fill('droid');
  await form.getByLabel('Application').blur();
  await says(form.getByLabel('Send to'), 'A condition');
  await form.getByLabel('Application').fill('shop');
  await form.getByLabel('Application').blur();
  await page.waitForFunction(() => document.querySelector('#send-form').elements.kind.options.length === 2);
  assert.deepStrictEqual(await form.getByLabel('Send to').locator('option').allInnerTexts(), ['Device tokens', 'A channel']);
  await form.getByLabel('Tokens, one a line').fill(DEVICE);
  await form.getByLabel('Title').fill('With everything');
  await form.getByText('Data, badge, sound and more').click();
  await form.getByLabel('Data for the app').fill('{"order": 7');
  await form.getByRole('button', { name: 'Send', exact: true }).click();
  await says(form.getByRole('status'), 'The data is not a JSON object.');
  await form.getByLabel('Data for the app').fill('{"order": 7}');
  await form.getByLabel('Badge').fill('3');
  await form.getByLabel('Sound').fill('chime.caf');
  await form.getByLabel('Add an option').selectOption('interruption_level');
  await form.locator('[data-option=interruption_level]').selectOption('time-sensitive');
  await isAccessible(page);
  await form.getByRole('button', { name: 'Send', exact: true }).click();
  await says(form.getByRole('status'), '1 of 1 target delivered.');
  const [push] = await received('With everything');
  const { badge, sound } = push.aps;
  assert.deepStrictEqual([push.order, badge, sound, push.aps['interruption-level']], [7, 3, 'chime.caf', 'time-sensitive']);

  await form.getByLabel('Write it as JSON').check();
  const json = form.getByLabel('Notification as JSON');
  assert.deepStrictEqual(JSON.parse(await json.inputValue()), {
    title: 'With everything', body: 'Hello from Pushlet', sound: 'chime.caf', badge: 3, data: { order: 7 }, interruption_level: 'time-sensitive',
  });
  await json.fill('{"title": "As JSON", "apns": {"aps": {"badge": 9}}}');
  await form.getByRole('button', { name: 'Send', exact: true }).click();
  await says(form.getByRole('status'), '1 of 1 target delivered.');
  assert.strictEqual((await received('As JSON'))[0].aps.badge, 9);
  await json.fill('{"titel": "x"}');
  await form.getByRole('button', { name: 'Send', exact: true }).click();
  await says(form.getByRole('status'), 'unknown_field');
  assert.strictEqual(await form.locator('[aria-invalid]').getAttribute('name'), 'json');
  await form.getByLabel('Write it as JSON').uncheck();
  await form.getByRole('button', { name: 'Remove interruption_level' }).click();
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
  await says(page.locator('#trouble'), 'The server cannot be reached.');
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
  for (let stops = 0; stops < 60; stops += 1) {
    await page.keyboard.press('Tab');
    const focus = await page.evaluate(() => {
      // A switch shows the focus on its words.
      const seen = document.activeElement.matches('.segments input') ? document.activeElement.nextElementSibling : document.activeElement;
      const { outlineStyle, outlineWidth } = getComputedStyle(seen);
      return { id: document.activeElement.id, name: document.activeElement.name, text: document.activeElement.textContent, outline: `${outlineStyle} ${outlineWidth}` };
    });
    assert.match(focus.outline, /^(solid|auto) [23]/, `the focus on ${JSON.stringify(focus)} cannot be seen`);
    if ([focus.id, focus.name, focus.text].includes(what)) return;
  }
  assert.fail(`${what} cannot be reached with the Tab key`);
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
  await keys.press('Control+a');
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
  // At the top nothing is partly behind the bar, which would count as a small target.
  await page.evaluate(() => {
    document.activeElement.blur();
    window.scrollTo({ top: 0, behavior: 'instant' });
  });
  await isAccessible(page);
  await isAsWideAs(page, settings.viewport.width, name);
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
  assert.deepStrictEqual(await page.locator('h2:visible').allInnerTexts(), ['All tenants', 'Tenants']);
  await isAccessible(page);
  await theOperatorNeedsNoCurl(page, operator);
  await page.screenshot({ path: path.join(pictures, 'operator.png'), fullPage: true });
  await page.getByRole('link', { name: 'API reference' }).click();
  await says(page.locator('#contents'), 'Show what all tenants do');
  await page.getByRole('link', { name: 'Console' }).click();
  await says(page.getByRole('heading', { name: 'All tenants' }), 'All tenants');
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

/** Makes a tenant, gives it keys and limits, suspends and deletes it; sees what it pushes and what is refused. */
async function theOperatorNeedsNoCurl(page, operator) {
  await page.getByRole('button', { name: 'New tenant' }).click();
  const opened = page.getByRole('dialog');
  await opened.getByLabel('Id').fill('acme');
  await opened.getByRole('button', { name: 'Create' }).click();
  await says(opened.getByRole('alert'), 'There is a tenant with this id already.');
  await opened.getByLabel('Id').fill('made-here');
  await opened.getByRole('button', { name: 'Create' }).click();
  await says(opened, 'It is shown only now.');
  const key = await opened.locator('.secret code').innerText();
  const own = (method, where, body) => api(method, where, body, `Bearer ${key}`);
  assert.strictEqual((await own('GET', 'status')).tenant, 'made-here');
  await opened.getByRole('button', { name: 'Close' }).click();

  await page.getByRole('button', { name: 'made-here' }).click();
  await opened.getByText('Change the limits').click();
  await opened.getByLabel('Pushes per second').fill('many');
  await opened.getByRole('button', { name: 'Set the limits' }).click();
  await says(opened.getByRole('status'), 'Pushes per second is not a whole number.');
  await opened.getByLabel('Pushes per second').fill('10');
  await opened.getByLabel('Applications', { exact: true }).fill('1');
  await opened.getByRole('button', { name: 'Set the limits' }).click();
  await says(page.locator('#tenants-message'), 'made-here has new limits.');
  assert.deepStrictEqual((await operator('GET', 'tenants/made-here')).limits, { pushes_per_second: 10, applications: 1 });

  await own('PUT', 'applications/shop', { credentials: { apns_pem: { base64: file('very-soon.pem').toString('base64') } } });
  const send = (targets) => own('POST', 'notifications', { application_id: 'shop', notification: { body: 'x' }, targets });
  // More than a second's worth is sent if nothing is owed, and then paid off.
  await send([DEAD, ...Array.from({ length: 200 }, (_, index) => `${index}`.padStart(64, '0'))]);
  await assert.rejects(send([DEVICE]), /429/);
  const line = page.getByRole('row').filter({ hasText: 'made-here' });
  await says(line, /Active[^]*1 to renew[^]*2 days left/);
  await says(line.getByRole('cell').nth(3), /^1$/);
  await says(page.locator('#operator-tiles > div').filter({ hasText: 'Refused' }), /[1-9]/);

  await page.getByRole('button', { name: 'made-here' }).click();
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'tenant.png') });
  await keysHaveScopes(page, opened, { operator, key });
  const { keys } = await operator('GET', 'tenants/made-here/keys');
  await opened.getByRole('button', { name: `Revoke ${keys[0].id}` }).click();
  await says(opened.getByRole('status'), 'is revoked');
  await assert.rejects(own('GET', 'status'), /401/);
  await opened.getByRole('button', { name: 'Suspend' }).click();
  await says(line, 'Suspended');
  await page.getByRole('searchbox', { name: 'Find' }).fill('MADE');
  await says(page.locator('#tenants-pager'), '1–1 of 1');
  await page.getByRole('button', { name: 'made-here' }).click();
  await opened.getByRole('button', { name: 'Delete' }).click();
  await says(opened.getByRole('status'), 'are deleted with it');
  await opened.getByRole('button', { name: 'Delete it' }).click();
  await says(page.locator('#tenants-none'), 'No tenant has this in its id.');
  await page.getByRole('searchbox', { name: 'Find' }).fill('');
  await says(line.or(page.getByRole('row').filter({ hasText: 'acme' })), 'acme');
}

/** A key with a label that may read alone, and ends; older ones end in an hour. */
async function keysHaveScopes(page, opened, { operator, key }) {
  await opened.getByText('New key', { exact: true }).click();
  await opened.getByLabel('Label', { exact: true }).fill('dashboard');
  await opened.locator('[name=ends]').selectOption('In 30 days');
  await opened.getByLabel('Only these').check();
  await opened.getByRole('button', { name: 'Make the key' }).click();
  await says(opened.getByRole('status'), 'Choose what the key may do.');
  await opened.getByLabel('Read everything that is shown').check();
  await opened.getByLabel('All older keys end in an hour').check();
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'key.png') });
  await opened.getByRole('button', { name: 'Make the key' }).click();
  const second = await opened.locator('.secret code').innerText();
  assert.notStrictEqual(second, key);
  const line = opened.getByRole('listitem').filter({ hasText: 'dashboard' });
  await says(line, /may read, made [^]*not used yet, ends /);
  const of = (method, where, body) => api(method, where, body, `Bearer ${second}`);
  assert.strictEqual((await of('GET', 'status')).tenant, 'made-here');
  await assert.rejects(of('PUT', 'applications/x', { provider: 'gcm', credentials: { gcm_api_key: 'x' } }), /403[^]*scope_required/);
  const { keys } = await operator('GET', 'tenants/made-here/keys');
  const [first, last] = keys.map(({ label, scopes, expires }) => ({ label, scopes, days: Math.round((Date.parse(expires) - Date.now()) / 3_600_000) }));
  assert.deepStrictEqual([first, last], [{ label: null, scopes: null, days: 1 }, { label: 'dashboard', scopes: ['read'], days: 720 }]);
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
  await says(page.getByRole('heading', { name: 'API reference' }), 'API reference');
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
  await theHourIsThereAtOnce(browser);
  console.log('ok - the last hour is there at the first look');
  await aHangingServerIsNotLive(browser);
  console.log('ok - a server that hangs is not live');
  const world = { server, pictures, file, signIn, signInWithKey, api, operatorsKey: OPERATORS_KEY, password: PASSWORD };
  await reference.run(browser, world);
  console.log('ok - the API reference: one sign-in with the console, finds fields, curl, Python and Node that work');
  await inventory.run(browser, world);
  console.log('ok - applications are registered, renewed, shown and removed; a thousand with long names on wide and narrow screens');
  await webhooks.run(browser, world);
  console.log('ok - webhooks are made, changed, seen at work and deleted');
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

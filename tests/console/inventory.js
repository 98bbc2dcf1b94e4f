// Applications: registered, renewed, shown and removed by hand; and a thousand of them.
'use strict';
const assert = require('node:assert');
const path = require('node:path');
const { says, isAccessible, isAsWideAs } = require('./browser.js');

const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };
const COUNT = 1000;
/** As long as ids may be, without a place to break. */
const LONG = `com.example.${'averyverylongname'.repeat(14)}`;
const DEAD = 'dead15a27d5df3c34778defb1f4f3880265cc52c0c047682223be59fb68500a9';

async function run(browser, world) {
  await byHand(browser, world);
  const key = await many(world);
  for (const [name, viewport, colorScheme] of [['many', WIDE, 'light'], ['many-narrow', NARROW, 'light'], ['many-narrow-dark', NARROW, 'dark']]) {
    await findsAmongMany(browser, world, key, { name, viewport, colorScheme });
  }
  await operatorWithManyTenants(browser, world);
  await world.api('DELETE', 'tenants/crowd', undefined, `Bearer ${world.operatorsKey}`);
}

const upload = (name, buffer) => ({ name, mimeType: 'application/octet-stream', buffer });

async function byHand(browser, { server, pictures, file, signIn, api }) {
  const page = await browser.page(server, { viewport: WIDE });
  await signIn(page);
  const opened = page.getByRole('dialog');
  await page.getByRole('button', { name: 'Register an application' }).click();
  await opened.getByRole('button', { name: 'Register' }).click();
  await says(opened.getByRole('alert'), 'Type an id for the application.');
  await opened.getByLabel('Application id').fill('by-hand');
  await opened.getByRole('button', { name: 'Register' }).click();
  await says(opened.getByRole('alert'), 'Choose the file of the credential.');
  await opened.getByLabel('Push certificate and key as PEM').setInputFiles(upload('soon.pem', file('apns.p12')));
  await opened.getByRole('button', { name: 'Register' }).click();
  await says(opened.getByRole('alert'), /invalid_/);
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'register.png') });
  await opened.getByLabel('Push certificate and key as PEM').setInputFiles(upload('soon.pem', file('very-soon.pem')));
  await opened.getByRole('button', { name: 'Register' }).click();
  await says(page.locator('#applications-message'), 'by-hand is registered.');
  const row = page.getByRole('row').filter({ hasText: 'by-hand' });
  await says(row, '2 days left');

  await page.getByRole('button', { name: 'Register an application' }).click();
  await opened.getByLabel('Application id').fill('by-hand');
  await opened.getByLabel('Push certificate and key as PKCS#12').setInputFiles(upload('apns.p12', file('apns.p12')));
  await opened.getByRole('button', { name: 'Register' }).click();
  await says(opened.getByRole('alert'), 'There is an application with this id already.');
  await opened.getByRole('button', { name: 'Close' }).click();

  await row.getByRole('button', { name: 'by-hand' }).click();
  await opened.getByRole('button', { name: 'Renew' }).click();
  await opened.getByLabel('Push certificate and key as PKCS#12').setInputFiles(upload('apns.p12', file('apns.p12')));
  await opened.getByRole('button', { name: 'Renew' }).click();
  await says(page.locator('#applications-message'), 'by-hand has its new credential.');
  assert.strictEqual((await api('GET', 'applications/by-hand')).credential.field, 'apns_p12');

  await api('POST', 'notifications', { application_id: 'by-hand', notification: { body: 'x' }, targets: [DEAD] });
  await row.getByRole('button', { name: 'by-hand' }).click();
  await says(opened, /Topics[^]*com\.example[^]*Dead token[^]*1 dead token[^]*dead15a2/);
  await isAccessible(page);
  await page.screenshot({ path: path.join(pictures, 'application.png') });
  await opened.getByRole('button', { name: 'Send a test push' }).click();
  assert.strictEqual(await page.locator('input[name=application]').inputValue(), 'by-hand');

  await row.getByRole('button', { name: 'by-hand' }).click();
  await opened.getByRole('button', { name: 'Remove' }).click();
  await opened.getByRole('button', { name: 'Keep it' }).click();
  await opened.getByRole('button', { name: 'Remove' }).click();
  await opened.getByRole('button', { name: 'Remove it' }).click();
  await says(page.locator('#applications-message'), 'by-hand was removed.');
  await row.waitFor({ state: 'detached' });
  await registersWithAKey(page, opened, file);
  await page.close();
}

/** A kind of credential with settings of its own, which the form asks for. */
async function registersWithAKey(page, opened, file) {
  await page.getByRole('button', { name: 'Register an application' }).click();
  await opened.getByLabel('Application id').fill('with-a-key');
  await opened.getByLabel('Kind of credential').selectOption('token');
  await opened.getByLabel('Token signing key').setInputFiles(upload('apns.p8', file('apns.p8')));
  await opened.getByLabel('apns_key_id', { exact: true }).fill('SIMKEY0001');
  await opened.getByLabel('apns_team_id', { exact: true }).fill('SIMTEAM001');
  await opened.getByLabel('Environment').selectOption('development');
  await opened.getByText('More settings').click();
  await opened.getByLabel('apns_topic', { exact: true }).fill('com.example.app');
  await opened.getByRole('button', { name: 'Register' }).click();
  const row = page.getByRole('row').filter({ hasText: 'with-a-key' });
  await says(row, /development[^]*Does not expire/);
  await row.getByRole('button', { name: 'with-a-key' }).click();
  await opened.getByRole('button', { name: 'Remove' }).click();
  await opened.getByRole('button', { name: 'Remove it' }).click();
  await row.waitFor({ state: 'detached' });
}

/** A tenant with a thousand applications, some of them with long names; returns its key. */
async function many({ api, operatorsKey, file }) {
  const { api_key: key } = await api('PUT', 'tenants/crowd', {}, `Bearer ${operatorsKey}`);
  const register = (id, body) => api('PUT', `applications/${encodeURIComponent(id)}`, body, `Bearer ${key}`);
  const gcm = { provider: 'gcm', credentials: { gcm_api_key: 'AIza-of-this-test' } };
  const ids = Array.from({ length: COUNT - 3 }, (_, number) => `app-${`${number}`.padStart(4, '0')}`);
  while (ids.length > 0) await Promise.all(ids.splice(0, 20).map((id) => register(id, gcm)));
  const pem = { credentials: { apns_pem: { base64: file('soon.pem').toString('base64') } } };
  await Promise.all([register(LONG, pem), register(`${LONG.slice(0, 200)}-two`, gcm), register('ärger 日本語 application', gcm)]);
  return key;
}

async function findsAmongMany(browser, { server, pictures, signInWithKey, api }, key, { name, viewport, colorScheme }) {
  const page = await browser.page(server, { viewport, colorScheme });
  await signInWithKey(page, key);
  const rows = page.locator('#applications-table tbody tr');
  const pager = page.locator('#applications-pager');
  const region = page.getByRole('region', { name: 'Applications' });
  await says(pager, '1–10 of 1,000');
  assert.strictEqual(await rows.count(), 10);
  await says(rows.first(), LONG);
  await says(page.locator('#applications-soon'), '1 credential to renew');
  await isAsWideAs(page, viewport.width, name);
  const inside = await rows.first().evaluate((row) => row.scrollWidth <= row.parentElement.parentElement.clientWidth);
  assert.ok(inside, `${name}: a long id breaks the table`);
  const { applications } = await api('GET', 'applications?limit=30', undefined, `Bearer ${key}`);
  await region.getByLabel('Order').selectOption('id');
  await says(rows.first(), applications[0].id);
  await region.getByRole('button', { name: 'Next' }).click();
  await says(pager, '11–20 of 1,000');
  await says(rows.first(), applications[10].id);
  await region.getByRole('button', { name: 'Previous' }).click();
  await says(rows.first(), applications[0].id);
  await region.getByLabel('Find').fill('APP-099');
  await says(pager, '1–7 of 7');
  await says(rows.last(), 'app-0996');
  await region.getByLabel('Find').fill('nothing has this');
  await says(page.locator('#applications-none'), 'No application has this');
  await region.getByLabel('Find').fill('');
  await region.getByLabel('Order').selectOption('expiry');
  await says(rows.first(), LONG);
  await isAccessible(page);
  await page.evaluate(() => window.scrollTo({ top: 0, behavior: 'instant' }));
  await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
  await rows.first().getByRole('button').click();
  await says(page.getByRole('dialog'), 'Topics');
  await isAsWideAs(page, viewport.width, `the dialog of ${name}`);
  const dialog = await page.getByRole('dialog').evaluate((one) => one.scrollWidth <= one.clientWidth);
  assert.ok(dialog, `${name}: a long id breaks the dialog`);
  await page.screenshot({ path: path.join(pictures, `${name}-application.png`) });
  await page.close();
}

/** More tenants than a page holds. */
async function operatorWithManyTenants(browser, { server, pictures, signInWithKey, api, operatorsKey }) {
  const operator = (method, where, body) => api(method, where, body, `Bearer ${operatorsKey}`);
  const ids = Array.from({ length: 60 }, (_, number) => `tenant-${`${number}`.padStart(2, '0')}-${'long'.repeat(number % 12)}`);
  for (const id of ids) await operator('PUT', `tenants/${id}`, number(id) % 7 === 0 ? { suspended: true } : {});
  for (const [name, viewport] of [['operator-many', WIDE], ['operator-narrow', NARROW]]) {
    const page = await browser.page(server, { viewport });
    await signInWithKey(page, operatorsKey);
    await says(page.locator('#tenants-pager'), /1–20 of 6\d/);
    await page.getByRole('button', { name: 'Next' }).click();
    await says(page.locator('#tenants-pager'), /21–40 of 6\d/);
    await isAccessible(page);
    await isAsWideAs(page, viewport.width, name);
    await page.getByRole('button', { name: 'Previous' }).click();
    await says(page.locator('#tenants-pager'), '1–20');
    await page.screenshot({ path: path.join(pictures, `${name}.png`), fullPage: true });
    await page.close();
  }
  for (const id of ids) await operator('DELETE', `tenants/${id}`);
}

const number = (id) => Number(id.split('-')[1]);

module.exports = { run };

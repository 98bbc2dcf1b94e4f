// The API reference at /docs: signed in with the console, searched, and its examples run as they stand.
'use strict';
const assert = require('node:assert');
const fs = require('node:fs');
const path = require('node:path');
const { execFileSync } = require('node:child_process');
const { says, isAccessible, isAsWideAs } = require('./browser.js');

const WIDE = { width: 1280, height: 900 };
const NARROW = { width: 390, height: 844 };

async function run(browser, world) {
  await oneSignIn(browser, world);
  await findsFieldsAndExamples(browser, world);
  await examplesWork(browser, world);
  await looksAsTheConsole(browser, world);
}

/** From the console to the reference and back without a second question, and nothing is kept. */
async function oneSignIn(browser, { server, signIn }) {
  const page = await browser.page(server, { viewport: WIDE }, '/docs');
  await signIn(page);
  await says(page.locator('#contents'), 'Register or replace an application');
  await page.getByRole('link', { name: 'Console' }).click();
  await says(page.getByRole('heading', { name: 'Overview' }), 'Overview');
  assert.strictEqual(await page.evaluate(() => sessionStorage.length), 0, 'what was handed over is not kept');
  await page.getByRole('link', { name: 'API reference' }).click();
  await says(page.getByRole('heading', { name: 'API reference' }), 'API reference');
  assert.strictEqual(await page.evaluate(() => sessionStorage.length), 0);
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  await page.close();
}

async function findsFieldsAndExamples(browser, { server, signIn }) {
  const page = await browser.page(server, { viewport: WIDE }, '/docs');
  await signIn(page);
  const find = page.getByRole('searchbox', { name: 'Find' });
  const operation = (id) => page.locator(`#${id}`);
  const visible = async () => page.locator('.operation:visible').count();
  await operation('get_status').waitFor();
  const all = await visible();
  assert.ok(all > 25, `${all} operations`);
  for (const [words, id, hit] of [
    // A field within a body, a value of a choice, words of a description, of an example, of an answer.
    ['interruption_level', 'send_notifications', /body: interruption_level/],
    ['others_expire_in', 'create_tenant_key', /body: others_expire_in/],
    ['on its way', 'send_notifications', /example: .*On its way/],
    ['registration_id', 'send_notification', /answer 200: registration_id/],
    ['channels', 'list_items', null],
    ['health', 'healthz', null],
  ]) {
    await find.fill(words);
    await operation(id).waitFor({ state: 'visible' });
    assert.ok((await visible()) < all, words);
    if (hit !== null) await says(operation(id).locator('.hits'), hit);
    await says(page.locator('#found'), 'operation');
  }
  for (const name of ['Channels', 'Health']) await find.fill('').then(() => says(page.getByRole('heading', { name, exact: true, level: 2 }), name));
  await find.fill('no-such-word-anywhere');
  await says(page.locator('#found'), '0 operations');
  assert.strictEqual(await visible(), 0);
  await page.close();
}

/** In each language the first examples of some operations, run with this server's credentials. */
async function examplesWork(browser, { server, signIn, password, api, file, pictures }) {
  await api('PUT', 'applications/my-apns-app', { credentials: { apns_p12: { base64: file('apns.p12').toString('base64') } } });
  const page = await browser.page(server, { viewport: WIDE }, '/docs');
  await signIn(page);
  const work = fs.mkdtempSync(path.join(pictures, 'examples-'));
  fs.writeFileSync(path.join(work, 'apns_pem'), file('soon.pem'));
  const runners = {
    curl: (text) => execFileSync('sh', ['-c', text.replace('curl ', "curl -sS -w '%{http_code} ' -o /dev/null ")], { cwd: work }),
    python: (text) => execFileSync('python3', ['-c', text], { cwd: work }),
    node: (text) => execFileSync('node', ['--input-type=module', '-e', text], { cwd: work }),
  };
  await page.locator('#get_status').waitFor();
  const operations = ['get_status', 'send_notifications', 'stream_notifications', 'register_application', 'application_feedback', 'show_feedback'];
  const ids = await page.locator('.operation').evaluateAll((all) => all.map(({ id }) => id));
  let count = 0;
  for (const id of operations.filter((one) => ids.includes(one))) {
    await page.locator(`#${id} > summary`).click();
    await page.locator(`#${id} > div > .schema`).last().waitFor();
    for (const [language, runner] of Object.entries(runners)) {
      const texts = await page.locator(`#${id} > div > .sample pre.${language}`).evaluateAll((all) => all.map(({ textContent }) => textContent));
      assert.ok(texts.length > 0, `${id} has no example in ${language}`);
      for (const text of texts) {
        // Examples hold placeholders for secrets, but for files, which are there.
        if (text.includes('YOUR_')) continue;
        const filled = text.replace('NAME:PASSWORD', `me:${password}`).replace('"NAME", "PASSWORD"', `"me".encode(), "${password}".encode()`)
          .replace(/btoa\("me:.*?"\)/, `Buffer.from("me:${password}").toString("base64")`);
        const said = runner(filled).toString();
        assert.match(said, /^20\d/, `${id} in ${language}: ${said}\n${text}`);
        count += 1;
      }
    }
  }
  assert.ok(count >= 20, `${count} examples were run`);
  fs.rmSync(work, { recursive: true });
  for (const language of ['Python', 'Node', 'curl']) {
    await page.getByText(language, { exact: true }).click();
    assert.strictEqual(await page.locator('#get_status .sample pre:visible').count(), 1);
    assert.strictEqual(await page.locator('#get_status .sample pre:visible').getAttribute('class'), language.toLowerCase());
  }
  await page.close();
  await api('DELETE', 'applications/my-apns-app');
}

async function looksAsTheConsole(browser, { server, signIn, pictures }) {
  for (const [name, viewport, colorScheme] of [['docs', WIDE, 'light'], ['docs-dark', WIDE, 'dark'], ['docs-narrow', NARROW, 'light']]) {
    const page = await browser.page(server, { viewport, colorScheme }, '/docs');
    await signIn(page);
    await page.locator('#send_notifications > summary').click();
    await page.getByText('Python', { exact: true }).click();
    await page.locator('#send_notifications').getByText('Errors: 400').click();
    await says(page.locator('#send_notifications'), 'limit_pushes_per_second');
    await isAccessible(page);
    await isAsWideAs(page, viewport.width, name);
    await page.evaluate(() => window.scrollTo({ top: 0, behavior: 'instant' }));
    await page.screenshot({ path: path.join(pictures, `${name}.png`) });
    await page.locator('#send_notifications').scrollIntoViewIfNeeded();
    await page.locator('#send_notifications').screenshot({ path: path.join(pictures, `${name}-operation.png`) });
    await page.close();
  }
}

module.exports = { run };

// A browser that notes every request and every error of its pages.
'use strict';
const assert = require('node:assert');
const path = require('node:path');

const axe = require(path.join(process.env.CONSOLE_MODULES, 'axe-core'));
const { chromium } = require(path.join(process.env.CONSOLE_MODULES, 'playwright-core'));

const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  // No name but this one is found.
  '--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1',
];

/** Answers that are errors, and that a test asks for. The browser writes each of them to its console. */
const ASKED_FOR = [
  [/\/v1\/status(\?|$)/, /status of (401|403)/],
  [/\/openapi.json$/, /status of 401/],
  [/\/v1\/notifications$/, /status of (400|404)/],
  // Whether there is an application, before one is registered.
  [/\/v1\/applications\/[^/?]+$/, /status of (400|404)/],
  [/\/v1\/webhooks\/[^/?]+$/, /status of 4\d\d/],
  [/\/v1\//, /ERR_INTERNET_DISCONNECTED/],
];

async function open(executablePath) {
  const browser = await chromium.launch({ executablePath, headless: true, args: FLAGS });
  const wrong = [];

  /** A new page in a new profile. Settings as Playwright names them. */
  async function page(url, settings, where = '/console') {
    const context = await browser.newContext({ locale: 'en-GB', ...settings });
    const made = await context.newPage();
    made.setDefaultTimeout(20_000);
    context.on('request', (request) => {
      if (new URL(request.url()).origin !== new URL(url).origin) wrong.push(`a request to ${request.url()}`);
    });
    made.on('pageerror', (error) => wrong.push(`an exception: ${error}`));
    made.on('dialog', (dialog) => wrong.push(`a dialog: ${dialog.message()}`));
    made.on('console', (message) => {
      const asked = ASKED_FOR.some(([place, what]) => place.test(message.location().url) && what.test(message.text()));
      if (['error', 'warning'].includes(message.type()) && !asked) wrong.push(`${message.text()} (${message.location().url})`);
    });
    await made.goto(`${url}${where}`);
    return made;
  }

  /** A page of another site, which may make whatever requests a browser lets out. */
  async function stranger(url) {
    const made = await (await browser.newContext()).newPage();
    await made.goto(url);
    return made;
  }

  async function close() {
    await browser.close();
    assert.deepStrictEqual(wrong, []);
  }

  return { page, stranger, close };
}

/** Waits until the element holds this text. */
async function says(locator, text) {
  try {
    await locator.filter({ hasText: text }).first().waitFor();
  } catch (error) {
    const told = await locator.allInnerTexts();
    throw new Error(`expected ${text}, found ${JSON.stringify(told)}`, { cause: error });
  }
}

/** Against the rules of WCAG 2.2 A and AA, as far as a program can tell. */
async function isAccessible(page) {
  await page.evaluate(axe.source);
  const tags = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice'];
  const { violations } = await page.evaluate((values) => window.axe.run(document, { runOnly: { type: 'tag', values } }), tags);
  const told = violations.map(({ id, help, nodes }) => `${id}: ${help}: ${nodes.map((node) => node.html).join(' ')}`);
  assert.deepStrictEqual(told, []);
}

/** Nothing is wider than the screen, so that nobody scrolls sideways. */
async function isAsWideAs(page, width, name) {
  const real = await page.evaluate(() => document.documentElement.scrollWidth);
  assert.ok(real <= width, `${name} is ${real} pixels wide`);
}

module.exports = { open, says, isAccessible, isAsWideAs };

// Firefox for the tests, over WebDriver BiDi.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { launch } from 'puppeteer-core';
import { DEADLINE_MS, repository } from './service.mjs';

const PLACES = ['/usr/bin/firefox-esr', '/usr/bin/firefox', join(repository, '.hushnet/tools/firefox/firefox')];

/** The Firefox that scripts/setup.sh has unpacked, an installed one, or the one that FIREFOX names. */
export function launchFirefox() {
  const executablePath = process.env.FIREFOX ?? PLACES.find(existsSync);
  if (!executablePath) throw new Error('no Firefox: sh scripts/setup.sh test, or name one in FIREFOX');
  return launch({ browser: 'firefox', executablePath, timeout: DEADLINE_MS, protocolTimeout: DEADLINE_MS });
}

/** A page whose `wrongs` are its errors. */
export async function openFirefoxPage(browser, url) {
  const page = await browser.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.wrongs = [];
  page.on('console', (message) => {
    if (message.type() === 'error') page.wrongs.push(message.text());
  });
  page.on('pageerror', (error) => page.wrongs.push(String(error)));
  await page.goto(url);
  return page;
}

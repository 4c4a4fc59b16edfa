// Chromium for the tests, and pages that note what must not happen in them.

import { existsSync } from 'node:fs';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { DEADLINE_MS, repository } from './service.mjs';

const PLACES = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'];

/** Debian's Chromium, or the one that CHROMIUM names. */
export function launch(options = {}) {
  const executablePath = process.env.CHROMIUM ?? PLACES.find(existsSync);
  if (!executablePath) throw new Error('no Chromium: apt-get install chromium, or name one in CHROMIUM');
  // As root, as in a container, Chromium has no sandbox; the pages are our own.
  return chromium.launch({ executablePath, args: process.getuid?.() === 0 ? ['--no-sandbox'] : [], ...options });
}

/** A page in a context of its own. `page.wrongs` are its errors and requests to other hosts than `url`'s. */
export async function openPage(browser, url, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options });
  const page = await context.newPage();
  page.setDefaultTimeout(DEADLINE_MS);
  page.wrongs = [];
  page.on('console', (message) => {
    // Violations of the page's policy are among these.
    if (message.type() === 'error') page.wrongs.push(message.text());
  });
  page.on('pageerror', (error) => page.wrongs.push(String(error)));
  const { host } = new URL(url);
  const look = (asked) => {
    const { protocol, host: other } = new URL(asked.url());
    if (protocol !== 'data:' && other !== host) page.wrongs.push(`asks ${asked.url()}`);
  };
  page.on('request', look);
  page.on('websocket', look);
  await page.goto(url);
  return page;
}

/** Keeps a picture of the page if SCREENSHOTS names a folder. */
export async function keepPicture(page, name) {
  const folder = process.env.SCREENSHOTS;
  if (!folder) return;
  await mkdir(folder, { recursive: true });
  await page.screenshot({ path: join(folder, `${name}.png`), fullPage: true });
}

/** The picture that the README shows; made anew only on demand, since no two are the same. */
export const pictureOfReadme =
  process.env.UPDATE_SCREENSHOTS === '1' ? join(repository, 'docs/images/console.png') : undefined;

// Drives the pages of Lifeboat in Chromium, as each role: what it must see, what it must not, every flow once.
import { createRequire } from "node:module";
import { existsSync } from "node:fs";
import assert from "node:assert/strict";

const require = createRequire(process.env.NODE_PATH + "/x.js");
const { chromium } = require("playwright-core");
const { LIFEBOAT_SITE: site, LIFEBOAT_PICTURES: pictures, LIFEBOAT_PGDATA: pgdata } = process.env;
const people = JSON.parse(process.env.LIFEBOAT_PEOPLE);
const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
const browser = await chromium.launch({ executablePath, args: ["--no-sandbox", "--disable-dev-shm-usage"] });
const DESK = { width: 1280, height: 900 }, PHONE = { width: 390, height: 844 };
const troubles = [];
let number = 0;

// A page whose console, requests and failures are watched.
async function open(options = {}) {
  const context = await browser.newContext({ viewport: DESK, ...options });
  const page = await context.newPage();
  page.on("console", (m) => { if (m.type() === "error" && !/status of (401|403|404|500)/.test(m.text())) troubles.push(`console: ${m.text()}`); });
  page.on("pageerror", (e) => troubles.push(`script: ${e}`));
  page.on("request", (r) => { if (!r.url().startsWith(site) && !r.url().startsWith("data:")) troubles.push(`request to elsewhere: ${r.url()}`); });
  return page;
}

async function signIn(page, name) {
  await page.goto(site + "/");
  assert.match(page.url(), /\/login/, "a stranger is sent to sign in");
  await page.fill("#token", people[name]);
  await page.press("#token", "Enter");
  await page.waitForURL(site + "/");
}

async function picture(page, name) {
  number += 1;
  await page.screenshot({ path: `${pictures}/${String(number).padStart(2, "0")}-${name}.png`, fullPage: true });
}

// What anybody with a screen reader or a keyboard needs.
async function accessible(page) {
  const found = await page.evaluate(() => {
    const wrong = [];
    const one = (selector) => document.querySelectorAll(selector).length === 1;
    if (!one("main")) wrong.push("not one main");
    if (!one("h1")) wrong.push("not one h1");
    if (document.documentElement.lang !== "en") wrong.push("no language");
    let last = 1;
    for (const h of document.querySelectorAll("h1, h2, h3, h4")) {
      const level = Number(h.tagName[1]);
      if (level > last + 1) wrong.push(`heading ${h.textContent} skips a level`);
      last = level;
    }
    for (const field of document.querySelectorAll("input:not([type=hidden]), select, textarea")) {
      if (!field.labels.length && !field.getAttribute("aria-label")) wrong.push(`${field.name} has no label`);
    }
    for (const control of document.querySelectorAll("a, button")) {
      if (!control.textContent.trim() && !control.getAttribute("aria-label")) wrong.push("a control without a name");
    }
    for (const cell of document.querySelectorAll("thead th")) if (!cell.scope) wrong.push("a header without a scope");
    const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
    if (new Set(ids).size !== ids.length) wrong.push("an id stands twice");
    if (document.documentElement.scrollWidth > innerWidth + 1) wrong.push(`wider than the screen: ${document.documentElement.scrollWidth} > ${innerWidth}`);
    return wrong;
  });
  for (const what of found) troubles.push(`${page.url()}: ${what}`);
}

async function visit(page, path, name) {
  const answer = await page.goto(site + path);
  assert.equal(answer.status(), 200, path);
  await accessible(page);
  await picture(page, name);
}

const pages = [["/", "estate"], ["/environments/production", "environment"], ["/jobs", "jobs"], ["/schedule", "schedule"], ["/approvals", "approvals"]];

// The viewer: everything that there is to see, in light, dark and on a phone; nothing to press.
for (const [mode, options] of [["light", {}], ["dark", { colorScheme: "dark" }], ["phone", { viewport: PHONE, isMobile: true, deviceScaleFactor: 2 }]]) {
  const page = await open(options);
  await page.goto(site + "/login");
  await accessible(page);
  await picture(page, `${mode}-login`);
  await signIn(page, "vera");
  for (const [path, name] of pages) await visit(page, path, `${mode}-${name}`);
  await page.goto(site + "/environments/production");
  await page.click("table a[href*='/drills/']");
  await accessible(page);
  await picture(page, `${mode}-drill`);
  assert.equal(await page.locator("form:not([action='/logout'])").count(), 0, "a viewer has nothing to press");
  for (const path of ["/audit", "/sessions", "/environments/production/ledger", "/environments/production/restore"]) {
    assert.equal((await page.goto(site + path)).status(), 403, path);
  }
  await picture(page, `${mode}-forbidden`);
  await page.context().close();
}

// The keyboard: the first stop skips to the content, and focus can be seen.
{
  const page = await open();
  await signIn(page, "vera");
  await page.keyboard.press("Tab");
  assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the content");
  await page.keyboard.press("Enter");
  assert.equal(await page.evaluate(() => document.activeElement.id), "main");
  await page.keyboard.press("Tab");
  const outline = await page.evaluate(() => getComputedStyle(document.activeElement).outlineStyle);
  assert.notEqual(outline, "none", "what has the focus shows it");
  await page.context().close();
}

// The auditor: the ledger, verified.
{
  const page = await open();
  await signIn(page, "aude");
  await visit(page, "/environments/production/ledger", "ledger");
  await page.click("text=Verify the whole ledger");
  await page.waitForSelector("text=entries hold");
  await picture(page, "ledger-verified");
  await page.click("tbody th a");
  await accessible(page);
  await picture(page, "ledger-entry");
  await visit(page, "/audit", "audit");
  await page.context().close();
}

// The operator: a plan, a request for approval, a job that is followed.
{
  const page = await open();
  await signIn(page, "otto");
  await visit(page, "/environments/production/restore", "restore-form");
  await page.fill("#pgdata", pgdata);
  await page.click("text=Show the plan");
  await page.waitForSelector("text=The plan");
  await accessible(page);
  await picture(page, "restore-plan");
  await page.fill("#reason", "the disk of db-1 died");
  await page.click("text=Ask for approval");
  await page.waitForURL(site + "/approvals");
  assert.equal(await page.locator("button:has-text('Approve')").count(), 0, "an operator does not approve");
  await picture(page, "approval-asked");
  await page.goto(site + "/environments/production");
  await page.selectOption("#kind", "drill-random");
  await page.click("text=Start >> nth=-1");
  await page.waitForSelector("#live .job, #live tr:has-text('asked for by otto')", { timeout: 30000 });
  await picture(page, "job-running");
  // The script takes the job away when it has ended, without a reload by hand.
  await page.waitForFunction(() => !document.querySelector("#live .job"), null, { timeout: 120000 });
  await page.context().close();
}

// The approver: agrees.
{
  const page = await open({ viewport: PHONE, isMobile: true, deviceScaleFactor: 2, colorScheme: "dark" });
  await signIn(page, "petra");
  await visit(page, "/approvals", "phone-approve");
  await page.fill("input[name=reason]", "seen, agreed");
  await page.click("button:has-text('Approve')");
  await page.waitForSelector("text=--approval");
  await accessible(page);
  await picture(page, "phone-approved");
  await page.context().close();
}

// The administrator: ends a session of somebody, who is out at once. All of it without script.
{
  const other = await open();
  await signIn(other, "vera");
  const page = await open({ javaScriptEnabled: false });
  await signIn(page, "ada");
  await visit(page, "/sessions", "sessions");
  // Every session of hers: earlier windows left some behind.
  while (await page.locator("tr:has-text('vera') button").count()) {
    await Promise.all([page.waitForNavigation(), page.locator("tr:has-text('vera') button").first().click()]);
  }
  await other.goto(site + "/jobs");
  assert.match(other.url(), /\/login\?next=%2Fjobs/);
  await page.goto(site + "/environments/production/restore?to=yesterday&pgdata=%2Fa");
  await picture(page, "restore-refused");
  await page.click("text=Sign out");
  await page.waitForURL(site + "/login");
  await page.goto(site + "/");
  assert.match(page.url(), /\/login/);
}

// On paper.
{
  const page = await open();
  await signIn(page, "vera");
  await page.goto(site + "/environments/production");
  await page.pdf({ path: `${pictures}/environment.pdf`, format: "A4" });
}

await browser.close();
assert.deepEqual(troubles, []);
console.log(`${number} pictures in ${pictures}`);

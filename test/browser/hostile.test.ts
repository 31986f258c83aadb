/**
 * Hostile mail in the pages (faults: stored scripts, markup, SVG, CSS, htmx attributes): nothing
 * of it runs or loads. Each check is shown to fail with the wall that it stands for taken away.
 */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Browser, Page } from 'playwright-core'
import type { createWeb } from '../../web/server.ts'
import { needs, ROOT } from '../real.ts'
import type { Mail } from '../web-fake.ts'
import { launch, type Place, serve, signIn } from './place.ts'

/** Marks every element that a stranger's text would make, and every address that it would ask. */
const OWNED = '/owned'

/** Text in a field that breaks out of text and of an attribute, and tries every way to act. */
const FIELD = [
  `"'></title></textarea></pre><b data-owned></b>`,
  `<img src="${OWNED}/img" onerror="alert(1)">`,
  `<script>alert(2)</script><script src="${OWNED}/script"></script>`,
  `<svg onload="alert(3)"><image href="${OWNED}/svg"/></svg>`,
  `<div hx-get="${OWNED}/hx" hx-trigger="load" data-hx-get="${OWNED}/data"></div>`,
  `<hx-partial hx-target="body"><b data-owned></b></hx-partial>`,
  `<link rel="stylesheet" href="${OWNED}/css"><iframe src="${OWNED}/frame"></iframe>`,
  `<meta http-equiv="refresh" content="60;url=${OWNED}/meta"><base href="${OWNED}/">`,
].join('')

/** A body that no sanitiser touched: the frame holds without one. `TRAP` is another server. */
const BODY = [
  '<script>alert(4);parent.postMessage(1,"*");top.location="TRAP/top"</script>',
  '<img src="TRAP/img" onerror="alert(5)"><img src="//TRAPHOST/img2"><img srcset="TRAP/set 1x">',
  '<svg><filter id="f"><feImage href="TRAP/fe"/></filter><image href="TRAP/image"/><script>alert(6)</script><animate onbegin="alert(7)"/><use href="TRAP/use#a"/></svg>',
  '<style>@import "TRAP/import";body{background:url(TRAP/bg)}@font-face{font-family:x;src:url(TRAP/font)}p{font-family:x}</style>',
  '<link rel="stylesheet" href="TRAP/css"><link rel="prefetch" href="TRAP/prefetch"><link rel="preload" as="image" href="TRAP/preload">',
  '<base href="TRAP/base/"><meta http-equiv="refresh" content="0;url=TRAP/refresh">',
  '<iframe src="TRAP/iframe"></iframe><object data="TRAP/object"></object><embed src="TRAP/embed">',
  '<video src="TRAP/video" poster="TRAP/poster"></video><audio src="TRAP/audio"></audio>',
  '<form action="TRAP/form"><input autofocus onfocus="alert(8)"><button id="send">Send</button></form>',
  '<table background="TRAP/table"><tr><td>x</td></tr></table><math href="javascript:alert(9)">x</math>',
  '<a id="out" href="TRAP/click" target="_top" ping="TRAP/ping">click</a>',
  '<div hx-get="/owned/hx-body" hx-trigger="load" hx-on:load="alert(10)"></div>',
].join('')

function hostile(trap: string): readonly Mail[] {
  const html = BODY.replaceAll('TRAPHOST', new URL(trap).host).replaceAll('TRAP', trap)
  const mail: Mail = {
    sender: `${FIELD}@evil.example`,
    from: FIELD,
    recipients: [`${FIELD}@example.com`, 'b@example.com'],
    subject: FIELD,
    findings: [{ rule: FIELD, score: 9, evidence: FIELD }],
    unknown: FIELD,
    state: 'held',
    text: FIELD,
    html,
    headers: [{ name: FIELD, value: FIELD }],
    attachments: [FIELD],
    minutesAgo: 1,
  }
  const { html: _, ...plain } = mail
  return [
    mail,
    { ...plain, minutesAgo: 2 },
    { ...plain, state: 'deferred', reply: FIELD, minutesAgo: 3 },
    { ...plain, state: 'refused', reply: FIELD, minutesAgo: 4 },
    { ...plain, state: 'bounced', reply: FIELD, minutesAgo: 5 },
  ]
}

type Seen = {
  readonly dialogs: string[]
  /** Elements in our pages that a stranger's text made. */
  readonly planted: string[]
  /** Addresses of OWNED that this node was asked for. */
  readonly own: readonly string[]
  /** What the trap was asked for. */
  readonly trapped: readonly string[]
}

/** Walks through every page that shows mail, acts on it, and says what the mail managed to do. */
async function walk(browser: Browser, create?: typeof createWeb, most = 100): Promise<Seen> {
  const trapped: string[] = []
  const trap = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch(request) {
      trapped.push(new URL(request.url).pathname)
      return new Response('trap')
    },
  })
  const mails = hostile(trap.url.href.replace(/\/$/, ''))
  const place = serve({ mails, ...(create === undefined ? {} : { create }) })
  const context = await browser.newContext({ viewport: { width: 1_440, height: 900 } })
  const page = await context.newPage()
  const dialogs: string[] = []
  const planted: string[] = []
  page.on('dialog', (dialog) => {
    dialogs.push(dialog.message())
    void dialog.dismiss()
  })
  try {
    await signIn(page, place)
    for (const path of pathsOf(place).slice(0, most)) {
      await page.goto(place.url + path, { waitUntil: 'networkidle' })
      if ((await page.locator('[data-owned]').count()) > 0) planted.push(path)
    }
    await act(page, place, planted)
  } finally {
    await context.close()
    place.stop()
    await trap.stop(true)
  }
  return { dialogs, planted, own: place.asked.filter((path) => path.includes(OWNED)), trapped }
}

function pathsOf({ admin }: Place): readonly string[] {
  const ids = admin.kept.map(({ id }) => id)
  const [held = ''] = ids
  const waiting = admin.kept.find(({ mail }) => mail.state === 'deferred')?.id
  return [
    '/',
    '/messages',
    `/messages?q=${encodeURIComponent(FIELD)}`,
    '/quarantine',
    `/quarantine?q=${encodeURIComponent(FIELD)}`,
    '/queue',
    ...ids.map((id) => `/messages/${id}`),
    ...['text', 'headers', 'source'].map((view) => `/messages/${held}?view=${view}`),
    `/messages/${held}/delete`,
    `/queue/${waiting}/drop`,
    `/domains/${encodeURIComponent(FIELD)}`,
    `/nowhere/${encodeURIComponent(FIELD)}`,
  ]
}

/** The swaps of htmx, the toasts, and a click on the link inside the mail. */
async function act(page: Page, place: Place, planted: string[]): Promise<void> {
  const look = async (where: string) => {
    if ((await page.locator('[data-owned]').count()) > 0) planted.push(where)
  }
  await page.goto(`${place.url}/quarantine`, { waitUntil: 'networkidle' })
  const rows = page.locator('#list tbody tr')
  if ((await rows.count()) >= 2) {
    await rows.nth(1).locator('a').first().dispatchEvent('click')
    await page.waitForLoadState('networkidle')
    await look('peek')
  }
  const [first] = place.admin.kept
  await page.goto(`${place.url}/messages/${first?.id}`, { waitUntil: 'networkidle' })
  const preview = page.locator('main iframe')
  if ((await preview.count()) === 1) {
    await preview.scrollIntoViewIfNeeded()
    const inside = page.frameLocator('main iframe')
    await inside.locator('#out').dispatchEvent('click')
    await inside.locator('#send').dispatchEvent('click')
    await page.waitForLoadState('networkidle')
  }
  const release = page.locator('#acts form button')
  if ((await release.count()) > 0) {
    await release.first().dispatchEvent('click')
    await page.waitForLoadState('networkidle')
    await look('toast')
  }
}

/** The same web with one wall taken away. */
async function without(file: string, wall: string, instead: string): Promise<typeof createWeb> {
  const root = mkdtempSync(join(tmpdir(), 'postern-web-'))
  made.push(root)
  for (const part of ['web', 'src', 'appliance', 'package.json'])
    cpSync(join(ROOT, part), join(root, part), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  const path = join(root, file)
  const text = readFileSync(path, 'utf8')
  expect(text).toContain(wall)
  writeFileSync(path, text.replaceAll(wall, instead))
  const module = (await import(join(root, 'web/server.ts'))) as { createWeb: typeof createWeb }
  return module.createWeb
}

const made: string[] = []

needs('chromium')('hostile mail in Chromium', () => {
  let browser: Browser

  beforeAll(async () => {
    browser = await launch()
  })
  afterAll(async () => {
    await browser.close()
    for (const root of made) rmSync(root, { recursive: true, force: true })
  })

  test('nothing of it runs, loads, asks or becomes an element of a page', async () => {
    const seen = await walk(browser)
    expect(seen).toEqual({ dialogs: [], planted: [], own: [], trapped: [] })
  }, 60_000)

  test('the same walk finds it when text is not escaped', async () => {
    const create = await without('web/html.ts', 'Bun.escapeHTML(String(hole))', 'String(hole)')
    // The first pages are enough to show it.
    const seen = await walk(browser, create, 7)
    expect(seen.planted.length).toBeGreaterThan(5)
    expect(seen.own.length).toBeGreaterThan(5)
  }, 60_000)

  test('the same walk finds it when the frame has no policy of its own', async () => {
    const create = await without(
      'web/pages/frame.ts',
      "'content-security-policy': FRAME_POLICY,",
      "'content-security-policy': 'sandbox',",
    )
    const seen = await walk(browser, create, 7)
    expect(seen.trapped.length).toBeGreaterThan(5)
  }, 60_000)

  test('a page of another site can neither frame these pages nor send their forms', async () => {
    const place = serve({ mails: hostile('http://127.0.0.1:9') })
    const other = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: () =>
        new Response(
          `<!doctype html><iframe src="${place.url}/quarantine"></iframe><form method="post" action="${place.url}/queue/retry"><button>go</button></form>`,
          { headers: { 'content-type': 'text/html' } },
        ),
    })
    const context = await browser.newContext()
    try {
      const page = await context.newPage()
      await signIn(page, place)
      // Another host, so that it is another site: localhost is not 127.0.0.1.
      await page.goto(other.url.href.replace('127.0.0.1', 'localhost'), {
        waitUntil: 'networkidle',
      })
      const framed = page.frames().map((frame) => frame.url())
      expect(framed.some((url) => url.endsWith('/quarantine') || url.endsWith('/login'))).toBe(
        false,
      )
      const answered = page.waitForResponse((response) => response.url().endsWith('/queue/retry'))
      await page.click('button')
      expect((await answered).status()).toBe(403)
      expect(place.admin.calls).toEqual([])
    } finally {
      await context.close()
      place.stop()
      await other.stop(true)
    }
  }, 30_000)
})

/** The pages in Chromium: what an operator does, on a desk, on a phone, without script. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import { needs } from '../real.ts'
import { CODE, PASSWORD } from '../web-fake.ts'
import { busyDay, ORDINARY } from '../web-mails.ts'
import { launch, type Place, serve, signIn } from './place.ts'

const DESK = { width: 1_440, height: 900 }
const PHONE = { width: 390, height: 844 }

/** Everything that was printed or thrown: under the policy of the pages there is nothing. */
function complaints(page: Page): string[] {
  const found: string[] = []
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) found.push(message.text())
  })
  page.on('pageerror', (error) => found.push(error.message))
  return found
}

function everyPage(place: Place): readonly string[] {
  const held = place.admin.kept.find(({ mail }) => mail.state === 'held' && mail.html !== undefined)
  const many = place.admin.kept.find(({ mail }) => mail.recipients.length > 1)
  const waiting = place.admin.kept.find(({ mail }) => mail.state === 'deferred')
  const states = ['delivered', 'rejected', 'refused', 'bounced', 'inDoubt'].map(
    (state) => `/messages/${place.admin.kept.find(({ mail }) => mail.state === state)?.id}`,
  )
  return [
    '/',
    '/messages',
    '/messages?q=form%3Ax+nothing',
    '/quarantine',
    '/queue',
    '/settings',
    '/settings?group=Limits',
    '/settings?group=Connection',
    '/settings?group=Sender',
    '/settings?group=Content',
    '/settings?group=Engines',
    '/domains/new',
    '/domains/example.com',
    '/domains/example.com/dkim/s2026/remove',
    '/operators',
    '/operators/h.berg',
    '/rules',
    '/rules/own',
    '/rules/maps',
    '/changes',
    '/account',
    '/nowhere',
    `/messages/${held?.id}`,
    `/messages/${held?.id}?view=headers`,
    `/messages/${held?.id}?view=source`,
    `/messages/${held?.id}/delete`,
    `/messages/${many?.id}`,
    `/messages/${waiting?.id}`,
    `/queue/${waiting?.id}/drop`,
    ...states,
  ]
}

needs('chromium')('pages in Chromium', () => {
  let browser: Browser
  let opened: BrowserContext[] = []
  let served: Place[] = []

  beforeAll(async () => {
    browser = await launch()
  })
  afterAll(async () => {
    await browser.close()
    for (const place of served) place.stop()
    served = []
  })

  async function visit(
    place: Place,
    options: Parameters<Browser['newContext']>[0] = {},
  ): Promise<Page> {
    for (const context of opened) await context.close()
    const context = await browser.newContext({ viewport: DESK, ...options })
    opened = [context]
    const page = await context.newPage()
    await signIn(page, place)
    return page
  }

  function node(about: Parameters<typeof serve>[0]): Place {
    const place = serve(about)
    served.push(place)
    return place
  }

  test('who signs in releases a mail beside the list, without a reload, and sees it released', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    const printed = complaints(page)
    await page.click('nav >> text=Quarantine')
    await page.waitForSelector('h1:has-text("Quarantine")')
    await page.evaluate(() => document.body.setAttribute('data-same', ''))
    await page.click('#list a:has-text("Offer: 40 %")')
    await page.waitForSelector('#peek h2:has-text("Offer: 40 %")')
    await page.click('#peek button:has-text("Release to all")')
    await page.waitForSelector('#toasts :has-text("Released “Offer: 40 % off office chairs”")')
    expect(await page.locator('#list a:has-text("Offer: 40 %")').count()).toBe(0)
    expect(await page.locator('body[data-same]').count()).toBe(1)
    expect(await page.locator('#nav a:has-text("Quarantine") span').textContent()).toBe('3')
    expect(place.admin.calls.length).toBe(1)
    await page.goto(`${place.url}/messages?q=is%3Areleased`)
    expect(await page.locator('.track:has-text("Released")').count()).toBe(3)
    await page.click('.data a >> nth=0')
    await page.waitForSelector('.say:has-text("Released")')
    expect(printed).toEqual([])
  })

  test('a rule is given another weight, and one of his own is added, each said where it is wrong', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    const printed = complaints(page)
    await page.click('nav >> text=Rules')
    await page.fill('[aria-label="What GTUBE weighs"]', '4.5')
    await page.press('[aria-label="What GTUBE weighs"]', 'Enter')
    await page.waitForSelector('#toasts :has-text("GTUBE weighs 4.5")')
    expect(place.admin.scores()).toMatchObject([{ rule: 'GTUBE', score: 4.5 }])
    await page.click('text=Add a rule')
    await page.fill('[name=name]', 'our_rule')
    await page.fill('[name=score]', '2')
    await page.fill('[name=pattern]', '(')
    await page.click('button:has-text("Save")')
    await page.waitForSelector('#pattern-e')
    // What was typed stays.
    expect(await page.inputValue('[name=name]')).toBe('our_rule')
    await page.fill('[name=pattern]', 'invoice')
    await page.click('button:has-text("Save")')
    await page.waitForSelector('#toasts :has-text("OUR_RULE is in force")')
    await page.click('tr:has-text("OUR_RULE") button:has-text("Remove")')
    await page.waitForSelector('#toasts :has-text("OUR_RULE is removed")')
    expect(place.admin.ownRules()).toEqual([])
    // The refusal is a 422, which the console of the browser names.
    expect(printed.filter((line) => !line.includes('422'))).toEqual([])
  })

  test('a held mail says who sent it and why, teaches, and leads to who else got its file', async () => {
    const place = node({ mails: ORDINARY })
    const held = place.admin.kept.find(({ mail }) => mail.insight !== undefined)
    const page = await visit(place)
    const printed = complaints(page)
    await page.goto(`${place.url}/messages/${held?.id}`)
    await page.waitForSelector('h2:has-text("Is the sender who they say?")')
    expect(
      await page.locator('text=Without Encrypted archive it would have been delivered.').count(),
    ).toBe(1)
    expect(await page.locator('a[href^="https://pay."]').count()).toBe(0)
    await page.click('button:has-text("Learn as spam")')
    await page.waitForSelector('#toasts :has-text("learnt as spam")')
    await page.click('button:has-text("Check again")')
    await page.waitForSelector('h2:has-text("With the rules of today")')
    await page.click('#content ~ * a, a:has-text("Who else got it") >> nth=0')
    await page.waitForURL(/q=file%3A9c1f04be/)
    expect(place.admin.heldOne(held?.id ?? '').claims).toEqual([])
    expect(printed).toEqual([])
  })

  test('a key is made, checked, told where the DNS has it not, and retired, without a reload', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    const printed = complaints(page)
    await page.goto(`${place.url}/domains/example.com`)
    await page.evaluate(() => document.body.setAttribute('data-same', ''))
    await page.fill('[name=selector]', 'S 2026')
    await page.click('button:has-text("Add a key")')
    await page.waitForSelector('#dkim-selector-e')
    expect(await page.inputValue('[name=selector]')).toBe('S 2026')
    await page.fill('[name=selector]', 's2026')
    await page.click('button:has-text("Add a key")')
    await page.waitForSelector('#toasts :has-text("Added s2026")')
    place.admin.missing = 's2026._domainkey.example.com has no TXT record yet.'
    await page.click('#key-s2026 button:has-text("Check")')
    await page.waitForSelector('#key-s2026 .note:has-text("has no TXT record yet")')
    place.admin.missing = null
    await page.click('#key-s2026 button:has-text("Check")')
    await page.waitForSelector('#key-s2026 .badge:has-text("Signs")')
    await page.click('#key-s2026 button:has-text("Retire")')
    await page.waitForSelector('#key-s2026 .badge:has-text("Retired")')
    expect(await page.locator('body[data-same]').count()).toBe(1)
    expect(printed.filter((line) => !line.includes('422'))).toEqual([])
  })

  test('many are marked and released at once; no mark moves to another mail', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    await page.goto(`${place.url}/quarantine`)
    expect(await page.locator('.bulk').isVisible()).toBe(false)
    await page.check('#list tbody tr:nth-child(1) [type=checkbox]')
    await page.check('#list tbody tr:nth-child(2) [type=checkbox]')
    expect(await page.locator('[data-count]').textContent()).toBe('2 selected')
    await page.click('.bulk button:has-text("Release")')
    await page.waitForSelector('#toasts :has-text("Released 2 mails")')
    expect(await page.locator('#list tbody tr').count()).toBe(2)
    expect(await page.locator('#list tbody :checked').count()).toBe(0)
  })

  test('a second click elsewhere reads who was first', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    const held = place.admin.kept.find(({ mail }) => mail.state === 'held')
    await page.goto(`${place.url}/messages/${held?.id}`)
    await place.admin.release({ name: 'h.berg', role: 'admin' }, held?.id ?? '')
    await page.click('#acts button:has-text("Release")')
    await page.waitForSelector('.note:has-text("Already released by h.berg")')
    expect(await page.locator('#acts').count()).toBe(0)
  })

  test('a wrong value is named at its field, what was typed stays, and a good one can be undone', async () => {
    const place = node({ mails: [] })
    const page = await visit(place)
    const printed = complaints(page)
    await page.goto(`${place.url}/settings`)
    await page.fill('#policy-hold', '40')
    await page.click('button:has-text("Save")')
    await page.waitForSelector('#policy-hold-e:has-text("Reject must be above hold")')
    expect(await page.inputValue('#policy-hold')).toBe('40')
    await page.fill('#policy-hold', '9')
    await page.click('button:has-text("Save")')
    await page.waitForSelector('.toast:has-text("Hold from score: 9")')
    expect(place.admin.setting('policy.hold').value).toBe(9)
    await page.click('.toast button:has-text("Undo")')
    await page.waitForSelector('.toast:has-text("undone")')
    expect(place.admin.setting('policy.hold').value).toBe(8)
    // A 422 is an answer, and Chromium prints each one that is not 200.
    expect(printed.filter((line) => !line.includes('422'))).toEqual([])
  })

  test('new mail is told above the list and moves no row', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    await page.goto(`${place.url}/quarantine`)
    const first = await page.locator('#list tbody tr >> nth=0').getAttribute('id')
    const [mail] = ORDINARY
    if (mail !== undefined) place.admin.add({ ...mail, subject: 'Fresh', minutesAgo: 0 })
    await page.waitForSelector('#fresh :has-text("1 new mail")', { timeout: 15_000 })
    expect(await page.locator('#list tbody tr >> nth=0').getAttribute('id')).toBe(first)
    expect(await page.locator('#nav a:has-text("Quarantine") span').textContent()).toBe('5')
    await page.click('#fresh a')
    await page.waitForSelector('#list a:has-text("Fresh")')
  }, 30_000)

  test('who is signed out is led to the sign-in by the next click', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    await page.goto(`${place.url}/quarantine`)
    await page.context().clearCookies()
    await page.click('#list a >> nth=1')
    await page.waitForURL(`${place.url}/login`)
  })

  test('keys move through the list, mark a row and reach the search', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place)
    await page.goto(`${place.url}/quarantine`)
    await page.keyboard.press('j')
    await page.keyboard.press('x')
    expect(await page.locator('#list tbody tr:nth-child(2) :checked').count()).toBe(1)
    await page.keyboard.press('/')
    await page.keyboard.type('office')
    await page.keyboard.press('Enter')
    await page.waitForURL(/messages\?q=office/)
    expect(await page.locator('#list tbody tr').count()).toBe(3)
  })

  test('no page prints an error under its policy or is wider than a phone, light and dark', async () => {
    const place = node({ mails: busyDay() })
    const author = { name: 'a.ruiz', role: 'admin' } as const
    for (const selector of ['s2026', 'a-selector-as-long-as-one-may-be-40-signs'.slice(0, 40)]) {
      const input = { domain: 'example.com', selector, algorithm: 'rsa' }
      await place.admin.addSigningKey(author, input)
    }
    await place.admin.checkSigningKey(author, 'example.com', 's2026')
    place.admin.keys = place.admin.keys.map((key) => ({
      ...key,
      record: `v=DKIM1; k=rsa; p=${'MIIBIjANBg'.repeat(39)}`,
    }))
    for (const colorScheme of ['light', 'dark'] as const) {
      const page = await visit(place, { viewport: PHONE, colorScheme })
      const printed = complaints(page)
      for (const path of everyPage(place)) {
        await page.goto(place.url + path)
        const width = await page.evaluate(() => document.documentElement.scrollWidth)
        expect([path, width]).toEqual([path, PHONE.width])
        expect([path, ...printed.filter((line) => !line.includes('404'))]).toEqual([path])
        expect([path, await page.locator('h1').count()]).toEqual([path, 1])
      }
    }
  }, 60_000)

  test('on a phone the menu opens and a held mail opens its page', async () => {
    const place = node({ mails: ORDINARY })
    const page = await visit(place, { viewport: PHONE })
    await page.click('button.menu')
    await page.click('#nav a:has-text("Quarantine")')
    await page.waitForSelector('h1:has-text("Quarantine")')
    expect(await page.locator('#peek').isVisible()).toBe(false)
    await page.click('#list a:has-text("Rechnung")')
    await page.waitForURL(/\/messages\/[0-9a-z]{26}$/)
    await page.waitForSelector('.say:has-text("Held in quarantine")')
  })

  test('without script everything is a link or a form: set-up, release, delete, settings, domain', async () => {
    const fresh = node({ mails: [], setup: true })
    const context = await browser.newContext({ javaScriptEnabled: false })
    opened.push(context)
    const page = await context.newPage()
    await page.goto(`${fresh.url}/setup?code=${CODE}`)
    await page.fill('[name=domain]', 'example.com')
    await page.fill('[name=hop]', 'smtp://silent.example:25')
    await page.keyboard.press('Enter')
    await page.waitForSelector('.note.fail:has-text("does not take mail now")')
    await page.fill('[name=hop]', 'smtp://mail.example.com:25')
    await page.click('button:has-text("Try again")')
    await page.waitForSelector('.note.pass')
    await page.click('button:has-text("Save and go on")')
    await page.fill('[name=name]', 'a.ruiz')
    await page.fill('[name=password]', PASSWORD)
    await page.fill('[name=again]', PASSWORD)
    await page.click('button:has-text("Finish")')
    await page.waitForSelector('h1:has-text("Overview")')
    expect(await page.locator('.toast').textContent()).toContain('The set-up is done')
    expect(fresh.admin.domains().map(({ name }) => name)).toEqual(['example.com'])

    const place = node({ mails: ORDINARY })
    await signIn(page, place)
    await page.click('#nav a:has-text("Quarantine")')
    await page.click('#list a:has-text("Rechnung")')
    await page.click('#acts button:has-text("Release")')
    expect(await page.locator('.say >> nth=0').textContent()).toBe('Released')
    expect(await page.locator('.toast').textContent()).toContain('to m.keller@example.com')

    await page.goto(`${place.url}/quarantine`)
    await page.check('#list tbody tr:nth-child(1) [type=checkbox]')
    await page.click('.bulk button:has-text("Delete")')
    await page.click('button:has-text("Delete")')
    expect(await page.locator('.toast').textContent()).toContain('Deleted 1 mail')

    await page.goto(`${place.url}/settings`)
    await page.fill('#policy-hold', '9')
    await page.click('button:has-text("Save")')
    expect(await page.locator('#policy-hold').inputValue()).toBe('9')

    await page.click('text=Add a domain')
    await page.fill('#name', 'clinic.example')
    await page.fill('#hops', 'lmtp://mail.clinic.example:24')
    await page.click('button:has-text("Add the domain")')
    expect(await page.locator('td:has-text("clinic.example")').count()).toBeGreaterThan(0)

    await page.click('[data-theme-toggle]')
    expect(await page.locator('html').getAttribute('data-theme')).toBe('dark')
  }, 40_000)
})

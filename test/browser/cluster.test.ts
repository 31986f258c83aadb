/** The cluster page in Chromium: live by its stream, acted on, by keys, on a phone, in the dark. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import type { Browser, BrowserContext, Page } from 'playwright-core'
import type { Alert } from '../../src/admin/contract.ts'
import { needs } from '../real.ts'
import { nodeId } from '../web-fake-cluster.ts'
import { ORDINARY } from '../web-mails.ts'
import { launch, type Place, serve, signIn } from './place.ts'

const DESK = { width: 1_440, height: 900 }
const PHONE = { width: 390, height: 844 }
const MX3 = `#n-${nodeId('mx3')}`
const DAY_MS = 86_400_000

/** Text that would be markup, in every field that a person or another node fills. */
const EVIL = '<b data-owned></b><img src=/owned onerror=alert(1)><hx-partial hx-target="body">'

/** Everything that was printed or thrown: under the policy of the pages there is nothing. */
function complaints(page: Page): string[] {
  const found: string[] = []
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) found.push(message.text())
  })
  page.on('pageerror', (error) => found.push(error.message))
  return found
}

/** A day after which every part of these pages has something to show. */
function furnish({ admin }: Place, text = 'ticket 812'): void {
  const author = { name: 'a.ruiz', role: 'admin' } as const
  const atMs = admin.cluster().nodes[0]?.admittedMs ?? 0
  admin.invite(author, {})
  admin.addApiToken(author, { name: text, role: 'viewer', days: 90 })
  admin.addListEntry(author, { list: 'block', kind: 'sender', value: text, note: text })
  admin.conflictList = [
    {
      key: 'setting/policy.hold',
      sides: [
        { id: 'a', value: '7', by: text, node: 'mx1', atMs },
        { id: 'b', value: '9', by: 't.nagy', node: text, atMs: atMs + DAY_MS },
      ],
    },
  ]
}

function alertOf(name: string, words = `${name} does not answer`): Alert {
  return {
    id: `dead ${nodeId(name)}`,
    kind: 'dead',
    level: 'bad',
    node: { id: nodeId(name), name },
    sinceMs: 0,
    title: words,
    meaning: '14 mails wait.',
    advice: words,
    command: `postern remove ${name}`,
  }
}

/** The page is the same one: it was not loaded again. */
async function mark(page: Page): Promise<() => Promise<boolean>> {
  await page.evaluate(() => document.body.setAttribute('data-same', ''))
  return async () => (await page.locator('body[data-same]').count()) === 1
}

needs('chromium')('the cluster in Chromium', () => {
  let browser: Browser
  let contexts: BrowserContext[] = []
  let places: Place[] = []

  beforeAll(async () => {
    browser = await launch()
  })
  afterEach(async () => {
    for (const context of contexts) await context.close()
    for (const place of places) place.stop()
    contexts = []
    places = []
  })
  afterAll(async () => {
    await browser.close()
  })

  async function open(
    path: string,
    options: Parameters<Browser['newContext']>[0] = {},
  ): Promise<{ readonly place: Place; readonly page: Page; readonly printed: string[] }> {
    const place = serve({ mails: ORDINARY })
    places.push(place)
    const context = await browser.newContext({ viewport: DESK, ...options })
    contexts.push(context)
    const page = await context.newPage()
    await signIn(page, place)
    const printed = complaints(page)
    await page.goto(place.url + path)
    return { place, page, printed }
  }

  test('three nodes; one dies and comes back, and the open page says so by itself', async () => {
    const { place, page, printed } = await open('/cluster')
    await place.admin.listening(1)
    const same = await mark(page)
    expect(await page.locator('.nodes tbody tr').count()).toBe(3)
    expect(await page.locator('.matrix tbody td:has-text("0.4 ms")').count()).toBe(6)
    expect(await page.locator('#banner .note').count()).toBe(0)
    place.admin.turn('mx3', 'dead', { lagRows: 14 })
    await page.waitForSelector('#banner .note.dead:has-text("mx3 does not answer")')
    // One event swaps them all, one after another.
    for (const shown of [
      `${MX3} .badge:has-text("Dead")`,
      `${MX3}:has-text("14 rows wait for it")`,
      '#nav a:has-text("Cluster") span:has-text("2 of 3")',
      '#peers b:has-text("mx3")',
      '#living:has-text("2 of 3 nodes alive")',
      '.matrix td:has-text("no link")',
      '#happened li:first-child:has-text("mx3 is dead")',
    ]) {
      await page.waitForSelector(shown)
    }
    expect(await page.locator('.matrix td:has-text("no link")').count()).toBe(2)
    expect(await page.locator('.matrix td:has-text("not known")').count()).toBe(2)
    place.admin.turn('mx3', 'alive', { lagRows: 0 })
    await page.waitForSelector('#banner:not(:has(.note))', { state: 'attached' })
    expect([await same(), printed]).toEqual([true, []])
  })

  test('what somebody types and a token that was shown stay when the page moves', async () => {
    const { place, page } = await open('/cluster')
    await place.admin.listening(1)
    await page.fill('#add [name=uses]', '3')
    place.admin.turn('mx3', 'dead')
    await page.waitForSelector('#banner .note.dead')
    expect(await page.inputValue('#add [name=uses]')).toBe('3')
    await page.click('#add button')
    await page.waitForSelector('#oneliner')
    expect(await page.locator('#tokens .badge:has-text("Open")').count()).toBe(1)
    place.admin.turn('mx3', 'alive')
    await page.waitForSelector('#banner:not(:has(.note))', { state: 'attached' })
    await page.waitForSelector('#oneliner:has-text("--pinnedpubkey")')
  })

  test('the line is copied by its button; without a clipboard it is marked', async () => {
    const { place, page } = await open('/cluster')
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write'])
    await page.click('#add button')
    await page.click('.copy button >> nth=0')
    await page.waitForSelector('.copy button:has-text("Copied")')
    const copied = await page.evaluate(() => navigator.clipboard.readText())
    expect(copied).toMatch(/^curl -fsSk --pinnedpubkey '\S+' https:\S+ \| sh -s -- pj1_\w+$/)
    expect(place.admin.tokens.length).toBe(1)
    await page.context().clearPermissions()
    await page.evaluate(() => {
      Object.defineProperty(navigator, 'clipboard', { value: undefined })
    })
    await page.click('.copy button >> nth=1')
    await page.waitForSelector('.copy button:has-text("Press Ctrl C")')
    const marked = await page.evaluate(() => getSelection()?.toString())
    expect(marked).toMatch(/^postern join pj1_\w+$/)
  })

  test('drain and undrain by their buttons, without a reload', async () => {
    const { place, page, printed } = await open('/cluster')
    const same = await mark(page)
    await page.click(`${MX3} button:has-text("Drain")`)
    await page.waitForSelector('#toasts :has-text("mx3 takes no new mail")')
    await page.waitForSelector(`${MX3} .badge:has-text("Draining")`)
    await page.waitForSelector('#banner .note.draining')
    await page.click(`${MX3} button:has-text("Undrain")`)
    await page.waitForSelector(`${MX3} .badge:has-text("Alive")`)
    expect(place.admin.calls.map((call) => call.split(' ')[1])).toEqual(['drain', 'undrain'])
    expect([await same(), printed]).toEqual([true, []])
    // The swapped page listens again, and the one before does not.
    place.admin.turn('mx2', 'dead')
    await page.waitForSelector('#banner .note.dead')
    await place.admin.listening(1)
  })

  test('paused nothing moves and nothing is asked; going on shows what was missed', async () => {
    const { place, page } = await open('/cluster')
    await place.admin.listening(1)
    const button = page.locator('[data-pause]')
    const closed = page.evaluate(
      () =>
        new Promise<void>((resolve) =>
          addEventListener('htmx:sse:close', () => resolve(), { once: true }),
        ),
    )
    await button.click()
    await closed
    expect(await button.getAttribute('aria-pressed')).toBe('true')
    expect(await page.locator('#live').textContent()).toStartWith('Paused')
    await place.admin.listening(0)
    place.admin.turn('mx3', 'dead')
    expect(await page.locator(`${MX3} .badge`).textContent()).toBe('Alive')
    await button.click()
    await page.waitForSelector(`${MX3} .badge:has-text("Dead")`)
    await page.waitForSelector('#live:has-text("Ready")')
  })

  test('a stream that breaks is opened again by itself', async () => {
    const { place, page } = await open('/cluster')
    await place.admin.listening(1)
    place.web.close()
    expect(place.admin.listeners.size).toBe(0)
    place.admin.turn('mx3', 'dead')
    await page.waitForSelector(`${MX3} .badge:has-text("Dead")`)
    await place.admin.listening(1)
  }, 15_000)

  test('an alert comes and goes on the open page and as a badge on every other one', async () => {
    const { place, page, printed } = await open('/alerts')
    await place.admin.listening(1)
    expect(await page.locator('#alerts h3').textContent()).toBe('All is well')
    expect(await page.locator('#bell').isVisible()).toBe(false)
    place.admin.alertList = [alertOf('mx3')]
    place.admin.turn('mx3', 'dead')
    await page.waitForSelector('#alerts h2:has-text("mx3 does not answer")')
    expect(await page.locator('#bell').textContent()).toBe('1 alert')
    await page.click('#alerts a:has-text("Remove mx3")')
    await page.waitForSelector('h1:has-text("Remove mx3?")')
    await page.click('#bell')
    await page.waitForSelector('#alerts h2')
    await place.admin.listening(1)
    const again = await mark(page)
    place.admin.alertList = []
    place.admin.turn('mx3', 'alive')
    await page.waitForSelector('#alerts h3:has-text("All is well")')
    expect(await page.locator('#bell').isVisible()).toBe(false)
    expect([await again(), printed]).toEqual([true, []])
  })

  test('without script an alert is read, and its buttons lead on', async () => {
    const { place, page } = await open('/', { javaScriptEnabled: false })
    place.admin.alertList = [alertOf('mx3')]
    await page.goto(`${place.url}/`)
    await page.click('#bell')
    expect(await page.locator('#alerts h2').textContent()).toBe('mx3 does not answer')
    expect(await page.locator('#alerts code').textContent()).toBe('postern remove mx3')
    await page.click('#alerts a:has-text("Remove mx3")')
    expect(await page.locator('h1').textContent()).toBe('Remove mx3?')
    await page.goto(`${place.url}/queue`)
    await page.click('main a:has-text("Only one copy")')
    expect(await page.locator('main [aria-current=true]').textContent()).toBe('Only one copy')
  })

  test('held mail that may have been released is released anyway, without a reload', async () => {
    const [mail] = ORDINARY
    const { place, page, printed } = await open('/')
    if (mail === undefined) throw new Error('no mail')
    const more = { on: 'mx3', copies: ['mx1'], doubtMinutes: 9, minutesAgo: 0 }
    const id = place.admin.add({ ...mail, ...more })
    place.admin.turn('mx3', 'dead')
    await page.goto(`${place.url}/messages/${id}`)
    const same = await mark(page)
    expect(await page.locator('#acts button').count()).toBe(0)
    await page.click('.note button:has-text("Release anyway")')
    await page.waitForSelector('#toasts :has-text("Released")')
    expect(await page.locator('.say >> nth=0').textContent()).toBe('Released')
    expect([await same(), printed]).toEqual([true, []])
  })

  test('a page without a stream learns of a death too', async () => {
    const { place, page } = await open('/operators')
    place.admin.turn('mx3', 'dead')
    await page.waitForSelector('#banner .note.dead', { timeout: 15_000 })
    await page.waitForSelector('#nav a:has-text("Cluster") span:has-text("2 of 3")')
  }, 20_000)

  test('one of two values is kept, and the card is gone', async () => {
    const { place, page, printed } = await open('/')
    furnish(place)
    await page.goto(`${place.url}/settings`)
    const same = await mark(page)
    expect(await page.locator('#nav a:has-text("Conflicts") span').textContent()).toBe('1')
    await page.click('.conflict button:has-text("Keep 9")')
    await page.waitForSelector('#toasts :has-text("settled on all nodes")')
    await page.waitForSelector('.conflict', { state: 'detached' })
    await page.waitForSelector('#nav a:has-text("Conflicts")', { state: 'detached' })
    expect(place.admin.calls.at(-1)).toBe('a.ruiz: keep setting/policy.hold b')
    expect([await same(), printed]).toEqual([true, []])
  })

  test('a node is removed after its name was typed', async () => {
    const { place, page } = await open('/cluster')
    place.admin.turn('mx3', 'dead')
    await page.click(`${MX3} a:has-text("Remove")`)
    await page.waitForSelector('h1:has-text("Remove mx3?")')
    await page.fill('main [name=name]', 'mx2')
    await page.keyboard.press('Enter')
    await page.waitForSelector('#name-e:has-text("Type mx3 to confirm")')
    await page.fill('main [name=name]', 'mx3')
    await page.keyboard.press('Enter')
    await page.waitForSelector('h1:has-text("mx3 is removed")')
    expect(await page.locator('main').textContent()).toContain('Passwords of next hops.')
    await page.click('main a:has-text("Cluster")')
    await page.waitForSelector('.nodes')
    expect(await page.locator('.nodes tbody tr').count()).toBe(2)
  })

  test('a list entry: the error stands at its field and what was typed stays', async () => {
    const { place, page, printed } = await open('/lists')
    const form = page.locator('form[aria-label="Add to the allow list"]')
    await form.locator('[name=value]').fill('mail.example')
    await form.locator('[name=note]').fill('scanner')
    await form.locator('button').click()
    await page.waitForSelector('#allow-value-e')
    expect(await form.locator('[name=note]').inputValue()).toBe('scanner')
    await form.locator('[name=value]').fill('192.0.2.7')
    await form.locator('button').click()
    await page.waitForSelector('.entries:has-text("192.0.2.7")')
    expect(place.admin.entries.length).toBe(1)
    expect(printed.filter((line) => !line.includes('422'))).toEqual([])
  })

  test('by keys alone: to the drain button, pressed, and the focus is not lost by a change', async () => {
    const { place, page } = await open('/cluster')
    await place.admin.listening(1)
    const drain = page.locator(`${MX3} button:has-text("Drain")`)
    await drain.focus()
    place.admin.turn('mx2', 'suspect')
    await page.waitForSelector('#banner .note.suspect')
    expect(await drain.evaluate((button) => button === document.activeElement)).toBe(true)
    await page.keyboard.press('Enter')
    await page.waitForSelector(`${MX3} .badge:has-text("Draining")`)
    const seen = new Set<string>()
    await page.goto(`${place.url}/cluster`)
    for (let i = 0; i < 60; i += 1) {
      await page.keyboard.press('Tab')
      const words = await page.evaluate(() => {
        const at = document.activeElement
        const outlined = at !== null && getComputedStyle(at).outlineStyle !== 'none'
        return outlined ? (at.textContent || at.getAttribute('aria-label') || '').trim() : ''
      })
      seen.add(words)
    }
    for (const words of ['Pause live updates', 'Drain', 'Undrain', 'Remove', 'Make a token'])
      expect([words, seen.has(words)]).toEqual([words, true])
  })

  test('narrow and dark nothing is wider than the screen, hidden, or without contrast', async () => {
    for (const colorScheme of ['light', 'dark'] as const) {
      const { place, page, printed } = await open('/', { viewport: PHONE, colorScheme })
      furnish(place)
      place.admin.turn('mx2', 'draining')
      place.admin.turn('mx3', 'dead')
      place.admin.alertList = [alertOf('mx3'), { ...alertOf('mx2'), level: 'warn' }]
      for (const path of [
        '/cluster',
        '/alerts',
        '/queue',
        '/settings?group=Cluster',
        '/cluster/leave',
        `/cluster/nodes/${nodeId('mx3')}/remove`,
        '/lists',
        '/conflicts',
        '/operators',
        '/settings',
      ]) {
        await page.goto(place.url + path)
        const width = await page.evaluate(() => document.documentElement.scrollWidth)
        expect([path, width]).toEqual([path, PHONE.width])
        expect([path, await page.locator('h1').count()]).toEqual([path, 1])
        expect([path, ...(await faint(page))]).toEqual([path])
      }
      await page.goto(`${place.url}/cluster`)
      await page.click(`${MX3} a:has-text("Remove")`)
      await page.waitForSelector('h1:has-text("Remove mx3?")')
      expect(printed).toEqual([])
    }
  }, 30_000)

  test('names of nodes, authors and entries are text, also when they come by the stream', async () => {
    const { place, page, printed } = await open('/cluster')
    await place.admin.listening(1)
    furnish(place, EVIL)
    const message = `A clock ${EVIL}`
    place.admin.alarmList.push({ kind: 'config', message, advice: EVIL })
    place.admin.alertList.push(alertOf('mx2', EVIL))
    place.admin.events.push({ atMs: 0, node: nodeId('mx2'), name: EVIL, what: EVIL, detail: EVIL })
    place.admin.turn('mx2', 'dead', { name: EVIL, version: EVIL, peer: [EVIL] })
    await page.waitForSelector('#banner .note.dead')
    for (const path of [
      '/cluster',
      '/settings',
      '/conflicts',
      '/lists',
      '/operators',
      '/changes',
      '/alerts',
    ]) {
      if (path !== '/cluster') await page.goto(place.url + path)
      expect([path, await page.locator('[data-owned]').count()]).toEqual([path, 0])
      expect(await page.locator('main').textContent()).toContain('data-owned')
    }
    expect(place.asked.filter((path) => path.includes('owned'))).toEqual([])
    expect(printed).toEqual([])
  })
})

/** Texts of the cards and notes whose colour has less than 4.5:1 on what is behind them. */
async function faint(page: Page): Promise<readonly string[]> {
  return await page.evaluate(() => {
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true })
    if (canvas === null) return ['no canvas']
    const paint = (...colours: readonly string[]) => {
      canvas.clearRect(0, 0, 1, 1)
      for (const colour of colours) {
        canvas.fillStyle = colour
        canvas.fillRect(0, 0, 1, 1)
      }
      const [red = 0, green = 0, blue = 0] = canvas.getImageData(0, 0, 1, 1).data
      const light = (value: number) => {
        const part = value / 255
        return part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4
      }
      return 0.2126 * light(red) + 0.7152 * light(green) + 0.0722 * light(blue)
    }
    const found: string[] = []
    for (const element of document.querySelectorAll<HTMLElement>('main *, .side *')) {
      const own = [...element.childNodes].some(
        (node) => node.nodeType === Node.TEXT_NODE && (node.textContent ?? '').trim() !== '',
      )
      if (!own || element.offsetParent === null || element.closest('.sr, [aria-disabled]')) continue
      const behind: string[] = []
      for (let at: HTMLElement | null = element; at !== null; at = at.parentElement)
        behind.unshift(getComputedStyle(at).backgroundColor)
      const [back, front] = [paint(...behind), paint(...behind, getComputedStyle(element).color)]
      const ratio = (Math.max(back, front) + 0.05) / (Math.min(back, front) + 0.05)
      if (ratio < 4.5) found.push(`${element.textContent?.trim()}: ${ratio.toFixed(2)}`)
    }
    return found
  })
}

/** A real node seen in Chromium: set up by its code, mail over SMTP, held, looked at, released. */
import { expect, test } from 'bun:test'
import { Postern } from '../process/postern.ts'
import { Sink } from '../process/sink.ts'
import { needs } from '../real.ts'
import { CODE_LINE, sendMail } from './node.ts'
import { launch } from './place.ts'

const GTUBE = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'
const PASSWORD = 'a long sentence that nobody guesses'

needs('chromium')('a node in Chromium', () => {
  test('a newcomer sets it up, sees mail pass and be held, releases it, and it arrives once', async () => {
    const sink = new Sink()
    const node = await Postern.start()
    const browser = await launch()
    try {
      const page = await (await browser.newContext()).newPage()
      const printed: string[] = []
      page.on('console', (message) => {
        if (['error', 'warning'].includes(message.type())) printed.push(message.text())
      })
      const [address = ''] = CODE_LINE.exec(node.stdout) ?? []
      await page.goto(address)
      await page.fill('[name=domain]', 'example.com')
      await page.fill('[name=hop]', sink.nextHop)
      await page.click('button:has-text("Try it")')
      await page.waitForSelector('.note.pass:has-text("answers")')
      await page.click('button:has-text("Save and go on")')
      await page.fill('[name=name]', 'a.ruiz')
      await page.fill('[name=password]', PASSWORD)
      await page.fill('[name=again]', PASSWORD)
      await page.click('button:has-text("Finish")')
      await page.waitForSelector('#todo')

      await sendMail(node.smtpPort, {
        to: 'm.keller@example.com',
        subject: 'Minutes of Tuesday',
        text: 'Hello',
      })
      const subject = '"><img src=/owned onerror=alert(1)>'
      await sendMail(node.smtpPort, { to: 'm.keller@example.com', subject, text: GTUBE })
      expect(await sink.until(() => sink.arrivals.length === 1, 10_000)).toBe(true)

      await page.goto(`http://127.0.0.1:${node.webPort}/messages`)
      await page.waitForSelector('.track:has-text("Delivered")')
      expect(await page.locator('.track:has-text("Held")').count()).toBe(1)
      await page.click('#nav a:has-text("Quarantine")')
      await page.click(`#list a:has-text("onerror")`)
      await page.goto(`http://127.0.0.1:${node.webPort}/messages/${await heldId(node)}`)
      expect(await page.locator('h1').textContent()).toBe(subject)
      expect(await page.locator('.say >> nth=0').textContent()).toBe('Held in quarantine')
      await page.locator('iframe').scrollIntoViewIfNeeded()
      await page.frameLocator('iframe').locator('text=GTUBE-STANDARD').waitFor()
      await page.click('#acts button:has-text("Release")')
      await page.waitForSelector('.toast:has-text("to m.keller@example.com")')
      expect(await sink.until(() => sink.arrivals.length === 2, 10_000)).toBe(true)
      expect(sink.with(GTUBE).length).toBe(1)
      await page.goto(`http://127.0.0.1:${node.webPort}/quarantine`)
      await page.waitForSelector('h3:has-text("Quarantine is empty")')
      expect(printed).toEqual([])
      expect((await node.status()).held).toBe(0)
    } finally {
      await browser.close()
      await node.dispose()
      sink.stop()
    }
  }, 60_000)
})

async function heldId(node: Postern): Promise<string> {
  const { rows } = await node.api<{ rows: { id: string }[] }>('/api/v1/quarantine')
  return rows[0]?.id ?? ''
}

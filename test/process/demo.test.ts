/** The demo: a newcomer's first minute, as the process that `run start` becomes. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Subprocess } from 'bun'
import { chromium } from 'playwright-core'
import { pause, SystemClock } from '../../src/base/clock.ts'
import type { Arrival } from '../../src/cli/demo/sink.ts'
import { freePort } from '../ports.ts'
import { needs, posternCommand } from '../real.ts'
import { isAlive, treeOf } from './proc.ts'
import { Wire, type WireReply } from './wire.ts'

const clock = new SystemClock()

class Demo {
  readonly smtp = freePort()
  readonly web = freePort()
  readonly sink = freePort()
  readonly page = freePort()
  out = ''
  readonly child: Subprocess<'ignore', 'pipe', 'pipe'>
  readonly #ended: Promise<void>

  /** `temporary` stands in for the directory of temporary files. */
  constructor(temporary: string, ...words: readonly string[]) {
    const ports = [
      '--smtp',
      this.smtp,
      '--web',
      this.web,
      '--sink',
      this.sink,
      '--sink-web',
      this.page,
    ]
    const options = ports.map((one) => (typeof one === 'number' ? `127.0.0.1:${one}` : one))
    this.child = Bun.spawn(posternCommand('demo', ...options, ...words), {
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
      env: { ...process.env, TMPDIR: temporary },
    })
    this.#ended = this.#read()
  }

  async #read(): Promise<void> {
    const decoder = new TextDecoder()
    for await (const piece of this.child.stdout) this.out += decoder.decode(piece, { stream: true })
  }

  async says(text: string): Promise<boolean> {
    return await until(() => this.out.includes(text), 20_000)
  }

  url(path: string): string {
    return `http://127.0.0.1:${this.page}${path}`
  }

  async arrivals(): Promise<readonly Arrival[]> {
    return (await (await fetch(this.url('/arrivals'))).json()) as readonly Arrival[]
  }

  /** Ends it as Ctrl-C does; the exit code, and how long it took. */
  async interrupt(): Promise<{ readonly code: number; readonly tookMs: number }> {
    const from = clock.monoMs()
    this.child.kill('SIGINT')
    const code = await this.child.exited
    await this.#ended
    return { code, tookMs: clock.monoMs() - from }
  }
}

async function say(wire: Wire, line: string): Promise<WireReply> {
  wire.send(`${line}\r\n`)
  return await wire.reply()
}

async function until(what: () => boolean | Promise<boolean>, timeoutMs: number): Promise<boolean> {
  const deadline = clock.monoMs() + timeoutMs
  while (!(await what())) {
    if (clock.monoMs() > deadline) return false
    await pause(clock, 20)
  }
  return true
}

type Traced = { readonly accept: string; readonly score: number }
type Held = { readonly id: string; readonly subject: string; readonly rules: readonly string[] }

describe('the demo', () => {
  const temporary = mkdtempSync(join(tmpdir(), 'postern-demo-test-'))
  let demo: Demo

  const cli = async <Value>(...words: readonly string[]): Promise<Value> => {
    const [dir = ''] = readdirSync(temporary)
    const child = Bun.spawn(posternCommand('--data', join(temporary, dir), ...words, '--json'), {
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [out, err] = [
      await new Response(child.stdout).text(),
      await new Response(child.stderr).text(),
    ]
    if ((await child.exited) !== 0) throw new Error(`${words.join(' ')}: ${err}`)
    return JSON.parse(out) as Value
  }

  beforeAll(async () => {
    demo = new Demo(temporary)
    expect(await demo.says('Ctrl-C stops it')).toBe(true)
  })
  afterAll(async () => {
    demo.child.kill('SIGKILL')
    await demo.child.exited
    rmSync(temporary, { recursive: true, force: true })
  })

  test('tells where its pages are and the one-time code', () => {
    const code = /One-time code +(\S+)/.exec(demo.out)?.[1]
    expect(code).toMatch(/^\S{6,}$/)
    expect(demo.out).toContain(`http://127.0.0.1:${demo.web}/setup?code=${code}`)
    expect(demo.out).toContain(`http://127.0.0.1:${demo.page}`)
    expect(demo.out.match(/ 250 2\.0\.0 /g)).toHaveLength(4)
    expect(demo.out).toMatch(/malformed mail +550 5\.7\.1 /)
  })

  test('asks its own name server, so that it runs without any network', async () => {
    const rows = await cli<Traced[]>('trace', 'from:lena@supplier.example')
    // An SPF record is in favour of it, and only the name server of the demo has one.
    expect(rows).toMatchObject([{ accept: 'accepted' }])
    expect(rows[0]?.score).toBeLessThan(0)
  })

  test('holds the bad samples with their reasons', async () => {
    const list = () => cli<Held[]>('quarantine', 'list')
    // Each node held one of them, and tells the others.
    expect(await until(async () => (await list()).length === 2, 10_000)).toBe(true)
    const rules = (await list()).flatMap((one) => one.rules)
    for (const rule of ['GTUBE', 'EICAR']) expect(rules).toContain(rule)
  })

  test('relays the good samples to the sink, each once', async () => {
    expect(await until(async () => (await demo.arrivals()).length >= 2, 10_000)).toBe(true)
    const arrived = await demo.arrivals()
    expect(arrived.map(({ subject }) => subject).sort()).toEqual([
      'Delivery on Thursday',
      'Three new novels – and a reading on Friday',
    ])
    expect(arrived.map(({ times }) => times)).toEqual([1, 1])
  })

  test('a released mail arrives in the sink once, for both recipients', async () => {
    const held = await cli<Held[]>('quarantine', 'list')
    const spam = held.find(({ rules }) => rules.includes('GTUBE'))
    await cli('quarantine', 'release', spam?.id ?? '')
    const arrived = async () => (await demo.arrivals()).find((one) => one.subject === spam?.subject)
    const whole = async () => (await arrived())?.recipients.length === 2
    expect(await until(whole, 10_000)).toBe(true)
    expect(await arrived()).toMatchObject({ times: 1 })
    await expect(cli('quarantine', 'release', spam?.id ?? '')).rejects.toThrow('already released')
    expect(await arrived()).toMatchObject({ times: 1 })
  })

  test('the button sends the samples again, as new mails', async () => {
    const before = (await demo.arrivals()).length
    const again = await fetch(demo.url('/again'), { method: 'POST', redirect: 'manual' })
    expect(again.status).toBe(303)
    const grown = async () => (await demo.arrivals()).length === before + 2
    expect(await until(grown, 10_000)).toBe(true)
    for (const { times } of await demo.arrivals()) expect(times).toBe(1)
    const held = async () => (await cli<Held[]>('quarantine', 'list')).length
    expect(await until(async () => (await held()) === 3, 10_000)).toBe(true)
  })

  needs('chromium')('in a browser', () => {
    test('the button works, and nothing is blocked, missing or loaded from elsewhere', async () => {
      const browser = await chromium.launch({
        executablePath: '/usr/bin/chromium',
        args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking'],
      })
      const mistakes: string[] = []
      try {
        const page = await browser.newPage()
        page.on('console', (message) => mistakes.push(message.text()))
        page.on('request', (request) => {
          if (!request.url().startsWith(demo.url('/'))) mistakes.push(request.url())
        })
        await page.goto(demo.url('/'))
        const rows = await page.locator('#arrivals tr').count()
        expect(rows).toBeGreaterThan(0)
        await page.getByRole('button', { name: 'Send the sample mails again' }).click()
        await page
          .locator('#arrivals tr')
          .nth(rows + 1)
          .waitFor({ timeout: 10_000 })
      } finally {
        await browser.close()
      }
      expect(mistakes).toEqual([])
    })
  })

  type Status = { readonly nodes: readonly { readonly name: string; readonly state: string }[] }
  const stateOf = async (name: string) =>
    (await cli<Status>('status')).nodes.find((node) => node.name === name)?.state

  test('has three nodes; one is stopped and started, and the others show it', async () => {
    const all = async () =>
      (await cli<Status>('status')).nodes.every(({ state }) => state === 'alive')
    expect((await cli<Status>('status')).nodes.map(({ name }) => name).sort()).toEqual([
      'mx1',
      'mx2',
      'mx3',
    ])
    expect(await until(all, 10_000)).toBe(true)
    const toggle = (name: string) =>
      fetch(demo.url(`/toggle?node=${name}`), { method: 'POST', redirect: 'manual' })
    expect((await toggle('mx2')).status).toBe(303)
    expect(await until(async () => (await stateOf('mx2')) === 'suspect', 20_000)).toBe(true)
    expect(await (await fetch(demo.url('/'))).text()).toContain('Start mx2')
    expect((await toggle('mx2')).status).toBe(303)
    expect(await until(all, 20_000)).toBe(true)
    expect((await toggle('mx9')).status).toBe(404)
  }, 60_000)

  test('no other page can press the button, and no foreign name leads to this one', async () => {
    const origin = { origin: 'http://evil.example' }
    const pressed = await fetch(demo.url('/again'), { method: 'POST', headers: origin })
    expect(pressed.status).toBe(403)
    const host = { host: `evil.example:${demo.page}` }
    expect((await fetch(demo.url('/arrivals'), { headers: host })).status).toBe(403)
  })

  /** Delivers a message straight to the sink, past the gateway. */
  const intoSink = async (recipient: string, message: string): Promise<void> => {
    const wire = await Wire.connect({ port: demo.sink })
    await wire.reply()
    const envelope = ['EHLO a.example', 'MAIL FROM:<a@a.example>', `RCPT TO:<${recipient}>`, 'DATA']
    for (const line of envelope) await say(wire, line)
    expect((await say(wire, message)).code).toBe(250)
    wire.drop()
  }

  test('the sink counts a mail that comes twice, and not a copy for somebody else', async () => {
    const mail = (id: string) => `Subject: ${id}\r\nMessage-ID: <${id}@a.example>\r\n\r\nHello\r\n.`
    for (const recipient of ['b@b.example', 'c@b.example', 'b@b.example']) {
      await intoSink(recipient, mail('twice'))
    }
    for (const recipient of ['b@b.example', 'c@b.example']) await intoSink(recipient, mail('once'))
    const timesOf = async (subject: string) =>
      (await demo.arrivals()).find((one) => one.subject === subject)?.times
    expect(await timesOf('twice')).toBe(2)
    expect(await timesOf('once')).toBe(1)
  })

  test('the page of the sink shows what strangers wrote as text', async () => {
    await intoSink(
      'b@b.example',
      'From: "<b>" <a@a.example>\r\nSubject: <script>alert(1)</script>&amp;\r\n\r\nHello\r\n.',
    )
    const response = await fetch(demo.url('/'))
    const text = await response.text()
    expect(text).toContain('&lt;script&gt;alert(1)&lt;/script&gt;&amp;amp;')
    expect(text).not.toContain('<script')
    expect(response.headers.get('content-security-policy')).toStartWith("default-src 'none'; ")
  })

  test('Ctrl-C ends it within 2 s with 0, its children too, and leaves no file', async () => {
    const tree = treeOf(demo.child.pid)
    const { code, tookMs } = await demo.interrupt()
    expect(code).toBe(0)
    expect(tookMs).toBeLessThan(2_000)
    expect(await until(() => !tree.some(isAlive), 1_000)).toBe(true)
    expect(readdirSync(temporary)).toEqual([])
  })
})

test('a directory that was given is kept, and used again', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'postern-demo-kept-'))
  const data = join(dir, 'data')
  try {
    for (let start = 0; start < 2; start += 1) {
      const demo = new Demo(dir, '--data', data)
      expect(await demo.says(`The data stays in ${data}.`)).toBe(true)
      expect((await demo.interrupt()).code).toBe(0)
      expect(existsSync(data)).toBe(true)
    }
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}, 60_000)

describe('a port in use ends the demo with 1 and names the port and the option', () => {
  for (const option of ['smtp', 'web', 'sink', 'page'] as const) {
    const name = option === 'page' ? '--sink-web' : `--${option}`
    test(name, async () => {
      const temporary = mkdtempSync(join(tmpdir(), 'postern-demo-busy-'))
      const taken = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
      try {
        const demo = new Demo(temporary, name, `127.0.0.1:${taken.port}`)
        const err = await new Response(demo.child.stderr).text()
        const last = err.trimEnd().split('\n').at(-1) ?? ''
        expect(await demo.child.exited).toBe(1)
        expect(last).toStartWith('postern: ')
        expect(last).toContain(String(taken.port))
        expect(last).toContain(name)
        expect(readdirSync(temporary)).toEqual([])
      } finally {
        taken.stop(true)
        rmSync(temporary, { recursive: true, force: true })
      }
    })
  }
})

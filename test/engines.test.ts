/** Scanners beside us: what they say, and every way in which they fail to say it. */
import { afterAll, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { parseEngine } from '../src/config/lines.ts'
import { initialSettings } from '../src/config/schema.ts'
import type { InspectionJob, Inspectors } from '../src/mail/inspect/contract.ts'
import { Engines } from '../src/mail/inspect/engines/engines.ts'
import { PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { withEngines } from '../src/mail/inspect/whole.ts'
import type { Body } from '../src/message/body.ts'
import { NO_FACTS } from '../src/message/verdict.ts'
import { ENVELOPE } from './look.ts'

const clock = new SystemClock()
const stops: (() => void)[] = []
const directory = mkdtempSync(join(tmpdir(), 'postern-engines-'))
afterAll(() => {
  for (const stop of stops) stop()
  rmSync(directory, { recursive: true })
})

type Peer = { readonly port: number; readonly heard: Buffer[] }

/** A server that answers by what it has heard so far; null: it waits for more. */
function listen(answer: (heard: Buffer) => string | Buffer | null, close = false): Peer {
  const heard: Buffer[] = []
  const server = Bun.listen<{ answered: boolean }>({
    hostname: '127.0.0.1',
    port: 0,
    socket: {
      open: (socket) => {
        socket.data = { answered: false }
        heard.length = 0
      },
      data: (socket, data) => {
        heard.push(Buffer.from(data))
        if (socket.data.answered) return
        const said = answer(Buffer.concat(heard))
        if (said === null) return
        socket.data.answered = true
        socket.write(said)
        if (close) socket.end()
      },
    },
  })
  stops.push(() => server.stop(true))
  return { port: server.port, heard }
}

function job(
  lines: readonly string[],
  body: Body | string,
  more: Partial<InspectionJob> = {},
): InspectionJob {
  return {
    envelope: ENVELOPE,
    body: typeof body === 'string' ? { kind: 'memory', bytes: Buffer.from(body) } : body,
    inspectors: [],
    config: {
      ...PLAIN_CONFIG,
      settings: { ...initialSettings(), 'engines.list': lines, 'engines.timeout': 1 },
    },
    clientName: null,
    sha256: null,
    budgetMs: 5_000,
    ...more,
  }
}

function engines() {
  const lines: string[] = []
  const engine = new Engines({ clock, observer: new Observer(clock, (text) => lines.push(text)) })
  return { engine, lines }
}

const MAIL = 'Subject: x\r\n\r\nHello.\r\n'
const instream = (heard: Buffer): boolean => heard.subarray(-4).equals(Buffer.alloc(4))

async function ask(
  kind: string,
  answer: Parameters<typeof listen>[0],
  close = false,
  outage = 'defer',
) {
  const { port, heard } = listen(answer, close)
  const { engine } = engines()
  const said = await engine.ask(job([`one ${kind}://127.0.0.1:${port}/scan ${outage}`], MAIL))
  return { ...said, heard: Buffer.concat(heard).toString('latin1') }
}

describe('clamd', () => {
  test('gets the whole mail in frames, and says clean', async () => {
    const { findings, unknowns, heard } = await ask('clamd', (all) =>
      instream(all) ? 'stream: OK\0' : null,
    )
    expect({ findings, unknowns }).toEqual({ findings: [], unknowns: [] })
    expect(heard).toBe(`zINSTREAM\0\0\0\0${String.fromCharCode(MAIL.length)}${MAIL}\0\0\0\0`)
  })

  test('names a virus', async () => {
    const { findings, unknowns } = await ask('clamd', (all) =>
      instream(all) ? 'stream: Eicar FOUND\0' : null,
    )
    expect(findings).toEqual([
      { rule: 'VIRUS_ONE', score: 12, evidence: 'one knows this as Eicar.' },
    ])
    expect(unknowns).toEqual([])
  })

  test('a body in files is read piece by piece', async () => {
    const path = join(directory, 'body')
    const bytes = Buffer.alloc(300_000, 'abcdefghij')
    writeFileSync(path, bytes)
    const { port, heard } = listen((all) => (instream(all) ? 'stream: OK\0' : null))
    const body: Body = {
      kind: 'extents',
      extents: [
        { path, offset: 10, length: 100_000 },
        { path, offset: 200_000, length: 100_000 },
      ],
      sizeBytes: 200_000,
    }
    const { engine } = engines()
    const { unknowns } = await engine.ask(job([`one clamd://127.0.0.1:${port}`], body))
    expect(unknowns).toEqual([])
    const frames: Buffer[] = []
    const all = Buffer.concat(heard).subarray('zINSTREAM\0'.length)
    for (let at = 0; at < all.length; ) {
      const length = all.readUInt32BE(at)
      frames.push(all.subarray(at + 4, at + 4 + length))
      at += 4 + length
    }
    const whole = Buffer.concat([bytes.subarray(10, 100_010), bytes.subarray(200_000)])
    expect(Buffer.concat(frames).equals(whole)).toBe(true)
  })

  const unknown: readonly (readonly [string, Parameters<typeof listen>[0], boolean?])[] = [
    [
      'says that the mail is too large',
      (all) => (all.length > 20 ? 'INSTREAM size limit exceeded. ERROR\0' : null),
    ],
    [
      'says OK before it has the mail',
      (all) => (all.length >= 10 && !instream(all) ? 'stream: OK\0' : null),
    ],
    ['closes without an answer', () => '', true],
    ['closes in the middle of its answer', (all) => (instream(all) ? 'stream: O' : null), true],
    ['never answers', () => null],
    ['answers without end', (all) => (instream(all) ? Buffer.alloc(2_000_000, 'x') : null)],
    ['answers nonsense', (all) => (instream(all) ? 'stream: OK but not\0' : null)],
  ]
  for (const [name, answer, close = false] of unknown) {
    test(`one that ${name} is unknown, never clean`, async () => {
      // More than the buffers between us hold: an early answer comes before its end.
      const { port } = listen(answer, close)
      const { engine } = engines()
      const line = `one clamd://127.0.0.1:${port} hold`
      const said = await engine.ask(job([line], 'x'.repeat(40_000_000)))
      expect(said.findings).toEqual([])
      expect(said.unknowns).toMatchObject([{ inspector: 'one', outage: 'hold' }])
      expect(engine.health([line])).toMatchObject([{ name: 'one' }])
    })
  }

  test('one that is not there is unknown', async () => {
    const { port } = listen(() => null)
    stops.pop()?.()
    const { engine } = engines()
    const { unknowns } = await engine.ask(job([`one clamd://127.0.0.1:${port}`], MAIL))
    expect(unknowns).toMatchObject([{ inspector: 'one', outage: 'defer' }])
  })
})

describe('ICAP', () => {
  const whole = (all: Buffer): boolean => all.subarray(-5).toString() === '0\r\n\r\n'
  test('204 is clean, and the mail was sent as a chunked body', async () => {
    const { findings, unknowns, heard } = await ask('icap', (all) =>
      whole(all) ? 'ICAP/1.0 204 No Content\r\n\r\n' : null,
    )
    expect({ findings, unknowns }).toEqual({ findings: [], unknowns: [] })
    expect(heard).toContain('RESPMOD icap://127.0.0.1:')
    expect(heard).toContain('/scan ICAP/1.0\r\n')
    expect(heard).toEndWith(`\r\n\r\n${MAIL.length.toString(16)}\r\n${MAIL}\r\n0\r\n\r\n`)
    // The places of the parts are where the header says.
    const [, header, body] = /res-hdr=(\d+), res-body=(\d+)/.exec(heard) ?? []
    const parts = heard.slice(heard.indexOf('\r\n\r\n') + 4)
    expect(parts.slice(Number(header))).toStartWith('HTTP/1.1 200 OK')
    expect(parts.slice(Number(body))).toStartWith(MAIL.length.toString(16))
  })

  test('an infection is named', async () => {
    const said =
      'ICAP/1.0 200 OK\r\nX-Infection-Found: Type=0; Resolution=2; Threat=Eicar-Test;\r\nEncapsulated: res-hdr=0\r\n\r\n'
    const { findings } = await ask('icap', (all) => (whole(all) ? said : null))
    expect(findings).toEqual([
      { rule: 'VIRUS_ONE', score: 12, evidence: 'one knows this as Eicar-Test.' },
    ])
  })

  for (const said of [
    'ICAP/1.0 200 OK\r\n\r\n',
    'ICAP/1.0 500 Server error\r\n\r\n',
    'HTTP/1.1 204 No\r\n\r\n',
  ]) {
    test(`"${said.slice(0, 15)}" without a reason is unknown`, async () => {
      const { findings, unknowns } = await ask('icap', (all) => (whole(all) ? said : null))
      expect(findings).toEqual([])
      expect(unknowns).toHaveLength(1)
    })
  }
})

describe('SpamAssassin', () => {
  const answer = (score: string) =>
    `SPAMD/1.1 0 EX_OK\r\nContent-length: 20\r\nSpam: True ; ${score}\r\n\r\nBAYES_99,HTML_MESSAGE`
  const whole = (all: Buffer): boolean => all.includes('Hello.')
  test('its threshold is worth ours for holding', async () => {
    const { findings, heard } = await ask(
      'spamd',
      (all) => (whole(all) ? answer('5.0 / 5.0') : null),
      true,
    )
    expect(findings).toEqual([
      { rule: 'ONE_SCORE', score: 8, evidence: 'one gives it 5.0 of 5.0: BAYES_99,HTML_MESSAGE.' },
    ])
    expect(heard).toStartWith(`SYMBOLS SPAMC/1.5\r\nContent-length: ${MAIL.length}\r\n\r\n`)
  })
  test('its voice is bounded both ways', async () => {
    const high = await ask('spamd', (all) => (whole(all) ? answer('1000.0 / 5.0') : null), true)
    const low = await ask('spamd', (all) => (whole(all) ? answer('-99 / 5.0') : null), true)
    expect([high.findings[0]?.score, low.findings[0]?.score]).toEqual([12, -3])
  })
  for (const said of [
    'SPAMD/1.1 76 Bad header line\r\n\r\n',
    'SPAMD/1.1 0 EX_OK\r\n\r\n',
    'HELLO\r\n\r\n',
    answer('x / y'),
  ]) {
    test(`"${said.slice(0, 20)}" is unknown`, async () => {
      const { unknowns } = await ask('spamd', (all) => (whole(all) ? said : null), true)
      expect(unknowns).toHaveLength(1)
    })
  }
})

describe('Rspamd', () => {
  function serve(answer: unknown, status = 200) {
    const asked: Request[] = []
    const server = Bun.serve({
      hostname: '127.0.0.1',
      port: 0,
      fetch: async (request) => {
        asked.push(request.clone() as Request)
        await request.text()
        return typeof answer === 'string'
          ? new Response(answer, { status })
          : Response.json(answer, { status })
      },
    })
    stops.push(() => void server.stop(true))
    return { port: server.port ?? 0, asked }
  }

  test('its sum counts, the heaviest symbols are the evidence', async () => {
    const { port, asked } = serve({
      score: 7.5,
      required_score: 15,
      action: 'add header',
      symbols: { A: { score: 5 }, B: { score: 2.5 }, C: { score: 0 } },
    })
    const { engine } = engines()
    const { findings, unknowns } = await engine.ask(job([`one rspamd://127.0.0.1:${port}`], MAIL))
    expect(unknowns).toEqual([])
    expect(findings).toEqual([
      { rule: 'ONE_SCORE', score: 7.5, evidence: 'one gives it 7.5 of 15: A 5, B 2.5.' },
    ])
    expect(asked[0]?.headers.get('ip')).toBe('192.0.2.1')
    expect(asked[0]?.headers.get('rcpt')).toBe('b@ours.example')
  })

  for (const [answer, status] of [
    [{ error: 'x' }, 500],
    [{ is_skipped: true, action: 'no action', score: 0, required_score: 15 }, 200],
    ['no JSON', 200],
    [{ score: 'x' }, 200],
    [null, 200],
  ] as const) {
    test(`${JSON.stringify(answer)} with ${status} is unknown`, async () => {
      const { port } = serve(answer, status)
      const { engine } = engines()
      const { unknowns } = await engine.ask(job([`one rspamd://127.0.0.1:${port}`], MAIL))
      expect(unknowns).toHaveLength(1)
    })
  }
})

test('all are asked at once, and answers stand in the order of the settings', async () => {
  let waiting = 0
  let release = (): void => {}
  const both = new Promise<void>((resolve) => {
    release = resolve
  })
  const server = Bun.serve({
    hostname: '127.0.0.1',
    port: 0,
    fetch: async () => {
      waiting += 1
      if (waiting === 2) release()
      await both
      return Response.json({ score: 1, required_score: 15, symbols: {} })
    },
  })
  stops.push(() => void server.stop(true))
  const { engine } = engines()
  const lines = ['b', 'a'].map((name) => `${name} rspamd://127.0.0.1:${server.port}`)
  const { findings, unknowns } = await engine.ask(job(lines, MAIL))
  expect(unknowns).toEqual([])
  expect(findings.map(({ rule }) => rule)).toEqual(['B_SCORE', 'A_SCORE'])
})

test('the same mail again is not asked of who answered, and of who did not', async () => {
  let asked = 0
  const good = listen((all) => {
    if (!instream(all)) return null
    asked += 1
    return 'stream: OK\0'
  })
  const bad = listen((all) => (instream(all) ? 'x ERROR\0' : null))
  const { engine } = engines()
  const lines = [`good clamd://127.0.0.1:${good.port}`, `bad clamd://127.0.0.1:${bad.port}`]
  const same = job(lines, MAIL, { sha256: 'a'.repeat(64) })
  for (const _ of [1, 2]) expect((await engine.ask(same)).unknowns).toHaveLength(1)
  await engine.ask(job(lines, MAIL, { sha256: 'b'.repeat(64) }))
  expect(asked).toBe(2)
  expect(engine.health(lines).map(({ name }) => name)).toEqual(['bad'])
})

test('what engines say is added to what our own inspectors say', async () => {
  const finding = { rule: 'GTUBE', score: 10, evidence: 'Seen.' }
  const pool = {
    inspect: async () => ({ findings: [finding], unknowns: [], facts: NO_FACTS }),
  } as unknown as Inspectors
  const { port } = listen((all) => (instream(all) ? 'stream: Eicar FOUND\0' : null))
  const { engine } = engines()
  const whole = withEngines(pool, engine)
  const { findings } = await whole.inspect(job([`one clamd://127.0.0.1:${port}`], MAIL))
  expect(findings.map(({ rule }) => rule)).toEqual(['GTUBE', 'VIRUS_ONE'])
  expect((await whole.inspect(job([], MAIL))).findings).toEqual([finding])
})

describe('a line of the settings', () => {
  const rows: readonly (readonly [string, object | null])[] = [
    [
      'av clamd://192.0.2.9',
      { name: 'av', kind: 'clamd', host: '192.0.2.9', port: 3310, path: '', outage: 'defer' },
    ],
    [
      'av icap://[2001:db8::1]:1345/avscan hold',
      { host: '2001:db8::1', port: 1345, path: 'avscan', outage: 'hold' },
    ],
    ['sa spamd://sa.example.com pass', { host: 'sa.example.com', port: 783, outage: 'pass' }],
    ['r rspamd://localhost:11333', { host: 'localhost' }],
    ['av clamd://192.0.2.9:0', null],
    ['av clamd://192.0.2.9:70000', null],
    ['av other://192.0.2.9', null],
    ['AV clamd://192.0.2.9', null],
    ['clamd://192.0.2.9', null],
    ['av clamd://192.0.2.9 never', null],
  ]
  for (const [line, expected] of rows) {
    test(line, () => {
      if (expected === null) expect(parseEngine(line)).toBeNull()
      else expect(parseEngine(line)).toMatchObject(expected)
    })
  }
})

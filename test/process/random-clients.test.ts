/** Thousands of clients that send rubbish: the node lives, stays the size it was, and delivers nothing. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { SeededRandom } from '../../src/base/random.ts'
import { COUNTS, PATIENCE_MS, SEED } from './counts.ts'
import { Postern } from './postern.ts'
import { cpuMsOf, descriptorsOf, megabytes, memoryOf, treeOf } from './proc.ts'
import { Sink } from './sink.ts'
import { Wire } from './wire.ts'

const AT_A_TIME = 20
/** No sentence of it names a domain of ours, so that no honest mail can come of it. */
const WORDS = [
  ...[
    'EHLO ',
    'HELO ',
    'MAIL FROM:',
    'RCPT TO:',
    'DATA',
    'RSET',
    'NOOP',
    'QUIT',
    'VRFY ',
    'STARTTLS',
    'HELP',
    'BDAT 5 LAST',
    'AUTH PLAIN ',
    'GET / HTTP/1.1',
  ],
  ...[
    '<>',
    '<a@b.example>',
    '<"',
    'x'.repeat(600),
    'SIZE=-1',
    ' BODY=8BITMIME',
    ' SMTPUTF8',
    ' NOTIFY=',
    '\\',
    '@',
    '<@a,@b:c@d>',
  ],
  ...[
    '\r\n',
    '\r\n',
    '\r\n',
    '\r\n',
    '\n',
    '\r',
    '\0',
    '.',
    '\r\n.\r\n',
    '\r\n..\r\n',
    ' ',
    '\xff\xfe',
    '\x16\x03\x01',
  ],
]

describe(`${COUNTS.randomClients} clients with random bytes, seed ${SEED}`, () => {
  const sink = new Sink()
  let node: Postern
  const rss: { clients: number; bytes: number }[] = []
  let descriptors = 0
  beforeAll(async () => {
    node = await Postern.start()
    await node.addDomain('example.com', sink.nextHop)
    // The first tenth warms up what grows once: code, pools, the log.
    await run(Math.ceil(COUNTS.randomClients / 10), SEED)
    descriptors = descriptorsOf(node.pid)
    for (let part = 1; part <= 9; part += 1) {
      rss.push({ clients: (part * COUNTS.randomClients) / 10, bytes: memoryOf(node.pid).rssBytes })
      await run(Math.ceil(COUNTS.randomClients / 10), SEED + part)
    }
    rss.push({ clients: COUNTS.randomClients, bytes: memoryOf(node.pid).rssBytes })
  }, PATIENCE_MS)
  afterAll(async () => {
    await node?.dispose()
    sink.stop()
  })

  async function run(clients: number, seed: number): Promise<void> {
    let left = clients
    const lane = async (at: number): Promise<void> => {
      const random = new SeededRandom(seed * 1_000 + at)
      while (left > 0) {
        left -= 1
        await visit(node.smtpPort, random)
      }
    }
    await Promise.all(Array.from({ length: AT_A_TIME }, (_, at) => lane(at)))
  }

  test('the node lives and greets', async () => {
    expect(node.running).toBeTrue()
    const wire = await Wire.connect({ port: node.smtpPort })
    expect((await wire.reply()).code).toBe(220)
    wire.drop()
    expect((await node.status()).ready).toBeTrue()
  })

  test('nothing failed inside it', () => {
    expect(node.log()).not.toMatch(/"level":"error"|AssertionError|TypeError|RangeError/)
  })

  test('no message came of it', async () => {
    expect((await node.status()).queue.messages).toBe(0)
    expect(sink.connections).toBe(0)
  })

  test('it stays the size it was', () => {
    // The lowest of several readings: what garbage collection has not looked at yet is no leak.
    const floor = (from: number, to: number) =>
      Math.min(...rss.slice(from, to).map(({ bytes }) => bytes))
    const grown = floor(-4, rss.length) - floor(0, 4)
    const perClient = Math.round(slope(rss.map(({ clients, bytes }) => [clients, bytes])))
    console.info(
      `random clients: ${rss.map(({ bytes }) => megabytes(bytes)).join(', ')}; slope ${perClient} bytes a client, floor grown by ${megabytes(grown)}`,
    )
    // What breathes is some MB; a leak of 4 KB a client is 48 MB between them in the short run.
    expect(grown).toBeLessThan(32 * 1_048_576)
    expect(descriptorsOf(node.pid)).toBeLessThanOrEqual(descriptors + 10)
  })

  test('20 MB of lines of dots cost at most a second of CPU', async () => {
    const wire = await Wire.connect({ port: node.smtpPort })
    await wire.reply()
    for (const line of [
      'EHLO x.example',
      'MAIL FROM:<s@client.example>',
      'RCPT TO:<dots@example.com>',
      'DATA',
    ]) {
      wire.send(`${line}\r\n`)
      expect((await wire.reply()).code).toBeLessThan(400)
    }
    const lines = Buffer.from('..\r\n'.repeat(5_242_880), 'latin1')
    const before = cpuMsOf(node.pid)
    const children = () =>
      treeOf(node.pid)
        .slice(1)
        .reduce((sum, pid) => sum + cpuMsOf(pid), 0)
    const childrenBefore = children()
    wire.send('Subject: dots\r\n\r\n')
    wire.send(lines)
    await wire.drained()
    wire.send('.\r\n')
    expect((await wire.reply(60_000)).code).toBe(250)
    const received = cpuMsOf(node.pid) - before
    await sink.until(() => sink.arrivals.length > 0, 60_000)
    const delivered = cpuMsOf(node.pid) - before
    console.info(
      `20 MB of dots: main process ${received} ms of CPU until 250, ${delivered} ms until delivered; inspectors ${children() - childrenBefore} ms`,
    )
    expect(received).toBeLessThanOrEqual(1_000)
    expect(sink.arrivals[0]?.dirt).toEqual([])
    expect(sink.arrivals[0]?.sizeBytes).toBeGreaterThan(15 * 1_048_576)
    wire.drop()
  }, 120_000)
})

/** One client: connects, says something, and leaves in one of the ways clients leave. Never throws. */
async function visit(port: number, random: SeededRandom): Promise<void> {
  let wire: Wire
  try {
    wire = await Wire.connect({ port })
  } catch {
    return
  }
  const kind = random.below(4)
  try {
    if (random.below(3) > 0) await wire.reply(5_000)
    for (let n = random.below(12); n >= 0; n -= 1) {
      wire.send(kind === 0 ? random.bytes(1 + random.below(400)) : sentence(random))
      if (random.below(3) === 0) await wire.drained()
    }
    switch (random.below(4)) {
      case 0:
        wire.reset()
        break
      case 1:
        wire.shut()
        await wire.rest(200)
        break
      case 2:
        wire.send('\r\nQUIT\r\n')
        await wire.rest(100)
        break
      default:
        wire.drop()
    }
  } catch {
    // A refusal in the middle is as good an end as any.
  } finally {
    wire.drop()
  }
}

function sentence(random: SeededRandom): string {
  let text = ''
  for (let n = 1 + random.below(8); n > 0; n -= 1) text += WORDS[random.below(WORDS.length)] ?? ''
  return text
}

/** Least squares: units of y for one of x. */
function slope(points: readonly (readonly [number, number])[]): number {
  const meanX = points.reduce((sum, [x]) => sum + x, 0) / points.length
  const meanY = points.reduce((sum, [, y]) => sum + y, 0) / points.length
  let above = 0
  let below = 0
  for (const [x, y] of points) {
    above += (x - meanX) * (y - meanY)
    below += (x - meanX) ** 2
  }
  return above / below
}

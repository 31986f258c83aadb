/** How a node ends while mail is under way (L09), and what a log that nobody reads does to it (L20). */
import { describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { Load, settleAccount } from './ledger.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()
const MAILS = 3_000
/** What a pipe of Linux holds at most; a write that does not fit whole leaves some of it empty. */
const PIPE_BYTES = 65_536

/** A client whose DATA is under way: half of its mail is out. */
async function halfSent(node: Postern): Promise<Wire> {
  const wire = await Wire.connect({ port: node.smtpPort })
  await wire.reply()
  for (const line of ['EHLO client.example', 'MAIL FROM:<ann@sender.example>']) {
    wire.send(`${line}\r\n`)
    await wire.reply()
  }
  wire.send('RCPT TO:<bob@example.com>\r\n')
  await wire.reply()
  wire.send('DATA\r\n')
  expect((await wire.reply()).code).toBe(354)
  wire.send('Subject: half a mail\r\n\r\nthe first half\r\n')
  return wire
}

async function withNode(run: (node: Postern, sink: Sink) => Promise<void>): Promise<void> {
  const sink = new Sink()
  const node = await Postern.start()
  try {
    await node.addDomain('example.com', sink.nextHop)
    await run(node, sink)
  } finally {
    await node.dispose()
    sink.stop()
  }
}

describe('a signal while a mail is under way', () => {
  for (const signal of ['SIGTERM', 'SIGHUP', 'SIGINT'] as const) {
    test(`${signal}: its client reads what became of it, the node ends with 0, and no half mail goes out`, async () => {
      await withNode(async (node, sink) => {
        const wire = await halfSent(node)
        const ended = node.ended()
        node.signal(signal)
        const { code } = await wire.reply()
        expect(code).toBe(421)
        wire.drop()
        expect(await ended).toBe(0)
        await node.begin()
        expect((await node.status()).queue.messages).toBe(0)
        expect(sink.arrivals).toEqual([])
      })
    }, 60_000)
  }

  test('a second SIGTERM ends at once what waits for a slow next hop, and its mail is kept', async () => {
    await withNode(async (node, sink) => {
      const asked = Promise.withResolvers<void>()
      sink.manners = {
        dot: () => {
          asked.resolve()
          return { reply: '451 4.3.0 Too late', waitMs: 30_000 }
        },
      }
      const load = oneMail(node, 1)
      await load.finished()
      expect(load.ledger.acked).toBe(1)
      await asked.promise
      const ended = node.ended()
      node.signal('SIGTERM')
      // Two signals close together are one wish.
      await pause(clock, 700)
      const secondMs = clock.monoMs()
      node.signal('SIGTERM')
      expect(await ended).toBe(128 + 15)
      // Waiting for the next hop would take five.
      expect(clock.monoMs() - secondMs).toBeLessThan(3_000)
      sink.manners = {}
      await node.begin()
      await node.command('queue', 'retry')
      expect(await node.queueEmpty(20_000)).toBe(true)
      expect(settleAccount(load.ledger, sink.arrivals)).toMatchObject({ lost: [], corrupt: [] })
    })
  }, 90_000)
})

function oneMail(node: Postern, seed: number): Load {
  return new Load({
    port: node.smtpPort,
    domain: 'example.com',
    connections: 1,
    seed,
    sizes: [600],
    mails: 1,
  })
}

test('a log whose reader stands still stops no mail', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'postern-ends-'))
  const fifo = join(dir, 'log')
  await Bun.$`mkfifo ${fifo}`.quiet()
  // It opens the pipe and reads nothing.
  const reader = Bun.spawn(['/bin/sh', '-c', `exec 9<"${fifo}"; read nothing`], {
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  const sink = new Sink()
  const node = await Postern.start({
    wrapper: ['/bin/sh', '-c', `exec "$@" 2>"${fifo}"`, 'sh'],
    environment: { POSTERN_LOG_LEVEL: 'debug' },
  })
  try {
    await node.addDomain('example.com', sink.nextHop)
    const load = new Load({
      port: node.smtpPort,
      domain: 'example.com',
      connections: 8,
      seed: 20,
      sizes: [600],
      mails: MAILS,
    })
    await load.finished()
    expect(await node.queueEmpty(60_000)).toBe(true)
    expect(load.ledger.acked).toBe(MAILS)
    const full = await Bun.$`dd if=${fifo} iflag=nonblock bs=1M count=1`.quiet()
    expect(full.stdout.length).toBeGreaterThan(PIPE_BYTES / 2)
    expect(settleAccount(load.ledger, sink.arrivals)).toMatchObject({ lost: [], corrupt: [] })
    expect(await node.stop()).toBe(0)
  } finally {
    await node.dispose()
    reader.kill('SIGKILL')
    await reader.exited
    sink.stop()
    rmSync(dir, { recursive: true, force: true })
  }
}, 180_000)

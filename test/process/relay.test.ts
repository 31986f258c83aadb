/** Mail from a stock client through a real node to a recording next hop: exactly once, whole. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { needs } from '../real.ts'
import { COUNTS, PATIENCE_MS } from './counts.ts'
import { Load, settleAccount } from './ledger.ts'
import { Postern } from './postern.ts'
import { startPostfix } from './postfix.ts'
import { Sink } from './sink.ts'

const SIZES = [
  { name: '4 KB', bytes: 4_096, count: COUNTS.relay.small },
  { name: '50 KB', bytes: 51_200, count: COUNTS.relay.middle },
  { name: '1 MB', bytes: 1_048_576, count: COUNTS.relay.large },
] as const
const CONNECTIONS = [1, 10, 100] as const

needs('postfix')('smtp-source through a node', () => {
  const sink = new Sink()
  let node: Postern
  beforeAll(async () => {
    node = await Postern.start()
    await node.addDomain('example.com', sink.nextHop)
  }, 60_000)
  afterAll(async () => {
    await node?.dispose()
    sink.stop()
  })

  for (const { name, bytes, count } of SIZES) {
    for (const connections of CONNECTIONS) {
      test(
        `${count} messages of ${name} over ${connections} connections arrive exactly once`,
        async () => {
          const before = sink.arrivals.length
          const source = Bun.spawn(
            [
              '/usr/sbin/smtp-source',
              ...['-s', String(connections), '-m', String(count), '-l', String(bytes)],
              ...['-f', 'sender@client.example', '-t', `r${bytes}c${connections}@example.com`],
              `127.0.0.1:${node.smtpPort}`,
            ],
            { stdout: 'pipe', stderr: 'pipe', stdin: 'ignore' },
          )
          const [said, code] = await Promise.all([
            new Response(source.stderr).text(),
            source.exited,
          ])
          // smtp-source ends with 0 only when each of its messages got its 250.
          expect({ code, said }).toEqual({ code: 0, said: '' })
          await sink.until(() => sink.arrivals.length - before >= count, PATIENCE_MS)
          expect(await node.queueEmpty(30_000)).toBeTrue()
          const came = sink.arrivals.slice(before)
          expect(came.length).toBe(count)
          const ids = new Set(came.map(({ head }) => / id ([0-9a-z]{26})\b/.exec(head)?.[1]))
          expect(ids.size).toBe(count)
          expect(ids.has(undefined)).toBeFalse()
          expect(came.filter(({ dirt }) => dirt.length > 0)).toEqual([])
          expect(came.filter(({ sizeBytes }) => sizeBytes < bytes)).toEqual([])
          sink.arrivals.length = before
        },
        PATIENCE_MS,
      )
    }
  }

  test('nothing was delivered twice and nothing was doubted', async () => {
    expect(await node.metric('postern_possible_duplicates_total')).toBe(0)
    // deliver.connections is 20; one that has said QUIT may still be seen beside its successor.
    expect(sink.openMost).toBeLessThanOrEqual(22)
  })
})

needs('postfix', 'root')('a real Postfix as next hop', () => {
  const sink = new Sink()
  let node: Postern
  let postfix: Awaited<ReturnType<typeof startPostfix>>
  beforeAll(async () => {
    postfix = await startPostfix(sink.port)
    node = await Postern.start()
    await node.addDomain('example.com', `smtp://127.0.0.1:${postfix.port}`)
  }, 60_000)
  afterAll(async () => {
    await node?.dispose()
    await postfix?.stop()
    sink.stop()
  })

  test('mail passes Postfix behind us and arrives whole', async () => {
    const load = new Load({
      port: node.smtpPort,
      domain: 'example.com',
      connections: 4,
      seed: 7,
      sizes: [500, 60_000, 700_000],
      mails: 40,
    })
    await load.finished()
    expect(load.ledger.acked).toBe(40)
    await sink.until(() => sink.arrivals.length >= 40, 60_000)
    const account = settleAccount(load.ledger, sink.arrivals)
    expect(account).toMatchObject({ lost: [], phantom: [], corrupt: [], duplicates: [] })
  }, 90_000)
})

/** The ledger finds what is lost, doubled, changed or delivered after a refusal, or it proves nothing. */
import { expect, test } from 'bun:test'
import { needs } from '../real.ts'
import { Load, settleAccount } from './ledger.ts'
import { startPostfix } from './postfix.ts'
import { dirtOf, Sink, unstuff } from './sink.ts'

async function sendTo(sink: Sink, mails: number): Promise<Load> {
  const load = new Load({
    port: sink.port,
    domain: 'example.com',
    connections: 5,
    seed: 1,
    sizes: [100, 5_000, 300_000],
    mails,
  })
  await load.finished()
  return load
}

test('all that a sink took is accounted for', async () => {
  const sink = new Sink()
  const { ledger } = await sendTo(sink, 60)
  const account = settleAccount(ledger, sink.arrivals)
  expect(account).toEqual({
    acked: 60,
    refused: 0,
    indeterminate: 0,
    lost: [],
    phantom: [],
    corrupt: [],
    resolved: 0,
    duplicates: [],
  })
  sink.stop()
})

test('a mail that is missing, doubled, changed or was refused is found', async () => {
  const sink = new Sink()
  const { ledger } = await sendTo(sink, 20)
  const [first, second, third, fourth, ...rest] = sink.arrivals
  if (first === undefined || second === undefined || third === undefined || fourth === undefined)
    throw new Error('20 came')
  const tokenOf = (head: string) => /X-Token: (\S+)/.exec(head)?.[1] ?? ''
  const refused = ledger.entries.get(tokenOf(fourth.head))
  if (refused === undefined) throw new Error('the fourth is known')
  refused.fate = 'refused'
  const account = settleAccount(ledger, [
    second,
    second,
    { ...third, sha256: first.sha256 },
    fourth,
    ...rest,
  ])
  expect(account.lost).toEqual([tokenOf(first.head)])
  expect(account.duplicates.map(({ token }) => token)).toEqual([tokenOf(second.head)])
  expect(account.corrupt).toEqual([tokenOf(third.head)])
  expect(account.phantom).toEqual([tokenOf(fourth.head)])
  sink.stop()
})

test('a sink that refuses, or hangs up at the dot, is refused and indeterminate mail', async () => {
  let count = 0
  const sink = new Sink({
    dot: () => {
      count += 1
      return {
        reply: count % 3 === 0 ? null : count % 3 === 1 ? '451 4.3.0 Later' : '250 2.0.0 Ok',
      }
    },
  })
  const { ledger } = await sendTo(sink, 30)
  expect([ledger.acked, ledger.refused, ledger.indeterminate]).toEqual([10, 10, 10])
  sink.stop()
})

test('dots are un-stuffed and dirt is seen', () => {
  const wire = Buffer.from('..a\r\n.\rb\r\n..\r\n\r\n...\r\nc')
  expect(unstuff(wire).toString()).toBe('.a\r\n\rb\r\n.\r\n\r\n..\r\nc')
  expect(dirtOf(wire).sort()).toEqual(['CR', 'dot'])
  expect(dirtOf(Buffer.from('a\nb\0'))).toEqual(['LF', 'NUL'])
  expect(dirtOf(Buffer.from('..\r\n..\r\na\r\n'))).toEqual([])
})

needs('postfix', 'root')('a real Postfix between ledger and sink', () => {
  test('loses, doubles and changes nothing', async () => {
    const sink = new Sink()
    const postfix = await startPostfix(sink.port)
    try {
      const load = new Load({
        port: postfix.port,
        domain: 'example.com',
        connections: 4,
        seed: 2,
        sizes: [500, 60_000],
        mails: 40,
      })
      await load.finished()
      await sink.until(() => sink.arrivals.length >= 40, 30_000)
      expect(settleAccount(load.ledger, sink.arrivals)).toMatchObject({
        acked: 40,
        lost: [],
        phantom: [],
        corrupt: [],
        duplicates: [],
      })
    } finally {
      await postfix.stop()
      sink.stop()
    }
  }, 60_000)
})

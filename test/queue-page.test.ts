/** A page of the queue: the newest first, each once, whatever the order in which messages are kept. */
import { describe, expect, test } from 'bun:test'
import { type MessageId, MessageIds, type NodeId, newNodeId } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import { QueueList } from '../src/mail/queue/page.ts'
import type { QueueRow } from '../src/message/rows.ts'
import type { HolderState, Message } from '../src/store/queued.ts'
import { ManualClock } from './clock.ts'

const HERE = newNodeId(new SeededRandom(1))
const AWAY = newNodeId(new SeededRandom(2))
const ids = new MessageIds(HERE, 1, new ManualClock())

type Kept = Pick<Message, 'id' | 'owner' | 'recipients' | 'holders'>

function message(
  owner: NodeId,
  state = 'deferred',
  holders: readonly [NodeId, HolderState][] = [],
) {
  const kept = { id: ids.next(), owner, recipients: [{ state }], holders: new Map(holders) }
  return kept as unknown as Kept & Message
}

function list(own: readonly Message[], copies: readonly Message[] = []) {
  return new QueueList({
    queue: {
      node: HERE,
      messages: () => own,
      copies: () => copies,
      copy: (id) => copies.find((one) => one.id === id) ?? null,
    },
    row: ({ id, owner, holders }) =>
      ({
        id,
        owner: { id: owner, name: owner },
        waits: 'somebody else has it',
        holders: [...holders].map(([node, state]) => ({ node: { id: node, name: node }, state })),
      }) as unknown as QueueRow,
    nodeName: (id) => ({ id, name: id }),
  })
}

function walk(of: QueueList, limit: number): MessageId[] {
  const found: MessageId[] = []
  let cursor: string | null = null
  do {
    const part = of.rows({ limit, cursor })
    expect(part.rows.length).toBeLessThanOrEqual(limit)
    found.push(...part.rows.map(({ id }) => id))
    cursor = part.cursor
  } while (cursor !== null)
  return found
}

describe('a page', () => {
  test.each([1, 2, 9, 10, 11, 100])(
    'of %d, and those after it, hold each message once in any order',
    (limit) => {
      const all = Array.from({ length: 10 }, () => message(HERE))
      const newest = all
        .map(({ id }) => id)
        .toSorted()
        .toReversed()
      const random = new SeededRandom(limit)
      const shuffled = all
        .map((one) => [random.below(1_000_000), one] as const)
        .sort(([a], [b]) => a - b)
      for (const order of [all, all.toReversed(), shuffled.map(([, one]) => one)]) {
        expect(walk(list(order), limit)).toEqual(newest)
        expect(list(order).rows({ limit, cursor: null }).total).toBe(10)
      }
    },
  )

  test('holds neither what is final nor what is held, and only one copy when asked', () => {
    const waits = message(HERE)
    const safe = message(HERE, 'queued', [[AWAY, 'kept']])
    const perhaps = message(HERE, 'queued', [[AWAY, 'sent']])
    const all = list([message(HERE, 'done'), message(HERE, 'held'), waits, safe, perhaps])
    expect(all.rows({ limit: 9, cursor: null }).total).toBe(3)
    const alone = all.rows({ limit: 9, cursor: null, alone: true })
    expect(alone.rows.map(({ id }) => id)).toEqual([perhaps.id, waits.id])
  })

  test('holds copies of the nodes that it is asked for, as this node knows them', () => {
    const copy = message(AWAY, 'deferred', [[HERE, 'sent']])
    const all = list([message(HERE)], [copy, message(AWAY, 'done')])
    expect(all.rows({ limit: 9, cursor: null }).total).toBe(1)
    const { rows } = all.rows({ limit: 9, cursor: null, of: [AWAY] })
    expect(rows).toHaveLength(2)
    const row = rows.find(({ id }) => id === copy.id)
    expect(row).toMatchObject({
      id: copy.id,
      waits: null,
      holders: [{ node: { id: HERE }, state: 'kept' }],
    })
    expect(all.copyOne(copy.id)).toEqual(row ?? null)
    expect([all.copiesOf(AWAY), all.copiesOf(HERE)]).toEqual([1, 0])
  })
})

/** The queue of all nodes: pages of several lists merged into one, acts at the owner, nobody waited for. */
import { describe, expect, test } from 'bun:test'
import type { Author } from '../src/admin/contract.ts'
import type { MailActions } from '../src/admin/mail-actions.ts'
import { queuedRow, queuePart } from '../src/admin/queue.ts'
import { answerQueue, type QueuePeers } from '../src/admin/queue-peers.ts'
import { RefusalError } from '../src/base/errors.ts'
import { type MessageId, MessageIds, type NodeId, newNodeId } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { CallAnswer } from '../src/cluster/contract.ts'
import type { QueueRow, TraceRow } from '../src/message/rows.ts'
import { ManualClock } from './clock.ts'

const ANN: Author = { name: 'ann', role: 'admin' }
type Answer = (value: unknown, from: NodeId) => Promise<CallAnswer>

/** A node as far as its queue goes, and the calls that reach it. */
class Office implements MailActions {
  inspectAgain: MailActions['inspectAgain'] = () => Promise.reject(new Error('nobody asks'))
  readonly node: { readonly id: NodeId; readonly name: string }
  readonly ids: MessageIds
  readonly rows: QueueRow[] = []
  readonly copies: QueueRow[] = []
  readonly topics = new Map<string, Answer>()
  readonly acts: string[] = []
  readonly audited: string[] = []
  traced: TraceRow[] = []
  isDown = false
  isGone = false
  /** It is asked, and says nothing. */
  isMute = false
  /** What it answers instead. */
  says: { readonly value: unknown; readonly text: string } | null = null
  asked = 0

  constructor(name: string, clock: ManualClock) {
    const seed = name.charCodeAt(name.length - 1)
    this.node = { id: newNodeId(new SeededRandom(seed)), name }
    this.ids = new MessageIds(this.node.id, 1, clock)
    answerQueue({ answer: (topic, act) => this.topics.set(topic, act) }, this)
  }

  add(more: Partial<QueueRow> = {}): QueueRow {
    const row: QueueRow = {
      id: this.ids.next(),
      owner: this.node,
      term: 1,
      holders: [],
      waits: null,
      sender: 'a@sender.example',
      subject: 'Offer',
      sizeBytes: 4_000,
      acceptedMs: 1,
      expiresMs: 2,
      state: 'deferred',
      recipients: [
        {
          address: 'b@example.com',
          state: 'deferred',
          attempts: 1,
          nextTryMs: 5,
          lastReply: '451',
        },
      ],
      ...more,
    }
    this.rows.push(row)
    return row
  }

  async release(): Promise<void> {}
  hasReleased(): boolean {
    return false
  }
  releasesResumed(): boolean {
    return true
  }
  queueRows({ limit, cursor, alone = false, of = [] }: Parameters<MailActions['queueRows']>[0]) {
    const copies = this.copies.filter(({ owner }) => of.includes(owner.id))
    const all = [...this.rows, ...copies]
      .filter(({ holders }) => !alone || holders.length === 0)
      .sort((a, b) => (a.id < b.id ? 1 : -1))
    const rest = all.filter(({ id }) => cursor === null || id < cursor)
    const rows = rest.slice(0, limit)
    return {
      rows,
      total: all.length,
      cursor: rest.length > limit ? (rows.at(-1)?.id ?? null) : null,
    }
  }
  queueOne(id: MessageId): QueueRow | null {
    return this.rows.find((row) => row.id === id) ?? null
  }
  copiesOf(owner: NodeId): number {
    return this.copies.filter((row) => row.owner.id === owner).length
  }
  copyOne(id: MessageId): QueueRow | null {
    return this.copies.find((row) => row.id === id) ?? null
  }
  retry(id: MessageId | null): number {
    this.acts.push(`retry ${id ?? 'all'}`)
    return id === null ? this.rows.length : 1
  }
  async drop(id: MessageId, bounce: boolean): Promise<boolean> {
    this.acts.push(`drop ${id} ${bounce}`)
    return this.queueOne(id) !== null
  }
  queueTotals() {
    return { messages: this.rows.length, oldestMs: null, inDoubt: 0 }
  }
}

function town(...names: readonly string[]) {
  const clock = new ManualClock()
  const offices = names.map((name) => new Office(name, clock))
  const [here] = offices as [Office]
  const reach = async (id: NodeId, topic: string, value: unknown) => {
    const office = offices.find(({ node }) => node.id === id)
    await Promise.resolve()
    if (office === undefined || office.isDown || office.isMute) throw away()
    office.asked += 1
    const answer = await office.topics.get(topic)?.(JSON.parse(JSON.stringify(value)), here.node.id)
    if (answer === undefined) throw away()
    if (office.says === null || answer.kind === 'json') return answer
    const { value: said, text } = office.says
    return { kind: 'stream' as const, value: said, bytes: once(text) }
  }
  const queuePeers: QueuePeers = {
    ask: async (id, topic, value) =>
      JSON.parse(JSON.stringify((await reach(id, topic, value)).value)),
    fetch: async (id, topic, value) => {
      const answer = await reach(id, topic, value)
      if (answer.kind !== 'stream') throw new Error('no stream')
      return { value: JSON.parse(JSON.stringify(answer.value)), bytes: answer.bytes }
    },
    others: () =>
      offices
        .slice(1)
        .filter(({ isGone }) => !isGone)
        .map(({ node, isDown }) => ({ ...node, answers: !isDown })),
    gone: () => offices.flatMap(({ node, isGone }) => (isGone ? [node.id] : [])),
    nameOf: (id) => offices.find(({ node }) => node.id === id)?.node ?? { id, name: id },
    describe: () => 'has not answered since 12:00',
  }
  const queue = queuePart({
    mail: here,
    operators: { audit: (author, act, id) => void here.audited.push(`${author} ${act} ${id}`) },
    trace: { message: () => ({ rows: here.traced, events: [], judgement: null }) },
    quarantine: { node: here.node },
    queuePeers,
  })
  return { clock, offices, here, queue, queuePeers }
}

async function* once(text: string): AsyncIterable<Uint8Array> {
  yield Buffer.from(text)
}

function away(): RefusalError {
  return new RefusalError('unavailable', null, 'The node does not answer.', 'Wait.')
}

/** All pages, one after the other. */
async function walk(queue: ReturnType<typeof queuePart>, limit: number) {
  const ids: string[] = []
  let cursor: string | null = null
  let pages = 0
  do {
    const page = await queue.queue({ limit, cursor })
    ids.push(...page.rows.map(({ id }) => id))
    cursor = page.cursor
    pages += 1
  } while (cursor !== null && pages < 1_000)
  return { ids, pages }
}

describe('the list', () => {
  test.each([1, 2, 3, 7, 50])(
    'in pages of %d holds each mail of three nodes once, newest first',
    async (limit) => {
      const { clock, offices, queue } = town('mx1', 'mx2', 'mx3')
      const random = new SeededRandom(limit)
      const all: string[] = []
      for (let i = 0; i < 23; i += 1) {
        all.push(offices[random.below(3)]?.add().id ?? '')
        clock.advance(5)
      }
      const { ids, pages } = await walk(queue, limit)
      expect(ids).toEqual(all.toReversed())
      expect(pages).toBe(Math.ceil(23 / limit))
      expect((await queue.queue({ limit, cursor: null })).total).toBe(23)
    },
  )

  test('a node that gives less than a page because its rows are long hides none of the others', async () => {
    const { clock, offices, queue } = town('mx1', 'mx2')
    const long = 'x'.repeat(3_000_000)
    const all: string[] = []
    for (let i = 0; i < 6; i += 1) {
      all.push(offices[i % 2]?.add(i % 2 === 1 ? { subject: long } : {}).id ?? '')
      clock.advance(5)
    }
    expect((await walk(queue, 10)).ids).toEqual(all.toReversed())
  })

  test('names a node that is down or mute, shows copies of its mail, and each mail once', async () => {
    const { offices, here, queue } = town('mx1', 'mx2', 'mx3', 'mx4')
    const [, mx2, mx3, mx4] = offices as [Office, Office, Office, Office]
    const copied = mx3.add()
    const lost = mx3.add()
    here.copies.push({ ...copied, term: 1 })
    mx2.copies.push({ ...copied, term: 3 })
    mx4.copies.push({ ...copied, term: 2 })
    const own = here.add()
    expect((await walk(queue, 10)).ids).toHaveLength(3)
    mx3.isDown = true
    const page = await queue.queue({ limit: 10, cursor: null })
    expect(page.rows.map(({ id, term }) => [id, term])).toContainEqual([copied.id, 3])
    expect(page.rows.map(({ id }) => id).toSorted()).toEqual([own.id, copied.id].toSorted())
    expect(page.rows.map(({ id }) => id)).not.toContain(lost.id)
    expect(page.silent).toEqual([mx3.node])
    expect(mx3.asked).toBe(1)
    mx3.isDown = false
    mx3.isMute = true
    expect((await queue.queue({ limit: 10, cursor: null })).silent).toEqual([mx3.node])
  })

  test('shows the mail of a node that was removed until somebody has taken it over', async () => {
    const { offices, here, queue } = town('mx1', 'mx2', 'mx3')
    const [, mx2, mx3] = offices as [Office, Office, Office]
    const rows = [mx3.add(), mx3.add()]
    here.copies.push(rows[0] as QueueRow)
    mx2.copies.push(rows[1] as QueueRow)
    mx3.isDown = true
    mx3.isGone = true
    const page = await queue.queue({ limit: 10, cursor: null })
    expect(page.rows.map(({ id }) => id).toSorted()).toEqual(rows.map(({ id }) => id).toSorted())
    expect(page.silent).toEqual([])
  })

  test('asks every node for those with one copy', async () => {
    const { offices, queue } = town('mx1', 'mx2')
    const [mx1, mx2] = offices as [Office, Office]
    mx1.add({ holders: [{ node: mx2.node, state: 'kept' }] })
    const single = mx2.add()
    const { rows } = await queue.queue({ limit: 10, cursor: null, alone: true })
    expect(rows.map(({ id }) => id)).toEqual([single.id])
  })

  const row = { id: '', owner: { id: '', name: 'evil' } }
  test.each([
    ['no list', { total: 1, more: false }, '{}'],
    ['no JSON', { total: 1, more: false }, '['],
    ['a row without fields', { total: 1, more: false }, JSON.stringify([row])],
    ['a total that is none', { total: 'x', more: false }, '[]'],
    ['nothing', null, '[]'],
  ])('takes an answer that is %s for none', async (_, value, said) => {
    const { offices, queue } = town('mx1', 'mx2')
    const [mx1, mx2] = offices as [Office, Office]
    const own = mx1.add()
    mx2.says = { value, text: said }
    const page = await queue.queue({ limit: 10, cursor: null })
    expect(page.rows.map(({ id }) => id)).toEqual([own.id])
    expect(page.silent).toEqual([mx2.node])
  })

  test('calls nodes as this one does, and takes no row of a mail that the peer does not own', async () => {
    const { offices, queue } = town('mx1', 'mx2', 'mx3')
    const [, mx2, mx3] = offices as [Office, Office, Office]
    const own = mx2.add({ holders: [{ node: { id: mx3.node.id, name: 'evil' }, state: 'kept' }] })
    mx2.add({ owner: mx3.node })
    const { rows } = await queue.queue({ limit: 10, cursor: null })
    expect(rows.map(({ id }) => id)).toEqual([own.id])
    expect(rows[0]?.holders[0]?.node.name).toBe('mx3')
  })
})

describe('an act', () => {
  test('goes to the owner, and is audited where it was asked for', async () => {
    const { offices, here, queue } = town('mx1', 'mx2')
    const [, mx2] = offices as [Office, Office]
    const { id } = mx2.add()
    expect(await queue.retry(ANN, id)).toEqual({ retried: 1, silent: [] })
    await queue.drop(ANN, id, true)
    expect(mx2.acts).toEqual([`retry ${id}`, `drop ${id} true`])
    expect([here.acts, here.audited]).toEqual([[], [`ann queue.drop ${id}`]])
  })

  test('on all is done by all, and names who gave no answer', async () => {
    const { offices, queue } = town('mx1', 'mx2', 'mx3')
    const [mx1, mx2, mx3] = offices as [Office, Office, Office]
    for (const office of [mx1, mx2, mx2, mx3]) office.add()
    mx3.isMute = true
    expect(await queue.retry(ANN, null)).toEqual({ retried: 3, silent: [mx3.node] })
    expect([mx1.acts, mx2.acts, mx3.acts]).toEqual([['retry all'], ['retry all'], []])
  })

  test('on mail of a silent node says so, also when this node has a copy', async () => {
    const { offices, here, queue } = town('mx1', 'mx2')
    const [, mx2] = offices as [Office, Office]
    const row = mx2.add()
    here.copies.push(row)
    mx2.isDown = true
    for (const act of [() => queue.retry(ANN, row.id), () => queue.drop(ANN, row.id, false)]) {
      const error = await act().then(
        () => null,
        (reason: unknown) => reason,
      )
      expect(error).toMatchObject({
        code: 'unavailable',
        message: 'This mail waits with mx2, which has not answered since 12:00.',
      })
      expect((error as RefusalError).advice).toContain('postern remove mx2')
    }
    expect([here.acts, here.audited]).toEqual([[], []])
  })

  test('on mail that waits nowhere, or that nobody knows, is refused', async () => {
    const { here, queue } = town('mx1', 'mx2')
    const id = here.ids.next()
    expect(queue.retry(ANN, id)).rejects.toMatchObject({ code: 'notFound' })
    here.traced = [{ node: here.node, delivery: 'delivered' } as TraceRow]
    expect(queue.drop(ANN, id, false)).rejects.toMatchObject({ code: 'conflict' })
  })
})

test('of a mail whose owner answers only the word of the owner counts', async () => {
  const { offices, here, queuePeers } = town('mx1', 'mx2', 'mx3')
  const [, mx2, mx3] = offices as [Office, Office, Office]
  const row = mx2.add()
  here.copies.push(row)
  mx3.copies.push({ ...row, term: 2 })
  const asked = () => queuedRow(row.id, { mail: here, queuePeers })
  expect(await asked()).toMatchObject({ term: 1 })
  mx2.rows.pop()
  expect(await asked()).toBeNull()
  mx2.isDown = true
  expect(await asked()).toMatchObject({ term: 2 })
})

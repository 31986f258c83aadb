/** The history of a mail travels: in any order, twice or cut off, and every node ends with the same. */
import { afterEach, describe, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { RefusalError } from '../src/base/errors.ts'
import { type MessageId, MessageIds, type NodeId, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { canonicalText, covers } from '../src/config/merge.ts'
import type { AcceptState, DeliveryState, Judgement } from '../src/message/rows.ts'
import { NO_INSIGHT } from '../src/message/verdict.ts'
import { idFloor } from '../src/store/conditions.ts'
import { openDatabase, type StoreDatabase } from '../src/store/db.ts'
import type { OwnWrite } from '../src/store/feed.ts'
import { TRACE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { parseQuery } from '../src/store/query.ts'
import { contactOf } from '../src/store/sightings.ts'
import { Trace } from '../src/store/trace.ts'
import { joinRows } from '../src/store/trace-feed.ts'
import type { RowState, TracePart } from '../src/store/trace-part.ts'
import { ManualClock } from './clock.ts'

const DAY_MS = 86_400_000
const KEEP_MS = 30 * DAY_MS
const made: string[] = []
let seeds = 1

/** One node's history, without the rest of the node. */
class Witness {
  readonly id: NodeId
  readonly name: string
  readonly clock: ManualClock
  readonly ids: MessageIds
  readonly writes: OwnWrite[] = []
  readonly path: string
  readonly #names: () => readonly Witness[]
  store: StoreDatabase
  trace: Trace

  constructor(name: string, clock: ManualClock, names: () => readonly Witness[]) {
    this.name = name
    this.clock = clock
    this.#names = names
    this.id = newNodeId(new SeededRandom(name.charCodeAt(name.length - 1)))
    this.ids = new MessageIds(this.id, 1, clock)
    const directory = mkdtempSync(join(tmpdir(), 'postern-'))
    made.push(directory)
    this.path = join(directory, 'trace.db')
    const { store, trace } = this.#open()
    this.store = store
    this.trace = trace
  }

  get feed() {
    return this.trace.feed
  }

  #open(): { readonly store: StoreDatabase; readonly trace: Trace } {
    const { clock } = this
    const observer = new Observer(clock, () => {})
    const store = openDatabase(this.path, {
      synchronous: 'NORMAL',
      migrations: TRACE_MIGRATIONS,
      clock,
      observer,
    })
    const trace = new Trace(store, {
      clock,
      observer,
      random: new SeededRandom(seeds++),
      node: this,
      nodes: this.#names,
      keepMs: () => KEEP_MS,
    })
    // Made now: a link sends what was there when it was written.
    trace.feed.onOwn((write) => this.writes.push({ ...write, rows: overTheWire(write.rows) }))
    return { store, trace }
  }

  /** Starts again, on what is on the disk or on what was there before. */
  restart(image: Uint8Array | null = null): void {
    this.close()
    if (image !== null) writeFileSync(this.path, image)
    const { store, trace } = this.#open()
    this.store = store
    this.trace = trace
  }

  close(): void {
    this.trace.close()
    this.store.close()
  }

  record(
    recipients: number,
    id: MessageId = this.ids.next(),
    judgement: Judgement | null = null,
    accept: AcceptState = 'accepted',
  ) {
    const rows = Array.from({ length: recipients }, (_, place) => ({
      id,
      atMs: this.clock.wallMs(),
      clientIp: '192.0.2.1',
      sender: `a@${this.name}.example`,
      recipient: `r${place}@example.com`,
      subject: 'Ünicode',
      sizeBytes: 4_000,
      score: 0.5,
      rules: ['X'],
      accept,
      acceptReply: '250 2.0.0 ok',
      delivery: 'queued' as const,
      deliveryReply: null,
      deliveryMs: null,
    }))
    this.trace.record(rows, [], judgement)
    return id
  }

  outcome(id: MessageId, place: number, state: DeliveryState): void {
    this.trace.outcome(id, place, state, `by ${this.name}`, {
      atMs: this.clock.wallMs(),
      recipient: `r${place}@example.com`,
      what: state,
      detail: `by ${this.name}`,
    })
  }

  /** One batch; true when it was the last. */
  pull(from: Witness, bytesMax = 100_000): boolean {
    const cursor = this.feed.cursor(from.id)
    const after = cursor?.generation === from.feed.generation ? cursor.at : 0
    const { rows, upto, final } = from.feed.read(after, this.feed.vector(), bytesMax)
    this.feed.apply({
      peer: from.id,
      rows: overTheWire(rows),
      as: {
        kind: 'batch',
        cursor: { generation: from.feed.generation, at: upto },
        vector: final ? new Map(from.feed.vector()) : null,
      },
    })
    return final
  }

  push(peer: NodeId, { rows, writer, after, upto }: OwnWrite): void {
    this.feed.apply({ peer, rows, as: { kind: 'push', writer, after, upto } })
  }

  /** Everything that the pages show, and nothing of how it came. */
  known(): string {
    const all = (table: string, order: string) =>
      this.store.sqlite.query(`SELECT * FROM ${table} ORDER BY ${order}`).all()
    return canonicalText([
      all('trace', 'id, place'),
      all('trace_event', 'id, writer, dot, seq'),
      all('judgement', 'id'),
      all('sighting', 'id, what'),
    ])
  }

  logged(): number {
    return this.store.sqlite
      .query<{ parts: string }, []>('SELECT parts FROM trace_log')
      .all()
      .reduce((sum, { parts }) => sum + parts.split(' ').length, 0)
  }
}

function overTheWire(rows: OwnWrite['rows']): OwnWrite['rows'] {
  return JSON.parse(JSON.stringify(rows)) as OwnWrite['rows']
}

const open: Witness[] = []

function witnesses(count: number): readonly Witness[] {
  const clock = new ManualClock()
  const all: readonly Witness[] = Array.from(
    { length: count },
    (_, index): Witness => new Witness(`mx${index + 1}`, clock, () => all),
  )
  open.push(...all)
  return all
}

afterEach(() => {
  for (const one of open.splice(0)) one.close()
  for (const path of made.splice(0)) rmSync(path, { recursive: true, force: true })
})

/** Pulls until nobody has anything new for anybody. */
function settle(all: readonly Witness[]): void {
  for (const one of all) one.trace.flush()
  for (let round = 0; round < 3; round++) {
    for (const reader of all) {
      for (const from of all) {
        if (reader === from) continue
        for (let count = 0; !reader.pull(from); count++) expect(count).toBeLessThan(1_000)
      }
    }
  }
}

/** What each write said, and that whoever covers it knows at least that. */
class Oracle {
  readonly #parts = new Map<string, TracePart[]>()

  hear(write: OwnWrite): void {
    for (const row of write.rows as readonly TracePart[]) {
      for (const [writer, seq] of row.dots) {
        const name = `${writer} ${seq}`
        this.#parts.set(name, [...(this.#parts.get(name) ?? []), row])
      }
    }
  }

  check(node: Witness): void {
    const floor = idFloor(node.clock.wallMs() - KEEP_MS)
    const vector = node.feed.vector()
    for (const [name, parts] of this.#parts) {
      const [writer = '', seq = ''] = name.split(' ')
      if (!covers(vector, writer, Number(seq))) continue
      for (const { id, rows, lines } of parts) {
        if (id < floor) continue
        for (const row of rows) {
          const stored = stateOf(node, id, row.place)
          expect(stored).not.toBeNull()
          if (stored !== null) expect(joinRows(stored, { id, ...row })).toEqual(stored)
        }
        for (const line of lines) {
          if (line.dot !== Number(seq)) continue
          expect(
            node.store.sqlite
              .query('SELECT 1 AS there FROM trace_event WHERE id = ? AND seq = ? AND writer = ?')
              .get(id, line.seq, line.writer),
          ).toEqual({ there: 1 })
        }
      }
    }
  }
}

function stateOf(node: Witness, id: string, place: number): RowState | null {
  return node.store.sqlite
    .query<RowState, [string, number]>(
      `SELECT id, place, at_ms AS atMs, client_ip AS clientIp, sender, recipient, subject,
        size_bytes AS sizeBytes, score, rules, unknown_count AS unknownCount, accept,
        accept_reply AS acceptReply, delivery, delivery_reply AS deliveryReply,
        delivery_ms AS deliveryMs, released_ms AS releasedMs, node, version
       FROM trace WHERE id = ? AND place = ?`,
    )
    .get(id, place)
}

const judgement = (score: number): Judgement => ({
  verdict: 'hold',
  score,
  findings: [],
  unknowns: [],
  holdFrom: 8,
  rejectFrom: 15,
  author: 'ada@stranger.example',
})

describe('the join of two states of a recipient', () => {
  const state = fc.record({
    delivery: fc.constantFrom<DeliveryState | null>(null, 'queued', 'delivered', 'bounced'),
    deliveryReply: fc.constantFrom(null, 'a', 'b'),
    deliveryMs: fc.constantFrom(null, 1, 2),
    releasedMs: fc.constantFrom(null, 1, 2),
    version: fc.integer({ min: 1, max: 2 }),
    score: fc.constantFrom(0, 1),
  })
  const row = state.map(
    (part): RowState => ({
      id: 'x',
      place: 0,
      atMs: 1,
      clientIp: '',
      sender: '',
      recipient: '',
      subject: null,
      sizeBytes: 1,
      rules: '',
      unknownCount: 0,
      accept: 'accepted',
      acceptReply: '',
      node: '0000000000000000',
      ...part,
    }),
  )

  test('is the same in any order and any number of times', () => {
    fc.assert(
      fc.property(row, row, row, (a, b, c) => {
        expect(joinRows(a, b)).toEqual(joinRows(b, a))
        expect(joinRows(joinRows(a, b), c)).toEqual(joinRows(a, joinRows(b, c)))
        expect(joinRows(a, a)).toEqual(a)
        expect(joinRows(joinRows(a, b), b)).toEqual(joinRows(a, b))
      }),
      { numRuns: 2_000 },
    )
  })

  test('never takes back a delivery', () => {
    fc.assert(
      fc.property(row, row, (a, b) => {
        fc.pre(a.delivery === 'delivered')
        expect(joinRows(a, b).delivery).toBe('delivered')
      }),
    )
  })
})

describe('three nodes', () => {
  type Step =
    | { readonly do: 'record'; readonly node: number; readonly recipients: number }
    | { readonly do: 'again'; readonly node: number; readonly message: number }
    | {
        readonly do: 'outcome'
        readonly node: number
        readonly message: number
        readonly state: DeliveryState
      }
    | { readonly do: 'pull'; readonly node: number; readonly from: number; readonly bytes: number }
    | { readonly do: 'push'; readonly node: number; readonly from: number; readonly write: number }
    | { readonly do: 'flush' | 'restart' | 'image' | 'cut'; readonly node: number }
    | { readonly do: 'wait'; readonly ms: number }
  const node = fc.integer({ min: 0, max: 2 })
  const message = fc.nat({ max: 20 })
  const step: fc.Arbitrary<Step> = fc.oneof(
    fc.record({
      do: fc.constant('record' as const),
      node,
      recipients: fc.constantFrom(1, 1, 2, 51, 120),
    }),
    fc.record({ do: fc.constant('again' as const), node, message }),
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('outcome' as const),
        node,
        message,
        state: fc.constantFrom<DeliveryState>('deferred', 'delivered', 'released', 'bounced'),
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('flush' as const), node }) },
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('pull' as const),
        node,
        from: node,
        bytes: fc.constantFrom(1, 1_000, 100_000),
      }),
    },
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('push' as const),
        node,
        from: node,
        write: fc.nat({ max: 20 }),
      }),
    },
    fc.record({
      do: fc.constantFrom('restart' as const, 'image' as const, 'cut' as const),
      node,
    }),
    fc.record({ do: fc.constant('wait' as const), ms: fc.constantFrom(0, 1, 60_000) }),
  )

  test('that exchange in any order, with losses, doubles and power cuts, end with the same', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 10, maxLength: 60 }), (steps) => {
        const all = witnesses(3)
        const [clock] = all.map((one) => one.clock)
        const oracle = new Oracle()
        const heard = all.map(() => 0)
        const images = new Map<number, Uint8Array>()
        const messages: { readonly id: MessageId; readonly recipients: number }[] = []
        const listen = () => {
          for (const [index, one] of all.entries()) {
            for (const write of one.writes.slice(heard[index])) oracle.hear(write)
            heard[index] = one.writes.length
          }
        }
        for (const one of steps) {
          if (one.do === 'wait') {
            clock?.advance(one.ms)
            listen()
            continue
          }
          const here = all[one.node] as Witness
          switch (one.do) {
            case 'record':
              messages.push({ id: here.record(one.recipients), recipients: one.recipients })
              break
            case 'again': {
              const known = messages[one.message % Math.max(1, messages.length)]
              if (known !== undefined) here.record(1, known.id, judgement(one.node))
              break
            }
            case 'outcome': {
              const known = messages[one.message % Math.max(1, messages.length)]
              if (known === undefined) break
              here.outcome(known.id, (one.message * 7) % known.recipients, one.state)
              break
            }
            case 'flush':
              here.trace.flush()
              break
            case 'pull':
              if (one.from !== one.node) here.pull(all[one.from] as Witness, one.bytes)
              break
            case 'push': {
              const from = all[one.from] as Witness
              const write = from.writes[one.write % Math.max(1, from.writes.length)]
              if (from !== here && write !== undefined) here.push(from.id, write)
              break
            }
            case 'restart':
              here.restart()
              break
            case 'image':
              images.set(one.node, here.store.sqlite.serialize())
              break
            case 'cut': {
              const image = images.get(one.node)
              if (image !== undefined) here.restart(image)
              break
            }
          }
          listen()
          for (const each of all) oracle.check(each)
        }
        settle(all)
        listen()
        for (const each of all) oracle.check(each)
        expect(new Set(all.map((one) => one.known())).size).toBe(1)
        for (const each of open.splice(0)) each.close()
      }),
      { numRuns: 60 },
    )
  }, 120_000)
})

describe('a history', () => {
  function two(): readonly [Witness, Witness] {
    const [a, b] = witnesses(2)
    return [a as Witness, b as Witness]
  }

  test('is found on the other node, with the node where it came in', () => {
    const [a, b] = two()
    const id = a.record(1, a.ids.next(), judgement(9))
    a.outcome(id, 0, 'delivered')
    b.record(1)
    settle([a, b])
    const found = b.trace.search(parseQuery('node:MX1', 0), { limit: 10, cursor: null })
    expect(found.rows.map((row) => [String(row.id), row.node.name, row.delivery])).toEqual([
      [id, 'mx1', 'delivered'],
    ])
    expect(
      b.trace.search(parseQuery(`node:${b.id.slice(0, 5)}`, 0), { limit: 10, cursor: null }).total,
    ).toBe(1)
    expect(b.trace.search(parseQuery('node:mx', 0), { limit: 10, cursor: null }).total).toBe(2)
    expect(b.trace.search(parseQuery('node:mx3', 0), { limit: 10, cursor: null }).total).toBe(0)
    const known = b.trace.message(id)
    expect(known.events.map(({ what }) => what)).toEqual(['delivered'])
    expect(known.judgement?.score).toBe(9)
    expect(b.trace.overview(b.clock.wallMs() - 60_000, 1).counts).toMatchObject({
      delivered: 1,
      waiting: 1,
    })
  })

  test('is found by a link, its host or a file on every node, and forgotten with its mail', () => {
    const [a, b] = two()
    const file = { path: 'a.zip', type: 'zip', sizeBytes: 9, sha256: 'ab'.repeat(32) }
    const urls = ['https://login.evil.example/x?y=1', 'http://[broken', 'mailto:a@b.example']
    const insight = { ...NO_INSIGHT, urls, files: [file] }
    const id = a.record(3, a.ids.next(), { ...judgement(0), insight })
    a.record(1)
    settle([a, b])
    const total = ({ trace }: Witness, text: string): number =>
      trace.search(parseQuery(text, 0), { limit: 10, cursor: null }).total
    for (const node of [a, b]) {
      for (const text of [
        'link:https://login.evil.example/x?y=1',
        'link:login.evil.example',
        'link:Evil.Example.',
        `file:${file.sha256.toUpperCase()}`,
        `file:${file.sha256} link:evil.example`,
      ])
        expect([text, total(node, text)]).toEqual([text, 3])
      for (const text of [
        'link:example',
        'link:vil.example',
        'link:https://login.evil.example/x',
        'file:00',
      ])
        expect([text, total(node, text)]).toEqual([text, 0])
      expect(total(node, '-link:evil.example')).toBe(1)
    }
    expect(b.trace.message(id).judgement?.insight?.files).toEqual([file])
    b.clock.advance(2_000)
    b.trace.prune(b.clock.wallMs(), 100)
    expect(b.store.sqlite.query('SELECT count(*) AS n FROM sighting').get()).toEqual({ n: 0 })
  })

  test('tells every node who wrote to which domain, in whatever order its parts come', () => {
    const [a, b, c] = witnesses(3) as readonly [Witness, Witness, Witness]
    const id = a.ids.next()
    a.record(60, id, judgement(0))
    a.trace.flush()
    const whole = (a.writes[0]?.rows ?? []) as readonly TracePart[]
    expect(whole).toHaveLength(2)
    const { address } = contactOf('ada@stranger.example', 'second.example')
    const rows = whole[1]?.rows.map((row) => ({ ...row, recipient: 'x@second.example' })) ?? []
    const parts = [whole[0], { ...whole[1], rows }]
    const give = (to: Witness, part: unknown): void => {
      const as = { kind: 'push', writer: a.feed.writer, after: 0, upto: 0 } as const
      to.feed.apply({ peer: a.id, rows: overTheWire([part] as OwnWrite['rows']), as })
    }
    for (const part of parts) give(b, part)
    for (const part of parts.toReversed()) give(c, part)
    for (const node of [b, c]) expect(node.trace.saw(address, 0, a.clock.wallMs() + 1)).toBe(true)
    expect(c.known()).toBe(b.known())
    const first = contactOf('ada@stranger.example', 'example.com').address
    for (const node of [a, b, c]) expect(node.trace.saw(first, 0, a.clock.wallMs() + 1)).toBe(true)
  })

  test('tells every node that somebody released what was held, and so who is known', () => {
    const [a, b] = two()
    const id = a.record(1, a.ids.next(), judgement(9), 'held')
    settle([a, b])
    const { address } = contactOf('ada@stranger.example', 'example.com')
    const saw = ({ trace }: Witness): boolean => trace.saw(address, 0, a.clock.wallMs() + 1)
    expect([a, b].map(saw)).toEqual([false, false])
    a.outcome(id, 0, 'released')
    settle([a, b])
    expect([a, b].map(saw)).toEqual([true, true])
  })

  test('goes on where the batch before ended, and what is known is not sent again', () => {
    const [a, b] = two()
    for (let count = 0; count < 50; count++) a.record(1)
    a.trace.flush()
    let batches = 1
    while (!b.pull(a, 3_000)) batches += 1
    expect(batches).toBeGreaterThan(5)
    expect(b.known()).toBe(a.known())
    expect(b.logged()).toBe(50)
    expect(a.feed.read(0, b.feed.vector(), 100_000)).toEqual({
      rows: [],
      upto: a.feed.head,
      final: true,
    })
    // A reader that starts anew sees each message once, however often it changed.
    const [id] = a.trace.search(parseQuery('', 0), { limit: 1, cursor: null }).rows
    for (const state of ['deferred', 'deferred', 'delivered'] as const) {
      if (id !== undefined) a.outcome(id.id, 0, state)
      a.trace.flush()
    }
    const fresh = a.feed.read(0, new Map(), 1_000_000)
    expect(fresh.rows).toHaveLength(50)
    expect((fresh.rows as readonly TracePart[]).flatMap(({ dots }) => dots)).toHaveLength(53)
  })

  test('pushed goes no further than what is whole up to it', () => {
    const [a, b] = two()
    for (let count = 0; count < 3; count++) {
      a.record(1)
      a.trace.flush()
    }
    const [first, second, third] = a.writes
    if (first === undefined || second === undefined || third === undefined) throw new Error()
    b.push(a.id, third)
    b.push(a.id, second)
    expect(b.feed.vector().get(a.feed.writer) ?? 0).toBe(0)
    b.push(a.id, first)
    expect(b.feed.vector().get(a.feed.writer)).toBe(1)
    b.push(a.id, second)
    b.push(a.id, third)
    expect(b.feed.vector().get(a.feed.writer)).toBe(3)
    expect(b.known()).toBe(a.known())
    expect(b.logged()).toBe(3)
  })

  test('that is known already is passed on with every write that it answers for', () => {
    const [a, b, c] = witnesses(3) as readonly [Witness, Witness, Witness]
    const id = a.record(1)
    a.trace.flush()
    settle([a, b, c])
    a.outcome(id, 0, 'deferred')
    a.trace.flush()
    const [, first] = a.writes
    a.trace.outcome(id, 0, 'delivered', null, null)
    a.trace.flush()
    const [, , second] = a.writes
    if (first === undefined || second === undefined) throw new Error()
    // The state after the second write comes under the name of the first one alone.
    const [part] = second.rows as readonly TracePart[]
    const dots = (first.rows as readonly TracePart[]).flatMap((row) => row.dots)
    const lines = (first.rows as readonly TracePart[]).flatMap((row) => row.lines)
    b.feed.apply({ peer: a.id, rows: [{ ...part, dots, lines }], as: { kind: 'repair' } })
    c.push(a.id, first)
    b.push(a.id, second)
    b.pull(a)
    c.pull(b)
    expect(c.known()).toBe(a.known())
  })

  test('is read from the start when its node came back with an older disk', () => {
    const [a, b] = two()
    const image = a.store.sqlite.serialize()
    for (let count = 0; count < 3; count++) a.record(1)
    settle([a, b])
    const lost = a.known()
    a.restart(image)
    const id = a.record(1)
    a.trace.flush()
    b.pull(a)
    expect(b.trace.message(id).rows).toHaveLength(1)
    settle([a, b])
    expect(a.known()).toBe(b.known())
    expect(a.known().length).toBeGreaterThan(lost.length)
  })

  test('of one message that two nodes judged has the same judgement everywhere', () => {
    const [a, b] = two()
    const id = a.record(1, a.ids.next(), judgement(1))
    b.record(1, id, judgement(2))
    for (const one of [a, b]) one.trace.flush()
    b.pull(a)
    a.pull(b)
    expect(a.trace.message(id).judgement?.score).toBe(2)
    expect(b.known()).toBe(a.known())
  })

  test('that is recorded again keeps what became of it', () => {
    const [a] = two()
    const id = a.record(2)
    a.outcome(id, 0, 'delivered')
    a.trace.flush()
    a.clock.advance(1_000)
    a.record(2, id)
    a.outcome(id, 1, 'bounced')
    a.trace.flush()
    expect(a.trace.message(id).rows.map(({ delivery }) => delivery)).toEqual([
      'delivered',
      'bounced',
    ])
  })

  test('of two thousand recipients with long answers fits what a link carries, part by part', () => {
    const [a, b] = two()
    const id = a.record(2_000)
    const long = 'x'.repeat(1_000)
    for (let place = 0; place < 2_000; place++) {
      a.trace.outcome(id, place, 'deferred', long, {
        atMs: 1,
        recipient: 'r',
        what: 'deferred',
        detail: long,
      })
    }
    a.trace.flush()
    let after = 0
    for (let final = false; !final; ) {
      const out = a.feed.read(after, b.feed.vector(), 256 * 1024)
      expect(JSON.stringify(out.rows).length).toBeLessThan(300 * 1024)
      after = out.upto
      final = out.final
    }
    settle([a, b])
    expect(b.known()).toBe(a.known())
  })

  test('that is too old is forgotten with its log, and does not come back', () => {
    const [a, b] = two()
    for (let count = 0; count < 10; count++) a.record(1)
    settle([a, b])
    a.clock.advance(KEEP_MS + DAY_MS)
    const young = a.record(1)
    a.trace.flush()
    // The other one has not pruned, and knows none of what is new here.
    b.restart()
    expect(a.trace.prune(a.clock.wallMs() - KEEP_MS, 100)).toBe(10)
    expect(a.logged()).toBe(1)
    const empty = new Witness('mx9', a.clock, () => [])
    open.push(empty)
    while (!empty.pull(b)) {}
    expect(empty.trace.search(parseQuery('', 0), { limit: 50, cursor: null }).total).toBe(0)
    settle([a, b, empty])
    for (const one of [a, empty]) {
      expect(
        one.trace.search(parseQuery('', 0), { limit: 50, cursor: null }).rows.map(({ id }) => id),
      ).toEqual([young])
    }
    expect(b.trace.prune(b.clock.wallMs() - KEEP_MS, 100)).toBe(10)
    expect(b.known()).toBe(a.known())
  })

  test('is kept in the log in one row for many messages, and costs none of it to skip', () => {
    const [a] = two()
    for (let count = 0; count < 200; count++) a.record(1)
    a.trace.flush()
    expect(a.store.sqlite.query('SELECT count(*) AS n FROM trace_log').get()).toEqual({ n: 1 })
    expect(a.feed.head).toBe(200)
    expect(a.feed.vector().get(a.feed.writer)).toBe(200)
  })

  test('that a full disk refuses is neither announced nor counted', () => {
    const [a] = two()
    a.record(1)
    a.trace.flush()
    a.store.sqlite.run('ALTER TABLE trace_log RENAME TO gone')
    a.record(1)
    a.trace.flush()
    expect(a.writes).toHaveLength(1)
    expect(a.feed.vector().get(a.feed.writer)).toBe(1)
    expect(a.feed.head).toBe(1)
    a.store.sqlite.run('ALTER TABLE gone RENAME TO trace_log')
    a.trace.flush()
    expect(a.writes.map(({ after, upto }) => [after, upto])).toEqual([
      [0, 1],
      [1, 2],
    ])
  })

  test('of a peer that is none is refused, and nothing of it is kept', () => {
    const [a, b] = two()
    a.record(2, a.ids.next(), judgement(1))
    a.trace.flush()
    const good = a.writes[0]?.rows[0] as TracePart
    const bad: unknown[] = [
      null,
      [],
      {},
      { ...good, id: '../x' },
      { ...good, part: -1 },
      { ...good, judgement: '{' },
      { ...good, judgement: '1' },
      { ...good, dots: [['x', 1]] },
      { ...good, dots: [[a.feed.writer, 0]] },
      { ...good, dots: [[a.feed.writer, 1.5]] },
      { ...good, rows: Array.from({ length: 51 }, () => good.rows[0]) },
      { ...good, lines: [{ seq: 1 }] },
      ...Object.keys(good.rows[0] ?? {}).map((field) => ({
        ...good,
        rows: [good.rows[0], { ...good.rows[1], [field]: field === 'subject' ? 7 : undefined }],
      })),
      { ...good, rows: [{ ...good.rows[0], sender: 'x'.repeat(30_000) }] },
      { ...good, rows: [{ ...good.rows[0], score: Number.NaN }] },
      { ...good, rows: [{ ...good.rows[0], delivery: "' OR 1=1" }] },
    ]
    for (const row of bad) {
      expect(() => b.feed.apply({ peer: a.id, rows: [good, row], as: { kind: 'repair' } })).toThrow(
        RefusalError,
      )
    }
    expect(b.feed.head).toBe(0)
    expect(b.trace.search(parseQuery('', 0), { limit: 50, cursor: null }).total).toBe(0)
  })
})

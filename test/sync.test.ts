/** What nodes that hear of each other agree on, whatever becomes of the links between them. */
import { Database } from 'bun:sqlite'
import { describe, expect, test } from 'bun:test'
import { StoreError } from '../src/base/errors.ts'
import { MessageIds } from '../src/base/ids.ts'
import { SeededRandom } from '../src/base/random.ts'
import { MESSAGE } from '../src/cluster/contract.ts'
import { encodeBody, parseBody } from '../src/cluster/wire.ts'
import { type Cell, isTombstone, type SharedRow } from '../src/config/merge.ts'
import { StoreDatabase } from '../src/store/db.ts'
import { hashOfRow, leafOf } from '../src/store/digest.ts'
import type { OwnWrite } from '../src/store/feed.ts'
import { TRACE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { TraceFeed } from '../src/store/trace-feed.ts'
import {
  Mesh,
  type MeshLink,
  type MeshNode,
  type MeshOptions,
  replaced,
  type Sent,
} from './mesh.ts'

const MINUTE = 60_000
const DAY = 86_400_000

function cluster(count: number, options?: MeshOptions): [Mesh, ...MeshNode[]] {
  const mesh = new Mesh(options)
  const nodes = mesh.add(count)
  mesh.join()
  mesh.run(500)
  return [mesh, ...nodes]
}

function isAlike(nodes: readonly MeshNode[]): boolean {
  return new Set(nodes.map(({ root }) => root)).size === 1
}

function bodyOf({ body }: Sent): Readonly<Record<string, unknown>> {
  return parseBody(body) ?? {}
}

describe('rows', () => {
  test('a write on one node is on the others after one delivery', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    a.set('policy.hold', '6')
    mesh.run(mesh.latencyMs + 1)
    expect(b.value('policy.hold')).toBe('6')
    expect(c.value('policy.hold')).toBe('6')
    expect(b.replica.vector()).toEqual(a.replica.vector())
  })

  test('a push that is lost comes with the next beat, and one that has a gap claims nothing', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    a.set('first', '1')
    mesh.run(100)
    mesh.fate = (_from, _to, { type }) => (type === MESSAGE.push ? null : { delayMs: 0 })
    a.set('second', '2')
    mesh.run(20)
    const before = b.replica.vector().get(a.replica.writer)
    mesh.fate = () => ({ delayMs: 0 })
    a.set('third', '3')
    mesh.run(20)
    expect(b.value('third')).toBe('3')
    expect(b.value('second')).toBeUndefined()
    expect(b.replica.vector().get(a.replica.writer)).toBe(before as number)
    mesh.run(6_000)
    expect(b.value('second')).toBe('2')
    expect(b.replica.vector()).toEqual(a.replica.vector())
    expect(b.sync.repairs).toBe(0)
  })

  test('pushes that come twice, late and out of order do no harm (K10)', () => {
    const [mesh, a, b, c] = cluster(3, { seed: 5 }) as [Mesh, MeshNode, MeshNode, MeshNode]
    const random = new SeededRandom(3)
    const kept: { readonly to: MeshNode; readonly sent: Sent }[] = []
    mesh.fate = (_from, to, sent) => {
      if (sent.type !== MESSAGE.push) return { delayMs: 0 }
      const node = [a, b, c].find(({ id }) => id === to) as MeshNode
      kept.push({ to: node, sent })
      return { delayMs: random.below(3_000) }
    }
    for (let round = 0; round < 60; round += 1) {
      const node = [a, b, c][random.below(3)] as MeshNode
      node.set(`k${random.below(8)}`, random.below(3) === 0 ? null : String(round))
      mesh.run(random.below(500))
      const { to, sent } = kept[random.below(kept.length)] as (typeof kept)[number]
      const [link] = to.links.open.values()
      if (link !== undefined) to.links.deliver(link, sent)
    }
    mesh.run(20_000)
    expect(isAlike([a, b, c])).toBe(true)
    expect(kept.length).toBeGreaterThan(100)
    expect([a, b, c].map(({ sync }) => sync.repairs)).toEqual([0, 0, 0])
    expect(a.links.closedWhy).toEqual([])
  })

  test('2, 3 and 5 nodes agree after cuts, crashes and rollbacks, without a digest', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const count = [2, 3, 5][seed % 3] as number
      const mesh = new Mesh({ seed })
      const nodes = mesh.add(count)
      mesh.join()
      const random = new SeededRandom(seed * 7_919)
      const images = new Map<MeshNode, Uint8Array>()
      for (let round = 0; round < 60; round += 1) {
        const node = nodes[random.below(count)] as MeshNode
        const dice = random.below(20)
        if (dice === 0) mesh.join(...split(nodes, random))
        else if (dice === 1) mesh.join()
        else if (dice === 2 && node.isUp) images.set(node, node.sqlite.serialize())
        else if (dice === 3) {
          node.crash(random.below(3) === 0 ? images.get(node) : undefined)
        } else if (!node.isUp) node.start()
        else {
          const burst = 1 + random.below(random.below(8) === 0 ? 300 : 3)
          for (let write = 0; write < burst; write += 1) {
            const key = `k${random.below(burst > 3 ? 500 : 12)}`
            node.set(key, random.below(4) === 0 ? null : `${round}.${write}`)
          }
        }
        mesh.run(random.below(4_000))
      }
      for (const node of nodes) if (!node.isUp) node.start()
      mesh.join()
      mesh.run(40_000)
      expect({ seed, roots: new Set(nodes.map(({ root }) => root)).size }).toEqual({
        seed,
        roots: 1,
      })
      const vectors = new Set(
        nodes.map(({ replica }) => JSON.stringify([...replica.vector()].sort())),
      )
      expect({ seed, vectors: vectors.size }).toEqual({ seed, vectors: 1 })
      const repairs = nodes.reduce((sum, { sync }) => sum + sync.repairs, 0)
      expect({ seed, repairs }).toEqual({ seed, repairs: 0 })
    }
  }, 60_000)

  test('no message but the last of a catch-up has a vector', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
    for (let row = 0; row < 1_500; row += 1) a.set(`k${row}`, 'x'.repeat(200))
    const batches: Readonly<Record<string, unknown>>[] = []
    mesh.fate = (from, _to, sent) => {
      if (from === a.id && sent.type === MESSAGE.batch) {
        batches.push(bodyOf(sent))
        expect(sent.body.length).toBeLessThan(200 * 1024)
      }
      return { delayMs: 0 }
    }
    mesh.join()
    mesh.run(2_000)
    expect(batches.length).toBeGreaterThan(3)
    for (const { l, v } of batches) expect(v !== undefined).toBe(l === 1)
    expect(b.root).toBe(a.root)
  })

  test('a catch-up goes on where it was when its link was lost', () => {
    const mesh = new Mesh({ bytesPerMs: 100 })
    const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
    for (let row = 0; row < 3_000; row += 1) a.set(`k${row}`, 'x'.repeat(200))
    mesh.join()
    mesh.run(4_000)
    const cursor = b.replica.cursor(a.id)
    expect(cursor?.at).toBeGreaterThan(300)
    expect(cursor?.at).toBeLessThan(2_500)
    // Nothing that is not whole is claimed.
    expect(b.replica.vector().get(a.replica.writer)).toBeUndefined()
    expect(b.sync.caughtUp('state')).toBe(false)
    mesh.join([a], [b])
    mesh.run(100)
    const before = a.sent.bytes
    mesh.join()
    mesh.run(30_000)
    expect(b.root).toBe(a.root)
    expect(b.sync.caughtUp('state')).toBe(true)
    const whole = 3_000 * 330
    expect(a.sent.bytes - before).toBeLessThan(
      whole * (1 - (cursor?.at as number) / 3_100) + 150_000,
    )
  })

  test('what a peer knew in another generation counts for nothing', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    for (let row = 0; row < 40; row += 1) a.set(`k${row}`, '1')
    mesh.run(6_000)
    const image = a.sqlite.serialize()
    for (let row = 0; row < 40; row += 1) a.set(`late${row}`, '1')
    mesh.run(6_000)
    // A falls back behind what B has read of it, and writes other rows to the same places.
    mesh.join([a], [b])
    a.crash(image)
    a.start()
    for (let row = 0; row < 30; row += 1) a.set(`new${row}`, '1')
    mesh.join()
    mesh.run(6_000)
    expect(b.value('new0')).toBe('1')
    expect(a.value('late0')).toBe('1')
    expect(a.root).toBe(b.root)
    expect(a.sync.repairs + b.sync.repairs).toBe(0)
  })

  test('a batch that its link had no room for is sent when there is some', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    mesh.run(10_000)
    const link = a.links.open.get(b.id) as MeshLink
    mesh.fate = (from, _to, { type }) => {
      if (type === MESSAGE.pull && from === b.id) link.full = true
      return type === MESSAGE.push ? null : { delayMs: 0 }
    }
    a.replica.transact(() => {
      for (let row = 0; row < 900; row += 1) a.set(`k${row}`, 'x'.repeat(200))
    })
    mesh.run(12_000)
    expect(b.value('k0')).toBeUndefined()
    mesh.fate = () => ({ delayMs: 0 })
    link.full = false
    mesh.run(200)
    expect(b.root).toBe(a.root)
  })

  test('a row that is as long as a row may be comes through, behind many short ones', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
    for (let row = 0; row < 435; row += 1) a.set(`k${row}`, 'x'.repeat(100))
    a.set('recipients', 'y'.repeat(400_000))
    mesh.join()
    mesh.run(6_000)
    expect(b.value('recipients')?.length).toBe(400_000)
    expect(b.root).toBe(a.root)
    // As a write of now it is too long to be pushed: the others are told to ask for it.
    a.set('recipients', 'z'.repeat(400_000))
    mesh.run(200)
    expect(b.value('recipients')?.[0]).toBe('z')
  })

  test('a node that was away gets the difference, not the state', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    for (let row = 0; row < 2_000; row += 1) a.set(`k${row}`, 'x'.repeat(100))
    mesh.run(10_000)
    expect(isAlike([a, b, c])).toBe(true)
    mesh.join([a, b], [c])
    for (let row = 0; row < 1_000; row += 1) a.set(`k${row}`, null)
    for (let row = 0; row < 50; row += 1) b.set(`n${row}`, 'y'.repeat(100))
    mesh.run(30 * MINUTE)
    const before = a.sent.bytes + b.sent.bytes + c.sent.bytes
    mesh.join()
    mesh.run(10_000)
    expect(isAlike([a, b, c])).toBe(true)
    expect(c.value('k1')).toBeNull()
    const went = a.sent.bytes + b.sent.bytes + c.sent.bytes - before
    // 1,050 rows of about 230 bytes, from one peer and not from both.
    expect(went).toBeLessThan(1_050 * 260 * 1.2)
  })

  test('a new node in a large cluster is fed by a few, not by all', () => {
    const mesh = new Mesh({ latencyMs: 20 })
    const nodes = mesh.add(12)
    mesh.join()
    const [first] = nodes as [MeshNode]
    first.replica.transact(() => {
      for (let row = 0; row < 800; row += 1) first.set(`k${row}`, 'x'.repeat(200))
    })
    mesh.run(20_000)
    expect(isAlike(nodes)).toBe(true)
    const sent = (): number =>
      mesh.nodes.reduce((sum, node) => sum + (node.sent.byType.get(MESSAGE.batch) ?? 0), 0)
    const before = sent()
    const [late] = mesh.add(1) as [MeshNode]
    mesh.join()
    mesh.run(20_000)
    expect(late.root).toBe(first.root)
    expect(sent() - before).toBeLessThan(800 * 420 * 1.3)
  })

  test('what a node writes is passed on to one that cannot hear it', () => {
    const mesh = new Mesh()
    const [a, b, c, d, e] = mesh.add(5) as [MeshNode, MeshNode, MeshNode, MeshNode, MeshNode]
    mesh.join()
    mesh.run(1_000)
    mesh.unlink(a, b)
    mesh.run(2_000)
    const pushes: string[] = []
    let all = 0
    mesh.fate = (from, to, { type }) => {
      if (type === MESSAGE.push) all += 1
      if (type === MESSAGE.push && to === b.id) pushes.push(from)
      return { delayMs: 0 }
    }
    a.set('policy.hold', '7')
    mesh.run(2 * mesh.latencyMs + 2)
    expect(b.value('policy.hold')).toBe('7')
    // Two of the three pass it on, each once; B goes on to nobody.
    expect(new Set(pushes).size).toBe(pushes.length)
    expect(pushes.length).toBe(2)
    expect(pushes.every((from) => [c, d, e].some(({ id }) => id === from))).toBe(true)
    mesh.run(10_000)
    expect(pushes.length).toBe(2)
    expect(all).toBe(3 + 2)
  })

  test('in a ring a write goes round once', () => {
    const mesh = new Mesh()
    const nodes = mesh.add(6)
    for (const [at, node] of nodes.entries()) mesh.link(node, nodes[(at + 1) % 6] as MeshNode)
    mesh.run(3_000)
    let pushes = 0
    mesh.fate = (_from, _to, { type }) => {
      if (type === MESSAGE.push) pushes += 1
      return { delayMs: 0 }
    }
    ;(nodes[0] as MeshNode).set('policy.hold', '7')
    mesh.run(4 * mesh.latencyMs)
    expect(nodes.map((node) => node.value('policy.hold'))).toEqual(Array(6).fill('7'))
    mesh.run(1_000)
    // Five nodes hear it; the one in the middle from both sides, and passes it on once.
    expect(pushes).toBe(7)
  })

  test('a link that was full is told of what it missed as soon as it has room', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    mesh.run(10_000)
    const link = a.links.open.get(b.id) as MeshLink
    link.full = true
    a.set('k', '1')
    // Beats come and find no room either.
    mesh.run(12_000)
    expect(b.value('k')).toBeUndefined()
    expect(a.sync.lagOf(b.id).rows).toBe(2)
    link.full = false
    mesh.run(4 * mesh.latencyMs)
    expect(b.value('k')).toBe('1')
  })

  test('histories of mails travel beside the state, by batches and by pushes', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2, false) as [MeshNode, MeshNode]
    /** Times that rows of a write were read for a push. */
    let reads = 0
    const feeds = [a, b].map((node) => {
      const sqlite = new Database(':memory:')
      for (const { sql } of TRACE_MIGRATIONS) sqlite.run(sql)
      const store = new StoreDatabase(sqlite, 'trace.db', node.observer)
      const wrote = (): void => {}
      const deps = { clock: node, random: mesh.random, keepMs: () => 30 * 86_400_000, wrote }
      const feed = new TraceFeed(store, deps)
      const onOwn = feed.onOwn.bind(feed)
      feed.onOwn = (listener) =>
        onOwn((write) => {
          const { writer, after, upto } = write
          const rows = (): OwnWrite['rows'] => {
            reads += 1
            return write.rows
          }
          listener(
            Object.defineProperty({ writer, after, upto } as OwnWrite, 'rows', { get: rows }),
          )
        })
      node.trace = feed
      node.start()
      return feed
    }) as [TraceFeed, TraceFeed]
    const ids = new MessageIds(a.id, 1, a)
    const log = (count: number): void => {
      feeds[0].write(() => {
        for (let write = 0; write < count; write += 1) feeds[0].log(ids.next(), 0)
        return count
      })
    }
    log(1_000)
    log(1)
    // Nobody is there to hear of it.
    expect(reads).toBe(0)
    mesh.join()
    mesh.run(6_000)
    expect(b.sync.caughtUp('trace')).toBe(true)
    expect(feeds[1].vector().get(feeds[0].writer)).toBe(1_001)
    log(3)
    mesh.run(mesh.latencyMs + 1)
    expect(reads).toBe(1)
    expect(feeds[1].vector().get(feeds[0].writer)).toBe(1_004)
    expect(a.sync.lagOf(b.id).rows).toBe(3)
    mesh.run(6_000)
    expect(a.sync.lagOf(b.id).rows).toBe(0)
    // A long one is told of, and asked for: it is not read for a push as well.
    log(1_000)
    mesh.run(5 * mesh.latencyMs)
    expect(feeds[1].vector().get(feeds[0].writer)).toBe(2_004)
    expect(reads).toBe(1)
    expect(a.links.closedWhy).toEqual([])
  })

  test('a node that forgets its rows while it is linked gets them again', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    for (let row = 0; row < 40; row += 1) a.set(`k${row}`, '1')
    mesh.run(6_000)
    b.replica.reset([])
    expect(b.value('k1')).toBeUndefined()
    mesh.run(6_000)
    expect(b.value('k1')).toBe('1')
    expect(b.sync.repairs).toBe(0)
  })

  test('what came by pushes costs no commit a second time', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2, false) as [MeshNode, MeshNode]
    const applied = { push: 0, batch: 0, repair: 0 }
    b.wrap = (rows) =>
      replaced(rows, {
        apply: (incoming) => {
          applied[incoming.as.kind] += 1
          return rows.apply(incoming)
        },
      })
    a.start()
    b.start()
    mesh.join()
    mesh.run(6_000)
    const before = applied.batch
    for (let second = 0; second < 60; second += 1) {
      a.set('k', String(second))
      mesh.run(1_000)
    }
    mesh.run(10_000)
    expect(applied.push).toBe(60)
    expect(applied.batch - before).toBe(0)
  })
})

describe('the backstop', () => {
  /** Rows of A that B loses behind the back of its own vector. */
  function damaged(rows: number): [Mesh, MeshNode, MeshNode] {
    const mesh = new Mesh({ seed: 3 })
    const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
    mesh.join()
    for (let row = 0; row < 400; row += 1) a.set(`k${row}`, 'good')
    mesh.run(10_000)
    expect(b.root).toBe(a.root)
    // Its sums are made anew at its start.
    b.crash()
    b.sqlite.run(`DELETE FROM shared WHERE kind = 'setting' AND key IN
      (SELECT key FROM shared WHERE kind = 'setting' ORDER BY key LIMIT ${rows})`)
    b.start()
    mesh.join()
    return [mesh, a, b]
  }

  test('a damaged row is repaired, and counted as a fault of ours', () => {
    const [mesh, a, b] = damaged(1)
    // What differs for less than two beats may be under way.
    mesh.run(3_500)
    expect(a.sent.byType.has(MESSAGE.digest) || b.sent.byType.has(MESSAGE.digest)).toBe(false)
    mesh.run(21_500)
    expect(b.root).toBe(a.root)
    expect(a.sync.repairs + b.sync.repairs).toBe(1)
    expect(b.count('sync.repaired')).toBe(1)
    expect(b.observer.count('sync_repairs_total')).toBe(1)
  })

  test('what is merely under way while they compare is not taken for damage', () => {
    const [mesh, a, b] = damaged(1)
    const [c] = mesh.add(1) as [MeshNode]
    mesh.join()
    const [asks, answers] = a.id < b.id ? [a, b] : [b, a]
    let written = 0
    mesh.fate = (from, to, { type, body }) => {
      const isStep = type === MESSAGE.digest || type === MESSAGE.repair
      if (isStep && (from === c.id || to === c.id)) return null
      if (from === asks.id && bodyOf({ type, body })['s'] !== undefined && written < 3) {
        const there = answers.replica.digest().leaves
        const differs = asks.replica.digest().leaves.findIndex((sum, leaf) => sum !== there[leaf])
        const keys = Array.from({ length: 5_000 }, (_, at) => `w${written}.${at}`)
        written += 1
        c.set(keys.find((key) => leafOf('setting', key) === differs) as string, '1')
      }
      // One of the two hears it while they compare, the other one later.
      return { delayMs: type === MESSAGE.push && to === answers.id ? 400 : 0 }
    }
    mesh.run(MINUTE)
    expect(written).toBe(3)
    expect(a.root).toBe(b.root)
    expect(a.sync.repairs + b.sync.repairs).toBe(1)
  })

  for (const [what, ageMs] of [
    ['told', 0],
    ['forgotten', 3 * DAY],
  ] as const) {
    for (const side of [0, 1] as const) {
      test(`a deletion that was missed is ${what} (${side})`, () => {
        const mesh = new Mesh({ seed: 3 })
        const [a, b] = mesh.add(2).toSorted((one, two) => (one.id < two.id ? -1 : 1)) as [
          MeshNode,
          MeshNode,
        ]
        mesh.join()
        a.set('k', 'good')
        const living = JSON.stringify((a.replica.rowsOf(['setting/k'])[0] as SharedRow).state)
        a.replica.write('setting', 'k', null, 'ruiz')
        mesh.run(10_000)
        const [sound, damaged] = side === 0 ? [a, b] : [b, a]
        for (const one of [a, b]) one.skewMs = ageMs
        if (ageMs > 0) sound.replica.collect(damaged.replica.vector(), 10)
        expect(sound.replica.cell('setting', 'k') === null).toBe(ageMs > 0)
        damaged.crash()
        damaged.sqlite.run("UPDATE shared SET state = ?, hash = ?, dead = 0 WHERE key = 'k'", [
          living,
          hashOfRow('setting', 'k', living),
        ])
        damaged.start()
        mesh.join()
        mesh.run(25_000)
        expect(isTombstone(damaged.replica.cell('setting', 'k') as Cell)).toBe(true)
        expect(a.root).toBe(b.root)
        expect(damaged.sync.repairs).toBe(1)
      })
    }
  }

  test('much damage is repaired round by round', () => {
    const [mesh, a, b] = damaged(350)
    mesh.run(6 * MINUTE)
    expect(b.root).toBe(a.root)
    expect(b.observer.count('sync_repairs_total')).toBe(350)
  })

  test('nodes that write without pause are not taken for damaged', () => {
    const [mesh, a, b, c] = cluster(3, { latencyMs: 120 }) as [Mesh, MeshNode, MeshNode, MeshNode]
    let digests = 0
    mesh.fate = (_from, _to, { type }) => {
      if (type === MESSAGE.digest || type === MESSAGE.repair) digests += 1
      return { delayMs: 0 }
    }
    for (let write = 0; write < 1_500; write += 1) {
      ;([a, b, c][write % 3] as MeshNode).set(`k${write % 20}`, String(write))
      mesh.run(40)
    }
    mesh.run(20_000)
    expect(isAlike([a, b, c])).toBe(true)
    expect([a, b, c].map(({ sync }) => sync.repairs)).toEqual([0, 0, 0])
    expect(digests).toBe(0)
  })
})

describe('acknowledgements', () => {
  test('nothing is durable everywhere while a member was not heard since the start', () => {
    const mesh = new Mesh()
    const [a, b, c] = mesh.add(3) as [MeshNode, MeshNode, MeshNode]
    mesh.join([a, b], [c])
    a.set('k', '1')
    mesh.run(10_000)
    expect(a.sync.durable()).toBeNull()
    mesh.join()
    mesh.run(10_000)
    expect(a.sync.durable()?.get(a.replica.writer)).toBe(2)
    // It keeps what C said, and what A writes alone is not covered by C.
    mesh.join([a, b], [c])
    a.set('k', '2')
    mesh.run(10_000)
    expect(a.sync.durable()?.get(a.replica.writer)).toBe(2)
    expect(b.sync.lagOf(c.id)).toEqual({ rows: 1, ms: expect.any(Number) })
    expect(b.sync.lagOf(c.id).ms).toBeGreaterThan(4_000)
    expect(b.sync.lagOf(a.id)).toEqual({ rows: 0, ms: 0 })
  })

  test('a node that was let in just now is not behind since our start', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
    mesh.join([a], [b])
    a.set('k', '1')
    mesh.run(60_000)
    expect(a.sync.lagOf(b.id).ms).toBeGreaterThan(50_000)
    b.admittedMs = a.wallMs() - 400
    expect(a.sync.lagOf(b.id)).toEqual({ rows: 2, ms: 400 })
  })

  test('a tombstone goes a day after all have it, and no earlier (K11)', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    a.set('k', '1')
    mesh.run(6_000)
    mesh.join([a, b], [c])
    a.set('k', null)
    for (const node of mesh.nodes) node.skewMs += 2 * 86_400_000
    mesh.run(5 * MINUTE)
    expect(a.value('k')).toBeNull()
    mesh.join()
    mesh.run(5 * MINUTE)
    expect([a, b, c].map((node) => node.value('k'))).toEqual([undefined, undefined, undefined])
    expect(isAlike([a, b, c])).toBe(true)
  })

  test('a vector with more writers than a message holds is told in several', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2, false) as [MeshNode, MeshNode]
    const insert = a.sqlite.query('INSERT INTO vector VALUES (?, 1)')
    for (let writer = 1; writer <= 20_000; writer += 1) {
      insert.run(writer.toString(16).padStart(12, '0'))
    }
    a.start()
    b.start()
    a.set('k', '1')
    mesh.join()
    mesh.run(30_000)
    expect(b.replica.vector().size).toBe(20_001)
    expect(a.sync.lagOf(b.id).rows).toBe(0)
    expect(a.links.closedWhy).toEqual([])
  })
})

describe('faults', () => {
  test('a full disk takes nothing, acknowledges nothing, and keeps its links', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2, false) as [MeshNode, MeshNode]
    let full = false
    b.wrap = (rows) =>
      replaced(rows, {
        apply: (incoming) => {
          if (full) throw new StoreError('database or disk is full', { remedy: 'retry' })
          return rows.apply(incoming)
        },
      })
    a.start()
    b.start()
    mesh.join()
    mesh.run(6_000)
    full = true
    a.set('k', '1')
    mesh.run(2 * MINUTE)
    expect(b.value('k')).toBeUndefined()
    expect(a.sync.lagOf(b.id).rows).toBeGreaterThan(0)
    // It tries less and less often.
    expect(b.count('sync.stalled')).toBeGreaterThan(3)
    expect(b.count('sync.stalled')).toBeLessThan(10)
    expect(b.links.closedWhy).toEqual([])
    full = false
    mesh.run(65_000)
    expect(b.value('k')).toBe('1')
    expect(a.sync.lagOf(b.id).rows).toBe(0)
  })

  test('rows that are none close the link, and nothing is taken from that peer for a minute', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    const link = a.links.open.get(b.id) as NonNullable<ReturnType<typeof a.links.open.get>>
    const row = { kind: 'setting', key: 'k', state: { shape: 'cell', context: [], heads: [] } }
    const push = { f: 'state', o: a.id, w: 'aaaaaaaaaaaa', a: 0, u: 1, r: [row] }
    link.send(MESSAGE.push, encodeBody(push))
    mesh.run(100)
    expect(b.links.closedWhy).toHaveLength(1)
    expect(b.count('sync.refused')).toBe(1)
    a.set('late', '1')
    mesh.join()
    mesh.run(30_000)
    expect(b.value('late')).toBeUndefined()
    expect(b.links.open.size).toBe(1)
    mesh.run(40_000)
    expect(b.value('late')).toBe('1')
  })

  test('who pushes more than 10,000 rows a second is read at our own pace (K06)', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    mesh.run(1_500)
    for (let row = 0; row < 12_000; row += 1) {
      a.set(`k${row}`, '1')
      if (row % 100 === 0) mesh.run(8)
    }
    mesh.run(300)
    expect(b.count('sync.flooded')).toBe(1)
    expect(b.replica.list('setting').length).toBeLessThanOrEqual(10_000)
    c.set('other', '1')
    mesh.run(20)
    expect(b.value('other')).toBe('1')
    mesh.run(15_000)
    expect(b.replica.list('setting').length).toBe(12_001)
    expect(b.count('sync.flooded')).toBe(1)
    expect(isAlike([a, b, c])).toBe(true)
  })

  test('a slow peer holds up nobody, and what waits for it is bounded (K17)', () => {
    const mesh = new Mesh()
    const [a, b, slow] = mesh.add(3) as [MeshNode, MeshNode, MeshNode]
    mesh.slow.set(slow.id, 8)
    mesh.join()
    mesh.run(1_000)
    let late = 0
    let most = 0
    for (let write = 0; write < 6_000; write += 1) {
      a.set(`k${write % 900}`, 'z'.repeat(400))
      mesh.run(10)
      if (b.value(`k${write % 900}`) !== 'z'.repeat(400)) late += 1
      most = Math.max(most, a.links.open.get(slow.id)?.backlogBytes ?? 0)
    }
    expect(late).toBe(0)
    expect(most).toBeLessThanOrEqual(1024 * 1024)
    expect(a.links.closedWhy).toEqual([])
    mesh.run(10 * MINUTE)
    expect(slow.root).toBe(a.root)
  })

  test('bytes that are no message never throw, whoever sends them', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    const random = new SeededRandom(11)
    const seen: Sent[] = []
    mesh.fate = (_from, _to, sent) => {
      if (seen.length < 200) seen.push(sent)
      return { delayMs: 0 }
    }
    a.set('k', '1')
    mesh.run(12_000)
    for (let round = 0; round < 20_000; round += 1) {
      const { type, body } = seen[random.below(seen.length)] as Sent
      const bytes = body.slice()
      const place = random.below(bytes.length)
      bytes[place] = (bytes[place] as number) ^ (1 << random.below(8))
      const cut = random.below(3) === 0 ? bytes.subarray(0, random.below(bytes.length)) : bytes
      if (b.links.open.size === 0) {
        mesh.join()
        mesh.run(10)
      }
      const [link] = b.links.open.values()
      if (link !== undefined) {
        b.links.deliver(link, { type: random.below(9) === 0 ? random.below(16) : type, body: cut })
      }
      if (random.below(50) === 0) mesh.run(10)
    }
    // What A is said to have written is beyond belief; that of another node is not.
    const [c] = mesh.add(1) as [MeshNode]
    mesh.join()
    mesh.run(5_000)
    c.set('after', '1')
    mesh.run(20)
    expect(b.value('after')).toBe('1')
  })
})

describe('clocks', () => {
  test('one peer whose clock is wrong is named, and our own is believed', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    mesh.run(20_000)
    c.skewMs = 3_600_000
    mesh.run(20_000)
    expect(a.sync.clockTrouble()).toBeNull()
    expect(b.sync.clockTrouble()).toBeNull()
    expect(c.sync.clockTrouble()).toContain('3600 s ahead of the clocks of its 2 peers')
    expect(a.sync.peer(c.id)?.clockOffsetMs).toBeCloseTo(3_600_000, -2)
    expect(a.sync.peer(b.id)?.clockOffsetMs).toBeCloseTo(0, -2)
    mesh.run(5 * MINUTE)
    expect(a.count('clock.skewed')).toBe(1)
    expect(c.count('clock.mistrusted')).toBe(1)
    // Set right, it is believed at once: the peers' clocks are kept beside our monotonic one.
    c.skewMs = 0
    expect(c.sync.clockTrouble()).toBeNull()
    expect(c.count('clock.trusted')).toBe(0)
    c.observer.flush()
    expect(c.count('clock.trusted')).toBe(1)
  })

  test('of two nodes neither is told that it is the wrong one', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    b.skewMs = -3_600_000
    mesh.run(30_000)
    expect([a, b].map(({ sync }) => sync.clockTrouble())).toEqual([null, null])
    expect([a, b].map((node) => node.count('clock.skewed'))).toEqual([1, 1])
  })

  test('rows of a clock that runs ahead wait, and nobody repairs them', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    c.skewMs = 5 * MINUTE
    c.set('k', '1')
    const before = a.sent.messages
    mesh.run(MINUTE)
    // What is not covered because it waits is not asked for again and again.
    expect(a.sent.messages - before).toBeLessThan(100)
    expect(a.value('k')).toBeUndefined()
    expect(a.replica.parked).toBe(2)
    a.set('other', '1')
    mesh.run(5 * MINUTE)
    expect(isAlike([a, b, c])).toBe(true)
    expect([a, b, c].map(({ sync }) => sync.repairs)).toEqual([0, 0, 0])
    expect([a, b, c].map(({ replica }) => replica.parked)).toEqual([0, 0, 0])
  })
})

describe('what a node says of itself', () => {
  test('its report and whom it sees reach the others, a change within a beat', () => {
    const [mesh, a, b, c] = cluster(3) as [Mesh, MeshNode, MeshNode, MeshNode]
    mesh.run(6_000)
    expect(a.sync.peer(b.id)?.report).toEqual(b.report)
    expect(a.sync.peer(b.id)?.apart).toEqual([])
    b.report = { ...b.report, queue: 7, ready: false }
    mesh.run(6_000)
    expect(a.sync.peer(b.id)?.report).toMatchObject({ queue: 7, ready: false, held: 0 })
    mesh.unlink(b, c)
    mesh.run(2_000)
    expect(a.sync.peer(b.id)?.apart).toEqual([c.id])
    // On a new link too what is right again is said.
    mesh.unlink(a, b)
    mesh.link(b, c)
    mesh.run(2_000)
    mesh.link(a, b)
    mesh.run(2_000)
    expect(a.sync.peer(b.id)?.apart).toEqual([])
  })

  test('that it takes copies now, or none any more, is heard within a second', () => {
    const [mesh, a, b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    mesh.run(6_000)
    const heard = () => a.sync.peer(b.id)?.report?.takesCopies
    for (const takesCopies of [false, true]) {
      b.report = { ...b.report, takesCopies }
      mesh.run(1_000 + 2 * mesh.latencyMs)
      expect(heard()).toBe(takesCopies)
    }
    // At once, when it knows itself that it changed.
    mesh.run(1_000)
    b.report = { ...b.report, takesCopies: false }
    b.sync.look()
    mesh.run(2 * mesh.latencyMs)
    expect(heard()).toBe(false)
    // The next one a second later, not with the next beat.
    b.report = { ...b.report, takesCopies: true }
    b.sync.look()
    mesh.run(900)
    expect(heard()).toBe(false)
    mesh.run(100 + 2 * mesh.latencyMs)
    expect(heard()).toBe(true)
  })

  test('and is told once a second when it comes and goes', () => {
    const [mesh, , b] = cluster(2) as [Mesh, MeshNode, MeshNode]
    mesh.run(20_000)
    let told = 0
    mesh.fate = (from, _to, { type }) => {
      if (from === b.id && type === MESSAGE.beat) told += 1
      return { delayMs: 0 }
    }
    for (let turn = 0; turn < 600; turn += 1) {
      b.report = { ...b.report, takesCopies: !b.report.takesCopies }
      b.sync.look()
      mesh.run(50 + (turn % 7))
    }
    // In about 32 s, with seven beats.
    expect(told).toBeGreaterThan(25)
    expect(told).toBeLessThan(42)
  })

  test('a node alone has caught up; one with peers when it has read one of them', () => {
    const mesh = new Mesh()
    const [a] = mesh.add(1) as [MeshNode]
    expect(a.sync.caughtUp('state')).toBe(true)
    const [b] = mesh.add(1) as [MeshNode]
    let told = 0
    b.sync.onCaughtUp('state', () => {
      told += 1
    })
    mesh.run(10_000)
    expect(b.sync.caughtUp('state')).toBe(false)
    mesh.join()
    mesh.run(6_000)
    expect(b.sync.caughtUp('state')).toBe(true)
    expect(told).toBe(1)
    // Again with nothing new to read: its cursor says so.
    b.crash()
    b.start()
    mesh.join()
    mesh.run(6_000)
    expect(b.sync.caughtUp('state')).toBe(true)
  })

  test('two nodes that lost everything do not believe each other: both wait for one that has it', () => {
    const mesh = new Mesh()
    const [a, b] = mesh.add(2) as [MeshNode, MeshNode]
    for (const one of [a, b]) {
      one.crash()
      one.awaits = true
      one.start()
    }
    mesh.link(a, b)
    mesh.run(30_000)
    expect([a, b].map(({ sync }) => sync.caughtUp('state'))).toEqual([false, false])
    expect(a.sync.isWaiting(b.id)).toBe(true)
    const [c] = mesh.add(1) as [MeshNode]
    c.set('k', '1')
    mesh.link(b, c)
    mesh.run(1_000)
    expect(b.sync.caughtUp('state')).toBe(true)
    // By b, which has it now: a has no link with c.
    mesh.run(1_000)
    expect(a.sync.caughtUp('state')).toBe(true)
    expect(a.value('k')).toBe('1')
    expect([a.sync.isWaiting(b.id), b.sync.isWaiting(a.id)]).toEqual([false, false])
  })

  test('a quiet node says little', () => {
    const HEADERS = 20 + 52
    for (const [count, most] of [
      [3, 60],
      [10, 250],
      [30, 750],
      [100, 1_000],
    ] as const) {
      const mesh = new Mesh()
      const nodes = mesh.add(count)
      mesh.join()
      mesh.run(MINUTE)
      const sum = (): number =>
        nodes.reduce((all, { sent }) => all + sent.bytes + sent.messages * HEADERS, 0)
      const before = sum()
      mesh.run(2 * MINUTE)
      const perSecond = (sum() - before) / count / 120
      if (process.env['MEASURE'] !== undefined) process.stdout.write(`${count}: ${perSecond} B/s\n`)
      expect(perSecond).toBeLessThan(most)
    }
  }, 60_000)
})

function split(nodes: readonly MeshNode[], random: SeededRandom): MeshNode[][] {
  const sides: [MeshNode[], MeshNode[]] = [[], []]
  for (const node of nodes) sides[random.below(2) as 0 | 1].push(node)
  return sides
}

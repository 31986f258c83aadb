/** A member that somebody has forgotten shows how it was let in; nobody else is believed. */
import { Database } from 'bun:sqlite'
import { describe, expect, test } from 'bun:test'
import { type NodeId, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { ADMISSION_BYTES_MAX, Admissions } from '../src/cluster/admission.ts'
import type { Self } from '../src/cluster/contract.ts'
import { clusterIdOf, publicKeys } from '../src/cluster/identity.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { LinkTable } from '../src/cluster/link.ts'
import { type Applicant, MEMBER_KIND, MemberRoster } from '../src/cluster/roster.ts'
import { dialSecure } from '../src/cluster/secure.ts'
import type { SharedRow } from '../src/config/merge.ts'
import { StoreDatabase } from '../src/store/db.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { Replica } from '../src/store/replica.ts'
import { ManualClock } from './clock.ts'
import { Pipes, settled } from './pipes.ts'

const PORT = 7_946
const [A, B, C, D] = ['192.0.2.1', '192.0.2.2', '192.0.2.3', '192.0.2.4'] as const

type Node = {
  readonly host: string
  readonly self: Self
  readonly state: Replica
  readonly roster: MemberRoster
  readonly admissions: Admissions
}

/** Nodes with rows of their own, and the wires between them. */
class World {
  readonly clock = new ManualClock()
  readonly pipes = new Pipes()
  readonly random: SeededRandom
  readonly lines: string[] = []
  readonly observer = new Observer(this.clock, (line) => this.lines.push(line), 'debug')
  #clusterId = ''

  constructor(seed = 1) {
    this.random = new SeededRandom(seed)
  }

  /** The first one founds the cluster. `of`: the same node again, with an empty disk. */
  add(host: string, of: Node | null = null, id: NodeId = newNodeId(this.random)): Node {
    const node = of?.self.node ?? id
    const keys = of?.self.keys ?? newKeys(this.random)
    if (this.#clusterId === '') this.#clusterId = clusterIdOf(node, publicKeys(keys))
    const sqlite = new Database(':memory:')
    for (const { sql } of STATE_MIGRATIONS) sqlite.run(sql)
    const store = new StoreDatabase(sqlite, 'state.db', this.observer)
    const state = new Replica(store, { clock: this.clock, random: this.random, node })
    const self = { node, keys, instance: state.writer, epoch: 1, version: '1' }
    const roster = new MemberRoster(self, this.#clusterId, state, this)
    return { host, self, state, roster, admissions: new Admissions(roster, state) }
  }

  /** The founder's disk as it was when it was alone. */
  founder(): { readonly a: Node; readonly before: readonly unknown[] } {
    const a = this.add(A)
    a.roster.announce(factsOf(a))
    return { a, before: rowsOf(a) }
  }

  /** `by` lets a new node in, which hears of it. */
  admit(by: Node, host: string, id?: NodeId): Node {
    const node = this.add(host, null, id)
    by.roster.admit(applicant(node), 'ann')
    give(node, rowsOf(by))
    return node
  }

  open({ host, self, roster, admissions }: Node): Promise<LinkTable> {
    return LinkTable.open(
      {
        self,
        clusterId: this.#clusterId,
        roster,
        listen: { host, port: PORT },
        version: '1',
        parallelCrypto: false,
        onJoin: null,
        admissions,
      },
      { ...this, network: this.pipes.at(host) },
    )
  }

  async pass(ms: number): Promise<void> {
    for (let left = ms; left > 0; left -= 100) {
      this.clock.advance(Math.min(100, left))
      await settled()
    }
  }
}

function factsOf({ host }: Node) {
  const peer = [{ host, port: PORT }]
  return { name: `mx-${host}`, peer, smtp: '', web: '', version: '1', features: [] }
}

function applicant(node: Node): Applicant {
  return { node: node.self.node, ...publicKeys(node.self.keys), ...factsOf(node) }
}

function rowsOf({ state }: Node): readonly unknown[] {
  return state.rowsOf(state.list(MEMBER_KIND).map(({ key }) => `${MEMBER_KIND}/${key}`))
}

function give({ state }: Node, rows: readonly unknown[]): void {
  state.apply({ peer: '0'.repeat(16) as NodeId, rows, as: { kind: 'repair' } })
}

const names = (node: Node) =>
  node.roster
    .members()
    .map(({ name }) => name.slice(3))
    .sort()
const linked = (table: LinkTable) => table.all().length

describe('a node restored from before a join', () => {
  test('takes back whom it let in, without an operator, and both have a link', async () => {
    for (let seed = 1; seed <= 8; seed += 1) {
      const world = new World(seed)
      const { a, before } = world.founder()
      const b = world.admit(a, B)
      const restored = world.add(A, a)
      give(restored, before)
      expect(names(restored)).toEqual([A])
      const [tableA, tableB] = [await world.open(restored), await world.open(b)]
      await world.pass(5_000)
      expect([linked(tableA), linked(tableB)]).toEqual([1, 1])
      expect(restored.roster.get(b.self.node)).toEqual(b.roster.get(b.self.node))
    }
  })

  test('takes back whom others let in, whom it forgot as well', async () => {
    const world = new World()
    const { a, before } = world.founder()
    const c = world.admit(world.admit(a, B), C)
    const restored = world.add(A, a)
    give(restored, before)
    const [tableA] = [await world.open(restored), await world.open(c)]
    await world.pass(5_000)
    expect(linked(tableA)).toBe(1)
    expect(restored.roster.members().length).toBe(3)
    // It says of itself alone where it is: the next one does so when it calls.
    expect(names(restored)).toContain(C)
    expect(names(restored)).not.toContain(B)
  })

  test('needs no more than one dial: a member that has not heard of a join believes it too', async () => {
    const world = new World()
    const { a } = world.founder()
    const b = world.admit(a, B)
    // b has heard nothing of it.
    const c = world.admit(a, C)
    const [tableB] = [await world.open(b), await world.open(c)]
    await world.pass(4_000)
    expect(linked(tableB)).toBe(1)
    expect(b.roster.members().length).toBe(3)
  })
})

describe('nobody else is believed', () => {
  /** A restored founder, what it knew, and one whom it let in after that. */
  function forgotten() {
    const world = new World()
    const { a, before } = world.founder()
    const b = world.admit(a, B)
    const restored = world.add(A, a)
    give(restored, before)
    return { world, a, b, restored, before }
  }

  /** What comes of it, and that nothing was written unless somebody was let in. */
  function shown(at: Node, from: Node, body: Uint8Array | null = from.admissions.mine()): string {
    const { head } = at.state
    at.admissions.take(from.self.keys.exchange.public, body ?? new Uint8Array(0))
    const standing = at.roster.byExchange(from.self.keys.exchange.public)?.standing ?? 'unknown'
    if (standing === 'unknown') expect(at.state.head).toBe(head)
    return standing
  }

  const bodyOf = (rows: readonly unknown[]) => new TextEncoder().encode(JSON.stringify({ rows }))
  const parts = (node: Node): SharedRow[] => rowsOf(node) as SharedRow[]

  test('the rows of a member do for who holds its key, and for nobody else', () => {
    const { world, b, restored } = forgotten()
    const rogue = world.add(D)
    expect(shown(restored, rogue, b.admissions.mine())).toBe('unknown')
    expect(shown(restored, b)).toBe('member')
  })

  test('a chain that a stranger signed, or of which one is missing, or of another cluster', () => {
    const { world, b, restored } = forgotten()
    const rogue = world.add(D)
    // Signed by itself, in the name of the founder and as a founder.
    for (const admitter of [restored.self.node, null]) {
      const self = { ...rogue.self, node: admitter ?? rogue.self.node }
      const forger = new MemberRoster(self, restored.roster.clusterId, rogue.state, world)
      give(rogue, rowsOf(restored))
      expect(() => forger.admit(applicant(rogue), 'eve')).not.toThrow()
      expect(shown(restored, rogue, bodyOf(rowsOf(rogue)))).toBe('unknown')
    }
    const c = world.admit(b, C)
    const without = parts(c).filter(({ key }) => !key.startsWith(b.self.node))
    expect(shown(restored, c, bodyOf(without))).toBe('unknown')
    expect(shown(restored, c)).toBe('member')
    const elsewhere = new World(2)
    const other = elsewhere.admit(elsewhere.founder().a, B)
    expect(shown(restored, other)).toBe('unknown')
  })

  test('who was removed or has left, here or by its own rows', () => {
    for (const standing of ['evicted', 'left'] as const) {
      const { world, a, b, before, restored } = forgotten()
      const end = (at: Node, node: Node) =>
        standing === 'left'
          ? at.roster.markLeft(node.self.node, 'ann')
          : at.roster.evict(node.self.node, 'ann')
      end(a, b)
      // It is known here with its end.
      expect(shown(a, b)).toBe(standing)
      // Only its end is known here: it came before the rest.
      const ahead = world.add(A, a)
      give(ahead, before)
      give(
        ahead,
        parts(a).filter(({ key }) => key.endsWith('/standing')),
      )
      expect(shown(ahead, b)).toBe(standing)
      // It brings its end itself.
      give(b, rowsOf(a))
      expect(shown(restored, b)).toBe('unknown')
    }
  })

  test('whom a removed node let in by itself, once its removal is known (K05)', () => {
    for (const standing of ['evicted', 'left'] as const) {
      const { world, a, b } = forgotten()
      if (standing === 'left') a.roster.markLeft(b.self.node, 'ann')
      else a.roster.evict(b.self.node, 'ann')
      // b was stolen: it signs whom it likes, with the key that the cluster knows.
      const rogue = world.admit(b, D)
      expect(rogue.roster.get(rogue.self.node)?.standing).toBe('member')
      expect(shown(a, rogue)).toBe('unknown')
    }
  })

  test('a node whose id begins like that of another member (K13)', () => {
    const { world, a, b } = forgotten()
    // b has not heard of the one whom its own guest is too much like.
    const c = world.admit(a, C)
    const twin = world.admit(b, D, `${c.self.node.slice(0, 8)}00000000` as NodeId)
    expect(twin.roster.members().length).toBe(3)
    expect(shown(a, twin)).toBe('unknown')
  })

  test('whom a node of the same id with other keys let in', () => {
    const { world, a, b } = forgotten()
    const c = world.admit(a, C)
    const other = world.admit(world.admit(b, C, c.self.node), D)
    expect(other.roster.members().length).toBe(4)
    expect(shown(a, other)).toBe('unknown')
  })

  test('rows about others than those of the chain stay out', () => {
    const { world, b, restored } = forgotten()
    const eve = world.add(D)
    give(eve, rowsOf(restored))
    eve.roster.evict(restored.self.node, 'eve')
    eve.state.write('setting', 'policy.hold', '1', 'eve')
    const added = [`member/${restored.self.node}/standing`, 'setting/policy.hold']
    const rows = [...rowsOf(b), ...eve.state.rowsOf(added)]
    expect(rows.length).toBe(rowsOf(b).length + 2)
    expect(shown(restored, b, bodyOf(rows))).toBe('member')
    expect(restored.roster.get(restored.self.node)?.standing).toBe('member')
    expect(restored.state.list('setting')).toEqual([])
  })

  test('anything else at all, and what is too long', () => {
    const { world, b, restored } = forgotten()
    const mine = b.admissions.mine() as Uint8Array
    for (let at = 0; at < 300; at += 1) {
      const changed = mine.slice()
      const place = world.random.below(changed.length)
      changed[place] = (changed[place] ?? 0) ^ (1 << world.random.below(8))
      restored.admissions.take(b.self.keys.exchange.public, changed.slice(0, place + 1))
      restored.admissions.take(b.self.keys.exchange.public, world.random.bytes(place))
    }
    for (const text of ['null', '[]', '{"rows":{}}', '{"rows":[null]}', '{"rows":[[[[[[]]]]]]}']) {
      expect(shown(restored, b, new TextEncoder().encode(text))).toBe('unknown')
    }
    const padded = new Uint8Array(ADMISSION_BYTES_MAX + 1).fill(32)
    padded.set(mine)
    expect(shown(restored, b, padded)).toBe('unknown')
    expect(shown(restored, b, padded.slice(0, -1))).toBe('member')
  })

  test('a caller without rows is refused, one that says nothing is left after 5 s, eight at once', async () => {
    const { world, restored } = forgotten()
    await world.open(restored)
    const call = async () => {
      const said: string[] = []
      const channel = await dialSecure(
        world.pipes.at(D),
        { host: A, port: PORT },
        {
          own: newKeys(world.random).exchange,
          clusterId: restored.roster.clusterId,
          protocol: { min: 1, max: 1 },
          parallelCrypto: false,
          purpose: { pattern: 'IK' },
          peer: restored.self.keys.exchange.public,
          greeting: new Uint8Array(16),
        },
        world,
      )
      channel.start({
        message: () => said.push('message'),
        notice: (code) => said.push(`notice ${code}`),
        closed: () => said.push('closed'),
      })
      await settled()
      return { channel, said }
    }
    const first = await call()
    expect(first.said).toEqual(['notice 255'])
    first.channel.send(15, new Uint8Array(3))
    await settled()
    expect(first.said.slice(1)).toEqual(['notice 2', 'closed'])
    const silent = []
    for (let at = 0; at < 8; at += 1) silent.push(await call())
    expect((await call()).said).toEqual(['notice 2', 'closed'])
    await world.pass(5_000)
    for (const { said } of silent) expect(said).toEqual(['notice 255', 'closed'])
    expect((await call()).said).toEqual(['notice 255'])
  })
})

/**
 * Nodes with real replicas and real syncs, over links that are only queues: one clock, one order
 * of events, and every link can be cut, slowed or listened to.
 */
import { Database } from 'bun:sqlite'
import type { Clock, Timer } from '../src/base/clock.ts'
import { type NodeId, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type {
  Link,
  Links,
  Liveness,
  Member,
  Members,
  NodeReport,
  Roster,
  Self,
} from '../src/cluster/contract.ts'
import { Sync } from '../src/cluster/sync.ts'
import { headInForce } from '../src/config/merge.ts'
import { StoreDatabase } from '../src/store/db.ts'
import type { Feed } from '../src/store/feed.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { Replica } from '../src/store/replica.ts'
import type { SharedRows } from '../src/store/shared.ts'

const START_MS = Date.UTC(2026, 10, 22, 12)
/** What a link keeps for its peer before it says no. */
export const BACKLOG_BYTES_MAX = 1024 * 1024

type Planned = {
  readonly atMs: number
  readonly order: number
  readonly run: () => void
  dead: boolean
}

/** Runs what is planned in the order of its time, and of its planning. A binary heap. */
class MeshClock {
  nowMs = 0
  #order = 0
  readonly #heap: Planned[] = []

  after(delayMs: number, run: () => void): Timer {
    this.#order += 1
    const planned = {
      atMs: this.nowMs + Math.max(0, delayMs),
      order: this.#order,
      run,
      dead: false,
    }
    this.#push(planned)
    return {
      cancel: () => {
        planned.dead = true
      },
    }
  }

  /** Runs the next event that is due by `untilMs`; false: there is none, and it is that late. */
  step(untilMs: number): boolean {
    for (;;) {
      const next = this.#heap[0]
      if (next === undefined || next.atMs > untilMs) {
        this.nowMs = Math.max(this.nowMs, untilMs)
        return false
      }
      this.#pop()
      if (next.dead) continue
      this.nowMs = next.atMs
      next.run()
      return true
    }
  }

  #push(planned: Planned): void {
    const heap = this.#heap
    let at = heap.push(planned) - 1
    while (at > 0) {
      const above = (at - 1) >> 1
      if (isBefore(heap[above] as Planned, planned)) break
      heap[at] = heap[above] as Planned
      at = above
    }
    heap[at] = planned
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop() as Planned
    if (heap.length === 0) return
    let at = 0
    for (;;) {
      let below = 2 * at + 1
      if (below >= heap.length) break
      const right = heap[below + 1]
      if (right !== undefined && isBefore(right, heap[below] as Planned)) below += 1
      if (isBefore(last, heap[below] as Planned)) break
      heap[at] = heap[below] as Planned
      at = below
    }
    heap[at] = last
  }
}

function isBefore(a: Planned, b: Planned): boolean {
  return a.atMs < b.atMs || (a.atMs === b.atMs && a.order < b.order)
}

/** What a message meets on its way; null: it is lost, which TCP never does to all that follows. */
export type Fate = { readonly delayMs: number } | null

export type Sent = { readonly type: number; readonly body: Uint8Array }

export class MeshLink implements Link {
  readonly peer: NodeId
  readonly instance: string
  readonly remote = { host: '192.0.2.1', port: 7946 }
  readonly outgoing: boolean
  readonly roundTripMs: number
  readonly heardMono = 0
  readonly ackedBoot = null
  backlogBytes = 0
  other: MeshLink | null = null
  isOpen = true
  readonly #mesh: Mesh
  readonly #from: MeshNode
  readonly #queues: { readonly now: Sent[]; readonly bulk: Sent[] } = { now: [], bulk: [] }
  readonly #drained: (() => void)[] = []
  #sending = false
  #full = false

  constructor(mesh: Mesh, from: MeshNode, to: MeshNode, outgoing: boolean) {
    this.#mesh = mesh
    this.#from = from
    this.peer = to.id
    this.instance = to.instance
    this.outgoing = outgoing
    this.roundTripMs = 2 * mesh.latencyMs
  }

  send(type: number, body: Uint8Array, bulk = false): boolean {
    if (!this.isOpen || this.#full || this.backlogBytes + body.length > BACKLOG_BYTES_MAX)
      return false
    this.#from.sent.messages += 1
    this.#from.sent.bytes += body.length
    this.#from.sent.byType.set(type, (this.#from.sent.byType.get(type) ?? 0) + body.length)
    this.#queues[bulk ? 'bulk' : 'now'].push({ type, body: body.slice() })
    this.backlogBytes += body.length
    this.#next()
    return true
  }

  onceDrained(run: () => void): void {
    this.#drained.push(run)
    this.#tellDrained()
  }

  close(why: string): void {
    this.#mesh.cut(this, why)
  }

  /** As if much waited on it. */
  set full(full: boolean) {
    this.#full = full
    this.#tellDrained()
  }

  #next(): void {
    if (this.#sending || !this.isOpen) return
    const sent = this.#queues.now.shift() ?? this.#queues.bulk.shift()
    if (sent === undefined) return
    this.#sending = true
    const { bytesPerMs, latencyMs, clock } = this.#mesh
    const rate = this.#mesh.slow.get(this.peer) ?? this.#mesh.slow.get(this.#from.id) ?? bytesPerMs
    clock.after(sent.body.length / rate, () => {
      this.#sending = false
      this.backlogBytes -= sent.body.length
      const fate = this.#mesh.fate(this.#from.id, this.peer, sent)
      const { other } = this
      if (fate !== null && other !== null) {
        clock.after(latencyMs + fate.delayMs, () => this.#deliver(other, sent))
      }
      this.#next()
      this.#tellDrained()
    })
  }

  #deliver(other: MeshLink, sent: Sent): void {
    if (other.isOpen) other.#from.links.deliver(other, sent)
  }

  #tellDrained(): void {
    this.#mesh.clock.after(0, () => {
      while (this.isOpen && !this.#full && this.backlogBytes < BACKLOG_BYTES_MAX / 2) {
        const run = this.#drained.shift()
        if (run === undefined) return
        run()
      }
    })
  }
}

class MeshLinks implements Links {
  readonly open = new Map<NodeId, MeshLink>()
  readonly closedWhy: string[] = []
  readonly #onOpen: ((link: Link) => void)[] = []
  readonly #onClose: ((link: Link, why: string) => void)[] = []
  readonly #onMessage = new Map<number, (link: Link, body: Uint8Array) => void>()

  get(node: NodeId): Link | null {
    return this.open.get(node) ?? null
  }

  all(): readonly Link[] {
    return [...this.open.values()]
  }

  onOpen(listener: (link: Link) => void): void {
    this.#onOpen.push(listener)
  }

  onClose(listener: (link: Link, why: string) => void): void {
    this.#onClose.push(listener)
  }

  onMessage(type: number, listener: (link: Link, body: Uint8Array) => void): void {
    this.#onMessage.set(type, listener)
  }

  trouble(node: NodeId): string | null {
    return this.open.has(node) ? null : 'nobody answers at its addresses'
  }

  opened(link: MeshLink): void {
    this.open.set(link.peer, link)
    for (const listener of this.#onOpen) listener(link)
  }

  closed(link: MeshLink, why: string): void {
    this.closedWhy.push(why)
    for (const listener of this.#onClose) listener(link, why)
  }

  deliver(link: MeshLink, { type, body }: Sent): void {
    this.#onMessage.get(type)?.(link, body.slice())
  }
}

class MeshMembers implements Members {
  readonly #node: MeshNode

  constructor(node: MeshNode) {
    this.#node = node
  }

  get(node: NodeId): Liveness {
    const linked = this.#node.links.open.has(node)
    return {
      node,
      life: linked ? 'alive' : 'dead',
      sinceMono: 0,
      heardMono: 0,
      ackedBoot: linked ? this.#node.bootMs() : null,
      udp: true,
      tcp: linked,
      udpRoundTripMs: null,
    }
  }

  all(): readonly Liveness[] {
    return []
  }

  isUsable(node: NodeId): boolean {
    return this.#node.links.open.has(node)
  }

  onChange(): void {}
}

export type MeshOptions = {
  readonly seed?: number
  readonly latencyMs?: number
  readonly bytesPerMs?: number
}

export class Mesh {
  readonly clock = new MeshClock()
  readonly random: SeededRandom
  readonly latencyMs: number
  readonly bytesPerMs: number
  /** Bytes a ms of the links of some nodes. */
  readonly slow = new Map<NodeId, number>()
  readonly nodes: MeshNode[] = []
  fate: (from: NodeId, to: NodeId, sent: Sent) => Fate = () => ({ delayMs: 0 })

  constructor({ seed = 1, latencyMs = 5, bytesPerMs = 12_500 }: MeshOptions = {}) {
    this.random = new SeededRandom(seed)
    this.latencyMs = latencyMs
    this.bytesPerMs = bytesPerMs
  }

  add(count: number, start = true): readonly MeshNode[] {
    const added = Array.from({ length: count }, () => new MeshNode(this, this.nodes.length))
    this.nodes.push(...added)
    this.nodes.sort((a, b) => (a.id < b.id ? -1 : 1))
    for (const node of added) if (start) node.start()
    return added
  }

  /** Links between all that run, but not between different `sides`. */
  join(...sides: readonly (readonly MeshNode[])[]): void {
    const groups = sides.length === 0 ? [this.nodes] : sides
    for (const a of this.nodes) {
      for (const b of this.nodes) {
        if (a.id >= b.id) continue
        const together = groups.some((side) => side.includes(a) && side.includes(b))
        const link = a.links.open.get(b.id)
        if (!together && link !== undefined) this.cut(link, 'the network is cut')
        else if (together && link === undefined) this.link(a, b)
      }
    }
  }

  link(a: MeshNode, b: MeshNode): void {
    if (!a.isUp || !b.isUp || a.links.open.has(b.id)) return
    const there = new MeshLink(this, a, b, true)
    const back = new MeshLink(this, b, a, false)
    there.other = back
    back.other = there
    a.links.opened(there)
    b.links.opened(back)
  }

  unlink(a: MeshNode, b: MeshNode): void {
    const link = a.links.open.get(b.id)
    if (link !== undefined) this.cut(link, 'cut')
  }

  cut(link: MeshLink, why: string): void {
    for (const [end, told] of [
      [link, why],
      [link.other, 'the peer closed it'],
    ] as const) {
      if (end === null || !end.isOpen) continue
      end.isOpen = false
      const owner = this.#ownerOf(end)
      owner.open.delete(end.peer)
      // Never from inside a call into the link.
      this.clock.after(0, () => owner.closed(end, told))
    }
  }

  #ownerOf(link: MeshLink): MeshLinks {
    const node = this.nodes.find(({ id }) => id === link.other?.peer) as MeshNode
    // The links of this run: a later one has its own.
    return node.links
  }

  run(ms: number): void {
    const untilMs = this.clock.nowMs + ms
    while (this.clock.step(untilMs)) {}
  }

  /** As `run`, and lets promises settle after each event. */
  async runAsync(ms: number): Promise<void> {
    const untilMs = this.clock.nowMs + ms
    do for (let turn = 0; turn < 20; turn += 1) await Promise.resolve()
    while (this.clock.step(untilMs))
  }
}

export class MeshNode implements Clock {
  readonly id: NodeId
  readonly name: string
  readonly events: string[] = []
  readonly observer: Observer
  readonly sent = { messages: 0, bytes: 0, byType: new Map<number, number>() }
  readonly mesh: Mesh
  links = new MeshLinks()
  instance = ''
  isUp = false
  skewMs = 0
  /** 0: long ago. */
  admittedMs = 0
  report: NodeReport = {
    ready: true,
    queue: 0,
    held: 0,
    diskFreeBytes: 50e9,
    diskTotalBytes: 100e9,
    takesCopies: true,
    copies: 0,
    alone: 0,
    inDoubt: 0,
    troubles: [],
  }
  sqlite: Database
  /** Wraps the rows of this node for what comes between them and the sync. */
  wrap: (rows: SharedRows) => SharedRows = (rows) => rows
  trace: Feed | null = null
  /** From the next start on. */
  awaits = false
  #replica: Replica | null = null
  #sync: Sync | null = null
  #run = 0

  constructor(mesh: Mesh, index: number) {
    this.mesh = mesh
    this.id = newNodeId(mesh.random)
    this.name = `mx${index + 1}`
    this.sqlite = new Database(':memory:')
    for (const { sql } of STATE_MIGRATIONS) this.sqlite.run(sql)
    this.observer = new Observer(this, (lines) => this.events.push(...lines.trim().split('\n')))
  }

  wallMs(): number {
    return START_MS + Math.round(this.mesh.clock.nowMs) + this.skewMs
  }

  monoMs(): number {
    return this.mesh.clock.nowMs
  }

  bootMs(): number {
    return this.monoMs()
  }

  after(delayMs: number, run: () => void): Timer {
    const born = this.#run
    return this.mesh.clock.after(delayMs, () => {
      if (this.#run === born) run()
    })
  }

  get replica(): Replica {
    if (this.#replica === null) throw new Error(`${this.name} is down`)
    return this.#replica
  }

  get sync(): Sync {
    if (this.#sync === null) throw new Error(`${this.name} is down`)
    return this.#sync
  }

  get self(): Self {
    const none = { secret: new Uint8Array(32), public: new Uint8Array(32) }
    return {
      node: this.id,
      keys: { exchange: none, sign: none },
      instance: this.instance,
      epoch: this.#run,
      version: '1',
    }
  }

  get roster(): Roster {
    const known = new Map<MeshNode, Member>()
    const memberOf = (node: MeshNode): Member => ({
      node: node.id,
      name: node.name,
      standing: 'member',
      exchange: new Uint8Array(32),
      sign: new Uint8Array(32),
      peer: [],
      smtp: '',
      web: '',
      version: '1',
      features: [],
      drain: 'accepting',
      admittedBy: null,
      get admittedMs() {
        return node.admittedMs
      },
    })
    const members = (): readonly Member[] =>
      this.mesh.nodes.map((node) => {
        const member = known.get(node) ?? memberOf(node)
        known.set(node, member)
        return member
      })
    return {
      clusterId: '00112233aabbccdd',
      self: this.self,
      members,
      peers: () => members().filter(({ node }) => node !== this.id),
      get: (node) => members().find((member) => member.node === node) ?? null,
      byExchange: () => null,
      onChange: () => {},
    }
  }

  start(): void {
    const random = this.mesh.random
    const store = new StoreDatabase(this.sqlite, 'state.db', this.observer)
    const replica = new Replica(store, { clock: this, random, node: this.id })
    this.#replica = replica
    replica.start()
    this.instance = replica.writer
    this.links = new MeshLinks()
    this.isUp = true
    this.#sync = new Sync(
      {
        self: this.self,
        roster: this.roster,
        links: this.links,
        members: new MeshMembers(this),
        feeds: { state: this.wrap(replica), trace: this.trace },
        report: () => this.report,
        awaits: this.awaits,
      },
      { clock: this, random, observer: this.observer },
    )
  }

  /** Stops without a word; `image`: what its disk holds when it comes back. */
  crash(image?: Uint8Array): void {
    this.isUp = false
    this.#run += 1
    this.#sync?.close()
    this.#sync = null
    this.#replica = null
    for (const link of [...this.links.open.values()]) this.mesh.cut(link, 'crash')
    if (image !== undefined) this.sqlite = Database.deserialize(image)
  }

  set(key: string, value: string | null): void {
    this.replica.write('setting', key, value, 'ruiz')
  }

  value(key: string): string | null | undefined {
    const cell = this.replica.cell('setting', key)
    return cell === null ? undefined : headInForce(cell, 'latest').value
  }

  get root(): string {
    return this.replica.digest().root
  }

  count(event: string): number {
    return this.events.filter((line) => line.includes(`"event":"${event}"`)).length
  }
}

/** A feed of which some methods are others. */
export function replaced(rows: SharedRows, by: Partial<SharedRows>): SharedRows {
  return new Proxy(rows, {
    get(target, name) {
      const own = Reflect.get(by, name) as unknown
      const value = own === undefined ? (Reflect.get(target, name, target) as unknown) : own
      return own === undefined && typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** A few nodes that only ask each other whether they live: datagrams, links and crashes by seed. */

import type { NodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import type {
  Life,
  Link,
  Links,
  Member,
  Network,
  NodeKeys,
  PeerAddress,
  Roster,
  Self,
  Standing,
} from '../src/cluster/contract.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { MemberTable } from '../src/cluster/members.ts'
import type { Dice } from './sim/dice.ts'
import { SimClock, SimProcess, World } from './sim/world.ts'

const UDP_OVERHEAD = 28
const PORT = 8_025

type Cut = (from: string, to: string) => boolean

/** What a node thought of a peer, and when. */
export type Judged = { readonly atMs: number; readonly peer: string; readonly life: Life }

export type Datagram = {
  readonly bytes: Uint8Array
  readonly from: string
  readonly to: string
  readonly atMs: number
}

export class TestNode {
  readonly name: string
  readonly world: MemberWorld
  readonly node: NodeId
  readonly keys: NodeKeys
  epoch = 0
  /** The machine was copied: same node and keys, another address. */
  isClone = false
  /** What happened to the roster did not reach it. */
  isUninformed = false
  standing: Standing = 'member'
  process: SimProcess | null = null
  table: MemberTable | null = null
  links: FakeLinks | null = null
  observer: Observer | null = null
  judged: Judged[] = []
  rosterChanged: (() => void)[] = []
  udpBytes = 0
  udpPackets = 0
  lines: string[] = []
  receive: ((bytes: Uint8Array, from: PeerAddress) => void) | null = null

  constructor(name: string, world: MemberWorld, original: TestNode | null = null) {
    this.name = name
    this.world = world
    const dice = world.dice.split(name)
    if (original !== null) {
      this.isClone = true
      this.node = original.node
      this.keys = original.keys
      this.epoch = original.epoch
      return
    }
    this.node = Buffer.from(dice.bytes(8)).toString('hex') as NodeId
    this.keys = newKeys(dice)
  }

  get self(): Self {
    const instance = Buffer.from(
      this.world.dice.split(`${this.name} ${this.epoch} ${this.world.starts}`).bytes(6),
    ).toString('hex')
    const { node, keys, epoch } = this
    return { node, keys, instance, epoch, version: '0' }
  }

  get member(): Member {
    return {
      node: this.node,
      name: this.name,
      standing: this.standing,
      exchange: this.keys.exchange.public,
      sign: this.keys.sign.public,
      peer: [{ host: this.name, port: PORT }],
      smtp: '',
      web: '',
      version: '0',
      features: [],
      drain: 'accepting',
      admittedBy: null,
      admittedMs: 0,
    }
  }

  start(epoch = this.epoch + 1): void {
    const { world } = this
    world.starts += 1
    this.epoch = epoch
    const self = this.self
    const process = new SimProcess(this.name, world.starts)
    const clock = new SimClock(world.sim, process, { skewMs: 0, driftPpm: 0 })
    const random = world.dice.split(`${this.name} run ${world.starts}`)
    const observer = new Observer(clock, (lines) => {
      this.lines.push(...lines.split('\n'))
    })
    const links = new FakeLinks(this, process)
    this.process = process
    this.links = links
    this.observer = observer
    const roster: Roster = {
      clusterId: '00112233445566aa',
      self,
      members: () => world.members(this),
      peers: () => world.members(this).filter(({ node }) => node !== this.node),
      get: (node) => {
        const member = world.nodes.find((other) => other.node === node)?.member ?? null
        return member !== null && this.isUninformed ? { ...member, standing: 'member' } : member
      },
      byExchange: () => null,
      onChange: (listener) => {
        this.rosterChanged.push(listener)
      },
    }
    const network: Network = {
      listen: () => Promise.reject(new Error('no streams here')),
      dial: () => Promise.reject(new Error('no streams here')),
      datagrams: (_, received) => {
        this.receive = received
        return Promise.resolve({
          port: PORT,
          send: (bytes, to) => world.send(this, bytes, to.host),
          close: () => {
            if (this.receive === received) this.receive = null
          },
        })
      },
    }
    const listen = { host: this.name, port: PORT }
    const opened = MemberTable.open({ roster, links, listen }, { clock, random, network, observer })
    this.table = world.sim.wait(opened)
    this.table.onChange(({ node, life }, before) => {
      if (life !== before)
        this.judged.push({ atMs: world.sim.nowMs, peer: world.nameOf(node), life })
    })
    if (world.hasLinks) world.connect()
  }

  /** The process is gone; `quiet`: nobody hears of it. */
  crash(quiet = false): void {
    if (this.process !== null) this.process.isAlive = false
    this.receive = null
    this.table = null
    this.rosterChanged = []
    const { links } = this
    this.links = null
    if (!quiet) for (const link of [...(links?.open.values() ?? [])]) link.other?.break('reset')
  }

  /** Its event loop stands still; what comes in waits. */
  stall(ms: number): void {
    if (this.process !== null) this.process.stalledUntilMs = this.world.sim.nowMs + ms
  }

  lifeOf(other: TestNode): Life | null {
    return this.table?.get(other.node)?.life ?? null
  }

  dropped(): number {
    return this.observer?.count('packets_dropped_total') ?? 0
  }
}

class FakeLinks implements Links {
  readonly owner: TestNode
  readonly process: SimProcess
  readonly open = new Map<NodeId, FakeLink>()
  readonly opened: ((link: Link) => void)[] = []
  readonly closed: ((link: Link, why: string) => void)[] = []
  readonly listeners = new Map<number, (link: Link, body: Uint8Array) => void>()

  constructor(owner: TestNode, process: SimProcess) {
    this.owner = owner
    this.process = process
  }

  get(node: NodeId): Link | null {
    return this.open.get(node) ?? null
  }

  all(): readonly Link[] {
    return [...this.open.values()]
  }

  onOpen(listener: (link: Link) => void): void {
    this.opened.push(listener)
  }

  onClose(listener: (link: Link, why: string) => void): void {
    this.closed.push(listener)
  }

  onMessage(type: number, listener: (link: Link, body: Uint8Array) => void): void {
    this.listeners.set(type, listener)
  }

  trouble(): string | null {
    return null
  }
}

class FakeLink implements Link {
  readonly #owner: FakeLinks
  readonly #to: TestNode
  readonly peer: NodeId
  readonly instance: string
  readonly remote: PeerAddress
  readonly outgoing = true
  readonly roundTripMs = 2
  readonly backlogBytes = 0
  readonly ackedBoot = null
  heardMono: number
  other: FakeLink | null = null
  #cutMs: number | null = null

  constructor(owner: FakeLinks, to: TestNode) {
    this.#owner = owner
    this.#to = to
    this.peer = to.node
    this.instance = to.self.instance
    this.remote = { host: to.name, port: PORT }
    this.heardMono = to.world.sim.nowMs
  }

  send(type: number, body: Uint8Array): boolean {
    const { world } = this.#owner.owner
    const from = this.#owner.owner.name
    world.tcpBytes += body.length
    if (world.isCut('tcp', from, this.#to.name)) return true
    const { other } = this
    const copy = Uint8Array.from(body)
    world.sim.after(world.latencyMs(), () => other?.arrive(type, copy), other?.process ?? null)
    return true
  }

  get process(): SimProcess {
    return this.#owner.process
  }

  arrive(type: number, body: Uint8Array | null): void {
    if (this.#owner.open.get(this.peer) !== this) return
    this.heardMono = this.#owner.owner.world.sim.nowMs
    if (body !== null) this.#owner.listeners.get(type)?.(this, body)
  }

  /** What the feeds send every five seconds; a connection that passes nothing for long breaks. */
  beat(): void {
    const { world, name } = this.#owner.owner
    const isCut = world.isCut('tcp', name, this.#to.name)
    const { other } = this
    if (!isCut && world.hasBeats && this.#owner.process.stalledUntilMs <= world.sim.nowMs) {
      world.sim.after(2, () => other?.arrive(2, null), other?.process ?? null)
    }
    if (!isCut) this.#cutMs = null
    else this.#cutMs ??= world.sim.nowMs
    if (this.#cutMs !== null && world.sim.nowMs - this.#cutMs > 20_000) {
      other?.break('timed out')
      this.break('timed out')
    }
  }

  onceDrained(): void {}

  close(why: string): void {
    this.other?.break(why)
    this.break(why)
  }

  break(why: string): void {
    if (this.#owner.open.get(this.peer) !== this) return
    this.#owner.open.delete(this.peer)
    for (const listener of this.#owner.closed) listener(this, why)
  }
}

export class MemberWorld {
  readonly sim: World
  readonly dice: Dice
  readonly nodes: TestNode[]
  readonly hasLinks: boolean
  /** The links carry something else, every five seconds. */
  hasBeats = true
  /** Of datagrams, 0..1. */
  loss = 0
  duplicate = 0
  /** Some datagrams wait so much longer. */
  delayMs: (() => number) | null = null
  starts = 0
  tcpBytes = 0
  largest = 0
  /** Every datagram that was sent, when somebody listens. */
  tap: ((datagram: Datagram) => void) | null = null
  readonly #cuts = new Map<string, { readonly plane: 'udp' | 'tcp' | 'both'; readonly cut: Cut }>()

  constructor(
    seed: number,
    count: number,
    options: { readonly hasLinks: boolean; readonly startAll?: boolean },
  ) {
    this.sim = new World(seed)
    this.dice = this.sim.dice.split('members')
    this.hasLinks = options.hasLinks
    this.nodes = Array.from({ length: count }, (_, index) => new TestNode(`n${index + 1}`, this))
    if (options.startAll !== false) for (const node of this.nodes) node.start()
    if (this.hasLinks) this.#beat()
  }

  node(index: number): TestNode {
    const node = this.nodes[index]
    if (node === undefined) throw new Error(`no node ${index}`)
    return node
  }

  nameOf(node: NodeId): string {
    return this.nodes.find((other) => other.node === node)?.name ?? node
  }

  /** As `reader` has them. */
  members(reader: TestNode): Member[] {
    return this.nodes
      .filter(({ standing, isClone }) => !isClone && (standing === 'member' || reader.isUninformed))
      .map(({ member }) => member)
      .sort((a, b) => (a.node < b.node ? -1 : 1))
  }

  /** Starts a copy of a running node, at another address. */
  clone(node: TestNode): TestNode {
    const clone = new TestNode(`${node.name}'`, this, node)
    this.nodes.push(clone)
    clone.start()
    return clone
  }

  /** The roster says so, to everybody at once. */
  setStanding(node: TestNode, standing: Standing): void {
    node.standing = standing
    for (const { rosterChanged } of this.nodes) for (const listener of rosterChanged) listener()
  }

  run(ms: number): void {
    this.sim.runFor(ms)
  }

  latencyMs(): number {
    return 1 + this.dice.exponential(3)
  }

  cut(name: string, plane: 'udp' | 'tcp' | 'both', cut: Cut): void {
    this.#cuts.set(name, { plane, cut })
  }

  heal(name: string): void {
    this.#cuts.delete(name)
  }

  isCut(plane: 'udp' | 'tcp', from: string, to: string): boolean {
    for (const { plane: on, cut } of this.#cuts.values()) {
      if ((on === plane || on === 'both') && cut(from, to)) return true
    }
    return false
  }

  send(from: TestNode, bytes: Uint8Array, host: string): void {
    const copy = Uint8Array.from(bytes)
    from.udpBytes += bytes.length + UDP_OVERHEAD
    from.udpPackets += 1
    this.largest = Math.max(this.largest, bytes.length)
    this.tap?.({ bytes: copy, from: from.name, to: host, atMs: this.sim.nowMs })
    if (this.isCut('udp', from.name, host)) return
    const copies = this.dice.chance(this.duplicate) ? 2 : 1
    for (let index = 0; index < copies; index += 1) {
      if (this.dice.chance(this.loss)) continue
      this.deliver(copy, from.name, host, this.latencyMs() + (this.delayMs?.() ?? 0))
    }
  }

  /** As from the wire: whoever listens at `host` when it arrives. */
  deliver(bytes: Uint8Array, from: string, host: string, afterMs: number): void {
    this.sim.after(afterMs, () => {
      const to = this.nodes.find(({ name }) => name === host)
      const process = to?.process ?? null
      if (to === undefined || process === null) return
      // After a stall timers that are due run first, then the socket is read.
      const isStalled = process.stalledUntilMs > this.sim.nowMs
      this.sim.after(
        isStalled ? process.stalledUntilMs - this.sim.nowMs + 20 : 0,
        () => {
          if (to.receive !== null) to.udpBytes += bytes.length + UDP_OVERHEAD
          to.receive?.(bytes, { host: from, port: PORT })
        },
        process,
      )
    })
  }

  /** Opens every link that can be. */
  connect(): void {
    for (const [index, a] of this.nodes.entries()) {
      for (const b of this.nodes.slice(index + 1)) {
        const [left, right] = [a.links, b.links]
        if (left === null || right === null) continue
        if (left.open.has(b.node) && right.open.has(a.node)) continue
        if (a.isClone || b.isClone) continue
        if (a.standing !== 'member' || b.standing !== 'member') continue
        if (this.isCut('tcp', a.name, b.name) || this.isCut('tcp', b.name, a.name)) continue
        left.open.get(b.node)?.break('replaced')
        right.open.get(a.node)?.break('replaced')
        const [there, back] = [new FakeLink(left, b), new FakeLink(right, a)]
        there.other = back
        back.other = there
        left.open.set(b.node, there)
        right.open.set(a.node, back)
        for (const listener of left.opened) listener(there)
        for (const listener of right.opened) listener(back)
      }
    }
  }

  /** How often somebody came to think so of somebody, since the last `forget`. */
  judged(life: Life): number {
    return this.nodes.flatMap(({ judged }) => judged).filter((one) => one.life === life).length
  }

  forget(): void {
    this.tcpBytes = 0
    for (const node of this.nodes) {
      node.judged = []
      node.udpBytes = 0
      node.udpPackets = 0
    }
  }

  #beat(): void {
    this.sim.after(5_000, () => {
      for (const { links } of this.nodes) {
        for (const link of [...(links?.open.values() ?? [])]) link.beat()
      }
      this.connect()
      this.#beat()
    })
  }
}

/** Everybody that runs thinks that everybody else lives. */
export function isWhole(world: MemberWorld): boolean {
  return world.nodes.every(
    ({ table }) => table?.all().every(({ life }) => life === 'alive') ?? true,
  )
}

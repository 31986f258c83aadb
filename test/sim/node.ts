/**
 * A simulated machine and the runs of its node: a disk and a clock that outlive the process, and
 * a process that holds the replicated rows and whatever carries them to others.
 */
import { StoreError } from '../../src/base/errors.ts'
import { type NodeId, newNodeId } from '../../src/base/ids.ts'
import { Observer } from '../../src/base/observe.ts'
import type { Vector } from '../../src/config/merge.ts'
import type { Applied, Incoming } from '../../src/store/feed.ts'
import { Replica } from '../../src/store/replica.ts'
import type { SharedRows } from '../../src/store/shared.ts'
import { Carrier, type Rules } from './carrier.ts'
import type { Dice } from './dice.ts'
import { type Image, type Opened, SimDisk } from './disk.ts'
import type { Fabric } from './network.ts'
import { Memory, type Oracle, type Watched } from './oracle.ts'
import { type MachineTime, SimClock, SimProcess, type World } from './world.ts'

/** What all nodes of a simulation have in common. */
export type Setting = {
  readonly world: World
  readonly fabric: Fabric
  readonly oracle: Oracle
  readonly rules: Rules
  /** A mutant takes the place of the rows, or of a part of them. */
  readonly mutate: ((rows: SharedRows, node: SimNode) => SharedRows) | null
  /** A mutant keeps the writer of before. */
  readonly keepsWriter: boolean
  /** A mutant lets in whom the roster refuses. */
  readonly forgives: boolean
  /** A mutant collects tombstones by their age. */
  readonly collectsByAge: boolean
  /** Disks of the members that a node knows. */
  readonly disksOf: (members: readonly NodeId[]) => readonly Memory[]
  /** Tombstones were collected: images of before are worth nothing any more. */
  readonly onCollected: () => void
  readonly nodeOfWriter: Map<string, NodeId>
}

/** Kinds whose rows the oracle follows. */
export const KINDS = ['setting', 'domain', 'allow', 'block', 'operator', 'member', 'held'] as const
export const FUTURE_KIND = 'future-thing'

const IMAGES_MAX = 4
const TEND_MS = 3_000
const DAY_MS = 86_400_000

type Run = {
  readonly process: SimProcess
  readonly clock: SimClock
  readonly opened: Opened
  readonly rows: SharedRows
  readonly carrier: Carrier
  readonly watched: Watched
}

export class SimNode {
  readonly name: string
  readonly host: string
  readonly id: NodeId
  readonly disk: SimDisk
  readonly time: MachineTime
  memory = new Memory()
  /** Hosts that it was told of when it joined. */
  readonly known: { readonly id: NodeId; readonly host: string }[] = []
  isRemoved = false
  isDestroyed = false
  images: Image<Memory>[] = []
  run: Run | null = null
  starts = 0
  readonly #setting: Setting
  readonly #dice: Dice

  constructor(
    setting: Setting,
    name: string,
    options: { readonly host: string; readonly time: MachineTime; readonly from?: SimNode },
  ) {
    this.#setting = setting
    this.name = name
    this.host = options.host
    this.time = options.time
    this.#dice = setting.world.dice.split(`node ${name}`)
    const { from } = options
    this.id = from?.id ?? newNodeId(this.#dice.split('id'))
    this.disk = new SimDisk(this.#dice.split('disk'), from?.disk.image() ?? null)
    if (from !== undefined) {
      this.memory = from.memory.copy()
      this.known.push(...from.known)
    }
    this.disk.onCommit = () => this.#committed()
  }

  get isUp(): boolean {
    return this.run !== null
  }

  /** @throws when it is down */
  get rows(): SharedRows {
    if (this.run === null) throw new Error(`${this.name} is down`)
    return this.run.rows
  }

  get watched(): Watched {
    if (this.run === null) throw new Error(`${this.name} is down`)
    return this.run.watched
  }

  start(): void {
    if (this.run !== null || this.isDestroyed) return
    const { world, fabric, oracle, rules, mutate, keepsWriter, nodeOfWriter } = this.#setting
    this.starts += 1
    const process = new SimProcess(
      this.name,
      this.#dice.split(`process ${this.starts}`).below(2 ** 31),
    )
    const clock = new SimClock(world, process, this.time)
    const observer = new Observer(clock, () => {}, 'error')
    const opened = this.disk.open(observer)
    const boot = keepsWriter ? 'the same' : `boot ${this.starts}`
    const random = this.#dice.split(`random ${boot}`)
    const replica = new Replica(opened.state, { clock, random, node: this.id })
    nodeOfWriter.set(replica.writer, this.id)
    const rows = this.#watch(mutate === null ? replica : mutate(replica, this))
    const watched: Watched = {
      name: this.name,
      rows,
      memory: this.memory,
      wallMs: () => clock.wallMs(),
    }
    for (const kind of KINDS) {
      rows.onChange(kind, ({ keys, origin }) => {
        // Of its own writes the oracle hears from who made them.
        if (origin === 'own') return
        for (const key of keys) {
          oracle.saw(watched, kind, key)
          oracle.believed(watched, kind, key)
          oracle.collected(watched, kind, key, this.#setting.disksOf(this.members()))
        }
      })
    }
    rows.onOwn((write) => oracle.announced(write))
    rows.start()
    fabric.started(this.host)
    const carrier = new Carrier(
      {
        id: this.id,
        host: this.host,
        rows,
        rules,
        peers: () => this.peers(),
        mayTalk: (id) => this.#setting.forgives || this.mayTalk(id),
        onRefused: (id) => {
          if (this.isEvicted(id)) world.sometimes('removed node tried again')
        },
      },
      {
        clock,
        network: fabric.attach(this.host, process),
        dice: this.#dice.split(`carrier ${boot}`),
      },
    )
    this.run = { process, clock, opened, rows, carrier, watched }
    world.tell(() => `${this.name} starts, writer ${replica.writer}`)
    this.#tend(this.run)
  }

  /** Ends the process. `quiet`: the machine lost its power. */
  crash(quiet: boolean): void {
    const { run } = this
    if (run === null) return
    this.run = null
    run.process.isAlive = false
    this.#setting.fabric.ended(this.host, run.process, quiet)
    this.disk.crash()
    this.#setting.world.tell(() => `${this.name} ${quiet ? 'loses its power' : 'is killed'}`)
  }

  /** The disk becomes one of before; false when there is none. The process must have ended. */
  rollBack(): boolean {
    const image = this.images.length === 0 ? null : this.#dice.pick(this.images)
    if (image === null) return false
    this.disk.restore(image)
    this.memory = image.memory.copy()
    this.images = this.images.filter(({ atMs }) => atMs <= image.atMs)
    this.#setting.world.tell(() => `${this.name} goes back to ${(image.atMs / 1000).toFixed(1)} s`)
    return true
  }

  /** For good: nothing of the machine comes back. */
  destroy(): void {
    this.crash(true)
    this.isDestroyed = true
  }

  stall(ms: number): void {
    if (this.run !== null) this.run.process.stalledUntilMs = this.#setting.world.nowMs + ms
  }

  /** Other members by the rows of this node, and those it was told of at first. */
  peers(): readonly { readonly id: NodeId; readonly host: string }[] {
    const peers = new Map<NodeId, string>()
    for (const { id, host } of this.known) peers.set(id, host)
    for (const [id, host] of this.#rosterRows()) peers.set(id, host)
    peers.delete(this.id)
    return [...peers]
      .filter(([id]) => this.mayTalk(id))
      .map(([id, host]) => ({ id, host }))
      .sort((a, b) => (a.id < b.id ? -1 : 1))
  }

  /** Members by the rows of this node that are not evicted, without this one. */
  members(): readonly NodeId[] {
    return [...this.#rosterRows().keys()].filter((id) => id !== this.id && !this.isEvicted(id))
  }

  mayTalk(id: NodeId): boolean {
    return !this.isEvicted(id)
  }

  isEvicted(id: NodeId): boolean {
    const cell = this.run?.rows.cell('member', `${id}/standing`) ?? null
    return cell?.heads.some(({ value }) => value === 'evicted') ?? false
  }

  /** Everybody but this node has this on its disk. */
  durable(): Vector | null {
    if (this.run === null) return null
    if (this.#setting.collectsByAge) return this.run.rows.vector()
    return this.run.carrier.durable(this.members())
  }

  close(): void {
    this.crash(false)
    this.disk.close()
  }

  #rosterRows(): ReadonlyMap<NodeId, string> {
    const found = new Map<NodeId, string>()
    for (const { key, state } of this.run?.rows.list('member') ?? []) {
      const value = state.shape === 'cell' ? state.heads[0]?.value : null
      if (!key.includes('/') && value != null) found.set(key as NodeId, value)
    }
    return found
  }

  /** What a node does from time to time whatever happens. */
  #tend(run: Run): void {
    run.clock.after(TEND_MS, () => {
      try {
        const before = run.rows.parked
        if (run.rows.settle() < before) this.#setting.world.sometimes('parked row applied later')
        if (run.rows.collect(this.durable(), 1_000) > 0) this.#setting.onCollected()
      } catch (error) {
        if (!(error instanceof StoreError)) throw error
      }
      this.#tend(run)
    })
  }

  #committed(): void {
    const { world } = this.#setting
    if (this.#dice.below(25) !== 0) return
    // The rows are on the disk, the oracle is told a moment later: never in between.
    world.after(0, () => {
      if (this.run === null) return
      if (this.images.length >= IMAGES_MAX) this.images.splice(this.#dice.below(IMAGES_MAX), 1)
      this.images.push({ atMs: world.nowMs, memory: this.memory.copy(), ...this.disk.image() })
    })
  }

  #watch(rows: SharedRows): SharedRows {
    const { world, oracle, nodeOfWriter } = this.#setting
    return replaced(rows, {
      apply: (incoming: Incoming): Applied => {
        const { peer, as } = incoming
        if (this.isEvicted(peer)) world.violate(`${this.name} takes rows of a removed node`)
        const before = rows.vector()
        const cursor = as.kind === 'batch' ? rows.cursor(peer) : null
        let applied: Applied
        try {
          applied = rows.apply(incoming)
        } catch (error) {
          if (error instanceof StoreError) world.sometimes('SQLITE_FULL during apply')
          throw error
        }
        oracle.covered(this.watched, before)
        if (applied.changed > 0 && as.kind === 'batch') {
          const fresh = as.cursor.generation !== cursor?.generation
          if (fresh && before.size > 0) world.sometimes('catch-up from zero')
          if (this.#isRelayed(incoming, before, nodeOfWriter)) {
            world.sometimes('relay because of a missing link')
          }
        }
        return applied
      },
    })
  }

  /** Rows of a node that this one has no link with. */
  #isRelayed(
    { peer, rows }: Incoming,
    before: Vector,
    nodeOfWriter: ReadonlyMap<string, NodeId>,
  ): boolean {
    return rows.some((raw) => {
      const { state } = raw as { state: { heads?: { writer: string; seq: number }[] } }
      return state.heads?.some(({ writer, seq }) => {
        const node = nodeOfWriter.get(writer)
        if (node === undefined || node === peer || node === this.id) return false
        return seq > (before.get(writer) ?? 0) && this.run?.carrier.isLinked(node) === false
      })
    })
  }
}

/** `rows` with some of its methods replaced; the rest is called on `rows` itself. */
export function replaced(rows: SharedRows, by: Partial<SharedRows>): SharedRows {
  return new Proxy(rows, {
    get: (target, name) => {
      const own = (by as Record<string | symbol, unknown>)[name]
      if (own !== undefined) return own
      const value = Reflect.get(target, name, target) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

/** Wall time by which a tombstone is old enough to go. */
export const LAPSE_MS = DAY_MS + 3_600_000

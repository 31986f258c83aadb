/**
 * Copies of own messages on other nodes: a body goes to the candidate of highest rank while it
 * arrives, the COMMIT after the dot, and whoever gives the mail waits for one acknowledgement.
 * Design: mail.md, Accept. `keeper.ts` is the other end.
 */
import type { Clock, Timer } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Copying, CopyStore, Mirror } from '../store/copies.ts'
import { copiedCommitOf, type HolderState, type Message } from '../store/queued.ts'
import type { Candidates } from './candidates.ts'
import type { CopyLine, CopyLines } from './copy-lines.ts'
import type { Named, Refused } from './copy-wire.ts'
import {
  ACK_MS,
  Flight,
  type FlightSeam,
  isBusy,
  type Lane,
  laneOf,
  type Target,
  wake,
} from './flight.ts'
import type { Holdings } from './heal.ts'
import type { Tellings } from './tellings.ts'

/** What was said of a message that the queue does not have yet: its own sync takes longer. */
const LATE_MS = 50
const LATE_MS_MAX = 60_000

/** Buckets of the time that a client waits for a copy, in s: from a near disk to the last patience. */
const ACK_BOUNDS_S = [
  0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 3, 6,
] as const

/** Waits of before that were answered are passed over, and thrown away when there are many. */
const WAITS_MIN = 1_024

export type MirrorDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly store: CopyStore
  readonly lines: CopyLines
  readonly candidates: Candidates
  readonly tellings: Tellings
  readonly holdings: Holdings
  /** There are other members, so a mail without a copy is one too few. */
  readonly hasPeers: () => boolean
  /** A peer says that `owner` has the message now, with `term`. */
  readonly onStale: (id: MessageId, term: number, owner: NodeId) => void
}

type Wait = { readonly flight: Flight; readonly target: Target; readonly dueMono: number }

type Late = { readonly sinceMono: number; readonly nodes: Set<NodeId> }

export class LinkMirror implements Mirror {
  readonly #deps: MirrorDeps
  readonly #lanes = new Map<NodeId, Lane>()
  readonly #fresh = new Map<MessageId, Flight>()
  /** By message and node. */
  readonly #given = new Map<string, { readonly flight: Flight; readonly done: Promise<boolean> }>()
  readonly #late = new Map<MessageId, Late>()
  #lateTimer: Timer | null = null
  /** Who waits for an answer, the one due first before the others; long answered ones among them. */
  #waits: Wait[] = []
  #waitsMax = WAITS_MIN
  #waitTimer: Timer | null = null
  readonly #acknowledged: (seconds: number) => void
  #isClosed = false

  constructor(deps: MirrorDeps) {
    this.#deps = deps
    this.#acknowledged = deps.observer.histogram(
      'replication_ack_seconds',
      'From the dot until another node had a durable copy',
      ACK_BOUNDS_S,
    )
    deps.lines.listen({
      opened: (line) => this.#lanes.set(line.peer, laneOf(line)),
      said: (line, entry) => {
        const lane = this.#lanes.get(line.peer)
        if (lane?.line !== line) return
        if (entry.kind === 'kept') {
          for (const named of entry.names) this.#kept(lane, named)
          line.release()
        } else if (entry.kind === 'refused') this.#refused(lane, entry.refused)
        else if (entry.kind === 'have') this.#hasAll(lane, entry.names)
        else if (entry.kind === 'credit') this.#credited(lane, entry.bytes)
      },
      closed: (line) => this.#lost(line),
    })
  }

  close(): void {
    this.#isClosed = true
    this.#waitTimer?.cancel()
    this.#lateTimer?.cancel()
    for (const flight of [...this.#fresh.values()]) flight.end('this node stops')
    for (const { flight } of [...this.#given.values()]) flight.end('this node stops')
  }

  // ---- what the queue asks ----

  begin(id: MessageId): Copying | null {
    if (this.#isClosed || !this.#deps.hasPeers()) return null
    this.#fresh.get(id)?.abort()
    const flight = new Flight(this.#seam, id, null, this.#deps.tellings.supersede(id))
    this.#fresh.set(id, flight)
    return flight
  }

  marked(message: Message): void {
    this.#settleLate(message.id)
    this.#deps.tellings.marked(message)
  }

  settled(message: Message): void {
    this.#settleLate(message.id)
    this.#late.delete(message.id)
    this.#deps.holdings.gone(message)
    this.#deps.tellings.settled(message)
  }

  // ---- what the cluster asks ----

  /** A copy of an own message, body and state, to `node`; true when it is durable there. */
  give(message: Message, node: NodeId): Promise<boolean> {
    const name = `${message.id} ${node}`
    const running = this.#given.get(name)
    if (running !== undefined) return running.done
    const lane = this.#lanes.get(node)
    if (this.#isClosed || lane === undefined || message.isFinal) return Promise.resolve(false)
    const { store } = this.#deps
    const flight = new Flight(this.#seam, message.id, { message, lane }, [])
    if (message.holders.get(node) !== 'kept') this.#setHolder(message, node, 'sent')
    const done = flight
      .commit(copiedCommitOf(message, this.#deps.clock.wallMs()), async () => {
        // Who may have a byte of it stands in the list of the next run, too: that asks him first.
        await store.synced()
        return message.body()
      })
      .then((copied) => copied.kind === 'kept')
      .finally(() => this.#given.delete(name))
    this.#given.set(name, { flight, done })
    return done
  }

  /** As `give`, to the candidate of highest rank that has none. Null: nobody took one. */
  async giveAny(message: Message): Promise<NodeId | null> {
    const tried = new Set<NodeId>()
    const { candidates } = this.#deps
    for (;;) {
      const node = candidates.first(
        message.id,
        (one) => tried.has(one) || message.holders.get(one) === 'kept',
      )
      if (node === null) return null
      tried.add(node)
      if (await this.give(message, node)) return node
    }
  }

  /** Enough is on its way to that node: only fresh mail should go there now. */
  isBusy(node: NodeId): boolean {
    const lane = this.#lanes.get(node)
    return lane === undefined || isBusy(lane)
  }

  // ---- what comes back ----

  #kept(lane: Lane, { id, term }: Named): void {
    const node = lane.line.peer
    const flight = this.#flightOf(lane, id)
    // Whoever commits it hears who has it.
    if (flight?.kept(lane, term) === true && flight.isFresh) return
    const message = this.#deps.store.get(id)
    if (message === null) this.#remember(id, node)
    else if (message.term === term) this.#setHolder(message, node, 'kept')
  }

  /** What a peer has of ours, when a link opens: an acknowledgement may have been lost. */
  #hasAll(lane: Lane, names: readonly Named[]): void {
    const { store, tellings } = this.#deps
    const node = lane.line.peer
    const ended = names.filter((named) => !this.#has(node, named) && this.#hasEnded(named))
    if (ended.length === 0) return
    // It may have ended a moment ago: who forgets its copy must not be the last one who knew.
    store.synced().then(
      () => {
        for (const named of ended) {
          const { id } = named
          if (store.get(id) !== null || this.#fresh.has(id) || !this.#hasEnded(named)) continue
          // Under its own title: as that of a later owner it would be a lie about who he was.
          tellings.discard(node, id, named.term)
        }
      },
      // The spool failed, which ends the process.
      () => {},
    )
  }

  /** False: it is no own message. */
  #has(node: NodeId, { id, term }: Named): boolean {
    const { store, tellings } = this.#deps
    const message = store.get(id)
    if (message === null) return false
    if (message.term !== term || message.owner !== store.node) return true
    if (!message.holders.has(node)) tellings.anew(message, node)
    this.#setHolder(message, node, 'kept')
    return true
  }

  /** Whoever owned it to the end: its holder may have heard of no owner after this node. */
  #hasEnded({ id, term }: Named): boolean {
    const fate = this.#deps.store.fate(id)
    return fate !== null && fate.term >= term
  }

  #refused(lane: Lane, { id, term, why, owner, detail }: Refused): void {
    if (why === 'stale' && owner !== null) this.#deps.onStale(id, term, owner)
    this.#flightOf(lane, id)?.refused(lane, detail)
  }

  #flightOf(lane: Lane, id: MessageId): Flight | null {
    const given = this.#given.get(`${id} ${lane.line.peer}`)
    return given?.flight ?? this.#fresh.get(id) ?? null
  }

  #credited(lane: Lane, bytes: number): void {
    lane.underWay = Math.max(0, lane.underWay - bytes)
    wake(lane)
  }

  #lost(line: CopyLine): void {
    const lane = this.#lanes.get(line.peer)
    if (lane?.line !== line) return
    this.#lanes.delete(line.peer)
    for (const flight of [...lane.flights]) flight.lost(lane)
    wake(lane)
  }

  // ---- holders ----

  #setHolder(message: Message, node: NodeId, state: HolderState): void {
    const before = message.holders.get(node)
    // Who is to forget it does not go back to having it.
    if (before === state || before === 'discarding') return
    if (before === 'kept' && state === 'sent') return
    this.#deps.tellings.setHolder(message, node, state)
    if (state !== 'kept') return
    this.#deps.holdings.kept(message.id, node)
    if (message.holders.size > 1) this.#deps.tellings.heldOtherwise(message)
  }

  /** The second acknowledgement of a message that is not in the queue yet. */
  #remember(id: MessageId, node: NodeId): void {
    let late = this.#late.get(id)
    if (late === undefined) {
      late = { sinceMono: this.#deps.clock.monoMs(), nodes: new Set() }
      this.#late.set(id, late)
    }
    late.nodes.add(node)
    this.#lateTimer ??= this.#deps.clock.after(LATE_MS, () => this.#settleAllLate())
  }

  #settleLate(id: MessageId): boolean {
    const late = this.#late.get(id)
    if (late === undefined) return true
    const message = this.#deps.store.get(id)
    if (message === null) return false
    this.#late.delete(id)
    for (const node of late.nodes) this.#setHolder(message, node, 'kept')
    return true
  }

  #settleAllLate(): void {
    this.#lateTimer = null
    const nowMono = this.#deps.clock.monoMs()
    for (const [id, { sinceMono }] of [...this.#late]) {
      if (!this.#settleLate(id) && nowMono - sinceMono > LATE_MS_MAX) this.#late.delete(id)
    }
    if (this.#late.size === 0 || this.#isClosed) return
    this.#lateTimer = this.#deps.clock.after(LATE_MS, () => this.#settleAllLate())
  }

  // ---- time ----

  #wait(flight: Flight, target: Target): void {
    const dueMono = target.movedMono + ACK_MS
    let at = this.#waits.length
    // Nearly always the last: only a body that took long to send asks again.
    while (at > 0 && (this.#waits[at - 1]?.dueMono ?? 0) > dueMono) at -= 1
    this.#waits.splice(at, 0, { flight, target, dueMono })
    if (this.#waits.length > this.#waitsMax) {
      this.#waits = this.#waits.filter((wait) => wait.flight.waitsFor(wait.target))
      this.#waitsMax = Math.max(WAITS_MIN, 2 * this.#waits.length)
    }
    this.#waitTimer ??= this.#deps.clock.after(ACK_MS, () => this.#look())
  }

  /** One timer for all: it is set for the first that still waits. */
  #look(): void {
    this.#waitTimer = null
    const nowMono = this.#deps.clock.monoMs()
    let passed = 0
    const due: Wait[] = []
    for (const wait of this.#waits) {
      const { flight, target, dueMono } = wait
      if (flight.waitsFor(target)) {
        if (dueMono > nowMono) break
        due.push(wait)
      }
      passed += 1
    }
    this.#waits = this.#waits.slice(passed)
    for (const { flight, target } of due) {
      if (flight.isOverdue(target, nowMono)) flight.silent(target)
      else this.#wait(flight, target)
    }
    const [next] = this.#waits
    if (next === undefined || this.#isClosed) return
    const waitMs = Math.max(1, next.dueMono - nowMono)
    this.#waitTimer ??= this.#deps.clock.after(waitMs, () => this.#look())
  }

  // ---- for the copies on their way ----

  readonly #seam: FlightSeam = {
    read: (body) => this.#deps.store.read(body),
    nowMono: () => this.#deps.clock.monoMs(),
    wallMs: () => this.#deps.clock.wallMs(),
    lane: (id, not) => {
      const node = this.#deps.candidates.first(id, (one) => not(one) || !this.#lanes.has(one))
      return node === null ? null : (this.#lanes.get(node) ?? null)
    },
    waits: (flight, target) => this.#wait(flight, target),
    discard: (node, id, term) => this.#deps.tellings.discard(node, id, term),
    over: (flight, copied) => {
      const { id, isFresh } = flight
      if (!isFresh) return
      if (this.#fresh.get(id) === flight) this.#fresh.delete(id)
      if (copied === null) {
        this.#late.delete(id)
        this.#deps.holdings.forget(id)
      } else if (copied.kind === 'kept') {
        this.#deps.holdings.kept(id, copied.by)
        this.#acknowledged((this.#deps.clock.monoMs() - flight.dotMono) / 1_000)
        this.#deps.observer.emit('copy.kept', { message: id, by: copied.by })
      } else this.#deps.holdings.alone(id)
    },
  }
}

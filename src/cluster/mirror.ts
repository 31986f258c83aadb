/**
 * Copies of own messages on other nodes: a body goes to the candidate of highest rank while it
 * arrives, the COMMIT after the dot, and whoever gives the mail waits for one acknowledgement.
 * Design: mail.md, Accept. `keeper.ts` is the other end.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import { PIECE_BYTES } from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import type { Copied, Copying, CopyStore, Mirror } from '../store/copies.ts'
import {
  type Commit,
  commitOf,
  type HolderState,
  type MarkKind,
  type MarkPayload,
  type Message,
} from '../store/queued.ts'
import type { Candidates } from './candidates.ts'
import type { CopyLine, CopyLines } from './copy-lines.ts'
import {
  encodeCommit,
  encodeCommitEntries,
  encodeEntry,
  type Named,
  type Refused,
} from './copy-wire.ts'
import type { Holdings } from './heal.ts'
import type { Tellings } from './tellings.ts'

/** Without an acknowledgement the next candidate gets the copy; counted from the last byte. */
const ACK_MS = 3_000
/** Candidates that may let this time pass. */
const SILENT_MAX = 2
/** Of one copy however it goes on: a body that is still being read. */
const COPY_MS_MAX = 60_000
/** Bytes of bodies that a peer has not said to be durable. */
const WINDOW_BYTES = 4 * 1024 * 1024
/** Half a piece: a whole one with its head is longer than a frame, and two frames must be joined. */
const ENTRY_BYTES = PIECE_BYTES / 2
/** What was said of a message that the queue does not have yet: its own sync takes longer. */
const LATE_MS = 50
const LATE_MS_MAX = 60_000

type Body = ReturnType<Message['body']>
const NO_BYTES = new Uint8Array(0)

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

/** One link, as the sender of copies sees it. */
type Lane = {
  readonly line: CopyLine
  readonly flights: Set<Flight>
  /** COMMITs without an answer. */
  awaited: number
  /** Bytes of pieces without credit. */
  underWay: number
  /** Pumps that wait for credit. */
  waiting: (() => void)[]
}

/** A candidate, and what it has got. */
type Target = {
  readonly lane: Lane
  sentBytes: number
  pieces: number
  /** Something did not go when it came: the rest comes from the body. */
  isBehind: boolean
  isCommitted: boolean
  /** When something went to it last. */
  movedMono: number
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
  #waitTimer: Timer | null = null
  #isClosed = false

  constructor(deps: MirrorDeps) {
    this.#deps = deps
    deps.lines.listen({
      opened: (line) =>
        this.#lanes.set(line.peer, {
          line,
          flights: new Set(),
          awaited: 0,
          underWay: 0,
          waiting: [],
        }),
      said: (line, entry) => {
        const lane = this.#lanes.get(line.peer)
        if (lane?.line !== line) return
        if (entry.kind === 'kept') {
          for (const named of entry.names) this.#kept(lane, named)
          line.release()
        } else if (entry.kind === 'refused') this.#refused(lane, entry.refused)
        else if (entry.kind === 'have') for (const named of entry.names) this.#has(lane, named)
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

  marked(message: Message, kind: MarkKind, payload: MarkPayload): void {
    this.#settleLate(message.id)
    this.#deps.tellings.marked(message, kind, payload)
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
    const flight = new Flight(this.#seam, message.id, { message, lane }, [])
    if (message.holders.get(node) !== 'kept') this.#setHolder(message, node, 'sent')
    const done = flight
      .commit(message.commit, async () => message.body())
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
    return lane === undefined || !mayStream(lane) || lane.underWay > WINDOW_BYTES / 4
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
  #has(lane: Lane, { id, term }: Named): void {
    const { store, tellings } = this.#deps
    const node = lane.line.peer
    const message = store.get(id)
    if (message !== null) {
      if (message.term !== term || message.owner !== store.node) return
      if (!message.holders.has(node)) tellings.anew(message, node)
      this.#setHolder(message, node, 'kept')
      return
    }
    const fate = store.fate(id)
    const isOurs = fate !== null && fate.owner === store.node && fate.term >= term
    if (isOurs && !this.#fresh.has(id)) tellings.discard(node, id, fate.term)
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
    const { waiting } = lane
    lane.waiting = []
    for (const run of waiting) run()
  }

  #lost(line: CopyLine): void {
    const lane = this.#lanes.get(line.peer)
    if (lane?.line !== line) return
    this.#lanes.delete(line.peer)
    for (const flight of [...lane.flights]) flight.lost(lane)
    for (const run of lane.waiting) run()
    lane.waiting = []
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
        this.#deps.observer.emit('copy.kept', { message: id, by: copied.by })
      } else this.#deps.holdings.alone(id)
    },
  }
}

/** What a copy on its way needs of the mirror. */
type FlightSeam = {
  read(body: Body): AsyncIterable<Uint8Array>
  nowMono(): number
  wallMs(): number
  lane(id: MessageId, not: (node: NodeId) => boolean): Lane | null
  waits(flight: Flight, target: Target): void
  discard(node: NodeId, id: MessageId, term: number): void
  /** Null: it was given up. */
  over(flight: Flight, copied: Copied | null): void
}

/** One message on its way to a candidate, then to the next. */
class Flight implements Copying {
  readonly id: MessageId
  readonly #seam: FlightSeam
  /** A message of the queue that goes to this node and no other; null: one that arrives. */
  readonly #given: { readonly message: Message; readonly lane: Lane } | null
  readonly #holders: Set<NodeId>
  readonly #tried = new Set<NodeId>()
  /** Who may have a durable COMMIT. */
  readonly #committed = new Set<NodeId>()
  #target: Target | null = null
  /** Bytes that came so far, and the last ones of them that did not go yet. */
  #bytes = 0
  #tail = NO_BYTES
  #isShort = false
  #commit: Commit | null = null
  #body: (() => Promise<Body>) | null = null
  #resolve: ((copied: Copied) => void) | null = null
  #dotMono = 0
  #silent = 0
  #why = 'no node takes copies now'
  #isOver = false

  constructor(
    seam: FlightSeam,
    id: MessageId,
    given: { readonly message: Message; readonly lane: Lane } | null,
    holders: readonly NodeId[],
  ) {
    this.#seam = seam
    this.id = id
    this.#given = given
    this.#holders = new Set(holders)
    this.#next()
  }

  get isFresh(): boolean {
    return this.#given === null
  }

  get holders(): readonly NodeId[] {
    return [...this.#holders]
  }

  piece(bytes: Uint8Array): void {
    if (this.#isOver || this.#commit !== null) return
    if (this.#tail.length > 0) this.#stream(this.#tail)
    // What was not kept here is in the body only.
    else if (this.#isShort && this.#target !== null) this.#target.isBehind = true
    this.#tail = NO_BYTES
    this.#isShort = bytes.length < PIECE_BYTES
    // A short one is the last: it goes with the COMMIT. A whole mail is in memory anyway.
    if (!this.#isShort) this.#stream(bytes)
    else if (this.#bytes > 0) this.#tail = new Uint8Array(bytes)
    this.#bytes += bytes.length
  }

  commit(commit: Commit, body: () => Promise<Body>): Promise<Copied> {
    this.#commit = commit
    this.#body = body
    this.#dotMono = this.#seam.nowMono()
    if (this.#target !== null) this.#target.movedMono = this.#dotMono
    else if (this.#given === null) {
      // Some may have come, or come back, since the body began.
      this.#tried.clear()
      this.#next()
    }
    return new Promise((resolve) => {
      this.#resolve = resolve
      if (this.#isOver) resolve({ kind: 'alone', why: this.#why })
      else this.#attempt()
    })
  }

  abort(): void {
    this.#giveUp()
    const { term } = this.#commit ?? { term: 1 }
    for (const node of this.#committed) this.#seam.discard(node, this.id, term)
    this.#why = 'it was given up'
    // Also when a copy is durable already: the own COMMIT failed.
    if (this.#isOver) this.#seam.over(this, null)
    else this.#finish(null)
  }

  /** As if no candidate were left. */
  end(why: string): void {
    this.#why = why
    this.#conclude()
  }

  // ---- what happens to the candidate ----

  /** False: nobody waits for it. */
  kept(lane: Lane, term: number): boolean {
    if (this.#isOver || this.#commit === null || term !== this.#term()) return false
    if (this.#target?.lane === lane) this.#drop()
    else this.#giveUp()
    this.#finish({ kind: 'kept', by: lane.line.peer })
    return true
  }

  refused(lane: Lane, why: string): void {
    if (this.#target?.lane !== lane) return
    this.#why = why
    this.#drop()
    this.#next()
    if (this.#commit !== null) this.#attempt()
  }

  lost(lane: Lane): void {
    if (this.#target?.lane !== lane) return
    this.#why = 'the link to the other node was lost'
    this.#drop()
    this.#next()
    if (this.#commit !== null) this.#attempt()
  }

  waitsFor(target: Target): boolean {
    return this.#target === target && !this.#isOver
  }

  /** Nothing went to it for the time of an answer, or all of it takes too long. */
  isOverdue(target: Target, nowMono: number): boolean {
    return nowMono >= target.movedMono + ACK_MS || nowMono >= this.#dotMono + COPY_MS_MAX
  }

  silent(target: Target): void {
    if (!this.waitsFor(target)) return
    this.#why = `the other node did not acknowledge it within ${ACK_MS / 1_000} s`
    this.#giveUp()
    this.#silent += 1
    if (this.#silent < SILENT_MAX) this.#next()
    this.#attempt()
  }

  // ---- streaming ----

  #stream(bytes: Uint8Array): void {
    const target = this.#target
    if (target === null || target.isBehind) return
    if (!mayStream(target.lane)) target.isBehind = true
    else this.#sendPiece(target, bytes)
  }

  #sendPiece(target: Target, piece: Uint8Array): void {
    const { lane } = target
    target.movedMono = this.#seam.nowMono()
    for (let at = 0; at < piece.length; at += ENTRY_BYTES) {
      const bytes = piece.subarray(at, at + ENTRY_BYTES)
      const index = target.pieces
      lane.underWay += bytes.length
      target.pieces += 1
      target.sentBytes += bytes.length
      lane.line.put(encodeEntry({ kind: 'piece', id: this.id, index, bytes }))
    }
  }

  // ---- candidates ----

  /** Chooses the next one. It stands in the holder list from here on. */
  #next(): void {
    const lane =
      this.#given === null
        ? this.#seam.lane(this.id, (node) => this.#tried.has(node))
        : this.#tried.size === 0
          ? this.#given.lane
          : null
    if (lane === null) return
    const { peer } = lane.line
    this.#tried.add(peer)
    lane.flights.add(this)
    const isBehind = this.#bytes > this.#tail.length
    const movedMono = this.#seam.nowMono()
    this.#target = { lane, sentBytes: 0, pieces: 0, isBehind, isCommitted: false, movedMono }
    this.#holders.add(peer)
  }

  #attempt(): void {
    const target = this.#target
    const commit = this.#commit
    if (commit === null || this.#isOver) return
    if (target === null) return this.#conclude()
    this.#seam.waits(this, target)
    const isHere = target.sentBytes + this.#tail.length === commit.sizeBytes
    if (isHere && target.lane.line.hasRoom) this.#sendCommit(target, this.#tail)
    // Its errors are told by `#pump` itself.
    else void this.#pump(target, commit.sizeBytes)
  }

  /** The rest of the body, as fast as the candidate takes it. Never rejects. */
  async #pump(target: Target, sizeBytes: number): Promise<void> {
    const body = this.#body
    const message = this.#given?.message ?? null
    if (body === null) return
    if (message !== null) message.pins += 1
    try {
      const source = await body()
      if (source.kind === 'memory' && sizeBytes - target.sentBytes <= PIECE_BYTES) {
        while (!target.lane.line.hasRoom && this.waitsFor(target)) await target.lane.line.room()
        if (this.waitsFor(target)) this.#sendCommit(target, source.bytes.subarray(target.sentBytes))
        return
      }
      let at = 0
      for await (const bytes of this.#seam.read(source)) {
        const rest = bytes.subarray(Math.max(0, target.sentBytes - at))
        at += bytes.length
        if (rest.length === 0) continue
        while (!mayStream(target.lane) && this.waitsFor(target)) await moved(target.lane)
        if (!this.waitsFor(target)) return
        this.#sendPiece(target, rest)
      }
      if (this.waitsFor(target)) this.#sendCommit(target, NO_BYTES)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      if (!this.waitsFor(target)) return
      this.#why = messageOf(error)
      this.#giveUp()
      this.#conclude()
    } finally {
      if (message !== null) message.pins -= 1
    }
  }

  #sendCommit(target: Target, last: Uint8Array): void {
    const { lane } = target
    const json = encodeCommit(this.#commitNow())
    const gathers = lane.awaited > 0
    for (const entry of encodeCommitEntries(this.id, json, target.pieces, last)) {
      lane.line.put(entry, gathers)
    }
    target.isCommitted = true
    lane.awaited += 1
    target.movedMono = this.#seam.nowMono()
    this.#committed.add(lane.line.peer)
  }

  /** A message of the queue may have changed while its body was read. */
  #commitNow(): Commit {
    const commit = this.#commit as Commit
    const message = this.#given?.message
    if (message !== undefined) return commitOf(message, this.#seam.wallMs())
    return { ...commit, holders: [...new Set([...commit.holders, ...this.#holders])] }
  }

  #term(): number {
    return this.#given?.message.term ?? this.#commit?.term ?? 0
  }

  // ---- ends ----

  /** The candidate is not waited for any more. */
  #drop(): Target | null {
    const target = this.#target
    if (target === null) return null
    this.#target = null
    target.lane.flights.delete(this)
    if (target.isCommitted) target.lane.awaited -= 1
    return target
  }

  /** As `#drop`; what it got without a COMMIT is void. */
  #giveUp(): void {
    const target = this.#drop()
    if (target === null || target.isCommitted || target.pieces === 0) return
    target.lane.line.say({ kind: 'abort', id: this.id })
  }

  #conclude(): void {
    this.#giveUp()
    this.#finish({ kind: 'alone', why: this.#why })
  }

  #finish(copied: Copied | null): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#tail = NO_BYTES
    this.#body = null
    this.#seam.over(this, copied)
    this.#resolve?.(copied ?? { kind: 'alone', why: this.#why })
  }
}

function mayStream({ line, underWay }: Lane): boolean {
  return line.hasRoom && underWay < WINDOW_BYTES
}

/** Resolves when `mayStream` may have changed. */
function moved(lane: Lane): Promise<void> {
  if (lane.underWay < WINDOW_BYTES || !lane.line.isOpen) return lane.line.room()
  return new Promise((resolve) => lane.waiting.push(resolve))
}

/**
 * One message on its way to another node: to a candidate while it arrives, the COMMIT after the
 * dot, and to the next candidate when that one is lost, refuses or says nothing.
 */
import { messageOf, StoreError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import { PIECE_BYTES } from '../base/limits.ts'
import type { Copied, Copying } from '../store/copies.ts'
import { type Commit, copiedCommitOf, type Message } from '../store/queued.ts'
import type { CopyLine } from './copy-lines.ts'
import { commitEntries, encodeCommit } from './copy-wire.ts'

/** Without an acknowledgement the next candidate gets the copy; counted from the last byte. */
export const ACK_MS = 3_000
/** Candidates that may let this time pass. */
const SILENT_MAX = 2
/** Of one copy however it goes on: a body that is still being read. */
const COPY_MS_MAX = 60_000
/** Bytes of bodies that a peer has not said to have in its files. */
const WINDOW_BYTES = 4 * 1024 * 1024

type Body = ReturnType<Message['body']>
const NO_BYTES = new Uint8Array(0)

/** One link, as the sender of copies sees it. */
export type Lane = {
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
export type Target = {
  readonly lane: Lane
  sentBytes: number
  pieces: number
  /** Something did not go when it came: the rest comes from the body. */
  isBehind: boolean
  isCommitted: boolean
  /** When something went to it last. */
  movedMono: number
}

/** What a copy on its way needs of the mirror. */
export type FlightSeam = {
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
export class Flight implements Copying {
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
  /** Of the COMMIT as it was sent. */
  #term = 0
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

  /** When its COMMIT was given. */
  get dotMono(): number {
    return this.#dotMono
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
    for (const node of this.#committed) this.#seam.discard(node, this.id, this.#term)
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
    if (this.#isOver || this.#commit === null || term !== this.#term) return false
    this.#giveUp()
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
    this.refused(lane, 'the link to the other node was lost')
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
    for (let at = 0; at < piece.length; at += PIECE_BYTES) {
      const bytes = piece.subarray(at, at + PIECE_BYTES)
      const index = target.pieces
      lane.underWay += bytes.length
      target.pieces += 1
      target.sentBytes += bytes.length
      lane.line.put({ kind: 'piece', id: this.id, index, bytes })
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
    const commit = this.#commitNow()
    const json = encodeCommit(commit)
    this.#term = commit.term
    const gathers = lane.awaited > 0
    for (const entry of commitEntries(this.id, json, target.pieces, last)) {
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
    if (message !== undefined) return copiedCommitOf(message, this.#seam.wallMs())
    return { ...commit, holders: [...new Set([...commit.holders, ...this.#holders])] }
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
    target.lane.line.put({ kind: 'abort', id: this.id })
  }

  #conclude(): void {
    this.#giveUp()
    this.#finish({ kind: 'alone', why: this.#why })
  }

  #finish(copied: Copied | null): void {
    if (this.#isOver) return
    this.#isOver = true
    // It is remembered a while longer, for its answer.
    this.#tail = NO_BYTES
    this.#body = null
    this.#commit = null
    this.#seam.over(this, copied)
    this.#resolve?.(copied ?? { kind: 'alone', why: this.#why })
  }
}

export function laneOf(line: CopyLine): Lane {
  return { line, flights: new Set(), awaited: 0, underWay: 0, waiting: [] }
}

function mayStream({ line, underWay }: Lane): boolean {
  return line.hasRoom && underWay < WINDOW_BYTES
}

/** Enough is on its way there: only fresh mail should follow. */
export function isBusy(lane: Lane): boolean {
  return !mayStream(lane) || lane.underWay > WINDOW_BYTES / 4
}

/** What waits for credit looks again. */
export function wake(lane: Lane): void {
  const { waiting } = lane
  lane.waiting = []
  for (const run of waiting) run()
}

/** Resolves when `mayStream` may have changed. */
function moved(lane: Lane): Promise<void> {
  if (lane.underWay < WINDOW_BYTES || !lane.line.isOpen) return lane.line.room()
  return new Promise((resolve) => lane.waiting.push(resolve))
}

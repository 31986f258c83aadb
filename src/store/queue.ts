/**
 * The messages this node is responsible for, and their marks: memory rebuilt from the spool,
 * which is the truth. Every change of state is a spool record first.
 */
import { type Clock, pause } from '../base/clock.ts'
import { assert, messageOf, StoreError } from '../base/errors.ts'
import type { Disk } from '../base/files.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import { CACHE_BYTES_MAX, PIECE_BYTES, QUEUE_MESSAGES_MAX } from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import type { Body, Extent } from '../message/body.ts'
import type { RecipientState } from '../message/rows.ts'
import {
  type Commit,
  isFinal,
  type MarkKind,
  type MarkPayload,
  Message,
  type NewCommit,
  type Piece,
} from './queued.ts'
import { RECORD } from './records.ts'
import { type ReplayedRecord, type Segment, Spool, type SpoolRecord } from './spool.ts'

/** While a message that moves is being read. */
const COMPACT_PAUSE_MS = 50

/** A body on its way into the spool: pieces now, COMMIT or ABORT later. */
export class Draft {
  readonly id: MessageId
  readonly records: SpoolRecord[] = []
  readonly #spool: Spool
  /** The records belong to a message now, or to nobody. */
  #isOver = false

  constructor(id: MessageId, spool: Spool) {
    this.id = id
    this.#spool = spool
  }

  /** Memory for a piece, to be filled and given to `add`. */
  block(): Buffer {
    return this.#spool.block()
  }

  /**
   * Adds at most PIECE_BYTES bytes. A block that is given is not the caller's any more.
   * @throws StoreError when the spool failed
   */
  add(bytes: Uint8Array, isGiven = false): void {
    assert(bytes.length <= PIECE_BYTES, 'a piece is bounded')
    const index = this.records.length
    this.records.push(this.#spool.append(RECORD.accept, this.id, index, bytes, isGiven))
  }

  /** Hands the records over: whoever takes them drops them. */
  give(): readonly SpoolRecord[] {
    this.#isOver = true
    return this.records
  }

  /** Where the bytes lie, for reading; resolves when they can be read. */
  async extents(): Promise<readonly Extent[]> {
    await this.#spool.written()
    return this.records.map((record) => ({
      path: record.place().path,
      offset: record.offset,
      length: record.length,
    }))
  }

  /** Nobody will want these bytes; with `commit` the COMMIT that follows them is void too. */
  abort(what: 'body' | 'commit' = 'body'): void {
    if (this.#isOver) return
    for (const record of this.give()) this.#spool.drop(record)
    if (this.#spool.failure !== null) return
    if (what === 'body' && this.records.length === 0) return
    this.#spool.append(RECORD.abort, this.id, what === 'body' ? 0 : 1, new Uint8Array())
  }
}

export class Queue {
  readonly #spool: Spool
  readonly #clock: Clock
  /** This one: the owner of what it delivers. */
  readonly node: NodeId
  readonly #messages = new Map<MessageId, Message>()
  #cachedBytes = 0
  #compacting = false
  /** States that the spool knew at the start, also of messages that were final. */
  #replayed = new Map<MessageId, readonly RecipientState[]>()

  constructor(spool: Spool, clock: Clock, node: NodeId) {
    this.#spool = spool
    this.#clock = clock
    this.node = node
    spool.onPressure = () => void this.#compact()
  }

  /** Of copies for others. */
  get copyCount(): number {
    return 0
  }

  get size(): number {
    return this.#messages.size
  }

  get(id: MessageId): Message | null {
    return this.#messages.get(id) ?? null
  }

  /**
   * What the spool knew of a recipient at the start; null when it knew nothing. Only until
   * `forgetReplayed`: for work that a crash cut off.
   */
  replayedState(id: MessageId, index: number): RecipientState | null {
    return this.#replayed.get(id)?.[index] ?? null
  }

  forgetReplayed(): void {
    this.#replayed.clear()
  }

  /** Oldest first. */
  messages(): IterableIterator<Message> {
    return this.#messages.values()
  }

  /** True while one more message of `sizeBytes` may come. */
  hasRoom(sizeBytes: number): boolean {
    return this.#messages.size < QUEUE_MESSAGES_MAX && this.#spool.hasRoom(sizeBytes)
  }

  draft(id: MessageId): Draft {
    return new Draft(id, this.#spool)
  }

  /**
   * The moment of responsibility: writes the COMMIT, and resolves when body and COMMIT are
   * durable. `bytes`: the whole body, kept in memory for the first attempt if there is room.
   * @throws StoreError when they are not; nothing is queued then
   */
  async commit(draft: Draft, given: NewCommit, bytes: Uint8Array | null): Promise<Message> {
    const pieces = draft.records.length
    const commit: Commit = { ...given, owner: this.node, term: 1, holders: [], pieces }
    const payload = Buffer.from(JSON.stringify(commit))
    const record = this.#spool.append(RECORD.commit, draft.id, 0, payload)
    try {
      await this.#spool.synced()
      record.place()
      for (const piece of draft.records) piece.place()
    } catch (error) {
      // The client is told 451: should the record survive all the same, this takes it back.
      this.#spool.drop(record)
      draft.abort('commit')
      throw error
    }
    const message = new Message(draft.id, commit)
    this.#adopt(message, draft.give(), record)
    if (bytes !== null && this.#cachedBytes + bytes.length <= CACHE_BYTES_MAX) {
      message.cached = bytes
      this.#cachedBytes += bytes.length
    }
    return message
  }

  /** Adds a mark. It is in order with all others, not yet durable. @throws StoreError */
  mark(
    kind: MarkKind,
    message: Message,
    indexes: readonly number[],
    rest: Omit<MarkPayload, 'r'> = {},
  ): void {
    const payload = Buffer.from(JSON.stringify({ r: indexes, ...rest }))
    const record = this.#spool.append(RECORD[kind], message.id, 0, payload)
    if (kind !== 'try') this.#spool.syncSoon()
    const { segment } = record
    // Without a place yet the guard is set by whoever gives it one: marks wait only on a full disk.
    if (segment !== null) this.#guard(message, segment)
    else
      void this.#spool.written().then(
        () => this.#guard(message, record.place()),
        () => {},
      )
  }

  /** A body of this queue in chunks of at most PIECE_BYTES. @throws StoreError when bytes are missing */
  read(body: Body): AsyncGenerator<Uint8Array> {
    return readBody(body, this.#spool.disk)
  }

  /** Resolves when all marks so far are durable. @throws StoreError */
  synced(): Promise<void> {
    return this.#spool.synced()
  }

  /** Forgets the message when nothing is left to do. */
  settle(message: Message): void {
    if (
      message.cached !== null &&
      message.recipients.every(({ state }) => state !== 'queued' && state !== 'trying')
    ) {
      this.uncache(message)
    }
    if (!message.isFinal) return
    this.uncache(message)
    this.#messages.delete(message.id)
    this.#release(message)
  }

  uncache(message: Message): void {
    if (message.cached === null) return
    this.#cachedBytes -= message.cached.length
    message.cached = null
  }

  #adopt(message: Message, pieces: readonly SpoolRecord[], record: SpoolRecord): void {
    this.#settleIn(message, pieces, record)
    const { segment } = record
    if (segment !== null) message.commits.push({ segment, generation: segment.generation })
    const before = this.#messages.get(message.id)
    if (before !== undefined) {
      message.commits.push(...before.commits)
      this.uncache(before)
      this.#release(before)
    }
    this.#messages.set(message.id, message)
  }

  /** The records are those of the message from here on. */
  #settleIn(message: Message, pieces: readonly SpoolRecord[], record: SpoolRecord): void {
    message.pieces = pieces.map((piece) => {
      const segment = piece.place()
      return { segment, generation: segment.generation, offset: piece.offset, length: piece.length }
    })
    const segment = record.place()
    message.place = { segment, length: record.length }
  }

  /** The spool may forget body and commit. */
  #release(message: Message): void {
    for (const { segment, length } of message.pieces) this.#spool.release(segment, length)
    if (message.place !== null) this.#spool.release(message.place.segment, message.place.length)
    message.pieces = []
    message.place = null
  }

  #guard(message: Message, mark: Segment): void {
    for (const { segment, generation } of message.commits) {
      if (segment.generation === generation) this.#spool.guard(mark, segment)
    }
  }

  /**
   * Copies the messages of the emptiest segments forward, body, commit and states, so that the
   * segments can be used again: a few old messages must not pin the whole disk.
   */
  async #compact(): Promise<void> {
    if (this.#compacting) return
    this.#compacting = true
    try {
      for (const segment of this.#spool.sparse().slice(0, 2)) {
        if (segment.liveBytes > segment.end / 4) break
        const movable = [...this.#messages.values()].filter(
          (message) =>
            message.isIn(segment) &&
            message.pins === 0 &&
            message.recipients.every(({ state }) => state !== 'trying'),
        )
        for (const message of movable) await this.#copyForward(message)
      }
    } catch (error) {
      // A failed spool ends the process elsewhere; no room means that there is nothing to gain.
      if (!(error instanceof StoreError)) throw error
    } finally {
      this.#compacting = false
    }
  }

  async #copyForward(message: Message): Promise<void> {
    const draft = this.draft(message.id)
    const isStill = (): boolean =>
      this.#messages.get(message.id) === message &&
      message.pins === 0 &&
      !message.isFinal &&
      // Marks of an attempt that begins now would stand before the copy of the commit.
      message.recipients.every(({ state }) => state !== 'trying')
    for await (const chunk of this.read(message.body())) {
      if (!isStill()) break
      draft.add(chunk)
    }
    if (!isStill()) return draft.abort()
    const commit: Commit = {
      ...message.commit,
      pieces: draft.records.length,
      heldMoved: message.heldMoved,
      recipients: message.recipients.map((recipient) => ({ ...recipient })),
    }
    const record = this.#spool.append(
      RECORD.commit,
      message.id,
      0,
      Buffer.from(JSON.stringify(commit)),
    )
    if (record.segment === null) {
      this.#spool.drop(record)
      return draft.abort('commit')
    }
    // From here on every mark comes after the copy, and must outlive it too.
    message.commits.push({ segment: record.segment, generation: record.segment.generation })
    await this.#spool.synced()
    // An attempt that began meanwhile reads the old place: it stays until that has ended.
    while (message.pins > 0 || message.recipients.some(({ state }) => state === 'trying')) {
      await pause(this.#clock, COMPACT_PAUSE_MS)
    }
    if (this.#messages.get(message.id) !== message) {
      this.#spool.drop(record)
      for (const piece of draft.give()) this.#spool.drop(piece)
      return
    }
    this.#release(message)
    this.#settleIn(message, draft.give(), record)
  }

  /** Reads what survived. Call before `Spool.start`. */
  static async open(
    options: Parameters<typeof Spool.open>[0],
    deps: { readonly clock: Clock; readonly observer: Observer; readonly node: NodeId },
  ): Promise<{ readonly queue: Queue; readonly spool: Spool }> {
    const rebuild = new Rebuild()
    const spool = await Spool.open(options, (record) => rebuild.take(record))
    const queue = new Queue(spool, deps.clock, deps.node)
    queue.#replayed = rebuild.states()
    for (const { message, pieces, commit } of rebuild.finish(deps)) {
      message.pieces = pieces
      message.place = commit
      message.commits.push({ segment: commit.segment, generation: commit.segment.generation })
      for (const { segment, length } of pieces) spool.retain(segment, length)
      spool.retain(commit.segment, commit.length)
      queue.#messages.set(message.id, message)
    }
    for (const [segment, guarded] of rebuild.guards) {
      for (const commit of guarded) spool.guard(segment, commit)
    }
    await spool.start()
    return { queue, spool }
  }
}

/** Reads a body in chunks of at most PIECE_BYTES. @throws StoreError when bytes are missing */
export async function* readBody(body: Body, disk: Disk): AsyncGenerator<Uint8Array> {
  if (body.kind === 'memory') {
    for (let offset = 0; offset < body.bytes.length; offset += PIECE_BYTES) {
      yield body.bytes.subarray(offset, offset + PIECE_BYTES)
    }
    return
  }
  for (const { path, offset, length } of body.extents) {
    const bytes = await readExtent(disk, path, offset, length)
    if (bytes.length !== length) {
      throw new StoreError(`${path} has ${bytes.length} of ${length} bytes`, {
        remedy: 'ask-operator',
      })
    }
    yield bytes
  }
}

async function readExtent(
  disk: Disk,
  path: string,
  offset: number,
  length: number,
): Promise<Uint8Array> {
  try {
    return await disk.read(path, offset, length)
  } catch (cause) {
    throw new StoreError(`${path} cannot be read: ${messageOf(cause)}`, {
      remedy: 'ask-operator',
      cause,
    })
  }
}

type Rebuilt = {
  message: Message
  pieces: Piece[]
  commit: { readonly segment: Segment; readonly length: number }
}

/** Replays the records in order into messages and marks. */
class Rebuild {
  readonly #drafts = new Map<MessageId, Piece[]>()
  readonly #rebuilt = new Map<MessageId, Rebuilt>()
  /** Segments of every commit of a message, also of final ones: their marks must outlive them. */
  readonly #commits = new Map<MessageId, Segment[]>()
  readonly guards: [Segment, Segment[]][] = []
  readonly #before = new Map<MessageId, Rebuilt>()

  take(record: ReplayedRecord): void {
    const { type, mid } = record
    if (type === RECORD.accept) return this.#accept(record)
    if (type === RECORD.commit) return this.#commit(record)
    if (type === RECORD.abort) {
      this.#drafts.delete(mid)
      if (record.index === 1) this.#undoCommit(mid)
      return
    }
    const commits = this.#commits.get(mid)
    if (commits !== undefined) this.guards.push([record.segment, commits])
    const rebuilt = this.#rebuilt.get(mid)
    if (rebuilt !== undefined) applyMark(rebuilt.message, record)
  }

  /** The states of every message that has a COMMIT, whole body or not. */
  states(): Map<MessageId, readonly RecipientState[]> {
    const states = new Map<MessageId, readonly RecipientState[]>()
    for (const [id, { message }] of this.#rebuilt) {
      states.set(
        id,
        message.recipients.map(({ state }) => state),
      )
    }
    return states
  }

  #accept({ mid, index, segment, offset, payload }: ReplayedRecord): void {
    const piece = { segment, generation: segment.generation, offset, length: payload.length }
    if (index === 0) this.#drafts.set(mid, [piece])
    else this.#drafts.get(mid)?.push(piece)
  }

  #commit({ mid, segment, payload }: ReplayedRecord): void {
    const commit = JSON.parse(payload.toString()) as Commit
    const pieces = this.#drafts.get(mid) ?? []
    this.#drafts.delete(mid)
    this.#commits.set(mid, [...(this.#commits.get(mid) ?? []), segment])
    const stored = pieces.reduce((sum, { length }) => sum + length, 0)
    // Not all of the body survived: so its sync never ended, and nobody was told 250.
    if (pieces.length !== commit.pieces || stored !== commit.sizeBytes) return
    const message = new Message(mid, commit)
    const before = this.#rebuilt.get(mid)
    if (before !== undefined) this.#before.set(mid, before)
    this.#rebuilt.set(mid, { message, pieces, commit: { segment, length: payload.length } })
  }

  /** Its sync failed: the client was told to come again, or what was before still stands. */
  #undoCommit(mid: MessageId): void {
    const before = this.#before.get(mid)
    if (before === undefined) this.#rebuilt.delete(mid)
    else this.#rebuilt.set(mid, before)
  }

  /** The messages that still have something to do; what was under way is in doubt. */
  *finish(deps: { readonly clock: Clock; readonly observer: Observer }): Generator<Rebuilt> {
    for (const rebuilt of this.#rebuilt.values()) {
      const { message } = rebuilt
      for (const recipient of message.recipients) {
        if (recipient.state !== 'trying') continue
        recipient.state = 'inDoubt'
        recipient.doubtful = true
        recipient.nextTryMs = deps.clock.wallMs()
      }
      if (message.isFinal) continue
      const others = this.#commits.get(message.id) ?? []
      for (const segment of others) {
        if (segment !== rebuilt.commit.segment) {
          message.commits.push({ segment, generation: segment.generation })
        }
      }
      yield rebuilt
    }
  }
}

function applyMark(message: Message, record: ReplayedRecord): void {
  const mark = JSON.parse(record.payload.toString()) as MarkPayload
  if (record.type === RECORD.hold) message.heldMoved = true
  if (record.type === RECORD.discard) {
    for (const recipient of message.recipients) recipient.state = 'dropped'
    message.heldMoved = true
    return
  }
  for (const index of mark.r) {
    const recipient = message.recipients[index]
    if (recipient === undefined || isFinal(recipient.state)) continue
    if (mark.attempts !== undefined) recipient.attempts = mark.attempts
    if (mark.reply !== undefined) recipient.lastReply = mark.reply
    if (mark.warned === true) recipient.warned = true
    if (record.type === RECORD.try) recipient.state = 'trying'
    else if (record.type === RECORD.done) recipient.state = 'done'
    else if (record.type === RECORD.fail) recipient.state = 'failed'
    else if (record.type === RECORD.defer) {
      recipient.state = 'deferred'
      recipient.nextTryMs = mark.at ?? 0
      recipient.doubtful = mark.doubt === true
    }
  }
}

/**
 * The append-only spool: segment files whose blocks are written ahead, many records for one
 * fdatasync off the event loop. The truth for accepted mail; records.ts has the file format.
 */
import { assert, messageOf, StoreError } from '../base/errors.ts'
import type { Disk, DiskSpace } from '../base/files.ts'
import type { MessageId } from '../base/ids.ts'
import { MARK_SEGMENTS, PIECE_BYTES, SPOOL_BACKLOG_BYTES_MAX } from '../base/limits.ts'
import {
  bindRecord,
  encodeRecord,
  encodeSegmentHeader,
  paddedLength,
  RECORD,
  RECORD_HEADER_BYTES,
  type RecordType,
  SEGMENT_HEADER_BYTES,
} from './records.ts'
import { type ReplayedRecord, type Segment, Segments, type SpoolOptions } from './segments.ts'

/** A block holds a whole record around a piece. */
const BLOCK_BYTES = paddedLength(PIECE_BYTES)
/** Blocks kept for the next bodies: 4 MB. */
const BLOCKS_MAX = 64
/** Linux takes at most 1024 buffers in one writev. */
const WRITE_BUFFERS_MAX = 512
/** Bodies wait for company up to this: until their COMMIT nobody misses them. */
const WRITE_BYTES_MIN = 256 * 1024
/** Longest time that a mark which nobody waits for stays unsynced (design: mail.md, Queue). */
const LAZY_SYNC_MS = 200

/** Where a record lies; `segment` is set as soon as it has its place, at the latest when written. */
export class SpoolRecord {
  segment: Segment | null = null
  /** Offset of the payload in the segment. */
  offset = 0
  readonly length: number
  /** A body or a commit: alive from its birth until its owner lets go. Marks are kept by guards. */
  readonly isLive: boolean
  /** Its owner let go before it had a place. */
  isDropped = false

  constructor(length: number, isLive: boolean) {
    this.length = length
    this.isLive = isLive
  }

  /** Set while it waits for its place. */
  onPlace: (segment: Segment) => void = () => {}

  /** Calls `run` as soon as it has its place: now, or never when the disk is too full for it. */
  whenPlaced(run: (segment: Segment) => void): void {
    if (this.segment === null) this.onPlace = run
    else run(this.segment)
  }

  /**
   * The segment. Call only after `written` or `synced`.
   * @throws StoreError when the disk was too full to give the record a place
   */
  place(): Segment {
    if (this.segment === null)
      throw new StoreError('no space left in the spool', { remedy: 'retry' })
    return this.segment
  }
}

type Pending = {
  readonly bytes: Buffer
  readonly record: SpoolRecord
  readonly mark: boolean
  /** Memory that goes back to the pool when it is written. */
  readonly isBlock: boolean
  /** Place in the order of append. */
  readonly seq: number
}
type Waiter = {
  /** Everything appended up to here is waited for. */
  readonly seq: number
  readonly resolve: () => void
  readonly reject: (error: StoreError) => void
}

export class Spool {
  readonly #options: SpoolOptions
  readonly #segmentBytes: number
  readonly #segments: Segments
  #tail: Segment | null = null
  #generation = 0
  /** Records that wait for a segment. */
  #unplaced: Pending[] = []
  /** Placed, not yet handed to the kernel. */
  #unwritten: Pending[] = []
  #backlogBytes = 0
  /** Blocks that nobody uses now. */
  readonly #blocks: Buffer[] = []
  #appendedSeq = 0
  /** Commits that nobody may be told of yet. */
  #unsynced: { readonly mid: MessageId; readonly index: number; readonly seq: number }[] = []
  #writtenSeq = 0
  #writing = false
  #syncing = false
  #syncsSoon = false
  #pumpsSoon = false
  /** Somebody waits for what is unwritten, or a kill would miss it. */
  #isUrgent = false
  /** Reused segments whose new header is not yet durable. */
  #activated: Segment[] = []
  #writtenWaiters: Waiter[] = []
  #syncWaiters: Waiter[] = []
  #afterSync: { readonly seq: number; readonly run: () => void }[] = []
  #drainWaiters: (() => void)[] = []
  #failure: StoreError | null = null
  #closed = false
  /** Set by the queue: tries to empty sparse segments when many are in use. */
  onPressure: () => void = () => {}
  /** Set by the queue: appends what waited for company. Called before a sync that nobody hurries. */
  beforeLazySync: () => void = () => {}

  private constructor(options: SpoolOptions) {
    this.#options = options
    this.#segments = new Segments(options, {
      isWaiting: () => this.#unplaced.length > 0,
      roomChanged: () => {
        if (this.#failure !== null) return
        this.#roll()
        this.#pump()
      },
      failed: (what, error) => this.#fail(what, error),
      pressed: () => this.onPressure(),
    })
    this.#segmentBytes = this.#segments.bytes
  }

  /**
   * Opens the directory, which exists, and hands every record that survived to `replay`, in the
   * order in which they were written. A torn record at the end is dropped; one in the middle is
   * counted and passed over.
   * @throws StoreError when a segment cannot be read or the first one not be written
   */
  static async open(
    options: SpoolOptions,
    replay: (record: ReplayedRecord) => void,
  ): Promise<Spool> {
    const spool = new Spool(options)
    spool.#generation = spool.#segments.read(replay)
    return spool
  }

  /** Call once after replay, when the queue has counted its references: frees and writes ahead. */
  async start(): Promise<void> {
    // A process that was killed may have made a file whose name it had not synced.
    await this.#segments.syncNames()
    const last = this.#segments.lastUsed()
    const goesOn = last !== null && last.refs > 0 && last.end < this.#segmentBytes * 0.9
    for (const segment of this.#segments.all) {
      segment.sealed = segment !== last || !goesOn
      // A process that was killed left what it had not synced in the page cache: the first sync
      // of this one makes it durable.
      segment.dirty = segment.generation > 0
    }
    this.#segments.collect()
    // All behind the last whole record of the youngest segment is void: it is written over.
    if (goesOn) this.#tail = last
    else this.#activate(await this.#segments.first())
    this.#segments.writeAhead()
  }

  /** The failure that ended this spool, or null. */
  get failure(): StoreError | null {
    return this.#failure
  }

  /** Where the bytes of its records are read. */
  get disk(): Disk {
    return this.#options.disk
  }

  get backlogBytes(): number {
    return this.#backlogBytes
  }

  get segmentCount(): number {
    return this.#segments.all.length
  }

  /** Segments that hold something live, least live bytes first; never the one being written. */
  sparse(): readonly Segment[] {
    return this.#segments.all
      .filter((segment) => segment.sealed && segment.refs > 0)
      .sort((a, b) => a.liveBytes - b.liveBytes)
  }

  /**
   * True while another message of `sizeBytes` may begin: disk above its reserve, not failed. With a
   * `reserve` (part of the disk) of its own also the segments that are written ahead are not for it
   * below that.
   */
  hasRoom(sizeBytes: number, reserve?: number): boolean {
    if (this.#failure !== null || this.#closed) return false
    const needed = Math.ceil((sizeBytes + 65_536) / this.#segmentBytes)
    if (reserve !== undefined) return this.#segments.takes(needed, reserve)
    if (this.#segments.freeCount - MARK_SEGMENTS >= needed) return true
    return this.#segments.takes(needed)
  }

  /** Of the disk, at most 1 s old. */
  diskSpace(): DiskSpace {
    return this.#segments.diskSpace()
  }

  /** True while sockets should pause. */
  get isBehind(): boolean {
    return this.#backlogBytes > SPOOL_BACKLOG_BYTES_MAX
  }

  /** Calls `run` once when the backlog is below half of its bound. */
  onDrain(run: () => void): void {
    this.#drainWaiters.push(run)
  }

  /**
   * Memory for the payload of one record of PIECE_BYTES, used again and again: a large body needs
   * no more than its share of the pool, and is not copied. Fill it, then give it to `append`.
   */
  block(): Buffer {
    const block = this.#blocks.pop() ?? Buffer.allocUnsafeSlow(BLOCK_BYTES)
    return block.subarray(RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + PIECE_BYTES)
  }

  /**
   * Adds a record. It is not on disk before `written`, not safe before `synced`. `payload` is
   * copied, unless it is (the start of) a block and `isGiven`: then it is not yours any more.
   * @throws StoreError when the spool has failed or is closed
   */
  append(
    type: RecordType,
    mid: MessageId,
    index: number,
    payload: Uint8Array,
    isGiven = false,
  ): SpoolRecord {
    if (this.#failure !== null) throw this.#failure
    if (this.#closed) throw new StoreError('the spool is closed', { remedy: 'retry' })
    assert(
      paddedLength(payload.length) <= this.#segmentBytes - SEGMENT_HEADER_BYTES,
      'a record fits a segment',
    )
    const isBlock =
      isGiven &&
      payload.buffer.byteLength === BLOCK_BYTES &&
      payload.byteOffset === RECORD_HEADER_BYTES
    const bytes = encodeRecord(type, mid, index, payload, isBlock ? payload.buffer : null)
    const isMark = type !== RECORD.accept && type !== RECORD.copy && type !== RECORD.commit
    const record = new SpoolRecord(payload.length, !isMark)
    this.#appendedSeq += 1
    const pending = { bytes, record, mark: isMark, isBlock, seq: this.#appendedSeq }
    if (type === RECORD.commit) this.#unsynced.push({ mid, index, seq: this.#appendedSeq })
    this.#backlogBytes += bytes.length
    if (isMark || type === RECORD.commit) this.#isUrgent = true
    if (this.#unplaced.length > 0 || !this.#place(pending)) {
      this.#unplaced.push(pending)
      this.#roll()
    }
    this.#pumpSoon()
    return record
  }

  /** Resolves when all that was appended before is in the files (not yet durable). */
  written(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) reject(this.#failure)
      else {
        this.#writtenWaiters.push({ seq: this.#appendedSeq, resolve, reject })
        this.#isUrgent = true
        this.#pumpSoon()
      }
    })
  }

  /**
   * Resolves when all that was appended before is durable.
   * @throws StoreError when a write or the sync failed; the record may or may not survive
   */
  synced(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) reject(this.#failure)
      else {
        this.#syncWaiters.push({ seq: this.#appendedSeq, resolve, reject })
        this.#isUrgent = true
        this.#pumpSoon()
      }
    })
  }

  /** Calls `run` when all that was appended before is durable; hurries nothing: within 200 ms. */
  afterSync(run: () => void): void {
    this.#afterSync.push({ seq: this.#appendedSeq, run })
    this.syncSoon()
  }

  /** Syncs within 200 ms, with the next one that somebody waits for or by itself. */
  syncSoon(): void {
    if (this.#syncsSoon || this.#closed) return
    this.#syncsSoon = true
    this.#options.clock.after(LAZY_SYNC_MS, () => {
      this.#syncsSoon = false
      if (this.#closed || this.#failure !== null) return
      this.beforeLazySync()
      // A failure is told through onFailure.
      this.synced().catch(() => {})
    })
  }

  /** Nobody needs this body or commit any more. Once a record. */
  drop(record: SpoolRecord): void {
    if (record.segment === null) record.isDropped = true
    else this.release(record.segment, record.length)
  }

  /** A live message has `bytes` in `segment`, read from it at the start. */
  retain(segment: Segment, bytes: number): void {
    segment.refs += 1
    segment.liveBytes += bytes
  }

  /** Undoes one retain. */
  release(segment: Segment, bytes: number): void {
    segment.refs -= 1
    segment.liveBytes -= bytes
    assert(segment.refs >= 0, 'released no more than retained')
    if (segment.refs === 0) this.#segments.collectSoon()
  }

  /** A mark in `mark` speaks of a commit in `commit`: it must outlive it. */
  guard(mark: Segment, commit: Segment): void {
    if (mark === commit) return
    mark.guards.add(commit)
    commit.guardedBy.add(mark)
  }

  async close(): Promise<void> {
    if (this.#failure === null && this.#tail !== null) {
      this.beforeLazySync()
      await this.synced().catch(() => {})
    }
    this.#closed = true
    await this.#segments.close()
  }

  // Writing: records get their place at once, go out in order, one writev at a time.

  #place(pending: Pending): boolean {
    const tail = this.#tail
    // Until the segments for marks are written, each segment keeps some room for them: the disk
    // may be full before they are.
    const kept =
      !pending.mark && this.#segments.freeCount < MARK_SEGMENTS ? this.#segmentBytes / 32 : 0
    if (tail === null || tail.end + pending.bytes.length > this.#segmentBytes - kept) return false
    const { bytes, record } = pending
    bindRecord(bytes, tail.generation, record.length)
    record.segment = tail
    record.offset = tail.end + RECORD_HEADER_BYTES
    record.onPlace(tail)
    if (record.isLive && !record.isDropped) this.retain(tail, record.length)
    tail.end += bytes.length
    this.#unwritten.push(pending)
    return true
  }

  /** Seals the tail and goes on in the next free segment; only marks may take the last ones. */
  #roll(): void {
    while (this.#unplaced.length > 0) {
      const first = this.#unplaced[0]
      if (first === undefined) return
      if (this.#place(first)) {
        this.#unplaced.shift()
        continue
      }
      const next = this.#segments.take(first.mark)
      if (next === 'unsynced') {
        this.#syncUpTo(first.seq - 1)
        break
      }
      if (next !== null) {
        if (this.#tail !== null) this.#tail.sealed = true
        this.#activate(next)
      } else if (first.mark || this.#segments.mayGrow()) {
        break
      } else {
        // No room and none to come: bodies give way, so that marks never wait behind them.
        for (const { bytes } of this.#unplaced.filter((p) => !p.mark))
          this.#backlogBytes -= bytes.length
        this.#unplaced = this.#unplaced.filter((pending) => pending.mark)
      }
    }
    this.#segments.writeAhead()
  }

  /** Nobody waits for it but the records that have no place. */
  #syncUpTo(seq: number): void {
    if (this.#syncWaiters.some((waiter) => waiter.seq === seq)) return
    this.#syncWaiters.push({ seq, resolve: () => {}, reject: () => {} })
    this.#isUrgent = true
    this.#pumpSoon()
  }

  #activate(segment: Segment): void {
    for (const commit of segment.guards) commit.guardedBy.delete(segment)
    segment.guards.clear()
    // Marks of commits that come into it now may be written before it is durable.
    for (const mark of segment.guardedBy) segment.wasGuardedBy.add(mark)
    segment.guardedBy.clear()
    this.#generation += 1
    segment.generation = this.#generation
    segment.sealed = false
    segment.end = SEGMENT_HEADER_BYTES
    const header = encodeSegmentHeader(segment.generation, this.#options.spoolId)
    this.#tail = segment
    const record = new SpoolRecord(header.length, false)
    record.segment = segment
    // Goes out like a record at offset 0, so it is written and synced in order.
    record.offset = RECORD_HEADER_BYTES
    this.#backlogBytes += header.length
    this.#unwritten.push({ bytes: header, record, mark: true, isBlock: false, seq: 0 })
  }

  /** What is appended in the same turn goes out in one write: each one is a call of two threads. */
  #pumpSoon(): void {
    if (this.#pumpsSoon || this.#writing) return
    this.#pumpsSoon = true
    queueMicrotask(() => {
      this.#pumpsSoon = false
      this.#pump()
    })
  }

  #pump(): void {
    if (this.#failure !== null || this.#writing) return
    const first = this.#unwritten[0]
    if (first === undefined) {
      this.#isUrgent = this.#unplaced.length > 0
      return this.#advance()
    }
    if (!this.#isUrgent && this.#backlogBytes < WRITE_BYTES_MIN) return
    const segment = first.record.place()
    const position = first.record.offset - RECORD_HEADER_BYTES
    const batch: Pending[] = []
    let end = position
    for (const pending of this.#unwritten) {
      const start = pending.record.offset - RECORD_HEADER_BYTES
      if (pending.record.segment !== segment || start !== end) break
      if (batch.length === WRITE_BUFFERS_MAX) break
      batch.push(pending)
      end += pending.bytes.length
    }
    this.#unwritten.splice(0, batch.length)
    if (this.#unwritten.length === 0) this.#isUrgent = this.#unplaced.length > 0
    this.#writing = true
    this.#write(
      segment,
      batch.map((pending) => pending.bytes),
      position,
      batch,
    )
  }

  #write(segment: Segment, buffers: Buffer[], position: number, batch: readonly Pending[]): void {
    const total = buffers.reduce((sum, buffer) => sum + buffer.length, 0)
    this.#options.disk.write(segment.fd, buffers, position, (error, bytesWritten) => {
      if (error !== null) return this.#fail('write', error)
      this.#backlogBytes -= bytesWritten
      if (bytesWritten < total) {
        // A short write is legal: the rest goes out in one more.
        const rest = Buffer.concat(buffers).subarray(bytesWritten)
        return this.#write(segment, [rest], position + bytesWritten, batch)
      }
      // Only now: a sync that began while the write ran may have missed it.
      segment.dirty = true
      if (batch.some(({ seq }) => seq === 0)) this.#activated.push(segment)
      for (const { bytes, isBlock } of batch) {
        if (isBlock && this.#blocks.length < BLOCKS_MAX)
          this.#blocks.push(Buffer.from(bytes.buffer))
      }
      this.#writing = false
      if (this.#unwritten.length > 0) this.#advance()
      this.#pump()
    })
  }

  /** All before the first record that still waits is written: tells those who waited for it. */
  #advance(): void {
    const next = this.#unwritten.find(({ seq }) => seq > 0) ?? this.#unplaced[0]
    this.#writtenSeq = next === undefined ? this.#appendedSeq : next.seq - 1
    this.#tellWritten()
    this.#sync()
  }

  #tellWritten(): void {
    if (this.#drainWaiters.length > 0 && this.#backlogBytes < SPOOL_BACKLOG_BYTES_MAX / 2) {
      const waiters = this.#drainWaiters
      this.#drainWaiters = []
      for (const run of waiters) run()
    }
    if (this.#writtenWaiters.length === 0) return
    const ready = this.#writtenWaiters.filter(({ seq }) => seq <= this.#writtenSeq)
    if (ready.length === 0) return
    this.#writtenWaiters = this.#writtenWaiters.filter(({ seq }) => seq > this.#writtenSeq)
    for (const { resolve } of ready) resolve()
  }

  /** One sync at a time; who comes meanwhile shares the next one. */
  #sync(): void {
    if (this.#syncing || this.#failure !== null) return
    const ready = this.#syncWaiters.filter(({ seq }) => seq <= this.#writtenSeq)
    if (ready.length === 0) return
    this.#syncWaiters = this.#syncWaiters.filter(({ seq }) => seq > this.#writtenSeq)
    this.#syncing = true
    const safeSeq = this.#writtenSeq
    // The oldest first (they are taken from the end): a commit that is written over is gone from
    // the disk before the marks that spoke of it are.
    const dirty = this.#segments.all
      .filter((segment) => segment.dirty)
      .sort((a, b) => b.generation - a.generation)
    const syncing = [...dirty]
    for (const segment of syncing) {
      segment.dirty = false
      segment.isSyncing = true
    }
    const activated = this.#activated
    this.#activated = []
    this.#syncAll(
      dirty,
      () => {
        for (const segment of activated) this.#segments.forgetFormer(segment)
        this.#syncing = false
        if (activated.length > 0 && this.#unplaced.length > 0) this.#roll()
        this.#pump()
        for (const segment of syncing) segment.isSyncing = false
        this.#unsynced = this.#unsynced.filter(({ seq }) => seq > safeSeq)
        for (const { resolve } of ready) resolve()
        this.#tellSynced(safeSeq)
        this.#sync()
      },
      ready,
    )
  }

  #tellSynced(safeSeq: number): void {
    if (this.#afterSync.length === 0) return
    const safe = this.#afterSync.filter(({ seq }) => seq <= safeSeq)
    this.#afterSync = this.#afterSync.filter(({ seq }) => seq > safeSeq)
    for (const { run } of safe) run()
  }

  #syncAll(dirty: Segment[], done: () => void, waiters: readonly Waiter[]): void {
    const segment = dirty.pop()
    if (segment === undefined) return done()
    this.#options.disk.sync(segment.fd, (error) => {
      if (error === null) return this.#syncAll(dirty, done, waiters)
      for (const { reject } of waiters) reject(this.#failureOf('sync', error))
      this.#fail('sync', error)
    })
  }

  #failureOf(what: string, error: Error): StoreError {
    return new StoreError(`the spool cannot ${what}: ${messageOf(error)}`, {
      remedy: 'ask-operator',
      cause: error,
    })
  }

  /**
   * After a failed fsync the kernel may have dropped the pages and a second one would lie
   * (Rebello, ATC 2020): nothing is acknowledged any more, the process must start anew.
   */
  #fail(what: string, error: Error): void {
    if (this.#failure !== null) return
    this.#failure = this.#failureOf(what, error)
    this.#voidUnsynced()
    this.#options.observer.emit('spool.failed', { what, cause: messageOf(error) })
    for (const { reject } of [...this.#writtenWaiters, ...this.#syncWaiters]) reject(this.#failure)
    this.#writtenWaiters = []
    this.#syncWaiters = []
    this.#options.onFailure(this.#failure)
  }

  /**
   * The clients of these commits read 451, but the records may be in the page cache, which
   * survives this process: without a word the next start would deliver what was refused. As good
   * as it gets on a disk that fails: one write, not synced.
   */
  #voidUnsynced(): void {
    const tail = this.#tail
    if (tail === null) return
    try {
      for (const { mid, index } of this.#unsynced) {
        const bytes = encodeRecord(RECORD.abort, mid, index + 1, new Uint8Array(), null)
        if (tail.end + bytes.length > this.#segmentBytes) return
        bindRecord(bytes, tail.generation, 0)
        this.#options.disk.writeNow(tail.fd, bytes, tail.end)
        tail.end += bytes.length
      }
    } catch (error) {
      this.#options.observer.emit('spool.failed', { what: 'void', cause: messageOf(error) })
    }
  }
}

/**
 * The append-only spool: segment files whose blocks are written ahead, many records for one
 * fdatasync off the event loop. The truth for accepted mail; records.ts has the file format.
 */
import { join } from 'node:path'
import { type Clock, pause } from '../base/clock.ts'
import { assert, messageOf, StoreError } from '../base/errors.ts'
import type { Disk } from '../base/files.ts'
import type { MessageId, SpoolId } from '../base/ids.ts'
import {
  MARK_SEGMENTS,
  PIECE_BYTES,
  SEGMENT_BYTES,
  SPOOL_BACKLOG_BYTES_MAX,
} from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import {
  bindRecord,
  encodeRecord,
  encodeSegmentHeader,
  paddedLength,
  RECORD,
  RECORD_HEADER_BYTES,
  type RecordType,
  readRecords,
  readSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type StoredRecord,
  youngestGeneration,
} from './records.ts'

/** A block holds a whole record around a piece. */
const BLOCK_BYTES = paddedLength(PIECE_BYTES)
/** Blocks kept for the next bodies: 4 MB. */
const BLOCKS_MAX = 64
/** Part of the disk that bodies leave free (design: mail.md, Accept). */
const DISK_RESERVE = 0.05
/** Segments kept written ahead beyond those for marks. */
const AHEAD_SEGMENTS = 2
/** Free segments kept for the next burst; more go back to the disk, and need no reading at start. */
const FREE_SEGMENTS_MAX = 10
/** Linux takes at most 1024 buffers in one writev. */
const WRITE_BUFFERS_MAX = 512
/** Blocks are written ahead in pieces this long, with a pause: bursts stall every sync after them. */
const AHEAD_PIECE_BYTES = 1024 * 1024
const AHEAD_PAUSE_MS = 15
/** Longest time that a mark which nobody waits for stays unsynced (design: mail.md, Queue). */
const LAZY_SYNC_MS = 200

/** One segment file. `refs` counts live messages with bytes in it. */
export class Segment {
  readonly path: string
  readonly fd: number
  generation: number
  /** Bytes used, header included. */
  end = SEGMENT_HEADER_BYTES
  refs = 0
  liveBytes = 0
  /** Segments with commits that marks in this one speak of; it may not be reused before them. */
  readonly guards = new Set<Segment>()
  /** Segments whose marks speak of commits in this one. */
  readonly guardedBy = new Set<Segment>()
  dirty = false
  sealed = false

  constructor(path: string, fd: number, generation: number) {
    this.path = path
    this.fd = fd
    this.generation = generation
  }
}

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

export type ReplayedRecord = StoredRecord & { readonly segment: Segment }

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

export type SpoolOptions = {
  readonly dir: string
  readonly spoolId: SpoolId
  readonly clock: Clock
  readonly observer: Observer
  /** Free and total bytes of the disk that holds `dir`. */
  readonly freeSpace: () => { readonly freeBytes: number; readonly totalBytes: number }
  /** Size of a segment; SEGMENT_BYTES, but in tests of reuse. */
  readonly segmentBytes?: number
  readonly disk: Disk
  /** Told once when a write or a sync failed: no byte of this process can be trusted after it. */
  readonly onFailure: (error: StoreError) => void
}

export class Spool {
  readonly #options: SpoolOptions
  readonly #segmentBytes: number
  #segments: Segment[] = []
  /** Free and written ahead, oldest first. */
  #free: Segment[] = []
  #tail: Segment | null = null
  #generation = 0
  #fileNumber = 0
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
  /** Reused segments whose new header is not yet durable. */
  #activated: Segment[] = []
  #writtenWaiters: Waiter[] = []
  #syncWaiters: Waiter[] = []
  #afterSync: { readonly seq: number; readonly run: () => void }[] = []
  #drainWaiters: (() => void)[] = []
  #aheadRunning = false
  #aheadFailed = false
  #triesLater = false
  #space = { freeBytes: Number.MAX_SAFE_INTEGER, totalBytes: Number.MAX_SAFE_INTEGER }
  #spaceReadMs = Number.NEGATIVE_INFINITY
  #failure: StoreError | null = null
  #closed = false
  /** Set by the queue: tries to empty sparse segments when many are in use. */
  onPressure: () => void = () => {}

  private constructor(options: SpoolOptions) {
    this.#options = options
    this.#segmentBytes = options.segmentBytes ?? SEGMENT_BYTES
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
    spool.#read(replay)
    return spool
  }

  /** Call once after replay, when the queue has counted its references: frees and writes ahead. */
  async start(): Promise<void> {
    const last = this.#lastUsed()
    const goesOn = last !== null && last.refs > 0 && last.end < this.#segmentBytes * 0.9
    for (const segment of this.#segments) {
      segment.sealed = segment !== last || !goesOn
      // A process that was killed left what it had not synced in the page cache: the first sync
      // of this one makes it durable.
      segment.dirty = segment.generation > 0
    }
    this.#collect()
    // All behind the last whole record of the youngest segment is void: it is written over.
    if (goesOn) this.#tail = last
    else {
      if (this.#free.length === 0) await this.#createSegment(0)
      this.#activate(this.#free.shift() ?? null)
    }
    this.#writeAhead()
  }

  #lastUsed(): Segment | null {
    let last: Segment | null = null
    for (const segment of this.#segments) {
      if (segment.generation > (last?.generation ?? 0)) last = segment
    }
    return last
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
    return this.#segments.length
  }

  /** Segments that hold something live, least live bytes first; never the one being written. */
  sparse(): readonly Segment[] {
    return this.#segments
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
    if (reserve !== undefined) return this.#diskTakes(needed, reserve)
    if (this.#free.length - MARK_SEGMENTS >= needed) return true
    return this.#diskTakes(needed)
  }

  /** The disk has room for so many more segments above its reserve. */
  #diskTakes(segments: number, reserve = DISK_RESERVE): boolean {
    const { freeBytes, totalBytes } = this.diskSpace()
    return freeBytes - segments * this.#segmentBytes > totalBytes * reserve
  }

  /** Of the disk, at most 1 s old. */
  diskSpace(): { readonly freeBytes: number; readonly totalBytes: number } {
    const nowMs = this.#options.clock.monoMs()
    if (nowMs - this.#spaceReadMs > 1_000) {
      this.#space = this.#readSpace()
      this.#spaceReadMs = nowMs
    }
    return this.#space
  }

  /** A directory that cannot be asked has no room: the node is not ready, and says so. */
  #readSpace(): { readonly freeBytes: number; readonly totalBytes: number } {
    try {
      return this.#options.freeSpace()
    } catch (error) {
      this.#options.observer.emit('spool.refused', { cause: messageOf(error) })
      return { freeBytes: 0, totalBytes: this.#space.totalBytes }
    }
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
    if (this.#unplaced.length > 0 || !this.#place(pending)) {
      this.#unplaced.push(pending)
      this.#roll()
    }
    this.#pump()
    return record
  }

  /** Resolves when all that was appended before is in the files (not yet durable). */
  written(): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#failure !== null) reject(this.#failure)
      else {
        this.#writtenWaiters.push({ seq: this.#appendedSeq, resolve, reject })
        this.#pump()
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
        this.#pump()
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
      // A failure is told through onFailure.
      if (!this.#closed) this.synced().catch(() => {})
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
    if (segment.refs === 0) this.#collectSoon()
  }

  /** A mark in `mark` speaks of a commit in `commit`: it must outlive it. */
  guard(mark: Segment, commit: Segment): void {
    if (mark === commit) return
    mark.guards.add(commit)
    commit.guardedBy.add(mark)
  }

  async close(): Promise<void> {
    if (this.#failure === null && this.#tail !== null) await this.synced().catch(() => {})
    this.#closed = true
    for (const segment of this.#segments) this.#options.disk.close(segment.fd)
    this.#segments = []
  }

  // Writing: records get their place at once, go out in order, one writev at a time.

  #place(pending: Pending): boolean {
    const tail = this.#tail
    // Until the segments for marks are written, each segment keeps some room for them: the disk
    // may be full before they are.
    const kept = !pending.mark && this.#free.length < MARK_SEGMENTS ? this.#segmentBytes / 32 : 0
    if (tail === null || tail.end + pending.bytes.length > this.#segmentBytes - kept) return false
    const { bytes, record } = pending
    bindRecord(bytes, tail.generation, record.length)
    record.segment = tail
    record.offset = tail.end + RECORD_HEADER_BYTES
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
      if (this.#free.length === 0) this.#collect()
      const mayRoll = this.#free.length > (first.mark ? 0 : MARK_SEGMENTS) || this.#isGrowing()
      const next = mayRoll ? this.#free.shift() : undefined
      if (next !== undefined) {
        if (this.#tail !== null) this.#tail.sealed = true
        this.#activate(next)
      } else if (first.mark || this.#mayGrow()) {
        break
      } else {
        // No room and none to come: bodies give way, so that marks never wait behind them.
        for (const { bytes } of this.#unplaced.filter((p) => !p.mark))
          this.#backlogBytes -= bytes.length
        this.#unplaced = this.#unplaced.filter((pending) => pending.mark)
      }
    }
    this.#writeAhead()
  }

  /** Right after the first start the reserve is still being written; the disk has the room. */
  #isGrowing(): boolean {
    return this.#mayGrow() && this.#segments.length < MARK_SEGMENTS + AHEAD_SEGMENTS
  }

  /** The disk allows one more segment above its reserve. */
  #mayGrow(): boolean {
    return !this.#aheadFailed && this.#diskTakes(1)
  }

  #activate(segment: Segment | null): void {
    assert(segment !== null, 'a free segment exists')
    for (const commit of segment.guards) commit.guardedBy.delete(segment)
    segment.guards.clear()
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

  #pump(): void {
    if (this.#failure !== null || this.#writing) return
    const first = this.#unwritten[0]
    if (first === undefined) return this.#advance()
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
    const dirty = this.#segments
      .filter((segment) => segment.dirty)
      .sort((a, b) => b.generation - a.generation)
    for (const segment of dirty) segment.dirty = false
    const activated = this.#activated
    this.#activated = []
    this.#syncAll(
      dirty,
      () => {
        // The old content of a reused segment can no longer come back: its marks are free.
        for (const segment of activated) {
          for (const mark of segment.guardedBy) mark.guards.delete(segment)
          segment.guardedBy.clear()
        }
        this.#syncing = false
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

  // Segments: reuse, and writing ahead.

  #collecting = false

  #collectSoon(): void {
    if (this.#collecting) return
    this.#collecting = true
    this.#options.clock.after(0, () => {
      this.#collecting = false
      if (!this.#closed) this.#collect()
    })
  }

  /** A sealed segment is free when nothing in it lives and no older commit needs its marks. */
  #collect(): void {
    const inFree = new Set(this.#free)
    const sealed = this.#segments
      .filter((s) => s.sealed && s.refs === 0 && !inFree.has(s))
      .sort((a, b) => a.generation - b.generation)
    let found = false
    for (const segment of sealed) {
      // The commits that its marks speak of must be gone, or stand before it in the line of reuse.
      if (![...segment.guards].every((commit) => inFree.has(commit))) continue
      this.#free.push(segment)
      inFree.add(segment)
      found = true
    }
    if (this.#free.length > FREE_SEGMENTS_MAX) this.#shrink()
    if (found && this.#unplaced.length > 0) {
      this.#roll()
      this.#pump()
    }
    const inUse = this.#segments.length - this.#free.length
    if (inUse > 8 && this.#free.length < MARK_SEGMENTS) this.onPressure()
  }

  /** Gives back what a backlog left, the oldest first: no mark goes before its commit. */
  #shrink(): void {
    const spare = this.#free.splice(0, this.#free.length - FREE_SEGMENTS_MAX)
    const { disk, dir } = this.#options
    for (const segment of spare) {
      disk.close(segment.fd)
      disk.remove(segment.path)
      for (const commit of segment.guards) commit.guardedBy.delete(segment)
    }
    this.#segments = this.#segments.filter((segment) => !spare.includes(segment))
    // Until their names are gone for good the commits in them may come back: their marks stay.
    disk.syncNames(dir, (error) => {
      if (error !== null) return this.#fail('sync', error)
      for (const segment of spare) {
        for (const mark of segment.guardedBy) mark.guards.delete(segment)
      }
      this.#collectSoon()
    })
  }

  #writeAhead(): void {
    if (this.#aheadRunning || this.#aheadFailed) return
    if (this.#closed || this.#failure !== null) return
    if (this.#free.length >= MARK_SEGMENTS + AHEAD_SEGMENTS) return
    // Below the reserve of the disk only the segments for marks are still made.
    const isTight = this.diskSpace().freeBytes < this.#segmentBytes * 2
    if (!this.#diskTakes(1) && (this.#free.length >= MARK_SEGMENTS || isTight)) {
      this.#tryLater()
      return
    }
    this.#aheadRunning = true
    this.#createSegment(AHEAD_PAUSE_MS).then(
      () => this.#afterAhead(null),
      (error) => this.#afterAhead(messageOf(error)),
    )
  }

  #afterAhead(cause: string | null): void {
    this.#aheadRunning = false
    this.#aheadFailed = cause !== null
    if (this.#closed) return
    if (cause !== null) {
      this.#options.observer.emit('spool.refused', { cause })
      this.#tryLater()
    }
    this.#roll()
    this.#pump()
  }

  /** The disk is full now; somebody may make room. */
  #tryLater(): void {
    if (this.#triesLater) return
    this.#triesLater = true
    this.#options.clock.after(1_000, () => {
      this.#triesLater = false
      this.#aheadFailed = false
      if (this.#closed || this.#failure !== null) return
      // Bodies for which there is no room any more give way to the marks behind them.
      this.#roll()
      this.#pump()
      this.#writeAhead()
    })
  }

  /** Writes a new segment full of zeros, in pieces `pauseMs` apart, syncs it, puts it to the free. */
  async #createSegment(pauseMs: number): Promise<void> {
    this.#fileNumber += 1
    const path = join(this.#options.dir, `${String(this.#fileNumber).padStart(8, '0')}.seg`)
    const { disk, dir } = this.#options
    const fd = disk.open(path, 'new')
    try {
      const zeros = Buffer.alloc(Math.min(AHEAD_PIECE_BYTES, this.#segmentBytes))
      for (let offset = 0; offset < this.#segmentBytes; offset += zeros.length) {
        await new Promise<void>((resolve, reject) => {
          disk.write(fd, [zeros], offset, (error, count) => {
            if (error !== null) reject(error)
            else if (count < zeros.length) reject(new Error('no space left for a segment'))
            else resolve()
          })
        })
        // Urgency may come while we write slowly: then there is no pause any more.
        if (pauseMs > 0 && this.#unplaced.length === 0) {
          await pause(this.#options.clock, pauseMs)
        }
        if (this.#closed) throw new Error('closed while writing ahead')
      }
      await new Promise<void>((resolve, reject) =>
        disk.sync(fd, (error) => (error === null ? resolve() : reject(error))),
      )
      // The name too: a synced file that no directory names is lost with the power.
      await new Promise<void>((resolve, reject) =>
        disk.syncNames(dir, (error) => (error === null ? resolve() : reject(error))),
      )
    } catch (error) {
      disk.close(fd)
      disk.remove(path)
      throw error
    }
    const segment = new Segment(path, fd, 0)
    segment.sealed = true
    this.#segments.push(segment)
    this.#free.push(segment)
  }

  // Reading at start.

  #read(replay: (record: ReplayedRecord) => void): void {
    const { disk, dir } = this.#options
    const names = disk.list(dir).filter((name) => /^\d{8}\.seg$/.test(name))
    const used: Segment[] = []
    for (const name of names.sort()) {
      this.#fileNumber = Math.max(this.#fileNumber, Number(name.slice(0, 8)))
      const path = join(dir, name)
      const header = disk.load(path, SEGMENT_HEADER_BYTES)
      const segment = new Segment(path, disk.open(path, 'old'), this.#generationOf(path, header))
      this.#segments.push(segment)
      if (segment.generation > 0) used.push(segment)
      else this.#fillUp(segment)
    }
    used.sort((a, b) => a.generation - b.generation)
    for (const segment of used) {
      this.#generation = Math.max(this.#generation, segment.generation)
      this.#readSegment(segment, replay)
    }
  }

  /** A segment whose writing ahead was cut off gets its blocks now, else its first syncs are slow. */
  #fillUp(segment: Segment): void {
    const { disk } = this.#options
    const size = disk.size(segment.path)
    if (size >= this.#segmentBytes) return
    disk.writeNow(segment.fd, Buffer.alloc(this.#segmentBytes - size), size)
    segment.dirty = false
  }

  /** Of a segment that was used, or 0. A damaged header does not take its records with it. */
  #generationOf(path: string, header: Buffer): number {
    const said = readSegmentHeader(header)
    if (said === 'blank') return 0
    if (said === 'newer') {
      throw new StoreError(`${path} was written by a newer version`, { remedy: 'ask-operator' })
    }
    if (said !== 'damaged') return said.generation
    this.#options.observer.emit('spool.corrupted', {
      segment: path,
      offset: 0,
      bytes: header.length,
    })
    return youngestGeneration(this.#options.disk.load(path))
  }

  #readSegment(segment: Segment, replay: (record: ReplayedRecord) => void): void {
    for (const found of readRecords(this.#options.disk.load(segment.path), segment.generation)) {
      if ('gapAt' in found) {
        const { gapAt: offset, bytes } = found
        this.#options.observer.emit('spool.corrupted', { segment: segment.path, offset, bytes })
        continue
      }
      replay({ ...found, segment })
      segment.end = found.offset - RECORD_HEADER_BYTES + paddedLength(found.payload.length)
    }
  }
}

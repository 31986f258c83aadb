/**
 * The segment files of a spool: which are in use, which are free, and the writing ahead of new
 * ones. A segment is used again when nothing in it lives and no mark in it is needed.
 */
import { join } from 'node:path'
import { type Clock, pause } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import type { Disk } from '../base/files.ts'
import type { SpoolId } from '../base/ids.ts'
import { MARK_SEGMENTS, SEGMENT_BYTES } from '../base/limits.ts'
import { giveBack } from '../base/memory.ts'
import type { Observer } from '../base/observe.ts'
import {
  paddedLength,
  RECORD_HEADER_BYTES,
  readRecords,
  readSegmentHeader,
  SEGMENT_HEADER_BYTES,
  type StoredRecord,
  youngestGeneration,
} from './records.ts'

/** Part of the disk that bodies leave free (design: mail.md, Accept). */
const DISK_RESERVE = 0.05
/** Segments kept written ahead beyond those for marks. */
const AHEAD_SEGMENTS = 2
/** Free segments kept for the next burst; more go back to the disk, and need no reading at start. */
const FREE_SEGMENTS_MAX = 10
/** So many in use cost nobody anything, however little is in them. */
const SPARSE_SEGMENTS_MIN = 8
/** Blocks are written ahead in pieces this long, with a pause: bursts stall every sync after them. */
const AHEAD_PIECE_BYTES = 1024 * 1024
const AHEAD_PAUSE_MS = 15

/** A segment from the first record in it until it is used again. */
export type Stay = { readonly segment: Segment; readonly generation: number }

/** One segment file. `refs` counts live messages with bytes in it. */
export class Segment {
  readonly path: string
  readonly fd: number
  #generation = 0
  #stays: readonly [Stay] = [{ segment: this, generation: 0 }]
  /** Bytes used, header included. */
  end = SEGMENT_HEADER_BYTES
  refs = 0
  liveBytes = 0
  /** Segments with commits that marks in this one speak of; it may not be reused before them. */
  readonly guards = new Set<Segment>()
  /** Segments whose marks speak of commits in this one. */
  readonly guardedBy = new Set<Segment>()
  /** The same of its generation before, which comes back with the power until the new one is durable. */
  readonly wasGuardedBy = new Set<Segment>()
  dirty = false
  /** A sync of it may be under way: its file stays open. */
  isSyncing = false
  sealed = false

  constructor(path: string, fd: number, generation: number) {
    this.path = path
    this.fd = fd
    this.generation = generation
  }

  get generation(): number {
    return this.#generation
  }

  set generation(generation: number) {
    this.#generation = generation
    this.#stays = [{ segment: this, generation }]
  }

  /** Of the generation of now, alone in a list: one for all messages with one COMMIT in it. */
  get stays(): readonly [Stay] {
    return this.#stays
  }
}

/** Its payload is void once `replay` has returned. */
export type ReplayedRecord = StoredRecord & { readonly segment: Segment }

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

/** What the segments ask of the spool that writes into them. */
export type SegmentUser = {
  /** Records wait for a place. */
  readonly isWaiting: () => boolean
  /** There may be a place for them now, or there will be none. */
  readonly roomChanged: () => void
  readonly failed: (what: string, error: Error) => void
  /** Many segments are in use, with little in them. */
  readonly pressed: () => void
}

export class Segments {
  readonly #options: SpoolOptions
  readonly #user: SegmentUser
  readonly bytes: number
  #all: Segment[] = []
  /** Free and written ahead, oldest first. */
  #free: Segment[] = []
  #fileNumber = 0
  /** The segment that is being made, until it is there or is not. */
  #ahead: Promise<void> | null = null
  #aheadFailed = false
  #triesLater = false
  #space = { freeBytes: Number.MAX_SAFE_INTEGER, totalBytes: Number.MAX_SAFE_INTEGER }
  #spaceReadMs = Number.NEGATIVE_INFINITY
  #collecting = false
  #closed = false

  constructor(options: SpoolOptions, user: SegmentUser) {
    this.#options = options
    this.#user = user
    this.bytes = options.segmentBytes ?? SEGMENT_BYTES
  }

  get all(): readonly Segment[] {
    return this.#all
  }

  get freeCount(): number {
    return this.#free.length
  }

  /** Resolves when nothing of it touches the directory any more: the next one may open it. */
  async close(): Promise<void> {
    this.#closed = true
    await this.#ahead
    for (const segment of this.#all) this.#options.disk.close(segment.fd)
    this.#all = []
  }

  /** The names of all files so far are durable when this resolves. */
  syncNames(): Promise<void> {
    const { disk, dir } = this.#options
    return new Promise((resolve, reject) =>
      disk.syncNames(dir, (error) => (error === null ? resolve() : reject(error))),
    )
  }

  /** A new one at once, when there is no free one: for the start. @throws StoreError */
  async first(): Promise<Segment> {
    try {
      if (this.#free.length === 0) await this.#create(0)
    } catch (cause) {
      throw new StoreError(`the spool cannot write its first segment: ${messageOf(cause)}`, {
        remedy: 'ask-operator',
        cause,
      })
    }
    return this.#free.shift() as Segment
  }

  /**
   * A free one, or null; only marks may take the last ones. `unsynced`: commits that the marks of
   * the free ones speak of are written over, and a power cut could bring them back without these.
   */
  take(isMark: boolean): Segment | 'unsynced' | null {
    if (this.#free.length === 0) this.collect()
    const isThere = this.#free.length > (isMark ? 0 : MARK_SEGMENTS) || this.#isGrowing()
    if (!isThere || this.#free.length === 0) return null
    const at = this.#free.findIndex(({ guards }) => guards.size === 0)
    return this.#free.splice(at, at < 0 ? 0 : 1)[0] ?? 'unsynced'
  }

  /** The one that was written last, or null. */
  lastUsed(): Segment | null {
    let last: Segment | null = null
    for (const segment of this.#all) {
      if (segment.generation > (last?.generation ?? 0)) last = segment
    }
    return last
  }

  /** The disk has room for so many more segments above its reserve. */
  takes(segments: number, reserve = DISK_RESERVE): boolean {
    const { freeBytes, totalBytes } = this.diskSpace()
    return freeBytes - segments * this.bytes > totalBytes * reserve
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

  /** Right after the first start the reserve is still being written; the disk has the room. */
  #isGrowing(): boolean {
    return this.mayGrow() && this.#all.length < MARK_SEGMENTS + AHEAD_SEGMENTS
  }

  /** The disk allows one more segment above its reserve. */
  mayGrow(): boolean {
    return !this.#aheadFailed && this.takes(1)
  }

  collectSoon(): void {
    if (this.#collecting) return
    this.#collecting = true
    this.#options.clock.after(0, () => {
      this.#collecting = false
      if (!this.#closed) this.collect()
    })
  }

  /** Its content of before is gone for good: nobody needs the marks that spoke of it. */
  forgetFormer(segment: Segment): void {
    for (const mark of segment.wasGuardedBy) {
      if (!segment.guardedBy.has(mark)) mark.guards.delete(segment)
    }
    segment.wasGuardedBy.clear()
  }

  /** A sealed segment is free when nothing in it lives and no older commit needs its marks. */
  collect(): void {
    const inFree = new Set(this.#free)
    const sealed = this.#all
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
    if (found && this.#user.isWaiting()) this.#user.roomChanged()
    const inUse = this.#all.length - this.#free.length
    if (inUse <= SPARSE_SEGMENTS_MIN) return
    const liveBytes = this.#all.reduce((sum, segment) => sum + segment.liveBytes, 0)
    const isSparse = liveBytes < (inUse * this.bytes) / 4
    if (isSparse || this.#free.length < MARK_SEGMENTS) this.#user.pressed()
  }

  /** Gives back what a backlog left, the oldest first: no mark goes before its commit. */
  #shrink(): void {
    const most = this.#free.length - FREE_SEGMENTS_MAX
    const inFree = new Set(this.#free)
    // Of commits that are being written over their marks stay until that is durable.
    const busy = this.#free.findIndex(
      ({ isSyncing, guards }) => isSyncing || [...guards].some((commit) => !inFree.has(commit)),
    )
    const spare = this.#free.splice(0, busy < 0 ? most : Math.min(most, busy))
    if (spare.length === 0) return
    const { disk, dir } = this.#options
    for (const segment of spare) {
      disk.close(segment.fd)
      disk.remove(segment.path)
      for (const commit of segment.guards) commit.guardedBy.delete(segment)
    }
    this.#all = this.#all.filter((segment) => !spare.includes(segment))
    // Until their names are gone for good the commits in them may come back: their marks stay.
    disk.syncNames(dir, (error) => {
      if (error !== null) return this.#user.failed('sync', error)
      for (const segment of spare) {
        for (const mark of [...segment.guardedBy, ...segment.wasGuardedBy]) {
          mark.guards.delete(segment)
        }
      }
      if (this.#user.isWaiting()) this.#user.roomChanged()
      this.collectSoon()
    })
  }

  writeAhead(): void {
    if (this.#ahead !== null || this.#aheadFailed) return
    if (this.#closed) return
    if (this.#free.length >= MARK_SEGMENTS + AHEAD_SEGMENTS) return
    // Below the reserve of the disk only the segments for marks are still made.
    const isTight = this.diskSpace().freeBytes < this.bytes * 2
    if (!this.takes(1) && (this.#free.length >= MARK_SEGMENTS || isTight)) {
      this.#tryLater()
      return
    }
    this.#ahead = this.#create(AHEAD_PAUSE_MS).then(
      () => this.#afterAhead(null),
      (error) => this.#afterAhead(messageOf(error)),
    )
  }

  #afterAhead(cause: string | null): void {
    this.#ahead = null
    this.#aheadFailed = cause !== null
    if (this.#closed) return
    if (cause !== null) {
      this.#options.observer.emit('spool.refused', { cause })
      this.#tryLater()
    }
    this.#user.roomChanged()
  }

  /** The disk is full now; somebody may make room. */
  #tryLater(): void {
    if (this.#triesLater) return
    this.#triesLater = true
    this.#options.clock.after(1_000, () => {
      this.#triesLater = false
      this.#aheadFailed = false
      if (this.#closed) return
      // Bodies for which there is no room any more give way to the marks behind them.
      this.#user.roomChanged()
      this.writeAhead()
    })
  }

  /** Writes a new segment full of zeros, in pieces `pauseMs` apart, syncs it, puts it to the free. */
  async #create(pauseMs: number): Promise<void> {
    this.#fileNumber += 1
    const path = join(this.#options.dir, `${String(this.#fileNumber).padStart(8, '0')}.seg`)
    const { disk } = this.#options
    const fd = disk.open(path, 'new')
    try {
      const zeros = Buffer.alloc(Math.min(AHEAD_PIECE_BYTES, this.bytes))
      for (let offset = 0; offset < this.bytes; offset += zeros.length) {
        await new Promise<void>((resolve, reject) => {
          disk.write(fd, [zeros], offset, (error, count) => {
            if (error !== null) reject(error)
            else if (count < zeros.length) reject(new Error('no space left for a segment'))
            else resolve()
          })
        })
        // Urgency may come while we write slowly: then there is no pause any more.
        if (pauseMs > 0 && !this.#user.isWaiting()) {
          await pause(this.#options.clock, pauseMs)
        }
        if (this.#closed) throw new Error('closed while writing ahead')
      }
      await new Promise<void>((resolve, reject) =>
        disk.sync(fd, (error) => (error === null ? resolve() : reject(error))),
      )
      // The name too: a synced file that no directory names is lost with the power.
      await this.syncNames()
    } catch (error) {
      disk.close(fd)
      disk.remove(path)
      throw error
    }
    const segment = new Segment(path, fd, 0)
    segment.sealed = true
    this.#all.push(segment)
    this.#free.push(segment)
  }

  // Reading at start.

  /** Reads the directory; every record that survived goes to `replay`. Gives the youngest generation. */
  read(replay: (record: ReplayedRecord) => void): number {
    const { disk, dir } = this.#options
    const names = disk.list(dir).filter((name) => /^\d{8}\.seg$/.test(name))
    const used: Segment[] = []
    for (const name of names.sort()) {
      this.#fileNumber = Math.max(this.#fileNumber, Number(name.slice(0, 8)))
      const path = join(dir, name)
      const header = disk.load(path, Buffer.alloc(SEGMENT_HEADER_BYTES))
      const segment = new Segment(path, disk.open(path, 'old'), this.#generationOf(path, header))
      this.#all.push(segment)
      if (segment.generation > 0) used.push(segment)
      else this.#fillUp(segment)
    }
    used.sort((a, b) => a.generation - b.generation)
    // One after the other in the same room: left to the collector they fill the memory.
    const room = this.#roomFor(used)
    for (const segment of used) this.#readSegment(segment, room, replay)
    giveBack(room)
    return used.at(-1)?.generation ?? 0
  }

  /** For all of any of them. */
  #roomFor(segments: readonly Segment[]): Buffer {
    const sizes = segments.map(({ path }) => this.#options.disk.size(path))
    return Buffer.allocUnsafeSlow(Math.max(0, ...sizes))
  }

  /** A segment whose writing ahead was cut off gets its blocks now, else its first syncs are slow. */
  #fillUp(segment: Segment): void {
    const { disk } = this.#options
    const size = disk.size(segment.path)
    if (size >= this.bytes) return
    disk.writeNow(segment.fd, Buffer.alloc(this.bytes - size), size)
    segment.dirty = false
  }

  /** Of a segment that was used, or 0. A damaged header does not take its records with it. */
  #generationOf(path: string, header: Buffer): number {
    const { disk, observer } = this.#options
    const said = readSegmentHeader(header)
    if (said === 'blank') return 0
    if (said === 'newer') {
      throw new StoreError(`${path} was written by a newer version`, { remedy: 'ask-operator' })
    }
    if (said !== 'damaged') return said.generation
    observer.emit('spool.corrupted', { segment: path, offset: 0, bytes: header.length })
    return youngestGeneration(disk.load(path, Buffer.allocUnsafeSlow(disk.size(path))))
  }

  #readSegment(segment: Segment, room: Buffer, replay: (record: ReplayedRecord) => void): void {
    const data = this.#options.disk.load(segment.path, room)
    for (const found of readRecords(data, segment.generation)) {
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

/**
 * The spool's disk of a simulated machine: files in memory, whose writes and syncs end when the
 * simulated clock says so. It knows what is durable: a power cut undoes any suffix of what was not
 * synced, file by file, and tears the last record that stays; sometimes it keeps any part of it,
 * as a page cache does. It also reads along which records are on the platter.
 */
import type { Disk, DiskSpace } from '../../src/base/files.ts'
import type { MessageId } from '../../src/base/ids.ts'
import { paddedLength, RECORD, RECORD_HEADER_BYTES } from '../../src/store/records.ts'
import type { Dice } from './dice.ts'
import type { SimProcess, World } from './world.ts'

/** Smaller than the product's, so that segments fill, move and are used again. */
export const SIM_SEGMENT_BYTES = 128 * 1024
export const SPOOL_DIR = 'spool'
const TOTAL_BYTES = 1_000_000_000
const RECORD_MAGIC = 0x43455250
/** Behind the payload of a record. */
const END_BYTES = 4
const BODY_TYPES: ReadonlySet<number> = new Set([RECORD.accept, RECORD.copy])

/** How long the disk takes, ms; `stalls`: part of the syncs that take a hundred times as long. */
export type Pace = { readonly writeMs: number; readonly syncMs: number; readonly stalls: number }

export const QUICK: Pace = { writeMs: 0.05, syncMs: 0.5, stalls: 0 }

/** A record as it went to the disk; `text`: its payload, but for bodies. */
export type SeenRecord = {
  readonly type: number
  readonly mid: MessageId
  readonly index: number
  readonly text: string
}

/** One write that the kernel has taken and no sync has covered. */
type Unsynced = {
  readonly position: number
  readonly before: Buffer
  readonly after: Buffer
  readonly records: readonly SeenRecord[]
}

class SimFile {
  bytes: Buffer = Buffer.alloc(0)
  unsynced: Unsynced[] = []

  write(after: Uint8Array, position: number): void {
    const end = position + after.length
    if (end > this.bytes.length) {
      this.bytes = Buffer.concat([this.bytes, Buffer.alloc(end - this.bytes.length)])
    }
    this.bytes.set(after, position)
  }

  undo({ position, before, after }: Unsynced): void {
    this.bytes.set(before, position)
    if (before.length < after.length) this.bytes = this.bytes.subarray(0, position + before.length)
  }
}

type Writing = {
  readonly file: SimFile
  readonly buffers: readonly Buffer[]
  readonly position: number
}

export type SpoolImage = {
  readonly files: ReadonlyMap<string, Buffer>
  readonly durable: ReadonlyMap<MessageId, readonly SeenRecord[]>
}

export class SpoolDisk {
  readonly #world: World
  readonly #dice: Dice
  #files = new Map<string, SimFile>()
  /** The names that survive a power cut. */
  #named = new Map<string, SimFile>()
  #namings = 0
  #lastNaming = 0
  readonly #open = new Map<number, SimFile>()
  #fd = 2
  #writing: Writing[] = []
  #durable = new Map<MessageId, SeenRecord[]>()
  readonly #seen = new Set<MessageId>()
  /** Called with each record that reaches a file, durable or not. */
  onRecord: ((record: SeenRecord) => void) | null = null
  pace: Pace = QUICK
  /** Nothing grows any more; what is written ahead can still be written over. */
  isFull = false
  /** Part of the disk that is free, 0..1. */
  free = 0.5
  /** So many of the next syncs fail. */
  failingSyncs = 0
  /** Any part of what was not synced may survive a power cut, not only the beginning. */
  isScattered = false
  /** A sync says that it is done and does nothing. */
  isLying = false

  constructor(world: World, dice: Dice) {
    this.#world = world
    this.#dice = dice
  }

  /** What of a message is on the platter. */
  durable(mid: MessageId): readonly SeenRecord[] {
    return this.#durable.get(mid) ?? []
  }

  has(mid: MessageId, type: number): boolean {
    return this.durable(mid).some((record) => record.type === type)
  }

  /** A record of the message has been written here, at any time. */
  seen(mid: MessageId): boolean {
    return this.#seen.has(mid)
  }

  space(): DiskSpace {
    return { freeBytes: this.isFull ? 0 : TOTAL_BYTES * this.free, totalBytes: TOTAL_BYTES }
  }

  /** As one process sees it; what it is told ends with it. */
  open(process: SimProcess): Disk {
    return {
      write: (fd, buffers, position, done) => {
        // What it had put off to the end of the turn in which it died.
        if (!process.isAlive) return
        const writing = { file: this.#file(fd), buffers, position }
        this.#writing.push(writing)
        const ms = this.#dice.exponential(this.pace.writeMs)
        this.#world.after(ms, () => this.#written(writing, done), process)
      },
      sync: (fd, done) => this.#sync(process, this.#file(fd), done),
      read: (path, offset, length) =>
        new Promise((resolve, reject) => {
          const ms = this.#dice.exponential(this.pace.writeMs)
          this.#world.after(
            ms,
            () => {
              const file = this.#files.get(path)
              if (file === undefined) reject(notThere(path))
              else resolve(Uint8Array.from(file.bytes.subarray(offset, offset + length)))
            },
            process,
          )
        }),
      syncNames: (_, done) => {
        const names = new Map(this.#files)
        this.#namings += 1
        const naming = this.#namings
        this.#world.after(
          this.#syncMs(),
          () => {
            // One that was asked for before and ends later takes nothing back.
            if (naming > this.#lastNaming) {
              this.#named = names
              this.#lastNaming = naming
            }
            done(null)
          },
          process,
        )
      },
      list: () => [...this.#files.keys()].map((path) => path.slice(SPOOL_DIR.length + 1)),
      open: (path, how) => this.#openFile(path, how),
      close: (fd) => this.#open.delete(fd),
      load: (path, room) => room.subarray(0, this.#there(path).bytes.copy(room)),
      size: (path) => this.#there(path).bytes.length,
      writeNow: (fd, bytes, position) => {
        this.#apply({ file: this.#file(fd), buffers: [Buffer.from(bytes)], position }, false)
      },
      remove: (path) => {
        this.#there(path)
        this.#files.delete(path)
      },
    }
  }

  /** What a reader of the machine finds there now. */
  peek(path: string, offset: number, length: number): Buffer {
    return Buffer.from(this.#there(path).bytes.subarray(offset, offset + length))
  }

  /** The process is gone; with `power` the whole machine. */
  crash(power: boolean): void {
    for (const writing of this.#writing) {
      if (this.#dice.chance(0.5)) this.#apply(writing, this.#dice.chance(0.5))
    }
    this.#writing = []
    this.#open.clear()
    if (power) this.#loseUnsynced()
  }

  image(): SpoolImage {
    const durable = new Map([...this.#durable].map(([mid, records]) => [mid, [...records]]))
    // What was in the cache is in the image as well.
    for (const { unsynced } of this.#files.values()) {
      for (const { records } of unsynced) keepIn(durable, records)
    }
    return {
      files: new Map([...this.#files].map(([path, { bytes }]) => [path, Buffer.from(bytes)])),
      durable,
    }
  }

  /** The process must have ended. */
  restore({ files, durable }: SpoolImage): void {
    this.wipe()
    for (const [path, bytes] of files) {
      const file = new SimFile()
      file.bytes = Buffer.from(bytes)
      this.#files.set(path, file)
    }
    this.#named = new Map(this.#files)
    this.#durable = new Map([...durable].map(([mid, records]) => [mid, [...records]]))
  }

  /** The process must have ended. */
  wipe(): void {
    this.#files.clear()
    this.#named.clear()
    this.#durable.clear()
  }

  /**
   * `length` bytes are not what was written, behind `part` (0..1) of what is used of the segments.
   * Gives the messages whose records, or some of them, were hit.
   */
  damage(part: number, length: number): ReadonlySet<MessageId> {
    const hit = new Set<MessageId>()
    for (const file of this.#files.values()) {
      const end = file.bytes.findLastIndex((octet) => octet !== 0) + 1
      if (end <= 64) continue
      const from = 64 + Math.floor((end - 64) * part)
      for (const { at, mid } of placesIn(file.bytes)) {
        if (at.start < from + length && at.end > from) hit.add(mid)
      }
      for (let byte = from; byte < Math.min(end, from + length); byte += 1) {
        file.bytes[byte] = (file.bytes[byte] ?? 0) ^ 0x5a
      }
    }
    return hit
  }

  #written(writing: Writing, done: (error: Error | null, count: number) => void): void {
    this.#writing.splice(this.#writing.indexOf(writing), 1)
    const { file, buffers, position } = writing
    const total = buffers.reduce((sum, { length }) => sum + length, 0)
    if (this.isFull && position + total > file.bytes.length) return done(coded('ENOSPC'), 0)
    this.#apply(writing, false)
    done(null, total)
  }

  #sync(process: SimProcess, file: SimFile, done: (error: Error | null) => void): void {
    const covered = new Set(file.unsynced)
    this.#world.after(
      this.#syncMs(),
      () => {
        if (this.failingSyncs > 0) {
          this.failingSyncs -= 1
          return done(coded('EIO'))
        }
        if (!this.isLying) {
          file.unsynced = file.unsynced.filter((write) => !covered.has(write))
          for (const { records } of covered) keepIn(this.#durable, records)
        }
        done(null)
      },
      process,
    )
  }

  #syncMs(): number {
    const { syncMs, stalls } = this.pace
    const isStalled = stalls > 0 && this.#dice.chance(stalls)
    return this.#dice.exponential(syncMs) * (isStalled ? 100 : 1)
  }

  /** `isTorn`: the process was killed in the middle of it. */
  #apply({ file, position, buffers }: Writing, isTorn: boolean): void {
    const whole = Buffer.concat(buffers)
    const after = isTorn ? whole.subarray(0, this.#dice.below(whole.length + 1)) : whole
    const before = Buffer.from(file.bytes.subarray(position, position + after.length))
    file.write(after, position)
    const records = recordsIn(after)
    file.unsynced.push({ position, before, after, records })
    for (const record of records) {
      this.#seen.add(record.mid)
      this.onRecord?.(record)
    }
  }

  #loseUnsynced(): void {
    for (const [path, file] of this.#files) {
      if (!this.#named.has(path) && this.#dice.chance(0.5)) this.#files.delete(path)
      else this.#lose(file)
    }
    for (const [path, file] of this.#named) {
      if (this.#files.has(path) || this.#dice.chance(0.5)) continue
      this.#files.set(path, file)
      this.#lose(file)
    }
    this.#named = new Map(this.#files)
  }

  /** Undoes all of it, then lets some of it have reached the platter. */
  #lose(file: SimFile): void {
    const writes = file.unsynced
    if (writes.length === 0) return
    file.unsynced = []
    for (const write of writes.toReversed()) file.undo(write)
    const kept = this.isScattered
      ? writes.filter(() => this.#dice.chance(0.5))
      : writes.slice(0, this.#dice.below(writes.length + 1))
    // Often there is but one.
    const torn = this.#dice.chance(0.7) ? kept.at(-1) : undefined
    for (const write of kept) {
      const { after, position, records } = write
      const length = write === torn ? this.#dice.below(after.length) : after.length
      file.write(after.subarray(0, length), position)
      if (write === torn && records.length > 0) this.#world.sometimes('torn record dropped')
      keepIn(this.#durable, write === torn ? recordsIn(after.subarray(0, length)) : records)
    }
    if (kept.length < writes.length) this.#world.sometimes('unsynced write lost')
  }

  #openFile(path: string, how: 'old' | 'new'): number {
    if (how === 'new') {
      if (this.#files.has(path)) throw coded('EEXIST')
      if (this.isFull) throw coded('ENOSPC')
      this.#files.set(path, new SimFile())
    }
    this.#fd += 1
    this.#open.set(this.#fd, this.#there(path))
    return this.#fd
  }

  #file(fd: number): SimFile {
    const file = this.#open.get(fd)
    if (file === undefined) throw coded('EBADF')
    return file
  }

  #there(path: string): SimFile {
    const file = this.#files.get(path)
    if (file === undefined) throw notThere(path)
    return file
  }
}

function keepIn(durable: Map<MessageId, SeenRecord[]>, records: readonly SeenRecord[]): void {
  for (const record of records) {
    const known = durable.get(record.mid)
    if (known === undefined) durable.set(record.mid, [record])
    else known.push(record)
  }
}

function notThere(path: string): Error {
  return Object.assign(new Error(`ENOENT: ${path}`), { code: 'ENOENT' })
}

function coded(code: string): Error {
  return Object.assign(new Error(code), { code })
}

/** The whole records in a stretch of a segment that begins with one, or with the segment's header. */
function recordsIn(bytes: Buffer): readonly SeenRecord[] {
  return placesIn(bytes).flatMap(({ at, type, mid, index }) => {
    // What may be missing behind it are zeros, which are there already.
    if (at.payloadEnd + END_BYTES > bytes.length) return []
    const isBody = BODY_TYPES.has(type)
    const text = isBody ? '' : bytes.toString('utf8', at.start + RECORD_HEADER_BYTES, at.payloadEnd)
    return { type, mid, index, text }
  })
}

type Place = {
  readonly at: { readonly start: number; readonly payloadEnd: number; readonly end: number }
  readonly type: number
  readonly mid: MessageId
  readonly index: number
}

function placesIn(bytes: Buffer): readonly Place[] {
  const places: Place[] = []
  let start = 0
  while (start + RECORD_HEADER_BYTES <= bytes.length) {
    if (bytes.readUInt32LE(start) !== RECORD_MAGIC) {
      if (start >= 64) break
      start += 8
      continue
    }
    const length = bytes.readUInt32LE(start + 8)
    const payloadEnd = start + RECORD_HEADER_BYTES + length
    const end = start + paddedLength(length)
    places.push({
      at: { start, payloadEnd, end },
      type: bytes.readUInt32LE(start + 4) & 0xff,
      mid: bytes.toString('latin1', start + 20, start + 46) as MessageId,
      index: bytes.readUInt32LE(start + 12),
    })
    start = end
  }
  return places
}

/**
 * How many files a 7z archive lists, before 7-Zip reads the list: it would make room for all of
 * them first. The format is that of 7zFormat.txt in the source of 7-Zip.
 */

import type { Seven } from './seven.ts'

export type SevenList =
  /** A list that is not packed, or none: its files. */
  | { readonly kind: 'files'; readonly count: number }
  /** The list itself is packed: as a file of the kind `lzma`. */
  | { readonly kind: 'packed'; readonly lzma: Buffer; readonly sizeBytes: number }
  /** Packed in another way, or encrypted: nobody counts it. */
  | { readonly kind: 'closed'; readonly encrypted: boolean; readonly sizeBytes: number }
  /** Not to be followed; 7-Zip tells why. */
  | { readonly kind: 'damaged' }

const START_BYTES = 32
const HEADER = 0x01
const ARCHIVE_PROPERTIES = 0x02
const MORE_STREAMS = 0x03
const MAIN_STREAMS = 0x04
const FILES = 0x05
const PACKED = 0x06
const CODERS = 0x07
const SUBSTREAMS = 0x08
const SIZES = 0x09
const SUMS = 0x0a
const FOLDERS = 0x0b
const UNPACKED_SIZES = 0x0c
const COUNTS = 0x0d
const PACKED_HEADER = 0x17

const LZMA = '030101'
const AES = '06f10701'

/** A list up to this size is short, however little each file takes; one above LIST_BYTES_MAX is of no honest archive. */
const LIST_BYTES_MIN = 64 * 1024
const LIST_BYTES_MAX = 4 * 1024 * 1024
/** An encrypted list cannot be counted. */
const LOCKED_LIST_BYTES_MAX = 1024 * 1024

/**
 * Files that the archive `bytes` lists. Null: they cannot be counted, and the list is short or
 * damaged. `endless`: it is too long to be read uncounted.
 */
export async function filesInSeven(
  seven: Seven,
  bytes: Buffer,
): Promise<number | 'endless' | null> {
  let list = listOfSeven(bytes)
  if (list.kind === 'packed' && list.sizeBytes > LIST_BYTES_MIN && list.sizeBytes <= LIST_BYTES_MAX)
    list = listIn(await unpacked(seven, list.lzma), bytes)
  if (list.kind === 'files') return list.count
  if (list.kind === 'damaged') return null
  const bytesMax = list.kind === 'closed' && list.encrypted ? LOCKED_LIST_BYTES_MAX : LIST_BYTES_MIN
  return list.sizeBytes <= bytesMax ? null : 'endless'
}

/** At most LIST_BYTES_MAX and a piece of what `lzma` holds. */
async function unpacked(seven: Seven, lzma: Buffer): Promise<Buffer> {
  const pieces: Buffer[] = []
  let length = 0
  await seven.extract(lzma, 'lzma', null, () => ({
    take: (piece) => {
      pieces.push(Buffer.from(piece))
      length += piece.length
      return length <= LIST_BYTES_MAX
    },
    end: () => {},
  }))
  return Buffer.concat(pieces)
}

/** The list of the archive `bytes`. Never throws. */
export function listOfSeven(bytes: Buffer): SevenList {
  if (bytes.length < START_BYTES) return { kind: 'damaged' }
  const at = START_BYTES + Number(bytes.readBigUInt64LE(12))
  const size = Number(bytes.readBigUInt64LE(20))
  if (size === 0) return { kind: 'files', count: 0 }
  return at + size > bytes.length
    ? { kind: 'damaged' }
    : listIn(bytes.subarray(at, at + size), bytes)
}

/** The list `header`, which may lie packed in the archive `bytes`. Never throws. */
function listIn(header: Buffer, bytes: Buffer): SevenList {
  const cursor = new Cursor(header)
  try {
    const kind = cursor.byte()
    if (kind === HEADER) return { kind: 'files', count: filesOf(cursor) }
    if (kind === PACKED_HEADER) return packedIn(streamsOf(cursor), bytes)
  } catch (error) {
    if (!(error instanceof RangeError)) throw error
  }
  return { kind: 'damaged' }
}

function packedIn({ packedAt, packedSizes, folders }: Streams, bytes: Buffer): SevenList {
  const [folder] = folders
  const [packedBytes] = packedSizes
  if (folder === undefined || packedBytes === undefined) return { kind: 'damaged' }
  const sizeBytes = Math.max(...folder.sizes)
  const [coder] = folder.coders
  const from = START_BYTES + packedAt
  if (folder.coders.length === 1 && coder?.id === LZMA && coder.properties.length === 5) {
    const size = Buffer.alloc(8)
    size.writeBigUInt64LE(BigInt(sizeBytes))
    const lzma = Buffer.concat([coder.properties, size, bytes.subarray(from, from + packedBytes)])
    return { kind: 'packed', lzma, sizeBytes }
  }
  return { kind: 'closed', encrypted: folder.coders.some(({ id }) => id === AES), sizeBytes }
}

function filesOf(cursor: Cursor): number {
  for (;;) {
    const kind = cursor.byte()
    if (kind === FILES) return cursor.number()
    if (kind === ARCHIVE_PROPERTIES) while (cursor.byte() !== 0) cursor.skip(cursor.number())
    else if (kind === MORE_STREAMS || kind === MAIN_STREAMS) streamsOf(cursor)
    // No files at all.
    else return 0
  }
}

type Coder = { readonly id: string; readonly properties: Buffer }
type Folder = { readonly coders: readonly Coder[]; sizes: readonly number[]; summed: boolean }
type Streams = {
  readonly packedAt: number
  readonly packedSizes: readonly number[]
  readonly folders: readonly Folder[]
}

function streamsOf(cursor: Cursor): Streams {
  let packedAt = 0
  let packedSizes: readonly number[] = []
  let folders: readonly Folder[] = []
  for (let kind = cursor.byte(); kind !== 0; kind = cursor.byte()) {
    if (kind === PACKED) {
      packedAt = cursor.number()
      const count = cursor.number()
      for (let inner = cursor.byte(); inner !== 0; inner = cursor.byte()) {
        if (inner === SIZES) packedSizes = cursor.list(count, () => cursor.number())
        else if (inner === SUMS) cursor.sums(count)
        else throw new RangeError('an unknown property')
      }
    } else if (kind === CODERS) folders = foldersOf(cursor)
    else if (kind === SUBSTREAMS) skipSubstreams(cursor, folders)
    else throw new RangeError('an unknown property')
  }
  return { packedAt, packedSizes, folders }
}

function foldersOf(cursor: Cursor): readonly Folder[] {
  let folders: readonly Folder[] = []
  let outs: readonly number[] = []
  for (let kind = cursor.byte(); kind !== 0; kind = cursor.byte()) {
    if (kind === FOLDERS) {
      const count = cursor.number()
      // Kept elsewhere: 7-Zip has not written that for twenty years.
      if (cursor.byte() !== 0) throw new RangeError('coders are elsewhere')
      const read = cursor.list(count, () => folderOf(cursor))
      folders = read.map(({ folder }) => folder)
      outs = read.map((each) => each.outs)
    } else if (kind === UNPACKED_SIZES) {
      for (const [index, folder] of folders.entries())
        folder.sizes = cursor.list(outs[index] ?? 0, () => cursor.number())
    } else if (kind === SUMS) {
      const summed = cursor.sums(folders.length)
      for (const [index, folder] of folders.entries()) folder.summed = summed[index] ?? false
    } else throw new RangeError('an unknown property')
  }
  return folders
}

function folderOf(cursor: Cursor): { readonly folder: Folder; readonly outs: number } {
  let ins = 0
  let outs = 0
  const coders = cursor.list(cursor.number(), () => {
    const flags = cursor.byte()
    const id = cursor.bytes(flags & 15).toString('hex')
    const complex = (flags & 0x10) !== 0
    ins += complex ? cursor.number() : 1
    outs += complex ? cursor.number() : 1
    const properties = (flags & 0x20) === 0 ? Buffer.of() : cursor.bytes(cursor.number())
    return { id, properties }
  })
  const pairs = Math.max(0, outs - 1)
  cursor.list(pairs * 2, () => cursor.number())
  if (ins - pairs > 1) cursor.list(ins - pairs, () => cursor.number())
  return { folder: { coders, sizes: [], summed: false }, outs }
}

function skipSubstreams(cursor: Cursor, folders: readonly Folder[]): void {
  let counts: readonly number[] = folders.map(() => 1)
  for (let kind = cursor.byte(); kind !== 0; kind = cursor.byte()) {
    if (kind === COUNTS) counts = cursor.list(folders.length, () => cursor.number())
    else if (kind === SIZES)
      for (const count of counts) for (let more = 1; more < count; more += 1) cursor.number()
    else if (kind === SUMS)
      cursor.sums(
        counts.reduce(
          (sum, count, index) => sum + (count === 1 && folders[index]?.summed === true ? 0 : count),
          0,
        ),
      )
    else throw new RangeError('an unknown property')
  }
}

/** Reads forward. @throws RangeError at the end */
class Cursor {
  readonly #bytes: Buffer
  #at = 0

  constructor(bytes: Buffer) {
    this.#bytes = bytes
  }

  byte(): number {
    const byte = this.#bytes[this.#at]
    if (byte === undefined) throw new RangeError('the end')
    this.#at += 1
    return byte
  }

  bytes(count: number): Buffer {
    const from = this.#at
    this.skip(count)
    return this.#bytes.subarray(from, this.#at)
  }

  skip(count: number): void {
    if (!(count <= this.#bytes.length - this.#at)) throw new RangeError('the end')
    this.#at += count
  }

  /** The leading ones of the first byte say how many more follow, the lowest first. */
  number(): number {
    const first = this.byte()
    let value = 0
    let scale = 1
    let mask = 0x80
    for (; mask > 0 && (first & mask) !== 0; mask >>= 1) {
      value += this.byte() * scale
      scale *= 256
    }
    return value + (first & (mask - 1)) * (mask === 0 ? 0 : scale)
  }

  /** Each element takes a byte at least. */
  list<Element>(count: number, read: () => Element): readonly Element[] {
    if (!(count <= this.#bytes.length - this.#at)) throw new RangeError('the end')
    const list: Element[] = []
    for (let index = 0; index < count; index += 1) list.push(read())
    return list
  }

  /** Checksums of those of `count` streams that have one; which those are. */
  sums(count: number): readonly boolean[] {
    if (!(count <= this.#bytes.length)) throw new RangeError('the end')
    const bits = this.byte() === 0 ? this.bytes(Math.ceil(count / 8)) : null
    const summed: boolean[] = []
    for (let index = 0; index < count; index += 1)
      summed.push(bits === null || ((bits[index >> 3] ?? 0) & (0x80 >> (index & 7))) !== 0)
    this.skip(4 * summed.filter((each) => each).length)
    return summed
  }
}

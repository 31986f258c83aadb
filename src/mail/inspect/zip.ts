/**
 * Zip archives, read as their hostile makers hope nobody does: by the directory and by the local
 * headers, entries that only one of them shows included. Content comes in pieces, within a budget.
 */
import { crc32, inflateRawSync } from 'node:zlib'
import { Inflate } from 'fflate'

export type ZipEntry = {
  /** Every name that some reader would show: of the directory and of the local header. */
  readonly names: readonly string[]
  readonly encrypted: boolean
  readonly method: number
  /** Hour and minute as MS-DOS writes them: of old encryption, a check of the password. */
  readonly time: number
  /** Strength of WinZip's AES: 1 for 128 bits, 2 for 192, 3 for 256; 0 for none. */
  readonly aes: number
  /** Range of the packed content in the archive. */
  readonly start: number
  readonly end: number
  /** Of the directory; null when only the local header is there and defers it. */
  readonly crc: number | null
  /** Unpacked size as it is written; it may lie. */
  readonly sizeHint: number
  /** The packed size is not known: it ends where the deflate stream does. */
  readonly open: boolean
}

export type Zip = {
  readonly entries: readonly ZipEntry[]
  /** Two entries share packed bytes: how small files become petabytes. */
  readonly overlap: boolean
  /** More entries than were asked for. */
  readonly more: boolean
  /** Where it contradicts itself and all of it was read all the same, whole sentences. */
  readonly broken: readonly string[]
  /** What is not there to be read, whole sentences. */
  readonly lost: readonly string[]
}

/** The content of an entry cannot be had: damaged, or packed by a method that is not read. */
export class ZipError extends Error {
  override name = 'ZipError'
}

const LOCAL = Buffer.from('PK\x03\x04', 'latin1')
const LOCAL_WORD = 0x0403_4b50
const DIRECTORY = 0x0201_4b50
const END = Buffer.from('PK\x05\x06', 'latin1')
const END64_LOCATOR = 0x0706_4b50
const END64 = 0x0606_4b50
/** The end record is 22 bytes, with a comment of at most 65,535 behind it. */
const END_BYTES = 22
const END_SEARCH_BYTES = END_BYTES + 65_535
const LOCAL_BYTES = 30
const DIRECTORY_BYTES = 46
/** General purpose flags: encrypted, sizes follow the data, strongly encrypted. */
const ENCRYPTED = 0x41
const DEFERRED = 0x08
/** Method of an entry that is not packed at all. */
export const STORED = 0
export const DEFLATED = 8

/** Lists at most `entriesMax` entries. Never throws. */
export function readZip(bytes: Buffer, entriesMax: number): Zip {
  const broken: string[] = []
  const lost: string[] = []
  const entries: ZipEntry[] = []
  const locals = new Set<number>()
  const directory = findDirectory(bytes)
  let more = false
  if (directory?.volume) lost.push('It is one piece of an archive that comes in several.')
  if (directory === null) broken.push('The archive has no directory.')
  else {
    let at = directory.start
    while (at + DIRECTORY_BYTES <= bytes.length && bytes.readUInt32LE(at) === DIRECTORY) {
      if (entries.length >= entriesMax) {
        more = true
        break
      }
      const local = bytes.readUInt32LE(at + 42) + directory.shift
      const entry = entryOf(bytes, at, local)
      locals.add(local)
      if (entry === null) lost.push('An entry of the directory leads nowhere.')
      else entries.push(entry)
      at +=
        DIRECTORY_BYTES +
        bytes.readUInt16LE(at + 28) +
        bytes.readUInt16LE(at + 30) +
        bytes.readUInt16LE(at + 32)
    }
    if (!more && directory.count !== locals.size && directory.count !== entries.length) {
      broken.push('The directory of the archive has another number of entries than it says.')
    }
  }
  const ranges = entries.map(({ start, end }) => ({ start, end })).sort((a, b) => a.start - b.start)
  const overlap = ranges.some((range, index) => range.start < (ranges[index - 1]?.end ?? 0))
  for (const found of hiddenEntries(bytes, locals, ranges, entriesMax - entries.length)) {
    if (found === null) more = true
    else {
      entries.push(found)
      if (directory !== null)
        broken.push('The archive holds an entry that its directory does not name.')
    }
  }
  return { entries, overlap, more, broken: [...new Set(broken)], lost: [...new Set(lost)] }
}

/**
 * Unpacks an entry piece by piece; `take` returns false when it has seen enough. At most
 * `bytesMax` bytes go in or come out; returns what it took of them, one more when there is more.
 * @throws ZipError when it is damaged or packed by an unknown method
 */
export function unpack(
  bytes: Buffer,
  entry: ZipEntry,
  bytesMax: number,
  take: (piece: Buffer) => boolean,
): number {
  if (entry.method !== STORED && entry.method !== DEFLATED) {
    throw new ZipError(`An entry is packed by the method ${entry.method}, which is not read.`)
  }
  // Packed bytes count like unpacked ones: empty blocks cost time and give nothing.
  const packed = bytes.subarray(entry.start, Math.min(entry.end, entry.start + bytesMax + 1))
  let size = 0
  let crc = 0
  let going = true
  const give = (piece: Uint8Array): void => {
    if (!going || piece.length === 0) return
    size += piece.length
    crc = crc32(piece, crc)
    if (size > bytesMax) going = false
    else going = take(Buffer.from(piece.buffer, piece.byteOffset, piece.byteLength))
  }
  if (entry.method === STORED) {
    for (let at = 0; at < packed.length && going; at += PIECE_BYTES)
      give(packed.subarray(at, at + PIECE_BYTES))
  } else {
    const quick = entry.open ? null : inflateWhole(packed, Math.min(bytesMax, QUICK_BYTES))
    if (quick === null) inflate(packed, entry.open, give, () => going)
    else give(quick)
  }
  if (size > bytesMax || (going && packed.length > bytesMax)) return bytesMax + 1
  if (going && entry.crc !== null && entry.crc !== crc)
    throw new ZipError('An entry fails its checksum.')
  return going ? Math.max(size, packed.length) : size
}

const PIECE_BYTES = 1024 * 1024
/** Packed bytes at a time: 16 KB become at most 17 MB before the budget is asked again. */
const PACKED_BYTES = 16 * 1024
/** The first piece is small: who looks only at the head pays only for it. */
const PACKED_BYTES_FIRST = 2 * 1024

/** What unpacks to no more than this goes through the decoder of the runtime, in one call. */
const QUICK_BYTES = 4 * 1024 * 1024

/** Null: it is larger, or damaged, which the other way tells. */
function inflateWhole(packed: Buffer, bytesMax: number): Buffer | null {
  if (packed.length > QUICK_BYTES) return null
  try {
    return inflateRawSync(packed, { maxOutputLength: bytesMax })
  } catch {
    return null
  }
}

function inflate(
  packed: Buffer,
  open: boolean,
  give: (piece: Uint8Array) => void,
  going: () => boolean,
): void {
  const stream = new Inflate((piece) => give(piece))
  try {
    let step = PACKED_BYTES_FIRST
    for (let at = 0; at < packed.length && going(); step = PACKED_BYTES) {
      const end = Math.min(at + step, packed.length)
      stream.push(packed.subarray(at, end), end === packed.length)
      at = end
    }
  } catch (error) {
    // What lies behind the end of an open stream is the next entry, not damage.
    if (!open) throw new ZipError('An entry is damaged.', { cause: error })
  }
}

type Directory = {
  readonly start: number
  readonly count: number
  readonly shift: number
  readonly volume: boolean
}

function findDirectory(bytes: Buffer): Directory | null {
  const from = Math.max(0, bytes.length - END_SEARCH_BYTES)
  const found = bytes.subarray(from).lastIndexOf(END)
  if (found === -1 || from + found + END_BYTES > bytes.length) return null
  const end = from + found
  let count = bytes.readUInt16LE(end + 10)
  let size = bytes.readUInt32LE(end + 12)
  let start = bytes.readUInt32LE(end + 16)
  let last = end
  if (end >= 20 && bytes.readUInt32LE(end - 20) === END64_LOCATOR) {
    const at = Number(bytes.readBigUInt64LE(end - 12))
    if (at + 56 <= bytes.length && bytes.readUInt32LE(at) === END64) {
      count = Number(bytes.readBigUInt64LE(at + 32))
      size = Number(bytes.readBigUInt64LE(at + 40))
      start = Number(bytes.readBigUInt64LE(at + 48))
      last = at
    }
  }
  // Bytes before the archive (a program that unpacks itself) shift every offset in it.
  const shift = Math.max(0, last - size - start)
  const disk = bytes.readUInt16LE(end + 4)
  const volume = disk !== 0 && disk !== 0xffff
  return start + shift > bytes.length ? null : { start: start + shift, count, shift, volume }
}

function entryOf(bytes: Buffer, at: number, local: number): ZipEntry | null {
  const nameEnd = at + DIRECTORY_BYTES + bytes.readUInt16LE(at + 28)
  const inside = readLocal(bytes, local)
  if (inside === null) return null
  const size = packedSize(bytes, at, nameEnd)
  const flags = bytes.readUInt16LE(at + 8) | inside.flags
  const names = new Set([nameOf(bytes, at + DIRECTORY_BYTES, nameEnd), inside.name])
  return {
    names: [...names],
    encrypted: (flags & ENCRYPTED) !== 0,
    method: bytes.readUInt16LE(at + 10),
    time: bytes.readUInt16LE(at + 12),
    aes: aesStrength(bytes, nameEnd, nameEnd + bytes.readUInt16LE(at + 30)),
    start: inside.start,
    end: Math.min(bytes.length, inside.start + size),
    crc: bytes.readUInt32LE(at + 16),
    sizeHint: bytes.readUInt32LE(at + 24),
    open: false,
  }
}

/** Extra field 0x9901 of WinZip: its fifth byte is the strength. */
function aesStrength(bytes: Buffer, from: number, to: number): number {
  const end = Math.min(bytes.length, to)
  for (let field = from; field + 4 <= end; field += 4 + bytes.readUInt16LE(field + 2)) {
    if (bytes.readUInt16LE(field) !== 0x9901 || field + 9 > end) continue
    const strength = bytes[field + 8] ?? 0
    return strength <= 3 ? strength : 0
  }
  return 0
}

/** Of the directory; sizes of 4 GB and above, or of careful writers, lie in the extra field 1. */
function packedSize(bytes: Buffer, at: number, extraAt: number): number {
  const size = bytes.readUInt32LE(at + 20)
  if (size !== 0xffff_ffff) return size
  const end = Math.min(bytes.length, extraAt + bytes.readUInt16LE(at + 30))
  for (let field = extraAt; field + 4 <= end; field += 4 + bytes.readUInt16LE(field + 2)) {
    if (bytes.readUInt16LE(field) !== 1) continue
    // The unpacked size stands first when it is long too.
    const place = field + 4 + (bytes.readUInt32LE(at + 24) === 0xffff_ffff ? 8 : 0)
    if (place + 8 <= end) return Number(bytes.readBigUInt64LE(place))
  }
  return size
}

type Local = {
  readonly name: string
  readonly flags: number
  readonly method: number
  readonly time: number
  readonly size: number
  readonly extraAt: number
  readonly start: number
}

function readLocal(bytes: Buffer, at: number): Local | null {
  if (at + LOCAL_BYTES > bytes.length || bytes.readUInt32LE(at) !== LOCAL_WORD) return null
  const nameEnd = at + LOCAL_BYTES + bytes.readUInt16LE(at + 26)
  const start = nameEnd + bytes.readUInt16LE(at + 28)
  if (start > bytes.length) return null
  return {
    name: nameOf(bytes, at + LOCAL_BYTES, nameEnd),
    flags: bytes.readUInt16LE(at + 6),
    method: bytes.readUInt16LE(at + 8),
    time: bytes.readUInt16LE(at + 10),
    size: bytes.readUInt32LE(at + 18),
    extraAt: nameEnd,
    start,
  }
}

function nameOf(bytes: Buffer, from: number, to: number): string {
  return bytes.toString('utf8', from, Math.min(to, from + 4_096))
}

/** Entries that have a local header and no line in the directory; null when there are too many. */
function* hiddenEntries(
  bytes: Buffer,
  known: ReadonlySet<number>,
  ranges: readonly { readonly start: number; readonly end: number }[],
  max: number,
): Generator<ZipEntry | null> {
  let left = max
  let next = 0
  let at = bytes.indexOf(LOCAL)
  while (at !== -1) {
    while (next < ranges.length && (ranges[next]?.end ?? 0) <= at) next += 1
    const range = ranges[next]
    let from = at + 4
    if (range !== undefined && at >= range.start) from = range.end
    else if (!known.has(at)) {
      const local = readLocal(bytes, at)
      // A signature by chance inside other data names a method that nobody uses.
      if (
        local !== null &&
        (local.method === STORED || local.method === DEFLATED || (local.flags & ENCRYPTED) !== 0)
      ) {
        left -= 1
        if (left < 0) {
          yield null
          return
        }
        const open = (local.flags & DEFERRED) !== 0 || local.size === 0xffff_ffff
        const end = open
          ? (range?.start ?? bytes.length)
          : Math.min(bytes.length, local.start + local.size)
        yield {
          names: [local.name],
          encrypted: (local.flags & ENCRYPTED) !== 0,
          method: local.method,
          time: local.time,
          aes: aesStrength(bytes, local.extraAt, local.start),
          start: local.start,
          end,
          crc: null,
          sizeHint: 0,
          open,
        }
        from = open ? at + 4 : Math.max(from, end)
      }
    }
    at = bytes.indexOf(LOCAL, from)
  }
}

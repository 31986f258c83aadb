/**
 * Compound files (MS-CFB): the directory and the streams of old Office documents, Outlook
 * messages and macro projects. Chains are followed as far as the file is long, never in circles.
 */

export type OleEntry = {
  /** Storages and the name, parted by `/`; the root itself is ''. */
  readonly path: string
  readonly name: string
  readonly storage: boolean
  /** Hex, as it stands in the file; empty for none. */
  readonly clsid: string
  /** As the directory says, at most the length of the file. */
  readonly sizeBytes: number
  /** The content, at most `bytesMax` of it. */
  read(bytesMax: number): Buffer
}

export type Ole = {
  /** At most 10,000, in the order of the directory. */
  readonly entries: readonly OleEntry[]
  /** Why not all of it can be followed, whole sentences; grows while streams are read. */
  readonly broken: ReadonlySet<string>
}

const ENTRIES_MAX = 10_000
const END = 0xffff_fffa
const DIRECTORY_BYTES = 128
const NO_ENTRY = 0xffff_ffff
/** Headers written by hand say anything here; MS-CFB allows 9 and 12. */
const SHIFTS = [9, 12]

/** Never throws on what it reads; a file that is none gives no entries. */
export function readOle(bytes: Buffer): Ole {
  const broken = new Set<string>()
  const shift = bytes.length >= 512 ? bytes.readUInt16LE(30) : 0
  if (!SHIFTS.includes(shift))
    return { entries: [], broken: new Set(['It has no header that makes sense.']) }
  const file = new Sectors(bytes, 1 << shift, broken)
  const directory = file.chain(bytes.readUInt32LE(48), ENTRIES_MAX * DIRECTORY_BYTES)
  const count = Math.floor(directory.length / DIRECTORY_BYTES)
  const small = smallStreams(bytes, file, directory)
  const paths = pathsOf(directory, count)
  const entries: OleEntry[] = []
  for (let index = 0; index < count; index += 1) {
    const at = index * DIRECTORY_BYTES
    const kind = directory[at + 66]
    if (kind !== 1 && kind !== 2 && kind !== 5) continue
    const written = directory.readUInt32LE(at + 120)
    const sizeBytes = Math.min(written, bytes.length)
    // A mini stream has no more than 4 KB, whatever the file is long.
    if (kind === 2 && written > bytes.length)
      broken.add('A stream is said to be longer than the file.')
    const start = directory.readUInt32LE(at + 116)
    const path = paths.get(index) ?? nameAt(directory, at)
    entries.push({
      path: kind === 5 ? '' : path,
      name: nameAt(directory, at),
      storage: kind !== 2,
      clsid: clsidAt(directory, at),
      sizeBytes: kind === 2 ? sizeBytes : 0,
      read: (bytesMax) => {
        const wanted = Math.min(sizeBytes, bytesMax)
        return sizeBytes < file.smallBelow ? small(start, wanted) : file.chain(start, wanted)
      },
    })
  }
  return { entries, broken }
}

class Sectors {
  readonly smallBelow: number
  readonly #bytes: Buffer
  readonly #size: number
  readonly #next: Uint32Array
  readonly #broken: Set<string>

  constructor(bytes: Buffer, size: number, broken: Set<string>) {
    this.#bytes = bytes
    this.#size = size
    this.#broken = broken
    this.smallBelow =
      bytes.readUInt32LE(56) === 0 ? 4_096 : Math.min(bytes.readUInt32LE(56), 65_536)
    this.#next = this.#table()
  }

  /** The table of next sectors: its sectors are listed in the header, then in sectors of lists. */
  #table(): Uint32Array {
    const count = Math.ceil(this.#bytes.length / this.#size)
    const next = new Uint32Array(count).fill(0xffff_ffff)
    const perSector = this.#size / 4
    const lists: number[] = []
    for (let at = 76; at < 512; at += 4) lists.push(this.#bytes.readUInt32LE(at))
    let list = this.#bytes.readUInt32LE(68)
    for (let seen = 0; list < END && seen < count; seen += 1) {
      const sector = this.#sector(list)
      if (sector.length < this.#size) break
      for (let at = 0; at < this.#size - 4; at += 4) lists.push(sector.readUInt32LE(at))
      list = sector.readUInt32LE(this.#size - 4)
    }
    let filled = 0
    for (const place of lists) {
      if (filled >= count) break
      if (place >= END) continue
      const sector = this.#sector(place)
      for (let at = 0; at + 4 <= sector.length && filled < count; at += 4) {
        next[filled] = sector.readUInt32LE(at)
        filled += 1
      }
      if (sector.length === 0) filled += perSector
    }
    return next
  }

  #sector(index: number): Buffer {
    const at = (index + 1) * this.#size
    return at >= this.#bytes.length ? Buffer.of() : this.#bytes.subarray(at, at + this.#size)
  }

  /** At most `wanted` bytes of the chain that begins at `start`. */
  chain(start: number, wanted: number): Buffer {
    const pieces: Buffer[] = []
    let length = 0
    let sector = start
    const seen = new Set<number>()
    while (sector < END && length < wanted) {
      const piece = this.#sector(sector)
      if (piece.length === 0 || seen.has(sector)) {
        this.#broken.add(
          piece.length === 0 ? 'A stream leads out of the file.' : 'A stream leads into itself.',
        )
        break
      }
      seen.add(sector)
      pieces.push(piece)
      length += piece.length
      sector = this.#next[sector] ?? END
    }
    return Buffer.concat(pieces).subarray(0, wanted)
  }
}

/** Short streams lie together in one long one, with a table of their own. */
function smallStreams(
  bytes: Buffer,
  file: Sectors,
  directory: Buffer,
): (start: number, wanted: number) => Buffer {
  let store: Buffer | null = null
  let table: Buffer | null = null
  return (start, wanted) => {
    if (directory.length < DIRECTORY_BYTES) return Buffer.of()
    store ??= file.chain(
      directory.readUInt32LE(116),
      Math.min(directory.readUInt32LE(120), bytes.length),
    )
    table ??= file.chain(bytes.readUInt32LE(60), bytes.length)
    const pieces: Buffer[] = []
    let length = 0
    let place = start
    for (let steps = 0; place < END && length < wanted && steps <= table.length / 4; steps += 1) {
      const piece = store.subarray(place * 64, place * 64 + 64)
      if (piece.length === 0) break
      pieces.push(piece)
      length += piece.length
      place = place * 4 + 4 <= table.length ? table.readUInt32LE(place * 4) : END
    }
    return Buffer.concat(pieces).subarray(0, wanted)
  }
}

function nameAt(directory: Buffer, at: number): string {
  const length = Math.min(64, directory.readUInt16LE(at + 64))
  return directory.toString('utf16le', at, at + Math.max(0, length - 2))
}

function clsidAt(directory: Buffer, at: number): string {
  const hex = directory.toString('hex', at + 80, at + 96)
  return /^0+$/.test(hex) ? '' : hex
}

/** Paths by index: each storage names the root of a tree of siblings. */
function pathsOf(directory: Buffer, count: number): ReadonlyMap<number, string> {
  const paths = new Map<number, string>()
  const todo: (readonly [index: number, parent: string])[] = []
  if (count > 0) todo.push([directory.readUInt32LE(76), ''])
  for (let next = todo.pop(); next !== undefined; next = todo.pop()) {
    const [index, parent] = next
    if (index === NO_ENTRY || index >= count || paths.has(index)) continue
    const at = index * DIRECTORY_BYTES
    const path = parent === '' ? nameAt(directory, at) : `${parent}/${nameAt(directory, at)}`
    // A name may be 32 characters, and a tree as deep as there are entries.
    paths.set(index, path.slice(-1_000))
    todo.push([directory.readUInt32LE(at + 68), parent], [directory.readUInt32LE(at + 72), parent])
    if (directory[at + 66] === 1) todo.push([directory.readUInt32LE(at + 76), path.slice(-1_000)])
  }
  return paths
}

/** What unpacking one message may cost. Each bound that is met is a finding, and ends it. */
import type { Found } from '../found.ts'

const MB = 1024 * 1024

export type FileBounds = {
  /** Entries of all archives of one message. */
  readonly entriesMax: number
  /** Unpacked bytes of all archives of one message. */
  readonly bytesMax: number
  /** A file in an archive is kept whole up to this size; larger ones pass by in pieces. */
  readonly wholeBytesMax: number
  /** Times the message itself; beyond it and beyond `growthFreeBytes` it is a bomb. */
  readonly growthMax: number
  readonly growthFreeBytes: number
  /** Archives of one message that 7-Zip opens. */
  readonly runsMax: number
}

export const FILE_BOUNDS: FileBounds = {
  entriesMax: 10_000,
  bytesMax: 100 * MB,
  wholeBytesMax: 32 * MB,
  growthMax: 200,
  growthFreeBytes: 24 * MB,
  runsMax: 64,
}

export class Budget {
  readonly bounds: FileBounds
  readonly #packedBytes: number
  readonly #found: Found
  #entries = 0
  #bytes = 0
  #runs = 0
  #over = false

  /** `packedBytes`: the message itself, against which its growth is measured. */
  constructor(bounds: FileBounds, packedBytes: number, found: Found) {
    this.bounds = bounds
    this.#packedBytes = packedBytes
    this.#found = found
  }

  /** Nothing more is unpacked. */
  get over(): boolean {
    return this.#over
  }

  get entriesLeft(): number {
    return Math.max(0, this.bounds.entriesMax - this.#entries)
  }

  get bytesLeft(): number {
    return Math.max(0, this.bounds.bytesMax - this.#bytes)
  }

  /** What was unpacked so far. */
  get bytes(): number {
    return this.#bytes
  }

  /** Says what was not looked at; the rest of the message still is. */
  limit(fact: string): void {
    this.#found.add('ARCHIVE_LIMIT', 8, fact)
  }

  #end(fact: string): false {
    this.limit(fact)
    this.#over = true
    return false
  }

  /** Room for `count` more files; false when there is none. */
  entry(count = 1): boolean {
    this.#entries += count
    const { entriesMax } = this.bounds
    return (
      !this.#over &&
      (this.#entries <= entriesMax || this.#end(`The archives hold more than ${entriesMax} files.`))
    )
  }

  /** Room for `bytes` more; false when there is none. */
  count(bytes: number): boolean {
    if (this.#over) return false
    this.#bytes += bytes
    const { bytesMax, growthMax, growthFreeBytes } = this.bounds
    if (this.#bytes > bytesMax) return this.#end(`The archives hold more than ${bytesMax} bytes.`)
    return (
      this.#bytes <= Math.max(growthFreeBytes, this.#packedBytes * growthMax) ||
      this.#end(`The archives hold more than ${growthMax} times the size of the message.`)
    )
  }

  /** Room for one more archive that 7-Zip opens. */
  run(): boolean {
    this.#runs += 1
    const { runsMax } = this.bounds
    return (
      !this.#over &&
      (this.#runs <= runsMax ||
        this.#end(`More than ${runsMax} archives of kinds that take long to open.`))
    )
  }
}

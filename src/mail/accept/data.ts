/**
 * The octets after DATA: finds the end, undoes dot-stuffing, and lets no bare CR, bare LF or NUL
 * through. Only CRLF.CRLF ends the data (RFC 5321 section 4.1.1.4); SMTP smuggling lives on
 * servers that take less (faults.md A).
 */

import { nextControl, type Words, wordsOf } from '../../base/octets.ts'

/** What a message with a bare CR, a bare LF or a NUL gets. */
export type Newlines = 'refuse' | 'repair'

const CR = 13
const LF = 10
const DOT = 46

/** Where the decoder stands between two octets. */
const IN_LINE = 0
const AFTER_CR = 1
/** At the start of a line that a CRLF of the client has begun. */
const LINE_START = 2
const AFTER_DOT = 3
const AFTER_DOT_CR = 4

const FIRST_BYTES = 8 * 1024

export class DataDecoder {
  readonly #newlines: Newlines
  readonly #sizeMax: number
  readonly #pieceBytes: number
  readonly #block: () => Buffer
  readonly #onPiece: (piece: Uint8Array) => void
  #state = LINE_START
  #out: Buffer
  #length = 0
  /** Octets of the canonical message so far, also of those beyond the limit. */
  sizeBytes = 0
  /** A bare CR, bare LF or NUL was seen, and the policy is to refuse. */
  isMalformed = false
  /** Larger than allowed: nothing more is kept. */
  isTooLarge = false
  #pieces = 0

  /**
   * `onPiece` gets every full piece, a block of `pieceBytes` that `block` gave; the decoder never
   * touches it again. The rest stays in it until `end`.
   */
  constructor(options: {
    readonly newlines: Newlines
    readonly sizeMax: number
    readonly pieceBytes: number
    readonly block: () => Buffer
    readonly onPiece: (piece: Uint8Array) => void
  }) {
    this.#newlines = options.newlines
    this.#sizeMax = options.sizeMax
    this.#pieceBytes = options.pieceBytes
    this.#block = options.block
    this.#onPiece = options.onPiece
    this.#out = Buffer.allocUnsafeSlow(Math.min(FIRST_BYTES, options.pieceBytes))
  }

  /** Takes octets; gives how many belonged to the data when it ended in them, else -1. */
  push(chunk: Uint8Array): number {
    let state = this.#state
    let index = 0
    const { length } = chunk
    const words = wordsOf(chunk)
    while (index < length) {
      if (state === IN_LINE) {
        const end = plainEnd(chunk, words, index)
        if (end > index) this.#take(chunk, index, end)
        // A run that ends with CRLF was cut for the dot after it.
        if (chunk[end - 1] === LF && end > index) state = LINE_START
        index = end
        if (index === length) break
      }
      const octet = chunk[index] ?? 0
      index += 1
      switch (state) {
        case AFTER_CR:
          if (octet === LF) {
            this.#newline()
            state = LINE_START
            break
          }
          this.#bare()
          state = this.#plain(octet)
          break
        case LINE_START:
          if (octet === DOT) {
            state = AFTER_DOT
            break
          }
          state = this.#plain(octet)
          break
        case AFTER_DOT:
          if (octet === CR) {
            state = AFTER_DOT_CR
            break
          }
          // A dot at the start of a line is the stuffed one: it goes, whatever follows it.
          state = this.#plain(octet)
          break
        case AFTER_DOT_CR:
          if (octet === LF) {
            this.#state = LINE_START
            return index
          }
          // `.CR` without LF ends nothing: the dot was stuffing, the CR is bare.
          this.#bare()
          state = this.#plain(octet)
          break
        default:
          state = this.#plain(octet)
      }
    }
    this.#state = state
    return -1
  }

  /** The last piece, possibly empty. Call once, after push has found the end. */
  end(): Uint8Array {
    return this.#out.subarray(0, this.#length)
  }

  /** True when `end` holds the whole message. */
  get isWhole(): boolean {
    return this.#pieces === 0
  }

  #plain(octet: number): number {
    if (octet === CR) return AFTER_CR
    if (octet === LF) {
      // Only a CRLF begins a line in which a dot means something.
      this.#bare()
      return IN_LINE
    }
    if (octet === 0) {
      if (this.#newlines === 'refuse') this.isMalformed = true
      return IN_LINE
    }
    this.#byte(octet)
    return IN_LINE
  }

  /** A lone CR or LF: the end of a line to some, a character to others. */
  #bare(): void {
    if (this.#newlines === 'refuse') this.isMalformed = true
    else this.#newline()
  }

  #newline(): void {
    this.#byte(CR)
    this.#byte(LF)
  }

  #byte(octet: number): void {
    if (!this.#count(1)) return
    if (this.#length === this.#out.length) this.#grow()
    this.#out[this.#length] = octet
    this.#length += 1
  }

  #take(chunk: Uint8Array, start: number, end: number): void {
    if (!this.#count(end - start)) return
    let from = start
    while (from < end) {
      if (this.#length === this.#out.length) this.#grow()
      const count = Math.min(end - from, this.#out.length - this.#length)
      if (count < 48) {
        for (let index = 0; index < count; index++) {
          this.#out[this.#length + index] = chunk[from + index] ?? 0
        }
      } else this.#out.set(chunk.subarray(from, from + count), this.#length)
      this.#length += count
      from += count
    }
  }

  #count(octets: number): boolean {
    this.sizeBytes += octets
    if (this.sizeBytes > this.#sizeMax) {
      this.isTooLarge = true
      this.#length = 0
    }
    return !this.isTooLarge && !this.isMalformed
  }

  #grow(): void {
    if (this.#out.length < this.#pieceBytes) {
      const size = this.#out.length * 4
      const larger = size < this.#pieceBytes ? Buffer.allocUnsafeSlow(size) : this.#block()
      larger.set(this.#out)
      this.#out = larger
      return
    }
    this.#pieces += 1
    this.#onPiece(this.#out)
    this.#out = this.#block()
    this.#length = 0
  }
}

/**
 * The fast part: lines that end in CRLF, up to an octet that needs thought, the dot of a line or
 * the last two octets of the chunk.
 */
function plainEnd(chunk: Uint8Array, words: Words, from: number): number {
  const { length } = chunk
  let index = from
  for (;;) {
    index = nextControl(chunk, words, index)
    if (index === length) return index
    const octet = chunk[index]
    if (octet === CR) {
      if (index + 2 >= length || chunk[index + 1] !== LF) return index
      index += 2
      if (chunk[index] === DOT) return index
    } else if (octet === LF || octet === 0) return index
    else index += 1
  }
}

/** Files of a tar archive, counted while it passes by: its headers say how many there are before anyone unpacks it. */

const BLOCK_BYTES = 512
/** Headers that only describe the next file: pax, and long names of GNU. At most two stand before each file. */
const MORE_OF_NEXT = /^[xgKL]$/
const HEADERS_A_FILE_MAX = 3

export class TarCount {
  readonly #header = Buffer.alloc(BLOCK_BYTES)
  #filled = 0
  /** Content until the next header. */
  #skip = 0
  #files = 0
  #headers = 0
  #ended = false

  /** At least as many files as honest headers describe; those behind the end or behind damage are not counted. */
  get files(): number {
    return Math.max(this.#files, Math.ceil(this.#headers / HEADERS_A_FILE_MAX))
  }

  /** The next piece of the archive, of any length. */
  see(piece: Buffer): void {
    for (let at = 0; at < piece.length && !this.#ended; ) {
      const skipped = Math.min(this.#skip, piece.length - at)
      this.#skip -= skipped
      at += skipped
      const copied = piece.copy(this.#header, this.#filled, at)
      this.#filled += copied
      at += copied
      if (this.#filled === BLOCK_BYTES) this.#read()
    }
  }

  #read(): void {
    this.#filled = 0
    if (!isTarHeader(this.#header)) {
      this.#ended = true
      return
    }
    this.#headers += 1
    if (!MORE_OF_NEXT.test(String.fromCharCode(this.#header[156] ?? 0))) this.#files += 1
    this.#skip = Math.ceil(contentBytes(this.#header) / BLOCK_BYTES) * BLOCK_BYTES
  }
}

/** The sum of the header is what it says, as every tar since 1979 writes it. */
export function isTarHeader(header: Buffer): boolean {
  if (header.length < BLOCK_BYTES || header[0] === 0) return false
  const written = octal(header, 148, 156)
  if (!(written > 0)) return false
  let sum = 8 * 32
  for (let at = 0; at < BLOCK_BYTES; at += 1) if (at < 148 || at >= 156) sum += header[at] ?? 0
  return sum === written
}

/** Links have no content, whatever size they are said to have. */
function contentBytes(header: Buffer): number {
  const type = header[156]
  if (type === 0x31 || type === 0x32) return 0
  // Sizes from 8 GB on are binary: no file of that size is in a mail.
  if (((header[124] ?? 0) & 0x80) !== 0) return Number.MAX_SAFE_INTEGER
  // A field of blanks is no number.
  return Math.max(0, octal(header, 124, 136) || 0)
}

function octal(header: Buffer, from: number, to: number): number {
  return Number.parseInt(header.toString('latin1', from, to).replace(/[\0 ]+/g, ''), 8)
}

/** Bytes of a stream that are not used yet. Grows with what came, never with what was claimed. */

const BYTES_MIN = 512
/** An empty inbox that is larger gives its memory back. */
const KEPT_BYTES_MAX = 128 * 1024
const NO_BYTES = new Uint8Array(0)

export class Inbox {
  #bytes = new Uint8Array(0)
  #from = 0
  #to = 0
  /** What came just now and is not ours: read where it stands, behind the own bytes. */
  #lent: Uint8Array = NO_BYTES

  get length(): number {
    return this.#to - this.#from + this.#lent.length
  }

  push(bytes: Uint8Array): void {
    this.#keep()
    this.#append(bytes)
  }

  /** As `push`, while `use` runs without a copy: of bodies only what `use` leaves is copied. */
  lend(bytes: Uint8Array, use: () => void): void {
    this.#keep()
    this.#lent = bytes
    try {
      use()
    } finally {
      this.#keep()
    }
  }

  /** The next bytes, which stay; valid until the next call. Null: fewer are here. */
  peek(count: number): Uint8Array | null {
    if (this.length < count) return null
    const missing = count - (this.#to - this.#from)
    if (missing === count) return this.#lent.subarray(0, count)
    if (missing > 0) {
      this.#append(this.#lent.subarray(0, missing))
      this.#lent = this.#lent.subarray(missing)
    }
    return this.#bytes.subarray(this.#from, this.#from + count)
  }

  /** As `peek`, and they are gone. */
  take(count: number): Uint8Array | null {
    const bytes = this.peek(count)
    if (bytes === null) return null
    if (this.#from === this.#to) this.#lent = this.#lent.subarray(count)
    else this.#from += count
    return bytes
  }

  #append(bytes: Uint8Array): void {
    if (this.#to + bytes.length > this.#bytes.length) this.#makeRoom(bytes.length)
    this.#bytes.set(bytes, this.#to)
    this.#to += bytes.length
  }

  #keep(): void {
    const rest = this.#lent
    this.#lent = NO_BYTES
    if (rest.length > 0) this.#append(rest)
  }

  #makeRoom(count: number): void {
    const rest = this.#bytes.subarray(this.#from, this.#to)
    const needed = rest.length + count
    const isRoomy = this.#bytes.length >= needed && this.#bytes.length <= KEPT_BYTES_MAX
    if (isRoomy) this.#bytes.copyWithin(0, this.#from, this.#to)
    else {
      // Twice of what is needed: a frame in small pieces is not copied for each of them.
      const grown = new Uint8Array(Math.max(BYTES_MIN, needed * 2))
      grown.set(rest)
      this.#bytes = grown
    }
    this.#from = 0
    this.#to = rest.length
  }
}

export function joinBytes(...parts: readonly Uint8Array[]): Uint8Array {
  let length = 0
  for (const part of parts) length += part.length
  const whole = blankBytes(length)
  let at = 0
  for (const part of parts) {
    whole.set(part, at)
    at += part.length
  }
  return whole
}

/** Memory that holds anything, to be filled: long ones take longer to blank than to fill. */
export function blankBytes(length: number): Uint8Array {
  const { buffer, byteOffset } = Buffer.allocUnsafe(length)
  return new Uint8Array(buffer, byteOffset, length)
}

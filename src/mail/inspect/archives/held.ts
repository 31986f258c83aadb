/** Memory of what is being unpacked: kept while it is looked at, counted, given back. */

/** All files that wait or are looked at at one time. */
const HELD_BYTES_MAX = 64 * 1024 * 1024
/** Freed buffers that make the engine collect: it sees their handles, not their size. */
const COLLECT_BYTES = 24 * 1024 * 1024
const HEAD_BYTES = 40_000
const FIRST_BYTES = 64 * 1024

export type Keeper = {
  take(piece: Buffer): void
  /** All of it is there still. */
  readonly whole: boolean
  /** The whole content; only while `whole`. */
  content(): Buffer
  /** The first bytes, at most 40,000. */
  head(): Buffer
  free(): void
}

export class Held {
  #bytes = 0
  #garbage = 0

  /** False: there is no room for it. */
  take(content: Buffer): boolean {
    if (this.#bytes + content.length > HELD_BYTES_MAX) return false
    this.#bytes += content.length
    return true
  }

  give(content: Buffer): void {
    this.#bytes -= content.length
  }

  /** Keeps what comes in pieces up to `bytesMax`. `sizeHint`: what its maker says; it may lie. */
  keeper(bytesMax: number, sizeHint: number): Keeper {
    const held = this
    let room = Buffer.of() as Buffer
    let length = 0
    let whole = true
    const grow = (least: number): boolean => {
      const wanted = Math.min(
        bytesMax,
        Math.max(least, room.length * 2, FIRST_BYTES, Math.min(sizeHint, least * 16)),
      )
      if (held.#bytes + wanted - room.length > HELD_BYTES_MAX) return false
      held.#bytes += wanted - room.length
      const next = Buffer.allocUnsafeSlow(wanted)
      room.copy(next, 0, 0, length)
      held.#dropped(room.length)
      room = next
      return true
    }
    return {
      take(piece) {
        if (!whole) return
        const least = length + piece.length
        if (least > bytesMax || (least > room.length && !grow(least))) {
          whole = false
          const head = Buffer.from(room.subarray(0, Math.min(length, HEAD_BYTES)))
          const first =
            head.length < HEAD_BYTES ? Buffer.concat([head, piece.subarray(0, HEAD_BYTES)]) : head
          held.#bytes -= room.length
          held.#dropped(room.length)
          room = first.subarray(0, HEAD_BYTES)
          length = room.length
          held.#bytes += room.length
          return
        }
        piece.copy(room, length)
        length = least
      },
      get whole() {
        return whole
      },
      content: () => room.subarray(0, length),
      head: () => room.subarray(0, Math.min(length, HEAD_BYTES)),
      free() {
        held.#bytes -= room.length
        held.#dropped(room.length)
        room = Buffer.of()
        length = 0
      },
    }
  }

  #dropped(bytes: number): void {
    this.#garbage += bytes
    if (this.#garbage < COLLECT_BYTES) return
    this.#garbage = 0
    Bun.gc(true)
  }
}

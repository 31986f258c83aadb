/** Memory of what is being unpacked: kept while it is looked at, counted, given back. */

/** All files that wait or are looked at at one time. */
const HELD_BYTES_MAX = 64 * 1024 * 1024
/** Freed buffers that make the engine collect: it sees their handles, not their size. */
const COLLECT_BYTES = 24 * 1024 * 1024
/** Enough for the signatures of disk images, which stand behind 32 KB. */
const HEAD_BYTES = 40_000
/** Small files are most; large ones come in few pieces. */
const ROOM_BYTES_MIN = 4 * 1024
const ROOM_BYTES_MAX = 1024 * 1024

export type Keeper = {
  take(piece: Buffer): void
  /** All of it is there still. */
  readonly whole: boolean
  /** The whole content; only while `whole`. */
  content(): Buffer
  /** The first bytes, at most 40,000. */
  head(): Buffer
  /** Keeps only the head from now on. */
  drop(): void
  free(): void
}

export class Held {
  #bytes = 0
  #garbage = 0

  /** False: there is no room for it. */
  take(content: Buffer): boolean {
    return this.#grow(content.length)
  }

  give(content: Buffer): void {
    this.#bytes -= content.length
  }

  /** Keeps what comes in pieces up to `bytesMax`. `sizeHint`: what its maker says; it may lie. */
  keeper(bytesMax: number, sizeHint: number): Keeper {
    const rooms: Buffer[] = []
    let room: Buffer = Buffer.of()
    let used = 0
    let length = 0
    let whole = true
    const drop = (): void => {
      if (!whole) return
      whole = false
      const first = Buffer.from(head())
      free()
      this.#grow(first.length)
      rooms.push(first)
      length = first.length
    }
    const free = (): void => {
      const bytes = rooms.reduce((sum, each) => sum + each.length, 0)
      this.#bytes -= bytes
      this.#garbage += bytes
      rooms.length = 0
      length = 0
      if (this.#garbage < COLLECT_BYTES) return
      this.#garbage = 0
      Bun.gc(true)
    }
    const joined = (): Buffer => {
      const [first = Buffer.of()] = rooms
      return (rooms.length <= 1 ? first : Buffer.concat(rooms)).subarray(0, length)
    }
    const head = (): Buffer => {
      const wanted = Math.min(length, HEAD_BYTES)
      const [first = Buffer.of()] = rooms
      return (first.length >= wanted ? first : Buffer.concat(rooms, wanted)).subarray(0, wanted)
    }
    return {
      take: (piece) => {
        for (let from = 0; whole && from < piece.length; ) {
          if (used === room.length) {
            const wanted = Math.min(
              ROOM_BYTES_MAX,
              Math.max(ROOM_BYTES_MIN, length, Math.min(sizeHint, piece.length * 16)),
            )
            if (length + 1 > bytesMax || !this.#grow(wanted)) {
              drop()
              return
            }
            room = Buffer.allocUnsafeSlow(wanted)
            rooms.push(room)
            used = 0
          }
          const copied = piece.copy(room, used, from)
          used += copied
          length += copied
          from += copied
        }
      },
      get whole() {
        return whole
      },
      content: joined,
      head,
      drop,
      free,
    }
  }

  #grow(bytes: number): boolean {
    if (this.#bytes + bytes > HELD_BYTES_MAX) return false
    this.#bytes += bytes
    return true
  }
}

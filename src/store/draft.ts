/** A body on its way into the spool: pieces now, COMMIT or ABORT later. */
import { assert } from '../base/errors.ts'
import type { MessageId } from '../base/ids.ts'
import { PIECE_BYTES } from '../base/limits.ts'
import type { Body, Extent } from '../message/body.ts'
import type { CopyDraft, Copying } from './copies.ts'
import { indexOf, PLACES_MAX, RECORD } from './records.ts'
import type { Spool, SpoolRecord } from './spool.ts'

/** From here on what is no piece is worth a block; a node of another version cuts in its own way. */
const PART_BYTES_MIN = PIECE_BYTES / 4

export class Draft implements CopyDraft {
  readonly id: MessageId
  readonly records: SpoolRecord[] = []
  /** The same body on its way to another node. */
  copying: Copying | null
  readonly #spool: Spool
  readonly #type: typeof RECORD.accept | typeof RECORD.copy
  readonly #body: number
  /** What came in part of a piece and waits for the rest, in a block. */
  #block: Buffer | null = null
  #filled = 0
  /** The records belong to a message now, or to nobody. */
  #isOver = false

  /** `body`: tells it from other bodies of the same message that are written at the same time. */
  constructor(
    id: MessageId,
    spool: Spool,
    kind: {
      readonly type: typeof RECORD.accept | typeof RECORD.copy
      readonly body: number
      readonly copying: Copying | null
    },
  ) {
    this.id = id
    this.#spool = spool
    this.#type = kind.type
    this.#body = kind.body
    this.copying = kind.copying
  }

  /** Memory for a piece, to be filled and given to `add`. */
  block(): Buffer {
    return this.#spool.block()
  }

  /**
   * Adds bytes, which are cut into pieces where they are more than one. A block that is given is not
   * the caller's any more.
   * @throws StoreError when the spool failed
   */
  add(bytes: Uint8Array, isGiven = false): void {
    // Before the block goes back to the pool.
    this.copying?.piece(bytes)
    const isPart = bytes.length >= PART_BYTES_MIN && bytes.length !== PIECE_BYTES
    const isGathered = this.#type === RECORD.copy && !isGiven
    if (isGathered && (this.#block !== null || isPart)) this.#gather(bytes)
    else this.#append(bytes, isGiven)
  }

  /** Of a copy: all that was added is in `records` from here on. @throws StoreError when the spool failed */
  finish(): void {
    const block = this.#block
    if (block === null) return
    this.#block = null
    this.#append(block.subarray(0, this.#filled), true)
  }

  /** Parts of pieces become whole ones: in memory that is used again and again. */
  #gather(bytes: Uint8Array): void {
    let at = 0
    while (at < bytes.length) {
      if (this.#block === null) {
        this.#block = this.block()
        this.#filled = 0
      }
      const part = bytes.subarray(at, at + PIECE_BYTES - this.#filled)
      this.#block.set(part, this.#filled)
      this.#filled += part.length
      at += part.length
      if (this.#filled === PIECE_BYTES) this.finish()
    }
  }

  #append(bytes: Uint8Array, isGiven: boolean): void {
    if (bytes.length > PIECE_BYTES) {
      assert(!isGiven, 'a block is a piece')
      for (let at = 0; at < bytes.length; at += PIECE_BYTES) {
        this.#append(bytes.subarray(at, at + PIECE_BYTES), false)
      }
      return
    }
    assert(this.records.length < PLACES_MAX, 'pieces of a body are bounded')
    const index = indexOf(this.#body, this.records.length)
    this.records.push(this.#spool.append(this.#type, this.id, index, bytes, isGiven))
  }

  /** The COMMIT behind the pieces, which are finished. @throws StoreError when the spool failed */
  commit(payload: Uint8Array): SpoolRecord {
    assert(this.#block === null, 'a COMMIT stands behind its body')
    return this.#spool.append(RECORD.commit, this.id, indexOf(this.#body, 0), payload)
  }

  /** Hands the records over: whoever takes them drops them. */
  give(): readonly SpoolRecord[] {
    this.#isOver = true
    return this.records
  }

  /** Where the bytes lie, for reading; resolves when they can be read. */
  async extents(): Promise<readonly Extent[]> {
    await this.#spool.written()
    return this.records.map((record) => ({
      path: record.place().path,
      offset: record.offset,
      length: record.length,
    }))
  }

  /** Everything that was added; resolves when it can be read. */
  async body(): Promise<Body> {
    const sizeBytes = this.records.reduce((sum, { length }) => sum + length, 0)
    return { kind: 'extents', extents: await this.extents(), sizeBytes }
  }

  /** Nobody will want these bytes; with `commit` the COMMIT that follows them is void too. Gives the ABORT. */
  abort(what: 'body' | 'commit' = 'body'): SpoolRecord | null {
    if (this.#isOver) return null
    this.copying?.abort()
    this.#block = null
    for (const record of this.give()) this.#spool.drop(record)
    if (this.#spool.failure !== null) return null
    if (what === 'body' && this.records.length === 0) return null
    const index = indexOf(this.#body, what === 'body' ? 0 : 1)
    return this.#spool.append(RECORD.abort, this.id, index, new Uint8Array())
  }
}

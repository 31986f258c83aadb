/**
 * How a message stands in the spool: its pieces, its COMMITs, and the records about it, each of
 * which outlives every COMMIT that it amends.
 */
import type { Clock } from '../base/clock.ts'
import type { Draft } from './draft.ts'
import type { Message } from './queued.ts'
import type { RecordType } from './records.ts'
import type { Segment, Stay } from './segments.ts'
import type { Spool, SpoolRecord } from './spool.ts'

/** While a message that moves or goes is being read. */
export const READ_PAUSE_MS = 50
const NO_BYTES = new Uint8Array(0)

export class MessageRecords {
  readonly #spool: Spool
  readonly #clock: Clock

  constructor(spool: Spool, clock: Clock) {
    this.#spool = spool
    this.#clock = clock
  }

  /** A record about a message that has a COMMIT; it outlives all of them. @throws StoreError */
  append(message: Message, type: RecordType, payload: object | null, isLazy = true): void {
    const record = this.#write(message, type, payload)
    if (isLazy) this.#spool.syncSoon()
    // Marks wait for a place only on a full disk.
    record.whenPlaced((segment) => this.#guard(message, segment))
  }

  /** One about several, of which the first stands in its head. @throws StoreError */
  appendAbout(messages: readonly Message[], type: RecordType, payload: object): void {
    const [first] = messages
    if (first === undefined) return
    const record = this.#write(first, type, payload)
    record.whenPlaced((segment) => {
      for (const message of messages) this.#guard(message, segment)
    })
  }

  #write(message: Message, type: RecordType, payload: object | null): SpoolRecord {
    const bytes = payload === null ? NO_BYTES : Buffer.from(JSON.stringify(payload))
    return this.#spool.append(type, message.id, 0, bytes)
  }

  /** `pieces` and the COMMIT `record` are those of the message from here on. */
  settleIn(message: Message, pieces: readonly SpoolRecord[], record: SpoolRecord): void {
    message.pieces = pieces.map((piece) => {
      const segment = piece.place()
      return { segment, offset: piece.offset, length: piece.length }
    })
    const segment = record.place()
    message.place = { segment, length: record.length }
  }

  /** Every mark from here on must outlive this COMMIT too. */
  noteCommit(message: Message, record: SpoolRecord): void {
    record.whenPlaced((segment) => {
      message.commits = joined(message.commits, segment.stays)
    })
  }

  #guard(message: Message, mark: Segment): void {
    for (const { segment, generation } of message.commits) {
      if (segment.generation === generation) this.#spool.guard(mark, segment)
    }
  }

  /** The COMMIT is void, durably; unless the spool has failed, which ends the process. */
  async takeBack(draft: Draft, record: SpoolRecord): Promise<void> {
    this.#spool.drop(record)
    const abort = draft.abort('commit')
    if (abort === null) return
    const commit = record.segment
    if (commit !== null) abort.whenPlaced((segment) => this.#spool.guard(segment, commit))
    await this.#spool.synced()
  }

  /** The spool may forget its bytes, once nobody reads them. */
  letGo(message: Message, what: 'body' | 'all'): void {
    if (message.pins > 0) {
      this.#clock.after(READ_PAUSE_MS, () => this.letGo(message, what))
      return
    }
    this.release(message, what)
  }

  /** At once: nobody reads it. */
  release(message: Message, what: 'body' | 'all'): void {
    for (const { segment, length } of message.pieces) this.#spool.release(segment, length)
    message.pieces = []
    if (what === 'body' || message.place === null) return
    this.#spool.release(message.place.segment, message.place.length)
    message.place = null
  }
}

/** Most messages have one COMMIT, and share the list of its segment. */
export function joined(stays: readonly Stay[], more: readonly Stay[]): readonly Stay[] {
  return stays.length === 0 ? more : [...stays, ...more]
}

/**
 * Copies the messages of the emptiest segments forward, body, commit and states, so that the
 * segments can be used again: a few old messages must not pin the whole disk.
 */
import { type Clock, pause } from '../base/clock.ts'
import { StoreError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Draft } from './draft.ts'
import { readBody } from './extents.ts'
import { type MessageRecords, READ_PAUSE_MS } from './message-records.ts'
import { type Commit, commitOf, type Message } from './queued.ts'
import { RECORD } from './records.ts'
import type { Spool } from './spool.ts'

/** The messages that stand in the spool, as they are at the moment. */
type Known = {
  readonly node: NodeId
  all(): Iterable<Message>
  /** It is the one known by its id. */
  isHere(message: Message): boolean
  /** It is final, and only its COMMIT is still wanted. */
  isOwed(message: Message): boolean
  draft(id: MessageId, type: typeof RECORD.accept | typeof RECORD.copy): Draft
}

export class Compaction {
  readonly #spool: Spool
  readonly #records: MessageRecords
  readonly #known: Known
  readonly #clock: Clock
  #isRunning = false

  constructor(spool: Spool, records: MessageRecords, known: Known, clock: Clock) {
    this.#spool = spool
    this.#records = records
    this.#known = known
    this.#clock = clock
  }

  /** Never rejects; a second call while it runs is none. */
  async run(): Promise<void> {
    if (this.#isRunning) return
    this.#isRunning = true
    try {
      for (const segment of this.#spool.sparse().slice(0, 2)) {
        if (segment.liveBytes > segment.end / 4) break
        const movable = [...this.#known.all()].filter(
          (message) => message.isIn(segment) && this.#isMovable(message),
        )
        for (const message of movable) await this.#copyForward(message)
      }
    } catch (error) {
      // A failed spool ends the process elsewhere; no room means that there is nothing to gain.
      if (!(error instanceof StoreError)) throw error
    } finally {
      this.#isRunning = false
    }
  }

  /** Marks of an attempt that begins now would stand before the copy of the commit. */
  #isMovable(message: Message): boolean {
    if (!this.#known.isHere(message) || message.isDiscarded) return false
    return !this.#isInUse(message)
  }

  /** Somebody reads it, or tries it: of a copy that is another node's doing. */
  #isInUse(message: Message): boolean {
    if (message.pins > 0) return true
    return (
      message.owner === this.#known.node &&
      message.recipients.some(({ state }) => state === 'trying')
    )
  }

  async #copyForward(message: Message): Promise<void> {
    const type = message.owner === this.#known.node ? RECORD.accept : RECORD.copy
    const draft = this.#known.draft(message.id, type)
    const wasOwed = this.#known.isOwed(message)
    const isStill = (): boolean =>
      this.#isMovable(message) && this.#known.isOwed(message) === wasOwed
    // Of one that is only owed the COMMIT is enough.
    if (!wasOwed) {
      for await (const chunk of readBody(message.body(), this.#spool.disk)) {
        if (!isStill()) break
        draft.add(chunk)
      }
    }
    if (!isStill()) return void draft.abort()
    draft.finish()
    const commit: Commit = { ...commitOf(message, 0), pieces: draft.records.length }
    const record = draft.commit(Buffer.from(JSON.stringify(commit)))
    if (record.segment === null) {
      this.#spool.drop(record)
      return void draft.abort('commit')
    }
    this.#records.noteCommit(message, record)
    for (const [node, state] of message.holders) {
      if (state === 'kept') this.#records.append(message, RECORD.holders, { node, state })
    }
    await this.#spool.synced()
    // An attempt that began meanwhile reads the old place: it stays until that has ended.
    while (this.#isInUse(message)) await pause(this.#clock, READ_PAUSE_MS)
    if (!this.#known.isHere(message) || this.#known.isOwed(message) !== wasOwed) {
      this.#spool.drop(record)
      for (const piece of draft.give()) this.#spool.drop(piece)
      return
    }
    this.#records.release(message, 'all')
    this.#records.settleIn(message, draft.give(), record)
  }
}

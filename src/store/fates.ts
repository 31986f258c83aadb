/**
 * What became of messages that had more than one owner, or a holder that was removed: a node that
 * comes back or takes them over asks before it delivers what another one delivered meanwhile
 * (design: mail.md, Rejoin barrier). Of this node alone, in state.db; plain mail never has a row.
 */
import type { Database } from 'bun:sqlite'
import type { Clock } from '../base/clock.ts'
import { StoreError } from '../base/errors.ts'
import { type MessageId, parseNodeId } from '../base/ids.ts'
import type { RecipientState } from '../message/rows.ts'
import type { Fate } from './copies.ts'
import type { StoreDatabase } from './db.ts'

/** Fates wait so long for others: one commit for all. */
const BATCH_MS = 100
/** In one transaction, written and pruned. */
const BATCH_ROWS = 1_000
const RETRY_MS = 5_000

type Waiting = { readonly fate: Fate; readonly kept: () => void }
type Row = {
  readonly id: string
  readonly term: number
  readonly owner: string
  readonly states: string
  readonly at_ms: number
}

export class Fates {
  readonly #store: StoreDatabase
  readonly #clock: Clock
  readonly #keepMs: number
  readonly #statements: ReturnType<typeof prepare>
  /** Not yet in the table, in order. */
  readonly #waiting = new Map<MessageId, Waiting>()
  /** Most nodes never have one, and every copy that comes is asked about. */
  #isEmpty: boolean
  #isPlanned = false
  #closed = false

  /** `keepMs`: how long a fate is known. */
  constructor(store: StoreDatabase, deps: { readonly clock: Clock; readonly keepMs: number }) {
    this.#store = store
    this.#clock = deps.clock
    this.#keepMs = deps.keepMs
    this.#statements = prepare(store.sqlite)
    this.#isEmpty = store.attempt(() => this.#statements.any.get()) === null
  }

  /** Calls `kept` once the fate is durable; a disk that refuses is asked again. */
  add(fate: Fate, kept: () => void): void {
    const before = this.#waiting.get(fate.id)
    const both = (): void => {
      before?.kept()
      kept()
    }
    this.#waiting.set(fate.id, { fate, kept: both })
    this.#plan(BATCH_MS)
  }

  /** Null: never heard of, or longer ago than it is kept. @throws StoreError */
  get(id: MessageId): Fate | null {
    const waiting = this.#waiting.get(id)
    if (waiting !== undefined) return waiting.fate
    if (this.#isEmpty) return null
    const row = this.#store.attempt(() => this.#statements.get.get(id, this.#oldestMs()))
    const owner = row === null ? null : parseNodeId(row.owner)
    if (row === null || owner === null) return null
    return { id, term: row.term, owner, states: row.states.split(',') as RecipientState[] }
  }

  /** Writes what waits. For the end; a disk that refuses loses no mail: the spool still has it. */
  close(): void {
    this.#closed = true
    while (this.#waiting.size > 0) if (!this.#write()) return
  }

  #plan(delayMs: number): void {
    if (this.#isPlanned || this.#closed) return
    this.#isPlanned = true
    this.#clock.after(delayMs, () => {
      this.#isPlanned = false
      if (this.#closed) return
      const isWritten = this.#write()
      if (this.#waiting.size > 0) this.#plan(isWritten ? 0 : RETRY_MS)
    })
  }

  /** One batch, and as many of the oldest go. False when the disk refused. */
  #write(): boolean {
    const batch = [...this.#waiting.values()].slice(0, BATCH_ROWS)
    const nowMs = this.#clock.wallMs()
    this.#isEmpty &&= batch.length === 0
    try {
      this.#store.transact(() => {
        for (const { fate } of batch) {
          const { id, term, owner, states } = fate
          this.#statements.add.run(id, term, owner, states.join(','), nowMs)
        }
        this.#statements.prune.run(this.#oldestMs(), BATCH_ROWS * 2)
      })
    } catch (error) {
      // Told to the operator by the database; until it is written the spool keeps the message.
      if (error instanceof StoreError) return false
      throw error
    }
    for (const { fate } of batch) this.#waiting.delete(fate.id)
    for (const { kept } of batch) kept()
    return true
  }

  #oldestMs(): number {
    return this.#clock.wallMs() - this.#keepMs
  }
}

function prepare(sqlite: Database) {
  return {
    any: sqlite.query<unknown, []>('SELECT 1 FROM fate LIMIT 1'),
    get: sqlite.query<Row, [string, number]>('SELECT * FROM fate WHERE id = ? AND at_ms > ?'),
    // A restart tells the same again: it does not live longer for that.
    add: sqlite.query<null, [string, number, string, string, number]>(
      `INSERT INTO fate (id, term, owner, states, at_ms) VALUES (?, ?, ?, ?, ?)
       ON CONFLICT (id) DO UPDATE SET
         at_ms = CASE WHEN excluded.term > term THEN excluded.at_ms ELSE at_ms END,
         term = excluded.term, owner = excluded.owner, states = excluded.states
       WHERE excluded.term >= term`,
    ),
    prune: sqlite.query<null, [number, number]>(
      'DELETE FROM fate WHERE id IN (SELECT id FROM fate WHERE at_ms <= ? ORDER BY at_ms LIMIT ?)',
    ),
  }
}

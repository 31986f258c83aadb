/**
 * What operators did, on all nodes: lines that only grow. Each names the hash of the line before
 * it of the same writer, so that one that was changed or taken out shows.
 */
import { createHash } from 'node:crypto'
import type { Clock } from '../base/clock.ts'
import type { Raw } from '../base/raw.ts'
import type { WriterId } from '../config/merge.ts'
import type { StoreDatabase } from './db.ts'
import { Ledger, type Line } from './ledger.ts'
import type { SharedRows } from './shared.ts'

/** A message has up to 10,000 recipients; the claims name them all. */
const DETAIL_MAX = 1_000
/** Lines of one transaction that may be undone with it; far more than any writes. */
const RECENT_MAX = 50

export type AuditRow = {
  readonly id: string
  readonly atMs: number
  readonly author: string
  readonly act: string
  readonly subject: string
  readonly detail: string
}

export class Audit {
  readonly #rows: SharedRows
  readonly #ledger: Ledger
  readonly #clock: Clock
  /** Ids of the last lines of this writer; the newest may belong to a transaction that failed. */
  readonly #recent: string[] = []

  /** Before `rows.start`. */
  constructor(store: StoreDatabase, rows: SharedRows, deps: { readonly clock: Clock }) {
    this.#rows = rows
    this.#clock = deps.clock
    const aboutOf = (text: string) => readRow({ id: '', text })?.subject ?? null
    this.#ledger = new Ledger(store, rows, 'audit', { clock: deps.clock, aboutOf })
  }

  /** Inside a transaction of the rows, or in one of its own. @throws StoreError */
  write(author: string, act: string, subject: string, detail: string): void {
    this.#rows.transact(() => {
      const line = {
        atMs: this.#clock.wallMs(),
        by: author,
        act,
        subject,
        detail: detail.slice(0, DETAIL_MAX),
        previous: this.#previous(),
      }
      this.#recent.push(this.#ledger.append(author, JSON.stringify(line)))
      if (this.#recent.length > RECENT_MAX) this.#recent.shift()
    })
  }

  /** Newest first, of all nodes. @throws StoreError */
  newest(limit: number): readonly AuditRow[] {
    return this.#ledger.newest(limit).flatMap((line) => readRow(line) ?? [])
  }

  /** Ids of lines whose predecessor was changed or is missing; oldest first. @throws StoreError */
  breaks(): readonly string[] {
    const before = new Map<WriterId, string>()
    const broken: string[] = []
    for (const { key: id, state } of this.#rows.list('audit')) {
      if (state.shape !== 'owned' || state.value === null) continue
      const writer = id.slice(id.indexOf('-') + 1)
      const text = before.get(writer)
      // The first that is there: those before it may be forgotten by their age.
      if (text !== undefined && previousOf(state.value) !== hashOf(text)) broken.push(id)
      before.set(writer, state.value)
    }
    return broken
  }

  #previous(): string {
    for (;;) {
      const id = this.#recent.at(-1)
      if (id === undefined) return ''
      const line = this.#ledger.line(id)
      if (line !== null) return hashOf(line.text)
      this.#recent.pop()
    }
  }
}

function hashOf(text: string): string {
  return createHash('sha256').update(text).digest('hex')
}

function parse(text: string): Raw | null {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Raw) : null
  } catch {
    return null
  }
}

function previousOf(text: string): unknown {
  return parse(text)?.['previous']
}

/** Null: it is no line that this version can read. */
function readRow({ id, text }: Line): AuditRow | null {
  const { atMs, by, act, subject, detail } = parse(text) ?? {}
  if (typeof by !== 'string' || typeof act !== 'string' || typeof subject !== 'string') return null
  if (typeof detail !== 'string' || !Number.isSafeInteger(atMs)) return null
  return { id, atMs: Number(atMs), author: by, act, subject, detail }
}

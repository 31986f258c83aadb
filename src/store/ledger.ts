/**
 * Lines that are written once and never changed, the same on every node and in one order: the
 * history of changes, the audit. Each is a shared row named by the time and the writer.
 */
import { and, desc, eq, gt } from 'drizzle-orm'
import type { Clock } from '../base/clock.ts'
import type { SharedState } from '../config/merge.ts'
import type { StoreDatabase } from './db.ts'
import type { SharedRows } from './shared.ts'
import { lines } from './tables.ts'

/** Everybody forgets a line after this time. */
const KEPT_MS = 400 * 86_400_000
/** Of a stamp in base 36: so many digits for all safe integers. */
const DIGITS = 11

export type Line = {
  /** Sorts by time; unique in the cluster. */
  readonly id: string
  /** JSON, as its author wrote it. */
  readonly text: string
}

export class Ledger {
  readonly #store: StoreDatabase
  readonly #rows: SharedRows
  readonly #kind: string
  readonly #clock: Clock

  /**
   * Before `rows.start`. `aboutOf`: what a line is about, for `since`; null when the text is no
   * line of this kind, which is then not listed.
   */
  constructor(
    store: StoreDatabase,
    rows: SharedRows,
    kind: string,
    deps: { readonly clock: Clock; readonly aboutOf: (text: string) => string | null },
  ) {
    this.#store = store
    this.#rows = rows
    this.#kind = kind
    this.#clock = deps.clock
    const remove = (id: string) =>
      store.query
        .delete(lines)
        .where(and(eq(lines.kind, kind), eq(lines.id, id)))
        .run()
    rows.project(kind, {
      version: 1,
      clear: () => store.query.delete(lines).where(eq(lines.kind, kind)).run(),
      apply: (id, state) => {
        const text = textOf(state)
        const about =
          text === null || !/^[0-9a-z]{11}-[0-9a-f]{12}$/.test(id) ? null : deps.aboutOf(text)
        if (about === null) remove(id)
        else store.query.insert(lines).values({ kind, id, about }).onConflictDoNothing().run()
      },
      forget: remove,
    })
  }

  /** Gives the id. Inside a transaction of the rows. @throws StoreError */
  append(author: string, text: string): string {
    const id = `${this.#rows.stamps.next().toString(36).padStart(DIGITS, '0')}-${this.#rows.writer}`
    this.#rows.put(this.#kind, id, [1, 0], text, author, this.#clock.wallMs() + KEPT_MS)
    return id
  }

  /** Null: no such line, or forgotten. @throws StoreError */
  line(id: string): Line | null {
    const text = textOf(this.#rows.owned(this.#kind, id))
    return text === null ? null : { id, text }
  }

  /** Newest first. @throws StoreError */
  newest(limit: number): readonly Line[] {
    return this.#linesOf(
      this.#store.attempt(() =>
        this.#store.query
          .select({ id: lines.id })
          .from(lines)
          .where(eq(lines.kind, this.#kind))
          .orderBy(desc(lines.id))
          .limit(limit)
          .all(),
      ),
    )
  }

  /** Lines about `about` that are later than line `id`, newest first. @throws StoreError */
  since(about: string, id: string): readonly Line[] {
    return this.#linesOf(
      this.#store.attempt(() =>
        this.#store.query
          .select({ id: lines.id })
          .from(lines)
          .where(and(eq(lines.kind, this.#kind), eq(lines.about, about), gt(lines.id, id)))
          .orderBy(desc(lines.id))
          .limit(1_000)
          .all(),
      ),
    )
  }

  #linesOf(ids: readonly { readonly id: string }[]): readonly Line[] {
    return ids.flatMap(({ id }) => this.line(id) ?? [])
  }
}

function textOf(state: SharedState | null): string | null {
  return state?.shape === 'owned' ? state.value : null
}

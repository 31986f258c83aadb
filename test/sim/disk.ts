/**
 * The disk of a simulated machine: a real SQLite in memory behind StoreDatabase. A commit of
 * state.db survives a crash; trace.db goes back to its last checkpoint; a rollback brings back an
 * image of before; and the nth commit may be refused.
 */
import { Database } from 'bun:sqlite'
import type { Observer } from '../../src/base/observe.ts'
import { StoreDatabase } from '../../src/store/db.ts'
import { STATE_MIGRATIONS, TRACE_MIGRATIONS } from '../../src/store/migrations/index.ts'
import type { Dice } from './dice.ts'

export type DiskFault = 'SQLITE_FULL' | 'SQLITE_IOERR'

/** A disk as it was at one instant, and whatever the simulation remembers with it. */
export type Image<Memory> = {
  readonly atMs: number
  readonly state: Uint8Array
  readonly trace: Uint8Array
  readonly memory: Memory
}

/** What one process does with the disk; ends with it. */
export type Opened = { readonly state: StoreDatabase; readonly trace: StoreDatabase }

let blank: { readonly state: Uint8Array; readonly trace: Uint8Array } | null = null

/** Both databases as every node begins, migrated once for all simulations. */
function blankImages(): { readonly state: Uint8Array; readonly trace: Uint8Array } {
  if (blank === null) {
    const images = [STATE_MIGRATIONS, TRACE_MIGRATIONS].map((migrations) => {
      const sqlite = new Database(':memory:')
      for (const { sql } of migrations) sqlite.run(sql)
      return sqlite.serialize()
    })
    blank = { state: images[0] as Uint8Array, trace: images[1] as Uint8Array }
  }
  return blank
}

export class SimDisk {
  readonly #dice: Dice
  #state: Database
  #trace: Database
  /** What trace.db holds on the platter. */
  #traceSynced: Uint8Array
  #traceCommits = 0
  #fault: { readonly code: DiskFault; after: number; times: number } | null = null
  /** Commits of state.db that were refused, by their code. */
  refused = 0
  /** Called after each commit of state.db. */
  onCommit: (() => void) | null = null
  #opened: { isOver: boolean } | null = null

  constructor(dice: Dice, from: { readonly state: Uint8Array; readonly trace: Uint8Array } | null) {
    const { state, trace } = from ?? blankImages()
    this.#dice = dice
    this.#state = Database.deserialize(state)
    this.#trace = Database.deserialize(trace)
    this.#traceSynced = trace
  }

  open(observer: Observer): Opened {
    if (this.#opened !== null) this.#opened.isOver = true
    const run = { isOver: false }
    this.#opened = run
    this.#state.run('PRAGMA foreign_keys = ON')
    this.#trace.run('PRAGMA foreign_keys = ON')
    return {
      state: new SimStore(this.#state, 'state.db', observer, run, {
        refuse: () => this.#draw(),
        committed: () => this.onCommit?.(),
      }),
      trace: new SimStore(this.#trace, 'trace.db', observer, run, {
        refuse: () => null,
        committed: () => this.#traceCommitted(),
      }),
    }
  }

  /** The process is gone: nothing of it may write any more. trace.db loses what was not synced. */
  crash(): void {
    if (this.#opened !== null) this.#opened.isOver = true
    this.#opened = null
    this.#trace.close()
    this.#trace = Database.deserialize(this.#traceSynced)
  }

  image(): { readonly state: Uint8Array; readonly trace: Uint8Array } {
    return { state: this.#state.serialize(), trace: this.#trace.serialize() }
  }

  /** The disk of before; the process must have ended. */
  restore(image: { readonly state: Uint8Array; readonly trace: Uint8Array }): void {
    this.#state.close()
    this.#trace.close()
    this.#state = Database.deserialize(image.state)
    this.#trace = Database.deserialize(image.trace)
    this.#traceSynced = image.trace
  }

  /** From the commit after `after` others on, `times` commits are refused with `code`. */
  fail(code: DiskFault, after: number, times: number): void {
    this.#fault = { code, after, times }
  }

  heal(): void {
    this.#fault = null
  }

  /** Reads state.db behind the back of whoever has it open. */
  peek<Row>(sql: string): readonly Row[] {
    return this.#state.query<Row, []>(sql).all()
  }

  close(): void {
    if (this.#opened !== null) this.#opened.isOver = true
    this.#state.close()
    this.#trace.close()
  }

  #draw(): DiskFault | null {
    const fault = this.#fault
    if (fault === null) return null
    if (fault.after > 0) {
      fault.after -= 1
      return null
    }
    fault.times -= 1
    if (fault.times <= 0) this.#fault = null
    this.refused += 1
    return fault.code
  }

  #traceCommitted(): void {
    this.#traceCommits += 1
    if (this.#dice.below(20) === 0) this.#traceSynced = this.#trace.serialize()
  }
}

type Watch = { refuse(): DiskFault | null; committed(): void }

class SimStore extends StoreDatabase {
  readonly #run: { readonly isOver: boolean }
  readonly #watch: Watch

  constructor(
    sqlite: Database,
    name: string,
    observer: Observer,
    run: { readonly isOver: boolean },
    watch: Watch,
  ) {
    super(sqlite, name, observer)
    this.#run = run
    this.#watch = watch
  }

  override transact<Result>(act: () => Result): Result {
    if (this.#run.isOver) throw new Error('a process that has ended writes to its disk')
    if (this.sqlite.inTransaction) return super.transact(act)
    const refusal = this.#watch.refuse()
    const result = super.transact(() => {
      const inner = act()
      // At the commit, when everything has been done: the worst moment.
      if (refusal !== null) throw Object.assign(new Error('injected'), { code: refusal })
      return inner
    })
    this.#watch.committed()
    return result
  }
}

/**
 * The replicated rows as the rest of the store uses them: write here, read here, and be told in
 * the same transaction what changed, from whichever node it came.
 */
import type { Cell, OwnedRow, SharedRow, SharedState, Vector } from '../config/merge.ts'
import type { StampClock } from '../config/stamp.ts'
import type { Feed } from './feed.ts'

/**
 * Keeps tables of its own in step with the rows of one kind: an index, an order, a search. It is
 * called inside the transaction of every change, also when the rows are read anew after the tables
 * of a projection were emptied. It never writes shared rows.
 */
export type Projection = {
  /** Grows when the tables of the projection must be filled anew at the next start. */
  readonly version: number
  /** Empties the tables of the projection. */
  clear(): void
  /** `state` is now what the row says; `before` null: it was not there. */
  apply(key: string, state: SharedState, before: SharedState | null): void
  /** The row is forgotten: its time is over, or its tombstone was collected. */
  forget(key: string): void
}

/** Rows of one kind that changed in one commit. */
export type Changed = {
  readonly kind: string
  readonly keys: readonly string[]
  /** Written by this process, or come from a peer. */
  readonly origin: 'own' | 'peer'
}

export interface SharedRows extends Feed {
  readonly stamps: StampClock

  /**
   * Runs `act` as one transaction of the state database with all its shared writes: one commit,
   * synced, then announced. Inside another one it joins that. `act` never awaits.
   * @throws StoreError; what `act` throws, and nothing is changed
   */
  transact<Result>(act: () => Result): Result

  cell(kind: string, key: string): Cell | null
  owned(kind: string, key: string): OwnedRow | null
  /** Rows of a kind whose key begins with `prefix`, by key; tombstones included. */
  list(kind: string, prefix?: string): readonly SharedRow[]

  /**
   * Writes a cell; null deletes. `seen` as `writeCell` takes it: null overwrites all that is known
   * here. Inside `transact`, or in one of its own. @throws StoreError
   */
  write(kind: string, key: string, value: string | null, author: string, seen?: Vector | null): Cell
  /**
   * Puts an owned row; it must be of a higher version than what is there (asserted). `untilMs`:
   * when everybody may forget it. @throws StoreError
   */
  put(
    kind: string,
    key: string,
    version: readonly [term: number, revision: number],
    value: string | null,
    author: string,
    untilMs: number | null,
  ): OwnedRow

  /** Once per kind, before `start`. */
  project(kind: string, projection: Projection): void
  /** After a commit that changed rows of `kind`; in the order of registration. */
  onChange(kind: string, listener: (changed: Changed) => void): void
  /** Fills projections whose version changed. Once, after all are registered. @throws StoreError */
  start(): void

  /** Applies parked rows whose time has come. Gives how many still wait. @throws StoreError */
  settle(): number
  readonly parked: number
  /**
   * Forgets rows whose time is over, and tombstones older than 24 h that `durable` covers: what
   * every other member has durably acknowledged, null while one of them is unknown. They stay for
   * 400 days where no reader of this node sees them, for a peer that comes with an older version.
   * At most `limit` rows. Gives how many went. @throws StoreError
   */
  collect(durable: Vector | null, limit: number): number
  /**
   * Forgets every shared row, cursor and vector, for a node that joins. Owned rows of the kinds in
   * `keep` stay, as writes of this process. @throws StoreError
   */
  reset(keep: readonly string[]): void
}

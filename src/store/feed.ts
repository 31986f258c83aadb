/**
 * What a replicated store shows to whoever carries its rows to other nodes. The carrier knows
 * nothing of the rows: it moves them, in the order in which they were applied here.
 *
 * Four rules, each paid for by a simulated loss: a peer's vector is taken over only at the end of
 * its batch; a generation that is not known starts at zero; a writer id is new at every start; what
 * was forgotten is still given to who does not cover it, for its disk may have gone back.
 */
import type { NodeId } from '../base/ids.ts'
import type { Vector, WriterId } from '../config/merge.ts'

/** A row as JSON; the feed that gets it checks it. */
export type WireRow = unknown

/** Place in the order in which a feed applied its rows; from 1, grows. */
export type Place = number

export type Cursor = { readonly generation: string; readonly at: Place }

export type Outgoing = {
  readonly rows: readonly WireRow[]
  /** The reader has everything up to here when it applied the rows. */
  readonly upto: Place
  /** `upto` was the head when this was read. */
  readonly final: boolean
}

export type Incoming = {
  /** From whom; its cursor moves. */
  readonly peer: NodeId
  readonly rows: readonly WireRow[]
  /**
   * `batch`: an answer of the peer's feed in its order; `vector` only at its end (`final`).
   * `push`: rows of the peer's own writer, all that it wrote in (after, upto]; no cursor moves,
   * and that writer's count moves only when everything up to `after` is covered.
   * `repair`: rows that a digest found different; nothing else moves.
   */
  readonly as:
    | { readonly kind: 'batch'; readonly cursor: Cursor; readonly vector: Vector | null }
    | {
        readonly kind: 'push'
        readonly writer: WriterId
        readonly after: number
        readonly upto: number
      }
    | { readonly kind: 'repair' }
}

export type Applied = {
  /** Rows that changed something here. */
  readonly changed: number
  /** Rows that wait because their stamps are in the future. */
  readonly parked: number
}

/** What this process wrote in one commit, for whoever listens for it. */
export type OwnWrite = {
  /** May be read only when asked for, and that is dear: leave it alone (no destructuring) till then. */
  readonly rows: readonly WireRow[]
  readonly writer: WriterId
  readonly after: number
  readonly upto: number
}

/** 256 sums over the hashes of the rows, by the hash of their names, and one over all. */
export type Digest = { readonly root: string; readonly leaves: readonly string[] }

export interface Feed {
  readonly name: 'state' | 'trace'
  /** Random at every opening: cursors into this feed hold for one generation. */
  readonly generation: string
  /** The writer of this process. */
  readonly writer: WriterId
  readonly head: Place
  /** Durable: a crash does not take back what it covers. Frozen below what is parked. */
  vector(): Vector
  /**
   * Rows applied after `after` that a reader who covers `seen` does not have, in order, about
   * `bytesMax` of JSON (at least one row). Scans a bounded number of rows: none
   * and not final is an answer. @throws StoreError
   */
  read(after: Place, seen: Vector, bytesMax: number): Outgoing
  /** One transaction. @throws RefusalError for rows that are none (nothing changed); StoreError */
  apply(incoming: Incoming): Applied
  /** How far this node has read the feed of `peer`; null: not at all. */
  cursor(peer: NodeId): Cursor | null
  /** Called after every commit of rows of this process, in order. */
  onOwn(listener: (write: OwnWrite) => void): void
  /** Null for a feed without digests. Rows younger than 10 s count too: compare at equal vectors. */
  digest(): Digest | null
  /** Rows of one leaf, 0..255, as `name` and `hash`. */
  leaf(leaf: number): readonly { readonly name: string; readonly hash: string }[]
  /** Also of what was forgotten. */
  rowsOf(names: readonly string[]): readonly WireRow[]
}

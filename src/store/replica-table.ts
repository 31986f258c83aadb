/** The tables of the replicated rows: every statement that reads or writes them. */
import type { StoreDatabase } from './db.ts'

/** How a row stands: `dead` of its table. */
export const LIVING = 0
export const DELETED = 1
export const HIDDEN = 2

type Named = { readonly kind: string; readonly key: string; readonly state: string }
type Keyed = { readonly key: string; readonly state: string }
type Counted = { readonly writer: string; readonly seq: number }
type Scanned = {
  readonly kind: string
  readonly key: string
  readonly writer: string | null
  readonly seq: number | null
  readonly place: number
}
type Summed = {
  readonly kind: string
  readonly key: string
  readonly hash: number
  readonly untilMs: number | null
}

export function prepare({ sqlite }: StoreDatabase) {
  return {
    last: sqlite.query<{ place: number; stamp: number }, []>(
      'SELECT coalesce(max(place), 0) AS place, coalesce(max(stamp), 0) AS stamp FROM shared',
    ),
    get: sqlite.query<{ state: string; dead: number }, [string, string]>(
      'SELECT state, dead FROM shared WHERE kind = ? AND key = ?',
    ),
    put: sqlite.query<
      null,
      [
        string,
        string,
        string,
        string | null,
        number | null,
        number,
        number | null,
        number,
        number,
        number,
      ]
    >(
      `INSERT INTO shared (kind, key, state, writer, seq, stamp, until_ms, hash, dead, place)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
       ON CONFLICT DO UPDATE SET state = excluded.state, writer = excluded.writer,
         seq = excluded.seq, stamp = excluded.stamp, until_ms = excluded.until_ms,
         hash = excluded.hash, dead = excluded.dead, place = excluded.place`,
    ),
    remove: sqlite.query<null, [string, string]>('DELETE FROM shared WHERE kind = ? AND key = ?'),
    list: sqlite.query<Keyed, [string, string, string]>(
      `SELECT key, state FROM shared
       WHERE kind = ? AND key >= ? AND key < ? AND dead <> ${HIDDEN} ORDER BY key`,
    ),
    ofKind: sqlite.query<Keyed, [string]>(
      `SELECT key, state FROM shared WHERE kind = ? AND dead <> ${HIDDEN} ORDER BY key`,
    ),
    everything: sqlite.query<Named, []>('SELECT kind, key, state FROM shared ORDER BY place'),
    after: sqlite.query<Scanned, [number, number]>(
      `SELECT kind, key, writer, seq, place FROM shared
       WHERE place > ? ORDER BY place LIMIT ?`,
    ),
    living: sqlite.query<Summed, []>(
      `SELECT kind, key, hash, until_ms AS untilMs FROM shared WHERE dead = ${LIVING}`,
    ),
    overdue: sqlite.query<Named, [number, number]>(
      'SELECT kind, key, state FROM shared WHERE until_ms < ? ORDER BY until_ms LIMIT ?',
    ),
    tombstones: sqlite.query<Named, [number, number]>(
      `SELECT kind, key, state FROM shared WHERE dead = ${DELETED} AND stamp < ?
       ORDER BY stamp LIMIT ?`,
    ),
    hide: sqlite.query<null, [string, number, string, string]>(
      `UPDATE shared SET state = ?, hash = ?, until_ms = NULL, dead = ${HIDDEN}
       WHERE kind = ? AND key = ?`,
    ),
    dropHidden: sqlite.query<null, [number]>(
      `DELETE FROM shared WHERE dead = ${HIDDEN} AND stamp < ?`,
    ),
    vector: sqlite.query<Counted, []>('SELECT writer, seq FROM vector ORDER BY writer'),
    setVector: sqlite.query<null, [string, number]>('INSERT OR REPLACE INTO vector VALUES (?, ?)'),
    clearVector: sqlite.query<null, []>('DELETE FROM vector'),
    cursor: sqlite.query<{ generation: string; place: number }, [string]>(
      'SELECT generation, place FROM feed_cursor WHERE peer = ?',
    ),
    setCursor: sqlite.query<null, [string, string, number]>(
      'INSERT OR REPLACE INTO feed_cursor VALUES (?, ?, ?)',
    ),
    clearCursors: sqlite.query<null, []>('DELETE FROM feed_cursor'),
    parkedCount: sqlite.query<{ count: number }, []>('SELECT count(*) AS count FROM parked'),
    getParked: sqlite.query<{ state: string }, [string, string]>(
      'SELECT state FROM parked WHERE kind = ? AND key = ?',
    ),
    putParked: sqlite.query<null, [string, string, string, number]>(
      'INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?)',
    ),
    parkedDue: sqlite.query<Named, [number]>(
      'SELECT kind, key, state FROM parked WHERE stamp <= ? ORDER BY stamp',
    ),
    unpark: sqlite.query<null, [string, string]>('DELETE FROM parked WHERE kind = ? AND key = ?'),
    clearParked: sqlite.query<null, []>('DELETE FROM parked'),
    frozen: sqlite.query<Counted, []>('SELECT writer, seq FROM frozen ORDER BY writer'),
    freeze: sqlite.query<null, [string, number]>('INSERT OR REPLACE INTO frozen VALUES (?, ?)'),
    unfreeze: sqlite.query<null, []>('DELETE FROM frozen'),
    projected: sqlite.query<{ version: number }, [string]>(
      'SELECT version FROM projection WHERE kind = ?',
    ),
    setProjected: sqlite.query<null, [string, number]>(
      'INSERT OR REPLACE INTO projection VALUES (?, ?)',
    ),
  }
}

/**
 * The tokens that this node has issued and alone redeems: in a table that is on no other node, so
 * single use, expiry and revocation need nobody's agreement.
 */
import type { Database } from 'bun:sqlite'
import type { StoreDatabase } from './db.ts'

export type IssuedToken = {
  /** 12 hex digits. */
  readonly id: string
  /** 32 bytes, from the secret of the token; the secret itself is nowhere. */
  readonly psk: Uint8Array
  readonly expiresMs: number
  readonly usesLeft: number
  /** Handshakes that failed under its name. */
  readonly failures: number
  /** The name that the new node is given; null: its own. */
  readonly name: string | null
}

type Row = {
  readonly id: string
  readonly psk: Uint8Array
  readonly expires_ms: number
  readonly uses_left: number
  readonly failures: number
  readonly name: string | null
}

/** Every method runs inside the transaction of its caller, when there is one. @throws StoreError */
export class IssuedTokens {
  readonly #store: StoreDatabase
  readonly #statements: ReturnType<typeof prepare>

  constructor(store: StoreDatabase) {
    this.#store = store
    this.#statements = prepare(store.sqlite)
  }

  get(id: string): IssuedToken | null {
    const row = this.#store.attempt(() => this.#statements.get.get(id))
    if (row === null) return null
    return {
      id: row.id,
      psk: new Uint8Array(row.psk),
      expiresMs: row.expires_ms,
      usesLeft: row.uses_left,
      failures: row.failures,
      name: row.name,
    }
  }

  add(token: Pick<IssuedToken, 'id' | 'psk' | 'expiresMs' | 'usesLeft' | 'name'>): void {
    const { id, psk, expiresMs, usesLeft, name } = token
    this.#store.attempt(() => this.#statements.add.run(id, psk, expiresMs, usesLeft, name))
  }

  /** One use less. False: there was none left. */
  use(id: string): boolean {
    return this.#store.attempt(() => this.#statements.use.run(id)).changes === 1
  }

  /** One failed handshake more; gives how many there were. */
  countFailure(id: string): number {
    this.#store.attempt(() => this.#statements.fail.run(id))
    return this.get(id)?.failures ?? 0
  }

  /** Forgets tokens that expired before `beforeMs`. */
  forget(beforeMs: number): void {
    this.#store.attempt(() => this.#statements.forget.run(beforeMs))
  }

  /** Forgets all: this node issued them for a cluster that it leaves. */
  clear(): void {
    this.#store.attempt(() => this.#statements.forget.run(Number.MAX_SAFE_INTEGER))
  }
}

function prepare(sqlite: Database) {
  return {
    get: sqlite.query<Row, [string]>('SELECT * FROM invitation WHERE id = ?'),
    add: sqlite.query<null, [string, Uint8Array, number, number, string | null]>(
      'INSERT INTO invitation (id, psk, expires_ms, uses_left, name) VALUES (?, ?, ?, ?, ?)',
    ),
    use: sqlite.query<null, [string]>(
      'UPDATE invitation SET uses_left = uses_left - 1 WHERE id = ? AND uses_left > 0',
    ),
    fail: sqlite.query<null, [string]>(
      'UPDATE invitation SET failures = failures + 1 WHERE id = ?',
    ),
    forget: sqlite.query<null, [number]>('DELETE FROM invitation WHERE expires_ms < ?'),
  }
}

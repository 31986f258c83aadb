/**
 * One SQLite database of a data directory: how it is opened, migrated, and how it fails.
 *
 * There are two. `state.db` holds what nothing else holds (settings, operators, claims): every
 * commit is synced. `trace.db` holds history, much and often: a power cut may take its last
 * second, never its consistency. Two files, because a commit of the first must not wait for the
 * pages of the second, a backup of the settings must not carry gigabytes, and a damaged history
 * must not keep a gateway from starting.
 */
import { Database } from 'bun:sqlite'
import { closeSync, existsSync, openSync, readSync } from 'node:fs'
import { basename } from 'node:path'
import { type SQL, sql } from 'drizzle-orm'
import { type BunSQLiteDatabase, drizzle } from 'drizzle-orm/bun-sqlite'
import type { SQLiteTable } from 'drizzle-orm/sqlite-core'
import type { Clock } from '../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import { newerFormat } from '../config/local.ts'
import type { Migration } from './migrations/index.ts'

export type OpenOptions = {
  /** FULL: synced at each commit. NORMAL: synced at each checkpoint, and checkpoints are ours. */
  readonly synchronous: 'FULL' | 'NORMAL'
  readonly migrations: readonly Migration[]
  /** Says what is wrong with what is in it, when the pages hold together; null: nothing. */
  readonly check?: (sqlite: Database) => string | null
  readonly clock: Clock
  readonly observer: Observer
}

export class StoreDatabase {
  /** The raw connection, for statements that are too hot for the query builder. */
  readonly sqlite: Database
  /** The query builder on the same connection; inside `transact` it belongs to the transaction. */
  readonly query: BunSQLiteDatabase
  readonly #name: string
  readonly #observer: Observer

  constructor(sqlite: Database, name: string, observer: Observer) {
    this.sqlite = sqlite
    this.query = drizzle(sqlite)
    this.#name = name
    this.#observer = observer
  }

  /**
   * Runs `act` as one transaction; it is committed when this returns and undone when it throws.
   * `act` never awaits. @throws StoreError when the disk or the database refuses
   */
  transact<Result>(act: () => Result): Result {
    return this.attempt(() => this.sqlite.transaction(act).immediate())
  }

  /** Runs `act`, which only reads, with one lock for all it asks. @throws StoreError as `transact` */
  read<Result>(act: () => Result): Result {
    return this.attempt(() => this.sqlite.transaction(act).deferred())
  }

  /** Rows of `table` that match, counted up to `most`; `most` + 1 means more. */
  count(table: SQLiteTable, most: number, condition: SQL | undefined): number {
    const matching = this.query
      .select({ one: sql`1`.as('one') })
      .from(table)
      .where(condition)
      .limit(most + 1)
      .as('matching')
    return this.query.select({ count: sql<number>`count(*)` }).from(matching).get()?.count ?? 0
  }

  /** Runs a read or a single statement. @throws StoreError as `transact` */
  attempt<Result>(act: () => Result): Result {
    try {
      return act()
    } catch (error) {
      const code = sqliteCode(error)
      if (code === null) throw error
      this.#observer.emit('store.failed', { database: this.#name, code, cause: messageOf(error) })
      throw new StoreError(`${this.#name}: ${messageOf(error)}`, {
        remedy: ['SQLITE_FULL', 'SQLITE_BUSY'].includes(code) ? 'retry' : 'ask-operator',
        cause: error,
      })
    }
  }

  /** Bytes that wait in the write-ahead log are moved into the database. Costs a sync. */
  checkpoint(mode: 'PASSIVE' | 'TRUNCATE'): void {
    this.attempt(() => this.sqlite.run(`PRAGMA wal_checkpoint(${mode})`))
  }

  /** Never throws: what a full disk leaves in the log is read from there at the next start. */
  close(): void {
    try {
      this.checkpoint('TRUNCATE')
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
    } finally {
      this.sqlite.close(false)
    }
  }
}

/**
 * Opens or makes the database at `path` and brings it to the newest migration.
 * @throws RefusalError when a newer version wrote it (nothing is changed then), or it is damaged
 * @throws StoreError when the disk refuses
 */
export function openDatabase(path: string, options: OpenOptions): StoreDatabase {
  const { synchronous, migrations, clock, observer } = options
  refuseNewer(path, migrations)
  // Made by us, so that it and its log are readable by nobody else.
  if (!existsSync(path)) closeSync(openSync(path, 'a', 0o600))
  const sqlite = new Database(path)
  const store = new StoreDatabase(sqlite, basename(path), observer)
  try {
    sqlite.run('PRAGMA busy_timeout = 5000')
    checkVersion(sqlite, migrations)
    sqlite.run('PRAGMA journal_mode = WAL')
    sqlite.run('PRAGMA foreign_keys = ON')
    sqlite.run(`PRAGMA synchronous = ${synchronous}`)
    sqlite.run('PRAGMA journal_size_limit = 16777216')
    if (synchronous === 'NORMAL') sqlite.run('PRAGMA wal_autocheckpoint = 0')
    store.transact(() => migrate(sqlite, migrations, clock))
    const wrong = options.check?.(sqlite) ?? null
    if (wrong !== null) throw new DamagedError(path, new Error(wrong))
    return store
  } catch (error) {
    sqlite.close(false)
    const code = sqliteCode(error) ?? sqliteCode(error instanceof StoreError ? error.cause : null)
    if (code === 'SQLITE_NOTADB' || code === 'SQLITE_CORRUPT') throw new DamagedError(path, error)
    if (code !== null && !(error instanceof StoreError)) {
      throw new StoreError(`${basename(path)}: ${messageOf(error)}`, {
        remedy: 'ask-operator',
        cause: error,
      })
    }
    throw error
  }
}

/** The file is there and is no database that SQLite can read. */
export class DamagedError extends RefusalError {
  override name = 'DamagedError'

  constructor(path: string, cause: unknown) {
    super(
      'unavailable',
      'data',
      `The database ${path} is damaged: ${messageOf(cause)}.`,
      'When other nodes of its cluster run, start once with --rebuild-state: it is set aside, and read anew from them. Else restore it from a backup, or move it away to begin without it.',
    )
  }
}

/**
 * Looks before anything is touched: an ordinary connection would move the log of a crashed newer
 * version into its database when it closes. @throws RefusalError
 */
export function refuseNewer(path: string, migrations: readonly Migration[]): void {
  if (headerVersion(path) > migrations.length) throw newerFormat()
  if (!existsSync(`${path}-wal`)) return
  let reader: Database
  try {
    reader = new Database(path, { readonly: true })
  } catch {
    // Whatever is wrong with it, the real opening says it.
    return
  }
  try {
    checkVersion(reader, migrations)
  } catch (error) {
    if (sqliteCode(error) === null) throw error
  } finally {
    reader.close(false)
  }
}

function checkVersion(sqlite: Database, migrations: readonly Migration[]): void {
  const known = new Set(migrations.map(({ tag }) => tag))
  const isNewer =
    userVersion(sqlite) > migrations.length || appliedTags(sqlite).some((tag) => !known.has(tag))
  if (isNewer) throw newerFormat()
}

function migrate(sqlite: Database, migrations: readonly Migration[], clock: Clock): void {
  const applied = new Set(appliedTags(sqlite))
  sqlite.run(
    'CREATE TABLE IF NOT EXISTS migration (tag TEXT PRIMARY KEY, applied_ms INTEGER NOT NULL) STRICT',
  )
  for (const { tag, sql } of migrations) {
    if (applied.has(tag)) continue
    sqlite.run(sql)
    sqlite.run('INSERT INTO migration VALUES (?, ?)', [tag, clock.wallMs()])
  }
  if (userVersion(sqlite) !== migrations.length) {
    sqlite.run(`PRAGMA user_version = ${migrations.length}`)
  }
}

/** By tag and not by number: two branches that each add one must not hide each other's. */
function appliedTags(sqlite: Database): readonly string[] {
  const there = sqlite.query("SELECT 1 FROM sqlite_schema WHERE name = 'migration'").get()
  if (there === null) return []
  return sqlite
    .query<{ tag: string }, []>('SELECT tag FROM migration')
    .all()
    .map(({ tag }) => tag)
}

function userVersion(sqlite: Database): number {
  const row = sqlite.query<{ user_version: number }, []>('PRAGMA user_version').get()
  return row?.user_version ?? 0
}

/** `user_version` as the file header has it, read without touching the database; 0 when none. */
function headerVersion(path: string): number {
  if (!existsSync(path)) return 0
  const file = openSync(path, 'r')
  try {
    const header = Buffer.alloc(100)
    const length = readSync(file, header, 0, 100, 0)
    if (length < 100 || !header.toString('latin1').startsWith('SQLite format 3')) return 0
    return header.readInt32BE(60)
  } finally {
    closeSync(file)
  }
}

/** The code of an error of SQLite, also inside the wrapper of the query builder; else null. */
function sqliteCode(error: unknown): string | null {
  if (!(error instanceof Error)) return null
  if ('code' in error && String(error.code).startsWith('SQLITE_')) return String(error.code)
  return error.cause === undefined ? null : sqliteCode(error.cause)
}

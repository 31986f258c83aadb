/** Opens both databases of a data directory. */
import type { Database } from 'bun:sqlite'
import { renameSync } from 'node:fs'
import { join } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { removeFile } from '../base/files.ts'
import type { Observer } from '../base/observe.ts'
import { readNodeFile } from '../config/local.ts'
import { DamagedError, openDatabase, refuseNewer, type StoreDatabase } from './db.ts'
import { hashOfRow } from './digest.ts'
import { STATE_MIGRATIONS, TRACE_MIGRATIONS } from './migrations/index.ts'

export type Databases = { readonly state: StoreDatabase; readonly trace: StoreDatabase }

/**
 * Refuses a directory that a newer version wrote to, without touching anything in it: for the
 * very beginning of a start, before the lock and `openNodeFile`. @throws RefusalError
 */
export function refuseNewerData(directory: string): void {
  readNodeFile(directory)
  refuseNewer(join(directory, 'state.db'), STATE_MIGRATIONS)
  refuseNewer(join(directory, 'trace.db'), TRACE_MIGRATIONS)
}

/**
 * Call `openNodeFile` before: it refuses a directory of a newer version before anything is
 * touched. A damaged trace.db is moved aside and begun anew, loudly: history is worth less than
 * mail. @throws RefusalError for newer data or a damaged state.db; StoreError
 */
export function openDatabases(
  directory: string,
  deps: { readonly clock: Clock; readonly observer: Observer },
): Databases {
  const state = openDatabase(join(directory, 'state.db'), {
    synchronous: 'FULL',
    migrations: STATE_MIGRATIONS,
    check: wrongIn,
    ...deps,
  })
  try {
    return { state, trace: openTrace(join(directory, 'trace.db'), deps) }
  } catch (error) {
    state.close()
    throw error
  }
}

/**
 * A page that is damaged, or a row that is not what was written: peers must not get it. About 0.4 s
 * for 100,000 rows.
 */
function wrongIn(sqlite: Database): string | null {
  const said = sqlite.query<{ quick_check: string }, []>('PRAGMA quick_check(1)').get()
  if (said?.quick_check !== 'ok') return said?.quick_check ?? 'it cannot be checked'
  const rows = sqlite.query<Row, []>('SELECT kind, key, state, hash FROM shared')
  for (const { kind, key, state, hash } of rows.iterate()) {
    if (hashOfRow(kind, key, state) !== hash)
      return `the row ${kind}/${key} is not what was written`
  }
  return null
}

type Row = {
  readonly kind: string
  readonly key: string
  readonly state: string
  readonly hash: number
}

function openTrace(
  path: string,
  deps: { readonly clock: Clock; readonly observer: Observer },
): StoreDatabase {
  const options = { synchronous: 'NORMAL', migrations: TRACE_MIGRATIONS, ...deps } as const
  try {
    return openDatabase(path, options)
  } catch (error) {
    if (!(error instanceof DamagedError)) throw error
    const aside = `${path}.damaged-${deps.clock.wallMs()}`
    renameSync(path, aside)
    removeFile(`${path}-wal`)
    removeFile(`${path}-shm`)
    deps.observer.emit('trace.replaced', { moved: aside, cause: messageOf(error) })
    return openDatabase(path, options)
  }
}

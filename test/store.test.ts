/** What survives a restart, and what a damaged, full or newer database does: the two databases. */
import { afterEach, describe, expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import { StoreError } from '../src/base/errors.ts'
import { Observer } from '../src/base/observe.ts'
import { openDatabase } from '../src/store/db.ts'
import {
  type Migration,
  STATE_MIGRATIONS,
  TRACE_MIGRATIONS,
} from '../src/store/migrations/index.ts'
import { openDatabases, refuseNewerData } from '../src/store/open.ts'
import * as tables from '../src/store/tables.ts'
import { ManualClock } from './clock.ts'
import { refusal, rooms } from './rooms.ts'

const { ended, room } = rooms()
const made: string[] = []

function temporary(): string {
  const path = mkdtempSync(join(tmpdir(), 'postern-'))
  made.push(path)
  return path
}

afterEach(() => {
  for (const path of made.splice(0)) rmSync(path, { recursive: true, force: true })
})

/** Name, size and digest of every file: what "nothing changed" means. */
function fingerprint(directory: string): readonly string[] {
  return readdirSync(directory)
    .filter((name) => name !== 'held' && name !== 'learned')
    .sort()
    .map((name) => {
      const bytes = readFileSync(join(directory, name))
      return `${name} ${bytes.length} ${createHash('sha256').update(bytes).digest('hex')}`
    })
}

describe('a database', () => {
  const options = (migrations: readonly Migration[]) => {
    const clock = new ManualClock()
    return {
      synchronous: 'FULL',
      migrations,
      clock,
      observer: new Observer(clock, () => {}),
    } as const
  }
  const later = { tag: 'state-0099-later', sql: 'CREATE TABLE later (x INTEGER) STRICT' }

  test('has the tables that the query builder believes in, all of them strict', () => {
    const { databases } = room()
    for (const table of Object.values(tables)) {
      const { name, columns } = getTableConfig(table)
      const store = ['trace', 'trace_event', 'judgement', 'sighting'].includes(name)
        ? databases.trace
        : databases.state
      const there = store.sqlite
        .query<{ name: string; type: string; notnull: number; pk: number }, []>(
          `PRAGMA table_info(${name})`,
        )
        .all()
      const described = columns.map((column) => ({
        name: column.name,
        type: column.getSQLType().toUpperCase(),
        notnull: column.notNull,
      }))
      expect({ name, columns: described }).toEqual({
        name,
        columns: there.map((column) => ({
          name: column.name,
          type: column.type,
          notnull: column.notnull === 1 || column.pk > 0,
        })),
      })
    }
    for (const { sqlite } of [databases.state, databases.trace]) {
      const loose = sqlite
        .query<{ name: string }, []>(
          "SELECT name FROM pragma_table_list WHERE schema = 'main' AND strict = 0 AND name NOT LIKE 'sqlite_%'",
        )
        .all()
      expect(loose).toEqual([])
    }
  })

  test('syncs every commit of the state and not those of the trace, and keeps its references', () => {
    const { databases } = room()
    const pragma = (store: typeof databases.state, name: string) =>
      Object.values(store.sqlite.query(`PRAGMA ${name}`).get() ?? {})[0]
    expect(pragma(databases.state, 'synchronous')).toBe(2)
    expect(pragma(databases.trace, 'synchronous')).toBe(1)
    expect(pragma(databases.state, 'journal_mode')).toBe('wal')
    expect(pragma(databases.state, 'foreign_keys')).toBe(1)
  })

  test('is readable by its owner only', () => {
    const { directory } = room()
    for (const name of [
      'state.db',
      'state.db-wal',
      'trace.db',
      'trace.db-wal',
      'held.key',
      'setup-code',
    ]) {
      expect({ name, mode: statSync(join(directory, name)).mode & 0o077 }).toEqual({
        name,
        mode: 0,
      })
    }
  })

  test('of a newer version is refused, and nothing at all is changed', () => {
    const directory = temporary()
    const path = join(directory, 'state.db')
    openDatabase(path, options([...STATE_MIGRATIONS, later])).close()
    const before = fingerprint(directory)
    const error = refusal(() => openDatabase(path, options(STATE_MIGRATIONS)))
    expect(error.message).toContain('newer version')
    expect(error.field).toBe('data')
    expect(fingerprint(directory)).toEqual(before)
  })

  test('of a newer version is refused also when a crash left that in the log only', () => {
    const directory = temporary()
    const path = join(directory, 'state.db')
    openDatabase(path, options(STATE_MIGRATIONS)).close()
    const newer = openDatabase(path, options([...STATE_MIGRATIONS, later]))
    const copy = join(directory, 'copy')
    mkdirSync(copy)
    for (const name of ['state.db', 'state.db-wal'])
      copyFileSync(join(directory, name), join(copy, name))
    newer.close()
    const before = fingerprint(copy)
    expect(
      refusal(() => openDatabase(join(copy, 'state.db'), options(STATE_MIGRATIONS))).message,
    ).toContain('newer version')
    expect(fingerprint(copy).filter((line) => !line.startsWith('state.db-shm'))).toEqual([
      ...before,
    ])
  })

  test('and node file of a newer version are found before anything is touched', () => {
    const first = room()
    const { directory } = first
    ended(first)
    made.push(directory)
    refuseNewerData(directory)
    openDatabase(
      join(directory, 'trace.db'),
      options([...TRACE_MIGRATIONS, { ...later, tag: 'trace-0099' }]),
    ).close()
    const before = fingerprint(directory)
    expect(refusal(() => refuseNewerData(directory)).message).toContain('newer version')
    expect(fingerprint(directory)).toEqual(before)
  })

  test('gets the migrations that it lacks, also one that another branch numbered before', () => {
    const path = join(temporary(), 'state.db')
    const earlier = { tag: 'state-0000-branch', sql: 'CREATE TABLE branch (x INTEGER) STRICT' }
    openDatabase(path, options([...STATE_MIGRATIONS, later])).close()
    const store = openDatabase(path, options([earlier, ...STATE_MIGRATIONS, later]))
    expect(store.sqlite.query('SELECT count(*) AS n FROM branch').get()).toEqual({ n: 0 })
    store.close()
  })

  test('whose migration fails is as it was', () => {
    const path = join(temporary(), 'state.db')
    openDatabase(path, options(STATE_MIGRATIONS)).close()
    const broken = { tag: 'x', sql: 'CREATE TABLE later (x INTEGER) STRICT; NO SQL' }
    expect(() => openDatabase(path, options([...STATE_MIGRATIONS, broken]))).toThrow(StoreError)
    openDatabase(path, options([...STATE_MIGRATIONS, later])).close()
  })

  test('that is damaged is refused when it is the state, and moved aside when it is the trace (K20)', () => {
    const directory = temporary()
    const clock = new ManualClock()
    const lines: string[] = []
    const observer = new Observer(clock, (text) => lines.push(text))
    writeFileSync(join(directory, 'trace.db'), 'no database'.repeat(1_000))
    const databases = openDatabases(directory, { clock, observer })
    databases.state.close()
    databases.trace.close()
    observer.flush()
    expect(lines.join()).toContain('trace.replaced')
    expect(readdirSync(directory).some((name) => name.startsWith('trace.db.damaged-'))).toBe(true)
    writeFileSync(join(directory, 'state.db'), 'no database'.repeat(1_000))
    const error = refusal(() => openDatabases(directory, { clock, observer }))
    expect(error.code).toBe('unavailable')
    expect(error.advice).toContain('backup')
  })

  test('that is full throws StoreError to come again, says so, and keeps what it had', () => {
    const { changes, databases, live, observer } = room()
    changes.setSetting('cli', 'policy.hold', 6)
    const { page_count } = databases.state.sqlite
      .query<{ page_count: number }, []>('PRAGMA page_count')
      .get() ?? { page_count: 0 }
    databases.state.sqlite.run(`PRAGMA max_page_count = ${page_count}`)
    const recipients = Array.from({ length: 40_000 }, (_, index) => `r${index}`)
    const domain = {
      name: 'a.example',
      nextHops: [],
      recipients,
      hold: null,
      reject: null,
      enforce: null,
    }
    let thrown: unknown
    try {
      changes.putDomain('cli', domain)
    } catch (error) {
      thrown = error
    }
    expect(thrown).toBeInstanceOf(StoreError)
    expect((thrown as StoreError).remedy).toBe('retry')
    expect(observer.count('store_failed_total')).toBe(1)
    expect(live.current.domains.size).toBe(0)
    expect(changes.history(10)).toHaveLength(1)
  })

  test('keeps every setting and claim that was answered, however often the process is killed', async () => {
    const directory = temporary()
    const child = join(import.meta.dir, 'process', 'committer.ts')
    let answered = 0
    for (let round = 0; round < 6; round++) {
      const process = Bun.spawn(['bun', child, directory, String(answered)], {
        stdout: 'pipe',
        stderr: 'inherit',
      })
      const reader = process.stdout.getReader()
      let text = ''
      // Killed in the middle of a stream of commits, each time at another point.
      while (text.split('\n').length < 10 + round * 13) {
        const { done, value } = await reader.read()
        expect(done).toBe(false)
        text += new TextDecoder().decode(value)
      }
      process.kill('SIGKILL')
      await process.exited
      for (;;) {
        const { done, value } = await reader.read()
        if (done) break
        text += new TextDecoder().decode(value)
      }
      answered = Number(text.trimEnd().split('\n').at(-1))
      const after = room(directory)
      expect(Number(after.live.current.settings['limits.messages'])).toBeGreaterThanOrEqual(
        (answered % 1_000) + 1,
      )
      const pending = after.quarantine.pendingReleases()
      expect(pending.length).toBeGreaterThanOrEqual(answered)
      expect(pending.length).toBeLessThanOrEqual(answered + 1)
      answered = pending.length
      ended(after)
    }
    expect(answered).toBeGreaterThan(100)
  }, 30_000)
})

test('the trace database has its own migrations', () => {
  expect(TRACE_MIGRATIONS.map(({ tag }) => tag)).toEqual(['trace-0001-init', 'trace-0002-sighting'])
})

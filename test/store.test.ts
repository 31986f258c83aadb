/** What survives a restart: databases, settings, history, held mail, operators. */
import { afterEach, describe, expect, test } from 'bun:test'
import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { getTableConfig } from 'drizzle-orm/sqlite-core'
import fc from 'fast-check'
import { AssertionError, RefusalError, StoreError } from '../src/base/errors.ts'
import type { MessageId } from '../src/base/ids.ts'
import { PIECE_BYTES } from '../src/base/limits.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { Body } from '../src/message/body.ts'
import type { Claim } from '../src/message/rows.ts'
import { Bodies } from '../src/store/bodies.ts'
import { idFloor } from '../src/store/conditions.ts'
import { openDatabase } from '../src/store/db.ts'
import {
  type Migration,
  STATE_MIGRATIONS,
  TRACE_MIGRATIONS,
} from '../src/store/migrations/index.ts'
import { openDatabases, refuseNewerData } from '../src/store/open.ts'
import { parseQuery } from '../src/store/query.ts'
import * as tables from '../src/store/tables.ts'
import { ManualClock } from './clock.ts'
import { Room } from './rooms.ts'

const opened: Room[] = []
const made: string[] = []

function room(directory?: string, clock?: ManualClock): Room {
  const fresh = new Room(directory, clock)
  opened.push(fresh)
  return fresh
}

function reopened(before: Room): Room {
  const after = before.reopened()
  opened.splice(opened.indexOf(before), 1, after)
  return after
}

function temporary(): string {
  const path = mkdtempSync(join(tmpdir(), 'postern-'))
  made.push(path)
  return path
}

afterEach(() => {
  for (const one of opened.splice(0)) {
    one.close()
    one.remove()
  }
  for (const path of made.splice(0)) rmSync(path, { recursive: true, force: true })
})

function refusal(act: () => unknown): RefusalError {
  try {
    act()
  } catch (error) {
    if (error instanceof RefusalError) return error
    throw error
  }
  throw new Error('nothing was refused')
}

async function failure(act: () => Promise<unknown>): Promise<unknown> {
  try {
    await act()
  } catch (error) {
    return error
  }
  throw new Error('nothing failed')
}

/** Name, size and digest of every file: what "nothing changed" means. */
function fingerprint(directory: string): readonly string[] {
  return readdirSync(directory)
    .filter((name) => name !== 'held')
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
      const store = ['trace', 'trace_event', 'judgement'].includes(name)
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
    first.close()
    opened.pop()
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

  test('that is damaged is refused when it is the state, and moved aside when it is the trace', () => {
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
    const recipients = Array.from({ length: 50_000 }, (_, index) => `r${index}`)
    const domain = { name: 'a.example', nextHops: [], recipients, hold: null, reject: null }
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
      after.close()
      opened.pop()
    }
    expect(answered).toBeGreaterThan(100)
  }, 30_000)
})

describe('a change', () => {
  test('is in force and in the history when the call returns, and after a restart', () => {
    const first = room()
    let told = 0
    first.live.onChange(() => {
      told += 1
    })
    first.changes.setSetting('ruiz', 'policy.hold', '6')
    first.clock.advance(10)
    first.changes.setSetting('cli', 'policy.hold', 7)
    expect(told).toBe(2)
    const second = reopened(first)
    expect(second.live.current.settings['policy.hold']).toBe(7)
    expect(second.changes.history(10)).toEqual([
      expect.objectContaining({
        key: 'setting/policy.hold',
        author: 'cli',
        before: '6',
        after: '7',
      }),
      expect.objectContaining({
        key: 'setting/policy.hold',
        author: 'ruiz',
        before: null,
        after: '6',
      }),
    ])
    expect(second.changes.stamp('setting/policy.hold')).toEqual({
      author: 'cli',
      atMs: second.clock.wallMs(),
    })
  })

  test('to the value that stands is none', () => {
    const { changes } = room()
    changes.setSetting('ruiz', 'policy.hold', 6)
    changes.setSetting('ruiz', 'policy.hold', '6.0')
    expect(changes.history(10)).toHaveLength(1)
  })

  test('that is refused changes nothing', () => {
    const { changes, live } = room()
    const before = live.current
    expect(refusal(() => changes.setSetting('cli', 'policy.hold', 15)).field).toBe('policy.hold')
    expect(refusal(() => changes.setSetting('cli', 'mail.size', 'x')).field).toBe('mail.size')
    expect(refusal(() => changes.removeDomain('cli', 'a.example')).code).toBe('notFound')
    expect(live.current).toBe(before)
    expect(changes.history(10)).toEqual([])
  })

  test('of a threshold must fit every domain that gives only one of the two', () => {
    const { changes } = room()
    changes.putDomain('cli', {
      name: 'a.example',
      nextHops: [],
      recipients: null,
      hold: null,
      reject: 10,
    })
    const error = refusal(() => changes.setSetting('cli', 'policy.hold', 12))
    expect(error.field).toBe('policy.hold')
    expect(error.advice).toContain('a.example')
    changes.setSetting('cli', 'policy.hold', 9)
  })

  test('is undone by its number, and the undoing can be undone', () => {
    const { changes, live } = room()
    changes.setSetting('ruiz', 'policy.hold', 6)
    const [first] = changes.history(1)
    expect(changes.undo('nagy', first?.seq ?? 0)).toBe('setting/policy.hold')
    expect(live.current.settings['policy.hold']).toBe(8)
    expect(changes.stamp('setting/policy.hold')).toBeNull()
    const [undone] = changes.history(1)
    changes.undo('nagy', undone?.seq ?? 0)
    expect(live.current.settings['policy.hold']).toBe(6)
    expect(changes.history(10)).toHaveLength(3)
  })

  test('of a domain is undone whole, with all its recipients', () => {
    const { changes, live } = room()
    const recipients = Array.from({ length: 5_000 }, (_, index) => `r${10_000 + index}`)
    const domain = { name: 'a.example', nextHops: [], recipients, hold: 3, reject: null }
    changes.putDomain('cli', domain)
    changes.removeDomain('cli', 'a.example')
    expect(live.current.domains.size).toBe(0)
    const [removal] = changes.history(1)
    expect(removal?.before?.length).toBeLessThan(2_100)
    changes.undo('cli', removal?.seq ?? 0)
    expect(live.current.domains.get('a.example')).toEqual(domain)
  })

  test('that was followed by another of the same key is not undone', () => {
    const { changes, live } = room()
    changes.setSetting('ruiz', 'policy.hold', 6)
    const [first] = changes.history(1)
    changes.setSetting('nagy', 'policy.hold', 7)
    const error = refusal(() => changes.undo('ruiz', first?.seq ?? 0))
    expect(error.code).toBe('conflict')
    expect(error.message).toContain('nagy')
    expect(live.current.settings['policy.hold']).toBe(7)
    expect(refusal(() => changes.undo('ruiz', 999)).code).toBe('notFound')
  })

  test('in the store that no longer holds is not used: the last good value is, and it is said', () => {
    const first = room()
    first.changes.setSetting('ruiz', 'policy.hold', 6)
    first.changes.setSetting('ruiz', 'mail.size', 100_000)
    first.changes.putDomain('ruiz', {
      name: 'a.example',
      nextHops: [],
      recipients: ['x'],
      hold: null,
      reject: null,
    })
    const { sqlite } = first.databases.state
    sqlite.run("UPDATE cell SET value = '400' WHERE key = 'setting/policy.hold'")
    sqlite.run("UPDATE cell SET value = '{' WHERE key = 'setting/mail.size'")
    sqlite.run(`UPDATE cell SET value = '{"nextHops":["?"]}' WHERE key = 'domain/a.example'`)
    const second = reopened(first)
    expect(second.live.current.settings['policy.hold']).toBe(6)
    expect(second.live.current.settings['mail.size']).toBe(100_000)
    expect(second.live.current.domains.get('a.example')?.recipients).toEqual(['x'])
    expect(second.observer.count('config_ignored_total')).toBe(3)
  })

  test('in the store that holds alone and not with another leaves both as they were at first', () => {
    const first = room()
    first.changes.setSetting('ruiz', 'policy.hold', 6)
    first.changes.setSetting('ruiz', 'policy.reject', 20)
    first.databases.state.sqlite.run(
      "UPDATE cell SET value = '5' WHERE key = 'setting/policy.reject'",
    )
    const { settings } = reopened(first).live.current
    expect([settings['policy.hold'], settings['policy.reject']]).toEqual([8, 15])
  })

  test('of an unknown key is left alone: a later version may know it', () => {
    const first = room()
    first.databases.state.sqlite.run("INSERT INTO cell VALUES ('setting/later.thing', '1', 'x', 1)")
    const second = reopened(first)
    expect(second.observer.count('config_ignored_total')).toBe(0)
    expect(second.changes.stamp('setting/later.thing')?.author).toBe('x')
  })
})

describe('a query', () => {
  const nowMs = Date.UTC(2026, 10, 22, 12)
  const none = { mistakes: [] }

  test.each([
    ['', 'all mails', 0],
    ['invoice', 'mails with “invoice”', 1],
    ['invoice  may', 'mails with “invoice”, with “may”', 2],
    ['"exact words"', 'mails with “exact words”', 1],
    ['from:a,b', 'mails from “a” or “b”', 1],
    ['from:"a b",c', 'mails from “a b” or “c”', 1],
    ['-from:a', 'mails not from “a”', 1],
    ['-spam', 'mails not with “spam”', 1],
    ['FROM:a', 'mails from “a”', 1],
    [
      'to:x subject:y ip:192.0.2. id:01 node:mx1 rule:GTUBE',
      'mails to “x”, with the subject “y”, from the address “192.0.2.”, with the id “01”, on node “mx1”, with the rule “GTUBE”',
      6,
    ],
    ['is:held', 'mails held', 1],
    ['is:held,Unknown', 'mails held or with an unknown check', 1],
    ['score:>8', 'mails with a score above 8', 1],
    ['score:-3.5', 'mails with a score of -3.5', 1],
    ['size:>10MB', 'mails with a size above 10 MB', 1],
    ['size:<=1.5k', 'mails with a size at most 1.5 KB', 1],
    ['after:24h', 'mails since 2026-11-21 12:00 UTC', 1],
    ['after:2w', 'mails since 2026-11-08 12:00 UTC', 1],
    ['before:2026-03-11', 'mails before 2026-03-11 00:00 UTC', 1],
    ['before:2026-03-11T14:30', 'mails before 2026-03-11 14:30 UTC', 1],
    [
      'after:today before:2024-02-29',
      'mails since 2026-11-22 00:00 UTC, before 2024-02-29 00:00 UTC',
      2,
    ],
    ['Re: hello', 'mails with “Re:”, with “hello”', 2],
    ['http://x.example', 'mails with “http://x.example”', 1],
    ['2001:db8::1', 'mails with “2001:db8::1”', 1],
    ['a@b.example', 'mails with “a@b.example”', 1],
    ['-', 'mails with “-”', 1],
  ])('%p reads %p', (text, words, count) => {
    const query = parseQuery(text, nowMs)
    expect(query).toMatchObject({ ...none, words })
    expect(query.terms).toHaveLength(count)
  })

  test.each([
    ['form:a b', '“form:”', 'mails with “b”'],
    ['is:green b', '“is:green”', 'mails with “b”'],
    ['score:high b', '“score:high”', 'mails with “b”'],
    ['score:>8MB b', '“score:>8MB”', 'mails with “b”'],
    ['size:>x b', '“size:>x”', 'mails with “b”'],
    ['after:never b', '“after:never”', 'mails with “b”'],
    ['after:2026-02-31 b', '“after:2026-02-31”', 'mails with “b”'],
    ['after:2026-13-01 b', '“after:2026-13-01”', 'mails with “b”'],
    ['before:2026-01-01T25:00 b', '25:00”', 'mails with “b”'],
    ['from: b', '“from:”', 'mails with “b”'],
    ['"" b', '“""”', 'mails with “b”'],
    [', b', '“,”', 'mails with “b”'],
  ])('%p names the part %s and applies the rest', (text, named, words) => {
    const query = parseQuery(text, nowMs)
    expect(query.mistakes).toHaveLength(1)
    expect(query.mistakes[0]).toContain(named)
    expect(query.mistakes[0]).toMatch(/\.$/)
    expect(query.words).toBe(words)
  })

  test('of any length and shape is read, and asks the store without an error', () => {
    const { trace } = room()
    const pieces = fc.constantFrom(
      'from:',
      'to:',
      'subject:',
      'is:',
      'score:>',
      'size:',
      'after:',
      'id:',
      '"',
      ',',
      '-',
      ' ',
      '%',
      '_',
      '\\',
      "'",
      ';',
      '--',
      '*',
      'NEAR(',
      'a',
      'ü',
      '\u0000',
      '9',
      'h',
    )
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          fc.array(pieces).map((parts) => parts.join('')),
        ),
        (text) => {
          const query = parseQuery(text, nowMs)
          expect(trace.search(query, { limit: 1, cursor: null }).total).toBe(0)
        },
      ),
      { numRuns: 1_000 },
    )
    const long = parseQuery(`${'word '.repeat(100_000)}`, nowMs)
    expect(long.terms.length).toBeLessThanOrEqual(30)
    expect(long.mistakes).toHaveLength(2)
  })
})

describe('the trace', () => {
  test('is written within 200 ms, and asked for shows what just happened', () => {
    const here = room()
    const { trace, clock, databases } = here
    const one = here.row()
    const count = () => databases.trace.sqlite.query('SELECT count(*) AS n FROM trace').get()
    trace.record([one], [], null)
    clock.advance(199)
    expect(count()).toEqual({ n: 0 })
    clock.advance(1)
    expect(count()).toEqual({ n: 1 })
    trace.outcome(one.id, 0, 'delivered', '250 ok', null)
    expect(trace.message(one.id).rows[0]?.delivery).toBe('delivered')
  })

  test('gives back every field, the history in order and the judgement', () => {
    const here = room()
    const { trace, clock } = here
    const row = here.row({
      subject: 'Ä\u0000\u{1f600}<b>',
      score: 9.5,
      rules: ['GTUBE', 'X'],
      accept: 'held',
      delivery: 'held',
    })
    const second = { ...row, recipient: 'c@example.com' }
    const judgement = {
      verdict: 'hold',
      score: 9.5,
      findings: [{ rule: 'GTUBE', score: 9.5, evidence: 'Seen.' }],
      unknowns: [{ inspector: 'x', cause: 'silent' }],
      holdFrom: 8,
      rejectFrom: 15,
    } as const
    const event = { atMs: clock.wallMs(), recipient: null, what: 'held', detail: 'd' }
    trace.record([row, second], [event], judgement)
    trace.note(row.id, { ...event, what: 'looked at' })
    trace.outcome(row.id, 1, 'released', 'by ruiz', {
      ...event,
      what: 'released',
      recipient: 'c@example.com',
    })
    clock.advance(1_000)
    trace.outcome(row.id, 1, 'delivered', '250 ok', {
      ...event,
      what: 'delivered',
      atMs: clock.wallMs(),
    })
    const known = reopened(here).trace.message(row.id)
    expect(known.rows).toEqual([
      row,
      { ...second, delivery: 'delivered', deliveryReply: '250 ok', deliveryMs: clock.wallMs() },
    ])
    expect(known.events.map(({ what }) => what)).toEqual([
      'held',
      'looked at',
      'released',
      'delivered',
    ])
    expect(known.judgement).toEqual(judgement)
  })

  test('shows the last outcome, whether the row was written before it or not', () => {
    const here = room()
    const row = here.row()
    for (const flushes of [false, true]) {
      const id = here.ids.next()
      here.trace.record([{ ...row, id }], [], null)
      if (flushes) here.trace.flush()
      here.trace.outcome(id, 0, 'deferred', '451 later', null)
      here.trace.outcome(id, 0, 'delivered', null, null)
      const [known] = here.trace.message(id).rows
      expect([known?.delivery, known?.deliveryReply]).toEqual(['delivered', '451 later'])
    }
  })

  test('gives rows that come one by one for one message a place each', () => {
    const here = room()
    const row = here.row()
    here.trace.record([row], [], null)
    here.trace.record([{ ...row, recipient: 'z@example.com' }], [], null)
    expect(here.trace.message(row.id).rows.map(({ recipient }) => recipient)).toEqual([
      'b@example.com',
      'z@example.com',
    ])
  })

  test('keeps an outcome for a message that it does not know from harming anything', () => {
    const here = room()
    here.trace.outcome(here.ids.next(), 0, 'delivered', null, null)
    here.trace.flush()
    expect(here.trace.search(parseQuery('', 0), { limit: 10, cursor: null }).total).toBe(0)
  })

  test('drops the oldest and counts them when the database does not take it, and mail never waits', () => {
    const here = room()
    here.databases.trace.sqlite.run('DROP TABLE trace_event')
    const first = here.row()
    const event = { atMs: 1, recipient: null, what: 'x', detail: '' }
    here.trace.record([first], [event], null)
    for (let count = 0; count < 22_000; count++) here.trace.record([here.row()], [event], null)
    expect(here.observer.count('trace_dropped_total')).toBe(2_001)
    here.clock.advance(60_000)
    expect(here.observer.count('store_failed_total')).toBeGreaterThan(5)
    expect(here.observer.count('store_failed_total')).toBeLessThan(30)
    here.databases.trace.sqlite.run(
      'CREATE TABLE trace_event (id TEXT, seq INTEGER, at_ms INTEGER, recipient TEXT, what TEXT, detail TEXT)',
    )
    here.clock.advance(5_000)
    here.trace.flush()
    expect(here.trace.message(first.id).rows).toEqual([])
    expect(here.databases.trace.sqlite.query('SELECT count(*) AS n FROM trace').get()).toEqual({
      n: 20_000,
    })
  })

  test('pages through everything once, newest first', () => {
    const here = room()
    for (let count = 0; count < 57; count++) {
      const row = here.row()
      here.trace.record([row, { ...row, recipient: 'c@example.com' }], [], null)
      if (count % 10 === 0) here.clock.advance(1_000)
    }
    const query = parseQuery('', here.clock.wallMs())
    const seen: string[] = []
    let cursor: string | null = null
    do {
      const page: ReturnType<typeof here.trace.search> = here.trace.search(query, {
        limit: 10,
        cursor,
      })
      expect(page.total).toBe(114)
      seen.push(...page.rows.map(({ id, recipient }) => `${id} ${recipient}`))
      cursor = page.cursor
    } while (cursor !== null)
    expect(seen).toHaveLength(114)
    expect(new Set(seen).size).toBe(114)
    expect(seen).toEqual([...seen].sort().reverse())
    expect(refusal(() => here.trace.search(query, { limit: 10, cursor: "' OR 1=1" })).field).toBe(
      'cursor',
    )
  })

  test('counts to ten thousand and says more', () => {
    const here = room()
    for (let count = 0; count < 10_050; count++) here.trace.record([here.row()], [], null)
    const found = here.trace.search(parseQuery('', 0), { limit: 5_000, cursor: null })
    expect(found.rows).toHaveLength(1_000)
    expect(found.total).toBe(10_001)
  })

  describe('finds by', () => {
    const wanted: readonly [string, readonly string[]][] = [
      ['', ['clean', 'spam', 'refused', 'late', 'old']],
      ['invoice', ['clean', 'old']],
      ['INVOICE', ['clean', 'old']],
      ['"an invoice"', ['clean']],
      ['überweisung', ['spam']],
      ['ÜBERWEISUNG', ['spam']],
      ['subject:100%', ['late']],
      ['subject:100_', []],
      ['subject:0%_', ['late']],
      ['from:bulk@', ['spam']],
      ['-from:bulk@', ['clean', 'refused', 'late', 'old']],
      ['from:<>', ['late']],
      ['to:boss', ['spam', 'late']],
      ['to:boss,nobody', ['spam', 'refused', 'late']],
      ['ip:198.51.100.', ['spam']],
      ['ip:51', []],
      ['198.51.100.9', ['spam']],
      ['rule:gtube', ['spam']],
      ['rule:TUBE', []],
      ['GTUBE', ['spam']],
      ['is:held', []],
      ['is:released', ['spam']],
      ['is:delivered', ['clean', 'spam', 'old']],
      ['is:rejected', ['refused']],
      ['is:deferred', ['late']],
      ['is:waiting', ['late']],
      ['is:unknown', ['spam']],
      ['is:bounced', []],
      ['-is:delivered', ['refused', 'late']],
      ['score:>8', ['spam']],
      ['score:<=0 is:delivered', ['clean', 'old']],
      ['size:>=1MB', ['late']],
      ['after:24h', ['clean', 'spam', 'refused', 'late']],
      ['-after:24h', ['old']],
      ['before:24h', ['old']],
      ['node:mx1', ['clean', 'spam', 'refused', 'late', 'old']],
      ['node:mx2', []],
      ["' OR 1=1 --", []],
      ['%', ['late']],
      ['\\', []],
    ]
    const filled = (): { here: Room; names: ReadonlyMap<string, string> } => {
      const here = room()
      const names = new Map<string, string>()
      const add = (
        name: string,
        part: Parameters<Room['row']>[0],
        judgement: Parameters<Room['trace']['record']>[2] = null,
      ) => {
        const row = here.row(part)
        names.set(row.id, name)
        here.trace.record([row], [], judgement)
        return row
      }
      add('old', { subject: 'Old invoice', delivery: 'delivered' })
      here.clock.advance(2 * 86_400_000)
      add('clean', { subject: 'Your INVOICE and an invoice', delivery: 'delivered' })
      const spam = add(
        'spam',
        {
          subject: 'Ihre ÜBERWEISUNG',
          sender: 'bulk@x.example',
          recipient: 'boss@example.com',
          clientIp: '198.51.100.9',
          score: 12,
          rules: ['GTUBE', 'OTHER'],
          accept: 'held',
          delivery: 'held',
        },
        {
          verdict: 'hold',
          score: 12,
          findings: [],
          unknowns: [{ inspector: 'x', cause: 'y' }],
          holdFrom: 8,
          rejectFrom: 15,
        },
      )
      add('refused', {
        subject: null,
        recipient: 'nobody@example.com',
        accept: 'refused',
        delivery: null,
      })
      add('late', {
        subject: '100%_sure',
        sender: '',
        recipient: 'boss@example.com',
        sizeBytes: 1_048_576,
        delivery: 'deferred',
      })
      here.trace.flush()
      here.trace.outcome(spam.id, 0, 'released', 'by ruiz', null)
      here.trace.outcome(spam.id, 0, 'delivered', '250 ok', null)
      return { here, names }
    }
    test.each(wanted)('%p', (text, expected) => {
      const { here, names } = filled()
      const query = parseQuery(text, here.clock.wallMs())
      expect(query.mistakes).toEqual([])
      const found = here.trace.search(query, { limit: 50, cursor: null })
      expect(found.rows.map(({ id }) => names.get(id) ?? id).sort()).toEqual([...expected].sort())
      expect(found.total).toBe(expected.length)
    })

    test('its id, whole or its beginning', () => {
      const { here, names } = filled()
      const [id = ''] = [...names.keys()]
      for (const text of [id, `id:${id}`, `id:${id.toUpperCase()}`]) {
        const found = here.trace.search(parseQuery(text, 0), { limit: 50, cursor: null })
        expect(found.rows.map((row) => String(row.id))).toEqual([id])
      }
      expect(
        here.trace.search(parseQuery(`id:${id.slice(0, 4)}`, 0), { limit: 50, cursor: null }).total,
      ).toBe(5)
    })
  })

  test('has a floor below every id of that time and above every earlier one', () => {
    const clock = new ManualClock(1_000)
    const here = room(undefined, clock)
    for (const step of [1, 31, 32, 1_023, 86_400_000, 10 ** 12]) {
      const before = here.ids.next()
      clock.advance(step)
      const floor = idFloor(clock.wallMs())
      expect(before < floor).toBe(true)
      expect(here.ids.next() >= floor).toBe(true)
    }
  })

  test('forgets what is older, in small steps, with its history', () => {
    const here = room()
    const event = { atMs: 0, recipient: null, what: 'x', detail: '' }
    for (let count = 0; count < 10; count++) here.trace.record([here.row()], [event], null)
    here.clock.advance(3_600_000)
    const kept = here.row()
    here.trace.record([kept], [event], null)
    here.trace.flush()
    const beforeMs = here.clock.wallMs() - 1_000
    expect([4, 4, 4, 4].map((limit) => here.trace.prune(beforeMs, limit))).toEqual([4, 4, 2, 0])
    expect(
      here.trace.search(parseQuery('', 0), { limit: 50, cursor: null }).rows.map(({ id }) => id),
    ).toEqual([kept.id])
    expect(
      here.databases.trace.sqlite.query('SELECT count(*) AS n FROM trace_event').get(),
    ).toEqual({ n: 1 })
  })

  test('gives the numbers of the first screen', () => {
    const here = room()
    here.trace.record([here.row({ delivery: 'delivered', rules: ['NOT_COUNTED'] })], [], null)
    here.clock.advance(3_500_000)
    const spam = {
      sender: 'bulk@x.example',
      rules: ['GTUBE', 'OTHER'],
      accept: 'held',
      delivery: 'held',
    } as const
    here.trace.record([here.row(spam), here.row(spam)], [], null)
    here.trace.record(
      [here.row({ ...spam, accept: 'refused', rules: ['OTHER'], delivery: null })],
      [],
      null,
    )
    here.trace.record([here.row({ delivery: 'inDoubt' })], [], null)
    here.trace.record([here.row({ accept: 'deferred', delivery: null })], [], null)
    here.trace.record([here.row({ delivery: 'bounced' })], [], null)
    here.trace.record([here.row({ delivery: 'deleted' })], [], null)
    const numbers = here.trace.overview(here.clock.wallMs() - 2 * 3_600_000, 2)
    expect(numbers.counts).toEqual({
      delivered: 1,
      held: 2,
      rejected: 1,
      deferred: 1,
      waiting: 1,
      bounced: 1,
    })
    expect(
      numbers.series.map(({ delivered, held, rejected, deferred }) => [
        delivered,
        held,
        rejected,
        deferred,
      ]),
    ).toEqual([
      [0, 0, 0, 0],
      [1, 2, 1, 2],
    ])
    expect(numbers.topRules).toEqual([
      { rule: 'OTHER', count: 3 },
      { rule: 'GTUBE', count: 2 },
    ])
    expect(numbers.topSenders).toEqual([{ sender: 'bulk@x.example', count: 3 }])
    expect(here.trace.overview(here.clock.wallMs() - 60_000, 1).counts.delivered).toBe(0)
  })
})

describe('a held body', () => {
  const bytesOf = (length: number): Uint8Array => new SeededRandom(length + 1).bytes(length)
  const collect = async (bodies: Bodies, id: MessageId): Promise<Buffer | null> => {
    const opened = await bodies.read(id)
    if (opened === null) return null
    const pieces: Uint8Array[] = []
    for await (const piece of opened.pieces) pieces.push(piece)
    return Buffer.concat(pieces)
  }
  const pathOf = (here: Room, id: string) => join(here.directory, 'held', id.slice(-1), id)

  test.each([0, 1, 1_000, PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 3 * PIECE_BYTES + 5])(
    'of %d bytes comes back as it was, from memory and from pieces of files',
    async (length) => {
      const here = room()
      const bytes = bytesOf(length)
      const path = join(here.directory, 'segment')
      writeFileSync(path, Buffer.concat([Buffer.alloc(100), bytes, Buffer.alloc(100)]))
      const half = Math.floor(length / 2)
      const extents = [
        { path, offset: 100, length: half },
        { path, offset: 100 + half, length: length - half },
      ]
      const bodies: Body[] = [
        { kind: 'memory', bytes },
        { kind: 'extents', extents, sizeBytes: length },
      ]
      for (const body of bodies) {
        const mail = here.held()
        await here.bodies.write(mail, body)
        expect((await collect(here.bodies, mail.row.id))?.equals(bytes)).toBe(true)
        expect(await here.bodies.meta(mail.row.id)).toEqual(mail)
        expect((await here.bodies.read(mail.row.id))?.sizeBytes).toBe(length)
        expect(statSync(pathOf(here, mail.row.id)).mode & 0o777).toBe(0o600)
      }
    },
  )

  test('stands on the disk as nothing that can be read', async () => {
    const here = room()
    const mail = here.held({ subject: 'A very secret subject' })
    await here.bodies.write(mail, { kind: 'memory', bytes: Buffer.from('A very secret text') })
    const file = readFileSync(pathOf(here, mail.row.id), 'latin1')
    expect(file).not.toContain('secret')
    expect(file).not.toContain('example.com')
  })

  test('with any bit flipped, or cut anywhere, is an error and never a message', async () => {
    const here = room()
    const mail = here.held()
    await here.bodies.write(mail, { kind: 'memory', bytes: bytesOf(300) })
    const path = pathOf(here, mail.row.id)
    const whole = readFileSync(path)
    for (let position = 0; position < whole.length; position++) {
      const flipped = Buffer.from(whole)
      flipped[position] = (flipped[position] ?? 0) ^ (1 << (position % 8))
      writeFileSync(path, flipped)
      expect(await failure(() => collect(here.bodies, mail.row.id))).toBeInstanceOf(StoreError)
    }
    for (let length = 0; length < whole.length; length += 7) {
      writeFileSync(path, whole.subarray(0, length))
      expect(await failure(() => collect(here.bodies, mail.row.id))).toBeInstanceOf(StoreError)
    }
    writeFileSync(path, whole)
    expect((await collect(here.bodies, mail.row.id))?.length).toBe(300)
  })

  test('under the name of another message, or with frames in another order, is an error', async () => {
    const here = room()
    const first = here.held()
    const second = here.held()
    const bytes = bytesOf(3 * PIECE_BYTES)
    await here.bodies.write(first, { kind: 'memory', bytes })
    await here.bodies.write(second, { kind: 'memory', bytes })
    const whole = readFileSync(pathOf(here, first.row.id))
    const sealed = PIECE_BYTES + 16
    const start = whole.length - 3 * sealed
    const swapped = Buffer.concat([
      whole.subarray(0, start),
      whole.subarray(start + sealed, start + 2 * sealed),
      whole.subarray(start, start + sealed),
      whole.subarray(start + 2 * sealed),
    ])
    writeFileSync(pathOf(here, first.row.id), swapped)
    expect(await failure(() => collect(here.bodies, first.row.id))).toBeInstanceOf(StoreError)
    writeFileSync(pathOf(here, second.row.id), whole)
    expect(await failure(() => collect(here.bodies, second.row.id))).toBeInstanceOf(StoreError)
  })

  test('of 48 MB is written and read with the memory of a few frames', async () => {
    const here = room()
    const path = join(here.directory, 'segment')
    const length = 48 * 1024 * 1024
    writeFileSync(path, Buffer.alloc(length, 'x'))
    const mail = here.held()
    const before = process.memoryUsage.rss()
    await here.bodies.write(mail, {
      kind: 'extents',
      extents: [{ path, offset: 0, length }],
      sizeBytes: length,
    })
    let read = 0
    const opened = await here.bodies.read(mail.row.id)
    for await (const piece of opened?.pieces ?? []) {
      read += piece.length
      expect(piece.length).toBeLessThanOrEqual(PIECE_BYTES)
    }
    expect(read).toBe(length)
    // Three times the size of the message would be the price of holding it.
    expect(process.memoryUsage.rss() - before).toBeLessThan(40 * 1024 * 1024)
  })

  test('that cannot be written leaves nothing, and one whose spool ends too soon neither', async () => {
    const here = room()
    const mail = here.held()
    const path = join(here.directory, 'segment')
    writeFileSync(path, 'short')
    const body: Body = { kind: 'extents', extents: [{ path, offset: 0, length: 9 }], sizeBytes: 9 }
    expect(await failure(() => here.bodies.write(mail, body))).toBeInstanceOf(StoreError)
    const lying: Body = { kind: 'extents', extents: [{ path, offset: 0, length: 5 }], sizeBytes: 9 }
    expect(await failure(() => here.bodies.write(mail, lying))).toBeInstanceOf(AssertionError)
    expect(readdirSync(join(here.directory, 'held', mail.row.id.slice(-1)))).toEqual([])
    expect(here.bodies.list()).toEqual([])
    expect(await here.bodies.read(mail.row.id)).toBeNull()
  })

  test('is listed; what a crash left is not, and goes', async () => {
    const here = room()
    const mail = here.held()
    await here.bodies.write(mail, { kind: 'memory', bytes: bytesOf(10) })
    const path = pathOf(here, mail.row.id)
    copyFileSync(path, `${path}.new`)
    expect(here.bodies.list()).toEqual([mail.row.id])
    expect(existsSync(`${path}.new`)).toBe(false)
    await here.bodies.remove(mail.row.id)
    await here.bodies.remove(mail.row.id)
    expect(here.bodies.list()).toEqual([])
  })

  test('without its key is not given up: the start is refused', async () => {
    const here = room()
    await here.bodies.write(here.held(), { kind: 'memory', bytes: bytesOf(10) })
    renameSync(join(here.directory, 'held.key'), join(here.directory, 'elsewhere'))
    expect(() => new Bodies(here.directory, { random: here.random })).toThrow(StoreError)
  })
})

describe('held mail', () => {
  const release = (by: string, atMs = 1): Claim => ({ kind: 'release', by, atMs })

  test('is seen at once and after a restart', () => {
    const first = room()
    const mail = first.held()
    first.quarantine.add(mail)
    expect(first.quarantine.one(mail.row.id)?.row).toEqual(mail.row)
    expect(first.quarantine.count()).toBe(1)
    const second = reopened(first)
    expect(second.quarantine.one(mail.row.id)?.row).toEqual(mail.row)
  })

  test('is decided once for each recipient: the first claim wins, whatever comes after', () => {
    const here = room()
    const kinds = ['release', 'delete', 'expire'] as const
    const step = fc.record({
      kind: fc.constantFrom(...kinds),
      places: fc.option(fc.uniqueArray(fc.integer({ min: 0, max: 3 }), { minLength: 1 })),
      by: fc.constantFrom('ruiz', 'nagy', 'cli'),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
        const mail = here.held({}, [0, 2])
        here.quarantine.add(mail)
        const expected = new Map<number, Claim>()
        for (const [index, { kind, places, by }] of steps.entries()) {
          const claim: Claim = { kind, by, atMs: index }
          for (const { place, won, claim: stands } of here.quarantine.claim(
            mail.row.id,
            places,
            claim,
          )) {
            expect([0, 2]).toContain(place)
            expect(won).toBe(!expected.has(place))
            if (won) expected.set(place, claim)
            expect(stands).toEqual(expected.get(place) ?? claim)
          }
        }
        const entry = here.quarantine.one(mail.row.id)
        expect(entry?.copies.map(({ claim }) => claim)).toEqual(
          [0, 2].map((place) => expected.get(place) ?? null),
        )
        expect(entry?.row.recipients).toHaveLength(2 - expected.size)
        const listed = here.quarantine.search(parseQuery(`id:${mail.row.id}`, 0), {
          limit: 5,
          cursor: null,
        })
        expect(listed.total).toBe(expected.size < 2 ? 1 : 0)
      }),
      { numRuns: 100 },
    )
  })

  test('that is added again stays as it was decided', () => {
    const here = room()
    const mail = here.held()
    here.quarantine.add(mail)
    here.quarantine.claim(mail.row.id, [0], release('ruiz'))
    here.quarantine.add(mail)
    expect(here.quarantine.one(mail.row.id)?.copies.map(({ claim }) => claim)).toEqual([
      release('ruiz'),
      null,
    ])
    here.quarantine.claim(mail.row.id, [0], release('nagy'))
    expect(here.quarantine.count()).toBe(1)
  })

  test('that is not known gives no claim', () => {
    const here = room()
    expect(here.quarantine.claim(here.ids.next(), null, release('cli'))).toEqual([])
    expect(here.quarantine.one(here.ids.next())).toBeNull()
  })

  test('released and not known to be in the queue is pending after a restart, each click apart', () => {
    const first = room()
    const mail = first.held({}, [0, 1, 2])
    first.quarantine.add(mail)
    const { id } = mail.row
    first.quarantine.claim(id, [0, 1], release('ruiz', 5))
    first.quarantine.claim(id, [2], release('nagy', 6))
    const second = reopened(first)
    expect(second.quarantine.pendingReleases()).toEqual([
      { id, places: [0, 1], claim: release('ruiz', 5) },
      { id, places: [2], claim: release('nagy', 6) },
    ])
    second.quarantine.markEnqueued(id, [0, 1])
    expect(second.quarantine.pendingReleases()).toEqual([
      { id, places: [2], claim: release('nagy', 6) },
    ])
    expect(
      second.quarantine.claim(id, [0, 2], release('cli')).map(({ enqueued }) => enqueued),
    ).toEqual([true, false])
  })

  test('is rebuilt from its sealed files when the index is lost, and a damaged file is named', async () => {
    const first = room()
    const mails = [first.held(), first.held(), first.held()]
    for (const mail of mails) {
      await first.bodies.write(mail, { kind: 'memory', bytes: Buffer.from('x') })
      first.quarantine.add(mail)
    }
    first.close()
    opened.pop()
    for (const name of readdirSync(first.directory)) {
      if (name.startsWith('state.db')) rmSync(join(first.directory, name))
    }
    const broken = mails[1]?.row.id ?? ''
    writeFileSync(join(first.directory, 'held', broken.slice(-1), broken), 'x')
    const second = room(first.directory, first.clock)
    expect(second.quarantine.count()).toBe(0)
    const { added, damaged } = await second.quarantine.rebuild(second.bodies)
    expect(added).toBe(2)
    expect(damaged.map(String)).toEqual([broken])
    expect(second.quarantine.one(mails[0]?.row.id as MessageId)?.row).toEqual(mails[0]?.row)
    expect((await second.quarantine.rebuild(second.bodies)).added).toBe(0)
  })

  test('expires, loses its body after its decision, and is forgotten only when the body is gone', () => {
    const here = room()
    const { quarantine, clock } = here
    const mail = here.held({ expiresMs: clock.wallMs() + 1_000 })
    const { id } = mail.row
    quarantine.add(mail)
    expect(quarantine.expired(clock.wallMs() + 999, 10)).toEqual([])
    expect(quarantine.expired(clock.wallMs() + 1_000, 10)).toEqual([id])
    quarantine.claim(id, [0], { kind: 'expire', by: 'postern', atMs: 1_000 })
    expect(quarantine.removable(9_999, 10)).toEqual([])
    quarantine.claim(id, [1], release('ruiz', 2_000))
    expect(quarantine.expired(clock.wallMs() + 1_000, 10)).toEqual([])
    expect(quarantine.removable(9_999, 10)).toEqual([])
    quarantine.markEnqueued(id, [1])
    expect(quarantine.removable(1_999, 10)).toEqual([])
    expect(quarantine.removable(2_000, 10)).toEqual([id])
    expect(quarantine.prune(9_999, 10)).toBe(0)
    quarantine.markBodyGone(id)
    expect(quarantine.removable(9_999, 10)).toEqual([])
    expect(quarantine.one(id)?.bodyGone).toBe(true)
    expect(quarantine.prune(1_999, 10)).toBe(0)
    expect(quarantine.prune(2_000, 10)).toBe(1)
    expect(quarantine.one(id)).toBeNull()
    expect(here.databases.state.sqlite.query('SELECT count(*) AS n FROM held_copy').get()).toEqual({
      n: 0,
    })
  })

  test('is found by the same language, among what is held now', () => {
    const here = room()
    const find = (text: string) =>
      here.quarantine
        .search(parseQuery(text, here.clock.wallMs(), ['held', 'unknown']), {
          limit: 10,
          cursor: null,
        })
        .rows.map(({ subject }) => subject)
    here.quarantine.add(here.held({ subject: 'One', from: 'ÄRGER <x@y.example>' }, [0]))
    here.quarantine.add(
      here.held({ subject: 'Two', unknowns: [{ inspector: 'x', cause: 'y' }] }, [1]),
    )
    const decided = here.held({ subject: 'Three' }, [1, 2])
    here.quarantine.add(decided)
    here.quarantine.claim(decided.row.id, [1], release('ruiz'))
    expect(find('')).toEqual(['Three', 'Two', 'One'])
    expect(find('ärger')).toEqual(['One'])
    expect(find('from:ärger')).toEqual(['One'])
    expect(find('subject:ärger')).toEqual([])
    expect(find('to:c@')).toEqual(['Two'])
    expect(find('to:d@')).toEqual(['Three'])
    expect(find('is:unknown')).toEqual(['Two'])
    expect(find('rule:GTUBE score:>=10 -two')).toEqual(['Three', 'One'])
    expect(parseQuery('is:delivered', 0, ['held', 'unknown']).mistakes[0]).toContain('is:delivered')
  })

  test('pages once through all', () => {
    const here = room()
    for (let count = 0; count < 25; count++) here.quarantine.add(here.held())
    const query = parseQuery('', 0)
    const first = here.quarantine.search(query, { limit: 20, cursor: null })
    const second = here.quarantine.search(query, { limit: 20, cursor: first.cursor })
    expect([first.rows.length, second.rows.length, first.total, second.total]).toEqual([
      20, 5, 25, 25,
    ])
    expect(second.cursor).toBeNull()
    expect(new Set([...first.rows, ...second.rows].map(({ id }) => id)).size).toBe(25)
    expect(refusal(() => here.quarantine.search(query, { limit: 1, cursor: 'x' })).field).toBe(
      'cursor',
    )
  })
})

describe('operators', () => {
  const ruiz = { name: 'ruiz', password: 'correct horse', role: 'admin' }
  const IP = '192.0.2.1'

  test('begin with a code that opens once, is kept over a restart, and is gone with the first', async () => {
    const first = room()
    const code = first.operators.setupCode ?? ''
    expect(code).toMatch(/^[a-z2-9]{4}(-[a-z2-9]{4}){3}$/)
    const second = reopened(first)
    expect(second.operators.setupCode).toBe(code)
    expect(
      second.operators.setupCodeMatches(` ${code.toUpperCase().replaceAll('-', ' ')}`, IP),
    ).toBe(true)
    const input = { code, name: 'Ruiz', password: 'correct horse', clientIp: IP }
    expect(await failure(() => second.operators.setup({ ...input, code: 'x' }))).toMatchObject({
      code: 'forbidden',
    })
    const both = await Promise.allSettled([
      second.operators.setup(input),
      second.operators.setup({ ...input, name: 'other' }),
    ])
    expect(both.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(second.operators.setupCode).toBeNull()
    expect(existsSync(join(second.directory, 'setup-code'))).toBe(false)
    expect(second.operators.setupCodeMatches(code, IP)).toBe(false)
    expect(await failure(() => second.operators.setup(input))).toMatchObject({ code: 'conflict' })
    const third = reopened(second)
    expect(third.operators.setupCode).toBeNull()
    expect(third.operators.list().map(({ role }) => role)).toEqual(['admin'])
  })

  test('close the set-up also when the first comes by the command line', async () => {
    const { operators, directory } = room()
    await operators.add('cli', ruiz)
    expect(operators.setupCode).toBeNull()
    expect(existsSync(join(directory, 'setup-code'))).toBe(false)
  })

  test('enter with the right password, and are known by the session also after a restart', async () => {
    const first = room()
    await first.operators.add('cli', ruiz)
    const { token, role } = await first.operators.login('RUIZ', ruiz.password, IP)
    expect(role).toBe('admin')
    expect(first.operators.authenticate(token)).toEqual({ name: 'ruiz', role: 'admin' })
    expect(first.operators.authenticate(`${token}x`)).toBeNull()
    const second = reopened(first)
    expect(second.operators.authenticate(token)).toEqual({ name: 'ruiz', role: 'admin' })
    const everything = readFileSync(join(second.directory, 'state.db'), 'latin1')
    expect(everything).not.toContain(token)
    expect(everything).not.toContain(ruiz.password)
    second.operators.logout(token)
    expect(second.operators.authenticate(token)).toBeNull()
    expect(reopened(second).operators.authenticate(token)).toBeNull()
  })

  test('are forgotten after 12 idle hours and after 7 days at the longest', async () => {
    const { operators, clock } = room()
    await operators.add('cli', ruiz)
    const HOUR = 3_600_000
    const idle = await operators.login('ruiz', ruiz.password, IP)
    clock.advance(12 * HOUR + 1)
    expect(operators.authenticate(idle.token)).toBeNull()
    const busy = await operators.login('ruiz', ruiz.password, IP)
    for (let hours = 0; hours < 7 * 24; hours += 8) {
      clock.advance(8 * HOUR)
      expect(operators.authenticate(busy.token)).not.toBeNull()
    }
    clock.advance(1)
    expect(operators.authenticate(busy.token)).toBeNull()
  })

  test('are locked after five wrong passwords, longer each time, by name and network, known or not', async () => {
    const { operators, clock } = room()
    await operators.add('cli', ruiz)
    for (const name of ['ruiz', 'nobody']) {
      const wrong = (ip: string) => failure(() => operators.login(name, 'wrong password', ip))
      for (let count = 0; count < 5; count++) {
        expect(await wrong(IP)).toMatchObject({
          code: 'unauthenticated',
          message: 'Name or password is wrong.',
        })
      }
      expect(await wrong(IP)).toMatchObject({
        code: 'locked',
        advice: 'Wait 30 s, then try again.',
      })
      for (const waitMs of [30_000, 60_000, 120_000, 240_000, 480_000, 900_000, 900_000]) {
        clock.advance(waitMs - 1)
        expect(await wrong(IP)).toMatchObject({ code: 'locked' })
        clock.advance(1)
        expect(await wrong(IP)).toMatchObject({ code: 'unauthenticated' })
      }
      expect(await wrong('198.51.100.7')).toMatchObject({ code: 'unauthenticated' })
      expect(await failure(() => operators.login(name, ruiz.password, IP))).toMatchObject({
        code: 'locked',
      })
    }
    expect((await operators.login('ruiz', ruiz.password, '198.51.100.8')).name).toBe('ruiz')
    expect((await operators.login('ruiz', ruiz.password, IP)).name).toBe('ruiz')
    expect(await failure(() => operators.login('ruiz', 'wrong password', IP))).toMatchObject({
      code: 'unauthenticated',
    })
  }, 30_000)

  test('share a lock within one IPv6 network, however the address is written', async () => {
    const { operators } = room()
    await operators.add('cli', ruiz)
    for (const ip of [
      '2001:db8::1',
      '2001:db8:0:0::2',
      '2001:0db8::3',
      '2001:db8:0:0:ffff::',
      '2001:db8::',
    ]) {
      expect(await failure(() => operators.login('ruiz', 'wrong password', ip))).toMatchObject({
        code: 'unauthenticated',
      })
    }
    expect(await failure(() => operators.login('ruiz', 'x', '2001:db8::abcd'))).toMatchObject({
      code: 'locked',
    })
    expect(await failure(() => operators.login('ruiz', 'x', '2001:db8:0:1::1'))).toMatchObject({
      code: 'unauthenticated',
    })
  })

  test('cannot be guessed by many at once: side by side counts as one after the other', async () => {
    const { operators } = room()
    await operators.add('cli', ruiz)
    const guesses = await Promise.allSettled(
      Array.from({ length: 30 }, () => operators.login('ruiz', 'wrong password', IP)),
    )
    const codes = guesses.map((guess) =>
      guess.status === 'rejected' ? (guess.reason as RefusalError).code : 'in',
    )
    expect(codes.filter((code) => code === 'unauthenticated')).toHaveLength(5)
    expect(codes.filter((code) => code === 'locked')).toHaveLength(25)
  })

  test('that are more than can be hashed wait a bounded time, then are turned away', async () => {
    const { operators } = room()
    await operators.add('cli', ruiz)
    const logins = await Promise.allSettled(
      Array.from({ length: 60 }, (_, index) =>
        operators.login('ruiz', 'wrong password', `10.0.0.${index}`),
      ),
    )
    const codes = logins.map((login) =>
      login.status === 'rejected' ? (login.reason as RefusalError).code : 'in',
    )
    expect(codes.filter((code) => code === 'unavailable')).toHaveLength(8)
    expect(codes.filter((code) => code === 'unauthenticated')).toHaveLength(52)
  })

  test('lose their sessions with their password or their name; the last admin stays', async () => {
    const { operators, changes } = room()
    await operators.add('cli', ruiz)
    await operators.add('ruiz', { name: 'nagy', password: 'battery staple', role: 'viewer' })
    const first = await operators.login('nagy', 'battery staple', IP)
    const second = await operators.login('nagy', 'battery staple', IP)
    await operators.changePassword('nagy', 'nagy', 'another staple', first.token)
    expect(operators.authenticate(first.token)?.name).toBe('nagy')
    expect(operators.authenticate(second.token)).toBeNull()
    expect(await failure(() => operators.login('nagy', 'battery staple', IP))).toMatchObject({
      code: 'unauthenticated',
    })
    operators.remove('ruiz', 'nagy')
    expect(operators.authenticate(first.token)).toBeNull()
    expect(refusal(() => operators.remove('cli', 'ruiz')).code).toBe('conflict')
    expect(refusal(() => operators.remove('cli', 'ruiy')).advice).toContain('ruiz')
    expect(changes.history(10).map(({ key, author, after }) => [key, author, after])).toEqual([
      ['operator/nagy', 'ruiz', null],
      ['operator/nagy', 'ruiz', '{"role":"viewer"}'],
      ['operator/ruiz', 'cli', '{"role":"admin"}'],
    ])
    expect(refusal(() => changes.undo('cli', 1)).message).toContain('cannot be undone')
    expect(operators.audited(10).map(({ act }) => act)).toEqual([
      'operator.remove',
      'operator.password',
      'operator.add',
      'operator.add',
    ])
  })

  test.each([
    [{ name: '' }, 'name'],
    [{ name: 'a b' }, 'name'],
    [{ name: '-x' }, 'name'],
    [{ name: 'x'.repeat(65) }, 'name'],
    [{ name: 'cli' }, 'name'],
    [{ name: 'Postern' }, 'name'],
    [{ password: 'short' }, 'password'],
    [{ password: 'x'.repeat(1_025) }, 'password'],
    [{ name: 'long-name', password: 'Long-Name' }, 'password'],
    [{ role: 'root' }, 'role'],
    [{ role: 'viewer' }, 'role'],
  ])('with %j are refused by the field %s', async (part, field) => {
    const { operators } = room()
    const error = await failure(() => operators.add('cli', { ...ruiz, ...part }))
    expect(error).toBeInstanceOf(RefusalError)
    expect((error as RefusalError).field).toBe(field)
    expect(operators.list()).toEqual([])
  })
})

test('the trace database has its own migrations', () => {
  expect(TRACE_MIGRATIONS.map(({ tag }) => tag)).toEqual(['trace-0001-init'])
})

/** The history of every message: how it is written, searched, counted and forgotten. */
import { describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { idFloor } from '../src/store/conditions.ts'
import { parseQuery } from '../src/store/query.ts'
import { ManualClock } from './clock.ts'
import { type Room, refusal, rooms } from './rooms.ts'

const { reopened, room } = rooms()

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
    const { node } = here
    expect(known.rows).toEqual([
      { ...row, node },
      {
        ...second,
        node,
        delivery: 'delivered',
        deliveryReply: '250 ok',
        deliveryMs: clock.wallMs(),
      },
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
      `CREATE TABLE trace_event (id TEXT, writer TEXT, dot INTEGER, seq INTEGER, at_ms INTEGER,
         recipient TEXT, what TEXT, detail TEXT)`,
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

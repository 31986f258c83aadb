/** What was learnt, applied to mail: in this process, and in a confined child that maps the file. */
import { afterAll, describe, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, renameSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { initialSettings } from '../src/config/schema.ts'
import { PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { LearntModel, type Model, ModelFiles } from '../src/mail/inspect/model.ts'
import { createInspectors } from '../src/mail/inspect/pool.ts'
import { sampleOf } from '../src/mail/inspect/sample.ts'
import { viewOf } from '../src/mail/inspect/view.ts'
import type { Label } from '../src/message/learned.ts'
import { Mail } from '../src/message/mime.ts'
import { LearnedTable } from '../src/store/learned-table.ts'
import { labelledMail } from './bench/detection/set.ts'
import { ENVELOPE, lookAt } from './look.ts'
import { posternCommand } from './real.ts'

const scratch = mkdtempSync(join(tmpdir(), 'postern-bayes-'))
let files = 0

afterAll(() => rmSync(scratch, { recursive: true, force: true }))

function freshTable(): LearnedTable {
  return new LearnedTable(scratch, () => {
    files += 1
    return `counts-${files}`
  })
}

type Lesson = readonly [raw: Uint8Array, label: Label, domain?: string]

/** The table and a model that sees what is taught to it later. */
function taught(lessons: readonly Lesson[]): { readonly table: LearnedTable; model: Model } {
  const table = freshTable()
  for (const lesson of lessons) teach(table, lesson)
  table.flush()
  const model = new ModelFiles().at(table.path)
  if (model === null) throw new Error('the file is there')
  return { table, model }
}

function teach(
  table: LearnedTable,
  [raw, label, domain = null]: Lesson | readonly [Uint8Array, Label, (string | null)?],
): void {
  const learnt = { sample: sampleOf(raw), label, domain }
  table.count(learnt, 1)
  table.know(learnt)
}

function mail(subject: string, body: string, more = ''): Buffer {
  return Buffer.from(
    `From: ann@sender.example\r\nDate: Sun, 22 Nov 2026 12:00:00 +0000\r\nMessage-ID: <1@sender.example>\r\nSubject: ${subject}\r\n${more}\r\n${body}\r\n`,
  )
}

/** So many different words. */
function sundry(count: number): string {
  const letters = 'abcdefghij'
  return Array.from(
    { length: count },
    (_, at) => `w${letters[at % 10]}${letters[Math.floor(at / 10) % 10]}`,
  ).join(' ')
}

const few = { ...initialSettings(), 'learning.minimum': 3 }

function findingsOf(raw: Uint8Array, model: Model | null, recipients = ['b@ours.example']) {
  const seen: { rule: string; score: number; evidence: string }[] = []
  const causes: string[] = []
  lookAt(
    raw,
    {
      model,
      config: { settings: few },
      session: { recipients },
      inspectors: ['bayes', 'campaign'],
    },
    (answer) => {
      if (answer.inspector === 'parse') return
      if ('findings' in answer) seen.push(...answer.findings)
      else if ('cause' in answer) causes.push(answer.cause)
    },
  )
  return { rules: seen.map(({ rule }) => rule), seen, causes }
}

const OFFER = 'Cheap pills without prescription, order now and save money today'
const MINUTES = 'The minutes of our meeting about the printer budget are attached'
const LESSONS: readonly Lesson[] = [
  [mail('Offer', OFFER), 'spam'],
  [mail('Offer 2', `${OFFER}!`), 'spam'],
  [mail('Save', `${OFFER} again`), 'spam'],
  [mail('Minutes', MINUTES), 'ham'],
  [mail('Minutes 2', `${MINUTES}.`), 'ham'],
  [mail('Printer', `${MINUTES} again`), 'ham'],
]

describe('a sample', () => {
  const raw = mail('Offer', OFFER)

  test('has the fingerprint of its message on every way that it came', () => {
    const { fingerprint } = sampleOf(raw)
    const ways = {
      relayed: Buffer.concat([Buffer.from('Received: from a by b\r\nX-Postern-Score: 9\r\n'), raw]),
      'with LF alone': Buffer.from(raw.toString().replace(/\r\n/g, '\n')),
      tagged: Buffer.from(raw.toString().replace('Subject: Offer', 'Subject: [SPAM] Offer')),
      'with blank lines behind it': Buffer.concat([raw, Buffer.from('\r\n\r\n')]),
    }
    for (const way of Object.values(ways)) expect(sampleOf(way).fingerprint).toBe(fingerprint)
    const others = {
      'another body': mail('Offer', `${OFFER}?`),
      'another id': Buffer.from(raw.toString().replace('<1@', '<2@')),
      'another author': Buffer.from(raw.toString().replace('ann@', 'bob@')),
    }
    for (const other of Object.values(others))
      expect(sampleOf(other).fingerprint).not.toBe(fingerprint)
  })

  test('does not hold what this gateway, another judge or a mailbox has added', () => {
    const added =
      'X-Spam-Flag: YES\r\nX-Postern-Score: 9\r\nStatus: RO\r\nDelivered-To: a@b.example\r\n'
    expect(sampleOf(mail('Offer', OFFER, added)).tokens).toEqual(sampleOf(raw).tokens)
  })

  test.each([
    ['nothing', Buffer.of()],
    ['no header', Buffer.from('\r\nbody')],
    [
      'a million words',
      mail('long', Array.from({ length: 200_000 }, (_, at) => `w${at}`).join(' ')),
    ],
    ['NUL and bare CR', Buffer.from('Subject: \0\r\0\n\n\0')],
    ['letters of many scripts', mail('=?utf-8?B?5L2g5aW9?=', '你好世界 мир שלום 😀 ́')],
  ] as const)('of %s is ascending and bounded', (_, bytes) => {
    const { tokens } = sampleOf(bytes)
    expect(tokens.length).toBeLessThanOrEqual(2_000)
    expect([...tokens].every((token, at) => token > (tokens[at - 1] ?? 0))).toBe(true)
  })
})

describe('what was learnt', () => {
  test('speaks for spam or ham and names the words that told most', () => {
    const { model } = taught(LESSONS)
    const spam = findingsOf(mail('Today', `${OFFER} please`), model)
    expect(spam.rules).toEqual(['BAYES_SPAM'])
    expect(spam.seen[0]?.score).toBeGreaterThan(0)
    expect(spam.seen[0]?.evidence).toContain('pills')
    const ham = findingsOf(mail('Today', `${MINUTES} please`), model)
    expect(ham.rules).toEqual(['BAYES_HAM'])
    expect(ham.seen[0]?.score).toBeLessThan(0)
    expect(ham.seen[0]?.evidence).toContain('minutes')
  })

  test('says nothing of words that nobody has learnt, and nothing below the minimum', () => {
    const { model } = taught(LESSONS)
    const strange = Buffer.from('Zed: 1\r\n\r\nKvak brum zilch\r\n')
    expect(findingsOf(strange, model).rules).toEqual([])
    const { model: less } = taught(LESSONS.slice(1))
    expect(findingsOf(mail('Today', OFFER), less).rules).toEqual([])
    expect(findingsOf(mail('Today', OFFER), null).rules).toEqual([])
  })

  test('a class that is far larger speaks less', () => {
    const many = Array.from(
      { length: 27 },
      (_, index): Lesson => [mail(`Offer ${index}`, OFFER), 'spam'],
    )
    const even = findingsOf(mail('x', OFFER), taught(LESSONS).model).seen[0]?.score ?? 0
    const tilted =
      findingsOf(mail('x', OFFER), taught([...LESSONS, ...many]).model).seen[0]?.score ?? 0
    expect(tilted).toBeGreaterThan(0)
    expect(tilted).toBeLessThan(even / 2)
  })

  test('a domain with samples enough of its own is heard for its own mail', () => {
    const other = (index: number) =>
      mail(`Word ${index}`, `brum${index} kvak${index} zilch${index}`)
    const common = Array.from({ length: 40 }, (_, index): Lesson[] => [
      [mail(`Offer ${index}`, OFFER), 'spam'],
      [mail(`Minutes ${index}`, MINUTES), 'ham'],
    ]).flat()
    const own: readonly Lesson[] = [
      [mail('Offer', OFFER), 'ham', 'pharmacy.example'],
      ...[1, 2, 3].map((index): Lesson => [other(index), 'spam', 'pharmacy.example']),
      ...[4, 5].map((index): Lesson => [other(index), 'ham', 'pharmacy.example']),
    ]
    const { model } = taught([...common, ...own])
    const seen = Buffer.from(`\r\n${OFFER}\r\n`)
    const rulesFor = (address: string) => findingsOf(seen, model, [address]).rules
    expect(rulesFor('b@ours.example')).toEqual(['BAYES_SPAM'])
    expect(rulesFor('b@pharmacy.example')).toEqual([])
    const both = ['b@ours.example', 'b@pharmacy.example']
    expect(findingsOf(seen, model, both).rules).toEqual(['BAYES_SPAM'])
  })

  test('a child that was told a path sees what is learnt later, without being told again', () => {
    const { table, model } = taught(LESSONS)
    const raw = mail('Kvak', 'Kvak brum zilch and nothing else that anybody knows of here')
    const token = sampleOf(raw).tokens.find((one) => model.count(one, null).ham === 0) ?? 0
    expect(model.count(token, null)).toEqual({ spam: 0, ham: 0 })
    teach(table, [raw, 'spam'])
    table.flush()
    expect(model.count(token, null)).toEqual({ spam: 1, ham: 0 })
  })

  test('a file that cannot be read is unknown, not clean', () => {
    const path = join(scratch, 'nothing')
    const model = new ModelFiles().at(path)
    const { rules, causes } = findingsOf(mail('x', sundry(100)), model)
    expect(rules).toEqual([])
    expect(causes).toHaveLength(2)
    expect(() => new LearntModel(new ArrayBuffer(4_096))).toThrow('cannot be read')
  })
})

describe('a campaign', () => {
  const all = labelledMail()
  const texts = all.filter(({ isSpam, half }) => isSpam && half === 'train').slice(0, 300)

  test('one lesson finds 95 of 100 near-duplicates in which every tenth word is another', () => {
    const random = new SeededRandom(1)
    let tried = 0
    let found = 0
    for (const { raw } of texts) {
      if (sampleOf(raw).signature === null) continue
      const { table, model } = taught([[raw, 'spam']])
      const { seen, rules } = findingsOf(otherWords(raw, random), model)
      tried += 1
      if (rules.includes('FUZZY_DENIED')) {
        found += 1
        expect(seen[0]?.score).toBeGreaterThanOrEqual(8)
        expect(seen[0]?.score).toBeLessThanOrEqual(12)
      }
      table.close()
    }
    expect(tried).toBeGreaterThan(150)
    expect(found / tried).toBeGreaterThanOrEqual(0.95)
  })

  test('no ham of the corpus is like any of its spam', () => {
    const table = freshTable()
    for (const { raw, isSpam } of all) {
      if (isSpam) table.know({ sample: sampleOf(raw), label: 'spam', domain: null })
    }
    table.flush()
    const model = new ModelFiles().at(table.path)
    const hit = all.filter(
      ({ isSpam, raw }) => !isSpam && findingsOf(raw, model).rules.includes('FUZZY_DENIED'),
    )
    expect(hit.map(({ path }) => path)).toEqual([])
  }, 60_000)

  test('names the mail that was learnt, and ham that is as close takes it back', () => {
    const letter =
      'Dear friend, I am the widow of the late minister and want to share my fortune with you. '.repeat(
        6,
      )
    const words = letter
      .split(' ')
      .map((word, at) => `${word}${'abcdefghij'[at % 10]}`)
      .join(' ')
    const { table, model } = taught([[mail('My fortune', words), 'spam']])
    const copy = mail('Your fortune', `${words} God bless.`)
    const { seen } = findingsOf(copy, model)
    expect(seen.map(({ rule }) => rule)).toEqual(['FUZZY_DENIED'])
    expect(seen[0]?.evidence).toContain('My fortune')
    expect(seen[0]?.evidence).toContain(
      sampleOf(mail('My fortune', words)).fingerprint.slice(0, 12),
    )
    teach(table, [copy, 'ham'])
    table.flush()
    expect(findingsOf(copy, model).rules).not.toContain('FUZZY_DENIED')
  })

  /** What a reader sees of it, every tenth word another one. */
  function otherWords(raw: Buffer, random: SeededRandom): Buffer {
    const words = viewOf(new Mail(raw)).text.replace(/[A-Za-z\u00c0-\uffff]{2,}/g, (word) =>
      random.below(10) > 0
        ? word
        : `q${random.below(1_000)}`.replace(/\d/g, (one) => `xyzkvwjhpb`[Number(one)] ?? ''),
    )
    return mail('Another', words, 'Content-Type: text/plain; charset=utf-8\r\n')
  }
})

describe('a confined child', () => {
  const clock = new SystemClock()

  async function judged(modelPath: string, raws: readonly Buffer[], between = (): void => {}) {
    const spoolDir = join(scratch, 'spool')
    mkdirSync(spoolDir, { recursive: true })
    const pool = createInspectors(
      { command: posternCommand('inspector'), processes: 1, spoolDir, readable: [scratch] },
      { clock, observer: new Observer(clock, () => {}) },
    )
    const config = { ...PLAIN_CONFIG, version: 1, settings: few, modelPath }
    const answers = []
    for (const bytes of raws) {
      answers.push(
        await pool.inspect({
          envelope: ENVELOPE,
          body: { kind: 'memory', bytes },
          inspectors: ['bayes', 'campaign'],
          config,
          clientName: null,
          sha256: null,
          budgetMs: 10_000,
        }),
      )
      between()
    }
    const { missing } = pool.health()
    const sample = await pool.sample({ kind: 'memory', bytes: raws[0] ?? Buffer.of() })
    await pool.close()
    return { answers, missing, sample }
  }

  test('maps the counts behind its walls, and sees what is learnt while it runs', async () => {
    const { table } = taught(LESSONS)
    const strange = Buffer.from('Zed: 1\r\n\r\nKvak brum zilch\r\n')
    const { answers, sample } = await judged(
      table.path ?? '',
      [mail('x', OFFER), strange, strange],
      () => {
        for (let time = 0; time < 9; time += 1) teach(table, [strange, 'spam'])
        for (let time = 0; time < 9; time += 1) teach(table, [mail('Minutes', MINUTES), 'ham'])
        table.flush()
      },
    )
    expect(answers.map(({ unknowns }) => unknowns)).toEqual([[], [], []])
    const rules = answers.map(({ findings }) => findings.map(({ rule }) => rule))
    expect(rules[0]).toEqual(['BAYES_SPAM'])
    expect(rules[2]).toEqual(['BAYES_SPAM'])
    expect(sample).toEqual(sampleOf(mail('x', OFFER)))
  })

  test('that cannot open the counts is unknown', async () => {
    const { table } = taught(LESSONS)
    renameSync(table.path ?? '', join(scratch, 'elsewhere'))
    const { answers } = await judged(table.path ?? '', [mail('x', sundry(100))])
    expect(answers[0]?.findings).toEqual([])
    expect(answers[0]?.unknowns.map(({ inspector }) => inspector)).toEqual(['bayes', 'campaign'])
  })
})

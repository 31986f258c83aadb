/** Inspection: what each inspector finds, what a hostile mail costs, what the pool survives. */
import { afterAll, describe, expect, test } from 'bun:test'
import {
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { strToU8, zipSync } from 'fflate'
import { pause, SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { capScores } from '../src/mail/inspect/answers.ts'
import type { InspectionJob, Inspectors } from '../src/mail/inspect/contract.ts'
import { PLAIN_CONFIG, type SessionFacts } from '../src/mail/inspect/look.ts'
import { createInspectors } from '../src/mail/inspect/pool.ts'
import { previewOf } from '../src/mail/inspect/preview.ts'
import { readZip, unpack } from '../src/mail/inspect/zip.ts'
import type { Body } from '../src/message/body.ts'
import { Mail } from '../src/message/mime.ts'
import { decodeBase64 } from '../src/message/transfer.ts'
import type { Finding, Inspection } from '../src/message/verdict.ts'
import { ENVELOPE, lookAt, lookLong, SESSION } from './look.ts'

const ALL = ['gtube', 'eicar', 'headers', 'attachments']
const HEAD = [
  'From: Anna <a@sender.example>',
  'To: b@ours.example',
  'Subject: Offer',
  'Date: Sun, 22 Nov 2026 01:00:00 +0000',
  'Message-ID: <1@sender.example>',
  'MIME-Version: 1.0',
]
const GTUBE = ['XJS*C4JDBQADN1.NSBN3*2IDNEN*', 'GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'].join('')
const EICAR = ['X5O!P%@AP[4\\PZX54(P^)7CC)7}$EICAR-STANDARD-', 'ANTIVIRUS-TEST-FILE!$H+H*'].join('')

function mail(lines: readonly string[], head: readonly string[] = HEAD): Buffer {
  return Buffer.from([...head, ...lines].join('\r\n'), 'latin1')
}

function text(body: string, ...fields: string[]): Buffer {
  return mail([...fields, '', body, ''])
}

function wrapped(bytes: Uint8Array): string {
  return (
    Buffer.from(bytes)
      .toString('base64')
      .match(/.{1,76}/g) ?? []
  ).join('\r\n')
}

/** A multipart with a text and one attachment; `fields` replace those of the attachment. */
function attached(name: string, content: Uint8Array, fields?: readonly string[]): Buffer {
  return mail([
    'Content-Type: multipart/mixed; boundary="b1"',
    '',
    '--b1',
    'Content-Type: text/plain',
    '',
    'See attached.',
    '--b1',
    ...(fields ?? [`Content-Type: application/octet-stream; name="${name}"`]),
    'Content-Transfer-Encoding: base64',
    '',
    wrapped(content),
    '--b1--',
    '',
  ])
}

function zip(files: Readonly<Record<string, Uint8Array>>, level: 0 | 6 = 6): Uint8Array {
  return zipSync(files, { level })
}

function look(
  raw: Uint8Array,
  session: SessionFacts = SESSION,
): { findings: Finding[]; causes: string[] } {
  const findings: Finding[] = []
  const causes: string[] = []
  lookAt(raw, { session, inspectors: ALL }, (answer) => {
    if ('findings' in answer) findings.push(...answer.findings)
    else if ('cause' in answer) causes.push(answer.cause)
  })
  return { findings, causes }
}

function rules(raw: Uint8Array, session?: SessionFacts): string[] {
  const { findings, causes } = look(raw, session)
  expect(causes).toEqual([])
  return findings.map((finding) => finding.rule).sort()
}

const score = (raw: Uint8Array): number =>
  capScores(look(raw).findings).reduce((sum, finding) => sum + finding.score, 0)

const eicarBytes = strToU8(EICAR, true)
const nest = (levels: number): Uint8Array => {
  let bytes = zip({ 'eicar.txt': eicarBytes })
  for (let level = 1; level < levels; level += 1) bytes = zip({ [`${level}.zip`]: bytes })
  return bytes
}
const program = Buffer.concat([Buffer.from('MZ\x90\0\x03\0\0\0', 'latin1'), Buffer.alloc(120)])

type Row = [name: string, raw: Buffer, rules: string[], session?: Partial<SessionFacts>]

describe('what is found', () => {
  const rows: Row[] = [
    ['a clean text', text('Hello'), []],
    ['a clean attachment', attached('report.pdf', Buffer.from('%PDF-1.4\n')), []],
    [
      'a clean zip',
      attached('photos.zip', zip({ 'a.jpg': Buffer.from('\xff\xd8\xff\xe0', 'latin1') })),
      [],
    ],

    ['GTUBE in a plain text', text(`Hi\r\n${GTUBE}\r\nBye`), ['GTUBE']],
    [
      'GTUBE in base64',
      text(wrapped(strToU8(`Hi ${GTUBE}`)), 'Content-Transfer-Encoding: base64'),
      ['GTUBE'],
    ],
    [
      'GTUBE in base64 with an odd case',
      text(wrapped(strToU8(GTUBE)), 'Content-Transfer-Encoding: BaSe64'),
      ['GTUBE'],
    ],
    [
      'GTUBE in quoted-printable',
      text(
        GTUBE.replace('N3*', 'N3=2A').replace('EMAIL', 'EM=\r\nAIL'),
        'Content-Transfer-Encoding: quoted-printable',
      ),
      ['GTUBE'],
    ],
    [
      'GTUBE in UTF-16',
      text(
        wrapped(Buffer.from(`\ufeff${GTUBE}`, 'utf16le')),
        'Content-Type: text/plain; charset=utf-16le',
        'Content-Transfer-Encoding: base64',
      ),
      ['GTUBE'],
    ],
    ['half of GTUBE is no GTUBE', text(GTUBE.slice(0, 40)), []],

    ['EICAR in a plain text', text(EICAR), ['EICAR']],
    ['EICAR attached', attached('test.txt', eicarBytes), ['EICAR']],
    ['EICAR in a zip', attached('a.zip', zip({ 'eicar.txt': eicarBytes })), ['EICAR']],
    ['EICAR stored in a zip', attached('a.zip', zip({ 'eicar.txt': eicarBytes }, 0)), ['EICAR']],
    ['EICAR in five zips', attached('a.zip', nest(5)), ['EICAR']],
    ['a sixth zip is a limit, never clean', attached('a.zip', nest(6)), ['ARCHIVE_LIMIT']],
    [
      'EICAR in a zip without its name',
      attached('report.dat', zip({ 'eicar.txt': eicarBytes })),
      ['EICAR'],
    ],
    [
      'EICAR behind much else in a zip',
      attached(
        'a.zip',
        zip({
          'a.bin': Buffer.concat([
            Buffer.alloc(3_000_000, 'x'),
            eicarBytes,
            Buffer.alloc(90_000, 'y'),
          ]),
        }),
      ),
      ['EICAR'],
    ],
    [
      'EICAR in an attached message',
      mail([
        'Content-Type: message/rfc822',
        '',
        ...attached('x.txt', eicarBytes).toString('latin1').split('\r\n'),
      ]),
      ['EICAR'],
    ],
    [
      'EICAR in an attached message in base64',
      attached('', attached('x.txt', eicarBytes), ['Content-Type: message/rfc822']),
      ['EICAR'],
    ],

    ['no From', mail(['', 'x'], HEAD.slice(1)), ['MISSING_FROM']],
    ['an empty From', mail(['', 'x'], ['From:', ...HEAD.slice(1)]), ['MISSING_FROM']],
    [
      'no header at all',
      Buffer.from('\r\nbody\r\n'),
      ['MISSING_DATE', 'MISSING_FROM', 'MISSING_MESSAGE_ID'],
    ],
    ['an empty message', Buffer.of(), ['MISSING_DATE', 'MISSING_FROM', 'MISSING_MESSAGE_ID']],
    ['two From fields', text('x', 'FROM: <ceo@ours.example>'), ['MULTIPLE_FROM']],
    ['two Subjects', text('x', 'subject: other'), ['DUPLICATE_HEADER']],
    ['many Received fields are as it should be', text('x', 'Received: a', 'Received: b'), []],
    [
      'a blank before the colon of From',
      mail(['', 'x'], ['From : a@b', ...HEAD.slice(1)]),
      ['MALFORMED_HEADER'],
    ],
    ['a line that is no field', text('x', 'what is this'), ['MALFORMED_HEADER']],
    ['a line of 998 octets', text('x', `X-A: ${'a'.repeat(993)}`), []],
    ['a line of 999 octets', text('x', `X-A: ${'a'.repeat(994)}`), ['LONG_HEADER_LINE']],
    [
      'a header above 100 KB',
      text('x', ...Array.from({ length: 2_000 }, (_, index) => `X-${index}: ${'a'.repeat(60)}`)),
      ['LARGE_HEADER'],
    ],
    [
      'a header above 256 KB',
      text('x', ...Array.from({ length: 4_000 }, (_, index) => `X-${index}: ${'a'.repeat(70)}`)),
      ['LARGE_HEADER', 'MIME_LIMIT'],
    ],
    ['a NUL in the header', text('x', 'X-A: a\0b'), ['HEADER_NUL', 'MIME_AMBIGUOUS']],
    ['eight bits without SMTPUTF8', text('x', 'X-A: \xc3\xbc'), ['EIGHT_BIT_HEADER']],
    ['eight bits with SMTPUTF8', text('x', 'X-A: \xc3\xbc'), [], { smtpUtf8: true }],

    ['an executable', attached('a.exe', Buffer.from('x')), ['BAD_ATTACHMENT_NAME']],
    [
      'an executable in capitals with dots and blanks behind',
      attached('A.EXE. . ', Buffer.from('x')),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'an executable behind a harmless extension',
      attached('invoice.pdf.exe', Buffer.from('x')),
      ['ATTACHMENT_DOUBLE_EXTENSION', 'BAD_ATTACHMENT_NAME'],
    ],
    [
      'the same with many blanks',
      attached(`invoice.pdf${' '.repeat(60)}.scr`, Buffer.from('x')),
      ['ATTACHMENT_DOUBLE_EXTENSION', 'BAD_ATTACHMENT_NAME'],
    ],
    [
      'a name that turns its direction',
      attached('', Buffer.from('x'), [
        "Content-Disposition: attachment; filename*=utf-8''ann%E2%80%AEfdp.exe",
      ]),
      ['ATTACHMENT_NAME_DECEIVES', 'BAD_ATTACHMENT_NAME'],
    ],
    [
      'a name in pieces (RFC 2231)',
      attached('', Buffer.from('x'), [
        'Content-Disposition: attachment; filename*0="a.e"; filename*1="xe"',
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a name in pieces out of order',
      attached('', Buffer.from('x'), [
        'Content-Disposition: attachment; filename*1="xe"; filename*0="a.e"',
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a harmless name and another one',
      attached('', Buffer.from('x'), [
        'Content-Type: image/png; name="a.png"',
        'Content-Disposition: attachment; filename="a.js"',
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'the plain name harmless, the extended one not',
      attached('', Buffer.from('x'), [
        "Content-Disposition: attachment; filename=a.txt; filename*=utf-8''a.hta",
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a name as encoded word',
      attached('', Buffer.from('x'), [
        'Content-Disposition: attachment; filename="=?utf-8?B?YS52YnM=?="',
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a disposition that nobody knows',
      attached('', Buffer.from('x'), ['Content-Disposition: attachement; filename=a.vbs']),
      ['BAD_ATTACHMENT_NAME'],
    ],
    ['a stream of a file', attached('a.exe:b.txt', Buffer.from('x')), ['BAD_ATTACHMENT_NAME']],
    ['a path', attached('..\\\\..\\\\a.exe', Buffer.from('x')), ['BAD_ATTACHMENT_NAME']],
    [
      'a wide dot',
      attached('', Buffer.from('x'), [
        "Content-Disposition: attachment; filename*=utf-8''a%EF%BC%8Eexe",
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a class id',
      attached('a.{3050f4d8-98b5-11cf-bb82-00aa00bdce0b}', Buffer.from('x')),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a program in an archive',
      attached('a.zip', zip({ 'a/b.scr': Buffer.from('x') })),
      ['BAD_ATTACHMENT_NAME'],
    ],
    ['a program under a harmless name', attached('photo.jpg', program), ['BAD_ATTACHMENT_TYPE']],
    [
      'a program without a name',
      attached('', program, ['Content-Type: image/png']),
      ['BAD_ATTACHMENT_TYPE'],
    ],
    [
      'a program under a harmless name in an archive',
      attached('a.zip', zip({ 'photo.jpg': program })),
      ['BAD_ATTACHMENT_TYPE'],
    ],
    [
      'a shortcut under a harmless name',
      attached('a.pdf', Buffer.from('L\0\0\0\x01\x14\x02\0aaaa', 'latin1')),
      ['BAD_ATTACHMENT_TYPE'],
    ],
    [
      'a text that begins with MZ',
      attached(
        'a.txt',
        Buffer.from('MZ is the name of a station in the north of the country, as we all know'),
      ),
      [],
    ],
    [
      'a piece of a message',
      mail(['Content-Type: message/partial; id=x; number=1; total=2', '', 'x']),
      ['MESSAGE_PARTIAL'],
    ],
    [
      'an attached mail named after a site',
      attached('', text('x'), ['Content-Type: message/rfc822; name="Offer of example.com"']),
      [],
    ],

    [
      'two transfer encodings (E01)',
      text(
        wrapped(strToU8(GTUBE)),
        'Content-Transfer-Encoding: quoted-printable',
        'Content-Transfer-Encoding: base64',
      ),
      ['GTUBE', 'MIME_AMBIGUOUS'],
    ],
    [
      'a list of transfer encodings (E02)',
      text(wrapped(strToU8(GTUBE)), 'Content-Transfer-Encoding: 7bit, base64'),
      ['GTUBE', 'MIME_AMBIGUOUS'],
    ],
    [
      'a transfer encoding in quotes and with a comment (E02, E03)',
      text(wrapped(strToU8(GTUBE)), 'Content-Transfer-Encoding: (c)"base64"'),
      ['GTUBE'],
    ],
    [
      'a transfer encoding that nobody knows',
      text(wrapped(strToU8(GTUBE)), 'Content-Transfer-Encoding: base-64'),
      ['GTUBE'],
    ],
    [
      'two Content-Type fields (E04)',
      mail([
        'Content-Type: text/plain',
        'Content-Type: multipart/mixed; boundary=b',
        '',
        '--b',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--b--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_AMBIGUOUS'],
    ],
    [
      'two boundaries, the first holds (E05)',
      mail([
        'Content-Type: multipart/mixed; boundary=b; boundary=c',
        '',
        '--b',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--b--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_AMBIGUOUS'],
    ],
    [
      'two boundaries, the second holds (E05)',
      mail([
        'Content-Type: multipart/mixed; boundary=b; boundary=c',
        '',
        '--c',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--c--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_AMBIGUOUS'],
    ],
    [
      'a boundary in pieces (E06)',
      mail([
        'Content-Type: multipart/mixed; boundary*0=f; boundary*1=oo',
        '',
        '--foo',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--foo--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_AMBIGUOUS'],
    ],
    [
      'a wrong boundary (E08)',
      mail([
        'Content-Type: multipart/mixed; boundary=b',
        '',
        '--other',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--other--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_BROKEN'],
    ],
    [
      'no closing boundary (E09)',
      mail([
        'Content-Type: multipart/mixed; boundary=b',
        '',
        '--b',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    [
      'a part after the closing boundary (E09)',
      mail([
        'Content-Type: multipart/mixed; boundary=b',
        '',
        '--b',
        '',
        'x',
        '--b--',
        '--b',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--b--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_AMBIGUOUS'],
    ],
    [
      'a boundary that begins like another (E10)',
      mail([
        'Content-Type: multipart/mixed; boundary=foo',
        '',
        '--foobar',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--foo',
        '',
        'y',
        '--foo--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MIME_AMBIGUOUS'],
    ],
    [
      'a blank before the colon of Content-Type (E13)',
      mail([
        'Content-Type : multipart/mixed; boundary=b',
        '',
        '--b',
        'Content-Disposition: attachment; filename=a.exe',
        '',
        'x',
        '--b--',
      ]),
      ['BAD_ATTACHMENT_NAME', 'MALFORMED_HEADER', 'MIME_AMBIGUOUS'],
    ],
    [
      'base64 with data after padding (E14)',
      attached('a.txt', Buffer.of(), undefined).toString('latin1').includes('--b1')
        ? mail([
            'Content-Transfer-Encoding: base64',
            '',
            `${Buffer.from('ab').toString('base64')}\r\n${Buffer.from(GTUBE).toString('base64')}`,
          ])
        : Buffer.of(),
      ['GTUBE'],
    ],
    [
      'base64 with foreign characters (E14)',
      text(
        Buffer.from(GTUBE)
          .toString('base64')
          .replace(/(.{7})/g, '$1!\r\n'),
        'Content-Transfer-Encoding: base64',
      ),
      ['GTUBE'],
    ],
    [
      'a digest has messages (E19)',
      mail([
        'Content-Type: multipart/digest; boundary=b',
        '',
        '--b',
        '',
        ...attached('a.exe', Buffer.from('x')).toString('latin1').split('\r\n'),
        '--b--',
      ]),
      ['BAD_ATTACHMENT_NAME'],
    ],
    ['field names of an object', text('x', '__proto__: a', 'constructor: b', 'toString: c'), []],
  ]
  for (const [name, raw, expected, session] of rows) {
    test(name, () => expect(rules(raw, { ...SESSION, ...session })).toEqual(expected))
  }

  test('GTUBE, EICAR and a program are each held by the default thresholds, not refused', () => {
    for (const raw of [
      text(GTUBE),
      mail(['', GTUBE], ['Subject: test']),
      attached('eicar.com', eicarBytes),
      attached('eicar.zip', zip({ 'eicar.com': eicarBytes })),
      attached('invoice.pdf.exe', program),
    ]) {
      expect(score(raw)).toBeGreaterThanOrEqual(8)
      expect(score(raw)).toBeLessThan(15)
    }
  })

  test('files alone, or structure alone, never add up to a refusal, and the worst rule counts in full', () => {
    const files: Finding[] = ['EICAR', 'BAD_ATTACHMENT_NAME', 'ARCHIVE_LIMIT'].map(
      (rule, index) => ({ rule, score: 10 - index, evidence: '' }),
    )
    const other: Finding = { rule: 'GTUBE', score: 10, evidence: '' }
    expect(capScores([other, ...files]).map((finding) => finding.score)).toEqual([10, 10, 2, 0])
    const mime: Finding[] = ['MIME_LIMIT', 'MIME_AMBIGUOUS', 'MIME_BROKEN'].map((rule) => ({
      rule,
      score: 8,
      evidence: '',
    }))
    expect(capScores(mime).map((finding) => finding.score)).toEqual([8, 2, 0])
  })
})

describe('archives', () => {
  test('unpacking stops at its budget, not at the end', () => {
    const bytes = Buffer.from(zip({ 'zeros.bin': new Uint8Array(50 * 1024 * 1024) }))
    const [entry] = readZip(bytes, 10).entries
    if (entry === undefined) throw new Error('the archive has an entry')
    let seen = 0
    const take = (piece: Buffer): boolean => {
      seen += piece.length
      return true
    }
    expect(unpack(bytes, entry, 8 * 1024 * 1024, take)).toBe(8 * 1024 * 1024 + 1)
    expect(seen).toBeLessThanOrEqual(8 * 1024 * 1024)
  })
  const deflated = zip({ 'zeros.bin': new Uint8Array(120 * 1024 * 1024) })
  test('120 MB in a small zip is a limit', () => {
    expect(deflated.length).toBeLessThan(200_000)
    expect(rules(attached('a.zip', deflated))).toEqual(['ARCHIVE_LIMIT'])
  })
  test('entries beyond the bound are a limit', () => {
    const many = Object.fromEntries(
      Array.from({ length: 10_001 }, (_, index) => [`${index}`, new Uint8Array()]),
    )
    expect(rules(attached('a.zip', zip(many)))).toEqual(['ARCHIVE_LIMIT'])
  })
  test('overlapping entries are a limit and are not unpacked', () => {
    const one = Buffer.from(
      zip({ 'a.txt': Buffer.alloc(100, 'a'), 'b.txt': Buffer.alloc(100, 'b') }),
    )
    // The second line of the directory points to the first entry.
    const second = one.indexOf('PK\x01\x02', one.indexOf('PK\x01\x02') + 4, 'latin1')
    one.writeUInt32LE(0, second + 42)
    expect(rules(attached('a.zip', one))).toContain('ARCHIVE_LIMIT')
  })
  test('an encrypted entry is said', () => {
    const one = Buffer.from(zip({ 'a.txt': Buffer.from('secret') }, 0))
    one[6] = 1
    const line = one.indexOf('PK\x01\x02', 0, 'latin1')
    one[line + 8] = 1
    expect(rules(attached('a.zip', one))).toEqual(['ARCHIVE_ENCRYPTED'])
  })
  test('a damaged entry is said', () => {
    const one = Buffer.from(zip({ 'a.txt': Buffer.from('text '.repeat(500)) }))
    one[40] = (one[40] ?? 0) ^ 0xff
    expect(rules(attached('a.zip', one))).toEqual(['ARCHIVE_UNREADABLE'])
  })
  test('a zip cut short is said', () => {
    const one = zip({ 'a.txt': Buffer.from('text '.repeat(5_000)), 'b.txt': Buffer.alloc(10) })
    expect(rules(attached('a.zip', one.subarray(0, one.length - 40)))).toEqual(['ARCHIVE_BROKEN'])
  })
  test('an entry that only its local header shows is looked at', () => {
    const hidden = Buffer.from(zip({ 'eicar.txt': eicarBytes }))
    const hiddenEntry = hidden.subarray(0, hidden.indexOf('PK\x01\x02', 0, 'latin1'))
    const shown = Buffer.from(zip({ 'a.txt': Buffer.from('a') }))
    expect(rules(attached('a.zip', Buffer.concat([hiddenEntry, shown])))).toEqual([
      'ARCHIVE_BROKEN',
      'EICAR',
    ])
  })
  test('a zip behind a program that unpacks it is read', () => {
    const shown = zip({ 'eicar.txt': eicarBytes })
    expect(rules(attached('a.zip', Buffer.concat([Buffer.alloc(500, 'x'), shown])))).toEqual([
      'EICAR',
    ])
  })
})

describe('what a hostile mail costs', () => {
  /** Wide bounds: two cores shared with other suites. What is not linear takes minutes. */
  const MS_MAX = 5_000
  const rows: [string, () => Buffer, string[]][] = [
    ['20 MB of text', () => text('The quick brown fox jumps.\r\n'.repeat(750_000)), []],
    ['20 MB of dots', () => text('..\r\n'.repeat(5_000_000)), []],
    ['20 MB of base64', () => attached('a.bin', Buffer.alloc(15_000_000, 7)), []],
    [
      '20 MB of = in base64',
      () => text('='.repeat(20_000_000), 'Content-Transfer-Encoding: base64'),
      [],
    ],
    [
      '20 MB of = in quoted-printable',
      () => text('='.repeat(20_000_000), 'Content-Transfer-Encoding: quoted-printable'),
      [],
    ],
    [
      '20 MB of blanks behind = in quoted-printable',
      () => text(`=${' '.repeat(20_000_000)}`, 'Content-Transfer-Encoding: quoted-printable'),
      [],
    ],
    [
      '100,000 parts',
      () =>
        mail([
          'Content-Type: multipart/mixed; boundary=b',
          '',
          ...Array.from({ length: 100_000 }, () => '--b\r\n\r\nx'),
          '--b--',
        ]),
      ['MIME_LIMIT'],
    ],
    [
      '100,000 nested multiparts',
      () =>
        mail(
          Array.from(
            { length: 100_000 },
            (_, index) => `Content-Type: multipart/mixed; boundary=b${index}\r\n\r\n--b${index}`,
          ),
        ),
      ['MIME_LIMIT'],
    ],
    [
      '100,000 multiparts of one boundary',
      () =>
        mail(
          Array.from(
            { length: 100_000 },
            () => 'Content-Type: multipart/mixed; boundary=b\r\n\r\n--b',
          ),
        ),
      ['MIME_LIMIT'],
    ],
    [
      '100,000 nested messages',
      () => mail(Array.from({ length: 100_000 }, () => 'Content-Type: message/rfc822\r\n')),
      ['MIME_LIMIT'],
    ],
    [
      '10 MB of boundary prefixes',
      () => mail(['Content-Type: multipart/mixed; boundary=b', '', '--bx\r\n'.repeat(1_600_000)]),
      ['MIME_BROKEN'],
    ],
    [
      'a field of 200 KB of quotes',
      () => text('x', `Content-Type: text/plain; name="${'\\"'.repeat(100_000)}`),
      ['LARGE_HEADER', 'LONG_HEADER_LINE'],
    ],
    [
      'a field of 200 KB of brackets',
      () => text('x', `Content-Type: text/plain${'('.repeat(200_000)}`),
      ['LARGE_HEADER', 'LONG_HEADER_LINE'],
    ],
    [
      'a field of 200 KB of semicolons',
      () => text('x', `Content-Type: text/plain${';a*0=b'.repeat(33_000)}`),
      ['LARGE_HEADER', 'LONG_HEADER_LINE'],
    ],
    [
      'a subject of 200 KB of encoded words',
      () =>
        mail(
          ['', 'x'],
          [
            ...HEAD.filter((line) => !line.startsWith('Subject')),
            `Subject: ${'=?utf-8?q?=41?= '.repeat(12_000)}`,
          ],
        ),
      ['LARGE_HEADER', 'LONG_HEADER_LINE'],
    ],
    [
      'a subject of 200 KB of half encoded words',
      () =>
        mail(
          ['', 'x'],
          [
            ...HEAD.filter((line) => !line.startsWith('Subject')),
            `Subject: ${'=?a?q?'.repeat(33_000)}`,
          ],
        ),
      ['LARGE_HEADER', 'LONG_HEADER_LINE'],
    ],
    [
      'a zip of 12 MB of signatures',
      () => attached('a.zip', Buffer.alloc(12_000_000, 'PK\x03\x04', 'latin1')),
      ['ARCHIVE_BROKEN'],
    ],
  ]
  for (const [name, make, expected] of rows) {
    test(`${name}: bounded`, () => {
      const raw = make()
      const clock = new SystemClock()
      const startMs = clock.monoMs()
      const found = rules(raw)
      expect(clock.monoMs() - startMs).toBeLessThan(MS_MAX)
      for (const rule of expected) expect(found).toContain(rule)
    }, 30_000)
  }

  test('every prefix of a mail, and every mail with one octet changed, is answered', async () => {
    const raw = attached('a.zip', zip({ 'b.zip': zip({ 'eicar.txt': eicarBytes }) }))
    // An octet can make it an archive that is opened later.
    const causes = async (bytes: Buffer) => (await lookLong(bytes, { inspectors: ALL })).causes
    for (let end = 0; end < raw.length; end += 1)
      expect(await causes(raw.subarray(0, end))).toEqual([])
    for (let at = 0; at < raw.length; at += 1) {
      const changed = Buffer.from(raw)
      changed[at] = (at * 7) & 0xff
      expect(await causes(changed)).toEqual([])
    }
  })
})

test('twenty levels are looked into, one more is a limit', () => {
  const levels = (count: number): Buffer => {
    const lines = Array.from({ length: count }, (_, index) => [
      `Content-Type: multipart/mixed; boundary=b${index}x`,
      '',
      `--b${index}x`,
    ])
    return mail([...lines.flat(), 'Content-Disposition: attachment; filename=a.exe', '', 'x'])
  }
  expect(rules(levels(20))).toEqual(['BAD_ATTACHMENT_NAME'])
  expect(rules(levels(21))).toEqual(['MIME_LIMIT'])
})

test('the parts of a mail come in their order, with their bytes', () => {
  const raw = mail([
    'Content-Type: multipart/mixed; boundary=o',
    '',
    'preamble',
    '--o',
    'Content-Type: multipart/alternative; boundary="i n"',
    '',
    '--i n',
    '',
    'one',
    '--i n',
    'Content-Type: text/html',
    '',
    'two',
    '--i n--',
    '--o',
    'Content-Type: message/rfc822',
    '',
    'Subject: inner',
    '',
    'three',
    '--o--',
    'epilogue',
  ])
  const parsed = new Mail(raw)
  expect(parsed.parts.map((part) => `${part.depth} ${part.type}`)).toEqual([
    '0 multipart/mixed',
    '1 multipart/alternative',
    '2 text/plain',
    '2 text/html',
    '1 message/rfc822',
    '2 text/plain',
  ])
  expect(parsed.leaves.map((part) => parsed.contents(part)[0]?.toString())).toEqual([
    'one',
    'two',
    'three',
  ])
})

describe('base64', () => {
  const bytes = Buffer.alloc(3_000_001)
  for (let at = 0; at < bytes.length; at += 1) bytes[at] = (at * 2_654_435_761) >>> 13
  const plain = bytes.toString('base64')
  for (const width of [76, 77, 4, 3_333, 4_000_002]) {
    test(`large content in lines of ${width} comes out whole`, () => {
      const lines = plain.match(new RegExp(`.{1,${width}}`, 'g')) ?? []
      const source = Buffer.from(`..${lines.join('\r\n')}\r\n..`)
      expect(decodeBase64(source, 2, source.length - 2).contents[0]?.equals(bytes)).toBe(true)
    })
  }
})

describe('facts', () => {
  const facts = (...head: string[]) =>
    lookAt(mail(['', 'x'], head), { inspectors: [] }, () => {}).facts
  const rows: [string, string, string | null][] = [
    ['plain', 'Subject: Hello', 'Hello'],
    ['folded', 'Subject: Hello\r\n  world', 'Hello  world'],
    ['UTF-8 as it stands', 'Subject: \xc3\xbc', 'ü'],
    ['Latin-1 as it stands', 'Subject: \xfc', 'ü'],
    ['encoded words', 'Subject: =?utf-8?B?w7w=?= =?utf-8?Q?=C3=A4_a?=', 'üä a'],
    ['a character cut in two words', 'Subject: =?utf-8?B?w7==?= =?utf-8?B?vA==?=', 'ü'],
    ['ISO-2022-JP', 'Subject: =?iso-2022-jp?B?GyRCJCIbKEI=?=', 'あ'],
    ['windows-1251', 'Subject: =?windows-1251?Q?=CF=F0=E8?=', 'При'],
    ['gb18030', 'Subject: =?gb2312?B?xOO6ww==?=', '你好'],
    ['a charset of no kind', 'Subject: =?../../x?Q?abc?=', 'abc'],
    ['a language (RFC 2231)', 'Subject: =?us-ascii*en?Q?abc?=', 'abc'],
    [
      'line breaks and controls in an encoded word',
      'Subject: =?utf-8?Q?a=0D=0AX:_b=00=1B[0m?=',
      'a X: b [0m',
    ],
    ['direction marks', 'Subject: =?utf-8?B?4oCuYWJj?=', 'abc'],
    ['none', 'X-A: b', null],
  ]
  for (const [name, line, subject] of rows) {
    test(`subject: ${name}`, () => expect(facts(line).subject).toBe(subject))
  }
  test('long facts are cut at 500 characters', () => {
    expect(facts(`Subject: ${'a'.repeat(5_000)}`).subject).toHaveLength(500)
  })
})

describe('the pool', () => {
  const clock = new SystemClock()
  const spool = mkdtempSync(join(tmpdir(), 'postern-inspect-'))
  const pools: Inspectors[] = []
  const REAL = [process.execPath, join(import.meta.dir, 'process/inspector.ts'), 'inspector']
  const SICK = [process.execPath, join(import.meta.dir, 'process/sick.ts')]

  afterAll(async () => {
    await Promise.all(pools.map((pool) => pool.close()))
    rmSync(spool, { recursive: true })
  })

  function open(command: readonly string[], processes = 1, memoryBytesMax?: number) {
    const observer = new Observer(clock, () => {})
    const options = {
      command,
      processes,
      spoolDir: spool,
      ...(memoryBytesMax === undefined ? {} : { memoryBytesMax }),
    }
    const pool = createInspectors(options, { clock, observer })
    pools.push(pool)
    return { pool, observer }
  }

  function job(
    body: Uint8Array | Body,
    budgetMs = 10_000,
    inspectors: readonly string[] = ALL,
  ): InspectionJob {
    return {
      envelope: ENVELOPE,
      body: body instanceof Uint8Array ? { kind: 'memory', bytes: body } : body,
      inspectors,
      config: PLAIN_CONFIG,
      clientName: null,
      sha256: null,
      budgetMs,
    }
  }

  const ill = (word: string): Buffer => text(`ILLNESS-${word}`)
  const silent = ({ unknowns }: Inspection): string[] =>
    unknowns.map((unknown) => unknown.inspector).sort()

  async function until(what: () => boolean, ms = 5_000): Promise<void> {
    const endMs = clock.monoMs() + ms
    while (!what() && clock.monoMs() < endMs) await pause(clock, 10)
    expect(what()).toBe(true)
  }

  function childrenOf(pid: number): number[] {
    return readFileSync(`/proc/${pid}/task/${pid}/children`, 'latin1')
      .trim()
      .split(' ')
      .filter((word) => word !== '')
      .map(Number)
  }

  test('answers with findings and facts, and with nothing for a clean mail', async () => {
    const { pool } = open(REAL)
    const clean = await pool.inspect(job(text('Hello')))
    expect(clean).toMatchObject({
      findings: [],
      unknowns: [],
      facts: {
        subject: 'Offer',
        from: 'Anna <a@sender.example>',
        messageId: '<1@sender.example>',
        authors: ['a@sender.example'],
      },
    })
    const bad = await pool.inspect(job(text(GTUBE)))
    expect(bad.findings.map((finding) => finding.rule)).toEqual(['GTUBE'])
    expect(pool.health()).toMatchObject({ processes: 1, ready: 1, replaced: 0 })
  })

  test('many mails at a time each get their own answer', async () => {
    const { pool } = open(REAL, 2)
    const subjects = Array.from({ length: 500 }, (_, index) => `Offer ${index}`)
    const answers = await Promise.all(
      subjects.map((subject, index) =>
        pool.inspect(
          job(
            mail(
              ['', index % 7 === 0 ? GTUBE : 'x'.repeat(index * 50)],
              [`Subject: ${subject}`, ...HEAD.filter((line) => !line.startsWith('Subject'))],
            ),
          ),
        ),
      ),
    )
    expect(answers.map((answer) => answer.facts.subject)).toEqual(subjects)
    expect(
      answers.map((answer) => answer.findings.some((finding) => finding.rule === 'GTUBE')),
    ).toEqual(subjects.map((_, index) => index % 7 === 0))
  })

  test('a body in pieces of files is read from there', async () => {
    const { pool } = open(REAL)
    const raw = attached('a.zip', zip({ 'eicar.txt': eicarBytes }))
    const [one, two] = [join(spool, 'one'), join(spool, 'two')]
    writeFileSync(one, Buffer.concat([Buffer.alloc(10), raw.subarray(0, 300)]))
    writeFileSync(two, Buffer.concat([raw.subarray(300), Buffer.alloc(10)]))
    const extents = [
      { path: one, offset: 10, length: 100 },
      { path: one, offset: 110, length: 200 },
      { path: two, offset: 0, length: raw.length - 300 },
    ]
    const { findings, unknowns } = await pool.inspect(
      job({ kind: 'extents', extents, sizeBytes: raw.length }),
    )
    expect(findings.map((finding) => finding.rule)).toEqual(['EICAR'])
    expect(unknowns).toEqual([])
  })

  test('a body that cannot be read is unknown, and the child goes on', async () => {
    const { pool } = open(REAL)
    const short = join(spool, 'short')
    writeFileSync(short, 'abc')
    for (const [path, length] of [
      ['/etc/passwd', 10],
      [join(spool, 'none'), 10],
      [short, 10],
      [`${spool}/../../etc/passwd`, 10],
    ] as const) {
      expect(
        silent(
          await pool.inspect(
            job({ kind: 'extents', extents: [{ path, offset: 0, length }], sizeBytes: length }),
          ),
        ),
      ).toEqual([...ALL].sort())
    }
    expect((await pool.inspect(job(text('x')))).unknowns).toEqual([])
    expect(pool.health().replaced).toBe(0)
  })

  test('an inspector of no such name is unknown, not clean', async () => {
    const { pool } = open(REAL)
    expect(silent(await pool.inspect(job(text('x'), 10_000, ['gtube', 'oracle'])))).toEqual([
      'oracle',
    ])
  })

  test('no inspectors need no process', async () => {
    const { pool } = open(['/nowhere'])
    expect((await pool.inspect(job(text(GTUBE), 100, []))).unknowns).toEqual([])
  })

  test('a child that hangs is unknown within the budget and is replaced; the mails behind it are inspected', async () => {
    const { pool, observer } = open(SICK)
    await pool.inspect(job(text('warm')))
    const startMs = clock.monoMs()
    const [hung, ...others] = await Promise.all([
      pool.inspect(job(ill('HANG'), 500)),
      pool.inspect(job(text(GTUBE))),
      pool.inspect(job(text('x'))),
      pool.inspect(job(text('y'))),
    ])
    expect(silent(hung)).toEqual([...ALL].sort())
    expect(hung.unknowns[0]?.cause).toBe('no answer in 500 ms')
    expect(clock.monoMs() - startMs).toBeLessThan(5_000)
    expect(others.flatMap(silent)).toEqual([])
    expect(others[0]?.findings.map((finding) => finding.rule)).toEqual(['GTUBE'])
    expect(pool.health().replaced).toBe(1)
    expect(observer.count('inspect_unknown_total')).toBe(4)
  })

  test('while one child hangs, the other takes over what waits behind it', async () => {
    const { pool } = open(SICK, 2)
    await until(() => pool.health().ready === 2)
    const hung = pool.inspect(job(ill('HANG'), 2_000))
    const others = Array.from({ length: 12 }, (_, index) =>
      pool.inspect(job(text(`x${index}`), 1_800)),
    )
    expect((await Promise.all(others)).flatMap(silent)).toEqual([])
    expect(silent(await hung)).toEqual([...ALL].sort())
  })

  test('a real child that is stopped is unknown within the budget, and the next mail is inspected', async () => {
    const { pool } = open(REAL)
    await pool.inspect(job(text('x')))
    const before = childrenOf(process.pid)
    const { pool: second } = open(REAL)
    await second.inspect(job(text('x')))
    const [child] = childrenOf(process.pid).filter((pid) => !before.includes(pid))
    expect(child).toBeDefined()
    process.kill(child ?? 0, 'SIGSTOP')
    expect(silent(await second.inspect(job(text(GTUBE), 300)))).toEqual([...ALL].sort())
    expect((await second.inspect(job(text(GTUBE)))).findings).toHaveLength(1)
  })

  test('what was answered before the hang is kept, the rest is unknown', async () => {
    const { pool } = open(SICK)
    const { findings, unknowns } = await pool.inspect(job(text(`${GTUBE} ILLNESS-HALF`), 1_000))
    expect(findings.map((finding) => finding.rule)).toEqual(['GTUBE'])
    expect(unknowns.map((unknown) => unknown.inspector)).toEqual(['eicar', 'attachments'])
  })

  test('a mail that ends two children is unknown; the mails beside it are inspected', async () => {
    const { pool } = open(SICK, 2)
    const answers = await Promise.all([
      pool.inspect(job(text('x'))),
      pool.inspect(job(ill('CRASH'))),
      pool.inspect(job(text('y'))),
      pool.inspect(job(text('z'))),
    ])
    expect(answers.map((answer) => answer.unknowns.length)).toEqual([0, 4, 0, 0])
    expect(answers[1]?.unknowns[0]?.cause).toBe('the inspector process ended twice')
    expect(answers.map((answer) => answer.ended)).toEqual([undefined, true, undefined, undefined])
    expect(pool.health().replaced).toBe(2)
  })

  test('a child above its memory is ended and replaced', async () => {
    const { pool, observer } = open(SICK, 1, 128 * 1024 * 1024)
    expect(silent(await pool.inspect(job(ill('EAT'), 20_000)))).toEqual([...ALL].sort())
    expect(observer.metrics()).toContain('postern_inspect_replaced_total{why="memory"} 2')
    expect((await pool.inspect(job(text('x')))).unknowns).toEqual([])
  }, 30_000)

  for (const word of ['NOISE', 'FORGED', 'EMPTY', 'FAILS']) {
    test(`a child that lies is unknown, not clean: ${word}`, async () => {
      const { pool } = open(SICK)
      expect(silent(await pool.inspect(job(ill(word), 5_000)))).toEqual([...ALL].sort())
      expect((await pool.inspect(job(text(GTUBE)))).findings).toHaveLength(1)
    })
  }

  test('a binary that does not start is unknown within the budget, and is not started without end', async () => {
    for (const command of [['/bin/false'], ['/nowhere/postern']]) {
      const { pool, observer } = open(command, 2)
      expect(silent(await pool.inspect(job(text('x'), 1_000)))).toEqual([...ALL].sort())
      expect(pool.health().ready).toBe(0)
      expect(observer.count('inspect_replaced_total')).toBeLessThan(12)
    }
  })

  test('time spent waiting for a child counts', async () => {
    const { pool } = open(SICK)
    await pool.inspect(job(text('warm')))
    const hung = pool.inspect(job(ill('HANG'), 2_000))
    const late = await pool.inspect(job(text('x'), 300))
    expect(silent(late)).toEqual([...ALL].sort())
    expect(pool.health().replaced).toBe(0)
    // It is not the mail that waited which had to be ended.
    expect(late.ended).toBeUndefined()
    expect((await hung).ended).toBe(true)
  })

  test('one that waited for most of its time has not ended a process itself', async () => {
    const { pool } = open(SICK)
    await pool.inspect(job(text('warm')))
    const hung = pool.inspect(job(ill('HANG'), 2_000))
    const behind = await pool.inspect(job(ill('HANG'), 2_800))
    expect(silent(behind)).toEqual([...ALL].sort())
    expect(behind.ended).toBeUndefined()
    expect((await hung).ended).toBe(true)
  })

  test('closing answers what is under way as unknown and ends the children', async () => {
    const { pool } = open(SICK)
    await pool.inspect(job(text('x')))
    const hung = pool.inspect(job(ill('HANG'), 60_000))
    await pool.close()
    expect(silent(await hung)).toEqual([...ALL].sort())
    expect(silent(await pool.inspect(job(text('x'))))).toEqual([...ALL].sort())
  })

  test('a child has an empty environment and none of our listeners and files', async () => {
    const listener = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
    const before = childrenOf(process.pid)
    const { pool } = open(REAL)
    await pool.inspect(job(text('x')))
    const [child] = childrenOf(process.pid).filter((pid) => !before.includes(pid))
    expect(readFileSync(`/proc/${child}/environ`, 'latin1')).toBe('')
    // One that does not start itself anew shows what the pool gave it.
    const { pool: plain } = open(SICK)
    await plain.inspect(job(text('x')))
    const started = childrenOf(process.pid).filter((pid) => !before.includes(pid) && pid !== child)
    expect(started.map((pid) => readFileSync(`/proc/${pid}/environ`, 'latin1'))).toEqual([''])
    const target = (pid: number, fd: string): string => {
      try {
        return readlinkSync(`/proc/${pid}/fd/${fd}`)
      } catch {
        return ''
      }
    }
    const ours = new Set(
      readdirSync(`/proc/${process.pid}/fd`)
        .map((fd) => target(process.pid, fd))
        .filter((name) => /^(socket|\/)/.test(name) && name !== '/dev/null'),
    )
    const theirs = readdirSync(`/proc/${child}/fd`).map((fd) => target(child ?? 0, fd))
    expect(theirs.filter((name) => ours.has(name))).toEqual([])
    listener.stop(true)
  })

  test('children end within a second of their parent, a stopped one too', async () => {
    const parent = Bun.spawn(
      [process.execPath, join(import.meta.dir, 'process/pool.ts'), spool, ...REAL],
      { stdout: 'pipe', stdin: 'ignore' },
    )
    const line = new TextDecoder().decode((await parent.stdout.getReader().read()).value)
    expect(line.trim()).toBe('ready')
    const children = childrenOf(parent.pid)
    expect(children).toHaveLength(2)
    process.kill(children[0] ?? 0, 'SIGSTOP')
    parent.kill('SIGKILL')
    const gone = (pid: number): boolean => {
      try {
        return readFileSync(`/proc/${pid}/stat`, 'latin1').includes(') Z ')
      } catch {
        return true
      }
    }
    await until(() => children.every(gone), 1_000)
  })

  test('a preview comes from a child of its own that ends', async () => {
    const { pool } = open(REAL)
    await pool.inspect(job(text('x')))
    const before = childrenOf(process.pid)
    const preview = await pool.preview({
      kind: 'memory',
      bytes: attached('a.pdf', Buffer.from('%PDF-')),
    })
    expect(preview).toMatchObject({ subject: 'Offer', text: 'See attached.', html: null })
    expect(preview.attachments).toEqual([
      {
        name: 'a.pdf',
        type: 'application/octet-stream',
        sizeBytes: 5,
        sha256: new Bun.CryptoHasher('sha256').update('%PDF-').digest('hex'),
      },
    ])
    await until(() => childrenOf(process.pid).length === before.length)
  })

  test('more previews at once than may run wait for each other, and all come', async () => {
    const { pool } = open(REAL)
    const body = { kind: 'memory', bytes: Buffer.from('Subject: x\r\n\r\nhello\r\n') } as const
    const previews = await Promise.all([1, 2, 3, 4, 5].map(() => pool.preview(body)))
    expect(previews.map(({ subject }) => subject)).toEqual(['x', 'x', 'x', 'x', 'x'])
  }, 30_000)

  test('a preview of a body that is not there says so', async () => {
    const { pool } = open(REAL)
    const gone: Body = {
      kind: 'extents',
      extents: [{ path: join(spool, 'gone'), offset: 0, length: 5 }],
      sizeBytes: 5,
    }
    expect(pool.preview(gone)).rejects.toMatchObject({ name: 'GatewayError', remedy: 'retry' })
  })
})

describe('a preview', () => {
  const show = async (html: string) =>
    ((await previewOf(text(html, 'Content-Type: text/html; charset=utf-8'))).html ?? '').trim()

  const hostile: [string, string][] = [
    [
      'scripts',
      '<script>alert(1)</script><p onclick="alert(1)">a</p><svg><script>alert(1)</script></svg>',
    ],
    [
      'loads',
      '<img src="http://t.example/x.gif"><img srcset="//t.example/x 2x"><video src=//t.example/x></video><link rel=stylesheet href=//t.example/x><input type=image src=//t.example/x><table background="http://t.example/x"><tr><td>a</td></tr></table>',
    ],
    [
      'style',
      '<style>@import url(//t.example/x)</style><p style="background:url(//t.example/x);position:fixed">a</p>',
    ],
    [
      'frames and forms',
      '<iframe src=//t.example/x></iframe><form action=//t.example/x><button formaction=//t.example/x>a</button></form><object data=//t.example/x></object><embed src=//t.example/x>',
    ],
    [
      'redirects and bases',
      '<meta http-equiv=refresh content="0;url=//t.example/x"><base href="//t.example/">',
    ],
    [
      'htmx',
      '<p hx-get="/api/x" hx-trigger="load" data-hx-post="/api/x">a</p><p hx-on:click="alert(1)">a</p>',
    ],
    [
      'half tags',
      '<img src=x onerror=alert(1)//<p>a<scr<script>ipt>alert(1)</scr</script>ipt><math><mtext><table><mglyph><style><img src=x onerror=alert(1)>',
    ],
    [
      'our own marker',
      '<span data-postern-target="&quot;&gt;<img src=x onerror=alert(1)>">a</span>',
    ],
    [
      'images that are programs',
      '<img src="data:image/svg+xml;base64,PHN2ZyBvbmxvYWQ9YWxlcnQoMSk+"><img src="data:text/html;base64,PHNjcmlwdD4=">',
    ],
    ['names and ids', '<p id="main" class="x" name="y">a</p>'],
  ]
  for (const [name, html] of hostile) {
    test(`holds no ${name}`, async () => {
      const shown = await show(html)
      expect(
        shown.replace(
          /<\/?[a-z0-9]+(?: (?:alt|dir|align|width|height|colspan|rowspan)="[^"<>]*")*(?: \/)?>/g,
          '',
        ),
      ).not.toMatch(/[<>]/)
      expect(shown).not.toMatch(
        /<(?:script|style|iframe|form|svg|math|object|embed|a|base|meta|link|video|input|button)\b/i,
      )
    })
  }

  test('shows where a link leads, as text before its words', async () => {
    expect(await show('<a href="https://evil.example/a?b=1&c=%3Cd">Your bank</a>')).toBe(
      '<code>[hxxps://evil[.]example/a?b=1&amp;c=%3Cd]</code> <span>Your bank</span>',
    )
    expect(await show('<a href="javascript:alert(1)">x</a>')).toBe(
      '<code>[javascript[:]alert(1)]</code> <span>x</span>',
    )
    expect(await show('<a href="http://e.example/&quot;onload=&quot;x">x</a>')).not.toContain('"')
  })

  test('keeps small images of the mail itself', async () => {
    const png = 'iVBORw0KGgo='
    expect(await show(`<img src="data:image/png;base64,${png}" alt="a">`)).toBe(
      `<img src="data:image/png;base64,${png}" alt="a" />`,
    )
    expect(await show(`<img src="data:image/png;base64,${'A'.repeat(70_000)}" alt="a">`)).toBe(
      '<i>[image: a]</i>',
    )
  })

  test('100,000 nested elements are bounded', async () => {
    const clock = new SystemClock()
    const startMs = clock.monoMs()
    expect((await show('<div>'.repeat(100_000))).length).toBeLessThan(10_000)
    expect(clock.monoMs() - startMs).toBeLessThan(8_000)
  }, 20_000)

  test('says what other programs may show differently', async () => {
    const { notes } = await previewOf(
      text('x', 'Content-Type: text/plain', 'Content-Type: text/html'),
    )
    expect(notes.join()).toContain('two Content-Type fields')
  })
})

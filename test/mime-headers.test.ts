/** A From that some read and others do not is held: H02 and H03 of the catalogue, as far as lines and octets go. */
import { describe, expect, test } from 'bun:test'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { capScores } from '../src/mail/inspect/answers.ts'
import { CATALOGUE } from '../src/message/catalogue.ts'
import { findingsOf } from './mime-world.ts'

const REST = [
  'To: b@ours.example',
  'Subject: Offer',
  'Date: Sun, 22 Nov 2026 01:00:00 +0000',
  'Message-ID: <1@sender.example>',
]
const scoreOf = (head: readonly string[]): number =>
  capScores(findingsOf(Buffer.from([...head, '', 'x', ''].join('\r\n'), 'latin1'))).reduce(
    (sum, { score }) => sum + score,
    0,
  )
const [to = '', ...rest] = REST

describe('H02 a From that is one to some', () => {
  const rows: readonly (readonly [name: string, head: readonly string[]])[] = [
    ['a blank before it, first', [' From: <ceo@ours.example>', 'From: <a@evil.example>', ...REST]],
    [
      'a blank before it, in a fold',
      [to, ' From: <ceo@ours.example>', 'From: <a@evil.example>', ...rest],
    ],
    [
      'a tab before it, in a fold',
      [to, '\tFrom: <ceo@ours.example>', 'From: <a@evil.example>', ...rest],
    ],
    ['a blank behind it', ['From : <ceo@ours.example>', 'From: <a@evil.example>', ...REST]],
    ['a tab behind it', ['From\t: <ceo@ours.example>', 'From: <a@evil.example>', ...REST]],
    ['a NUL behind it', ['From\0: <ceo@ours.example>', 'From: <a@evil.example>', ...REST]],
    ['a NUL before it', ['\0From: <ceo@ours.example>', 'From: <a@evil.example>', ...REST]],
    ['a CR before it', [`${to}\rFrom: <ceo@ours.example>`, 'From: <a@evil.example>', ...rest]],
    ['twice', ['From: <ceo@ours.example>', 'From: <a@evil.example>', ...REST]],
    ['twice, in odd case', ['From: <ceo@ours.example>', 'fROM: <a@evil.example>', ...REST]],
    [
      'a blank before Sender in a fold',
      [to, ' Sender: <ceo@ours.example>', 'From: <a@evil.example>', ...rest],
    ],
  ]
  for (const [name, head] of rows) {
    test(`${name}: held`, () => {
      expect(scoreOf(head)).toBeGreaterThanOrEqual(8)
    })
  }
  test('H03 an address with a NUL in it: held', () => {
    expect(scoreOf(['From: <a@good.example\0@evil.example>', ...REST])).toBeGreaterThanOrEqual(8)
  })
  test('a From that is folded, and a signature that lists from, are as they should be', () => {
    expect(scoreOf(['From:\r\n <a@sender.example>', ...REST])).toBe(0)
    expect(
      scoreOf([
        'DKIM-Signature: v=1; h=subject:\r\n from:to:content-type:\r\n content-transfer-encoding; b=x',
        'From: <a@sender.example>',
        ...REST,
      ]),
    ).toBe(0)
  })
  test('a doubtful structure holds a mail and never refuses it', () => {
    const all = [
      '\0From : <ceo@ours.example>',
      ' From: a\rb',
      'Content-Type : text/plain',
      'Content-Type: x\0',
      'From: <a@b>',
      'junk',
      ...REST,
    ]
    const structure = findingsOf(Buffer.from([...all, '', 'x'].join('\r\n'), 'latin1')).filter(
      ({ rule }) =>
        rule.startsWith('MIME_') || rule.startsWith('HEADER_') || rule === 'MALFORMED_HEADER',
    )
    expect(capScores(structure).reduce((sum, { score }) => sum + score, 0)).toBe(10)
  })
})

test('every rule of the walk and of the header is in the table of rules', () => {
  const known = new Set(CATALOGUE.map(({ rule }) => rule))
  for (const name of ['parse', 'headers']) {
    const source = readFileSync(join(import.meta.dir, `../src/mail/inspect/${name}.ts`), 'utf8')
    const said = [...source.matchAll(/(?:rule: |found\(\s*)'([A-Z_]+)'/g)].map(
      ([, rule = '']) => rule,
    )
    expect(said.length).toBeGreaterThan(3)
    expect(said.filter((rule) => !known.has(rule))).toEqual([])
  }
})

/** Rules of the operator: what is read, what is found, what a hostile pattern or mail can cost. */
import { afterEach, describe, expect, test } from 'bun:test'
import fc from 'fast-check'
import { RefusalError } from '../src/base/errors.ts'
import { parseExpression } from '../src/config/expression.ts'
import {
  compilePattern,
  type Detection,
  NO_DETECTION,
  type Rule,
  readMap,
  readRule,
} from '../src/config/rules.ts'
import { weigh } from '../src/mail/decide/outcome.ts'
import { folded, neededBy } from '../src/mail/inspect/literals.ts'
import type { Finding } from '../src/message/verdict.ts'
import { type Given, lookAt } from './look.ts'
import { Room } from './rooms.ts'

function detection(rules: readonly Rule[], more: Partial<Detection> = {}): Detection {
  return { ...NO_DETECTION, rules, ...more }
}

const rule = (look: object, more: object = {}): Rule =>
  readRule('OUR_RULE', { score: 2, look, ...more })

function mail(lines: readonly string[], body = 'Hello, please open the invoice.'): Buffer {
  return Buffer.from(['From: Ann <ann@sender.example>', ...lines, '', body, ''].join('\r\n'))
}

function found(raw: Uint8Array, set: Detection, session: Given['session'] = {}): Finding[] {
  const findings: Finding[] = []
  lookAt(raw, { inspectors: ['rules'], config: { detection: set }, session }, (answer) => {
    if (!('findings' in answer)) throw new Error(JSON.stringify(answer))
    findings.push(...answer.findings)
  })
  return findings
}

describe('a rule is found', () => {
  const rows: readonly (readonly [string, object, Buffer, Given['session']?])[] = [
    [
      'in a header field',
      { kind: 'header', field: 'Subject', pattern: 'big\\s+win' },
      mail(['Subject: A BIG  win']),
    ],
    [
      'in a decoded field',
      { kind: 'header', field: 'subject', pattern: 'über' },
      mail(['Subject: =?utf-8?B?w5xiZXI=?=']),
    ],
    ['in any field', { kind: 'header', field: '*', pattern: 'x-odd: yes' }, mail(['X-Odd: yes'])],
    ['in the text', { kind: 'body', pattern: 'open the (invoice|bill)' }, mail([])],
    [
      'in a link',
      { kind: 'link', pattern: 'evil\\.example/login' },
      mail([], 'See http://evil.example/login now'),
    ],
    ['in the octets', { kind: 'raw', pattern: 'x-odd' }, mail(['X-Odd: yes'])],
    [
      'by the sender in a map',
      { kind: 'map', map: 'bad', of: 'sender' },
      mail([]),
      { sender: 'Ann@Bad.example' },
    ],
    ['by the author in a map', { kind: 'map', map: 'bad', of: 'author' }, mail([])],
    [
      'by the client in a map',
      { kind: 'map', map: 'bad', of: 'client' },
      mail([]),
      { clientIp: '198.51.100.7' },
    ],
    [
      'by a recipient in a map',
      { kind: 'map', map: 'bad', of: 'recipient' },
      mail([]),
      { recipients: ['x@bad.example'] },
    ],
    [
      'by the host of a link',
      { kind: 'map', map: 'bad', of: 'link' },
      mail([], 'http://a.b.bad.example/x'),
    ],
    ['by the content of a file', { kind: 'map', map: 'bad', of: 'file' }, mail([], 'known')],
  ]
  const hash = new Bun.CryptoHasher('sha256').update('known\r\n').digest('hex')
  const maps = { bad: readMap(['bad.example', 'ann@sender.example', '198.51.100.0/24', hash]) }
  for (const [name, look, raw, session] of rows) {
    test(name, () => {
      const [finding] = found(raw, detection([rule(look)], { maps }), session)
      expect(finding).toMatchObject({ rule: 'OUR_RULE', score: 2 })
      expect(finding?.evidence).toEndWith('.')
      // And not in a mail that has nothing of it.
      const plain = Buffer.from('From: b@other.example\r\n\r\nNothing.\r\n')
      expect(
        found(plain, detection([rule(look)], { maps }), { sender: 'b@other.example' }),
      ).toEqual([])
    })
  }

  test('and not when it is off', () => {
    const off = rule({ kind: 'body', pattern: 'invoice' }, { on: false })
    expect(found(mail([]), detection([off]))).toEqual([])
  })

  test('with its description', () => {
    const said = rule({ kind: 'body', pattern: 'invoice' }, { describe: 'It asks for money.' })
    expect(found(mail([]), detection([said]))[0]?.evidence).toBe(
      'It asks for money. The text has "invoice".',
    )
  })
})

describe('a hostile pattern is refused or costs what a plain one does', () => {
  for (const pattern of [
    '(x{1000}){1000}',
    '(?=a)b',
    '(a)\\1',
    'a{2,1}',
    '(',
    '[z-a]',
    'a'.repeat(501),
    '',
  ]) {
    test(`refused: ${pattern.slice(0, 30)}`, () => {
      expect(() => rule({ kind: 'body', pattern })).toThrow(RefusalError)
    })
  }

  test('patterns that backtrack for ever elsewhere end, and the whole mail is bounded', () => {
    const patterns = [
      '(a+)+$',
      '(a|aa)+$',
      '(.*)*x',
      '^(a?){50}a{50}$',
      '(\\w+\\s?)+:$',
      '(?:a*)*b',
    ]
    const rules = Array.from({ length: 300 }, (_, index) =>
      readRule(`R_${index}`, {
        score: 1,
        look: { kind: 'body', pattern: patterns[index % patterns.length] },
      }),
    )
    const long = mail([], `${'a'.repeat(60_000)}!`)
    const findings = found(long, detection(rules))
    // Eight patterns of 64 K characters are run to their end; the rest says so.
    expect(findings.map((finding) => finding.rule)).toContain('RULES_LIMIT')
  })

  test('a rule whose words are missing costs nothing of that bound', () => {
    const rules = Array.from({ length: 400 }, (_, index) =>
      readRule(`R_${index}`, {
        score: 1,
        look: { kind: 'body', pattern: `word${index}\\s+(one|two)` },
      }),
    )
    const findings = found(
      mail([], `${'lorem ipsum '.repeat(6_000)} word399 two`),
      detection(rules),
    )
    expect(findings).toEqual([])
    const short = found(mail([], 'word399 two'), detection(rules))
    expect(short.map((finding) => finding.rule)).toEqual(['R_399'])
  })

  test('a pattern never matches where none of its words is', () => {
    const letter = fc.constantFrom('a', 'b', 'C', 'é', 'ſ', 's', '.', ' ')
    const word = fc.string({ unit: letter, minLength: 1, maxLength: 5 })
    const escaped = word.map((text) => text.replace(/\./g, '\\.'))
    const part = fc.oneof(
      { weight: 4, arbitrary: escaped },
      escaped.map((text) => `(?:${text})?`),
      escaped.map((text) => `${text}*`),
      escaped.map((text) => `(${text})+`),
      fc.tuple(escaped, escaped).map(([a, b]) => `(${a}|${b})`),
      fc.constantFrom(
        '[abc]',
        '\\s',
        '\\b',
        '.',
        '.*',
        '^',
        '\\w{2,3}',
        '[]a]',
        '(?i:ab)',
        '\\x41',
        '\\Qa.b\\E',
      ),
    )
    const pattern = fc
      .array(
        fc.array(part, { minLength: 1, maxLength: 5 }).map((parts) => parts.join('')),
        {
          minLength: 1,
          maxLength: 3,
        },
      )
      .map((alternatives) => alternatives.join('|'))
    let checked = 0
    fc.assert(
      fc.property(
        pattern,
        fc.string({ unit: letter, maxLength: 9 }),
        fc.nat(2),
        (text, ends, which) => {
          // What the pattern is made of, in capitals too: random text alone hardly ever matches.
          const alternatives = text.split('|')
          const heart = (alternatives[which % alternatives.length] ?? '').replace(
            /[^\p{L}. ]/gu,
            '',
          )
          const subject = `${ends}${which === 1 ? heart.toUpperCase() : heart}${ends}`
          const needed = neededBy(text)
          if (needed === null) return
          if (!compilePattern(text).matcher(subject).find()) return
          checked += 1
          expect(needed.some((each) => folded(subject).includes(each))).toBe(true)
        },
      ),
      { numRuns: 20_000, seed: 7 },
    )
    expect(checked).toBeGreaterThan(100)
  })
})

describe('composites', () => {
  const finding = (name: string, score = 1): Finding => ({ rule: name, score, evidence: 'Seen.' })
  const composite = (name: string, expression: string): Rule =>
    readRule(name, { score: 3, look: { kind: 'composite', expression } })
  const names = (findings: readonly Finding[], ...rules: readonly Rule[]): string[] =>
    weigh(findings, detection(rules)).map((each) => each.rule)

  const rows: readonly (readonly [expression: string, names: string, holds: boolean])[] = [
    ['A', 'A', true],
    ['A & B', 'A', false],
    ['A & B', 'A B', true],
    ['A | B & C', 'A', true],
    ['A | B & C', 'B', false],
    ['(A | B) & C', 'B C', true],
    ['A & !B', 'A', true],
    ['A & !B', 'A B', false],
    ['!(A | B)', '', true],
    ['a & b', 'A B', true],
  ]
  for (const [expression, given, isFound] of rows) {
    test(`${expression} over ${given || 'nothing'}`, () => {
      const findings = given
        .split(' ')
        .filter((name) => name !== '')
        .map((name) => finding(name))
      expect(names(findings, composite('BOTH', expression)).includes('BOTH')).toBe(isFound)
    })
  }

  test('a composite may name one that comes later by its name', () => {
    expect(names([finding('A')], composite('B_FIRST', 'Z_LAST'), composite('Z_LAST', 'A'))).toEqual(
      ['A', 'Z_LAST', 'B_FIRST'],
    )
  })

  test('a circle holds never, whatever its signs', () => {
    expect(names([finding('A')], composite('X1', '!Y1'), composite('Y1', '!X1 & A'))).toEqual(['A'])
  })

  for (const text of [
    '',
    'A &',
    '& A',
    '(A',
    'A)',
    'A B',
    'A ! B',
    `${'!'.repeat(60)}A`,
    'A & "B"',
  ]) {
    test(`refused: ${text.slice(0, 20) || 'nothing'}`, () => {
      expect(() => parseExpression(text)).toThrow(RefusalError)
    })
  }

  test('the score of the operator counts in place of our own, for composites too', () => {
    const set = detection([composite('BOTH', 'A')], { scores: { A: 0.5, BOTH: -2 } })
    expect(weigh([finding('A', 9)], set).map(({ rule: name, score }) => [name, score])).toEqual([
      ['A', 0.5],
      ['BOTH', -2],
    ])
    // Names of every object are no scores.
    expect(weigh([finding('CONSTRUCTOR')], set)[0]?.score).toBe(1)
  })
})

describe('in the store', () => {
  const rooms: Room[] = []
  afterEach(() => {
    for (const room of rooms.splice(0)) {
      room.close()
      room.remove()
    }
  })
  function open(): Room {
    const room = new Room()
    rooms.push(room)
    return room
  }
  const body = { score: 2, look: { kind: 'body', pattern: 'x' } }

  test('a rule is in force at once, survives a restart, and can be taken back', () => {
    const room = open()
    room.detection.putRule('ann', 'our_rule', body)
    expect(room.live.current.detection.rules.map(({ name }) => name)).toEqual(['OUR_RULE'])
    const next = room.reopened()
    rooms.splice(0, 1, next)
    expect(next.detection.rules()).toMatchObject([{ name: 'OUR_RULE', score: 2, by: 'ann' }])
    const [change] = next.changes.history(1)
    next.changes.undo('bea', change?.id ?? '')
    expect(next.live.current.detection.rules).toEqual([])
  })

  test('a circle of composites is refused by name, and changes nothing', () => {
    const room = open()
    room.detection.putRule('ann', 'A_RULE', {
      score: 1,
      look: { kind: 'composite', expression: 'B_RULE' },
    })
    room.detection.putRule('ann', 'B_RULE', {
      score: 1,
      look: { kind: 'composite', expression: 'C_RULE' },
    })
    const before = room.live.current
    const circle = () =>
      room.detection.putRule('ann', 'C_RULE', {
        score: 1,
        look: { kind: 'composite', expression: '!A_RULE' },
      })
    expect(circle).toThrow('leads back')
    expect(room.live.current).toBe(before)
  })

  test('scores, maps and sources come and go', () => {
    const room = open()
    room.detection.putScore('ann', 'GTUBE', '0.5')
    room.detection.putMap('ann', 'bad', 'B.example # why\n\na.example\nA.example')
    room.detection.putYara('ann', 'own', 'rule x { condition: false }')
    expect(room.live.current.detection).toMatchObject({
      scores: { GTUBE: 0.5 },
      maps: { bad: ['a.example', 'b.example'] },
      yara: { own: 'rule x { condition: false }' },
    })
    for (const [kind, name] of [
      ['score', 'GTUBE'],
      ['map', 'bad'],
      ['yara', 'own'],
    ] as const)
      room.detection.remove('ann', kind, name)
    expect(room.live.current.detection).toEqual(NO_DETECTION)
    expect(() => room.detection.remove('ann', 'map', 'bad')).toThrow('There is no map bad')
  })

  test('bad input names its field', () => {
    const room = open()
    const rows: readonly (readonly [string, () => unknown])[] = [
      ['name', () => room.detection.putRule('ann', 'no way', body)],
      ['score', () => room.detection.putRule('ann', 'A_RULE', { ...body, score: 101 })],
      [
        'pattern',
        () =>
          room.detection.putRule('ann', 'A_RULE', {
            score: 1,
            look: { kind: 'body', pattern: '(' },
          }),
      ],
      ['kind', () => room.detection.putRule('ann', 'A_RULE', { score: 1, look: { kind: 'x' } })],
      [
        'field',
        () =>
          room.detection.putRule('ann', 'A_RULE', {
            score: 1,
            look: { kind: 'header', field: 'a b', pattern: 'x' },
          }),
      ],
      [
        'of',
        () =>
          room.detection.putRule('ann', 'A_RULE', {
            score: 1,
            look: { kind: 'map', map: 'a', of: 'x' },
          }),
      ],
      [
        'entries',
        () =>
          room.detection.putMap(
            'ann',
            'a',
            Array.from({ length: 10_001 }, (_, i) => `e${i}`),
          ),
      ],
    ]
    for (const [field, act] of rows) {
      expect(act).toThrow(RefusalError)
      try {
        act()
      } catch (error) {
        expect((error as RefusalError).field).toBe(field)
      }
    }
    expect(room.live.current.detection).toEqual(NO_DETECTION)
  })
})

/** Tables: findings and policy to verdict; verdicts to reply and copies. One row a promise. */
import { describe, expect, test } from 'bun:test'
import type { MessageId } from '../src/base/ids.ts'
import { NetworkIndex } from '../src/config/networks.ts'
import { NO_DETECTION } from '../src/config/rules.ts'
import { initialSettings } from '../src/config/schema.ts'
import { type Domain, type Lists, NO_LISTS, type Snapshot } from '../src/config/snapshot.ts'
import { decide } from '../src/mail/decide/decide.ts'
import { listingOf } from '../src/mail/decide/listing.ts'
import { type Policy, policyFor } from '../src/mail/decide/policy.ts'
import { type Fate, respond } from '../src/mail/decide/respond.ts'
import { tagFields } from '../src/mail/decide/tag.ts'
import { addressesIn } from '../src/message/address.ts'
import { formatReply } from '../src/message/reply.ts'
import {
  type Inspection,
  NO_FACTS,
  NO_INSIGHT,
  type Verdict,
  type VerdictKind,
} from '../src/message/verdict.ts'

const POLICY: Policy = { hold: 8, reject: 15, enforce: true }
const ID = '01hzy7c3k0000000000000000a' as MessageId

type DecideRow = {
  name: string
  scores: number[]
  silent?: string[]
  policy?: Policy
  kind: VerdictKind
  score: number
}
const DECIDE: DecideRow[] = [
  { name: 'a mail without findings is delivered', scores: [], kind: 'deliver', score: 0 },
  { name: 'a mail below the hold score is delivered', scores: [7.9], kind: 'deliver', score: 7.9 },
  { name: 'the hold score holds', scores: [8], kind: 'hold', score: 8 },
  { name: 'GTUBE is held by default, not refused', scores: [10], kind: 'hold', score: 10 },
  { name: 'just below the reject score is held', scores: [14.99], kind: 'hold', score: 14.99 },
  { name: 'the reject score refuses', scores: [15], kind: 'reject', score: 15 },
  { name: 'scores add up', scores: [10, 5], kind: 'reject', score: 15 },
  { name: 'a negative score takes off', scores: [10, -5], kind: 'deliver', score: 5 },
  {
    name: 'tenths add up to what a person sees',
    scores: [0.1, 0.2],
    policy: { hold: 0.3, reject: 9, enforce: true },
    kind: 'hold',
    score: 0.3,
  },
  { name: 'an unknown is never delivered', scores: [], silent: ['eicar'], kind: 'defer', score: 0 },
  {
    name: 'an unknown is not held either: the answer may be a refusal',
    scores: [9],
    silent: ['eicar'],
    kind: 'defer',
    score: 9,
  },
  {
    name: 'an unknown does not save what is refused anyway',
    scores: [15],
    silent: ['eicar'],
    kind: 'reject',
    score: 15,
  },
  {
    name: 'a good score does not outweigh an unknown',
    scores: [-100],
    silent: ['gtube'],
    kind: 'defer',
    score: -100,
  },
  {
    name: 'where reject is not above hold, reject wins',
    scores: [8],
    policy: { hold: 8, reject: 5, enforce: true },
    kind: 'reject',
    score: 8,
  },
]

for (const row of DECIDE) {
  test(row.name, () => {
    const verdict = decide(
      {
        findings: row.scores.map((score, index) => ({ rule: `R${index}`, score, evidence: '' })),
        unknowns: (row.silent ?? []).map((inspector) => ({ inspector, cause: 'late' })),
        facts: NO_FACTS,
      },
      row.policy ?? POLICY,
      null,
    )
    expect(verdict.kind).toBe(row.kind)
    expect(verdict.score).toBe(row.score)
    expect(verdict.unknown).toEqual(row.silent ?? [])
  })
}

test('a verdict names the rules that spoke against the mail, worst first', () => {
  const findings = [
    { rule: 'A', score: 1, evidence: '' },
    { rule: 'GOOD', score: -1, evidence: '' },
    { rule: 'NOTED', score: 0, evidence: '' },
    { rule: 'B', score: 7, evidence: '' },
  ]
  expect(decide({ findings, unknowns: [], facts: NO_FACTS }, POLICY, null).rules).toEqual([
    'B',
    'A',
  ])
})

function verdicts(kinds: readonly VerdictKind[]): Verdict[] {
  return kinds.map((kind) => ({ kind, score: 12.5, rules: ['GTUBE'], unknown: ['eicar'] }))
}

type RespondRow = { name: string; kinds: VerdictKind[]; line: string; fates: Fate[] }
const RESPOND: RespondRow[] = [
  {
    name: 'a clean mail is taken',
    kinds: ['deliver'],
    line: `250 2.0.0 ${ID}`,
    fates: ['deliver'],
  },
  {
    name: 'the sender does not learn of a hold',
    kinds: ['hold'],
    line: `250 2.0.0 ${ID}`,
    fates: ['hold'],
  },
  {
    name: 'all refused: the session refuses and nothing is kept',
    kinds: ['reject', 'reject'],
    line: '550 5.7.1 Message refused',
    fates: ['none', 'none'],
  },
  {
    name: 'one recipient takes it: the refused copy is held, never bounced',
    kinds: ['reject', 'deliver'],
    line: `250 2.0.0 ${ID}`,
    fates: ['hold', 'deliver'],
  },
  {
    name: 'held and refused copies are both held',
    kinds: ['hold', 'reject'],
    line: `250 2.0.0 ${ID}`,
    fates: ['hold', 'hold'],
  },
  {
    name: 'one defer defers all and nothing is kept',
    kinds: ['deliver', 'defer', 'hold'],
    line: '451 4.7.1 Try again later',
    fates: ['none', 'none', 'none'],
  },
  {
    name: 'refused and deferred is deferred',
    kinds: ['reject', 'defer'],
    line: '451 4.7.1 Try again later',
    fates: ['none', 'none'],
  },
]

for (const row of RESPOND) {
  test(row.name, () => {
    const response = respond(ID, verdicts(row.kinds), null)
    expect(formatReply(response.reply)).toBe(row.line)
    expect(response.fates).toEqual(row.fates)
  })
}

test('every mix of verdicts keeps a copy only behind 250, and delivers only what was to be delivered', () => {
  const kinds: VerdictKind[] = ['deliver', 'hold', 'reject', 'defer']
  for (let mix = 0; mix < 4 ** 4; mix += 1) {
    const row = [0, 2, 4, 6].map((shift) => kinds[(mix >> shift) & 3] ?? 'defer')
    const { reply, fates } = respond(ID, verdicts(row), null)
    expect(fates).toHaveLength(row.length)
    for (const [index, fate] of fates.entries()) {
      expect(fate === 'none').toBe(reply.code !== 250)
      if (fate === 'deliver') expect(row[index]).toBe('deliver')
    }
    expect(formatReply(reply)).not.toMatch(/GTUBE|eicar|12\.5|quarantine|held/)
  }
})

function domain(name: string, hold: number | null, reject: number | null): Domain {
  return { name, nextHops: [], recipients: null, hold, reject, enforce: null }
}
const SNAPSHOT: Snapshot = {
  settings: initialSettings(),
  domains: new Map(
    [
      domain('strict.example', 3, 5),
      domain('half.example', 6, null),
      domain('xn--bcher-kva.example', 4, 9),
    ].map((each) => [each.name, each]),
  ),
  lists: NO_LISTS,
  detection: NO_DETECTION,
  signing: [],
}

const POLICIES: [string, string, Policy][] = [
  [
    'a domain without thresholds has those of the settings',
    'a@other.example',
    { hold: 8, reject: 15, enforce: true },
  ],
  ['a domain has its own', 'a@strict.example', { hold: 3, reject: 5, enforce: true }],
  ['a domain may have one of its own', 'a@half.example', { hold: 6, reject: 15, enforce: true }],
  [
    'case and the trailing dot make no difference',
    'A@Strict.EXAMPLE.',
    { hold: 3, reject: 5, enforce: true },
  ],
  ['the last @ counts', '"a@b"@strict.example', { hold: 3, reject: 5, enforce: true }],
  ['a U-label finds its A-label', 'a@bücher.example', { hold: 4, reject: 9, enforce: true }],
  ['a subdomain is another domain', 'a@sub.strict.example', { hold: 8, reject: 15, enforce: true }],
]
for (const [name, address, policy] of POLICIES) {
  test(name, () => expect(policyFor(SNAPSHOT, address)).toEqual(policy))
}

const LISTS: Lists = {
  allowedClients: new NetworkIndex(['10.0.0.0/8', '198.51.100.7']),
  blockedClients: new NetworkIndex(['192.0.2.0/24', '2001:db8::/32', '198.51.100.7']),
  blockedSenders: new Set(['x@bad.example', '@worse.example', '@xn--bcher-kva.example']),
  allowedSenders: new Set(['a@partner.example', '@good.example', 'x@bad.example']),
}

type Sent = [name: string, clientIp: string, sender: string, authors: string[], by: string | null]
const LISTED: Sent[] = [
  ['nobody is listed by default', '203.0.113.1', 'a@good.example', [], null],
  ['a client in a blocked network', '192.0.2.77', 'a@good.example', [], '192.0.2.0/24'],
  ['an IPv6 client', '2001:db8:1::9', 'a@good.example', [], '2001:db8::/32'],
  ['a blocked sender, whatever the case', '203.0.113.1', 'X@Bad.Example', [], 'x@bad.example'],
  ['another sender of that domain is not', '203.0.113.1', 'y@bad.example', [], null],
  ['all of a blocked domain', '203.0.113.1', 'any@worse.example', [], '@worse.example'],
  ['a subdomain of it is not', '203.0.113.1', 'any@sub.worse.example', [], null],
  ['a U-label', '203.0.113.1', 'a@Bücher.example', [], '@xn--bcher-kva.example'],
  ['an author in From', '203.0.113.1', 'a@good.example', ['x@bad.example'], 'x@bad.example'],
  ['a second author', '203.0.113.1', '', ['a@b.example', 'c@worse.example'], '@worse.example'],
  ['a bounce of a good client is not', '203.0.113.1', '', [], null],
  ['a blocked sender at an allowed client', '10.1.1.1', 'x@bad.example', [], 'x@bad.example'],
  ['a client on both lists', '198.51.100.7', 'a@good.example', [], '198.51.100.7'],
]
for (const [name, clientIp, sender, authors, by] of LISTED) {
  test(`the block list: ${name}`, () => {
    const listing = listingOf(LISTS, { clientIp, sender }, { authors }, NO_INSIGHT)
    const evidence = listing?.kind === 'block' ? listing.finding.evidence : null
    expect(evidence?.replace(/.* by the entry /, '') ?? null).toBe(by === null ? null : `${by}.`)
  })
}

test('what is blocked is refused whatever else is said, and told so', () => {
  const listing = listingOf(LISTS, { clientIp: '192.0.2.1', sender: '' }, NO_FACTS, NO_INSIGHT)
  for (const [score, silent] of [
    [0, false],
    [-50, false],
    [5, true],
  ] as const) {
    const verdict = decide(inspected([['GOOD', score]], silent), POLICY, listing)
    expect(verdict.kind).toBe('reject')
    expect(verdict.rules[0]).toBe('BLOCK_LIST')
    const { reply } = respond(ID, [verdict, verdict], listing)
    expect(formatReply(reply)).toBe(
      '550 5.7.1 Message refused: sender or client is on a block list',
    )
  }
})

test('an allowed client is let in whatever the score, but not with harm, and not unseen', () => {
  const listing = listingOf(
    LISTS,
    { clientIp: '10.9.9.9', sender: 'a@b.example' },
    NO_FACTS,
    NO_INSIGHT,
  )
  const kind = (findings: [string, number][], silent = false) =>
    decide(inspected(findings, silent), POLICY, listing).kind
  expect(
    kind([
      ['GTUBE', 10],
      ['MIME_AMBIGUOUS', 8],
    ]),
  ).toBe('deliver')
  expect(kind([['EICAR', 12]])).toBe('hold')
  expect(
    kind([
      ['EICAR', 12],
      ['GOOD', -100],
    ]),
  ).toBe('hold')
  expect(kind([], true)).toBe('defer')
  const verdict = decide(inspected([['GTUBE', 10]], false), POLICY, listing)
  expect([verdict.score, verdict.rules]).toEqual([10, ['ALLOW_LIST', 'GTUBE']])
})

test.each([
  ['A <x@Bad.example>', ['x@bad.example']],
  ['x@bad.example', ['x@bad.example']],
  ['"a <b@good.example>" <x@bad.example>', ['x@bad.example']],
  ['"one, two" <a@b.example>, c@d.example (x@y.example)', ['a@b.example', 'c@d.example']],
  ['=?utf-8?q?x=40y.example?= <a@b.example>', ['a@b.example']],
  ['x@name.example <a@b.example>', ['a@b.example']],
  ['group: a@b.example;', ['a@b.example']],
  ['<x@bad.example> <a@b.example>', ['x@bad.example', 'a@b.example']],
  ['A (<x@y.example>, "b) <a@b.example>', ['a@b.example']],
  ['A (unclosed <a@b.example>', ['a@b.example']],
  ['<@relay.example:a@b.example>', ['a@b.example']],
  ['"unclosed <a@b.example>', ['a@b.example']],
  [`${'x'.repeat(60_000)} <a@b.example>`, ['a@b.example']],
  ['A <a@b\u00c3\u00bccher.example>', ['a@xn--bcher-kva.example']],
  ['nobody', []],
  ['', []],
])('the authors in From %#', (field, authors) => {
  expect(addressesIn(field, 20)).toEqual(authors)
})

function inspected(findings: readonly (readonly [string, number])[], silent: boolean): Inspection {
  return {
    findings: findings.map(([rule, score]) => ({ rule, score, evidence: '' })),
    unknowns: silent ? [{ inspector: 'eicar', cause: 'late' }] : [],
    facts: NO_FACTS,
  }
}

describe("what an author's domain asks for in DMARC", () => {
  const kind = (findings: [string, number][], policy: Policy = POLICY, silent = false) =>
    decide(inspected(findings, silent), policy, null).kind

  test('is done, whatever the score', () => {
    expect(
      kind([
        ['DMARC_REJECT', 4],
        ['BAYES_HAM', -8],
      ]),
    ).toBe('reject')
    expect(
      kind([
        ['DMARC_QUARANTINE', 1.5],
        ['BAYES_HAM', -8],
      ]),
    ).toBe('hold')
    expect(kind([['DMARC_NONE', 0.1]])).toBe('deliver')
    expect(
      kind([
        ['DMARC_QUARANTINE', 1.5],
        ['GTUBE', 20],
      ]),
    ).toBe('reject')
  })

  test('is a score where it is not to be done', () => {
    const mild = { ...POLICY, enforce: false }
    expect(kind([['DMARC_REJECT', 4]], mild)).toBe('deliver')
    expect(
      kind(
        [
          ['DMARC_REJECT', 4],
          ['X', 4],
        ],
        mild,
      ),
    ).toBe('hold')
  })

  test('does not hold what nobody has looked at whole', () => {
    expect(kind([['DMARC_QUARANTINE', 1.5]], POLICY, true)).toBe('defer')
  })

  test('a client that was let in by hand may forward what is broken by it', () => {
    const allowed = listingOf(LISTS, { clientIp: '10.1.1.1', sender: '' }, NO_FACTS, NO_INSIGHT)
    expect(decide(inspected([['DMARC_REJECT', 4]], false), POLICY, allowed).kind).toBe('deliver')
  })

  test('each domain of ours may say whether it is done for its recipients', () => {
    const one = { ...domain('mild.example', null, null), enforce: false }
    const snapshot = { ...SNAPSHOT, domains: new Map([[one.name, one]]) }
    expect(policyFor(snapshot, 'a@mild.example').enforce).toBe(false)
    expect(policyFor(snapshot, 'a@other.example').enforce).toBe(true)
    const off = { ...snapshot, settings: { ...SNAPSHOT.settings, 'sender.enforce': 'off' } }
    expect(policyFor(off, 'a@other.example').enforce).toBe(false)
  })
})

describe('an author who is allowed', () => {
  const client = { clientIp: '203.0.113.1', sender: 'bounce@sender.example' }
  const listing = (authors: string[], authenticated: string[]) =>
    listingOf(LISTS, client, { authors }, { authenticated })

  test('is let in where his domain vouches for the mail', () => {
    const found = listing(['any@good.example'], ['good.example'])
    expect(found?.kind).toBe('allow')
    expect(decide(inspected([['BAYES_SPAM', 12]], false), POLICY, found).kind).toBe('deliver')
  })

  test('is not, and told so, where nobody proves it', () => {
    for (const proven of [[], ['other.example'], ['sub.good.example']]) {
      const found = listing(['any@good.example'], proven)
      expect(found?.finding.rule).toBe('ALLOW_UNPROVEN')
      expect(decide(inspected([['BAYES_SPAM', 12]], false), POLICY, found).kind).toBe('hold')
    }
  })

  test('does not let in another one beside him', () => {
    expect(
      listing(['any@good.example', 'x@evil.example'], ['good.example', 'evil.example']),
    ).toBeNull()
    expect(listing(['a@partner.example', 'b@partner.example'], ['partner.example'])).toBeNull()
  })

  test('does not count as the envelope sender: that is not who is shown', () => {
    const sent = { ...client, sender: 'any@good.example' }
    expect(listingOf(LISTS, sent, { authors: [] }, { authenticated: ['good.example'] })).toBeNull()
  })

  test('a block wins', () => {
    expect(listing(['x@bad.example'], ['bad.example'])?.kind).toBe('block')
  })
})

describe('a delivered message', () => {
  const verdict = (score: number, ...rules: string[]): Verdict => ({
    kind: 'deliver',
    score,
    rules,
    unknown: [],
  })
  test('says its score from the threshold on, and nothing below it', () => {
    expect(tagFields([verdict(5.99, 'A_RULE')], 6)).toBe('')
    expect(tagFields([], 6)).toBe('')
    expect(tagFields([verdict(6, 'A_RULE', 'B_RULE'), verdict(2)], 6)).toBe(
      'X-Spam-Flag: YES\r\nX-Spam-Score: 6\r\nX-Spam-Rules: A_RULE,B_RULE\r\n',
    )
  })
})

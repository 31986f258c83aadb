/** Tables: findings and policy to verdict; verdicts to reply and copies. One row a promise. */
import { expect, test } from 'bun:test'
import type { MessageId } from '../src/base/ids.ts'
import { initialSettings } from '../src/config/schema.ts'
import { type Domain, NO_LISTS, type Snapshot } from '../src/config/snapshot.ts'
import { decide } from '../src/mail/decide/decide.ts'
import { type Policy, policyFor } from '../src/mail/decide/policy.ts'
import { type Fate, respond } from '../src/mail/decide/respond.ts'
import { formatReply } from '../src/message/reply.ts'
import { NO_FACTS, type Verdict, type VerdictKind } from '../src/message/verdict.ts'

const POLICY: Policy = { hold: 8, reject: 15 }
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
    policy: { hold: 0.3, reject: 9 },
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
    policy: { hold: 8, reject: 5 },
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
  expect(decide({ findings, unknowns: [], facts: NO_FACTS }, POLICY).rules).toEqual(['B', 'A'])
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
    const response = respond(ID, verdicts(row.kinds))
    expect(formatReply(response.reply)).toBe(row.line)
    expect(response.fates).toEqual(row.fates)
  })
}

test('every mix of verdicts keeps a copy only behind 250, and delivers only what was to be delivered', () => {
  const kinds: VerdictKind[] = ['deliver', 'hold', 'reject', 'defer']
  for (let mix = 0; mix < 4 ** 4; mix += 1) {
    const row = [0, 2, 4, 6].map((shift) => kinds[(mix >> shift) & 3] ?? 'defer')
    const { reply, fates } = respond(ID, verdicts(row))
    expect(fates).toHaveLength(row.length)
    for (const [index, fate] of fates.entries()) {
      expect(fate === 'none').toBe(reply.code !== 250)
      if (fate === 'deliver') expect(row[index]).toBe('deliver')
    }
    expect(formatReply(reply)).not.toMatch(/GTUBE|eicar|12\.5|quarantine|held/)
  }
})

function domain(name: string, hold: number | null, reject: number | null): Domain {
  return { name, nextHops: [], recipients: null, hold, reject }
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
}

const POLICIES: [string, string, Policy][] = [
  [
    'a domain without thresholds has those of the settings',
    'a@other.example',
    { hold: 8, reject: 15 },
  ],
  ['a domain has its own', 'a@strict.example', { hold: 3, reject: 5 }],
  ['a domain may have one of its own', 'a@half.example', { hold: 6, reject: 15 }],
  ['case and the trailing dot make no difference', 'A@Strict.EXAMPLE.', { hold: 3, reject: 5 }],
  ['the last @ counts', '"a@b"@strict.example', { hold: 3, reject: 5 }],
  ['a U-label finds its A-label', 'a@bücher.example', { hold: 4, reject: 9 }],
  ['a subdomain is another domain', 'a@sub.strict.example', { hold: 8, reject: 15 }],
]
for (const [name, address, policy] of POLICIES) {
  test(name, () => expect(policyFor(SNAPSHOT, address)).toEqual(policy))
}

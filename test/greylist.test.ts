/** Greylisting on several nodes: who comes again passes, on whichever node, and is known for a while. */
import { expect, test } from 'bun:test'
import { initialSettings, type Settings } from '../src/config/schema.ts'
import { type GreyCase, greylistAfter } from '../src/mail/decide/greylist.ts'
import type { Envelope } from '../src/message/envelope.ts'
import { type Insight, NO_INSIGHT, type Verdict } from '../src/message/verdict.ts'
import { GREYLIST_KIND, Greylist, greyNetwork } from '../src/store/greylist.ts'
import { Mesh, type MeshNode } from './mesh.ts'

const settings: Settings = { ...initialSettings(), 'greylist.delay': 180 }
const TRIPLET = ['192.0.2.1', 'ann@example.org', 'bob@example.com'] as const
const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

type Side = { readonly node: MeshNode; readonly list: Greylist }

function world(count: number): { readonly mesh: Mesh; readonly sides: readonly Side[] } {
  const mesh = new Mesh()
  mesh.add(count)
  const sides = mesh.nodes.map((node) => ({
    node,
    list: new Greylist(node.replica, { clock: node, observer: node.observer }),
  }))
  mesh.join()
  mesh.run(5_000)
  return { mesh, sides }
}

/** So much later by every clock on a wall, without what happens meanwhile. */
function later({ mesh, sides }: ReturnType<typeof world>, ms: number): void {
  for (const { node } of sides) node.skewMs += ms
  mesh.run(10_000)
}

function ask({ list }: Side, [ip, sender, recipient]: readonly [string, string, string] = TRIPLET) {
  return list.ask(ip, sender, recipient, settings)
}

test('who is new waits, and passes on another node when it comes again', () => {
  const { mesh, sides } = world(3)
  const [a, b, c] = sides as [Side, Side, Side]
  expect(ask(a)).toBe(180_000)
  mesh.run(60_000)
  const left = ask(b)
  expect(left).toBeGreaterThan(110_000)
  expect(left).toBeLessThanOrEqual(120_000)
  mesh.run(125_000)
  expect(ask(b)).toBe(0)
  mesh.run(5_000)
  expect(ask(c)).toBe(0)
  expect(ask(a)).toBe(0)
})

test('a neighbour of the client, and the same address in capitals, is the same one; others are not', () => {
  const { mesh, sides } = world(1)
  const [a] = sides as [Side]
  ask(a)
  mesh.run(200_000)
  expect(ask(a, ['192.0.2.77', 'Ann@Example.org', 'BOB@example.com'])).toBe(0)
  expect(ask(a, ['192.0.3.1', TRIPLET[1], TRIPLET[2]])).toBe(180_000)
  expect(ask(a, [TRIPLET[0], '', TRIPLET[2]])).toBe(180_000)
  expect(ask(a, [TRIPLET[0], TRIPLET[1], 'eve@example.com'])).toBe(180_000)
  expect(greyNetwork('2001:db8::1')).toBe('2001:db8:0:0')
  expect(greyNetwork('2001:db8:1:2:3:4:5:6')).toBe('2001:db8:1:2')
})

test('of two first sights on nodes apart the earlier one counts, of two ends the later one', () => {
  const all = world(2)
  const { mesh } = all
  const [a, b] = all.sides as [Side, Side]
  mesh.unlink(a.node, b.node)
  mesh.run(1_000)
  ask(b)
  mesh.run(100_000)
  expect(ask(a)).toBe(180_000)
  mesh.run(5_000)
  mesh.join()
  mesh.run(20_000)
  for (const side of [a, b]) expect(ask(side)).toBeLessThan(60_000)
  mesh.run(60_000)
  // Both let it pass apart from each other, the second one a day later.
  mesh.unlink(a.node, b.node)
  mesh.run(1_000)
  expect(ask(a)).toBe(0)
  later(all, DAY_MS)
  expect(ask(b)).toBe(0)
  mesh.run(5_000)
  mesh.join()
  later(all, 35.5 * DAY_MS)
  expect(ask(a)).toBe(0)
})

test('two nodes that see it in the same second agree on the earlier sight', () => {
  const { mesh, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  ask(a)
  mesh.run(50)
  expect(ask(b)).toBe(180_000)
  mesh.run(5_000)
  const [one, other] = [a, b].map(({ node }) => node.replica.list(GREYLIST_KIND))
  expect(one).toHaveLength(1)
  expect(one).toEqual(other)
  expect(ask(a)).toBe(ask(b))
})

test('who does not come again in time is new, and so is who was not seen for long', () => {
  const all = world(2)
  const [a, b] = all.sides as [Side, Side]
  ask(a)
  later(all, 49 * HOUR_MS)
  expect(ask(b)).toBe(180_000)
  all.mesh.run(200_000)
  expect(ask(a)).toBe(0)
  for (const side of [b, a]) {
    later(all, 35 * DAY_MS)
    expect(ask(side)).toBe(0)
  }
  later(all, 37 * DAY_MS)
  expect(ask(b)).toBe(180_000)
})

test('rows are written once a second, and not again for what is known', () => {
  const { mesh, sides } = world(1)
  const [a] = sides as [Side]
  const before = a.node.replica.head
  for (let at = 0; at < 50; at++) ask(a, ['192.0.2.1', TRIPLET[1], `r${at}@example.com`])
  expect(a.node.replica.head).toBe(before)
  mesh.run(1_000)
  expect(a.node.replica.list(GREYLIST_KIND)).toHaveLength(50)
  mesh.run(200_000)
  const waiting = a.node.replica.head
  for (let time = 0; time < 3; time++) {
    for (let at = 0; at < 50; at++) {
      expect(ask(a, ['192.0.2.1', TRIPLET[1], `r${at}@example.com`])).toBe(0)
    }
    mesh.run(60_000)
  }
  expect(a.node.replica.head - waiting).toBe(50)
})

test('a flood of the unknown is let through beyond a bound, and what is over is forgotten', () => {
  const all = world(1)
  const { mesh } = all
  const [a] = all.sides as [Side]
  let asked = 0
  for (let at = 0; at < 6_000; at++) {
    if (ask(a, ['192.0.2.1', TRIPLET[1], `r${at}@example.com`]) > 0) asked += 1
  }
  expect(asked).toBe(5_000)
  mesh.run(1_000)
  expect(ask(a, ['192.0.2.1', TRIPLET[1], 'later@example.com'])).toBe(180_000)
  later(all, 4 * DAY_MS)
  mesh.run(120_000)
  expect(a.node.replica.list(GREYLIST_KIND)).toHaveLength(0)
})

test('a first sight in the future of a slow clock makes nobody wait longer than the delay', () => {
  const { mesh, sides } = world(2)
  const [a, b] = sides as [Side, Side]
  a.node.skewMs = 50_000
  ask(a)
  mesh.run(5_000)
  expect(ask(b)).toBeLessThanOrEqual(180_000)
})

/** Suspicious mail of a sender with many addresses, as the pipeline asks about it. */
function arrive(
  side: Side,
  ip: string,
  more: Partial<Omit<GreyCase, 'settings'>> & { readonly mode?: string } = {},
): number {
  const { mode = 'adaptive', ...given } = more
  const rules: Settings = { ...settings, 'greylist.mode': mode }
  const questions = greylistAfter({
    settings: rules,
    envelope: envelopeFrom(ip),
    clientName: null,
    verdicts: [verdict(5)],
    listing: null,
    networkOf: greyNetwork,
    domainOf: (host) => host.split('.').slice(-2).join('.'),
    ...given,
  })
  const waits = questions.map(({ names, sender, recipient }) =>
    side.list.askAs(names, sender, recipient, rules),
  )
  return Math.max(0, ...waits)
}

function verdict(score: number, kind: Verdict['kind'] = 'deliver'): Verdict {
  return { kind, score, rules: [], unknown: [] }
}

function envelopeFrom(clientIp: string, more: Partial<Envelope> = {}): Envelope {
  return {
    id: '' as Envelope['id'],
    receivedMs: 0,
    clientIp,
    greeting: 'mx',
    protocol: 'ESMTP',
    tls: null,
    outbound: false,
    sender: 'ann@mail.pool.example',
    eightBit: false,
    smtpUtf8: false,
    ret: null,
    envid: null,
    recipients: [{ address: 'bob@example.com', notify: null, orcpt: null }],
    ...more,
  }
}

const SPF: Insight = {
  ...NO_INSIGHT,
  authentication: [{ method: 'spf', result: 'pass', about: 'pool.example', evidence: '' }],
}
/** Twenty addresses in twenty networks. */
const POOL = Array.from({ length: 20 }, (_, at) => `198.51.${at}.7`)

for (const [why, more] of [
  ['of one domain by SPF', () => ({ insight: SPF })],
  ['with names of one domain', (at: number) => ({ clientName: `mail-${at}.out.pool.example` })],
  [
    'whose domain vouches for them',
    () => ({ insight: { ...SPF, authenticated: ['pool.example'] } }),
  ],
] as const) {
  test(`a pool of 20 addresses ${why} is accepted on the 2nd try, from whichever address and node`, () => {
    const all = world(2)
    const [a, b] = all.sides as [Side, Side]
    expect(arrive(a, POOL[0] ?? '', more(0))).toBe(180_000)
    all.mesh.run(200_000)
    for (const [at, ip] of POOL.entries()) {
      expect(arrive(at % 2 === 0 ? b : a, ip, more(at))).toBe(0)
      all.mesh.run(1_000)
    }
    later(all, 20 * DAY_MS)
    expect(arrive(a, '203.0.113.250', more(0))).toBe(0)
  })
}

test('a pool of addresses that have nothing in common starts anew from each of them', () => {
  const { mesh, sides } = world(1)
  const [a] = sides as [Side]
  arrive(a, POOL[0] ?? '')
  mesh.run(200_000)
  expect(arrive(a, POOL[1] ?? '')).toBe(180_000)
  expect(arrive(a, POOL[0] ?? '')).toBe(0)
})

test('a domain that vouches for its mail is known once it came again, for every recipient', () => {
  const all = world(1)
  const [a] = all.sides as [Side]
  const insight = { ...NO_INSIGHT, authenticated: ['pool.example'] }
  arrive(a, POOL[0] ?? '', { insight })
  all.mesh.run(200_000)
  arrive(a, POOL[1] ?? '', { insight })
  later(all, 30 * DAY_MS)
  const envelope = envelopeFrom('203.0.113.1', {
    sender: 'eve@pool.example',
    recipients: [{ address: 'new@example.com', notify: null, orcpt: null }],
  })
  expect(arrive(a, '203.0.113.1', { insight, envelope })).toBe(0)
})

test('only suspicious mail that would be delivered is asked to come again, in the mode adaptive', () => {
  const { sides } = world(1)
  const [a] = sides as [Side]
  const ip = '192.0.2.9'
  const evidence = ''
  const allow = { kind: 'allow', finding: { rule: 'ALLOW_LIST', score: 0, evidence } } as const
  for (const more of [
    { mode: 'on' },
    { mode: 'off' },
    { verdicts: [verdict(3.9)] },
    { verdicts: [verdict(9, 'hold')] },
    { verdicts: [verdict(20, 'reject')] },
    { listing: allow },
    { envelope: envelopeFrom(ip, { outbound: true }) },
    { envelope: envelopeFrom('127.0.0.1') },
  ]) {
    expect(arrive(a, ip, more)).toBe(0)
  }
  expect(arrive(a, ip, { verdicts: [verdict(4)] })).toBe(180_000)
})

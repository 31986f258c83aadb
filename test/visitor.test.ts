/** What is asked of the name servers about a client, and what it costs when they are slow. */
import { expect, test } from 'bun:test'
import type { DnsAnswer, DnsQuestion } from '../src/base/names.ts'
import { initialSettings, type Settings } from '../src/config/schema.ts'
import { type ClientFacts, Visitor } from '../src/mail/accept/visitor.ts'
import { ManualClock } from './clock.ts'

const IP = '192.0.2.7'
const POINTER = 'PTR 7.2.0.192.in-addr.arpa'
const ABSENT: DnsAnswer = { status: 'absent' }
const FAILED: DnsAnswer = { status: 'failed', cause: 'SERVFAIL' }
const found = (...records: string[]): DnsAnswer => ({ status: 'found', records })
const LISTS = [
  'bad.test 127.0.0.2=5 127.0.0.10-127.0.0.11=2',
  'worse.test 127.0.0.2-127.0.0.9=4',
  'good.test 127.0.10.3=-3',
]
/** A name that leads back: nothing to find. */
const WELL = { [POINTER]: found('mx.client.test'), 'A mx.client.test': found(IP) }

type Answers = Readonly<Record<string, DnsAnswer | 'silent'>>

function visit(answers: Answers, settings: Partial<Settings> = {}, mayRefuse = true, ip = IP) {
  const clock = new ManualClock()
  const asked: string[] = []
  const visitor = new Visitor(ip, mayRefuse, {
    clock,
    names: {
      query: ({ name, type }: DnsQuestion) => {
        asked.push(`${type} ${name}`)
        const answer = answers[`${type} ${name}`] ?? ABSENT
        return answer === 'silent' ? new Promise(() => {}) : Promise.resolve(answer)
      },
    },
    settings: { ...initialSettings(), 'connection.lists': LISTS, ...settings },
    isOurs: (name) => name === 'mx1.ours.test' || name === 'ours.test',
  })
  return { clock, asked, visitor }
}

async function factsOf({ visitor }: { visitor: Visitor }): Promise<ClientFacts> {
  return await visitor.known()
}

const brief = ({ findings }: ClientFacts) => findings.map(({ rule, score }) => [rule, score])

test('all lists are asked at once, and what they weigh is added up', async () => {
  const here = visit({
    ...WELL,
    'A 7.2.0.192.bad.test': found('127.0.0.10'),
    'A 7.2.0.192.worse.test': found('127.0.0.4'),
  })
  expect(here.asked).toEqual([
    'A 7.2.0.192.bad.test',
    'A 7.2.0.192.worse.test',
    'A 7.2.0.192.good.test',
    POINTER,
  ])
  const facts = await factsOf(here)
  expect(brief(facts)).toEqual([
    ['DNSBL_BAD_TEST', 2],
    ['DNSBL_WORSE_TEST', 4],
  ])
  expect(facts.findings[0]?.evidence).toBe(
    'The list bad.test has the client 192.0.2.7, with 127.0.0.10.',
  )
  expect(facts.refusal).toBeNull()
  expect(here.visitor.isSuspect).toBe(true)
})

test('lists that weigh enough together refuse the client; an allow list may save it', async () => {
  const bad = {
    ...WELL,
    'A 7.2.0.192.bad.test': found('127.0.0.2'),
    'A 7.2.0.192.worse.test': found('127.0.0.2'),
  }
  const { refusal } = await factsOf(visit(bad))
  expect(refusal).toMatchObject({ code: 550, enhanced: '5.7.1' })
  expect(refusal?.text).toContain('192.0.2.7 is listed by bad.test, worse.test')
  const saved = await factsOf(visit({ ...bad, 'A 7.2.0.192.good.test': found('127.0.10.3') }))
  expect(saved.refusal).toBeNull()
  expect(brief(saved)).toContainEqual(['DNSBL_GOOD_TEST', -3])
})

test('a client that the operator allows is looked up in no list', async () => {
  const here = visit(WELL, {}, false)
  await factsOf(here)
  expect(here.asked.filter((question) => question.includes('bad.test'))).toEqual([])
})

test('a list that is silent or left out is a finding without weight, after dns.timeout, not later', async () => {
  const here = visit({
    ...WELL,
    'A 7.2.0.192.bad.test': 'silent',
    'A 7.2.0.192.worse.test': FAILED,
    'A 7.2.0.192.good.test': 'silent',
  })
  const known = here.visitor.known()
  expect(known).toBeInstanceOf(Promise)
  for (let turn = 0; turn < 50; turn++) await Promise.resolve()
  here.clock.advance(5_000)
  const facts = await known
  expect(brief(facts)).toEqual([
    ['DNSBL_UNKNOWN', 0],
    ['DNSBL_UNKNOWN', 0],
    ['DNSBL_UNKNOWN', 0],
  ])
  expect(facts.refusal).toBeNull()
})

test('while no name server answers a session waits for dns.timeout once, whatever it asks', async () => {
  const all: Answers = new Proxy({}, { get: () => 'silent' })
  const here = visit(all)
  here.visitor.greeted('client.test')
  const known = here.visitor.known()
  let facts: ClientFacts | null = null
  void Promise.resolve(known).then((given) => {
    facts = given
  })
  here.clock.advance(4_999)
  for (let turn = 0; turn < 50; turn++) await Promise.resolve()
  expect(facts).toBeNull()
  here.clock.advance(1)
  expect(brief(await known).map(([rule]) => rule)).toEqual([
    'DNSBL_UNKNOWN',
    'DNSBL_UNKNOWN',
    'DNSBL_UNKNOWN',
    'RDNS_UNKNOWN',
  ])
})

test('a name that leads back is the name of the client', async () => {
  const facts = await factsOf(visit(WELL))
  expect(facts).toMatchObject({ findings: [], name: 'mx.client.test', iprev: { result: 'pass' } })
  const six = visit(
    {
      'PTR 7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2.ip6.arpa':
        found('six.test'),
      'AAAA six.test': found('2001:db8:0:0:0:0:0:7'),
    },
    {},
    true,
    '2001:db8::7',
  )
  expect((await factsOf(six)).name).toBe('six.test')
})

for (const [why, answers, rule, score, result] of [
  ['no name', {}, 'RDNS_NONE', 2, 'fail'],
  ['a name that is none', { [POINTER]: found('victim.test') }, 'RDNS_BROKEN', 1, 'fail'],
  [
    'a name of somebody else',
    { [POINTER]: found('victim.test'), 'A victim.test': found('198.51.100.1') },
    'RDNS_BROKEN',
    1,
    'fail',
  ],
  ['a name that nobody can look up', { [POINTER]: FAILED }, 'RDNS_UNKNOWN', 0, 'temperror'],
  [
    'a name whose address nobody knows',
    { [POINTER]: found('a.test'), 'A a.test': FAILED },
    'RDNS_UNKNOWN',
    0,
    'temperror',
  ],
] as const) {
  test(`a client with ${why} is ${rule}, never a name`, async () => {
    const facts = await factsOf(visit(answers, { 'connection.lists': [] }))
    expect(brief(facts)).toEqual([[rule, score]])
    expect(facts).toMatchObject({ name: null, iprev: { method: 'iprev', result, about: IP } })
  })
}

test('a name that is no name of a host is nobody, whatever it leads to', async () => {
  for (const name of ['a;b.test', 'x\r\ny.test', 'a b.test', '-a.test', 'a=pass(.test']) {
    const here = visit(
      { [POINTER]: found(name), [`A ${name}`]: found(IP) },
      { 'connection.lists': [] },
    )
    const facts = await factsOf(here)
    expect(facts.name).toBeNull()
    expect(facts.findings[0]?.evidence).not.toContain('\n')
  }
})

test('of many names of one address only the first few are looked at', async () => {
  const names = Array.from({ length: 60 }, (_, at) => `n${at}.test`)
  const here = visit({ [POINTER]: found(...names) }, { 'connection.lists': [] })
  await factsOf(here)
  expect(here.asked).toHaveLength(6)
})

for (const [greeting, rules] of [
  ['203.0.113.5', ['HELO_BARE_IP']],
  ['2001:db8::1', ['HELO_BARE_IP']],
  ['[203.0.113.5]', []],
  ['MX1.ours.test', ['HELO_IS_OURS']],
  ['ours.test.', ['HELO_IS_OURS']],
  ['localhost', ['HELO_NOT_FQDN']],
  ['gone.test', ['HELO_NO_ADDRESS']],
  ['there.test', []],
  ['unknown.test', []],
] as const) {
  test(`who says EHLO ${greeting} is ${rules.join() || 'nothing to tell of'}`, async () => {
    const here = visit(
      { ...WELL, 'AAAA there.test': found('2001:db8::9'), 'A unknown.test': FAILED },
      { 'connection.lists': [] },
    )
    here.visitor.greeted(greeting)
    const { findings } = await factsOf(here)
    expect(findings.map(({ rule }) => rule)).toEqual([...rules])
  })
}

test('the last greeting counts, and names weigh no more than 5 together', async () => {
  const here = visit({}, { 'connection.lists': [] })
  here.visitor.greeted('localhost')
  here.visitor.greeted('ours.test')
  const facts = await factsOf(here)
  expect(brief(facts)).toEqual([
    ['RDNS_NONE', 2],
    ['HELO_IS_OURS', 3],
  ])
})

test('with names off nobody asks for one, and this machine is never asked about', async () => {
  for (const [settings, ip] of [
    [{ 'connection.names': 'off' }, IP],
    [{}, '127.0.0.1'],
    [{}, '::1'],
  ] as const) {
    const here = visit({}, { 'connection.lists': [], ...settings }, true, ip)
    here.visitor.greeted('localhost')
    expect(await factsOf(here)).toMatchObject({ findings: [], name: null, iprev: null })
    expect(here.asked).toEqual([])
  }
})

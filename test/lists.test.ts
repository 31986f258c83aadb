/** Lists in the DNS: which ones are believed, and what links weigh. */
import { expect, test } from 'bun:test'
import { type ListKind, ListNames } from '../src/base/list-names.ts'
import type { DnsAnswer, DnsAnswers, DnsQuestion } from '../src/base/names.ts'
import { Observer } from '../src/base/observe.ts'
import { parseListZone } from '../src/config/lines.ts'
import { initialSettings } from '../src/config/schema.ts'
import { pointerOf, reversed, ruleOf, weigh } from '../src/config/zones.ts'
import { ManualClock } from './clock.ts'
import { lookLong } from './look.ts'

const ABSENT: DnsAnswer = { status: 'absent' }
const found = (...records: string[]): DnsAnswer => ({ status: 'found', records })
const failed: DnsAnswer = { status: 'failed', cause: 'no answer within 5000 ms' }

function world(answers: Record<string, DnsAnswer>) {
  const clock = new ManualClock()
  const asked: string[] = []
  const zones = new Map<string, ListKind>([
    ['bl.test', 'address'],
    ['uri.test', 'name'],
  ])
  const place = { isSilent: false, zones }
  const names = new ListNames({
    clock,
    observer: new Observer(clock, () => {}),
    names: {
      query: ({ name }: DnsQuestion) => {
        asked.push(name)
        return Promise.resolve(answers[name] ?? ABSENT)
      },
    },
    zones: () => place.zones,
    isSilent: () => place.isSilent,
  })
  const ask = (name: string) => names.query({ name, type: 'A' })
  return { clock, asked, names, ask, answers, place }
}

test('addresses stand in a zone by their octets or nibbles, last first', () => {
  expect(reversed('192.0.2.1')).toBe('1.2.0.192')
  const six = '1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.8.b.d.0.1.0.0.2'
  expect(reversed('2001:db8::1')).toBe(six)
  expect(reversed('2001:DB8:0:0:0:0:0:1%eth0')).toBe(six)
  expect(reversed('64:ff9b::192.0.2.33')).toBe(
    '1.2.2.0.0.0.0.c.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.b.9.f.f.4.6.0.0',
  )
  expect(reversed('example.com')).toBeNull()
  expect(pointerOf('192.0.2.1')).toBe('1.2.0.192.in-addr.arpa')
  expect(pointerOf('2001:db8::1')).toBe(`${six}.ip6.arpa`)
})

test('each range of a list weighs once, negative ones too; what is no code of a list weighs nothing', () => {
  const list = parseListZone('zen.test 127.0.0.2=4 127.0.0.4-127.0.0.7=3 127.0.0.100=-2.5')
  if (list === null) throw new Error('no list')
  expect(weigh(list, ['127.0.0.2'])).toEqual({ score: 4, codes: ['127.0.0.2'] })
  expect(weigh(list, ['127.0.0.4', '127.0.0.5'])?.score).toBe(3)
  expect(weigh(list, ['127.0.0.2', '127.0.0.6', '127.0.0.100'])?.score).toBe(4.5)
  expect(weigh(list, ['127.0.0.3'])).toBeNull()
  expect(weigh(list, ['192.0.2.2'])).toBeNull()
  expect(ruleOf('DNSBL', 'zen.spam-haus.test')).toBe('DNSBL_ZEN_SPAM_HAUS_TEST')
})

for (const code of ['127.255.255.252', '127.255.255.254', '127.255.255.255']) {
  test(`a list that answers ${code} is not believed, not asked for a while, and told of`, async () => {
    const here = world({ '2.2.0.192.bl.test': found(code) })
    expect(await here.ask('2.2.0.192.bl.test')).toMatchObject({ status: 'failed', leftOut: true })
    expect(here.names.troubles()).toMatchObject([
      { zone: 'bl.test', sinceMs: here.clock.wallMs(), cause: expect.stringContaining(code) },
    ])
    const before = here.asked.length
    expect(await here.ask('9.2.0.192.bl.test')).toMatchObject({ status: 'failed', leftOut: true })
    expect(here.asked.length).toBe(before)
    // Other names are asked as ever.
    expect(await here.ask('a.uri.test')).toEqual(ABSENT)
  })
}

test('a list that went to somebody else, or lists everything, is not believed', async () => {
  const parked = world({ '2.2.0.192.bl.test': found('203.0.113.7') })
  expect(await parked.ask('2.2.0.192.bl.test')).toMatchObject({ leftOut: true })
  for (const [never, name] of [
    ['1.0.0.127.bl.test', '2.2.0.192.bl.test'],
    ['invalid.uri.test', 'good.example.uri.test'],
  ] as const) {
    const here = world({ [never]: found('127.0.0.2'), [name]: found('127.0.0.2') })
    expect(await here.ask(name)).toMatchObject({ status: 'failed', leftOut: true })
    expect(here.names.troubles()).toHaveLength(1)
  }
})

test('while it is not known whether a list lists everything, nothing that it says is believed', async () => {
  const here = world({ 'invalid.uri.test': found('127.0.0.2') })
  here.answers['a.example.uri.test'] = found('127.0.0.2')
  here.answers['b.example.uri.test'] = found('127.0.0.2')
  const both = [here.ask('a.example.uri.test'), here.ask('b.example.uri.test')]
  for (const answer of both) expect(await answer).toMatchObject({ leftOut: true })
})

test('a list that does not answer is left out within 60 s; while nobody answers none is', async () => {
  const here = world({ '2.2.0.192.bl.test': failed })
  for (let at = 0; at < 2; at++) {
    expect(await here.ask('2.2.0.192.bl.test')).toEqual(failed)
    here.clock.advance(5_000)
  }
  expect(await here.ask('2.2.0.192.bl.test')).toMatchObject({ leftOut: true })
  expect(here.names.troubles()[0]?.cause).toContain('does not answer')
  const silent = world({ '2.2.0.192.bl.test': failed })
  silent.place.isSilent = true
  for (let at = 0; at < 30; at++) {
    expect(await silent.ask('2.2.0.192.bl.test')).toEqual(failed)
    silent.clock.advance(5_000)
  }
  expect(silent.names.troubles()).toEqual([])
})

test('after 10 minutes it is tried, later and later while it is no better, and believed when it is', async () => {
  const here = world({ '2.2.0.192.bl.test': found('127.255.255.254') })
  await here.ask('2.2.0.192.bl.test')
  const from = here.clock.wallMs()
  here.clock.advance(599_000)
  const before = here.asked.length
  await here.ask('2.2.0.192.bl.test')
  expect(here.asked.length).toBe(before)
  here.clock.advance(1_000)
  // One question tries it, and what no list may have; the others go without it.
  const [trial, other] = [here.ask('2.2.0.192.bl.test'), here.ask('8.2.0.192.bl.test')]
  for (const answer of [trial, other]) expect(await answer).toMatchObject({ leftOut: true })
  expect(here.asked.slice(before)).toEqual(['2.2.0.192.bl.test', '1.0.0.127.bl.test'])
  expect(here.names.troubles()[0]?.sinceMs).toBe(from)
  here.answers['2.2.0.192.bl.test'] = found('127.0.0.2')
  here.clock.advance(1_199_000)
  expect(await here.ask('2.2.0.192.bl.test')).toMatchObject({ leftOut: true })
  here.clock.advance(1_000)
  expect(await here.ask('2.2.0.192.bl.test')).toEqual(found('127.0.0.2'))
  expect(here.names.troubles()).toEqual([])
})

test("a list that the settings no longer name is nobody's trouble", async () => {
  const here = world({ '2.2.0.192.bl.test': found('127.255.255.255') })
  await here.ask('2.2.0.192.bl.test')
  here.place.zones = new Map()
  expect(here.names.troubles()).toEqual([])
  expect(await here.ask('2.2.0.192.bl.test')).toEqual(found('127.255.255.255'))
})

const LISTS = ['uri.test 127.0.0.2=5 127.0.0.4=2', 'dbl.test 127.0.1.2-127.0.1.99=6.5']

function mail(...links: string[]): Uint8Array {
  return Buffer.from(
    `From: a@b.example\r\nSubject: x\r\nContent-Type: text/plain\r\n\r\n${links.map((link) => `${link} \r\n`).join('')}`,
  )
}

async function look(raw: Uint8Array, answers: DnsAnswers, lists: readonly string[] = LISTS) {
  const settings = { ...initialSettings(), 'content.linkLists': lists }
  return await lookLong(raw, { inspectors: ['blocklists'], config: { settings }, answers })
}

test('the host of a link and its domain are looked up in every list, an address reversed', async () => {
  const { questions } = await look(
    mail('http://www.shop.co.uk/a', 'https://192.0.2.9/x', 'http://WWW.shop.co.uk/b'),
    {},
  )
  expect(questions.toSorted()).toEqual(
    ['shop.co.uk', 'www.shop.co.uk', '9.2.0.192']
      .flatMap((name) => [`A ${name}.uri.test`, `A ${name}.dbl.test`])
      .sort(),
  )
  expect((await look(mail('http://a.example/'), {}, [])).questions).toEqual([])
})

test('a listed domain is a finding that names the list, the domain and the code', async () => {
  const raw = mail('http://bad.example/a', 'http://worse.example/b')
  const { findings } = await look(raw, {
    'A bad.example.uri.test': found('127.0.0.4'),
    'A worse.example.uri.test': found('127.0.0.2'),
    'A bad.example.dbl.test': ABSENT,
    'A worse.example.dbl.test': found('127.0.1.4'),
  })
  expect(findings).toEqual([
    {
      rule: 'URIBL_URI_TEST',
      score: 5,
      evidence: 'A link leads to worse.example, which uri.test lists with 127.0.0.2.',
    },
    {
      rule: 'URIBL_DBL_TEST',
      score: 6.5,
      evidence: 'A link leads to worse.example, which dbl.test lists with 127.0.1.4.',
    },
  ])
})

test('all lists of links together weigh no more than their cap', async () => {
  const lists = ['a.test', 'b.test', 'c.test'].map((zone) => `${zone} 127.0.0.2=7`)
  const answers = Object.fromEntries(
    ['a.test', 'b.test', 'c.test'].map((zone) => [`A bad.example.${zone}`, found('127.0.0.2')]),
  )
  const { findings } = await look(mail('http://bad.example/'), answers, lists)
  expect(findings.reduce((sum, { score }) => sum + score, 0)).toBe(12.5)
})

test('a mail with a thousand links asks at most 50 names', async () => {
  const links = Array.from({ length: 1_000 }, (_, at) => `http://h${at}.example/`)
  const { questions } = await look(mail(...links), {})
  expect(questions.length).toBeLessThanOrEqual(50)
  expect(questions.length).toBeGreaterThan(40)
  const answers = Object.fromEntries(questions.map((question) => [question, ABSENT]))
  const { findings } = await look(mail(...links), answers)
  expect(findings).toMatchObject([{ rule: 'URIBL_PARTIAL', score: 0 }])
  const many = Array.from({ length: 60 }, (_, at) => `l${at}.test 127.0.0.2=1`)
  expect((await look(mail('http://a.example/'), {}, many)).questions).toHaveLength(60)
})

test('one list of two that does not answer is told and weighs nothing', async () => {
  const { findings, causes } = await look(mail('http://bad.example/'), {
    'A bad.example.uri.test': failed,
    'A bad.example.dbl.test': found('127.0.1.2'),
  })
  expect(causes).toEqual([])
  expect(findings.map(({ rule, score }) => [rule, score])).toEqual([
    ['URIBL_DBL_TEST', 6.5],
    ['URIBL_UNKNOWN', 0],
  ])
})

test('when no list answers the message is unknown, not clean; one that is left out is a finding', async () => {
  const silent = await look(mail('http://bad.example/'), {
    'A bad.example.uri.test': failed,
    'A bad.example.dbl.test': failed,
  })
  expect(silent.causes).toHaveLength(1)
  const left = { status: 'failed', cause: 'The list says no.', leftOut: true } as const
  const out = await look(mail('http://bad.example/'), {
    'A bad.example.uri.test': left,
    'A bad.example.dbl.test': left,
  })
  expect(out.causes).toEqual([])
  expect(out.findings.map(({ rule }) => rule)).toEqual(['URIBL_UNKNOWN', 'URIBL_UNKNOWN'])
})

test('while one answer is still asked for, nothing that failed counts yet', async () => {
  const { causes, questions } = await look(mail('http://bad.example/'), {
    'A bad.example.uri.test': failed,
  })
  expect(causes).toEqual([])
  expect(questions).toEqual(['A bad.example.dbl.test'])
})

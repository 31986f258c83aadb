/** Where mail goes: MX records in all their forms, own addresses, resolver failures. */
import { afterEach, expect, test } from 'bun:test'
import { type MxRecord, NameServerError, NoSuchNameError, type Resolver } from '../src/base/dns.ts'
import { SeededRandom } from '../src/base/random.ts'
import { mxAddresses, NoRouteError, ownAddresses } from '../src/mail/deliver/route.ts'
import { brief, mail, SETTINGS, Stage } from './delivery.ts'

const stage = new Stage()
afterEach(() => stage.end())

/** Names to MX records (`10 host`) and addresses; `fail` is SERVFAIL, what is not there NXDOMAIN. */
type Zone = Readonly<
  Record<string, { readonly mx?: string[] | 'fail'; readonly ips?: string[] | 'fail' }>
>

function resolverOf(zone: Zone): Resolver {
  const answer = <T>(name: string, what: T[] | 'fail' | undefined): T[] => {
    if (what === 'fail') throw new NameServerError(`SERVFAIL ${name}`, { remedy: 'retry' })
    if (what === undefined) throw new NoSuchNameError(`no ${name}`, { remedy: 'give-up' })
    return what
  }
  return {
    addresses: async (name) => answer(name, zone[name]?.ips),
    mx: async (name) =>
      answer(name, zone[name]?.mx).map((text): MxRecord => {
        const [preference = '', host = ''] = text.split(' ')
        return { preference: Number(preference), host }
      }),
  }
}

async function route(
  zone: Zone,
  own: string[] = [],
  seed = 1,
  domain = 'd.example',
): Promise<string[]> {
  const deps = {
    resolver: resolverOf(zone),
    random: new SeededRandom(seed),
    isOwn: ownAddresses(own),
  }
  const found = await mxAddresses(domain, deps).catch((error) => {
    if (!(error instanceof NoRouteError)) throw error
    const { reply } = error
    return [{ host: reply === null ? 'later' : `never ${reply.code} ${reply.enhanced}`, ip: '' }]
  })
  return found.map(({ host, ip }) => (ip === '' ? host : `${host} ${ip}`))
}

const A = { ips: ['192.0.2.1'] }
const B = { ips: ['192.0.2.2', '2001:db8::2'] }

const ROUTES: { name: string; zone: Zone; own?: string[]; domain?: string; is: string[] }[] = [
  {
    name: 'exchangers are tried by preference',
    zone: { 'd.example': { mx: ['20 b', '10 a'] }, a: A, b: B },
    is: ['a 192.0.2.1', 'b 192.0.2.2', 'b 2001:db8::2'],
  },
  {
    name: 'a domain without MX is its own exchanger',
    zone: { 'd.example': A },
    is: ['d.example 192.0.2.1'],
  },
  {
    name: 'a domain that does not exist is no domain to try again',
    zone: {},
    is: ['never 550 5.1.2'],
  },
  {
    name: 'a null MX is final at once',
    zone: { 'd.example': { mx: ['0 '], ips: ['192.0.2.9'] } },
    is: ['never 556 5.1.10'],
  },
  {
    name: 'a null MX beside others is ignored',
    zone: { 'd.example': { mx: ['0 ', '5 a'] }, a: A },
    is: ['a 192.0.2.1'],
  },
  {
    name: 'no answer about MX is tried later, not sent to the address',
    zone: { 'd.example': { mx: 'fail', ips: ['192.0.2.9'] } },
    is: ['later'],
  },
  {
    name: 'no answer about the only exchanger is tried later',
    zone: { 'd.example': { mx: ['5 a'] }, a: { ips: 'fail' } },
    is: ['later'],
  },
  {
    name: 'no answer about the address of a domain without MX is tried later',
    zone: { 'd.example': { ips: 'fail' } },
    is: ['later'],
  },
  {
    name: 'an exchanger without an answer does not hide another',
    zone: { 'd.example': { mx: ['5 a', '9 b'] }, a: { ips: 'fail' }, b: A },
    is: ['b 192.0.2.1'],
  },
  {
    name: 'exchangers that do not exist are no exchangers',
    zone: { 'd.example': { mx: ['5 a', '9 b'] } },
    is: ['never 550 5.4.4'],
  },
  {
    name: 'an exchanger that is an address is none',
    zone: { 'd.example': { mx: ['5 192.0.2.7'] }, '192.0.2.7': { ips: ['192.0.2.7'] } },
    is: ['never 550 5.4.4'],
  },
  {
    name: 'an exchanger on loopback is a loop',
    zone: { 'd.example': { mx: ['5 a'] }, a: { ips: ['127.0.0.1'] } },
    is: ['never 554 5.4.6'],
  },
  {
    name: 'the unspecified address is a loop',
    zone: { 'd.example': { mx: ['5 a'] }, a: { ips: ['0.0.0.0'] } },
    is: ['never 554 5.4.6'],
  },
  {
    name: 'loopback in IPv6 is a loop',
    zone: { 'd.example': { mx: ['5 a'] }, a: { ips: ['::1'] } },
    is: ['never 554 5.4.6'],
  },
  {
    name: 'loopback mapped into IPv6 is a loop',
    zone: { 'd.example': { mx: ['5 a'] }, a: { ips: ['::ffff:127.0.0.1'] } },
    is: ['never 554 5.4.6'],
  },
  {
    name: 'the address of a domain without MX may loop too',
    zone: { 'd.example': { ips: ['127.8.8.8'] } },
    is: ['never 554 5.4.6'],
  },
  {
    name: 'an address of ours is a loop in any spelling',
    zone: { 'd.example': { mx: ['5 a'] }, a: { ips: ['2001:DB8:0::7'] } },
    own: ['2001:db8::7'],
    is: ['never 554 5.4.6'],
  },
  {
    name: 'a backup exchanger sends to better ones only',
    zone: {
      'd.example': { mx: ['5 a', '10 us', '10 peer', '20 b'] },
      a: A,
      us: { ips: ['192.0.2.50'] },
      peer: B,
      b: B,
    },
    own: ['192.0.2.50'],
    is: ['a 192.0.2.1'],
  },
  {
    name: 'a backup exchanger waits for a better one that has no answer',
    zone: {
      'd.example': { mx: ['5 a', '10 us'] },
      a: { ips: 'fail' },
      us: { ips: ['192.0.2.50'] },
    },
    own: ['192.0.2.50'],
    is: ['later'],
  },
  {
    name: 'an address literal is taken as it is',
    zone: {},
    domain: '[192.0.2.3]',
    is: ['192.0.2.3 192.0.2.3'],
  },
  {
    name: 'an IPv6 literal is taken as it is',
    zone: {},
    domain: '[IPv6:2001:db8::3]',
    is: ['2001:db8::3 2001:db8::3'],
  },
  { name: 'a literal of ours is a loop', zone: {}, domain: '[127.0.0.1]', is: ['never 554 5.4.6'] },
  {
    name: 'an internationalized domain is asked for as A-label',
    zone: { 'xn--bcher-kva.example': A },
    domain: 'b\u00fccher.example',
    is: ['xn--bcher-kva.example 192.0.2.1'],
  },
]

for (const { name, zone, own, domain, is } of ROUTES) {
  test(name, async () => expect(await route(zone, own, 1, domain)).toEqual(is))
}

test('equal preferences share the load, and never go before better ones', async () => {
  const zone = { 'd.example': { mx: ['5 a', '10 x', '10 y', '10 z'] }, a: A, x: A, y: A, z: A }
  const second = new Map<string, number>()
  for (let seed = 1; seed <= 600; seed++) {
    const [first = '', next = ''] = await route(zone, [], seed * 7_919)
    expect(first).toBe('a 192.0.2.1')
    second.set(next, (second.get(next) ?? 0) + 1)
  }
  expect(second.size).toBe(3)
  expect(Math.min(...second.values())).toBeGreaterThan(120)
})

test('at most ten addresses are tried, however many a domain has', async () => {
  const ips = Array.from({ length: 30 }, (_, at) => `192.0.2.${at + 1}`)
  const mx = Array.from({ length: 500 }, (_, at) => `${at} h${at}`)
  let asked = 0
  const zone = resolverOf({ 'd.example': { mx } })
  const resolver: Resolver = {
    ...zone,
    addresses: async () => {
      asked += 1
      return ips
    },
  }
  const deps = { resolver, random: new SeededRandom(1), isOwn: ownAddresses([]) }
  expect((await mxAddresses('d.example', deps)).length).toBe(10)
  expect(asked).toBe(10)
})

test('a domain without a route ends the attempt with its reason', async () => {
  const zone: Zone = {
    'null.example': { mx: ['0 '] },
    'silent.example': { mx: 'fail' },
    'loop.example': { mx: ['5 us'] },
    us: { ips: ['192.0.2.50'] },
  }
  const deliverer = stage.deliverer({ resolver: resolverOf(zone), own: ['192.0.2.50'] })
  const said: Record<string, string> = {}
  for (const domain of ['null.example', 'gone.example', 'silent.example', 'loop.example']) {
    const to = [`a@${domain}`, `b@${domain}`]
    const outcomes = await deliverer.deliver(mail({ to }), { kind: 'mx', domain }, SETTINGS)
    expect(brief(outcomes[1])).toBe(brief(outcomes[0]))
    said[domain] = brief(outcomes[0])
  }
  expect(said).toEqual({
    'null.example': 'never 556 5.1.10',
    'gone.example': 'never 550 5.1.2',
    'silent.example': 'later MX of silent.example: SERVFAIL silent.example',
    'loop.example': 'never 554 5.4.6',
  })
})

test('a next hop that the operator named may be on loopback, by name too', async () => {
  const hop = stage.hop()
  const resolver = resolverOf({ 'inside.example': { ips: ['127.0.0.1'] } })
  const hops = [{ protocol: 'smtp', host: 'inside.example', port: hop.port }] as const
  const deliverer = stage.deliverer({ resolver, own: ['127.0.0.1'] })
  const [outcome] = await deliverer.deliver(mail(), { kind: 'hops', hops }, SETTINGS)
  expect(outcome).toMatchObject({
    kind: 'delivered',
    host: `inside.example[127.0.0.1]:${hop.port}`,
  })
})

test('each address of a next hop is tried', async () => {
  const hop = stage.hop()
  // Nobody listens on the second loopback address; the first of the two is dead.
  const resolver = resolverOf({ 'inside.example': { ips: ['127.0.0.2', '127.0.0.1'] } })
  const hops = [{ protocol: 'smtp', host: 'inside.example', port: hop.port }] as const
  const [outcome] = await stage
    .deliverer({ resolver })
    .deliver(mail(), { kind: 'hops', hops }, SETTINGS)
  expect(outcome?.kind).toBe('delivered')
})

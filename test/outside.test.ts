/**
 * A dead resolver, a list that is dead or says no: told within a minute, and what they would have
 * said is unknown, never clean. The real parts over a wire and a clock of the test's own.
 */
import { expect, test } from 'bun:test'
import { Alerts } from '../src/admin/alerts.ts'
import { ListNames } from '../src/base/list-names.ts'
import type { DnsAnswer, DnsAnswers } from '../src/base/names.ts'
import { NameServers } from '../src/base/nameserver.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { NodeView } from '../src/cluster/contract.ts'
import { patienceOf } from '../src/cluster/patience.ts'
import { initialSettings } from '../src/config/schema.ts'
import { Visitor } from '../src/mail/accept/visitor.ts'
import { ManualClock } from './clock.ts'
import { lookLong } from './look.ts'
import { ClockWire, type Zone, zoneOf } from './name-server.ts'

const SERVER = { host: '192.0.2.53', port: 53 }
const SERVERS = [SERVER]
const settings = {
  ...initialSettings(),
  'connection.lists': ['bl.test 127.0.0.2=5'],
  'content.linkLists': ['uri.test 127.0.0.2=7'],
}
const RAW = Buffer.from('From: a@b.example\r\nSubject: x\r\n\r\nhttp://bad.example/\r\n')
const GOOD = zoneOf({
  'A 9.2.0.192.bl.test': ['127.0.0.2'],
  'A bad.example.uri.test': ['127.0.0.2'],
  'PTR 9.2.0.192.in-addr.arpa': ['mx.client.test'],
  'A mx.client.test': ['192.0.2.9'],
})

function world() {
  const clock = new ManualClock()
  const observer = new Observer(clock, () => {})
  const wire = new ClockWire(clock)
  wire.set(SERVER.host, GOOD)
  const client = new NameServers({
    clock,
    random: new SeededRandom(1),
    observer,
    wire,
    servers: () => SERVERS,
    timeoutMs: () => 5_000,
  })
  const names = new ListNames({
    clock,
    observer,
    names: client,
    zones: () => new Map([['bl.test', 'address'] as const, ['uri.test', 'name'] as const]),
    isSilent: () => client.trouble !== null,
  })
  const node = { id: 'x', name: 'mx1', state: 'alive', here: true, clockOffsetMs: 0, report: null }
  const alerts = new Alerts({
    clock,
    observer,
    nodes: () => [node as unknown as NodeView],
    alarms: () => [],
    totals: () => ({ messages: 0, oldestMs: null, inDoubt: 0 }),
    parked: () => 0,
    problems: () => [],
    pending: () => 0,
    patience: patienceOf(1),
    lostKeys: () => [],
    outside: {
      names: () => client.trouble,
      lists: () => names.troubles(),
      bans: () => [],
      engines: () => [],
    },
  })
  return { clock, wire, client, names, alerts }
}
type World = ReturnType<typeof world>

/** What `task` gives, with the clock driven on. */
async function drive<Value>({ clock }: World, task: Promise<Value>): Promise<Value> {
  const place: { value?: Value } = {}
  void task.then((value) => {
    place.value = value
  })
  for (let at = 0; at < 10_000 && !('value' in place); at++) {
    for (let turn = 0; turn < 10; turn++) await Promise.resolve()
    if (!('value' in place)) clock.advance(10)
  }
  return place.value as Value
}

/** One mail: its client, then its links, as the pool asks. */
async function mail(here: World) {
  const visitor = new Visitor('192.0.2.9', true, {
    clock: here.clock,
    names: here.names,
    settings,
    isOurs: () => false,
  })
  const client = await drive(here, Promise.resolve(visitor.known()))
  const question = { name: 'bad.example.uri.test', type: 'A' } as const
  const answer: DnsAnswer = await drive(here, here.names.query(question))
  const answers: DnsAnswers = { 'A bad.example.uri.test': answer }
  const links = await lookLong(RAW, { inspectors: ['blocklists'], config: { settings }, answers })
  return { client: client.findings.map(({ rule }) => rule), links }
}

async function after(here: World, zone: Zone): Promise<number> {
  await mail(here)
  expect(here.alerts.current()).toEqual([])
  here.wire.set(SERVER.host, zone)
  // What was known is forgotten first: it holds for a minute.
  here.clock.advance(61_000)
  const fromMono = here.clock.monoMs()
  while (here.alerts.current().length === 0 && here.clock.monoMs() - fromMono < 60_000) {
    await mail(here)
    await drive(here, new Promise<void>((resolve) => here.clock.after(1_000, resolve)))
  }
  return here.clock.monoMs() - fromMono
}

test('all is well: the client and the link are found, and nobody is told of anything', async () => {
  const here = world()
  const { client, links } = await mail(here)
  expect(client).toEqual(['DNSBL_BL_TEST'])
  expect(links.findings.map(({ rule }) => rule)).toEqual(['URIBL_URI_TEST'])
  expect(here.alerts.current()).toEqual([])
})

for (const [why, zone] of [
  ['silent', () => null],
  ['answering SERVFAIL', () => ({ code: 2 })],
] as const satisfies readonly (readonly [string, Zone])[]) {
  test(`a resolver that is ${why}: unknown, never clean, told within 60 s, and over when it is back`, async () => {
    const here = world()
    expect(await after(here, zone)).toBeLessThan(60_000)
    expect(here.alerts.current().map(({ kind, level }) => [kind, level])).toEqual([
      ['names', 'bad'],
    ])
    const { client, links } = await mail(here)
    expect(client).toEqual(['DNSBL_UNKNOWN', 'RDNS_UNKNOWN'])
    // The inspector gives no answer: the pipeline defers.
    expect(links.causes).toHaveLength(1)
    expect(links.findings).toEqual([])
    here.wire.set(SERVER.host, GOOD)
    await drive(here, new Promise<void>((resolve) => here.clock.after(16_000, resolve)))
    expect(here.alerts.current()).toEqual([])
    here.client.close()
  })
}

for (const [why, said] of [
  ['says that it must not be asked', { 'A 9.2.0.192.bl.test': ['127.255.255.254'] }],
  ['went to somebody else', { 'A 9.2.0.192.bl.test': ['203.0.113.80'] }],
] as const) {
  test(`a list that ${why}: unknown, left out, told within 60 s`, async () => {
    const here = world()
    const rest = zoneOf({ ...said, 'A bad.example.uri.test': ['127.0.0.2'] })
    expect(await after(here, rest)).toBeLessThan(60_000)
    expect(here.alerts.current()).toMatchObject([{ kind: 'list', level: 'warn' }])
    const { client, links } = await mail(here)
    expect(client).toEqual(['DNSBL_UNKNOWN', 'RDNS_NONE'])
    expect(links.findings.map(({ rule }) => rule)).toEqual(['URIBL_URI_TEST'])
  })
}

test('lists that are silent while the resolver works: each left out and told within 60 s', async () => {
  const here = world()
  const zone: Zone = (type, name, by) =>
    /\.(bl|uri)\.test$/.test(name) ? null : GOOD(type, name, by)
  expect(await after(here, zone)).toBeLessThan(60_000)
  const [alert] = here.alerts.current()
  expect(alert).toMatchObject({ kind: 'list' })
  const { client, links } = await mail(here)
  expect(client).toEqual(['DNSBL_UNKNOWN'])
  expect(links.findings).toMatchObject([{ rule: 'URIBL_UNKNOWN', score: 0 }])
  here.client.close()
})

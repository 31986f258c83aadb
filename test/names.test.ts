/** The name client: what it believes, what it remembers, and that it never waits long (faults.md G09). */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { SystemClock } from '../src/base/clock.ts'
import { questionBytes, readAnswer } from '../src/base/dns-message.ts'
import type { NameServer } from '../src/base/dns-wire.ts'
import { SystemDnsWire } from '../src/base/dns-wire.ts'
import type { DnsAnswer, DnsQuestion } from '../src/base/names.ts'
import { NameServers, systemServers } from '../src/base/nameserver.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom, SystemRandom } from '../src/base/random.ts'
import { ManualClock } from './clock.ts'
import { withDir } from './name-files.ts'
import {
  answerBytes,
  ClockWire,
  records,
  TestNameServer,
  type Zone,
  zoneOf,
} from './name-server.ts'

const ONE = { host: '192.0.2.53', port: 53 }
const TWO = { host: '192.0.2.54', port: 53 }
const SILENT: Zone = () => null

function world(servers: readonly NameServer[] = [ONE]) {
  const clock = new ManualClock()
  const wire = new ClockWire(clock)
  const place = { servers }
  const names = new NameServers({
    clock,
    random: new SeededRandom(1),
    observer: new Observer(clock, () => {}),
    wire,
    servers: () => place.servers,
    timeoutMs: () => 5_000,
  })
  return { clock, wire, names, place }
}
type World = ReturnType<typeof world>

/** The answer, with the clock driven on as far as it takes; and how long it took, ms. */
async function ask(
  { clock, names }: World,
  name: string,
  type: DnsQuestion['type'] = 'A',
  fresh?: 'fresh',
): Promise<DnsAnswer & { tookMs: number }> {
  const fromMono = clock.monoMs()
  let answer: DnsAnswer | null = null
  void names.query({ name, type }, fresh).then((given) => {
    answer = given
  })
  for (let ms = 0; ms < 20_000; ms += 5) {
    await Promise.resolve()
    await Promise.resolve()
    await Promise.resolve()
    await Promise.resolve()
    if (answer !== null) return { ...(answer as DnsAnswer), tookMs: clock.monoMs() - fromMono }
    clock.advance(5)
  }
  throw new Error('no answer ever')
}

test('records of every kind are read as the inspectors expect them', async () => {
  const here = world()
  here.wire.set(
    ONE.host,
    zoneOf({
      'A a.test': ['192.0.2.2', '192.0.2.1'],
      'AAAA a.test': ['2001:db8::1'],
      'MX a.test': [{ preference: 10, exchange: 'mx.a.test' }],
      'TXT a.test': [['v=spf1 ', '-all']],
      'PTR 1.2.0.192.in-addr.arpa': ['a.test'],
    }),
  )
  expect(await ask(here, 'a.test')).toMatchObject({ records: ['192.0.2.1', '192.0.2.2'] })
  expect(await ask(here, 'A.Test.', 'AAAA')).toMatchObject({ records: ['2001:db8::1'] })
  expect(await ask(here, 'a.test', 'MX')).toMatchObject({ records: ['10 mx.a.test'] })
  expect(await ask(here, 'a.test', 'TXT')).toMatchObject({ records: ['v=spf1 -all'] })
  expect(await ask(here, '1.2.0.192.in-addr.arpa', 'PTR')).toMatchObject({ records: ['a.test'] })
  expect(await ask(here, 'b.test')).toMatchObject({ status: 'absent' })
})

test('a name that cannot exist is absent, and nobody is asked', async () => {
  const here = world()
  for (const name of ['', '.', 'a..b', `${'a'.repeat(64)}.test`, 'a.'.repeat(130), 'a b.test']) {
    expect(await here.names.query({ name, type: 'A' })).toEqual({ status: 'absent' })
  }
  expect(here.wire.asked).toEqual([])
})

test('servers that are silent for 60 s are given up after dns.timeout, all of them together', async () => {
  const here = world([ONE, TWO])
  here.wire.set(ONE.host, SILENT)
  here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.1'] }), 60_000)
  const answer = await ask(here, 'a.test')
  expect(answer).toMatchObject({ status: 'failed', tookMs: 5_000 })
  here.names.close()
  expect(here.wire.open).toBe(0)
})

test('a silent server is passed over, and asked last from then on', async () => {
  const here = world([ONE, TWO])
  here.wire.set(ONE.host, SILENT)
  here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.1'], 'A b.test': ['192.0.2.2'] }))
  expect(await ask(here, 'a.test')).toMatchObject({ status: 'found' })
  const second = await ask(here, 'b.test')
  expect(second).toMatchObject({ status: 'found' })
  expect(second.tookMs).toBeLessThan(20)
  expect(here.wire.asked).toEqual([`${ONE.host} udp`, `${TWO.host} udp`, `${TWO.host} udp`])
})

test('a slow server is still heard when the next one was asked meanwhile', async () => {
  const here = world([ONE, TWO])
  here.wire.set(ONE.host, zoneOf({ 'A a.test': ['192.0.2.1'] }), 3_000)
  here.wire.set(TWO.host, SILENT)
  expect(await ask(here, 'a.test')).toMatchObject({ status: 'found', tookMs: 3_000 })
})

test('SERVFAIL and REFUSED are no answer: the next server is asked at once', async () => {
  for (const code of [2, 5]) {
    const here = world([ONE, TWO])
    here.wire.set(ONE.host, () => ({ code }))
    here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.1'] }))
    const answer = await ask(here, 'a.test')
    expect(answer).toMatchObject({ status: 'found' })
    expect(answer.tookMs).toBeLessThan(50)
    here.wire.set(TWO.host, () => ({ code }))
    expect(await ask(here, 'b.test')).toMatchObject({ status: 'failed' })
    here.names.close()
  }
})

test('a server that cannot read EDNS is asked without it', async () => {
  const here = world()
  let asked = 0
  here.wire.set(ONE.host, (type, name) => {
    asked += 1
    return asked === 1 ? { code: 1 } : { answers: records(type, name, ['192.0.2.1']) }
  })
  expect(await ask(here, 'a.test')).toMatchObject({ status: 'found' })
})

test('an answer to another question, or with another id, is not believed', async () => {
  for (const forged of [{ about: 'b.test' }, { idOff: 1 }]) {
    const here = world()
    here.wire.set(ONE.host, (type, name) => ({
      answers: records(type, name, ['203.0.113.66']),
      ...forged,
    }))
    expect(await ask(here, 'a.test')).toMatchObject({ status: 'failed', tookMs: 5_000 })
    here.names.close()
  }
})

test('records of a name that nobody asked for are not taken', async () => {
  const here = world()
  here.wire.set(ONE.host, () => ({ answers: records('A', 'other.test', ['203.0.113.66']) }))
  expect(await ask(here, 'a.test')).toMatchObject({ status: 'absent' })
})

test('names that lead on are followed a few times, and never round in a circle', async () => {
  const alias = (from: string, to: string) =>
    ({ type: 'CNAME', name: from, ttl: 60, class: 'IN', data: to }) as const
  const chain = (length: number) =>
    Array.from({ length }, (_, at) => alias(at === 0 ? 'a.test' : `c${at}.test`, `c${at + 1}.test`))
  const here = world()
  here.wire.set(ONE.host, (_type, name) => {
    switch (name) {
      case 'a.test':
        return { answers: [...chain(3), ...records('A', 'c3.test', ['192.0.2.1'])] }
      case 'loop.test':
        return { answers: [alias('loop.test', 'b.test'), alias('b.test', 'Loop.test')] }
      default:
        return { answers: [alias(name, 'nowhere.test')], code: 3 }
    }
  })
  expect(await ask(here, 'a.test')).toMatchObject({ records: ['192.0.2.1'] })
  expect(await ask(here, 'loop.test')).toMatchObject({ status: 'failed' })
  expect(await ask(here, 'gone.test')).toMatchObject({ status: 'absent' })
  here.wire.set(ONE.host, () => ({
    answers: [...chain(20), ...records('A', 'c20.test', ['192.0.2.1'])],
  }))
  const far = world()
  far.wire.set(ONE.host, () => ({
    answers: [...chain(20), ...records('A', 'c20.test', ['192.0.2.1'])],
  }))
  expect(await ask(far, 'a.test')).toMatchObject({ status: 'failed' })
})

test('what is cut off is fetched by TCP; a server that always cuts off is given up', async () => {
  const here = world([ONE, TWO])
  const long = 'x'.repeat(4_000)
  const pieces = long.match(/.{1,250}/g) ?? []
  here.wire.set(ONE.host, (type, name, by) =>
    by === 'udp' ? { truncated: true } : { answers: records(type, name, [pieces]) },
  )
  expect(await ask(here, 'a.test', 'TXT')).toMatchObject({ records: [long] })
  expect(here.wire.asked).toEqual([`${ONE.host} udp`, `${ONE.host} tcp`])
  here.wire.set(ONE.host, () => ({ truncated: true }))
  here.wire.set(TWO.host, zoneOf({ 'TXT b.test': [['v=spf1 -all']] }))
  expect(await ask(here, 'b.test', 'TXT')).toMatchObject({ records: ['v=spf1 -all'] })
})

test('more than 100 records or 10 kB of text is nothing that anybody may go by', async () => {
  const here = world()
  const many = Array.from({ length: 101 }, (_, at) => `192.0.2.${at}`)
  const text = Array.from({ length: 50 }, () => 'x'.repeat(250))
  here.wire.set(ONE.host, zoneOf({ 'A many.test': many, 'TXT long.test': [text] }))
  expect(await ask(here, 'many.test')).toMatchObject({ status: 'failed' })
  expect(await ask(here, 'long.test', 'TXT')).toMatchObject({ status: 'failed' })
  // Somebody answered: the servers work.
  here.clock.advance(60_000)
  await Promise.resolve()
  expect(here.names.trouble).toBeNull()
})

test('answers are remembered for as long as they hold, also that there is none', async () => {
  const here = world()
  const soa = {
    type: 'SOA',
    name: 'test',
    ttl: 900,
    class: 'IN',
    data: { mname: 'ns.test', rname: 'root.test', serial: 1, minimum: 40 },
  } as const
  here.wire.set(ONE.host, (type, name) => {
    switch (name) {
      case 'long.test':
        return { answers: records(type, name, ['192.0.2.1'], 9_999_999) }
      case 'never.test':
        return { answers: records(type, name, ['192.0.2.1'], 0) }
      case 'fail.test':
        return { code: 2 }
      default:
        return { code: 3, authorities: [soa] }
    }
  })
  const asksAfter = async (name: string, ms: number): Promise<boolean> => {
    await ask(here, name)
    here.clock.advance(ms)
    const before = here.wire.asked.length
    await ask(here, name)
    return here.wire.asked.length > before
  }
  expect(await asksAfter('long.test', 86_300_000)).toBe(false)
  here.clock.advance(86_400_000)
  expect(await asksAfter('long.test', 86_400_001)).toBe(true)
  expect(await asksAfter('never.test', 4_900)).toBe(false)
  expect(await asksAfter('never.test', 5_100)).toBe(true)
  expect(await asksAfter('none.test', 39_000)).toBe(false)
  expect(await asksAfter('none.test', 41_000)).toBe(true)
  here.names.close()
})

test('who has just published a record asks past what is remembered, and all know it then', async () => {
  const here = world()
  here.wire.set(ONE.host, zoneOf({}))
  expect((await ask(here, 'new.test')).status).toBe('absent')
  here.wire.set(ONE.host, zoneOf({ 'A new.test': ['192.0.2.1'] }))
  expect((await ask(here, 'new.test')).status).toBe('absent')
  expect((await ask(here, 'new.test', 'A', 'fresh')).status).toBe('found')
  expect(await ask(here, 'new.test')).toMatchObject({ status: 'found', tookMs: 0 })
})

test('a failure is remembered for a few seconds, then it gets another chance', async () => {
  const here = world()
  here.wire.set(ONE.host, () => ({ code: 2 }))
  await ask(here, 'a.test')
  here.names.close()
  const before = here.wire.asked.length
  await ask(here, 'a.test')
  expect(here.wire.asked.length).toBe(before)
  here.clock.advance(5_000)
  here.wire.set(ONE.host, zoneOf({ 'A a.test': ['192.0.2.1'] }))
  expect(await ask(here, 'a.test')).toMatchObject({ status: 'found' })
})

test('equal questions at a time are one; other servers are asked anew', async () => {
  const here = world([ONE])
  here.wire.set(ONE.host, zoneOf({ 'A a.test': ['192.0.2.1'] }))
  here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.2'] }))
  const all = Promise.all(
    ['a.test', 'A.test', 'a.test.'].map((name) => here.names.query({ name, type: 'A' })),
  )
  here.clock.advance(10)
  await all
  expect(here.wire.asked).toHaveLength(1)
  here.place.servers = [TWO]
  expect(await ask(here, 'a.test')).toMatchObject({ records: ['192.0.2.2'] })
})

test('a flood of questions opens 64 sockets, and ends in time', async () => {
  const here = world()
  here.wire.set(ONE.host, SILENT)
  const answers = Array.from({ length: 5_000 }, (_, at) =>
    here.names.query({ name: `n${at}.test`, type: 'A' }),
  )
  // Each of them asks one server up to three times.
  expect(here.wire.open).toBe(64)
  here.clock.advance(5_000)
  // What waited has no time left, and says so in turn.
  for (const answer of await Promise.all(answers)) expect(answer.status).toBe('failed')
  here.names.close()
  expect(here.wire.open).toBe(0)
})

test('what was asked of the servers before is not remembered when there are others', async () => {
  const here = world([ONE])
  here.wire.set(ONE.host, zoneOf({ 'A a.test': ['192.0.2.1'] }), 100)
  here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.2'] }))
  const before = here.names.query({ name: 'a.test', type: 'A' })
  here.place.servers = [TWO]
  await ask(here, 'b.test')
  here.clock.advance(100)
  expect(await before).toMatchObject({ records: ['192.0.2.1'] })
  expect(await ask(here, 'a.test')).toMatchObject({ records: ['192.0.2.2'] })
})

test('that nobody answers is told within 20 s, and over as soon as one does', async () => {
  const here = world([ONE, TWO])
  here.wire.set(ONE.host, zoneOf({ 'A a.test': ['192.0.2.1'] }))
  await ask(here, 'a.test')
  here.wire.set(ONE.host, SILENT)
  here.wire.set(TWO.host, SILENT)
  expect(await ask(here, 'b.test')).toMatchObject({ status: 'failed', tookMs: 5_000 })
  expect(here.names.trouble).toBeNull()
  await drive(here, 6_000)
  expect(here.names.trouble).toMatchObject({ cause: expect.stringContaining('no answer') })
  here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.1'] }))
  await drive(here, 16_000)
  expect(here.names.trouble).toBeNull()
})

test('one domain whose servers are dead does not mean that nobody answers', async () => {
  const here = world()
  const zone = zoneOf({ 'A a.test': ['192.0.2.1'] })
  here.wire.set(ONE.host, (type, name, by) => (name === 'lame.test' ? null : zone(type, name, by)))
  await ask(here, 'a.test')
  expect(await ask(here, 'lame.test')).toMatchObject({ status: 'failed' })
  await drive(here, 30_000)
  expect(here.names.trouble).toBeNull()
})

/** Nobody answers any more, and five questions have waited for it in vain. */
async function silenced(servers: readonly NameServer[] = [ONE]): Promise<World> {
  const here = world(servers)
  for (const { host } of servers) here.wire.set(host, zoneOf({ 'A a.test': ['192.0.2.1'] }))
  await ask(here, 'a.test')
  for (const { host } of servers) here.wire.set(host, SILENT)
  const asked = ['b', 'c', 'd', 'e'].map((name) =>
    here.names.query({ name: `${name}.test`, type: 'A' }),
  )
  await drive(here, 10_000)
  for (const answer of await Promise.all(asked)) expect(answer.status).toBe('failed')
  return here
}

test('while nobody answers, questions fail at once, and one probe at a time goes on', async () => {
  const here = await silenced()
  const before = here.wire.asked.length
  for (let second = 0; second < 120; second++) {
    const answer = await ask(here, `n${second}.test`)
    expect(answer).toMatchObject({ status: 'failed', tookMs: 0 })
    expect(answer).toMatchObject({ cause: expect.stringContaining('no answer within 5000 ms') })
    // Of one question: each server is tried up to three times.
    expect(here.wire.open).toBeLessThanOrEqual(3)
    await drive(here, 1_000)
  }
  // A probe takes 5 s, and the wait for the next one grows from 1 s to 10 s.
  const probes = (here.wire.asked.length - before) / 3
  expect(probes).toBeGreaterThan(7)
  expect(probes).toBeLessThanOrEqual(11)
  here.names.close()
  // The last one ends, and none follows.
  await drive(here, 6_000)
  const last = here.wire.asked.length
  await drive(here, 30_000)
  expect(here.wire.asked).toHaveLength(last)
})

test('fewer than five failures in a row leave every question its time', async () => {
  const here = world()
  here.wire.set(ONE.host, SILENT)
  const first = await ask(here, 'b.test')
  expect(first).toMatchObject({ status: 'failed', tookMs: 5_000 })
  await drive(here, 5_000)
  expect(here.names.trouble).not.toBeNull()
  const third = ask(here, 'c.test')
  expect(await third).toMatchObject({ status: 'failed', tookMs: 5_000 })
  here.names.close()
})

test('the first answer to a probe opens the way again for all', async () => {
  const here = await silenced([ONE, TWO])
  here.wire.set(TWO.host, zoneOf({ 'A a.test': ['192.0.2.1'], 'A z.test': ['192.0.2.9'] }))
  await drive(here, 16_000)
  expect(here.names.trouble).toBeNull()
  const answer = await ask(here, 'z.test')
  expect(answer).toMatchObject({ status: 'found' })
  expect(answer.tookMs).toBeLessThan(2_100)
  // It is counted anew, and told anew.
  here.wire.set(TWO.host, SILENT)
  expect(await ask(here, 'y.test')).toMatchObject({ status: 'failed', tookMs: 5_000 })
  await drive(here, 6_000)
  expect(here.names.trouble).not.toBeNull()
  expect(await ask(here, 'x.test')).toMatchObject({ status: 'failed', tookMs: 5_000 })
})

test('a probe that was overtaken by an answer ends, whatever is doubted next', async () => {
  const here = await silenced()
  while (here.wire.open === 0) await drive(here, 100)
  const zone = zoneOf({ 'A z.test': ['192.0.2.9'] })
  here.wire.set(ONE.host, zone)
  expect(await ask(here, 'z.test', 'A', 'fresh')).toMatchObject({ status: 'found' })
  here.wire.set(ONE.host, () => ({ code: 2 }))
  expect(await ask(here, 'y.test')).toMatchObject({ status: 'failed' })
  here.wire.set(ONE.host, SILENT)
  await drive(here, 6_000)
  for (let step = 0; step < 600; step++) {
    await drive(here, 100)
    expect(here.wire.open).toBeLessThanOrEqual(3)
  }
  here.names.close()
})

test('a question that somebody has now is a probe too: what was known before may be dead', async () => {
  const here = await silenced()
  const zone = zoneOf({ 'A z.test': ['192.0.2.9'] })
  here.wire.set(ONE.host, (type, name, by) => (name === 'a.test' ? null : zone(type, name, by)))
  expect(await ask(here, 'z.test')).toMatchObject({ status: 'failed', tookMs: 0 })
  await drive(here, 20_000)
  expect(here.names.trouble).toBeNull()
  expect(await ask(here, 'z.test')).toMatchObject({ status: 'found' })
})

test('a name of a dead domain that is asked for again and again is not all that is probed', async () => {
  const here = await silenced()
  const zone = zoneOf({ 'A a.test': ['192.0.2.1'] })
  here.wire.set(ONE.host, (type, name, by) => (name === 'z.test' ? null : zone(type, name, by)))
  for (let second = 0; second < 20; second++) {
    void here.names.query({ name: 'z.test', type: 'A' })
    await drive(here, 1_000)
  }
  expect(here.names.trouble).toBeNull()
})

test('who has just published a record, and other servers, are asked all the same', async () => {
  const here = await silenced()
  expect(await ask(here, 'z.test', 'A', 'fresh')).toMatchObject({ tookMs: 5_000 })
  here.wire.set(TWO.host, zoneOf({ 'A z.test': ['192.0.2.9'] }))
  here.place.servers = [TWO]
  expect(await ask(here, 'z.test')).toMatchObject({ status: 'found', tookMs: 10 })
  expect(here.names.trouble).toBeNull()
})

test('a flood of questions about dead domains keeps none from asking while others are answered', async () => {
  const here = world()
  const zone = zoneOf({ 'A a.test': ['192.0.2.1'], 'A z.test': ['192.0.2.9'] })
  here.wire.set(ONE.host, (type, name, by) =>
    name.startsWith('lame') ? null : zone(type, name, by),
  )
  await ask(here, 'a.test')
  for (let round = 0; round < 3; round++) {
    for (let at = 0; at < 20; at++) {
      void here.names.query({ name: `lame${round}.${at}.test`, type: 'A' })
    }
    // They end now, and nobody has been probed yet.
    await drive(here, 5_000)
    expect(await ask(here, `z${round}.test`)).toMatchObject({ status: 'absent', tookMs: 10 })
    await drive(here, 1_000)
  }
  expect(here.names.trouble).toBeNull()
})

async function drive({ clock }: World, ms: number): Promise<void> {
  for (let at = 0; at < ms; at += 100) {
    clock.advance(100)
    for (let turn = 0; turn < 6; turn++) await Promise.resolve()
  }
}

test('the name servers of the system are those of resolv.conf, and read again when it changes', () => {
  withDir((write, path) => {
    const clock = new ManualClock()
    write(
      '# a comment\nnameserver 192.0.2.1\nsearch example\nnameserver fe80::1%eth0\nnameserver x\n',
    )
    const servers = systemServers(clock, path)
    expect(servers()).toEqual([
      { host: '192.0.2.1', port: 53 },
      { host: 'fe80::1%eth0', port: 53 },
    ])
    expect(servers()).toBe(servers())
    write('')
    clock.advance(30_000)
    expect(servers()).toEqual([{ host: '127.0.0.1', port: 53 }])
  })
})

test('whatever comes in place of an answer, reading it never throws and never gives what is not there', () => {
  const question = { name: 'a.test', type: 'TXT' } as const
  const asked = questionBytes(question, 7, true)
  const good = answerBytes(asked, zoneOf({ 'TXT a.test': [['v=spf1 ', '-all']] }), 'udp')
  if (good === null) throw new Error('no answer')
  expect(readAnswer(good, question, 7)).toMatchObject({ answer: { records: ['v=spf1 -all'] } })
  const random = new SeededRandom(7)
  for (let at = 0; at < 20_000; at++) {
    const bytes = Uint8Array.from(good)
    for (let change = 0; change <= random.below(4); change++) {
      bytes[random.below(bytes.length)] = random.below(256)
    }
    const cut = bytes.subarray(0, random.below(3) === 0 ? random.below(bytes.length) : undefined)
    const said = readAnswer(cut, question, 7)
    if (said.kind !== 'answer' || said.answer.status !== 'found') continue
    for (const text of said.answer.records) expect(text.length).toBeLessThan(256)
  }
})

test('counts that are a lie, and a text that goes on past the end, are no answer', () => {
  const question = { name: 'a.test', type: 'TXT' } as const
  const asked = questionBytes(question, 7, true)
  const good = answerBytes(asked, zoneOf({ 'TXT a.test': [['v=spf1 ', '-all']] }), 'udp')
  if (good === null) throw new Error('no answer')
  for (const at of [6, 8, 10]) {
    const lie = Buffer.from(good)
    lie.writeUInt16BE(60_000, at)
    expect(readAnswer(lie, question, 7).kind).toBe('refusal')
  }
  const length = good.indexOf(Buffer.from('\x07v=spf1 ')) - 2
  const long = Buffer.from(good)
  long.writeUInt16BE(60_000, length)
  expect(readAnswer(long, question, 7).kind).toBe('refusal')
  expect(readAnswer(good.subarray(0, good.length - 4), question, 7).kind).toBe('refusal')
})

let server: TestNameServer
beforeAll(async () => {
  const long = Array.from({ length: 30 }, () => 'y'.repeat(250))
  const plain = zoneOf({ 'A a.test': ['192.0.2.1'], 'TXT long.test': [long] })
  server = await TestNameServer.start((type, name, by) =>
    name === 'long.test' && by === 'udp' ? { truncated: true } : plain(type, name, by),
  )
})
afterAll(() => server.stop())

function real(servers: readonly NameServer[]): NameServers {
  const clock = new SystemClock()
  return new NameServers({
    clock,
    random: new SystemRandom(),
    observer: new Observer(clock, () => {}),
    wire: new SystemDnsWire(),
    servers: () => servers,
    timeoutMs: () => 5_000,
  })
}

test('over sockets: datagrams, TCP for what is long, and a port where nobody listens', async () => {
  const names = real([{ host: '127.0.0.1', port: 1 }, server.at])
  expect(await names.query({ name: 'a.test', type: 'A' })).toMatchObject({ records: ['192.0.2.1'] })
  const long = await names.query({ name: 'long.test', type: 'TXT' })
  expect(long).toMatchObject({ records: ['y'.repeat(7_500)] })
  const many = await Promise.all(
    Array.from({ length: 300 }, (_, at) => names.query({ name: `n${at}.test`, type: 'A' })),
  )
  expect(many.every(({ status }) => status === 'absent')).toBe(true)
  names.close()
})

test('over sockets: a server in a network that cannot be reached is passed over, not thrown', async () => {
  // The kernel refuses to connect there, for UDP and TCP.
  const away = { host: '255.255.255.255', port: 53 }
  const alone = real([away])
  expect(await alone.query({ name: 'a.test', type: 'A' })).toMatchObject({ status: 'failed' })
  alone.close()
  const names = real([away, server.at])
  expect(await names.query({ name: 'a.test', type: 'A' })).toMatchObject({ status: 'found' })
  names.close()
  const said = Promise.withResolvers<string>()
  const ends = { heard: () => {}, failed: said.resolve }
  new SystemDnsWire().stream(away, new Uint8Array(12), ends)
  expect(await said.promise).not.toBe('')
})

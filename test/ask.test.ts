/** Recipients that the next hop is asked about: only a clear no refuses, and doubt never does. */
import { afterEach, expect, test } from 'bun:test'
import { SystemClock } from '../src/base/clock.ts'
import type { Resolver } from '../src/base/dns.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import { RecipientQuestions } from '../src/mail/deliver/ask.ts'
import { Hop, type HopOptions, ManualClock } from './hop.ts'

const NOBODY: Resolver = {
  addresses: () => Promise.reject(new Error('nobody asks for a name')),
  mx: () => Promise.reject(new Error('nobody asks for a name')),
}
/** The mailboxes of the usual next hop. */
const KNOWN = /^RCPT TO:<(?:ann|bob)@example\.com>$/i

const open: { hops: Hop[]; questions: RecipientQuestions[] } = { hops: [], questions: [] }
afterEach(() => {
  for (const questions of open.questions.splice(0)) questions.close()
  for (const hop of open.hops.splice(0)) hop.stop()
})

function world(script: HopOptions['script'], more: Omit<HopOptions, 'script'> = {}) {
  const hop = new Hop({ ...more, ...(script === undefined ? {} : { script }) })
  const clock = new ManualClock()
  const observer = new Observer(clock, () => {})
  const questions = new RecipientQuestions({
    clock,
    random: new SeededRandom(1),
    resolver: NOBODY,
    observer,
    hostname: 'mx1.example',
    timeoutMs: () => 5_000,
  })
  open.hops.push(hop)
  open.questions.push(questions)
  const exists = (local: string) => questions.exists(`${local}@example.com`, hop.route.hops)
  const asked = () => hop.lines.filter((line) => /^RCPT TO:<[a-z]{1,9}@/i.test(line))
  return { hop, clock, questions, observer, exists, asked }
}

const knowing = (line: string): string | undefined =>
  line.startsWith('RCPT') && !KNOWN.test(line) ? '550 5.1.1 no such user\r\n' : undefined

for (const protocol of ['smtp', 'lmtp'] as const) {
  test(`over ${protocol}: a mailbox is taken, an unknown one is not, and both are remembered`, async () => {
    const here = world(knowing, { protocol })
    expect(await here.exists('ann')).toBe(true)
    expect(await here.exists('eve')).toBe(false)
    expect(here.asked()).toHaveLength(2)
    expect(await here.exists('ANN')).toBe(true)
    expect(await here.exists('eve')).toBe(false)
    expect(here.asked()).toHaveLength(2)
    // A no is forgotten after 2 hours, a yes after a day.
    here.clock.advance(2 * 3_600_000)
    expect(await here.exists('eve')).toBe(false)
    expect(await here.exists('ann')).toBe(true)
    expect(here.asked()).toHaveLength(3)
    here.clock.advance(22 * 3_600_000)
    expect(await here.exists('ann')).toBe(true)
    expect(here.asked()).toHaveLength(4)
    expect(here.hop.arrivals).toEqual([])
  })
}

test('nothing is ever sent, and questions in a row share a connection', async () => {
  const here = world(knowing)
  await here.exists('ann')
  await here.exists('bob')
  await here.exists('eve')
  expect(here.hop.sessions).toHaveLength(1)
  expect(here.hop.lines.filter((line) => line === 'DATA')).toEqual([])
  expect(here.hop.lines.filter((line) => line.startsWith('MAIL'))).toEqual([
    'MAIL FROM:<>',
    'MAIL FROM:<>',
    'MAIL FROM:<>',
  ])
})

for (const [why, answer, taken] of [
  ['550 without more', '550 no such user\r\n', false],
  ['551', '551 moved away\r\n', false],
  ['5.1.10 (null MX)', '556 5.1.10 no mail here\r\n', false],
  ['a closed mailbox', '550 5.2.1 closed\r\n', false],
  ['our address being refused', '550 5.7.1 blocked\r\n', true],
  ['a full mailbox', '552 5.2.2 full\r\n', true],
  ['554 without more', '554 no\r\n', true],
  ['greylisting', '451 4.7.1 come again\r\n', true],
  ['too much traffic', '421 4.7.0 busy\r\n', true],
] as const) {
  test(`${why} is ${taken ? 'no reason to refuse' : 'a clear no'}`, async () => {
    const here = world((line) => (line.startsWith('RCPT') ? answer : undefined))
    expect(await here.exists('ann')).toBe(taken)
  })
}

test('a next hop that refuses our MAIL, closes, talks nonsense or is not there refuses nobody', async () => {
  for (const script of [
    (line: string) => (line.startsWith('MAIL') ? '550 5.7.1 not from you\r\n' : undefined),
    (line: string) => (line.startsWith('RCPT') ? 'close' : undefined),
    (line: string) => (line.startsWith('RCPT') ? '999 what\r\n' : undefined),
    (line: string) => (line === '' ? '554 5.7.1 go away\r\n' : undefined),
  ]) {
    const here = world(script)
    expect(await here.exists('ann')).toBe(true)
  }
  const gone = world(knowing)
  gone.hop.stop()
  expect(await gone.exists('ann')).toBe(true)
})

test('a next hop that says nothing holds one session for dns.timeout, and then nobody for a minute', async () => {
  const here = world((line) => (line.startsWith('RCPT') ? 'silence' : undefined))
  const first = here.exists('ann')
  expect(first).toBeInstanceOf(Promise)
  await here.hop.until(() => here.asked().length === 1)
  here.clock.advance(5_000)
  expect(await first).toBe(true)
  expect(here.exists('bob')).toBe(true)
  expect(here.observer.metrics()).toContain('postern_recipients_unasked_total 1')
  here.clock.advance(60_000)
  expect(here.exists('bob')).toBeInstanceOf(Promise)
})

test('a next hop that takes every address is found out, told, and not asked for an hour', async () => {
  const here = world(() => undefined)
  expect(await here.exists('ann')).toBe(true)
  const [, nobody = ''] = here.hop.lines.filter((line) => line.startsWith('RCPT'))
  expect(nobody).toMatch(/^RCPT TO:<[0-9a-f]{32}@example\.com>$/)
  expect(here.exists('eve')).toBe(true)
  here.clock.advance(3_600_000)
  expect(await here.exists('eve')).toBe(true)
  expect(here.hop.lines.filter((line) => line.startsWith('RCPT'))).toHaveLength(4)
})

test('equal questions at a time are one; beyond ten at a time nobody is asked or refused', async () => {
  const held: (() => void)[] = []
  const here = world((line, session) => {
    if (!line.startsWith('RCPT')) return undefined
    held.push(() => session.say('550 5.1.1 no\r\n'))
    return 'silence'
  })
  const same = [here.exists('x'), here.exists('X')]
  expect(same[0]).toBe(same[1] as Promise<boolean>)
  const more = Array.from({ length: 9 }, (_, at) => here.exists(`x${'abcdefghi'[at]}`))
  expect(here.exists('late')).toBe(true)
  await here.hop.until(() => held.length === 10)
  for (const say of held) say()
  expect(await Promise.all([...same, ...more])).toEqual(Array(11).fill(false))
})

test('without a next hop, or with an address that no command can hold, nobody is asked', () => {
  const here = world(knowing)
  expect(here.questions.exists('eve@example.com', [])).toBe(true)
  for (const address of ['a b@example.com', 'a>@example.com', 'jörg@example.com', 'a\r\n@x.y']) {
    expect(here.questions.exists(address, here.hop.route.hops)).toBe(true)
  }
  expect(here.hop.sessions).toEqual([])
})

test('the real clock will do', async () => {
  const hop = new Hop({ script: knowing })
  open.hops.push(hop)
  const clock = new SystemClock()
  const questions = new RecipientQuestions({
    clock,
    random: new SeededRandom(2),
    resolver: NOBODY,
    observer: new Observer(clock, () => {}),
    hostname: 'mx1.example',
    timeoutMs: () => 5_000,
  })
  open.questions.push(questions)
  expect(await questions.exists('eve@example.com', hop.route.hops)).toBe(false)
})

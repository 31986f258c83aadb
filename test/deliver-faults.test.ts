/** Next hops that fall silent, break off, or speak no SMTP; marks; other hops of the route. */
import { afterEach, expect, test } from 'bun:test'
import type { Route } from '../src/mail/deliver/contract.ts'
import { brief, largeText, mail, memory, SETTINGS, Stage } from './delivery.ts'
import { type Hop, type HopOptions, ManualClock } from './hop.ts'

const stage = new Stage()
afterEach(() => stage.end())

const CLOSED = 'the next hop closed the connection'

/** A route over several hops in their order. */
function routeOver(...hops: readonly (Hop | number)[]): Route {
  return {
    kind: 'hops',
    hops: hops.map((hop) => ({
      protocol: 'smtp',
      host: '127.0.0.1',
      port: typeof hop === 'number' ? hop : hop.port,
    })),
  }
}

/** A port on which nobody listens. */
function closedPort(): number {
  const hop = stage.hop()
  hop.stop()
  return hop.port
}

/** Lets everything happen that is on its way through the loopback. */
async function turns(): Promise<void> {
  for (let count = 0; count < 10; count++) await new Promise((resolve) => setImmediate(resolve))
}

/** faults.md C21, at the phase where it is said. */
const NONSENSE = [
  '299 what is this\r\n',
  '999 nor this\r\n',
  '250 bare\n',
  'HTTP/1.1 200 OK\r\n\r\n',
  '25\r\n',
  '\r\n',
  '250-one\r\n251 two\r\n',
  `250 ${'x'.repeat(3_000)}\r\n`,
  'x'.repeat(200_000),
  '250-again\r\n'.repeat(500),
  `250-${'x'.repeat(1_000)}\r\n`.repeat(80),
]

for (const said of NONSENSE) {
  const name = JSON.stringify(said.length > 40 ? `${said.slice(0, 20)}…${said.length}` : said)
  test(`${name} is no answer, at any phase, and only delays`, async () => {
    for (const at of ['', 'EHLO', 'MAIL', 'RCPT', 'DATA', '.']) {
      const hop = stage.scripted((line) =>
        (at === '' ? line === '' : line.startsWith(at)) ? said : undefined,
      )
      const [outcome] = await stage.deliverTo(hop, mail())
      expect(`${at} ${brief(outcome)}`).toMatch(
        at === '.' ? /^. later in doubt the next hop does not/ : /^\w* later the next hop does not/,
      )
    }
  })
}

test('a 354 after the final dot, or a 250 to DATA, is an answer out of place', async () => {
  for (const [at, said, is] of [
    ['.', '354 go\r\n', /^later in doubt/],
    ['DATA', '250 ok\r\n', /^later an answer out of place/],
    ['RCPT TO:<to@there.example>', '354 go\r\n', /^later an answer out of place/],
  ] as const) {
    const hop = stage.scripted((line) => (line === at ? said : undefined))
    expect(brief((await stage.deliverTo(hop, mail()))[0])).toMatch(is)
  }
})

const PHASES = [
  { at: '', timeouts: 1 },
  { at: 'EHLO', timeouts: 1 },
  { at: 'MAIL', timeouts: 1 },
  { at: 'RCPT', timeouts: 1 },
  { at: 'DATA', timeouts: 1 },
  { at: '.', timeouts: 2 },
]

for (const { at, timeouts } of PHASES) {
  const phase = at === '' ? 'the greeting' : at
  const doubt = at === '.' ? ' in doubt' : ''

  test(`silence at ${phase} ends after ${timeouts} x the timeout, not before`, async () => {
    const clock = new ManualClock()
    let isSilent = false
    const hop = stage.scripted((line) => {
      if (!isSilent && !(at === '' ? line === '' : line.startsWith(at))) return undefined
      isSilent = true
      return 'silence'
    })
    let outcome = 'none'
    const done = stage
      .deliverer({ clock })
      .deliver(mail(), hop.route, SETTINGS)
      .then(([first]) => (outcome = brief(first)))
    await hop.until(() => isSilent)
    await turns()
    clock.advance(timeouts * SETTINGS.timeoutMs - 1)
    await turns()
    expect(outcome).toBe('none')
    clock.advance(1)
    await done
    expect(outcome).toBe(`later${doubt} no answer in time`)
  })

  test(`a connection that ends at ${phase} is ${doubt === '' ? 'no doubt' : 'a doubt'}`, async () => {
    const hop = stage.scripted((line) =>
      (at === '' ? line === '' : line.startsWith(at)) ? 'close' : undefined,
    )
    const outcomes = await stage.deliverTo(hop, mail({ to: ['a@x.example', 'b@x.example'] }))
    expect(outcomes.map(brief)).toEqual(Array(2).fill(`later${doubt} ${CLOSED}`))
  })
}

const EARLY = [
  { said: '552 5.3.4 too big', is: /^never 552 5\.3\.4$/ },
  { said: '451 4.3.0 not now', is: /^later 451 4\.3\.0 not now$/ },
  { said: '250 2.0.0 taken unseen', is: /^later an answer out of place/ },
]

for (const { said, is } of EARLY) {
  test(`${said} before the end of a large body is heard, and the rest is not sent`, async () => {
    const hop = stage.scripted((line) => (line === 'DATA' ? `354 go\r\n${said}\r\n` : undefined))
    const deliverer = stage.deliverer()
    for (const _ of [1, 2]) {
      const delivery = mail({ body: memory(largeText()) })
      expect(brief((await deliverer.deliver(delivery, hop.route, SETTINGS))[0])).toMatch(is)
    }
    await hop.until(() => hop.ended === 2)
    expect(hop.arrivals).toEqual([])
  })
}

test('the final dot waits for the marks', async () => {
  for (const text of ['x\r\n', largeText()]) {
    const hop = stage.hop()
    const { promise, resolve } = Promise.withResolvers<void>()
    const begun = Promise.withResolvers<void>()
    const beforeDot = (): Promise<void> => {
      begun.resolve()
      return promise
    }
    const delivering = stage.deliverTo(hop, mail({ body: memory(text), beforeDot }))
    await begun.promise
    await hop.until(() => hop.lines.includes('DATA'))
    // Whatever the client would have sent by now has been sent when another session is through.
    await stage.deliverTo(hop, mail({ body: memory('other\r\n') }))
    expect(hop.arrivals.map(({ wire }) => wire.toString().includes('other'))).toEqual([true])
    resolve()
    const [outcome] = await delivering
    expect(outcome?.kind).toBe('delivered')
    expect(hop.arrivals.length).toBe(2)
  }
})

test('the marks begin with MAIL, not before a hop is there', async () => {
  let marks = 0
  const beforeDot = async (): Promise<void> => {
    marks += 1
  }
  const route = routeOver(closedPort())
  await stage.deliverer().deliver(mail({ beforeDot }), route, SETTINGS)
  expect(marks).toBe(0)
  let atMail = 0
  const hop = stage.scripted((line) => {
    if (line.startsWith('MAIL')) atMail = marks
    return undefined
  })
  await stage.deliverTo(hop, mail({ beforeDot }))
  expect([atMail, marks]).toEqual([1, 1])
})

test('no dot leaves when the marks fail, and all recipients are tried again', async () => {
  for (const text of ['x\r\n', largeText()]) {
    const hop = stage.scripted((line) => (line.includes('bad@') ? '550 5.1.1 no\r\n' : undefined))
    const beforeDot = (): Promise<void> => Promise.reject(new Error('disk full'))
    const delivery = mail({ to: ['bad@x.example', 'b@x.example'], body: memory(text), beforeDot })
    const outcomes = await stage.deliverTo(hop, delivery)
    expect(outcomes.map(brief)).toEqual(
      Array(2).fill('later the attempt cannot be recorded: disk full'),
    )
    await hop.until(() => hop.ended === hop.sessions.length)
    expect(hop.arrivals).toEqual([])
  }
})

const DOWN: { name: string; options: HopOptions }[] = [
  {
    name: 'says 421 as greeting',
    options: { script: (line) => (line === '' ? '421 busy\r\n' : undefined) },
  },
  {
    name: 'says 554 as greeting',
    options: { script: (line) => (line === '' ? '554 no\r\n' : undefined) },
  },
  {
    name: 'says 451 to EHLO',
    options: { script: (line) => (line.startsWith('EHLO') ? '451 x\r\n' : undefined) },
  },
  { name: 'closes at once', options: { script: (line) => (line === '' ? 'close' : undefined) } },
  {
    name: 'says 421 to MAIL',
    options: { script: (line) => (line.startsWith('MAIL') ? '421 bye\r\n' : undefined) },
  },
  {
    name: 'breaks off at DATA',
    options: { script: (line) => (line === 'DATA' ? 'close' : undefined) },
  },
]

for (const { name, options } of DOWN) {
  test(`the next hop of the route takes over from one that ${name}`, async () => {
    const [first, second] = [stage.hop(options), stage.hop()]
    const route = routeOver(first, second)
    const [outcome] = await stage.deliverer().deliver(mail(), route, SETTINGS)
    expect(outcome).toMatchObject({
      kind: 'delivered',
      host: `127.0.0.1[127.0.0.1]:${second.port}`,
    })
    expect(first.sessions.length).toBe(1)
    expect(first.arrivals).toEqual([])
  })
}

test('hops are asked in their order, past one that is down', async () => {
  const [second, third] = [stage.hop(), stage.hop()]
  const route = routeOver(closedPort(), second, third)
  const [outcome] = await stage.deliverer().deliver(mail(), route, SETTINGS)
  expect(outcome?.kind).toBe('delivered')
  expect([second.arrivals.length, third.sessions.length]).toEqual([1, 0])
})

test('a refusal of a recipient or of the message is final for the attempt: no other hop is asked', async () => {
  for (const at of ['RCPT', 'DATA', '.', 'MAIL']) {
    const first = stage.scripted((line) =>
      line.startsWith(at) ? '450 4.2.0 later\r\n' : undefined,
    )
    const second = stage.hop()
    const [outcome] = await stage.deliverer().deliver(mail(), routeOver(first, second), SETTINGS)
    expect(brief(outcome)).toBe('later 450 4.2.0 later')
    expect(second.sessions.length).toBe(0)
  }
})

test('no other hop is asked once the final dot is out', async () => {
  const first = stage.scripted((line) => (line === '.' ? 'close' : undefined))
  const second = stage.hop()
  const [outcome] = await stage.deliverer().deliver(mail(), routeOver(first, second), SETTINGS)
  expect(brief(outcome)).toBe(`later in doubt ${CLOSED}`)
  expect(second.sessions.length).toBe(0)
})

test('the message goes back only when every hop refuses for good', async () => {
  const refuses = () =>
    stage.scripted((line) => (line === '' ? '554 5.7.1 not you\r\n' : undefined))
  const deliverer = stage.deliverer()
  const [all] = await deliverer.deliver(mail(), routeOver(refuses(), refuses()), SETTINGS)
  expect(brief(all)).toBe('never 554 5.7.1')
  const [one] = await deliverer.deliver(mail(), routeOver(refuses(), closedPort()), SETTINGS)
  expect(brief(one)).toStartWith('later cannot connect')
  const busy = stage.scripted((line) => (line === '' ? '421 4.3.2 busy\r\n' : undefined))
  const [two] = await deliverer.deliver(mail(), routeOver(busy, refuses()), SETTINGS)
  expect(brief(two)).toBe('later 421 4.3.2 busy')
})

test('a route without hops, or to a name that is not there, waits for the operator', async () => {
  const deliverer = stage.deliverer()
  const [none] = await deliverer.deliver(mail(), { kind: 'hops', hops: [] }, SETTINGS)
  expect(brief(none)).toBe('later the route has no next hop')
  const hops = [{ protocol: 'smtp', host: 'gone.example', port: 25 }] as const
  const [gone] = await deliverer.deliver(mail(), { kind: 'hops', hops }, SETTINGS)
  expect(brief(gone)).toBe('later gone.example: none')
})

test('a hop that answers no dial is left after 30 s and asked last for a minute', async () => {
  const clock = new ManualClock()
  const [first, second] = [stage.hop(), stage.hop()]
  const deliverer = stage.deliverer({ clock })
  const route = routeOver(first, second)
  const delivering = deliverer.deliver(mail(), route, SETTINGS)
  // No turn of the event loop happens between the dial and the timer: nobody can have answered.
  while (clock.pending === 0) await Promise.resolve()
  clock.advance(30_000)
  expect((await delivering)[0]?.kind).toBe('delivered')
  await hasEnded(first, 1)
  await deliverer.deliver(mail(), route, SETTINGS)
  expect([first.arrivals.length, second.arrivals.length]).toEqual([0, 2])
  clock.advance(60_000)
  await deliverer.deliver(mail(), route, SETTINGS)
  expect([first.arrivals.length, second.arrivals.length]).toEqual([1, 2])
})

/** A dial that came through too late is closed again. */
async function hasEnded(hop: Hop, count: number): Promise<void> {
  await hop.until(() => hop.ended === count)
  expect(hop.sessions.length).toBe(count)
}

/** Connections that are kept between messages, and STARTTLS. */
import { afterEach, beforeAll, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { brief, largeText, mail, memory, SETTINGS, Stage, unstuffed } from './delivery.ts'
import { ManualClock } from './hop.ts'
import { needs } from './real.ts'

const stage = new Stage()
afterEach(() => stage.end())

test('messages that follow each other share a connection', async () => {
  const hop = stage.hop()
  const deliverer = stage.deliverer()
  for (const _ of [1, 2, 3]) await deliverer.deliver(mail(), hop.route, SETTINGS)
  expect([hop.sessions.length, hop.arrivals.length]).toEqual([1, 3])
})

test('messages at the same time have connections of their own', async () => {
  const hop = stage.hop()
  const deliverer = stage.deliverer()
  const all = Array.from({ length: 5 }, () => deliverer.deliver(mail(), hop.route, SETTINGS))
  expect((await Promise.all(all)).flat().map(({ kind }) => kind)).toEqual(
    Array(5).fill('delivered'),
  )
  expect(hop.sessions.length).toBe(5)
})

test('a connection carries a hundred messages and then says QUIT', async () => {
  const hop = stage.hop()
  const deliverer = stage.deliverer()
  for (let count = 0; count < 101; count++) await deliverer.deliver(mail(), hop.route, SETTINGS)
  const dots = hop.sessions.map(({ lines }) => lines.filter((line) => line === '.').length)
  expect(dots).toEqual([100, 1])
  await hop.until(() => hop.sessions[0]?.lines.at(-1) === 'QUIT')
})

test('an idle connection says QUIT after some seconds, not before', async () => {
  const clock = new ManualClock()
  const hop = stage.hop()
  const deliverer = stage.deliverer({ clock })
  await deliverer.deliver(mail(), hop.route, SETTINGS)
  clock.advance(3_000)
  await deliverer.deliver(mail(), hop.route, SETTINGS)
  expect(hop.sessions.length).toBe(1)
  expect(hop.lines).not.toContain('QUIT')
  clock.advance(3_999)
  await deliverer.deliver(mail(), hop.route, SETTINGS)
  expect(hop.sessions.length).toBe(1)
  clock.advance(8_000)
  await hop.until(() => hop.ended === 1)
  expect(hop.lines.at(-1)).toBe('QUIT')
})

test('close ends idle connections and lets the running attempt finish', async () => {
  const hop = stage.hop()
  const deliverer = stage.deliverer()
  const marks = Promise.withResolvers<void>()
  await deliverer.deliver(mail(), hop.route, SETTINGS)
  const running = deliverer.deliver(mail({ beforeDot: () => marks.promise }), hop.route, SETTINGS)
  const idle = deliverer.deliver(mail(), hop.route, SETTINGS)
  await idle
  await deliverer.close()
  await hop.until(() => hop.ended === 1)
  marks.resolve()
  expect((await running)[0]?.kind).toBe('delivered')
  await hop.until(() => hop.ended === 2)
  expect(hop.lines.filter((line) => line === 'QUIT').length).toBe(2)
})

for (const how of ['close', '421 4.4.2 idle too long\r\n']) {
  test(`a kept connection that answers MAIL with ${JSON.stringify(how)} is replaced unseen`, async () => {
    const hop = stage.scripted((line, { number, lines }) => {
      const isSecondMail = lines.filter((one) => one.startsWith('MAIL')).length === 2
      return number === 1 && isSecondMail && line.startsWith('MAIL') ? how : undefined
    })
    const deliverer = stage.deliverer()
    await deliverer.deliver(mail(), hop.route, SETTINGS)
    const [outcome] = await deliverer.deliver(mail(), hop.route, SETTINGS)
    expect(outcome?.kind).toBe('delivered')
    expect([hop.sessions.length, hop.arrivals.length]).toEqual([2, 2])
  })
}

test('a fresh connection that breaks at MAIL is not tried again in the same attempt', async () => {
  const hop = stage.scripted((line) => (line.startsWith('MAIL') ? 'close' : undefined))
  const [outcome] = await stage.deliverTo(hop, mail())
  expect(outcome?.kind).toBe('later')
  expect(hop.sessions.length).toBe(1)
})

test('a kept connection that breaks after MAIL was answered is not tried again', async () => {
  const hop = stage.scripted((line, { lines }) =>
    line === 'DATA' && lines.filter((one) => one === 'DATA').length === 2 ? 'close' : undefined,
  )
  const deliverer = stage.deliverer()
  await deliverer.deliver(mail(), hop.route, SETTINGS)
  const [outcome] = await deliverer.deliver(mail(), hop.route, SETTINGS)
  expect(brief(outcome)).toBe('later the next hop closed the connection')
  expect(hop.sessions.length).toBe(1)
})

test('an idle connection on which the hop talks is not used again', async () => {
  const hop = stage.hop()
  const deliverer = stage.deliverer()
  await deliverer.deliver(mail(), hop.route, SETTINGS)
  // Taken for the answer to the next MAIL, this would shift every answer by one.
  hop.sessions[0]?.say('250 2.0.0 one too many\r\n')
  await hop.until(() => hop.ended === 1)
  const [outcome] = await deliverer.deliver(mail(), hop.route, SETTINGS)
  expect(outcome?.kind).toBe('delivered')
  expect(hop.sessions.length).toBe(2)
})

test('a hop that answers the dot twice loses the connection, not the message', async () => {
  const hop = stage.scripted((line) => (line === '.' ? '250 ok\r\n250 ok\r\n' : undefined))
  const deliverer = stage.deliverer()
  for (const _ of [1, 2]) {
    const [outcome] = await deliverer.deliver(mail(), hop.route, SETTINGS)
    expect(outcome?.kind).toBe('delivered')
  }
  expect(hop.sessions.length).toBe(2)
})

needs('openssl')('STARTTLS', () => {
  let tls = { key: '', cert: '' }
  beforeAll(async () => {
    const folder = mkdtempSync(join(tmpdir(), 'deliver-tls-'))
    const [key, cert] = [join(folder, 'key.pem'), join(folder, 'cert.pem')]
    await Bun.$`openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout ${key} -out ${cert} -days 2 -subj /CN=hop.example`.quiet()
    tls = { key: readFileSync(key, 'utf8'), cert: readFileSync(cert, 'utf8') }
    rmSync(folder, { recursive: true })
  })

  test('is used where it is offered, without a look at the certificate', async () => {
    const hop = stage.hop({ tls })
    const [outcome] = await stage.deliverTo(hop, mail())
    expect(outcome).toMatchObject({
      kind: 'delivered',
      tls: expect.stringMatching(/^TLSv1\.[23] TLS_/),
    })
    expect(hop.arrivals[0]?.tls).toBe(true)
    expect(hop.lines.filter((line) => line.startsWith('EHLO')).length).toBe(2)
  })

  test('carries a large body, and the next message too', async () => {
    const hop = stage.hop({ tls })
    const deliverer = stage.deliverer()
    const text = `.${largeText().repeat(4)}`
    for (const _ of [1, 2]) {
      const delivery = mail({ prepend: '', body: memory(text) })
      expect((await deliverer.deliver(delivery, hop.route, SETTINGS))[0]?.kind).toBe('delivered')
    }
    expect(hop.arrivals.map(({ wire }) => unstuffed(wire) === text)).toEqual([true, true])
    expect(hop.sessions.length).toBe(1)
  })

  test('is not used for LMTP', async () => {
    const hop = stage.hop({ tls, protocol: 'lmtp' })
    expect((await stage.deliverTo(hop, mail()))[0]).toMatchObject({ kind: 'delivered', tls: null })
  })

  test('injected answers in clear text are dropped, and capabilities asked again', async () => {
    const offers = ['8BITMIME']
    const hop = stage.scripted(
      (line, { isTls }) =>
        line === 'STARTTLS' && !isTls
          ? '220 go\r\n250-evil.example\r\n250-SMTPUTF8\r\n250 PIPELINING\r\n250 ok\r\n'
          : undefined,
      { tls, offers },
    )
    const [outcome] = await stage.deliverTo(hop, mail({ eightBit: true }))
    expect(outcome).toMatchObject({ kind: 'delivered', tls: expect.any(String) })
    expect(hop.lines.slice(0, 3)).toEqual(['EHLO gate.example', 'STARTTLS', 'EHLO gate.example'])
    expect(hop.arrivals[0]?.mail).toEndWith(' BODY=8BITMIME')
  })

  for (const said of ['454 4.7.0 not now\r\n', '501 5.5.4 no\r\n']) {
    test(`refused with ${JSON.stringify(said)} goes on in clear text`, async () => {
      const hop = stage.scripted((line) => (line === 'STARTTLS' ? said : undefined), { tls })
      const [outcome] = await stage.deliverTo(hop, mail())
      expect(outcome).toMatchObject({ kind: 'delivered', tls: null })
      expect(hop.sessions.length).toBe(1)
    })
  }

  const BROKEN = [
    { name: 'garbage in place of a handshake', after: 'GARBAGE GARBAGE\r\n' },
    { name: 'a connection that ends in the handshake', after: '' },
  ]
  for (const { name, after } of BROKEN) {
    test(`${name} leads to one more connection, in clear text`, async () => {
      // Offered, agreed to, never done: a hop without a key.
      const hop = stage.scripted(
        (line, session) => {
          if (line !== 'STARTTLS') return undefined
          session.say(`220 go\r\n`)
          if (after === '') return 'close'
          session.isData = true
          setImmediate(() => session.say(after))
          return 'silence'
        },
        { offers: ['STARTTLS', 'PIPELINING'] },
      )
      const [outcome] = await stage.deliverTo(hop, mail())
      expect(outcome).toMatchObject({ kind: 'delivered', tls: null })
      expect(hop.sessions.length).toBe(2)
    })
  }

  test('a handshake without end is given up in time', async () => {
    const clock = new ManualClock()
    const asked = Promise.withResolvers<void>()
    const hop = stage.scripted(
      (line, session) => {
        if (line !== 'STARTTLS') return undefined
        session.isData = true
        asked.resolve()
        return '220 go\r\n'
      },
      { offers: ['STARTTLS', 'PIPELINING'] },
    )
    const delivering = stage.deliverer({ clock }).deliver(mail(), hop.route, SETTINGS)
    await asked.promise
    await hop.until(() => (hop.sessions[0]?.buffered.length ?? 0) > 0)
    clock.advance(SETTINGS.timeoutMs)
    expect((await delivering)[0]).toMatchObject({ kind: 'delivered', tls: null })
  })
})

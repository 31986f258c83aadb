/** Delivery to mail servers that others wrote: smtp-sink and smtpd of Postfix, Dovecot's LMTP. */
import { afterAll, afterEach, beforeAll, expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Route } from '../src/mail/deliver/contract.ts'
import {
  brief,
  largeText,
  mail,
  memory,
  PREPEND,
  SETTINGS,
  Stage,
  TEXT,
  unstuffed,
} from './delivery.ts'
import { Hop } from './hop.ts'
import {
  type Dovecot,
  type Peer,
  readInbox,
  startDovecot,
  startPostfixServer,
  startSmtpSink,
} from './peers.ts'
import { needs } from './real.ts'

const stage = new Stage()
afterEach(() => stage.end())

function routeTo({ port }: { readonly port: number }, protocol: 'smtp' | 'lmtp' = 'smtp'): Route {
  return { kind: 'hops', hops: [{ protocol, host: '127.0.0.1', port }] }
}

needs('postfix')('smtp-sink as next hop', () => {
  test('a thousand messages over ten connections arrive once each', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'deliver-sink-'))
    await Bun.$`chmod 777 ${folder}`.quiet()
    const sink = await startSmtpSink('-d', join(folder, 'm.'))
    const deliverer = stage.deliverer()
    const tokens = Array.from({ length: 1_000 }, (_, at) => `token-${at}-`)
    let next = 0
    const work = async (): Promise<void> => {
      for (let token = tokens[next++]; token !== undefined; token = tokens[next++]) {
        const delivery = mail({ body: memory(`Subject: x\r\n\r\n.${token}\r\n..\r\n`) })
        const [outcome] = await deliverer.deliver(delivery, routeTo(sink), SETTINGS)
        expect(outcome?.kind).toBe('delivered')
      }
    }
    await Promise.all(Array.from({ length: 10 }, work))
    await deliverer.close()
    await sink.stop()
    const files = readdirSync(folder).map((name) => readFileSync(join(folder, name), 'latin1'))
    rmSync(folder, { recursive: true })
    expect(files.length).toBe(1_000)
    const seen = files.map((text) => /\.(token-\d+-)/.exec(text)?.[1] ?? 'no token')
    expect(seen.sort()).toEqual(tokens.sort())
  }, 30_000)

  const FAULTS: { options: string[]; is: RegExp }[] = [
    { options: ['-f', 'connect'], is: /^never 5/ },
    { options: ['-r', 'connect'], is: /^later 4/ },
    { options: ['-q', 'connect'], is: /^later the next hop closed/ },
    { options: ['-Q', 'connect'], is: /^later 421/ },
    { options: ['-f', 'ehlo'], is: /^delivered/ },
    { options: ['-e'], is: /^delivered/ },
    { options: ['-p'], is: /^delivered/ },
    { options: ['-f', 'mail'], is: /^never 5/ },
    { options: ['-r', 'mail'], is: /^later 4/ },
    { options: ['-q', 'mail'], is: /^later the next hop closed/ },
    { options: ['-f', 'rcpt'], is: /^never 5/ },
    { options: ['-r', 'rcpt'], is: /^later 4/ },
    { options: ['-q', 'rcpt'], is: /^later the next hop closed/ },
    { options: ['-Q', 'rcpt'], is: /^later 421/ },
    { options: ['-f', 'data'], is: /^never 5/ },
    { options: ['-r', 'data'], is: /^later 4/ },
    { options: ['-q', 'data'], is: /^later the next hop closed/ },
    { options: ['-f', '.'], is: /^never 5/ },
    { options: ['-r', '.'], is: /^later 4/ },
    { options: ['-q', '.'], is: /^later in doubt the next hop closed/ },
    { options: ['-L'], is: /^delivered/ },
  ]
  for (const { options, is } of FAULTS) {
    test(`smtp-sink ${options.join(' ')} gives ${is.source}`, async () => {
      const sink = await startSmtpSink(...options)
      const protocol = options[0] === '-L' ? 'lmtp' : 'smtp'
      const deliverer = stage.deliverer()
      const to = ['a@x.example', 'b@x.example']
      for (const _ of [1, 2]) {
        const outcomes = await deliverer.deliver(mail({ to }), routeTo(sink, protocol), SETTINGS)
        for (const outcome of outcomes) expect(brief(outcome)).toMatch(is)
      }
      await sink.stop()
    })
  }
})

needs(
  'postfix',
  'openssl',
  'root',
)('Postfix as next hop', () => {
  let behind: Hop
  let peer: Peer
  beforeAll(async () => {
    behind = new Hop()
    peer = await startPostfixServer(behind.port)
  }, 30_000)
  afterAll(async () => {
    await peer.stop()
    behind.stop()
  })

  test('takes mail over TLS, recipient by recipient', async () => {
    const to = ['good@x.example', 'no-such@x.example', 'later@x.example']
    const outcomes = await stage.deliverer().deliver(mail({ to }), routeTo(peer), SETTINGS)
    expect(outcomes.map(brief).map((text) => text.slice(0, 18))).toEqual([
      'delivered 250 2.0.',
      'never 550 5.1.1',
      'later 450 4.2.1 <l',
    ])
    expect(outcomes[0]).toMatchObject({ tls: expect.stringMatching(/^TLSv1\.3 TLS_/) })
    expect(behind.arrivals.at(-1)?.recipients).toEqual(['RCPT TO:<good@x.example>'])
    expect(unstuffed(behind.arrivals.at(-1)?.wire)).toEndWith(PREPEND + TEXT)
  })

  test('gets a megabyte of dots byte for byte, twice over one connection', async () => {
    const text = `.\r\n..\r\n${`.${'x'.repeat(70)}\r\n`.repeat(14_000)}`
    const deliverer = stage.deliverer()
    for (const body of [memory(text), stage.extents(Buffer.from(text), 5, 400_000)]) {
      const delivery = mail({ prepend: '', body })
      const [outcome] = await deliverer.deliver(delivery, routeTo(peer), SETTINGS)
      expect(outcome?.kind).toBe('delivered')
      expect(unstuffed(behind.arrivals.at(-1)?.wire).endsWith(text)).toBe(true)
    }
  })
})

needs(
  'dovecot-imapd',
  'dovecot-lmtpd',
  'root',
)('Dovecot as next hop over LMTP', () => {
  let peer: Dovecot
  beforeAll(async () => {
    peer = await startDovecot()
  }, 30_000)
  afterAll(async () => {
    await peer.stop()
  })

  test('stores one message for several recipients, and each reads it back whole', async () => {
    const text = 'Subject: lmtp\r\n\r\n.dot\r\n..\r\ncaf\u00e9\r\n'
    const body = memory(Buffer.from(text))
    const to = ['one@there.example', 'no-such@there.example', 'two@there.example']
    const delivery = mail({ to, body, eightBit: true })
    const outcomes = await stage.deliverer().deliver(delivery, routeTo(peer, 'lmtp'), SETTINGS)
    expect(outcomes.map(({ kind }) => kind)).toEqual(['delivered', 'never', 'delivered'])
    for (const user of ['one@there.example', 'two@there.example']) {
      const [stored] = await readInbox(peer.imapPort, user)
      expect(stored).toEndWith(PREPEND + Buffer.from(text).toString('latin1'))
    }
  })

  test('a full mailbox is the trouble of its recipient only', async () => {
    const to = ['one@there.example', 'three@there.example']
    const half = memory(`Subject: x\r\n\r\n${largeText().slice(0, 78 * 2_500)}`)
    const deliverer = stage.deliverer()
    const fill = mail({ to: ['three@there.example'], body: half })
    await deliverer.deliver(fill, routeTo(peer, 'lmtp'), SETTINGS)
    const outcomes = await deliverer.deliver(
      mail({ to, body: half }),
      routeTo(peer, 'lmtp'),
      SETTINGS,
    )
    expect(outcomes.map(({ kind }) => kind)[0]).toBe('delivered')
    expect(brief(outcomes[1])).toMatch(/^(later 452 4\.2\.2|never 552 5\.2\.2)/)
  })
})

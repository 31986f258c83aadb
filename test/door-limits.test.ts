/** What a client reads at the door when it is new, too fast, or known: over a real socket. */
import { afterEach, expect, test } from 'bun:test'
import { SystemClock } from '../src/base/clock.ts'
import { MessageIds, type NodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { ALONE } from '../src/base/tally.ts'
import { LiveConfig } from '../src/config/live.ts'
import type { Settings } from '../src/config/schema.ts'
import { EMPTY_SNAPSHOT } from '../src/config/snapshot.ts'
import { SmtpListener } from '../src/mail/accept/listener.ts'
import type { Receiver } from '../src/mail/accept/receive.ts'
import { reply } from '../src/message/reply.ts'

const clock = new SystemClock()
let listener: SmtpListener | null = null

afterEach(async () => await listener?.stop())

type Asked = readonly [ip: string, sender: string, recipient: string]

/** Takes every message; every recipient but `known@example.com` is new. */
function open(settings: Partial<Settings>): {
  readonly asked: Asked[]
  readonly observer: Observer
} {
  const asked: Asked[] = []
  const observer = new Observer(clock, () => {})
  const live = new LiveConfig()
  const domain = { name: 'example.com', nextHops: [], recipients: null, hold: null, reject: null }
  live.swap({
    ...EMPTY_SNAPSHOT,
    domains: new Map([['example.com', domain]]),
    settings: {
      ...EMPTY_SNAPSHOT.settings,
      'limits.exempt': [],
      'greylist.mode': 'on',
      ...settings,
    },
  })
  const receiver: Receiver = {
    refusal: () => null,
    refused: () => {},
    begin: () => ({
      block: () => Buffer.allocUnsafeSlow(65_536),
      piece: () => true,
      onDrained: () => {},
      end: async () => reply(250, '2.0.0', 'taken'),
      abort: () => {},
    }),
  }
  listener = new SmtpListener(
    { host: '127.0.0.1', port: 0, hostname: 'mx1', tls: null },
    {
      clock,
      observer,
      ids: new MessageIds('00000000000000aa' as NodeId, 1, clock),
      live,
      receiver,
      tally: ALONE,
      greylist: {
        ask: (ip, sender, recipient) => {
          asked.push([ip, sender, recipient])
          return recipient === 'known@example.com' ? 0 : 179_400
        },
      },
    },
  )
  listener.start()
  return { asked, observer }
}

/** The last line of each reply to `lines`, each sent after the reply to the one before. */
function say(...lines: readonly string[]): Promise<readonly string[]> {
  return new Promise((resolve, reject) => {
    const replies: string[] = []
    let input = ''
    void Bun.connect({
      hostname: '127.0.0.1',
      port: listener?.port ?? 0,
      socket: {
        data: (socket, chunk) => {
          input += chunk.toString('latin1')
          for (let end = input.indexOf('\r\n'); end >= 0; end = input.indexOf('\r\n')) {
            const line = input.slice(0, end)
            input = input.slice(end + 2)
            if (line[3] === '-') continue
            replies.push(line)
            const next = lines[replies.length - 1]
            if (next !== undefined) socket.write(`${next}\r\n`)
            else socket.end()
          }
        },
        close: () => resolve(replies.slice(1)),
        connectError: (_, error) => reject(error),
      },
    })
  })
}

const FROM = 'MAIL FROM:<ann@example.org>'
const MAIL = ['DATA', 'Subject: x\r\n\r\nx\r\n.'] as const

test('a recipient that is new for the client reads 451 and when; the others of the message go on', async () => {
  const { asked, observer } = open({})
  const replies = await say(
    'EHLO c',
    FROM,
    'RCPT TO:<new@example.com>',
    'RCPT TO:<known@example.com>',
    ...MAIL,
  )
  expect(replies[2]).toBe('451 4.7.1 Greylisted: try again in 180 s, at any of our hosts')
  expect(replies[3]).toStartWith('250 ')
  expect(replies[5]).toBe('250 2.0.0 taken')
  expect(asked[0]).toEqual(['127.0.0.1', 'ann@example.org', 'new@example.com'])
  expect(observer.metrics()).toContain('postern_smtp_refused_total{why="greylist"} 1')
})

test('who had mail accepted is known for every recipient; a recipient that is refused is not asked about', async () => {
  const { asked } = open({})
  await say('EHLO c', FROM, 'RCPT TO:<known@example.com>', ...MAIL)
  const replies = await say(
    'EHLO c',
    FROM,
    'RCPT TO:<new@example.com>',
    'RCPT TO:<x@other.example>',
  )
  expect(replies[2]).toStartWith('250 ')
  expect(replies[3]).toStartWith('550 ')
  expect(asked).toHaveLength(1)
})

test('nobody is greylisted when it is off, is exempt, or may relay', async () => {
  for (const settings of [
    { 'greylist.mode': 'off' },
    { 'limits.exempt': ['127.0.0.0/8'] },
    { 'relay.networks': ['127.0.0.1'] },
  ] as const) {
    const { asked } = open(settings)
    const replies = await say('EHLO c', FROM, 'RCPT TO:<new@example.com>')
    expect(replies[2]).toStartWith('250 ')
    expect(asked).toEqual([])
    await listener?.stop()
  }
})

test('one message too many in a minute reads 450 and may come later; the session goes on', async () => {
  const { observer } = open({ 'limits.messageRate': 2, 'greylist.mode': 'off' })
  const replies = await say('EHLO c', FROM, 'RSET', FROM, 'RSET', FROM, 'NOOP')
  expect(replies[3]).toStartWith('250 ')
  expect(replies[5]).toBe('450 4.7.1 Too many messages from your network, try later')
  expect(replies[6]).toStartWith('250 ')
  expect(observer.metrics()).toContain('postern_smtp_refused_total{why="rate"} 1')
})

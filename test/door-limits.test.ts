/** What a client reads at the door when it is new, too fast, or known: over a real socket. */
import { afterEach, expect, test } from 'bun:test'
import { SystemClock } from '../src/base/clock.ts'
import { MessageIds, type NodeId } from '../src/base/ids.ts'
import type { DnsAnswer, Names } from '../src/base/names.ts'
import { Observer } from '../src/base/observe.ts'
import { ALONE } from '../src/base/tally.ts'
import { LiveConfig } from '../src/config/live.ts'
import { NetworkIndex } from '../src/config/networks.ts'
import type { Settings } from '../src/config/schema.ts'
import { EMPTY_SNAPSHOT } from '../src/config/snapshot.ts'
import { Bans } from '../src/mail/accept/bans.ts'
import { type ListenerDeps, SmtpListener } from '../src/mail/accept/listener.ts'
import type { Arrival, Receiver } from '../src/mail/accept/receive.ts'
import { reply } from '../src/message/reply.ts'
import { ManualClock } from './clock.ts'
import { rooms } from './rooms.ts'

const clock = new SystemClock()
let listener: SmtpListener | null = null

afterEach(async () => await listener?.stop())

type Asked = readonly [ip: string, sender: string, recipient: string]

type Opened = {
  readonly asked: Asked[]
  readonly observer: Observer
  readonly arrivals: Arrival[]
  readonly refused: unknown[]
}

/** Takes every message; every recipient but `known@example.com` is new. */
const { room } = rooms()

/** Of a node that is alone. */
function bansAlone(): Bans {
  return new Bans({
    clock,
    observer: new Observer(clock, () => {}),
    tally: ALONE,
    rows: room().rows,
  })
}

function open(
  settings: Partial<Settings>,
  more: Partial<ListenerDeps> = {},
  allowed: readonly string[] = [],
): Opened {
  const asked: Asked[] = []
  const arrivals: Arrival[] = []
  const refused: unknown[] = []
  const observer = new Observer(clock, () => {})
  const live = new LiveConfig()
  const domain = {
    name: 'example.com',
    nextHops: [],
    recipients: null,
    hold: null,
    reject: null,
    enforce: null,
  }
  live.swap({
    ...EMPTY_SNAPSHOT,
    domains: new Map([['example.com', domain]]),
    lists: { ...EMPTY_SNAPSHOT.lists, allowedClients: new NetworkIndex(allowed) },
    settings: {
      ...EMPTY_SNAPSHOT.settings,
      'limits.exempt': [],
      'greylist.mode': 'on',
      ...settings,
    },
  })
  const receiver: Receiver = {
    refusal: () => null,
    refused: (row) => refused.push(row),
    begin: () => ({
      block: () => Buffer.allocUnsafeSlow(65_536),
      piece: () => true,
      onDrained: () => {},
      end: async (arrival) => {
        arrivals.push(arrival)
        return reply(250, '2.0.0', 'taken')
      },
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
      ...more,
    },
  )
  listener.start()
  return { asked, observer, arrivals, refused }
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

/** A list that has this machine, with what it says of it. */
function listed(answer: DnsAnswer | Promise<DnsAnswer>): { readonly names: Names; asked: number } {
  const place = {
    asked: 0,
    names: {
      query: () => {
        place.asked += 1
        return Promise.resolve(answer)
      },
    },
  }
  return place
}
const BAD: DnsAnswer = { status: 'found', records: ['127.0.0.2'] }
const LISTED = { 'connection.lists': ['bad.test 127.0.0.2=8'], 'greylist.mode': 'off' } as const

test('a client that is listed is refused at its recipients, and reaches postmaster unweighed', async () => {
  const { arrivals, refused, observer } = open(LISTED, { names: listed(BAD).names })
  const replies = await say(
    'EHLO c',
    FROM,
    'RCPT TO:<ann@example.com>',
    'RCPT TO:<Postmaster@example.com>',
    ...MAIL,
  )
  expect(replies[2]).toBe('550 5.7.1 127.0.0.1 is listed by bad.test')
  expect(replies[3]).toStartWith('250 ')
  expect(arrivals[0]?.findings).toMatchObject([{ rule: 'DNSBL_BAD_TEST', score: 0 }])
  expect(refused).toMatchObject([{ recipient: 'ann@example.com', accept: 'refused' }])
  expect(observer.metrics()).toContain('postern_smtp_refused_total{why="listed"} 1')
})

test('what weighs less than a refusal goes with the mail; exempt clients are not asked about', async () => {
  const less = listed(BAD)
  const { arrivals } = open({ ...LISTED, 'connection.reject': 8.5 }, { names: less.names })
  await say('EHLO c', FROM, 'RCPT TO:<ann@example.com>', ...MAIL)
  expect(arrivals[0]?.findings).toMatchObject([{ rule: 'DNSBL_BAD_TEST', score: 8 }])
  await listener?.stop()
  for (const free of [{ 'limits.exempt': ['127.0.0.1'] }, { 'relay.networks': ['127.0.0.0/8'] }]) {
    const exempt = listed(BAD)
    const second = open({ ...LISTED, ...free }, { names: exempt.names })
    expect((await say('EHLO c', FROM, 'RCPT TO:<ann@example.com>'))[2]).toStartWith('250 ')
    expect(exempt.asked).toBe(0)
    expect(second.refused).toEqual([])
    await listener?.stop()
  }
})

test('a slow list holds the recipient, not the greeting, and pipelined commands wait in their order', async () => {
  const slow = Promise.withResolvers<DnsAnswer>()
  const { arrivals } = open(LISTED, { names: listed(slow.promise).names })
  const lines: string[] = []
  const taken = Promise.withResolvers<void>()
  const socket = await Bun.connect({
    hostname: '127.0.0.1',
    port: listener?.port ?? 0,
    socket: {
      data: (at, chunk) => {
        lines.push(...chunk.toString('latin1').trimEnd().split('\r\n'))
        if (lines.length === 1) at.write('EHLO c\r\n')
        if (lines.at(-1)?.startsWith('250 ENHANCED') === true) {
          at.write(`${FROM}\r\nRCPT TO:<ann@example.com>\r\nRCPT TO:<bob@example.com>\r\nDATA\r\n`)
        }
        if (lines.at(-1)?.startsWith('250 2.1.0') === true) slow.resolve({ status: 'absent' })
        if (lines.includes('250 2.0.0 taken')) taken.resolve()
        if (lines.at(-1)?.startsWith('354') === true)
          at.write('Subject: x\r\n\r\nx\r\n.\r\nQUIT\r\n')
      },
    },
  })
  await taken.promise
  socket.end()
  expect(lines.filter((line) => /^250 2|^354/.test(line)).map((line) => line.slice(0, 9))).toEqual([
    '250 2.1.0',
    '250 2.1.5',
    '250 2.1.5',
    '354 End d',
    '250 2.0.0',
  ])
  expect(arrivals[0]?.envelope.recipients.map(({ address }) => address)).toEqual([
    'ann@example.com',
    'bob@example.com',
  ])
})

test('a recipient that its host does not know is unknown here; too many of them end the session', async () => {
  const bans = bansAlone()
  const exists = (recipient: string) => Promise.resolve(recipient.startsWith('ann@'))
  const { observer } = open(
    { 'greylist.mode': 'off', 'connection.failures': 3, 'limits.errors': 100 },
    { bans, exists },
  )
  const guesses = ['x1', 'x2', 'x3', 'x4'].map((local) => `RCPT TO:<${local}@example.com>`)
  const replies = await say('EHLO c', FROM, 'RCPT TO:<ann@example.com>', ...guesses)
  expect(replies.slice(2)).toEqual([
    expect.stringMatching(/^250 /),
    '550 5.1.1 No such recipient here',
    '550 5.1.1 No such recipient here',
    '550 5.1.1 No such recipient here',
    '421 4.7.1 Too many unknown recipients from your network',
  ])
  expect(await banner()).toStartWith('421 4.7.1 ')
  expect(observer.metrics()).toContain('postern_smtp_refused_total{why="banned"} 2')
  expect(bans.lift('ann', '127.0.0.1')).toBe(true)
  expect(await banner()).toStartWith('220 ')
})

test('relay clients, exempt and allowed clients and other nodes are never counted or refused for unknown recipients', async () => {
  for (const [settings, more, allowed = []] of [
    [{ 'limits.exempt': ['127.0.0.1'] }, {}],
    [{ 'relay.networks': ['127.0.0.1'] }, {}],
    [{}, { isPeer: (ip: string) => ip === '127.0.0.1' }],
    [{}, {}, ['127.0.0.0/8']],
  ] as const) {
    const bans = bansAlone()
    const all = { 'greylist.mode': 'off', 'connection.failures': 1, 'limits.errors': 100 }
    open({ ...all, ...settings }, { bans, exists: () => false, ...more }, allowed)
    const replies = await say('EHLO c', FROM, ...Array<string>(5).fill('RCPT TO:<x@example.com>'))
    expect(replies.slice(2).every((line) => line.startsWith('550 5.1.1'))).toBe(true)
    expect(bans.list()).toEqual([])
    await listener?.stop()
  }
})

/** The first line that a client reads. */
function banner(): Promise<string> {
  return new Promise((resolve, reject) => {
    void Bun.connect({
      hostname: '127.0.0.1',
      port: listener?.port ?? 0,
      socket: {
        data: (socket, chunk) => {
          resolve(chunk.toString('latin1'))
          socket.end()
        },
        connectError: (_, error) => reject(error),
      },
    })
  })
}

test('a fault while a recipient is looked up ends the session with 451, and holds nobody', async () => {
  const exists = () => Promise.reject(new Error('a bug'))
  const { observer } = open({ 'greylist.mode': 'off' }, { exists })
  const replies = await say('EHLO c', FROM, 'RCPT TO:<ann@example.com>')
  expect(replies[2]).toBe('451 4.3.0 Local error, try again later')
  expect(observer.metrics()).toContain('postern_smtp_failed_total 1')
})

test('whom a list has waits three times as long for its greeting; nobody else does', async () => {
  const time = new ManualClock()
  const answers: DnsAnswer[] = [BAD]
  let asked = Promise.withResolvers<void>()
  const names: Names = {
    query: () => {
      asked.resolve()
      return Promise.resolve(answers.shift() ?? { status: 'absent' })
    },
  }
  open({ ...LISTED, 'connection.reject': 50, 'smtp.greetingDelay': 1_000 }, { names, clock: time })
  const suspect = { line: '' }
  const greeted = banner().then((line) => {
    suspect.line = line
  })
  await asked.promise
  for (let turn = 0; turn < 50; turn++) await Promise.resolve()
  asked = Promise.withResolvers<void>()
  time.advance(1_000)
  const other = banner()
  await asked.promise
  time.advance(1_000)
  expect(await other).toStartWith('220 ')
  expect(suspect.line).toBe('')
  time.advance(1_000)
  await greeted
  expect(suspect.line).toStartWith('220 ')
})

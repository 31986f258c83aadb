/** Delivery status notifications: who is told, what they read, and what can never get into them. */
import { expect, test } from 'bun:test'
import { simpleParser } from 'mailparser'
import type { MessageId } from '../src/base/ids.ts'
import {
  type BouncedRecipient,
  type BounceInput,
  type BounceKind,
  buildBounce,
  decodeXtext,
  mayBounce,
  RETURNED_BYTES_MAX,
  wantsBounce,
} from '../src/mail/deliver/bounce.ts'
import { DotStuffer } from '../src/mail/deliver/wire.ts'
import { mailDate } from '../src/message/date.ts'
import { reply } from '../src/message/reply.ts'
import { HOSTILE_NAMES } from './hostile-names.ts'

const NOW_MS = 1_795_309_509_000
const HEADER = 'From: a@here.example\r\nSubject: hello\r\nMessage-ID: <first@here.example>\r\n'

function to(address: string, changes: Partial<BouncedRecipient> = {}): BouncedRecipient {
  const said = reply(550, '5.1.1', 'No such user')
  return {
    address,
    notify: null,
    orcpt: null,
    reply: said,
    host: 'mx.there.example[192.0.2.1]:25',
    ...changes,
  }
}

type Changes = Partial<Omit<BounceInput, 'envelope'>> & {
  envelope?: Partial<BounceInput['envelope']>
}

function input({ envelope, ...changes }: Changes = {}): BounceInput {
  return {
    mid: '0000000000000000000000000a' as MessageId,
    kind: 'failure',
    reportingHost: 'gate.example',
    envelope: {
      sender: 'from@here.example',
      envid: null,
      ret: null,
      smtpUtf8: false,
      receivedMs: NOW_MS - 60_000,
      ...envelope,
    },
    recipients: [to('to@there.example')],
    original: { bytes: Buffer.from(`${HEADER}\r\nThe body.\r\n`), isWhole: true },
    expiresMs: NOW_MS + 86_400_000,
    nowMs: NOW_MS,
    ...changes,
  }
}

function text(changes: Changes = {}): string {
  const bounce = buildBounce(input(changes))
  return bounce === null ? 'nobody is told' : Buffer.from(bounce.bytes).toString()
}

/** The three parts of a report, as `[header, content]`. */
function parts(changes: Changes = {}): [string, string][] {
  const whole = text(changes)
  const boundary = /boundary="([^"]+)"/.exec(whole)?.[1] ?? 'none'
  return whole
    .split(`--${boundary}`)
    .slice(1, -1)
    .map((part) => {
      const at = part.indexOf('\r\n\r\n')
      return [part.slice(2, at), part.slice(at + 4, -2)]
    })
}

test('a failure reads like RFC 3464 says', () => {
  const [human, status, original] = parts()
  expect(human?.[1]).toContain('<to@there.example>:\r\n    550 5.1.1 No such user')
  expect(status?.[0]).toBe(
    'Content-Type: message/delivery-status\r\nContent-Transfer-Encoding: 7bit',
  )
  expect(status?.[1]).toBe(
    [
      'Reporting-MTA: dns; gate.example',
      `Arrival-Date: ${mailDate(NOW_MS - 60_000)}`,
      '',
      'Final-Recipient: rfc822; to@there.example',
      'Action: failed',
      'Status: 5.1.1',
      'Remote-MTA: dns; mx.there.example',
      'Diagnostic-Code: smtp; 550 5.1.1 No such user',
      `Last-Attempt-Date: ${mailDate(NOW_MS)}`,
      '',
    ].join('\r\n'),
  )
  expect(original).toEqual([
    'Content-Type: text/rfc822-headers\r\nContent-Transfer-Encoding: 7bit',
    HEADER,
  ])
})

test('its header says what it is and answers the message that it is about', () => {
  const [header] = text().split('\r\n\r\n')
  expect(header).toContain(`Date: ${mailDate(NOW_MS)}\r\n`)
  expect(header).toContain('From: Mail Delivery System <MAILER-DAEMON@gate.example>\r\n')
  expect(header).toContain('To: <from@here.example>\r\n')
  expect(header).toContain('Auto-Submitted: auto-replied\r\n')
  expect(header).toContain('In-Reply-To: <first@here.example>\r\n')
  expect(header).toMatch(/Message-ID: <[0-9a-f]{32}\.failure@gate\.example>\r\n/)
  expect(header).toContain('Content-Type: multipart/report; report-type=delivery-status;\r\n')
})

test('another reader finds the same parts', async () => {
  const bounce = buildBounce(input())
  const parsed = await simpleParser(Buffer.from(bounce?.bytes ?? []))
  expect(parsed.headers.get('content-type')).toMatchObject({
    value: 'multipart/report',
    params: { 'report-type': 'delivery-status' },
  })
  expect(parsed.text).toContain('could not be delivered')
  expect(parsed.text).toContain('Action: failed')
  const [original] = parsed.attachments
  expect(original?.contentType).toBe('text/rfc822-headers')
  expect(original?.content.toString()).toContain('Message-ID: <first@here.example>')
})

test('a delay says until when, and a hand-over says that no more may come', () => {
  const delay = parts({
    kind: 'delay',
    recipients: [to('to@there.example', { reply: reply(451, '4.2.1', 'Busy') })],
  })
  expect(delay[1]?.[1]).toContain('Action: delayed\r\nStatus: 4.2.1\r\n')
  expect(delay[1]?.[1]).toContain(`Will-Retry-Until: ${mailDate(NOW_MS + 86_400_000)}`)
  const success = parts({
    kind: 'success',
    recipients: [to('to@there.example', { notify: 'SUCCESS', reply: reply(250, '2.0.0', 'Ok') })],
  })
  expect(success[1]?.[1]).toContain('Action: relayed\r\nStatus: 2.0.0\r\n')
})

const STATUS = [
  { kind: 'failure', said: reply(550, '', 'No'), status: '5.0.0' },
  { kind: 'failure', said: reply(451, '4.4.1', 'Expired'), status: '4.4.1' },
  { kind: 'delay', said: reply(550, '5.1.1', 'Odd'), status: '4.0.0' },
  { kind: 'failure', said: reply(550, '5.1.1\r\nX: y', 'Odd'), status: '5.0.0' },
] as const

for (const { kind, said, status } of STATUS) {
  test(`${said.code} ${JSON.stringify(said.enhanced)} in a ${kind} has the status ${status}`, () => {
    const [, report] = parts({ kind, recipients: [to('a@x.example', { reply: said })] })
    expect(report?.[1]).toContain(`\r\nStatus: ${status}\r\n`)
  })
}

const NOTIFY: [notify: string | null, tells: BounceKind[]][] = [
  [null, ['failure', 'delay']],
  ['NEVER', []],
  ['SUCCESS', ['success']],
  ['FAILURE', ['failure']],
  ['SUCCESS,FAILURE,DELAY', ['failure', 'delay', 'success']],
  ['success,delay', ['delay', 'success']],
]

for (const [notify, tells] of NOTIFY) {
  test(`NOTIFY ${notify} tells of ${tells.join(', ') || 'nothing'}`, () => {
    const kinds = ['failure', 'delay', 'success'] as const
    expect(kinds.filter((kind) => wantsBounce(notify, kind))).toEqual(tells)
    for (const kind of kinds) {
      const bounce = buildBounce(input({ kind, recipients: [to('a@x.example', { notify })] }))
      expect(bounce !== null).toBe(tells.includes(kind))
    }
  })
}

test('only the recipients that want it are named', () => {
  const recipients = [to('quiet@x.example', { notify: 'NEVER' }), to('loud@x.example')]
  expect(text({ recipients })).toContain('loud@x.example')
  expect(text({ recipients })).not.toContain('quiet')
})

test('the null sender is never told anything', () => {
  expect(buildBounce(input({ envelope: { sender: '' } }))).toBeNull()
})

test('ENVID and ORCPT come back decoded', () => {
  const [, report] = parts({
    envelope: { envid: 'QQ+2B314+3D159' },
    recipients: [to('b@x.example', { orcpt: 'rfc822;a+2Bb@x.example' })],
  })
  expect(report?.[1]).toStartWith('Original-Envelope-Id: QQ+314=159\r\nReporting-MTA')
  expect(report?.[1]).toContain('Original-Recipient: rfc822; a+b@x.example\r\nFinal-Recipient')
})

const XTEXT: [text: string, decoded: string | null][] = [
  ['plain', 'plain'],
  ['a+2Bb', 'a+b'],
  ['a+20b', 'a b'],
  ['a+0Ab', null],
  ['a+0Db', null],
  ['a+00b', null],
  ['a+FFb', null],
  ['a+2', null],
  ['a+2b', null],
  ['a\r\nb', null],
  ['', null],
]
for (const [written, decoded] of XTEXT) {
  test(`xtext ${JSON.stringify(written)} is ${JSON.stringify(decoded)}`, () => {
    expect(decodeXtext(written)).toBe(decoded)
  })
}

test('nothing that a stranger wrote can add a line to the report', () => {
  const evil = 'x\r\nX-Evil: 1\r\n\r\nevil'
  const whole = text({
    envelope: { envid: 'x+0D+0AX-Evil:+201' },
    recipients: [
      to('a@x.example', {
        orcpt: 'rfc822;a+0D+0AX-Evil:+201',
        reply: reply(550, '5.0.0', evil),
        host: `mx\r\nX-Evil: 1[192.0.2.1]:25`,
      }),
      to('b@x.example', { orcpt: `rfc822\r\nX-Evil: 1;b` }),
      to('c@x.example', { orcpt: `utf-8;c\r\nX-Evil: 1` }),
      to(evil),
    ],
  })
  expect(whole).not.toContain('\r\nX-Evil')
  expect(whole).toContain('Final-Recipient: rfc822; c@x.example')
  expect(text({ envelope: { sender: `a@x.example>\r\nBcc: <v@x.example` } })).toBe('nobody is told')
})

test('the whole message goes back only when asked for, in failures, when small', () => {
  const kinds = (changes: Changes): string =>
    /Content-Type: (\S+)/.exec(parts(changes)[2]?.[0] ?? '')?.[1] ?? ''
  const full = { envelope: { ret: 'FULL' } } as const
  expect(kinds(full)).toBe('message/rfc822')
  expect(parts(full)[2]?.[1]).toBe(`${HEADER}\r\nThe body.\r\n`)
  expect(kinds({ envelope: { ret: 'HDRS' } })).toBe('text/rfc822-headers')
  expect(kinds({})).toBe('text/rfc822-headers')
  expect(kinds({ ...full, kind: 'delay' })).toBe('text/rfc822-headers')
  const bytes = Buffer.from(`${HEADER}\r\n${'x'.repeat(RETURNED_BYTES_MAX)}\r\n`)
  expect(kinds({ ...full, original: { bytes, isWhole: true } })).toBe('text/rfc822-headers')
  expect(kinds({ ...full, original: { bytes: Buffer.from(HEADER), isWhole: false } })).toBe(
    'text/rfc822-headers',
  )
})

test('a huge header goes back cut at a line end', () => {
  const bytes = Buffer.from(`Subject: x\r\n${`X-Long: ${'y'.repeat(90)}\r\n`.repeat(3_000)}`)
  const returned = parts({ original: { bytes, isWhole: false } })[2]?.[1] ?? ''
  expect(returned.length).toBeLessThanOrEqual(RETURNED_BYTES_MAX)
  expect(returned.length).toBeGreaterThan(RETURNED_BYTES_MAX - 200)
  expect(returned).toEndWith('y\r\n')
})

test('the report is ASCII, whatever bytes the message has', () => {
  const bytes = Buffer.concat([
    Buffer.from('Subject: '),
    Buffer.from([0xe9, 0x80, 0xff]),
    Buffer.from('\r\n\r\nb\r\n'),
  ])
  for (const ret of ['FULL', 'HDRS'] as const) {
    const bounce = buildBounce(input({ envelope: { ret }, original: { bytes, isWhole: true } }))
    expect(bounce?.smtpUtf8).toBe(false)
    expect(bounce?.bytes.every((byte) => byte < 128)).toBe(true)
    expect(Buffer.from(bounce?.bytes ?? []).toString()).toContain('Subject: ???\r\n')
  }
})

test('an internationalized recipient is reported in UTF-8 (RFC 6533)', () => {
  const changes: Changes = {
    envelope: { smtpUtf8: true },
    recipients: [to('z\u00fc@x.example', { orcpt: 'utf-8;z\u00fc@x.example' })],
    original: { bytes: Buffer.from('Subject: \u00fc\r\n\r\n'), isWhole: true },
  }
  expect(buildBounce(input(changes))?.smtpUtf8).toBe(true)
  const [human, status, original] = parts(changes)
  expect(human?.[0]).toContain('charset=utf-8')
  expect(status?.[0]).toContain('message/global-delivery-status')
  expect(status?.[1]).toContain(
    'Original-Recipient: utf-8; z\u00fc@x.example\r\nFinal-Recipient: utf-8; z\u00fc@x.example',
  )
  expect(original).toEqual([
    'Content-Type: message/global-headers\r\nContent-Transfer-Encoding: 8bit',
    'Subject: \u00fc\r\n',
  ])
})

test('a message that only said SMTPUTF8 is reported in ASCII', () => {
  expect(buildBounce(input({ envelope: { smtpUtf8: true } }))?.smtpUtf8).toBe(false)
})

test('the same failure makes the same bytes; another message, recipient or kind another id', () => {
  const id = (changes: Changes): string => /Message-ID: (.*)\r/.exec(text(changes))?.[1] ?? 'none'
  expect(text()).toBe(text())
  const others = [
    {},
    { mid: '0000000000000000000000000b' as MessageId },
    { recipients: [to('other@there.example')] },
    { recipients: [to('to@there.example'), to('other@there.example')] },
    { kind: 'delay' },
  ] as const
  expect(new Set(others.map(id)).size).toBe(others.length)
})

test('a boundary that the message knows is not used', () => {
  const boundaryOf = (changes: Changes): string =>
    /boundary="([^"]+)"/.exec(text(changes))?.[1] ?? ''
  const guessed = boundaryOf({})
  const original = { bytes: Buffer.from(`Subject: --${guessed}--\r\n\r\n`), isWhole: true }
  expect(boundaryOf({ original })).not.toBe(guessed)
  expect(parts({ original }).length).toBe(3)
})

test('the report is canonical even when what it is made of is not', () => {
  const bytes = Buffer.from('Subject: a\nX: b\rY: c\0\r\n\r\nbody\n.\n')
  const bounce = buildBounce(
    input({ envelope: { ret: 'FULL' }, original: { bytes, isWhole: true } }),
  )
  expect(() => new DotStuffer().next(Buffer.from(bounce?.bytes ?? []))).not.toThrow()
})

test.each(HOSTILE_NAMES)(
  'the name of a file stays in the field that it came in: %j',
  async (name) => {
    const word = `=?utf-8?b?${Buffer.from(name).toString('base64')}?=`
    const header = `${HEADER}Content-Type: application/pdf; name="${word}"\r\n`
    const bytes = Buffer.from(`${header}\r\nThe body.\r\n`)
    const changes = { original: { bytes, isWhole: true } }
    const all = parts(changes)
    expect(all).toHaveLength(3)
    const [human, status, original] = all.map(([, content]) => content)
    expect(`${human}${status}`).not.toMatch(/Injected|touch|script|jndi/)
    expect(original).toBe(header)
    const read = await simpleParser(text(changes))
    expect(read.headers.has('x-injected')).toBe(false)
    expect(read.headers.has('bcc')).toBe(false)
  },
)

const OWN = new Set(['here.example'])
const SENDERS: { sender: string; outbound: boolean; is: boolean }[] = [
  { sender: 'a@here.example', outbound: false, is: true },
  { sender: 'a@HERE.example', outbound: false, is: true },
  { sender: 'a@sub.here.example', outbound: false, is: false },
  { sender: 'a@stranger.example', outbound: false, is: false },
  { sender: 'a@stranger.example', outbound: true, is: true },
  { sender: '"a@here.example"@stranger.example', outbound: false, is: false },
  { sender: '', outbound: true, is: false },
  { sender: 'no address at all', outbound: true, is: false },
]
for (const { sender, outbound, is } of SENDERS) {
  test(`<${sender}>${outbound ? ' from a relay network' : ''} is ${is ? '' : 'not '}told`, () => {
    expect(mayBounce({ sender, outbound }, OWN)).toBe(is)
  })
}

test('dates are those of RFC 5322', () => {
  expect(mailDate(0)).toBe('Thu, 1 Jan 1970 00:00:00 +0000')
  expect(mailDate(951_827_696_000)).toBe('Tue, 29 Feb 2000 12:34:56 +0000')
  for (let day = 0; day < 20_000; day += 97) {
    const wallMs = day * 86_400_000 + 12_345_000
    expect(mailDate(wallMs)).toStartWith(new Date(wallMs).toUTCString().slice(0, 4))
    expect(Date.parse(mailDate(wallMs))).toBe(wallMs)
  }
})

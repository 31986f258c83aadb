/** What delivery says to a next hop: commands, capabilities, parameters, replies by recipient. */
import { afterEach, expect, test } from 'bun:test'
import type { Delivery } from '../src/mail/deliver/contract.ts'
import { brief, largeText, mail, memory, PREPEND, Stage, TEXT } from './delivery.ts'

const stage = new Stage()
afterEach(() => stage.end())

const THREE = ['one@x.example', 'two@x.example', 'three@x.example']

test('commands go out together where PIPELINING is offered', async () => {
  // This hop answers nothing before DATA: a client that waits would wait for ever.
  const hop = stage.scripted((line, session) => {
    if (/^(MAIL|RCPT)/.test(line)) return 'silence'
    if (line !== 'DATA') return undefined
    session.recipients.push('one', 'two')
    return '250 m\r\n250 one\r\n250 two\r\n354 go\r\n'
  })
  const outcomes = await stage.deliverTo(hop, mail({ to: ['one@x.example', 'two@x.example'] }))
  expect(outcomes.map(({ kind }) => kind)).toEqual(['delivered', 'delivered'])
})

test('commands wait for one another where PIPELINING is not offered', async () => {
  const pipelined: string[] = []
  const hop = stage.scripted(
    (_line, session) => {
      if (session.buffered.length > 0) pipelined.push(session.buffered.toString())
      return undefined
    },
    { offers: ['8BITMIME'] },
  )
  const outcomes = await stage.deliverTo(hop, mail({ to: THREE }))
  expect(outcomes.map(({ kind }) => kind)).toEqual(['delivered', 'delivered', 'delivered'])
  expect(pipelined).toEqual([])
  expect(hop.arrivals.length).toBe(1)
})

test('a hop that knows no EHLO is greeted with HELO and gets a plain MAIL', async () => {
  const hop = stage.scripted((line) => (line.startsWith('EHLO') ? '502 what\r\n' : undefined))
  const [outcome] = await stage.deliverTo(hop, mail())
  expect(outcome?.kind).toBe('delivered')
  expect(hop.lines.slice(0, 3)).toEqual([
    'EHLO gate.example',
    'HELO gate.example',
    'MAIL FROM:<from@here.example>',
  ])
})

test('the null sender goes out as an empty path', async () => {
  const hop = stage.hop()
  await stage.deliverTo(hop, mail({ sender: '' }))
  expect(hop.arrivals[0]?.mail).toStartWith('MAIL FROM:<> ')
})

for (const offers of [['PIPELINING'], []]) {
  const how = offers.length > 0 ? 'pipelined' : 'one by one'
  test(`each recipient has the outcome of its own reply, ${how}`, async () => {
    const hop = stage.scripted(
      (line) => {
        if (line.includes('two@')) return '550 5.1.1 no such user\r\n'
        if (line.includes('three@')) return '450-4.2.1 busy\r\n450 4.2.1 come back\r\n'
        return undefined
      },
      { offers },
    )
    const outcomes = await stage.deliverTo(hop, mail({ to: THREE }))
    expect(outcomes.map(brief)).toEqual([
      'delivered 250 2.0.0',
      'never 550 5.1.1',
      'later 450 4.2.1 busy come back',
    ])
    expect(hop.arrivals[0]?.recipients).toEqual(['RCPT TO:<one@x.example>'])
  })

  test(`no message is sent when nobody is left to get it, ${how}`, async () => {
    const hop = stage.scripted(
      (line) => (line.startsWith('RCPT') ? '550 5.1.1 no\r\n' : undefined),
      { offers },
    )
    const deliverer = stage.deliverer()
    const settings = { hostname: 'gate.example', timeoutMs: 60_000 }
    for (const _ of [1, 2]) {
      const outcomes = await deliverer.deliver(mail({ to: THREE }), hop.route, settings)
      expect(outcomes.map(brief)).toEqual(Array(3).fill('never 550 5.1.1'))
    }
    expect(hop.arrivals).toEqual([])
  })

  test(`after a refusal the connection begins the next message with RSET, ${how}`, async () => {
    const hop = stage.scripted(
      (line) => {
        if (line.includes('bad@')) return '550 5.1.1 no\r\n'
        return line === 'DATA' &&
          hop.lines.filter((one) => one === 'DATA').length === 1 &&
          offers[0]
          ? '503 5.5.1 no recipients\r\n'
          : undefined
      },
      { offers },
    )
    const deliverer = stage.deliverer()
    const settings = { hostname: 'gate.example', timeoutMs: 60_000 }
    await deliverer.deliver(mail({ to: ['bad@x.example'] }), hop.route, settings)
    const [outcome] = await deliverer.deliver(mail(), hop.route, settings)
    expect(outcome?.kind).toBe('delivered')
    expect(hop.sessions.length).toBe(1)
    expect(hop.lines).toContain('RSET')
    expect(hop.arrivals.length).toBe(1)
  })
}

const REPLIES = [
  { at: 'MAIL', says: '550 5.7.1 no', is: 'never 550 5.7.1' },
  { at: 'MAIL', says: '451 4.3.0 wait', is: 'later 451 4.3.0 wait' },
  { at: 'DATA', says: '554 5.5.1 no', is: 'never 554 5.5.1' },
  { at: 'DATA', says: '451 4.3.0 wait', is: 'later 451 4.3.0 wait' },
  { at: '.', says: '554 5.7.1 spam', is: 'never 554 5.7.1' },
  { at: '.', says: '451 wait', is: 'later 451 wait' },
  { at: 'RCPT', says: '552 too many recipients', is: 'later 452 too many recipients' },
  { at: 'RCPT', says: '552 5.2.2 mailbox full', is: 'never 552 5.2.2' },
  { at: 'RCPT', says: '251 will forward', is: 'delivered 250 2.0.0' },
  { at: '.', says: '550 4.7.1 class does not fit', is: 'never 550 ' },
]

for (const { at, says, is } of REPLIES) {
  test(`${JSON.stringify(says)} to ${at} is ${JSON.stringify(is)}`, async () => {
    const hop = stage.scripted((line) => (line.startsWith(at) ? `${says}\r\n` : undefined))
    const [outcome] = await stage.deliverTo(hop, mail())
    expect(brief(outcome)).toBe(is)
  })
}

test('a reply is kept as one clean line', async () => {
  const hop = stage.scripted((line) =>
    line === '.'
      ? `550-5.7.1 no\u0007w\u00e4y\r\n550 5.7.1 \u001b[31m${'x'.repeat(900)}\r\n`
      : undefined,
  )
  const [outcome] = await stage.deliverTo(hop, mail())
  const text = outcome?.kind === 'never' ? outcome.reply.text : ''
  expect(text).toMatch(/^no w +y +\[31mx+$/)
  expect(text.length).toBe(480)
})

test('LMTP says LHLO and gives each taken recipient the reply of its own', async () => {
  const hop = stage.scripted(
    (line) => {
      if (line.includes('two@')) return '550 5.1.1 no such user\r\n'
      return line === '.' ? '250 2.0.0 stored\r\n452 4.2.2 over quota\r\n' : undefined
    },
    { protocol: 'lmtp' },
  )
  const outcomes = await stage.deliverTo(hop, mail({ to: THREE }))
  expect(hop.lines[0]).toBe('LHLO gate.example')
  expect(outcomes.map(brief)).toEqual([
    'delivered 250 2.0.0',
    'never 550 5.1.1',
    'later 452 4.2.2 over quota',
  ])
})

test('an LMTP hop that dies between its replies leaves only the unanswered in doubt', async () => {
  const hop = stage.scripted(
    (line, session) => {
      if (line !== '.') return undefined
      session.say('250 2.0.0 stored\r\n')
      return 'close'
    },
    { protocol: 'lmtp' },
  )
  const outcomes = await stage.deliverTo(hop, mail({ to: THREE }))
  expect(outcomes.map(brief)).toEqual([
    'delivered 250 2.0.0',
    'later in doubt the next hop closed the connection',
    'later in doubt the next hop closed the connection',
  ])
})

test('a message above the SIZE of the hop is refused without being sent', async () => {
  const size = PREPEND.length + TEXT.length
  for (const [limit, kind] of [
    [size - 1, 'never 552 5.3.4'],
    [size, 'delivered 250 2.0.0'],
  ]) {
    const hop = stage.hop({ offers: [`SIZE ${limit}`] })
    expect(brief((await stage.deliverTo(hop, mail()))[0])).toBe(String(kind))
    expect(hop.arrivals.length).toBe(kind === 'never 552 5.3.4' ? 0 : 1)
  }
})

test('8BITMIME is declared where it is offered', async () => {
  const hop = stage.hop()
  await stage.deliverTo(hop, mail({ eightBit: true }))
  expect(hop.arrivals[0]?.mail).toContain(' BODY=8BITMIME')
})

const EIGHT_BIT = [
  { name: '8-bit bytes do not go to a 7-bit hop', text: 'caf\u00e9', is: 'never 554 5.6.3' },
  {
    name: 'declared 8-bit but really 7-bit goes to a 7-bit hop',
    text: 'cafe',
    is: 'delivered 250 2.0.0',
  },
]
for (const { name, text, is } of EIGHT_BIT) {
  test(name, async () => {
    const hop = stage.hop({ offers: ['PIPELINING'] })
    const large = Buffer.from(`${largeText()}${text}\r\n`)
    for (const body of [memory(`Subject: x\r\n\r\n${text}\r\n`), stage.extents(large)]) {
      const outcomes = await stage.deliverTo(hop, mail({ eightBit: true, body }))
      expect(outcomes.map(brief)).toEqual([is])
    }
    expect(hop.lines.join()).not.toContain('BODY')
  })
}

const UTF8: {
  name: string
  changes: Partial<Delivery> & { to?: string[] }
  offered: boolean
  is: string
}[] = [
  {
    name: 'an internationalized recipient needs SMTPUTF8',
    changes: { to: ['z\u00fc@x.example'], smtpUtf8: true },
    offered: false,
    is: 'never 553 5.6.7',
  },
  {
    name: 'an internationalized sender needs SMTPUTF8',
    changes: { sender: 'z\u00fc@x.example', smtpUtf8: true },
    offered: false,
    is: 'never 553 5.6.7',
  },
  {
    name: 'an internationalized header needs SMTPUTF8',
    changes: { body: memory('Subject: \u00fc\r\n\r\nx\r\n'), smtpUtf8: true },
    offered: false,
    is: 'never 553 5.6.7',
  },
  {
    name: 'an ASCII message does not need the SMTPUTF8 that its client declared',
    changes: { body: memory('Subject: x\r\n\r\n\u00fc\r\n'), smtpUtf8: true },
    offered: false,
    is: 'delivered 250 2.0.0',
  },
  {
    name: 'SMTPUTF8 is declared where it is offered',
    changes: { to: ['z\u00fc@x.example'], smtpUtf8: true },
    offered: true,
    is: 'delivered 250 2.0.0',
  },
]
for (const { name, changes, offered, is } of UTF8) {
  test(name, async () => {
    const hop = stage.hop({ offers: offered ? ['SMTPUTF8', '8BITMIME'] : ['8BITMIME'] })
    expect(brief((await stage.deliverTo(hop, mail(changes)))[0])).toBe(is)
    expect(hop.arrivals.map(({ mail: line }) => line.endsWith(' SMTPUTF8'))).toEqual(
      is.startsWith('never') ? [] : [offered],
    )
    if (offered) expect(hop.arrivals[0]?.recipients).toEqual(['RCPT TO:<z\u00fc@x.example>'])
  })
}

const DSN: Partial<Delivery> = {
  ret: 'HDRS',
  envid: 'QQ+2B1',
  recipients: [
    { address: 'a@x.example', notify: 'SUCCESS,FAILURE', orcpt: 'rfc822;a+2Bb@x.example' },
    { address: 'b@x.example', notify: 'NEVER', orcpt: null },
  ],
}

test('DSN parameters are passed on where DSN is offered, and the outcome says so', async () => {
  const hop = stage.hop({ offers: ['DSN'] })
  const outcomes = await stage.deliverTo(hop, mail(DSN))
  expect(hop.arrivals[0]?.mail).toBe('MAIL FROM:<from@here.example> RET=HDRS ENVID=QQ+2B1')
  expect(hop.arrivals[0]?.recipients).toEqual([
    'RCPT TO:<a@x.example> NOTIFY=SUCCESS,FAILURE ORCPT=rfc822;a+2Bb@x.example',
    'RCPT TO:<b@x.example> NOTIFY=NEVER',
  ])
  expect(outcomes[0]).toMatchObject({ kind: 'delivered', dsnPassedOn: true })
})

test('DSN parameters stay here where DSN is not offered, and the outcome says so', async () => {
  const hop = stage.hop({ offers: [] })
  const outcomes = await stage.deliverTo(hop, mail(DSN))
  expect(hop.arrivals[0]?.mail).toBe('MAIL FROM:<from@here.example>')
  expect(hop.arrivals[0]?.recipients[0]).toBe('RCPT TO:<a@x.example>')
  expect(outcomes[0]).toMatchObject({ kind: 'delivered', dsnPassedOn: false })
})

test('no address or parameter can smuggle a command', async () => {
  const hop = stage.hop()
  const evil = 'a@x.example>\r\nRCPT TO:<victim@x.example'
  const orcpt = 'rfc822;a\r\nRCPT TO:<victim@x.example>'
  const recipients = [
    { address: evil, notify: null, orcpt: null },
    { address: 'b@x.example', notify: 'NEVER\r\nRSET', orcpt },
  ]
  const outcomes = await stage.deliverTo(hop, mail({ recipients, envid: 'x\r\nRSET' }))
  expect(outcomes.map(brief)).toEqual(['never 553 5.1.3', 'delivered 250 2.0.0'])
  const [bad] = await stage.deliverTo(hop, mail({ sender: evil }))
  expect(brief(bad)).toBe('never 553 5.1.7')
  expect(hop.lines.join('\n')).not.toContain('victim')
  expect(hop.lines).not.toContain('RSET')
})

test('more recipients than every server takes go out in several transactions', async () => {
  const to = Array.from({ length: 250 }, (_, at) => `u${at}@x.example`)
  let marks = 0
  const hop = stage.scripted((line) => (line.includes('<u150@') ? '550 5.1.1 no\r\n' : undefined))
  const beforeDot = async (): Promise<void> => {
    marks += 1
  }
  const spared: (readonly number[])[] = []
  const outcomes = await stage.deliverTo(
    hop,
    mail({ to, beforeDot, spared: async (places) => void spared.push(places) }),
  )
  expect(spared).toEqual([[150]])
  expect(hop.arrivals.map(({ recipients }) => recipients.length)).toEqual([100, 99, 50])
  expect(outcomes.map(({ kind }) => kind)).toEqual(
    to.map((_, at) => (at === 150 ? 'never' : 'delivered')),
  )
  expect(marks).toBe(1)
})

/** Short links followed by the main process: to the public network only, in bounds, whatever answers. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { createServer, connect as netConnect, type Server, type Socket } from 'node:net'
import type { DnsAnswer, DnsQuestion, Names } from '../src/base/names.ts'
import { Expander, isPublicAddress } from '../src/mail/inspect/expand.ts'
import { links } from '../src/mail/inspect/links.ts'
import { Known, PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { askedLink, questionOf } from '../src/mail/inspect/short.ts'
import { Mail } from '../src/message/mime.ts'
import { ManualClock } from './clock.ts'
import { SESSION } from './look.ts'

/** A shortener: path to its whole answer; what is not here hangs. */
const ANSWERS: Readonly<Record<string, string>> = {
  '/one': 'HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: https://long.example/page\r\n\r\n',
  '/get': 'HTTP/1.1 405 No\r\n\r\n',
  '/two': 'HTTP/1.1 302 Found\r\nlocation: http://short.example/one\r\n\r\n',
  '/loop': 'HTTP/1.1 302 Found\r\nLocation: /loop\r\n\r\n',
  '/inside': 'HTTP/1.1 302 Found\r\nLocation: http://inside.example/admin\r\n\r\n',
  '/address': 'HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest/meta-data\r\n\r\n',
  '/file': 'HTTP/1.1 302 Found\r\nLocation: file:///etc/passwd\r\n\r\n',
  '/page': 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello',
  '/gone': 'HTTP/1.1 404 Not found\r\n\r\n',
  '/broken': 'HTTP/1.1 500 Oh\r\n\r\n',
  '/smtp': '220 mx.example ESMTP\r\n\r\n',
  '/long': `HTTP/1.1 301 Moved\r\nX: ${'x'.repeat(40_000)}\r\nLocation: https://a.example/\r\n\r\n`,
}

let server: Server
let port = 0
const asked: string[] = []
const open = new Set<Socket>()

beforeAll(async () => {
  server = createServer((socket) => {
    open.add(socket)
    socket.on('error', () => {})
    socket.on('close', () => open.delete(socket))
    socket.on('data', (data) => {
      const [method = '', path = ''] = data.toString('latin1').split(' ')
      asked.push(`${method} ${path}`)
      if (path === '/get' && method === 'GET') socket.write(ANSWERS['/one'] ?? '')
      else if (ANSWERS[path] !== undefined) socket.write(ANSWERS[path])
    })
  })
  await new Promise<void>((ready) => server.listen(0, '127.0.0.1', ready))
  port = (server.address() as { port: number }).port
})

afterAll(() => {
  for (const socket of open) socket.destroy()
  server.close()
})

const ADDRESSES: Readonly<Record<string, readonly string[]>> = {
  'short.example': ['8.8.8.8'],
  'inside.example': ['10.0.0.1'],
  'half.example': ['8.8.8.8', '127.0.0.1'],
  'mapped.example': ['::ffff:192.168.0.1'],
}

function world(hosts = Object.keys(ADDRESSES), isOn = true) {
  const dialled: string[] = []
  const queries: DnsQuestion[] = []
  const clock = new ManualClock()
  const names: Names = {
    query: async (question): Promise<DnsAnswer> => {
      queries.push(question)
      const family = question.type === 'AAAA' ? ':' : '.'
      const records = (ADDRESSES[question.name] ?? []).filter(
        (address) => address.includes(':') === (family === ':'),
      )
      return records.length === 0 ? { status: 'absent' } : { status: 'found', records }
    },
  }
  const expander = new Expander({
    names,
    clock,
    hosts: new Set(hosts),
    isOn: () => isOn,
    connect: (address, to, serverName) => {
      dialled.push(`${address} ${to} ${serverName}`)
      return netConnect({ host: '127.0.0.1', port })
    },
  })
  return { expander, clock, dialled, queries }
}

describe('a link is followed', () => {
  const found: readonly [string, string | null][] = [
    ['http://short.example/one', 'https://long.example/page'],
    ['http://short.example/get', 'https://long.example/page'],
    ['http://short.example/two', 'https://long.example/page'],
    ['http://short.example/inside', 'http://inside.example/admin'],
    ['http://short.example/address', 'http://169.254.169.254/latest/meta-data'],
    ['http://short.example/page', null],
    ['http://short.example/gone', null],
    ['http://short.example/file', null],
    ['http://elsewhere.example/', null],
  ]
  for (const [url, target] of found) {
    test(`${url} to ${target}`, async () => {
      const { expander } = world(['short.example'])
      expect(await expander.expand(url)).toEqual(
        target === null ? { status: 'absent' } : { status: 'found', records: [target] },
      )
    })
  }

  test('to the address that was checked, by the name that was asked for', async () => {
    const { expander, dialled, queries } = world()
    await expander.expand('http://short.example/one')
    expect(dialled).toEqual(['8.8.8.8 80 null'])
    expect(queries.map(({ name }) => name)).toEqual(['short.example', 'short.example'])
  })

  test('at most two hops, and once an hour', async () => {
    const { expander, dialled, clock } = world()
    await expander.expand('http://short.example/loop')
    expect(dialled).toHaveLength(2)
    await expander.expand('http://short.example/loop')
    expect(dialled).toHaveLength(2)
    clock.advance(3_600_001)
    await expander.expand('http://short.example/loop')
    expect(dialled).toHaveLength(4)
  })
})

describe('nobody knows, and nothing is connected to', () => {
  for (const [url, why] of [
    ['http://inside.example/', 'not public'],
    ['http://half.example/', 'not public'],
    ['http://mapped.example/', 'not public'],
    ['http://absent.example/', 'has no address'],
    ['http://short.example:25/', 'no port'],
    ['http://a:b@short.example/', 'no port'],
  ] as const) {
    test(url, async () => {
      const { expander, dialled } = world([...Object.keys(ADDRESSES), 'absent.example'])
      expect(await expander.expand(url)).toMatchObject({
        status: 'failed',
        cause: expect.stringContaining(why),
      })
      expect(dialled).toEqual([])
    })
  }

  test('a redirect into the private network is not gone after, even to a host of the list', async () => {
    const { expander, dialled } = world()
    expect(await expander.expand('http://short.example/inside')).toMatchObject({ status: 'failed' })
    expect(dialled).toEqual(['8.8.8.8 80 null'])
  })

  test('who answers in other words, with an error, or without end', async () => {
    const { expander } = world()
    for (const path of ['smtp', 'broken', 'long']) {
      expect((await expander.expand(`http://short.example/${path}`)).status).toBe('failed')
    }
  })

  test('who never answers is given up after four seconds, and its connection ends', async () => {
    const { expander, clock } = world()
    const answer = expander.expand('http://short.example/hangs')
    while (!asked.includes('HEAD /hangs')) await new Promise((next) => setImmediate(next))
    clock.advance(4_000)
    expect(await answer).toEqual({ status: 'failed', cause: 'the shortener did not answer' })
  })
})

test('addresses that are not public', () => {
  const closed =
    '0.0.0.0 10.1.2.3 100.64.0.1 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.2.1 192.168.1.1 198.18.0.1 203.0.113.1 224.0.0.1 255.255.255.255 :: ::1 ::ffff:127.0.0.1 ::ffff:7f00:1 ::127.0.0.1 64:ff9b::a00:1 fc00::1 fd00:ec2::254 fe80::1 ff02::1 2001:db8::1 2001::1 2002:7f00:1::1 3fff::1 localhost 2130706433'
  for (const address of closed.split(' '))
    expect([address, isPublicAddress(address)]).toEqual([address, false])
  for (const address of ['8.8.8.8', '172.32.0.1', '2606:4700::1111', '2a00:1450:4001::1']) {
    expect([address, isPublicAddress(address)]).toEqual([address, true])
  }
})

describe('the question of an inspector', () => {
  test('carries the link through a name and back', () => {
    const url = 'https://bit.ly/3AbCdEf?x=Y'
    const question = questionOf(url)
    expect(question).not.toBeNull()
    if (question === null) return
    expect(question.name).toMatch(/^[a-z0-9.-]{1,253}$/)
    expect(Math.max(...question.name.split('.').map(({ length }) => length))).toBeLessThan(64)
    expect(askedLink({ ...question, name: question.name.toUpperCase().toLowerCase() })).toBe(url)
    expect(askedLink({ name: 'mail.example', type: 'TXT' })).toBeNull()
    expect(questionOf(`https://bit.ly/${'x'.repeat(200)}`)).toBeNull()
  })

  test('is answered here; all others go to the name servers', async () => {
    const { expander, queries } = world()
    const question = questionOf('http://short.example/one')
    if (question === null) throw new Error('no question')
    expect(await expander.query(question)).toMatchObject({ records: ['https://long.example/page'] })
    const off = world(Object.keys(ADDRESSES), false)
    expect((await off.expander.query(question)).status).toBe('failed')
    expect(off.dialled).toEqual([])
    queries.length = 0
    await expander.query({ name: 'short.example', type: 'A' })
    expect(queries).toEqual([{ name: 'short.example', type: 'A' }])
  })

  test('where it leads is judged and noted; what nobody knows is told; off by default', () => {
    const mail = new Mail(Buffer.from('Subject: x\r\n\r\nhttp://bit.ly/a http://bit.ly/b\r\n'))
    const noted: string[] = []
    const look = (expandLinks: 'on' | 'off', names: Known) => ({
      mail,
      session: SESSION,
      config: {
        ...PLAIN_CONFIG,
        settings: { ...PLAIN_CONFIG.settings, 'content.expandLinks': expandLinks },
      },
      names,
      model: null,
      note: ({ urls = [] }: { urls?: readonly string[] }) => noted.push(...urls),
      change: () => {},
    })
    const silent = new Known({})
    links.inspect(look('off', silent))
    expect(silent.questions).toEqual([])
    const asking = new Known({})
    links.inspect(look('on', asking))
    expect(asking.questions.map(askedLink)).toEqual(['http://bit.ly/a', 'http://bit.ly/b'])
    const [a, b] = asking.questions
    const known = new Known({
      [`TXT ${a?.name}`]: { status: 'found', records: ['http://paypa1.com/x'] },
      [`TXT ${b?.name}`]: { status: 'failed', cause: 'the shortener hung up' },
    })
    const found = links.inspect(look('on', known))
    expect(found).toMatchObject([
      { rule: 'URL_SHORTENER' },
      { rule: 'URL_LOOKALIKE', score: 4 },
      {
        rule: 'URL_SHORT_UNKNOWN',
        score: 0,
        evidence: 'Nobody knows where the short link http://bit.ly/b leads: the shortener hung up.',
      },
    ])
    expect(noted).toContain('http://paypa1.com/x')
  })
})

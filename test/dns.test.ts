/** The system resolver against a name server of the test's own. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { createSocket, type Socket } from 'node:dgram'
import { SystemClock } from '../src/base/clock.ts'
import { NameServerError, NoSuchNameError, SystemResolver } from '../src/base/dns.ts'
import type { NameServer } from '../src/base/dns-wire.ts'
import { ManualClock } from './hop.ts'

const A = 1
const MX = 15
const AAAA = 28

let server: Socket
let questions = 0
const servers: NameServer[] = []

/** Answers by the first label: `nx`, `fail`, `refused`, `silent`, else records by type. */
function answer(question: Buffer): Buffer | null {
  const labels: string[] = []
  let at = 12
  for (let length = question[at] ?? 0; length > 0; length = question[at] ?? 0) {
    labels.push(question.toString('latin1', at + 1, at + 1 + length))
    at += length + 1
  }
  const type = question.readUInt16BE(at + 1)
  const [kind = ''] = labels
  if (kind === 'silent') return null
  const code = { nx: 3, fail: 2, refused: 5 }[kind] ?? (kind === 'half' && type === AAAA ? 2 : 0)
  const records: Buffer[] = []
  const add = (data: Buffer): void => {
    const head = Buffer.alloc(12)
    head.writeUInt16BE(0xc00c, 0)
    head.writeUInt16BE(type, 2)
    head.writeUInt16BE(1, 4)
    head.writeUInt32BE(60, 6)
    head.writeUInt16BE(data.length, 10)
    records.push(head, data)
  }
  if (code === 0 && type === A && kind !== 'empty' && kind !== 'six')
    add(Buffer.from([192, 0, 2, 1]))
  if (code === 0 && type === AAAA && (kind === 'both' || kind === 'six')) {
    add(Buffer.from('20010db8000000000000000000000001', 'hex'))
  }
  if (code === 0 && type === MX && kind === 'null') add(Buffer.from([0, 0, 0]))
  if (code === 0 && type === MX && kind === 'both') {
    add(Buffer.from([0, 20, 3, ...Buffer.from('mx2'), 0xc0, 0x0c]))
    add(Buffer.from([0, 10, 3, ...Buffer.from('mx1'), 0xc0, 0x0c]))
  }
  const header = Buffer.alloc(12)
  question.copy(header, 0, 0, 2)
  header.writeUInt16BE(0x8180 | code, 2)
  header.writeUInt16BE(1, 4)
  header.writeUInt16BE(records.length / 2, 6)
  return Buffer.concat([header, question.subarray(12, at + 5), ...records])
}

beforeAll(async () => {
  server = createSocket('udp4')
  server.on('message', (question, { address, port }) => {
    questions += 1
    const bytes = answer(question)
    if (bytes !== null) server.send(bytes, port, address)
  })
  await new Promise<void>((resolve) => server.bind(0, '127.0.0.1', resolve))
  servers.push({ host: '127.0.0.1', port: server.address().port })
})
afterAll(() => server.close())

const resolver = (): SystemResolver => new SystemResolver(new SystemClock(), () => servers)

test('IPv4 addresses come before IPv6 ones', async () => {
  expect(await resolver().addresses('both.example')).toEqual(['192.0.2.1', '2001:db8::1'])
  expect(await resolver().addresses('six.example')).toEqual(['2001:db8::1'])
})

test('one kind of address is enough when the other has no answer', async () => {
  expect(await resolver().addresses('half.example')).toEqual(['192.0.2.1'])
})

test('an address is its own address and nobody is asked', async () => {
  const before = questions
  expect(await resolver().addresses('192.0.2.77')).toEqual(['192.0.2.77'])
  expect(await resolver().addresses('2001:db8::77')).toEqual(['2001:db8::77'])
  expect(questions).toBe(before)
})

test('MX records come with their preferences, a null MX with no host', async () => {
  expect(await resolver().mx('both.example')).toContainEqual({
    preference: 10,
    host: 'mx1.both.example',
  })
  expect((await resolver().mx('both.example')).length).toBe(2)
  expect(await resolver().mx('null.example')).toEqual([{ preference: 0, host: '' }])
})

for (const name of ['nx.example', 'empty.example']) {
  test(`${name} is an answer: there is none`, async () => {
    await expect(resolver().addresses(name)).rejects.toBeInstanceOf(NoSuchNameError)
    await expect(resolver().mx(name)).rejects.toBeInstanceOf(NoSuchNameError)
  })
}

for (const name of ['fail.example', 'refused.example']) {
  test(`${name} is no answer, and worth another try`, async () => {
    for (const asked of [resolver().addresses(name), resolver().mx(name)]) {
      const error = await asked.catch((cause) => cause)
      expect(error).toBeInstanceOf(NameServerError)
      expect(error.remedy).toBe('retry')
    }
  })
}

test('a name server that never answers is given up after 15 s by our clock', async () => {
  const clock = new ManualClock()
  const asked = new SystemResolver(clock, () => servers).mx('silent.example')
  clock.advance(15_000)
  const error = await asked.catch((cause) => cause)
  expect(error).toBeInstanceOf(NameServerError)
  expect(error.message).toContain('in time')
})

test('other servers are asked from the next question on', async () => {
  let asked: readonly NameServer[] = []
  const live = new SystemResolver(new SystemClock(), () => asked)
  expect(await live.addresses('localhost')).toContain('127.0.0.1')
  asked = servers
  expect(await live.addresses('both.example')).toEqual(['192.0.2.1', '2001:db8::1'])
})

test('the hosts file counts when the servers are those of the system', async () => {
  expect(await new SystemResolver(new SystemClock()).addresses('localhost')).toContain('127.0.0.1')
})

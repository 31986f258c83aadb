/** Mail that leaves a real node is signed once the DNS has the record of its key, and another library finds it good. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { arc } from 'mailauth/lib/arc/index.js'
import { dkimVerify } from 'mailauth/lib/dkim/verify.js'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { TestNameServer, zoneOf } from '../name-server.ts'
import { Postern } from './postern.ts'
import { type Arrival, Sink } from './sink.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()

type KeyRow = {
  readonly selector: string
  readonly state: string
  readonly recordName: string
  readonly record: string
}

function mail(from: string, body = 'Hello.\r\n'): Buffer {
  const head = [
    `From: ${from}`,
    'To: b@other.example',
    'Subject: Minutes of  Monday',
    'Date: Sun, 22 Nov 2026 10:00:00 +0000',
    'Message-ID: <1@ours.example>',
  ]
  return Buffer.from([...head, '', body].join('\r\n'))
}

/** Lines that begin with a dot and end in blanks, 8-bit octets and empty lines, some 300 KB. */
const LARGE = `${Array.from({ length: 6_000 }, (_, at) => `..${at} \t some  text of a line, Grüße ${'x'.repeat(at % 40)} `).join('\r\n')}\r\n\r\n\r\n`

describe('mail that leaves a node', () => {
  const sink = new Sink({ keep: true })
  const records: Record<string, string[][]> = {}
  let names: TestNameServer
  let node: Postern
  beforeAll(async () => {
    names = await TestNameServer.start((type, name, by) => zoneOf(records)(type, name, by))
    node = await Postern.start()
    await node.set('dns.servers', `127.0.0.1:${names.at.port}`)
    await node.set('relay.networks', '127.0.0.0/8')
    await node.addDomain('ours.example', sink.nextHop)
    await node.addDomain('other.example', sink.nextHop)
  }, 60_000)
  afterAll(async () => {
    await node?.dispose()
    names?.stop()
    sink.stop()
  })

  /** What the sink got of one mail. */
  const through = async (raw: Buffer, to = 'b@other.example'): Promise<Arrival> => {
    const wire = await Wire.connect({ port: node.smtpPort })
    await wire.reply()
    for (const line of [
      'EHLO client.test',
      'MAIL FROM:<a@ours.example>',
      `RCPT TO:<${to}>`,
      'DATA',
    ]) {
      wire.send(`${line}\r\n`)
      expect((await wire.reply()).code).toBeLessThan(400)
    }
    const stuffed = raw.toString('latin1').replace(/(^|\r\n)\./g, '$1..')
    wire.send(`${stuffed}.\r\n`)
    expect((await wire.reply(30_000)).lines.join(' ')).toStartWith('250')
    wire.send('QUIT\r\n')
    await wire.rest(1_000)
    await sink.until(() => sink.arrivals.length > 0, 10_000)
    const [arrival] = sink.arrivals.splice(0)
    if (arrival === undefined) throw new Error('nothing came')
    return arrival
  }
  const resolver = async (name: string, type: string): Promise<string[][]> => {
    const found = records[`${type} ${name}`]
    if (found !== undefined) return found
    throw Object.assign(new Error(name), { code: 'ENOTFOUND' })
  }
  /** `SELECTOR result` of each signature, as mailauth sees it. */
  const verified = async (raw: Buffer): Promise<readonly string[]> => {
    const { results } = await dkimVerify(raw, { resolver })
    return results.map(({ status, selector }) => `${selector ?? ''} ${status.result}`.trim()).sort()
  }
  const publish = ({ recordName, record }: KeyRow): void => {
    records[`TXT ${recordName}`] = [record.match(/.{1,200}/g) ?? []]
  }
  const dkim = (...words: string[]): Promise<KeyRow> => node.json<KeyRow>('dkim', ...words)

  test('is unsigned while there is no key, and while the DNS has not its record', async () => {
    const raw = mail('a@ours.example')
    expect((await through(raw)).head).not.toContain('DKIM-Signature')
    const key = await dkim('add', 'ours.example', 's1')
    expect(key).toMatchObject({ selector: 's1', state: 'waiting' })
    const refused = await node.command('dkim', 'check', 'ours.example', 's1')
    expect([refused.code, refused.err]).toEqual([
      1,
      expect.stringContaining('s1._domainkey.ours.example has no TXT record yet'),
    ])
    expect((await through(raw)).head).not.toContain('DKIM-Signature')
    publish(key)
  })

  test('is signed by each key that was checked, whatever inspectors there are', async () => {
    expect((await dkim('check', 'ours.example', 's1')).state).toBe('active')
    const raw = mail('a@ours.example')
    const one = (await through(raw)).body ?? Buffer.of()
    expect(one.subarray(-raw.length).equals(raw)).toBeTrue()
    expect(await verified(one)).toEqual(['s1 pass'])

    publish(await dkim('add', 'ours.example', 's2', '--algorithm', 'ed25519'))
    await dkim('check', 'ours.example', 's2')
    expect(await verified((await through(raw)).body ?? Buffer.of())).toEqual(['s1 pass', 's2 pass'])

    const usual = await node.json<{ value: unknown }>('config', 'get', 'inspect.inspectors')
    await node.set('inspect.inspectors', '')
    expect(await verified((await through(raw)).body ?? Buffer.of())).toEqual(['s1 pass', 's2 pass'])
    await node.set('inspect.inspectors', [usual.value].flat().join(','))
  })

  test('of some 300 KB, with dots, blanks and 8-bit octets, is signed too', async () => {
    const raw = mail('a@ours.example', LARGE)
    const { body } = await through(raw)
    expect(body?.subarray(-raw.length).equals(raw)).toBeTrue()
    expect(await verified(body ?? Buffer.of())).toEqual(['s1 pass', 's2 pass'])
  })

  test('of an author that is not of ours is not signed', async () => {
    expect((await through(mail('a@stranger.example'))).head).not.toContain('DKIM-Signature')
  })

  test('and was held before is signed too', async () => {
    const gtube = 'XJS*C4JDBQADN1.NSBN3*2IDNEN*GTUBE-STANDARD-ANTI-UBE-TEST-EMAIL*C.34X'
    const raw = mail('a@ours.example', `${gtube}\r\n`)
    const arrival = through(raw)
    const held = async (): Promise<string | undefined> =>
      (await node.json<{ readonly id: string }[]>('quarantine', 'list'))[0]?.id
    let id = await held()
    for (let tries = 0; id === undefined && tries < 100; tries += 1) {
      await pause(clock, 50)
      id = await held()
    }
    expect((await node.command('quarantine', 'release', id ?? '')).code).toBe(0)
    const { body } = await arrival
    expect(await verified(body ?? Buffer.of())).toEqual(['s1 pass', 's2 pass'])
  }, 40_000)

  test('that only passes is sealed when that is set, small and large', async () => {
    await node.set('relay.networks', '')
    const small = mail('a@stranger.example')
    expect((await through(small, 'b@ours.example')).head).not.toContain('ARC-')
    await node.set('sender.seal', 'on')
    for (const raw of [small, mail('a@stranger.example', LARGE)]) {
      const { body } = await through(raw, 'b@ours.example')
      expect(body?.subarray(-raw.length).equals(raw)).toBeTrue()
      const { arc: chain } = await dkimVerify(body ?? Buffer.of(), { resolver })
      expect((await arc(chain as never, { resolver })).status.result).toBe('pass')
      expect(await verified(body ?? Buffer.of())).toEqual(['none'])
    }
    await node.set('sender.seal', 'off')
    await node.set('relay.networks', '127.0.0.0/8')
  })

  test('is signed on when the record of a key is gone, which alerts and the list of keys say until it is back', async () => {
    const about = async () => {
      const { rows } = await node.api<{ rows: { kind: string; advice: string }[] }>(
        '/api/v1/alerts',
      )
      return rows.filter(({ kind }) => kind === 'signing')
    }
    expect(await about()).toEqual([])
    const name = 'TXT s2._domainkey.ours.example'
    const before = records[name] ?? []
    delete records[name]
    expect((await node.command('dkim', 'check', 'ours.example', 's2')).code).toBe(1)
    expect(await about()).toEqual([
      expect.objectContaining({ advice: expect.stringContaining(before.flat().join('')) }),
    ])
    expect((await node.command('dkim', 'list', 'ours.example')).out).toContain(
      's2._domainkey.ours.example has no TXT record.',
    )
    expect((await through(mail('a@ours.example'))).head.match(/DKIM-Signature/g)).toHaveLength(2)
    // The other one is not to go meanwhile.
    expect((await node.command('dkim', 'retire', 'ours.example', 's1')).code).toBe(1)
    records[name] = before
    await dkim('check', 'ours.example', 's2')
    expect(await about()).toEqual([])
  })

  test('is signed after a restart, and no more by a key that was retired', async () => {
    await node.stop()
    await node.begin()
    const raw = mail('a@ours.example')
    expect(await verified((await through(raw)).body ?? Buffer.of())).toEqual(['s1 pass', 's2 pass'])
    expect((await dkim('retire', 'ours.example', 's1')).state).toBe('retired')
    expect(await verified((await through(raw)).body ?? Buffer.of())).toEqual(['s2 pass'])
  }, 40_000)

  test('is not signed any more when its domain is removed', async () => {
    expect((await node.command('domain', 'remove', 'ours.example')).code).toBe(0)
    expect((await through(mail('a@ours.example'))).head).not.toContain('DKIM-Signature')
    expect((await node.command('dkim', 'list', 'ours.example')).out).toContain('is not signed')
    const again = await node.command('dkim', 'add', 'ours.example', 's2')
    expect([again.code, again.err]).toEqual([1, expect.stringContaining('another selector')])
  })
})

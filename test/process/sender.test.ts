/** Who sent it, by a real node: it asks real name servers, and says on what they said. */
import { Database } from 'bun:sqlite'
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { generateKeyPairSync } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { dkimSign } from 'mailauth/lib/dkim/sign.js'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { idFloor } from '../../src/store/conditions.ts'
import { TestNameServer, zoneOf } from '../name-server.ts'
import { freePort } from '../ports.ts'
import { needs } from '../real.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()
const KEY = generateKeyPairSync('rsa', {
  modulusLength: 2048,
  privateKeyEncoding: { type: 'pkcs8', format: 'pem' },
  publicKeyEncoding: { type: 'spki', format: 'der' },
})
const PUBLIC = `v=DKIM1; k=rsa; p=${KEY.publicKey.toString('base64')}`
const FORGED = 'Authentication-Results: example.com; dmarc=pass header.from=bank.example\r\n'

type Sent = {
  readonly from: string
  /** Envelope sender. */
  readonly sender?: string
  readonly to?: string
  readonly more?: string
  readonly sign?: boolean
}

function text({ from, more = '' }: Sent): Buffer {
  return Buffer.from(
    `${more}From: ${from}\r\nTo: b@example.com\r\nSubject: Hello\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <${from}>\r\n\r\nHello.\r\n`,
  )
}

async function signed(raw: Buffer, domain: string): Promise<Buffer> {
  const { signatures } = await dkimSign(raw, {
    canonicalization: 'relaxed/relaxed',
    signatureData: [
      {
        signingDomain: domain,
        selector: 's1',
        privateKey: KEY.privateKey,
        algorithm: 'rsa-sha256',
      },
    ],
  } as Parameters<typeof dkimSign>[1])
  return Buffer.concat([Buffer.from(signatures), raw])
}

/** Sends one mail and gives the reply to its dot. */
async function send(node: Postern, sent: Sent, raw: Buffer): Promise<string> {
  const wire = await Wire.connect({ port: node.smtpPort })
  await wire.reply()
  for (const line of [
    'EHLO client.test',
    `MAIL FROM:<${sent.sender ?? 'x@stranger.test'}>`,
    `RCPT TO:<${sent.to ?? 'b@example.com'}>`,
    'DATA',
  ]) {
    wire.send(`${line}\r\n`)
    const { code, lines } = await wire.reply()
    if (code >= 400) return lines.join(' ')
  }
  wire.send(Buffer.concat([raw, Buffer.from('.\r\n')]))
  const { lines } = await wire.reply(30_000)
  wire.send('QUIT\r\n')
  await wire.rest(1_000)
  return lines.join(' ')
}

describe('a node and a name server', () => {
  const sink = new Sink({ keep: true })
  let names: TestNameServer
  let node: Postern
  beforeAll(async () => {
    names = await TestNameServer.start(
      zoneOf({
        'TXT bank.test': [['v=spf1 -all']],
        'TXT _dmarc.bank.test': [['v=DMARC1; p=reject']],
        'TXT _dmarc.shop.test': [['v=DMARC1; p=quarantine']],
        'TXT s1._domainkey.bank.test': [[PUBLIC.slice(0, 200), PUBLIC.slice(200)]],
      }),
    )
    node = await Postern.start()
    await node.set('dns.servers', `127.0.0.1:${names.at.port}`)
    await node.addDomain('example.com', sink.nextHop)
    await node.addDomain('mild.example', sink.nextHop)
    const { code } = await node.command('domain', 'add', 'mild.example', '--enforce', 'off')
    expect(code).toBe(0)
  }, 60_000)
  afterAll(async () => {
    await node?.dispose()
    names?.stop()
    sink.stop()
  })

  test('forged mail of a domain that asks for it is refused with 550', async () => {
    const sent = { from: 'a@bank.test' }
    expect(await send(node, sent, text(sent))).toStartWith('550 5.7.1')
  })

  test('for recipients whose domain only scores it, it is delivered and says so', async () => {
    const sent = { from: 'a@bank.test', to: 'b@mild.example' }
    expect(await send(node, sent, text(sent))).toStartWith('250')
    await sink.until(() => sink.arrivals.length === 1, 10_000)
    expect(sink.arrivals.pop()?.head).toContain('dmarc=fail header.from=bank.test')
  })

  test('what it signed is delivered, with our results and without forged ones', async () => {
    const raw = await signed(text({ from: 'a@bank.test' }), 'bank.test')
    const whole = Buffer.concat([Buffer.from(FORGED), raw])
    expect(await send(node, { from: 'a@bank.test' }, whole)).toStartWith('250')
    await sink.until(() => sink.arrivals.length === 1, 10_000)
    const arrival = sink.arrivals.pop()
    const body = arrival?.body ?? Buffer.of()
    expect(body.toString('latin1')).not.toContain('bank.example')
    // Every octet behind our own lines is what was signed.
    expect(body.subarray(-raw.length).equals(raw)).toBeTrue()
    const own = body.subarray(0, -raw.length).toString()
    expect(own).toStartWith('Received: ')
    expect(own).toContain('\r\nAuthentication-Results: example.com;\r\n\tspf=none')
    expect(own).toContain('\r\n\tdkim=pass header.d=bank.test header.s=s1')
    expect(own).toContain('\r\n\tdmarc=pass header.from=bank.test policy.dmarc=reject\r\n')
    expect(arrival?.senderParameters).toContain(`SIZE=${body.length}`)
  })

  test('what is held is released with our results and without forged ones', async () => {
    const sent = { from: 'a@shop.test', more: FORGED }
    expect(await send(node, sent, text(sent))).toStartWith('250')
    const held = async () =>
      (JSON.parse((await node.command('quarantine', 'list', '--json')).out) as { id: string }[])[0]
    let row = await held()
    for (let tries = 0; row === undefined && tries < 100; tries++) {
      await pause(clock, 50)
      row = await held()
    }
    expect((await node.command('quarantine', 'release', row?.id ?? '')).code).toBe(0)
    await sink.until(() => sink.arrivals.length === 1, 10_000)
    const body = sink.arrivals.pop()?.body?.toString('latin1') ?? ''
    expect(body).not.toContain('bank.example')
    expect(body).toContain('dmarc=fail header.from=shop.test policy.dmarc=quarantine')
    expect(body).toEndWith(text({ from: 'a@shop.test' }).toString('latin1'))
  })

  test('name servers that fail are 451, not 250 and not 550', async () => {
    const { zone } = names
    names.zone = () => ({ code: 2 })
    const sent = { from: 'a@other.test' }
    expect(await send(node, sent, text(sent))).toStartWith('451')
    names.zone = zone
  }, 30_000)
})

describe('a node that had mail for three weeks', () => {
  const sink = new Sink()
  let node: Postern
  beforeAll(async () => {
    node = await Postern.start()
    await node.addDomain('example.com', sink.nextHop)
  }, 60_000)
  afterAll(async () => {
    await node?.dispose()
    sink.stop()
  })

  const rulesOf = async (author: string): Promise<readonly string[]> => {
    const reply = await send(node, { from: author, sender: author }, text({ from: author }))
    const id = /^250 2\.0\.0 (\S+)/.exec(reply)?.[1] ?? ''
    const [row] = await node.json<{ rules: readonly string[] }[]>('trace', `id:${id}`)
    return (row?.rules ?? []).filter((rule) => rule.startsWith('FIRST_CONTACT'))
  }

  test('tells a first contact from a sender who is known, and a fresh one tells none', async () => {
    expect(await rulesOf('old@friend.test')).toEqual([])
    // Neither makes anybody known.
    const notice = { from: 'mailer-daemon@stranger.test', sender: '' }
    expect(await send(node, notice, text(notice))).toStartWith('250')
    await node.setAs('relay.networks', ['127.0.0.1'])
    expect(await rulesOf('inside@stranger.test')).toEqual([])
    await node.setAs('relay.networks', [])
    await node.stop()
    const history = new Database(join(node.data, 'trace.db'))
    const before = idFloor(clock.wallMs() - 21 * 86_400_000)
    const { changes } = history.run('UPDATE sighting SET id = ? || substr(id, 11)', [before])
    history.close()
    expect(changes).toBe(3)
    await node.begin()
    expect(await rulesOf('old@friend.test')).toEqual([])
    expect(await rulesOf('new@friend.test')).toEqual(['FIRST_CONTACT'])
    for (const _ of [1, 2]) {
      const rules = await rulesOf('new@stranger.test')
      expect(rules.toSorted()).toEqual(['FIRST_CONTACT', 'FIRST_CONTACT_DOMAIN'])
    }
  }, 60_000)
})

needs('knot', 'unbound')('a node and a validating resolver of signed zones', () => {
  const sink = new Sink({ keep: true })
  const directory = mkdtempSync(join(tmpdir(), 'postern-dns-'))
  const children: Bun.Subprocess[] = []
  let node: Postern

  const run = (...words: string[]): string => {
    const { stdout, exitCode } = Bun.spawnSync(words, { stdout: 'pipe', stderr: 'ignore' })
    return exitCode === 0 ? stdout.toString() : ''
  }
  const until = async (done: () => boolean): Promise<void> => {
    for (let tries = 0; !done(); tries++) {
      if (tries > 200) throw new Error('the name servers do not come up')
      await pause(clock, 100)
    }
  }

  beforeAll(async () => {
    const [authority, resolver] = [freePort(), freePort()]
    const strings = [PUBLIC.slice(0, 200), PUBLIC.slice(200)].map((part) => `"${part}"`).join(' ')
    const zone = [
      '@ 60 SOA ns hostmaster 1 3600 600 86400 5',
      '@ 60 NS ns',
      'ns 60 A 127.0.0.1',
      'bank 60 TXT "v=spf1 include:servers.bank -all"'.replace('servers.bank', 'servers.bank.test'),
      'servers.bank 60 TXT "v=spf1 ip4:127.0.0.1 -all"',
      '_dmarc.bank 60 TXT "v=DMARC1; p=reject; aspf=s; adkim=s"',
      `s1._domainkey.bank 60 TXT ${strings}`,
      '_dmarc.shop 60 TXT "v=DMARC1; p=reject"',
    ]
    writeFileSync(join(directory, 'test.zone'), `$ORIGIN test.\n${zone.join('\n')}\n`)
    mkdirSync(join(directory, 'db'))
    const knot = join(directory, 'knot.conf')
    writeFileSync(
      knot,
      `server:\n  rundir: ${directory}\n  listen: 127.0.0.1@${authority}\ndatabase:\n  storage: ${directory}/db\npolicy:\n  - id: p\n    algorithm: ecdsap256sha256\ntemplate:\n  - id: default\n    storage: ${directory}\n    file: "%s.zone"\n    zonefile-load: difference-no-serial\n    journal-content: all\n    zonefile-sync: -1\nzone:\n  - domain: test\n    dnssec-signing: on\n    dnssec-policy: p\n`,
    )
    children.push(
      Bun.spawn(['/usr/sbin/knotd', '-c', knot], { stdout: 'ignore', stderr: 'ignore' }),
    )
    let anchor = ''
    await until(() => {
      anchor =
        run('/usr/sbin/keymgr', '-c', knot, 'test', 'ds')
          .split('\n')
          .find((line) => / 13 2 /.test(line)) ?? ''
      return anchor !== ''
    })
    const [, , tag = '', algorithm = '', digest = '', hash = ''] = anchor.split(/\s+/)
    const unbound = join(directory, 'unbound.conf')
    writeFileSync(
      unbound,
      `server:\n  interface: 127.0.0.1@${resolver}\n  do-daemonize: no\n  chroot: ""\n  username: ""\n  directory: "${directory}"\n  pidfile: "${directory}/unbound.pid"\n  use-syslog: no\n  logfile: "${directory}/unbound.log"\n  do-not-query-localhost: no\n  local-zone: "test." nodefault\n  module-config: "validator iterator"\n  trust-anchor: "test. 60 IN DS ${tag} ${algorithm} ${digest} ${hash}"\nstub-zone:\n  name: "test."\n  stub-addr: 127.0.0.1@${authority}\nforward-zone:\n  name: "."\n  forward-addr: 127.0.0.1@9\n`,
    )
    children.push(
      Bun.spawn(['/usr/sbin/unbound', '-c', unbound], { stdout: 'ignore', stderr: 'ignore' }),
    )
    node = await Postern.start()
    // Its clients are on loopback, and one of them is a server of bank.test.
    await node.setAs('sender.relays', [])
    await node.set('dns.servers', `127.0.0.1:${resolver}`)
    await node.addDomain('example.com', sink.nextHop)
  }, 90_000)
  afterAll(async () => {
    await node?.dispose()
    sink.stop()
    for (const child of children) child.kill()
    await Promise.all(children.map((child) => child.exited))
    rmSync(directory, { recursive: true, force: true })
  })

  test('SPF by an include, and a signature, vouch for a mail', async () => {
    const sent = { from: 'a@bank.test', sender: 'a@bank.test' }
    // The zone is signed a moment after it is loaded: until then the resolver has no answer.
    let reply = ''
    for (let tries = 0; tries < 20 && !reply.startsWith('250'); tries++) {
      reply = await send(node, sent, await signed(text(sent), 'bank.test'))
      if (!reply.startsWith('250')) await pause(clock, 500)
    }
    expect(reply).toStartWith('250')
    await sink.until(() => sink.arrivals.length === 1, 10_000)
    const { head = '' } = sink.arrivals.pop() ?? {}
    expect(head).toContain('spf=pass smtp.mailfrom=bank.test')
    expect(head).toContain('dkim=pass header.d=bank.test')
    expect(head).toContain('dmarc=pass header.from=bank.test')
  }, 60_000)

  test('mail that nobody vouches for is refused', async () => {
    const sent = { from: 'a@shop.test', sender: 'a@bank.test' }
    expect(await send(node, sent, text(sent))).toStartWith('550 5.7.1')
  })

  test('what the resolver cannot find out is 451', async () => {
    // Nobody listens where it asks for what is not below test.
    const sent = { from: 'a@elsewhere.org' }
    expect(await send(node, sent, text(sent))).toStartWith('451')
  }, 60_000)
})

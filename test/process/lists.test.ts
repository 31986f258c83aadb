/** A node, a real resolver, its lists: what a client and a link read, and when it is dead. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { SystemDnsWire } from '../../src/base/dns-wire.ts'
import { NameServers } from '../../src/base/nameserver.ts'
import { Observer } from '../../src/base/observe.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { freePort } from '../ports.ts'
import { needs } from '../real.ts'
import { Slapd } from '../slapd.ts'
import { Postern } from './postern.ts'
import { Sink } from './sink.ts'
import { Wire } from './wire.ts'

const clock = new SystemClock()
const LONG = 'z'.repeat(240)
/** 127.0.0.2 is listed by every list (RFC 5782 section 5); 127.0.0.3 is here, too. */
const DATA = [
  '2.0.0.127.dnsbl.test. 60 IN A 127.0.0.2',
  '3.0.0.127.dnsbl.test. 60 IN A 127.0.0.4',
  '3.0.0.127.blocked.test. 60 IN A 127.255.255.254',
  'bad.example.uribl.test. 60 IN A 127.0.1.2',
  'mx.test. 60 IN A 192.0.2.1',
  'test. 60 IN MX 10 mx.test.',
  '1.2.0.192.in-addr.arpa. 60 IN PTR mx.test.',
  ...Array.from({ length: 20 }, (_, at) => `long.test. 60 IN TXT "${at} ${LONG}"`),
]

async function say(node: Postern, from: string, ...lines: readonly string[]): Promise<string[]> {
  const wire = await Wire.connect({ port: node.smtpPort, from })
  const replies: string[] = []
  await wire.reply()
  for (const line of ['EHLO client.test', 'MAIL FROM:<x@stranger.test>', ...lines]) {
    wire.send(`${line}\r\n`)
    replies.push((await wire.reply(30_000)).lines.join(' '))
  }
  wire.send('QUIT\r\n')
  await wire.rest(1_000)
  return replies.slice(2)
}

const MAIL = (link: string) => [
  'RCPT TO:<b@example.com>',
  'DATA',
  `From: x@stranger.test\r\nTo: b@example.com\r\nDate: Sun, 22 Nov 2026 10:00:00 +0000\r\nMessage-ID: <1@stranger.test>\r\nSubject: Hello\r\n\r\nLook at ${link} please.\r\n.`,
]

needs('unbound')('a node and unbound', () => {
  const place = mkdtempSync(join(tmpdir(), 'postern-unbound-'))
  const port = freePort()
  const sink = new Sink({ keep: true })
  let unbound: Bun.Subprocess
  let node: Postern

  beforeAll(async () => {
    const file = join(place, 'unbound.conf')
    writeFileSync(
      file,
      `server:
  interface: 127.0.0.1@${port}
  do-daemonize: no
  pidfile: ""
  directory: "${place}"
  chroot: ""
  username: ""
  use-syslog: no
  module-config: "iterator"
  local-zone: "test." static
  local-zone: "in-addr.arpa." static
${DATA.map((record) => `  local-data: '${record}'`).join('\n')}
forward-zone:
  name: "."
  forward-addr: 127.0.0.1@9
`,
    )
    unbound = Bun.spawn(['unbound', '-d', '-c', file], { stdout: 'ignore', stderr: 'ignore' })
    const client = names()
    while ((await client.query({ name: 'mx.test', type: 'A' })).status !== 'found') {
      await pause(clock, 100)
      client.close()
    }
    node = await Postern.start()
    await node.addDomain('example.com', `smtp://127.0.0.1:${sink.port}`)
    await node.set('inspect.inspectors', 'blocklists')
    await node.set('dns.servers', `127.0.0.1:${port}`)
    await node.set('dns.timeout', '1')
    await node.set('connection.lists', 'dnsbl.test 127.0.0.2=9 127.0.0.4=3')
    await node.set('content.linkLists', 'uribl.test 127.0.1.2=9')
  }, 60_000)
  afterAll(async () => {
    await node.dispose()
    unbound.kill('SIGKILL')
    await unbound.exited
    sink.stop()
    rmSync(place, { recursive: true })
  })

  function names(): NameServers {
    return new NameServers({
      clock,
      random: new SystemRandom(),
      observer: new Observer(clock, () => {}),
      wire: new SystemDnsWire(),
      servers: () => [{ host: '127.0.0.1', port }],
      timeoutMs: () => 5_000,
    })
  }

  test('the name client reads what unbound says: long answers by TCP, and that there is none', async () => {
    const client = names()
    const ask = (name: string, type: 'A' | 'AAAA' | 'MX' | 'TXT' | 'PTR') =>
      client.query({ name, type })
    expect(await ask('MX.test.', 'A')).toEqual({ status: 'found', records: ['192.0.2.1'] })
    expect(await ask('test', 'MX')).toEqual({ status: 'found', records: ['10 mx.test'] })
    expect(await ask('1.2.0.192.in-addr.arpa', 'PTR')).toMatchObject({ records: ['mx.test'] })
    const long = await ask('long.test', 'TXT')
    expect(long.status === 'found' && long.records.length).toBe(20)
    expect(await ask('mx.test', 'AAAA')).toEqual({ status: 'absent' })
    expect(await ask('no.test', 'A')).toEqual({ status: 'absent' })
    expect(await ask('elsewhere.example', 'A')).toMatchObject({ status: 'failed' })
    client.close()
  })

  test('a listed client is refused at RCPT and reaches postmaster; less weighs in the score', async () => {
    await node.set('limits.exempt', '')
    const replies = await say(
      node,
      '127.0.0.2',
      'RCPT TO:<b@example.com>',
      'RCPT TO:<postmaster@example.com>',
    )
    expect(replies[0]).toStartWith('550 5.7.1 127.0.0.2 is listed by dnsbl.test')
    expect(replies[1]).toStartWith('250 ')
    const taken = await say(node, '127.0.0.3', ...MAIL('http://good.example/'))
    expect(taken.at(-1)).toStartWith('250 ')
    const rows = await node.json<{ rules?: string[]; sender: string }[]>('trace')
    expect(JSON.stringify(rows)).toContain('DNSBL_DNSBL_TEST')
    expect(JSON.stringify(rows)).toContain('is listed by dnsbl.test')
  })

  test('a link that is listed is held, with the list, the domain and the code', async () => {
    const [, , last = ''] = await say(node, '127.0.0.4', ...MAIL('http://bad.example/x'))
    expect(last).toStartWith('250 ')
    // It is moved to the quarantine behind its 250.
    for (;;) {
      const [held] = await node.json<{ rules: string[] }[]>('quarantine', 'list')
      if (held === undefined) await pause(clock, 50)
      else return expect(held.rules).toContain('URIBL_URIBL_TEST')
    }
  })

  test('who guesses recipients is refused, listed and lifted by the command line', async () => {
    await node.set('connection.failures', '3')
    const guesses = ['a', 'b', 'c', 'd'].map((local) => `RCPT TO:<${local}@listed.example>`)
    const hop = `smtp://127.0.0.1:${sink.port}`
    const words = ['add', 'listed.example', '--next-hop', hop, '--recipients', 'ann']
    const { code, err } = await node.command('domain', ...words)
    expect([code, err]).toEqual([0, ''])
    const wire = await Wire.connect({ port: node.smtpPort, from: '127.0.0.9' })
    await wire.reply()
    for (const line of ['EHLO c', 'MAIL FROM:<x@stranger.test>', ...guesses.slice(0, 3)]) {
      wire.send(`${line}\r\n`)
      await wire.reply()
    }
    expect((await wire.reply()).lines[0]).toStartWith('421 4.7.1')
    expect(await node.json<unknown>('ban', 'list')).toMatchObject([{ network: '127.0.0.9' }])
    const refused = await Wire.connect({ port: node.smtpPort, from: '127.0.0.9' })
    expect((await refused.reply()).code).toBe(421)
    expect((await node.command('ban', 'lift', '127.0.0.9')).code).toBe(0)
    expect((await node.command('ban', 'lift', '127.0.0.9')).code).toBe(1)
    const again = await Wire.connect({ port: node.smtpPort, from: '127.0.0.9' })
    expect((await again.reply()).code).toBe(220)
    for (const one of [wire, refused, again]) one.drop()
  })

  test('suspicious mail is asked to come again once, at its dot, and then it is taken', async () => {
    await node.set('content.linkLists', 'uribl.test 127.0.1.2=5')
    await node.set('greylist.delay', '1')
    await node.set('greylist.mode', 'adaptive')
    const first = await say(node, '127.0.0.5', ...MAIL('http://bad.example/x'))
    expect(first.slice(0, 2).map((line) => line.slice(0, 3))).toEqual(['250', '354'])
    expect(first.at(-1)).toMatch(/^451 4\.7\.1 Greylisted: try again in 1 s/)
    expect((await say(node, '127.0.0.5', ...MAIL('http://good.example/'))).at(-1)).toMatch(/^250 /)
    let last = ''
    for (let at = 0; at < 50 && !last.startsWith('250'); at++) {
      await pause(clock, 100)
      last = (await say(node, '127.0.0.5', ...MAIL('http://bad.example/x'))).at(-1) ?? ''
    }
    expect(last).toStartWith('250 ')
    await node.set('greylist.mode', 'off')
  })

  test('a list that says it must not be asked is left out and told of; mail goes on', async () => {
    await node.set('connection.lists', 'blocked.test 127.0.0.2-127.255.255.255=50')
    const replies = await say(node, '127.0.0.3', ...MAIL('http://good.example/'))
    expect(replies.at(-1)).toStartWith('250 ')
    const alerts = await node.api<{ alerts: { kind: string }[] }>('/api/v1/alerts')
    expect(JSON.stringify(alerts)).toContain('"kind":"list"')
  })

  test('a resolver that stands still: links are unknown, the sender comes again, and it is told', async () => {
    await node.set('connection.lists', '')
    unbound.kill('SIGSTOP')
    const began = clock.monoMs()
    const replies = await say(node, '127.0.0.4', ...MAIL('http://never-seen.example/'))
    expect(replies.at(-1)).toMatch(/^451 /)
    for (;;) {
      const alerts = JSON.stringify(await node.api('/api/v1/alerts'))
      if (alerts.includes('"kind":"names"')) break
      expect(clock.monoMs() - began).toBeLessThan(60_000)
      await pause(clock, 100)
    }
    const checks = await node.command('doctor', '--json')
    expect(checks.out).toContain('Check the setting dns.servers')
    unbound.kill('SIGCONT')
    for (;;) {
      const alerts = JSON.stringify(await node.api('/api/v1/alerts'))
      if (!alerts.includes('"kind":"names"')) break
      expect(clock.monoMs() - began).toBeLessThan(60_000)
      await pause(clock, 100)
    }
    const again = await say(node, '127.0.0.4', ...MAIL('http://never-seen.example/'))
    expect(again.at(-1)).toStartWith('250 ')
  }, 90_000)
})

needs('slapd')('a node, a directory and a next hop', () => {
  const known = new Sink({
    recipient: (address) =>
      address.startsWith('bob@') ? '250 2.1.5 Ok' : '550 5.1.1 no such user',
  })
  let slapd: Slapd
  let node: Postern
  beforeAll(async () => {
    slapd = await Slapd.start()
    node = await Postern.start()
    await node.addDomain('x.test', `smtp://127.0.0.1:${known.port}`)
    await node.addDomain('hop.test', `smtp://127.0.0.1:${known.port}`)
  }, 60_000)
  afterAll(async () => {
    await node.dispose()
    await slapd.stop()
    known.stop()
  })

  const rcpt = (address: string) => say(node, '127.0.0.1', `RCPT TO:<${address}>`)

  test('recipients that the directory does not have are refused, its password is in no setting', async () => {
    const line = `ldap://127.0.0.1:${slapd.port}/dc=x,dc=test??sub?(|(mail={address})(description=smtp:{address}))?bindname=cn=admin,dc=x,dc=test`
    writeFileSync(join(node.data, 'ldap.password'), 'secret\n', { mode: 0o600 })
    await node.set('ldap.domains', 'x.test')
    await node.set('ldap.directories', line)
    expect((await rcpt('ann@x.test'))[0]).toStartWith('250 ')
    expect((await rcpt('alias@x.test'))[0]).toStartWith('250 ')
    expect((await rcpt('eve@x.test'))[0]).toStartWith('550 5.1.1 ')
    expect((await rcpt('postmaster@x.test'))[0]).toStartWith('250 ')
    expect((await rcpt('eve@hop.test'))[0]).toStartWith('250 ')
    expect((await node.command('config', 'export')).out).not.toContain('secret')
  })

  test('recipients that the next hop does not have are refused, before the mail', async () => {
    await node.set('recipients.ask', 'on')
    expect((await rcpt('bob@hop.test'))[0]).toStartWith('250 ')
    expect((await rcpt('eve@hop.test'))[0]).toStartWith('550 5.1.1 ')
  })
})

/** Recipients in directories: a real slapd, one that does not answer, and who is asked about whom. */
import { afterAll, beforeAll, expect, test } from 'bun:test'
import { createServer } from 'node:net'
import { Observer } from '../src/base/observe.ts'
import { parseDirectory, readLines } from '../src/config/lines.ts'
import { initialSettings } from '../src/config/schema.ts'
import { EMPTY_SNAPSHOT, type Snapshot } from '../src/config/snapshot.ts'
import { Directory } from '../src/mail/accept/directory.ts'
import { mailboxes } from '../src/mail/accept/mailboxes.ts'
import { ManualClock } from './clock.ts'
import { needs } from './real.ts'
import { Slapd } from './slapd.ts'

const FILTER = '(|(mail={address})(description=smtp:{address}))'

function directoryAt(port: number, password: string | null, clock = new ManualClock()) {
  const observer = new Observer(clock, () => {})
  const directory = new Directory({
    clock,
    observer,
    timeoutMs: () => 5_000,
    file: (name) => (name === 'ldap.password' ? password : null),
  })
  const line = `ldap://127.0.0.1:${port}/dc=x,dc=test??sub?${FILTER}`
  return { directory, line, observer, clock }
}

test('an LDAP URL is read as it is written, and what is none is refused with how to write one', () => {
  expect(
    parseDirectory(
      'ldaps://dc1.example.com/ou=My%20People,dc=x??one?(mail={address})?!bindname=cn=a b,dc=x',
    ),
  ).toEqual({
    url: 'ldaps://dc1.example.com:636',
    base: 'ou=My People,dc=x',
    scope: 'one',
    filter: '(mail={address})',
    bindName: 'cn=a b,dc=x',
  })
  expect(parseDirectory('ldap://[2001:db8::1]:1389/dc=x???(mail={address})')).toMatchObject({
    url: 'ldap://[2001:db8::1]:1389',
    scope: 'sub',
    bindName: '',
  })
  for (const line of [
    'http://a.example/dc=x??sub?(mail={address})',
    'ldap://a.example/dc=x',
    'ldap://a.example/dc=x??sub?(mail=ann)',
    'ldap://a.example/dc=x??sub?mail={address}',
    'ldap://a.example:99999/dc=x??sub?(mail={address})',
    'ldap://a.example/dc=x??all?(mail={address})',
  ]) {
    expect(() => readLines('ldap.directories', 'directory', [line])).toThrow(/cannot be read/)
  }
})

test('a directory that is not there, or says nothing, refuses nobody, and holds one session at most', async () => {
  const away = directoryAt(1, null)
  expect(await away.directory.has('eve@x.test', [away.line])).toBe(true)
  expect(away.observer.metrics()).toContain('postern_recipients_unasked_total 1')
  const mute = createServer(() => {})
  await new Promise<void>((resolve) => mute.listen(0, '127.0.0.1', resolve))
  const address = mute.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  const silent = directoryAt(port, null)
  const asked = Promise.withResolvers<void>()
  mute.once('connection', (socket) => {
    socket.on('error', () => {})
    socket.once('data', () => asked.resolve())
  })
  const said = silent.directory.has('eve@x.test', [silent.line])
  await asked.promise
  silent.clock.advance(5_000)
  expect(await said).toBe(true)
  expect(silent.directory.has('bob@x.test', [silent.line])).toBe(true)
  mute.close()
  await away.directory.close()
})

test('who binds without a password is not anybody: the directory counts as silent', async () => {
  const none = directoryAt(1, '\n')
  const line = `${none.line}?bindname=cn=admin,dc=x,dc=test`
  expect(await none.directory.has('eve@x.test', [line])).toBe(true)
  expect(none.observer.metrics()).toContain('postern_recipients_unasked_total 1')
})

test('who is asked about whom: our domains without a list, never postmaster, a no of either is a no', async () => {
  const domain = (name: string, recipients: readonly string[] | null) => ({
    ...({ name, nextHops: [], hold: null, reject: null, enforce: null } as const),
    recipients,
  })
  const snapshot = (settings: object): Snapshot => ({
    ...EMPTY_SNAPSHOT,
    settings: { ...initialSettings(), ...settings },
    domains: new Map([
      ['a.test', domain('a.test', null)],
      ['b.test', domain('b.test', null)],
      ['listed.test', domain('listed.test', ['ann'])],
    ]),
  })
  const asked: string[] = []
  const exists = mailboxes({
    directory: {
      has: (address) => {
        asked.push(`directory ${address}`)
        return Promise.resolve(address.startsWith('ann@'))
      },
    },
    ask: (address) => {
      asked.push(`hop ${address}`)
      return address.startsWith('ann@a.')
    },
  })
  const both = snapshot({
    'recipients.ask': 'on',
    'ldap.directories': ['ldap://h.test/dc=x??sub?(mail={address})'],
    'ldap.domains': ['b.test'],
  })
  for (const free of ['Postmaster@a.test', 'eve@listed.test', 'eve@elsewhere.test']) {
    expect(exists(free, both)).toBe(true)
  }
  expect(exists('eve@a.test', snapshot({}))).toBe(true)
  expect(asked).toEqual([])
  expect(exists('ann@a.test', both)).toBe(true)
  expect(exists('eve@a.test', both)).toBe(false)
  expect(await exists('ann@b.test', both)).toBe(false)
  expect(await exists('eve@b.test', both)).toBe(false)
  expect(asked).toEqual([
    'hop ann@a.test',
    'hop eve@a.test',
    'directory ann@b.test',
    'hop ann@b.test',
    'directory eve@b.test',
    'hop eve@b.test',
  ])
})

needs('slapd')('a real slapd', () => {
  let slapd: Slapd
  let port = 0
  beforeAll(async () => {
    slapd = await Slapd.start()
    port = slapd.port
  })
  afterAll(async () => await slapd.stop())

  const bound = (line: string) => `${line}?bindname=cn=admin,dc=x,dc=test`

  test('has its people by any of their addresses, and nobody else', async () => {
    const { directory, line, observer } = directoryAt(port, 'secret\n', new ManualClock())
    const lines = [bound(line)]
    expect(await directory.has('Ann@x.test', lines)).toBe(true)
    expect(await directory.has('alias@x.test', lines)).toBe(true)
    expect(await directory.has('eve@x.test', lines)).toBe(false)
    // The filter is not theirs to write.
    expect(await directory.has('*@x.test', lines)).toBe(false)
    expect(await directory.has('x)(mail=*@x.test', lines)).toBe(false)
    expect(directory.has('eve@x.test', lines)).toBe(false)
    expect(observer.metrics()).toContain('postern_recipients_unasked_total 0')
    await directory.close()
  })

  test('refuses nobody to who has the wrong password', async () => {
    const { directory, line, observer } = directoryAt(port, 'wrong')
    expect(await directory.has('eve@x.test', [bound(line)])).toBe(true)
    expect(observer.metrics()).toContain('postern_recipients_unasked_total 1')
    await directory.close()
  })
})

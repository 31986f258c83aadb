/** What an operator may enter, and what it becomes: tables. */
import { afterEach, describe, expect, test } from 'bun:test'
import { X509Certificate } from 'node:crypto'
import {
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmdirSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { RefusalError } from '../src/base/errors.ts'
import { atomicWrite, lockDirectory } from '../src/base/files.ts'
import { SeededRandom, SystemRandom } from '../src/base/random.ts'
import { DOMAIN_GROUPS } from '../src/config/cells.ts'
import { openCertificate } from '../src/config/certificate.ts'
import { DATA_FORMAT, openDataDirectory, openNodeFile, readNodeFile } from '../src/config/local.ts'
import { initialSettings, SETTINGS, type SettingKey } from '../src/config/schema.ts'
import type { Domain } from '../src/config/snapshot.ts'
import {
  checkDomain,
  domainGroups,
  readDomainGroup,
  readDomainName,
  readNextHops,
  readRecipients,
  readSetting,
  readSettingKey,
} from '../src/config/validate.ts'
import { formatNextHop } from '../src/message/nexthop.ts'
import { ManualClock } from './clock.ts'
import { refusal } from './rooms.ts'

function shortly(raw: unknown): string {
  return (JSON.stringify(raw) ?? String(raw)).slice(0, 40)
}

/** Two sentences: what happened, what to do. */
function expectSentences({ message, advice }: RefusalError): void {
  expect(message).toMatch(/^[\p{L}\p{N}"“-].*\.$/u)
  expect(advice).toMatch(/^\p{L}.*[.?]$/u)
}

describe('a setting reads what was typed', () => {
  const table: readonly [SettingKey, unknown, unknown][] = [
    ['policy.hold', 8, 8],
    ['policy.hold', ' 8.5 ', 8.5],
    ['mail.size', '65536', 65_536],
    ['queue.warn', '0', 0],
    ['mail.newlines', 'repair', 'repair'],
    ['limits.exempt', '10.0.0.0/8, ::1', ['10.0.0.0/8', '::1']],
    [
      'limits.exempt',
      '10.0.0.0/8\n192.0.2.7 2001:DB8::/32',
      ['10.0.0.0/8', '192.0.2.7', '2001:db8::/32'],
    ],
    ['limits.exempt', '["::1"]', ['::1']],
    ['limits.exempt', ['10.1.2.3/8', '10.1.2.3/8'], ['10.1.2.3/8']],
    ['limits.exempt', '', []],
    ['relay.networks', '0.0.0.0/0', ['0.0.0.0/0']],
    ['relay.networks', '::ffff:192.0.2.1/128', ['::ffff:192.0.2.1/128']],
    ['inspect.inspectors', 'headers, gtube', ['gtube', 'headers']],
  ]
  test.each(table)('%s from %p', (key, raw, value) => {
    expect(readSetting(key, raw)).toEqual(value as never)
  })

  const wrong: readonly [SettingKey, unknown][] = [
    ['policy.hold', ''],
    ['policy.hold', 'eight'],
    ['policy.hold', '0x10'],
    ['policy.hold', '1e1'],
    ['policy.hold', Number.NaN],
    ['policy.hold', Number.POSITIVE_INFINITY],
    ['policy.hold', 0],
    ['policy.hold', 101],
    ['policy.hold', null],
    ['policy.hold', [8]],
    ['policy.hold', true],
    ['mail.size', '65536.5'],
    ['mail.size', 65_535],
    ['mail.size', '2 MB'],
    ['mail.newlines', 'Refuse it'],
    ['mail.newlines', undefined],
    ['limits.exempt', '10.0.0.0/33'],
    ['limits.exempt', '10.0.0.0/'],
    ['limits.exempt', '10.0.0.0/8/8'],
    ['limits.exempt', '10.0.0/8'],
    ['limits.exempt', '010.0.0.1'],
    ['limits.exempt', '::1/129'],
    ['limits.exempt', 'fe80::1%eth0'],
    ['limits.exempt', 'mail.example.com'],
    ['limits.exempt', { 0: '::1' }],
    ['limits.exempt', '["::1"'],
    ['limits.exempt', [1]],
    ['limits.exempt', Array.from({ length: 1_001 }, (_, n) => `10.0.${n >> 8}.${n & 255}`)],
    ['inspect.inspectors', 'gtube, virus'],
  ]
  test.each(wrong.map(([key, raw]) => [key, shortly(raw), raw] as const))(
    '%s refuses %s and says what to do',
    (key, _, raw) => {
      const error = refusal(() => readSetting(key, raw))
      expect(error.code).toBe('invalid')
      expect(error.field).toBe(key)
      expectSentences(error)
    },
  )

  test('what is the value of a setting is read as itself', () => {
    for (const [key, setting] of Object.entries(SETTINGS)) {
      const value = readSetting(key as SettingKey, setting.initial)
      expect(value).toEqual(setting.initial as never)
      expect(readSetting(key as SettingKey, JSON.parse(JSON.stringify(value)))).toEqual(value)
    }
  })

  test('any input at all is a value or a refusal with two sentences, never another error', () => {
    const keys = Object.keys(SETTINGS) as SettingKey[]
    fc.assert(
      fc.property(fc.constantFrom(...keys), fc.anything(), (key, raw) => {
        try {
          readSetting(key, raw)
        } catch (error) {
          expect(error).toBeInstanceOf(RefusalError)
          expectSentences(error as RefusalError)
        }
      }),
      { numRuns: 2_000 },
    )
  })
})

describe('an unknown setting', () => {
  test.each([
    ['policy.hodl', 'policy.hold'],
    ['hold', 'policy.hold'],
    ['limits.conections', 'limits.connections'],
    ['Mail.Size', 'mail.size'],
  ])('%s names %s', (key, near) => {
    const error = refusal(() => readSettingKey(key))
    expect(error.code).toBe('notFound')
    expect(error.advice).toContain(near)
  })

  test('names nothing when nothing is near', () => {
    expect(refusal(() => readSettingKey('zzzzzzzzzzzz')).advice).toContain('config get')
  })

  test('is not found in the prototype of objects', () => {
    expect(refusal(() => readSettingKey('constructor')).code).toBe('notFound')
    expect(refusal(() => readSettingKey('__proto__')).code).toBe('notFound')
  })
})

describe('a domain name', () => {
  test.each([
    ['Example.COM', 'example.com'],
    ['example.com.', 'example.com'],
    [' example.com ', 'example.com'],
    ['bücher.example', 'xn--bcher-kva.example'],
    ['BÜCHER.example', 'xn--bcher-kva.example'],
    ['xn--bcher-kva.example', 'xn--bcher-kva.example'],
    ['localhost', 'localhost'],
    ['_dmarc.example.com', '_dmarc.example.com'],
  ])('%s is %s', (raw, name) => {
    expect(readDomainName(raw)).toBe(name)
    expect(readDomainName(name)).toBe(name)
  })

  test.each([
    '',
    '.',
    'a..b',
    '-a.example',
    'a-.example',
    'user@example.com',
    'exa mple.com',
    'example.com/x',
    '*.example.com',
    '192.0.2.1',
    '[192.0.2.1]',
    'a%2eb.example',
    'ex\u0000ample.com',
    `${'a'.repeat(64)}.example`,
    `${'a.'.repeat(130)}example`,
  ])('%j is refused', (raw) => {
    const error = refusal(() => readDomainName(raw))
    expect(error.field).toBe('name')
    expectSentences(error)
  })
})

describe('next hops and recipients', () => {
  test('are read in order, without doubles', () => {
    const hops = readNextHops(['smtp://Mail.example:26', 'lmtp://[::1]:24', 'mail.example:26'])
    expect(hops.map(formatNextHop)).toEqual(['smtp://mail.example:26', 'lmtp://[::1]:24'])
  })

  test.each([['lmtp://host'], ['http://host'], [''], ['smtp://host:0'], ['smtp://a b:25']])(
    '%j is no next hop',
    (raw) => {
      const error = refusal(() => readNextHops([raw]))
      expect(error.field).toBe('nextHops')
      expectSentences(error)
    },
  )

  test('more than ten next hops are refused', () => {
    const hops = Array.from({ length: 11 }, (_, index) => `smtp://h${index}:25`)
    expect(refusal(() => readNextHops(hops)).field).toBe('nextHops')
    expect(readNextHops(hops.slice(1))).toHaveLength(10)
  })

  test('recipients are local parts in lower case, sorted, once', () => {
    const raw = ['Zoe', 'ann@Example.com', ' bob ', 'ann', '', "o'neil+x"]
    expect(readRecipients('example.com', raw)).toEqual(['ann', 'bob', "o'neil+x", 'zoe'])
  })

  test.each([['a b'], ['a@other.example'], ['<a>'], [`${'a'.repeat(65)}`], ['a\u0000b']])(
    '%j is no recipient',
    (raw) => {
      expect(refusal(() => readRecipients('example.com', [raw])).field).toBe('recipients')
    },
  )

  test('more than 100,000 recipients are refused', () => {
    const raw = Array.from({ length: 100_001 }, (_, index) => `r${index}`)
    expect(refusal(() => readRecipients('example.com', raw)).field).toBe('recipients')
    expect(readRecipients('example.com', raw.slice(1))).toHaveLength(100_000)
  })

  test('the thresholds in force for a domain keep their order', () => {
    const domain: Domain = {
      name: 'a.example',
      nextHops: [],
      recipients: null,
      hold: null,
      reject: null,
      enforce: null,
    }
    const settings = initialSettings()
    checkDomain({ ...domain, hold: 3 }, settings)
    checkDomain({ ...domain, hold: 20, reject: 30 }, settings)
    expect(refusal(() => checkDomain({ ...domain, reject: 8 }, settings)).field).toBe('reject')
    expect(refusal(() => checkDomain({ ...domain, hold: 15 }, settings)).field).toBe('hold')
  })

  test('a domain survives its cells', () => {
    const domain: Domain = {
      name: 'a.example',
      nextHops: [{ protocol: 'lmtp', host: '::1', port: 24 }],
      recipients: ['a', 'b'],
      hold: 5,
      reject: null,
      enforce: true,
    }
    const groups = JSON.parse(JSON.stringify(domainGroups(domain)))
    const read = DOMAIN_GROUPS.map((group) => readDomainGroup('a.example', group, groups[group]))
    expect(Object.assign({ name: 'a.example' }, ...read)).toEqual(domain)
  })

  test.each([
    ['nextHops', null],
    ['nextHops', 1],
    ['nextHops', ['?']],
    ['recipients', 'x'],
    ['recipients', [1]],
    ['policy', null],
    ['policy', { hold: 'x' }],
    ['policy', { reject: 0 }],
  ] as const)('a cell %s with %j is refused', (group, raw) => {
    expect(refusal(() => readDomainGroup('a.example', group, raw)).code).toBe('invalid')
  })
})

describe('the data directory', () => {
  const made: string[] = []
  const directory = (): string => {
    const path = mkdtempSync(join(tmpdir(), 'postern-'))
    made.push(path)
    return path
  }
  afterEach(() => {
    for (const path of made.splice(0)) rmSync(path, { recursive: true })
  })

  test('is 0700, and its node file 0600', () => {
    const path = join(directory(), 'new')
    mkdirSync(path, { mode: 0o755 })
    openDataDirectory(path)
    openDataDirectory(join(path, 'fresh'))
    expect(statSync(join(path, 'fresh')).mode & 0o777).toBe(0o700)
    openNodeFile(path, { random: new SeededRandom(1) })
    expect(statSync(path).mode & 0o777).toBe(0o700)
    expect(statSync(join(path, 'node.json')).mode & 0o777).toBe(0o600)
  })

  test('keeps who it is and counts its starts', () => {
    const path = directory()
    const first = openNodeFile(path, { random: new SeededRandom(1), hostname: 'mx1' })
    mkdirSync(join(path, 'spool'))
    const second = openNodeFile(path, { random: new SeededRandom(2), hostname: 'mx9' })
    expect(first.epoch).toBe(1)
    expect(second).toEqual({ ...first, epoch: 2 })
    expect(openNodeFile(path, { random: new SeededRandom(3), name: 'gate\n' }).name).toBe('gate')
    expect(readNodeFile(path)?.epoch).toBe(3)
  })

  test('a node whose spool is gone says so by another spool id; one that is there keeps it', () => {
    const path = directory()
    const random = new SeededRandom(4)
    const first = openNodeFile(path, { random })
    mkdirSync(join(path, 'spool'))
    expect(openNodeFile(path, { random }).spoolId).toBe(first.spoolId)
    rmdirSync(join(path, 'spool'))
    const lost = openNodeFile(path, { random })
    expect(lost.spoolId).not.toBe(first.spoolId)
    expect(lost.nodeId).toBe(first.nodeId)
  })

  test.each([
    ['{', 'not JSON'],
    ['null', 'not an object'],
    ['{"format":2}', 'ids missing'],
    ['{"format":2,"nodeId":"0123456789abcdef","spoolId":"0123456789abcdef","epoch":-1}', 'epoch'],
  ])('with the node file %s is refused and left alone (%s)', (text) => {
    const path = directory()
    writeFileSync(join(path, 'node.json'), text)
    const error = refusal(() => openNodeFile(path, { random: new SeededRandom(1) }))
    expect(error.field).toBe('data')
    expectSentences(error)
    expect(readFileSync(join(path, 'node.json'), 'utf8')).toBe(text)
  })

  test.each([
    [DATA_FORMAT + 1, 'newer version'],
    [DATA_FORMAT - 1, 'version that ran alone'],
  ])('of format %d is refused and left alone', (format, said) => {
    const path = directory()
    const text = JSON.stringify({ ...openNodeFile(path, { random: new SeededRandom(1) }), format })
    writeFileSync(join(path, 'node.json'), text)
    const error = refusal(() => openNodeFile(path, { random: new SeededRandom(1) }))
    expect(error.message).toContain(said)
    expectSentences(error)
    expect(readFileSync(join(path, 'node.json'), 'utf8')).toBe(text)
  })

  test('with mail and without its node file is refused', () => {
    const path = directory()
    writeFileSync(join(path, 'state.db'), '')
    expect(refusal(() => openNodeFile(path, { random: new SeededRandom(1) })).field).toBe('data')
  })

  test('is refused when it cannot be made, or its socket path would be too long', () => {
    const file = join(directory(), 'file')
    writeFileSync(file, '')
    expect(refusal(() => openDataDirectory(join(file, 'x'))).field).toBe('data')
    const long = join(directory(), 'x'.repeat(100))
    const error = refusal(() => openDataDirectory(long))
    expect(error.message).toContain('too long')
    expect(() => statSync(long)).toThrow()
  })

  test('has one owner, who is named, and a child of the owner does not keep the lock', async () => {
    const path = directory()
    const lock = lockDirectory(path)
    await using child = Bun.spawn(['sh', '-c', 'echo up; exec sleep 60'], { stdout: 'pipe' })
    // The kernel closes what a child must not have just after it lets its parent go on.
    await child.stdout.getReader().read()
    const error = refusal(() => lockDirectory(path))
    expect(error.code).toBe('conflict')
    expect(error.message).toContain(`pid ${process.pid}`)
    lock.release()
    lockDirectory(path).release()
  })

  test('is free at once after its owner was killed', async () => {
    const path = directory()
    const script = `import { lockDirectory } from ${JSON.stringify(join(import.meta.dir, '../src/base/files.ts'))}
lockDirectory(${JSON.stringify(path)}); console.write('locked'); setInterval(() => {}, 1000)`
    await using child = Bun.spawn(['bun', '-e', script], { stdout: 'pipe' })
    const reader = child.stdout.getReader()
    expect(new TextDecoder().decode((await reader.read()).value)).toBe('locked')
    expect(refusal(() => lockDirectory(path)).message).toContain(`pid ${child.pid}`)
    child.kill('SIGKILL')
    await child.exited
    lockDirectory(path).release()
  })

  test('a file is replaced as a whole and gets its mode, over a left-over too', () => {
    const path = join(directory(), 'x')
    writeFileSync(`${path}.new`, 'left over and longer', { mode: 0o666 })
    atomicWrite(path, 'one', 0o600)
    expect(statSync(path).mode & 0o777).toBe(0o600)
    atomicWrite(path, 'two', 0o600)
    expect(readFileSync(path, 'utf8')).toBe('two')
    expect(statSync(path).mode & 0o777).toBe(0o600)
  })

  test('the certificate is made once, signed by its key, and pinned as curl does it', async () => {
    const path = directory()
    const deps = { clock: new ManualClock(), random: new SystemRandom() }
    const made = await openCertificate(path, ['mx1', '192.0.2.1', '::1'], deps)
    const again = await openCertificate(path, ['other'], deps)
    expect(again).toEqual(made)
    const certificate = new X509Certificate(made.cert)
    expect(certificate.verify(certificate.publicKey)).toBe(true)
    expect(certificate.subjectAltName).toBe(
      'DNS:mx1, IP Address:192.0.2.1, IP Address:0:0:0:0:0:0:0:1',
    )
    expect(certificate.publicKey.asymmetricKeyDetails?.namedCurve).toBe('prime256v1')
    expect(made.pin).toMatch(/^sha256\/\/[A-Za-z0-9+/]{43}=$/)
    expect(statSync(join(path, 'web.key')).mode & 0o777).toBe(0o600)
  })

  test('a key without its certificate is made anew; a broken certificate is refused', async () => {
    const path = directory()
    const deps = { clock: new ManualClock(), random: new SystemRandom() }
    const made = await openCertificate(path, ['mx1'], deps)
    rmSync(join(path, 'web.crt'))
    expect((await openCertificate(path, ['mx1'], deps)).pin).not.toBe(made.pin)
    writeFileSync(join(path, 'web.crt'), 'no certificate')
    const error = await openCertificate(path, ['mx1'], deps).catch((thrown: unknown) => thrown)
    expect(error).toBeInstanceOf(RefusalError)
  })
})

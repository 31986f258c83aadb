/** `serve` and the commands against it: the contract that scripts rely on, with real processes. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { createHash, X509Certificate } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { connect } from 'node:tls'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { SeededRandom } from '../../src/base/random.ts'
import { freePort } from '../ports.ts'
import { posternCommand } from '../real.ts'
import { type Answer, Postern } from './postern.ts'
import { isAlive, treeOf } from './proc.ts'
import { Wire, type WireReply } from './wire.ts'

const clock = new SystemClock()

/** Runs the program to its end. */
async function postern(
  words: readonly string[],
  environment: Readonly<Record<string, string>> = {},
): Promise<Answer> {
  const child = Bun.spawn(posternCommand(...words), {
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'pipe',
    env: { ...process.env, ...environment },
    timeout: 15_000,
    killSignal: 'SIGKILL',
  })
  const [out, err] = await Promise.all([
    new Response(child.stdout).text(),
    new Response(child.stderr).text(),
  ])
  return { code: await child.exited, out, err }
}

/** Lines of stderr that are for people: the others are the log. */
function complaints(err: string): string[] {
  return err.split('\n').filter((line) => line !== '' && !line.startsWith('{"time"'))
}

async function say(wire: Wire, line: string): Promise<WireReply> {
  wire.send(`${line}\r\n`)
  return await wire.reply()
}

/** The process that took the directory last. */
function lockedBy(data: string): string {
  const path = join(data, 'lock')
  return existsSync(path) ? readFileSync(path, 'utf8') : ''
}

async function until(what: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadline = clock.monoMs() + timeoutMs
  while (!what()) {
    if (clock.monoMs() > deadline) return false
    await pause(clock, 10)
  }
  return true
}

describe('a node', () => {
  let node: Postern
  beforeAll(async () => {
    node = await Postern.start()
  })
  afterAll(() => node.dispose())

  test('prints the address of its set-up, then exactly ready, and nothing else', () => {
    const base = `http://127\\.0\\.0\\.1:${node.webPort}`
    expect(node.stdout).toMatch(new RegExp(`^${base}/setup\\?code=[^\\n]+\\nready\\n$`))
  })

  test('is ready when it says so', async () => {
    expect((await node.fetch('/readyz')).status).toBe(200)
    expect((await fetch(`http://127.0.0.1:${node.webPort}/livez`)).status).toBe(200)
    const wire = await Wire.connect({ port: node.smtpPort })
    expect((await wire.reply()).code).toBe(220)
    wire.drop()
  })

  test('closes its directory and its socket to others', () => {
    expect(statSync(node.data).mode & 0o777).toBe(0o700)
    expect(statSync(join(node.data, 'control.sock')).mode & 0o777).toBe(0o600)
  })

  test('writes its log to stderr, one JSON object a line', async () => {
    expect(await until(() => node.log().includes('"node.started"'), 2_000)).toBe(true)
    const lines = node.log().trimEnd().split('\n')
    for (const line of lines) expect(JSON.parse(line)).toHaveProperty('event')
  })

  test('refuses every recipient until a domain is added, by the socket alone', async () => {
    const answerTo = async (): Promise<number> => {
      const wire = await Wire.connect({ port: node.smtpPort })
      await wire.reply()
      for (const line of ['EHLO a.example', 'MAIL FROM:<a@a.example>']) await say(wire, line)
      const { code } = await say(wire, 'RCPT TO:<ann@added.example>')
      wire.drop()
      return code
    }
    expect(await answerTo()).toBe(550)
    await node.addDomain('added.example', 'smtp://127.0.0.1:9')
    expect(await answerTo()).toBe(250)
    const domains = await node.json<{ name: string; nextHops: string[] }[]>('domain', 'list')
    expect(domains).toMatchObject([{ name: 'added.example', nextHops: ['smtp://127.0.0.1:9'] }])
    expect((await node.command('domain', 'remove', 'added.example')).code).toBe(0)
    expect(await answerTo()).toBe(550)
  })

  test('has the keys of the contract in its status', async () => {
    const status = await node.json<Record<string, unknown>>('status')
    expect(status).toMatchObject({
      node: expect.stringMatching(/^[0-9a-f]{16}$/),
      name: expect.any(String),
      version: expect.any(String),
      ready: true,
      webPin: null,
      queue: { messages: 0 },
      held: 0,
      nodes: [{ id: status['node'], name: status['name'], state: 'alive', lagMs: 0 }],
    })
  })

  test('answers the empty lists as plain arrays', async () => {
    for (const words of [
      ['quarantine', 'list'],
      ['queue', 'list'],
      ['trace', 'from:nobody@nowhere.example'],
      ['operator', 'list'],
    ]) {
      expect(await node.json<unknown>(...words)).toEqual([])
    }
  })

  test('says what a setting is, in force when set answers', async () => {
    await node.set('policy.hold', '6.5')
    expect((await node.command('config', 'get', 'policy.hold')).out).toBe('6.5\n')
    expect(await node.json<unknown>('config', 'get', 'policy.hold')).toMatchObject({
      key: 'policy.hold',
      value: 6.5,
      initial: 8,
    })
    const exported = JSON.parse((await node.command('config', 'export')).out) as {
      settings: Record<string, unknown>
    }
    expect(exported.settings['policy.hold']).toBe(6.5)
    const [change] = await node.json<{ id: number; key: string }[]>('config', 'history')
    expect(change).toMatchObject({ key: 'setting/policy.hold', by: 'cli' })
    expect((await node.command('config', 'undo', String(change?.id))).code).toBe(0)
    expect((await node.command('config', 'get', 'policy.hold')).out).toBe('8\n')
  })

  test('refuses a bad value with the field and the remedy, and changes nothing', async () => {
    const cases: readonly (readonly [words: string, field: string | null])[] = [
      ['config set no.such 1', 'no.such'],
      ['config set policy.hold high', 'policy.hold'],
      ['config set policy.hold 99', 'policy.hold'],
      ['config set relay.networks 10.0.0.0/33', 'relay.networks'],
      ['domain add not..a.name', 'name'],
      ['domain add a.example --next-hop http://h', 'nextHops'],
      ['quarantine release 00000000000000000000000000', null],
      ['quarantine show nonsense', null],
      ['queue drop 00000000000000000000000000', null],
      ['queue retry nonsense', null],
      ['trace show 00000000000000000000000000', null],
      ['domain show nowhere.example', null],
      ['domain remove nowhere.example', null],
      ['operator remove nobody', null],
      ['config undo 999999', null],
    ]
    const before = (await node.command('config', 'export')).out
    for (const [words, field] of cases) {
      const { code, out, err } = await node.command(...words.split(' '), '--json')
      expect({ words, code, out }).toEqual({ words, code: 1, out: '' })
      const { error } = JSON.parse(err) as { error: Record<string, string | null> }
      expect(error['message']).toMatch(/^\S.*\.$/)
      expect(error['remedy']).toMatch(/^\S.*\S$/)
      if (field !== null) expect({ words, field: error['field'] }).toEqual({ words, field })
    }
    expect((await node.command('config', 'export')).out).toBe(before)
  })

  test('an operator is added once, and the set-up is closed for good', async () => {
    const add = async (password: string, name: string): Promise<Answer> => {
      const child = Bun.spawn(
        posternCommand('--data', node.data, 'operator', 'add', name, '--password-stdin'),
        { stdin: new Blob([`${password}\n`]), stdout: 'pipe', stderr: 'pipe' },
      )
      const [out, err] = [
        await new Response(child.stdout).text(),
        await new Response(child.stderr).text(),
      ]
      return { code: await child.exited, out, err }
    }
    expect(await add('short', 'ann')).toMatchObject({ code: 1, out: '' })
    expect(await add('correct horse battery', 'ann')).toMatchObject({ code: 0, err: '' })
    expect(await add('correct horse battery', 'ann')).toMatchObject({ code: 1, out: '' })
    const operators = await node.json<unknown[]>('operator', 'list')
    expect(operators).toMatchObject([{ name: 'ann', role: 'admin' }])
    expect(await node.stop()).toBe(0)
    await node.begin()
    expect(node.stdout).toBe('ready\n')
  })

  test('a second one on the same directory ends with 1 and names the first', async () => {
    const words = [
      'serve',
      '--data',
      node.data,
      '--smtp',
      '127.0.0.1:0',
      '--web',
      'http://127.0.0.1:0',
    ]
    const { code, out, err } = await postern(words)
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(complaints(err)).toHaveLength(1)
    expect(err).toContain(`pid ${node.pid}`)
    expect((await node.status()).ready).toBe(true)
  })

  test('doctor looks at it from outside and finds it well', async () => {
    const { code, out } = await node.command('doctor', '--json')
    const checks = JSON.parse(out) as { name: string; state: string }[]
    const failed = checks.filter(({ state }) => state === 'fail')
    expect({ code, failed }).toEqual({ code: 0, failed: [] })
    for (const name of ['data', 'disk', 'node', 'smtp', 'web', 'inspectors', 'names', 'clock']) {
      expect(checks.map((check) => check.name)).toContain(name)
    }
  })

  test('after kill -9 its children are gone within 1 s, and a start works at once', async () => {
    const children = treeOf(node.pid).slice(1)
    expect(children.length).toBeGreaterThan(0)
    await node.kill()
    expect(await until(() => !children.some(isAlive), 1_000)).toBe(true)
    await node.begin()
    expect((await node.status()).ready).toBe(true)
  })

  test('SIGTERM ends it cleanly with 0, and its children too', async () => {
    const tree = treeOf(node.pid)
    expect(await node.stop(5_000)).toBe(0)
    expect(await until(() => !tree.some(isAlive), 1_000)).toBe(true)
    expect((await node.command('status')).err).toContain(`no node runs on ${node.data}`)
  })
})

test('the web is https with a key of its own, whose pin the status shows', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'postern-serve-'))
  const [smtp, web] = [freePort(), freePort()]
  const child = Bun.spawn(posternCommand('serve'), {
    stdin: 'ignore',
    stdout: 'pipe',
    stderr: 'ignore',
    env: {
      ...process.env,
      POSTERN_DATA: dir,
      POSTERN_SMTP: `127.0.0.1:${smtp}`,
      POSTERN_WEB: `127.0.0.1:${web}`,
      POSTERN_NAME: 'mx7',
    },
  })
  try {
    for await (const piece of child.stdout) {
      if (new TextDecoder().decode(piece).includes('ready')) break
    }
    const socket = connect({ host: '127.0.0.1', port: web, rejectUnauthorized: false })
    await new Promise((resolve, reject) => socket.on('secureConnect', resolve).on('error', reject))
    const { raw } = socket.getPeerCertificate()
    socket.destroy()
    const { publicKey } = new X509Certificate(raw)
    const key = publicKey.export({ type: 'spki', format: 'der' })
    const pin = `sha256//${createHash('sha256').update(key).digest('base64')}`
    const { out } = await postern(['--data', dir, 'status', '--json'])
    expect(JSON.parse(out)).toMatchObject({ name: 'mx7', webPin: pin })
    expect(publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: 'prime256v1' })
  } finally {
    child.kill('SIGKILL')
    await child.exited
    rmSync(dir, { recursive: true, force: true })
  }
})

test('SIGTERM at any instant of a start or a run ends it with 0 within 10 s', async () => {
  const dir = mkdtempSync(join(tmpdir(), 'postern-term-'))
  const random = new SeededRandom(20)
  const instants = [0, 20, ...Array.from({ length: 12 }, () => random.below(1_500))]
  const codes: (number | null)[] = []
  for (const [index, delayMs] of instants.entries()) {
    // Every other one starts where one before was ended.
    const data = join(dir, `${index >> 1}`)
    const peer = ['--peer', `127.0.0.1:${freePort()}`]
    const listen = ['--smtp', '127.0.0.1:0', '--web', 'http://127.0.0.1:0', ...peer]
    const before = lockedBy(data)
    const child = Bun.spawn(posternCommand('serve', '--data', data, ...listen), {
      stdin: 'ignore',
      stdout: 'ignore',
      stderr: 'ignore',
    })
    // From here on the process has said that it wants to hear of signals.
    await until(() => lockedBy(data) !== before, 10_000)
    await pause(clock, delayMs)
    child.kill('SIGTERM')
    const timer = clock.after(10_000, () => child.kill('SIGKILL'))
    codes.push(await child.exited)
    timer.cancel()
  }
  expect(codes).toEqual(instants.map(() => 0))
  rmSync(dir, { recursive: true, force: true })
}, 300_000)

describe('a start that cannot succeed ends with 1, one line, and leaves things as they were', () => {
  let dir = ''
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'postern-start-'))
  })
  afterAll(() => rmSync(dir, { recursive: true, force: true }))

  const start = (data: string, smtp: string, web: string) =>
    postern(['serve', '--data', data, '--smtp', smtp, '--web', web])

  test.each(['--smtp', '--web'])('a port in use names the port and %s', async (option) => {
    const taken = Bun.listen({ hostname: '127.0.0.1', port: 0, socket: { data() {} } })
    const busy = `127.0.0.1:${taken.port}`
    const [smtp, web] = option === '--smtp' ? [busy, '127.0.0.1:0'] : ['127.0.0.1:0', busy]
    const { code, out, err } = await start(join(dir, 'port'), smtp, `http://${web}`)
    taken.stop(true)
    expect({ code, out }).toEqual({ code: 1, out: '' })
    expect(complaints(err)).toHaveLength(1)
    expect(err).toContain(String(taken.port))
    expect(err).toContain(option)
  })

  test('a directory that is a file', async () => {
    const path = join(dir, 'file')
    writeFileSync(path, 'mine')
    const { code, err } = await start(path, '127.0.0.1:0', 'http://127.0.0.1:0')
    expect(code).toBe(1)
    expect(complaints(err)).toHaveLength(1)
    expect(readFileSync(path, 'utf8')).toBe('mine')
  })

  test('a path too long for a socket', async () => {
    const { code, err } = await start(
      join(dir, 'x'.repeat(120)),
      '127.0.0.1:0',
      'http://127.0.0.1:0',
    )
    expect(code).toBe(1)
    expect(complaints(err)).toHaveLength(1)
    expect(err).toContain('too long')
  })

  test('data of a newer version', async () => {
    const data = join(dir, 'newer')
    mkdirSync(data, { mode: 0o700 })
    const newer = JSON.stringify({
      nodeId: '0'.repeat(16),
      spoolId: '0'.repeat(16),
      epoch: 1,
      name: 'x',
      format: 99_999,
    })
    writeFileSync(join(data, 'node.json'), newer)
    const { code, err } = await start(data, '127.0.0.1:0', 'http://127.0.0.1:0')
    expect(code).toBe(1)
    expect(complaints(err)).toHaveLength(1)
    expect(err).toContain('newer')
    expect(readFileSync(join(data, 'node.json'), 'utf8')).toBe(newer)
  })
})

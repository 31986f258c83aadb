/** The command line: what it asks of the node, what it prints, and with which code it ends. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Server } from 'bun'
import { isoTime, SystemClock } from '../src/base/clock.ts'
import { SeededRandom } from '../src/base/random.ts'
import { ownAddresses, parseAddress, parseWeb } from '../src/cli/address.ts'
import { completionScript } from '../src/cli/completion.ts'
import { commandHelp, manualPage, overviewHelp } from '../src/cli/help.ts'
import { parseCommandLine } from '../src/cli/parse.ts'
import { jsonText, plain, size, span, table } from '../src/cli/print.ts'
import { RUNNABLE, runCommandLine } from '../src/cli/run.ts'
import { COMMANDS } from '../src/cli/table.ts'
import type { NodeOptions, World } from '../src/cli/world.ts'
import { ManualClock } from './clock.ts'
import { settled } from './pipes.ts'
import { posternCommand } from './real.ts'

type Asked = { readonly method: string; readonly path: string; readonly body: unknown }

/** A node as far as the command line sees it: fixed answers, and what was asked. */
class FakeNode {
  readonly dataDir = mkdtempSync(join(tmpdir(), 'postern-cli-'))
  readonly asked: Asked[] = []
  answer: { readonly status: number; readonly body: unknown } = { status: 200, body: {} }
  readonly #server: Server<undefined>

  constructor() {
    this.#server = Bun.serve({
      unix: join(this.dataDir, 'control.sock'),
      fetch: async (request) => {
        const { pathname, search } = new URL(request.url)
        const text = await request.text()
        const body: unknown = text === '' ? undefined : JSON.parse(text)
        this.asked.push({ method: request.method, path: pathname + search, body })
        const { status, body: answer } = this.answer
        if (answer instanceof Uint8Array) return new Response(new Uint8Array(answer), { status })
        return answer === undefined
          ? new Response(null, { status: 204 })
          : Response.json(answer, { status })
      },
    })
  }

  async close(): Promise<void> {
    await this.#server.stop(true)
    rmSync(this.dataDir, { recursive: true, force: true })
  }
}

type Ran = { readonly code: number; readonly out: string; readonly err: string }

/** Runs one command line in this process. */
async function run(argv: readonly string[], world: Partial<World> = {}): Promise<Ran> {
  let out = ''
  let err = ''
  const code = await runCommandLine(argv, {
    environment: {},
    clock: new SystemClock(),
    random: new SeededRandom(1),
    command: posternCommand(),
    out: async (text) => {
      out += typeof text === 'string' ? text : Buffer.from(text).toString('latin1')
    },
    err: (text) => {
      err += text
    },
    input: async () => '',
    bytes: async () => new Uint8Array(),
    terminal: null,
    startNode: () => Promise.reject(new Error('no node in this test')),
    untilSignal: () => Promise.resolve('SIGTERM'),
    ...world,
  })
  return { code, out, err }
}

const node = new FakeNode()
const onNode = (...words: readonly string[]) => ['--data', node.dataDir, ...words]
afterAll(() => node.close())

/** Runs a command against the fake node and gives what it was asked, too. */
async function ask(
  words: readonly string[],
  body: unknown,
  options: { readonly status?: number; readonly world?: Partial<World> } = {},
): Promise<Ran & { readonly asked: readonly Asked[] }> {
  node.asked.length = 0
  node.answer = { status: options.status ?? 200, body }
  const ran = await run(onNode(...words), options.world)
  return { ...ran, asked: [...node.asked] }
}

const list = (rows: readonly unknown[], cursor: string | null = null) => ({
  rows,
  total: 1_234,
  cursor,
})

const INVITED = {
  token: 'pj1_abc',
  command: 'curl … | sh -s -- pj1_abc',
  expiresAt: '2099-01-01T00:00:00.000Z',
}

const ofNode = (state: string, queue: number) => ({
  nodes: [
    { id: 'a1', name: 'mx1', here: true, state: 'alive', report: { queue: 9, held: 0 } },
    { id: 'b2', name: 'mx2', here: false, state, report: { queue, held: 2 } },
  ],
})

const ALERT = {
  id: 'dead b2',
  kind: 'dead',
  level: 'bad',
  node: 'b2',
  nodeName: 'mx2',
  since: isoTime(new SystemClock().wallMs() - 245_000),
  title: 'mx2 does not answer',
  meaning: '14 mails wait.',
  advice: 'Remove it.',
  command: 'postern remove mx2',
}

describe('what a command asks of the node', () => {
  const asks: readonly (readonly [
    words: string,
    method: string,
    path: string,
    body: unknown,
    answer: unknown,
  ])[] = [
    ['status', 'GET', '/api/v1/status', undefined, { ready: true }],
    ['domain list', 'GET', '/api/v1/domains', undefined, list([])],
    ['domain show a.example', 'GET', '/api/v1/domains/a.example', undefined, {}],
    [
      'domain add a.example --next-hop smtp://h:25,lmtp://h:24',
      'PUT',
      '/api/v1/domains/a.example',
      { nextHops: ['smtp://h:25', 'lmtp://h:24'] },
      {},
    ],
    ['domain add a.example', 'PUT', '/api/v1/domains/a.example', {}, {}],
    [
      'domain add a.example --enforce off',
      'PUT',
      '/api/v1/domains/a.example',
      { enforce: false },
      {},
    ],
    [
      'domain add a.example --enforce default',
      'PUT',
      '/api/v1/domains/a.example',
      { enforce: null },
      {},
    ],
    [
      'domain add a.example --recipients=ann,bob --hold 5.5 --reject default',
      'PUT',
      '/api/v1/domains/a.example',
      { recipients: ['ann', 'bob'], hold: 5.5, reject: null },
      {},
    ],
    [
      'domain add a.example --recipients any',
      'PUT',
      '/api/v1/domains/a.example',
      { recipients: null },
      {},
    ],
    ['domain remove a/b', 'DELETE', '/api/v1/domains/a%2Fb', undefined, undefined],
    ['operator list', 'GET', '/api/v1/operators', undefined, list([])],
    ['operator remove ann', 'DELETE', '/api/v1/operators/ann', undefined, undefined],
    ['config get', 'GET', '/api/v1/settings', undefined, list([])],
    ['config get policy.hold', 'GET', '/api/v1/settings/policy.hold', undefined, {}],
    ['config set policy.hold 5', 'PUT', '/api/v1/settings/policy.hold', { value: '5' }, {}],
    ['config set policy.hold -1', 'PUT', '/api/v1/settings/policy.hold', { value: '-1' }, {}],
    ['config history --limit 5', 'GET', '/api/v1/changes?limit=5', undefined, list([])],
    ['config undo 7', 'POST', '/api/v1/changes/7/undo', undefined, undefined],
    ['quarantine list', 'GET', '/api/v1/quarantine', undefined, list([])],
    [
      'quarantine list from:ann --cursor x',
      'GET',
      '/api/v1/quarantine?q=from%3Aann&cursor=x',
      undefined,
      list([]),
    ],
    ['quarantine show m1', 'GET', '/api/v1/quarantine/m1', undefined, {}],
    ['quarantine release m1', 'POST', '/api/v1/quarantine/m1/release', {}, {}],
    [
      'quarantine release m1 --recipient a@b',
      'POST',
      '/api/v1/quarantine/m1/release',
      { recipient: 'a@b' },
      {},
    ],
    [
      'quarantine release m1 --anyway',
      'POST',
      '/api/v1/quarantine/m1/release',
      { anyway: true },
      {},
    ],
    ['quarantine delete m1', 'POST', '/api/v1/quarantine/m1/delete', {}, {}],
    ['queue list --alone', 'GET', '/api/v1/queue?alone=true', undefined, list([])],
    ['invite --replace mx2', 'POST', '/api/v1/invitations', { replaces: 'mx2' }, INVITED],
    ['invite', 'POST', '/api/v1/invitations', {}, INVITED],
    [
      'invite --ttl 2h --uses 3 --name mx3',
      'POST',
      '/api/v1/invitations',
      { minutes: 120, uses: 3, name: 'mx3' },
      INVITED,
    ],
    ['invite --ttl 15', 'POST', '/api/v1/invitations', { minutes: 15 }, INVITED],
    ['invite --ttl 1d', 'POST', '/api/v1/invitations', { minutes: 1_440 }, INVITED],
    ['invite --list', 'GET', '/api/v1/invitations', undefined, list([])],
    ['invite --revoke 0123', 'DELETE', '/api/v1/invitations/0123', undefined, { done: true }],
    ['join pj1_abc', 'POST', '/api/v1/cluster/join', { token: 'pj1_abc' }, { done: true }],
    [
      'join pj1_abc --discard',
      'POST',
      '/api/v1/cluster/join',
      { token: 'pj1_abc', discard: true },
      { done: true },
    ],
    ['leave', 'POST', '/api/v1/cluster/leave', { abandon: false }, { done: true }],
    ['leave --abandon', 'POST', '/api/v1/cluster/leave', { abandon: true }, { done: true }],
    ['remove mx2', 'DELETE', '/api/v1/nodes/mx2', undefined, { renew: [] }],
    ['drain', 'POST', '/api/v1/nodes/self/drain', undefined, { done: true }],
    ['drain mx2', 'POST', '/api/v1/nodes/mx2/drain', undefined, { done: true }],
    ['undrain', 'POST', '/api/v1/nodes/self/undrain', undefined, { done: true }],
    ['conflict list', 'GET', '/api/v1/conflicts', undefined, list([])],
    [
      'conflict keep setting/policy.hold s1',
      'POST',
      '/api/v1/conflicts/keep',
      { key: 'setting/policy.hold', side: 's1' },
      { done: true },
    ],
    ['allow list', 'GET', '/api/v1/lists/allow', undefined, list([])],
    [
      'allow add 192.0.2.0/24',
      'POST',
      '/api/v1/lists/allow',
      { kind: 'ip', value: '192.0.2.0/24' },
      {},
    ],
    [
      'block add @spam.example --note=campaign',
      'POST',
      '/api/v1/lists/block',
      { kind: 'sender', value: '@spam.example', note: 'campaign' },
      {},
    ],
    ['block list', 'GET', '/api/v1/lists/block', undefined, list([])],
    [
      'block remove 192.0.2.0/24',
      'DELETE',
      '/api/v1/lists/block/ip/192.0.2.0%2F24',
      undefined,
      { done: true },
    ],
    [
      'allow remove a@b.example',
      'DELETE',
      '/api/v1/lists/allow/sender/a%40b.example',
      undefined,
      {},
    ],
    ['token list', 'GET', '/api/v1/tokens', undefined, list([])],
    [
      'token add ci --days 30',
      'POST',
      '/api/v1/tokens',
      { name: 'ci', role: 'viewer', days: 30 },
      { token: 'x', row: { id: 't1' } },
    ],
    ['token remove t1', 'DELETE', '/api/v1/tokens/t1', undefined, { done: true }],
    ['queue list --limit 1000', 'GET', '/api/v1/queue?limit=1000', undefined, list([])],
    ['queue show m1', 'GET', '/api/v1/queue/m1', undefined, {}],
    ['queue retry', 'POST', '/api/v1/queue/retry', undefined, { retried: 3 }],
    ['queue retry m1', 'POST', '/api/v1/queue/m1/retry', undefined, { retried: 1 }],
    ['queue drop m1', 'POST', '/api/v1/queue/m1/drop', { bounce: false }, undefined],
    ['queue drop m1 --bounce', 'POST', '/api/v1/queue/m1/drop', { bounce: true }, undefined],
    ['trace', 'GET', '/api/v1/trace', undefined, list([])],
    ['trace from:ann is:held', 'GET', '/api/v1/trace?q=from%3Aann+is%3Aheld', undefined, list([])],
    ['trace list ann', 'GET', '/api/v1/trace?q=ann', undefined, list([])],
    ['trace show m1', 'GET', '/api/v1/trace/m1', undefined, { rows: [], events: [] }],
  ]
  for (const [words, method, path, body, answer] of asks) {
    test(words, async () => {
      const ran = await ask([...words.split(' '), '--json'], answer)
      expect(ran.err).toBe('')
      expect(ran.code).toBe(0)
      expect(ran.asked).toEqual([{ method, path, body }])
    })
  }

  test('an operator is added with the first line of standard input as password', async () => {
    const world = { input: async () => 'correct horse\r\nsecond line\n' }
    const words = ['operator', 'add', 'ann', '--password-stdin', '--role', 'viewer']
    const { asked, code, out } = await ask(words, undefined, { world })
    const body = { name: 'ann', password: 'correct horse', role: 'viewer' }
    expect(asked).toEqual([{ method: 'POST', path: '/api/v1/operators', body }])
    expect(code).toBe(0)
    expect(out).not.toContain('horse')
  })

  test('a join token may come by standard input, or in a file', async () => {
    const path = join(node.dataDir, 'token')
    writeFileSync(path, 'pj1_file\n')
    const world = { input: async () => ' pj1_input\nmore\n' }
    const sent = async (word: string) => {
      const { asked } = await ask(['join', word], { done: true }, { world })
      return asked.map(({ body }) => body)
    }
    expect(await sent('-')).toEqual([{ token: 'pj1_input' }])
    expect(await sent(`@${path}`)).toEqual([{ token: 'pj1_file' }])
  })

  test('an API token is alone on standard output', async () => {
    const { out, err } = await ask(['token', 'add', 'ci'], { token: 'pt_x', row: { id: 't1' } })
    expect(out).toBe('pt_x\n')
    expect(err).toContain('postern token remove t1')
  })

  test('an invitation shows the line for a new machine, and how long it is good', async () => {
    const expiresAt = isoTime(new SystemClock().wallMs() + 15 * 60_000 + 500)
    const { out } = await ask(['invite', '--uses', '2'], { ...INVITED, expiresAt })
    expect(out).toContain(`\n  ${INVITED.command}\n`)
    expect(out).toContain('\n  postern join pj1_abc\n')
    expect(out).toContain('2 times, for 15 min')
  })

  test('a removed node says what it could read', async () => {
    const gone = { node: '0123', name: 'mx2', held: 3, renew: ['The \u001b[31mkeys.'] }
    const { out } = await ask(['remove', 'mx2'], gone)
    expect(out).toContain('mx2 (0123) is removed')
    expect(out).toContain('Held mail of it: 3;')
    expect(out).toContain('  The ·[31mkeys.\n')
  })

  test('a drain that is waited for names what stays, and ends with 1 when mail does', async () => {
    const some = await ask(['drain', 'mx2', '--wait'], ofNode('drained', 3))
    expect(some.asked.map(({ path }) => path)).toEqual([
      '/api/v1/nodes/mx2/drain',
      '/api/v1/cluster',
    ])
    expect(some.out).toContain('mx2 is drained.')
    expect(some.out).toContain('Mail that stays in its queue, as nobody took it: 3.')
    expect([some.code, some.out.includes('Held mail stays: 2.')]).toEqual([1, true])
    expect((await ask(['drain', 'mx2', '--wait'], ofNode('drained', 0))).code).toBe(0)
    const dead = await ask(['drain', 'mx2', '--wait'], ofNode('dead', 3))
    expect([dead.code, dead.err]).toEqual([1, 'mx2 is dead before it was drained.\n'])
  })

  test('a password is changed with the first line of standard input', async () => {
    const world = { input: async () => 'battery staple\n' }
    const words = ['operator', 'password', 'ann', '--password-stdin']
    const { asked, code, out } = await ask(words, { done: true }, { world })
    const body = { password: 'battery staple' }
    expect(asked).toEqual([{ method: 'PUT', path: '/api/v1/operators/ann/password', body }])
    expect([code, out]).toEqual([0, 'ann has another password, and is signed out everywhere.\n'])
    const without = await run(onNode('operator', 'password', 'ann'))
    expect([without.code, without.err.split(': ')[1]]).toEqual([
      2,
      'The password comes by standard input. Try',
    ])
  })

  test('what is undone is called as config get calls it', async () => {
    const { out } = await ask(['config', 'undo', '7'], { done: true, key: 'setting/policy.hold' })
    expect(out).toBe('policy.hold is as it was before.\n')
    const row = { id: '7', at: isoTime(0), by: 'ann', key: 'setting/policy.hold' }
    const history = await ask(['config', 'history'], list([{ ...row, before: null, after: '7' }]))
    expect(history.out).toContain('  policy.hold  (none) > 7')
  })

  test('status says what somebody should look at, and what to run', async () => {
    const status = {
      ready: true,
      problems: [],
      queue: { messages: 0 },
      disk: { freeBytes: 1, totalBytes: 2 },
      inspectors: { processes: 1, ready: 1, missing: [] },
      nodes: [],
    }
    expect((await ask(['status'], status)).out).toEndWith('\nNo alerts.\n')
    const { out } = await ask(['status'], { ...status, alerts: [ALERT] })
    expect(out).toEndWith(
      '\nALERT  mx2 does not answer, for 4 min\n       14 mails wait.\n       Remove it. postern remove mx2\n',
    )
  })

  test('status shows the nodes when there are several', async () => {
    const nodes = [
      { id: 'a1', name: 'mx1', state: 'alive', lagMs: 0 },
      { id: 'b2', name: 'mx2', state: 'suspect', lagMs: 65_000 },
    ]
    const status = {
      node: 'a1',
      name: 'mx1',
      ready: true,
      problems: [],
      queue: { messages: 0 },
      disk: { freeBytes: 1, totalBytes: 2 },
      inspectors: { processes: 1, ready: 1, missing: [] },
      nodes,
    }
    const { out } = await ask(['status'], status)
    expect(out).toMatch(/mx1 +alive +this node +a1\n/)
    expect(out).toMatch(/mx2 +suspect +1 min +b2\n/)
    expect((await ask(['status'], { ...status, nodes: nodes.slice(0, 1) })).out).not.toContain(
      'BEHIND',
    )
  })

  test('a conflict shows its sides, the one in force first', async () => {
    const side = { value: '5', by: 'ann', node: 'mx1', at: isoTime(0) }
    const rows = [
      {
        key: 'setting/x',
        sides: [
          { id: 's1', ...side },
          { id: 's2', ...side, value: null },
        ],
      },
    ]
    const { out } = await ask(['conflict', 'list'], list(rows))
    expect(out).toMatch(
      /^setting\/x\n {2}s1 {2}5 {2}by ann on mx1, .* ago {2}\(in force\)\n {2}s2 {2}\(removed\)/,
    )
  })

  test('an export is settings by key and the domains', async () => {
    const { out } = await ask(['config', 'export'], list([{ key: 'policy.hold', value: 8 }]))
    expect(JSON.parse(out)).toEqual({
      settings: { 'policy.hold': 8 },
      domains: [{ key: 'policy.hold', value: 8 }],
    })
  })
})

describe('what a command prints', () => {
  const held = {
    id: 'm1',
    node: 'n1',
    sender: 'eve@evil.example',
    recipients: ['ann@a.example'],
    subject: 'Pay\u001b[2J now\u202e',
    rules: ['GTUBE'],
    score: 10,
    heldAt: '2026-11-22T00:00:00.000Z',
    nodeName: 'mx1',
    pending: [],
  }

  test('a list under --json is the plain array, and the place to go on is on stderr', async () => {
    const { out, err } = await ask(['quarantine', 'list', '--json'], list([held], 'c2'))
    expect(JSON.parse(out)).toEqual([held])
    expect(err).toBe('1 of 1234; more: --cursor c2\n')
  })

  test('text of strangers cannot steer the terminal, in a table or as JSON', async () => {
    for (const words of [
      ['quarantine', 'list'],
      ['quarantine', 'list', '--json'],
    ]) {
      const { out } = await ask(words, list([held]))
      expect(out).toContain('Pay')
      expect(out).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]/)
    }
  })

  test('what waits for the node that has the mail is not called done', async () => {
    expect((await ask(['quarantine', 'release', 'm1'], held)).out).toBe('m1 is released.\n')
    expect((await ask(['quarantine', 'delete', 'm1'], held)).out).toBe('m1 is deleted.\n')
    const pending = [
      { recipient: 'ann@a.example', kind: 'release', by: 'bo', at: held.heldAt, nodeName: 'mx1' },
    ]
    const doubtSince = '2026-11-22T03:04:00.000Z'
    const waits = { words: 'waits for mx1', doubtSince }
    const more = { findings: [], unknowns: [], claims: [], expiresAt: '', waits, holders: [] }
    const waiting = { ...held, pending, ...more }
    expect((await ask(['quarantine', 'release', 'm1'], waiting, { status: 202 })).out).toBe(
      'mx1 has it and does not answer: the release of m1 is done when it does.\n',
    )
    expect((await ask(['quarantine', 'list'], list([waiting]))).out).toContain('mx1, release waits')
    const { out } = await ask(['quarantine', 'show', 'm1'], waiting)
    expect(out).toContain(
      'ann@a.example: release asked for by bo at 2026-11-22T00:00:00.000Z, waits for mx1',
    )
    expect(out).toContain(`waits for mx1; it may have been released since ${doubtSince}`)
    expect(out).toContain('quarantine release m1 --anyway')
  })

  test('a queue says what it waits for', async () => {
    const recipient = {
      address: 'ann@a.example',
      state: 'deferred',
      attempts: 2,
      nextTry: null,
      lastReply: '451 4.3.0 busy',
    }
    const holders = [
      { nodeName: 'mx2', state: 'kept' },
      { nodeName: 'mx3', state: 'sent' },
      { nodeName: 'mx4', state: 'discarding' },
    ]
    const row = {
      ...held,
      state: 'deferred',
      acceptedAt: held.heldAt,
      expiresAt: held.heldAt,
      recipients: [recipient],
      holders,
      waits: null,
      term: 2,
    }
    const answer = { ...list([row]), silent: [{ id: 'b2', name: 'mx5' }] }
    const { out, err } = await ask(['queue', 'list'], answer)
    expect(out).toMatch(/^m1 +deferred .* mx2, mx3\? .* ann@a\.example +451 4\.3\.0 busy$/m)
    expect(err).toContain('mx5 gave no answer: ')
    const barred = { ...row, holders: [], waits: 'for word of mx2' }
    expect((await ask(['queue', 'list'], list([barred]))).out).toMatch(
      /^m1 +waits .* - .* for word of mx2$/m,
    )
    const shown = (await ask(['queue', 'show', 'm1'], barred)).out
    expect(shown).toContain('for word of mx2')
    expect(shown).toContain('mx1, which took it over (term 2)')
    expect(shown).toMatch(/Copies +none/)
  })

  test('a list of values is printed as config set reads it', async () => {
    const row = { key: 'limits.exempt', value: ['127.0.0.0/8', '::1'] }
    expect((await ask(['config', 'get', 'limits.exempt'], row)).out).toBe('127.0.0.0/8,::1\n')
  })

  test('a mail is taught by its id, or byte for byte by standard input', async () => {
    const lesson = { subject: 'Offer', label: 'spam', before: null, spam: 3, ham: 2, flip: null }
    const { asked: byId, out } = await ask(['learn', 'spam', 'm1'], lesson)
    expect(out).toBe('“Offer” is learnt as spam; 3 spam and 2 ham are known.\n')
    expect(byId.map(({ path, body }) => [path, body])).toEqual([
      ['/api/v1/learning', { as: 'spam', id: 'm1' }],
    ])
    const world = { bytes: async () => Uint8Array.from([0, 255, 13, 10, 128]) }
    const words = ['learn', 'ham', '-', '--domain', 'a.example']
    const { asked } = await ask(words, lesson, { world })
    expect(asked[0]?.body).toEqual({ as: 'ham', source: 'AP8NCoA=', domain: 'a.example' })
    const large = { bytes: async () => new Uint8Array(3_000_001) }
    expect((await ask(['learn', 'ham', '-'], lesson, { world: large })).code).toBe(2)
    expect((await ask(['learn', 'junk', 'm1'], lesson)).code).toBe(2)
  })

  test('the source of a held mail comes byte for byte', async () => {
    const bytes = Uint8Array.from([0, 255, 13, 10, 128])
    const { out } = await ask(['quarantine', 'source', 'm1'], bytes)
    expect(Buffer.from(out, 'latin1')).toEqual(Buffer.from(bytes))
  })

  test('a trace with a word that was not understood says so', async () => {
    const answer = { ...list([]), mistakes: ['form:ann'] }
    const { err, out } = await ask(['trace', 'form:ann'], answer)
    expect(err).toContain('form:ann')
    expect(out).toBe('No mail matches.\n')
  })
})

describe('a refusal', () => {
  const refusal = {
    error: {
      code: 'notFound',
      field: 'id',
      message: 'There is no held mail m9.',
      remedy: 'See "quarantine list".',
    },
  }

  test('is one line with the reason and the remedy on stderr, exit code 1', async () => {
    const { code, out, err } = await ask(['quarantine', 'release', 'm9'], refusal, { status: 404 })
    expect(code).toBe(1)
    expect(out).toBe('')
    expect(err).toBe('postern: There is no held mail m9. See "quarantine list".\n')
  })

  test('is JSON under --json', async () => {
    const words = ['quarantine', 'release', 'm9', '--json']
    const { code, out, err } = await ask(words, refusal, { status: 404 })
    expect(code).toBe(1)
    expect(out).toBe('')
    expect(JSON.parse(err)).toEqual(refusal)
  })

  test('an answer that is no refusal of ours is still a refusal', async () => {
    const { code, err } = await ask(['status'], 'oops', { status: 500 })
    expect(code).toBe(1)
    expect(err).toBe('postern: The node answered 500. Look at its log.\n')
  })

  test('without a node it says so and names the directory', async () => {
    const empty = mkdtempSync(join(tmpdir(), 'postern-cli-none-'))
    try {
      const { code, err } = await run(['--data', empty, 'status'])
      expect(code).toBe(1)
      expect(err).toStartWith(`postern: no node runs on ${empty}. `)
      const json = await run(['--data', `${empty}/${'deep/'.repeat(40)}`, 'status', '--json'])
      expect(JSON.parse(json.err)).toMatchObject({ error: { code: 'unavailable', field: 'data' } })
    } finally {
      rmSync(empty, { recursive: true })
    }
  })

  test('a socket that was left behind is no node', async () => {
    const left = mkdtempSync(join(tmpdir(), 'postern-cli-left-'))
    // A listener that dies without removing its socket, as after kill -9.
    const maker = `require('net').createServer().listen(${JSON.stringify(join(left, 'control.sock'))}, () => process.kill(process.pid, 'SIGKILL'))`
    Bun.spawnSync([process.execPath, '-e', maker])
    const { code, err } = await run(['--data', left, 'status'])
    rmSync(left, { recursive: true })
    expect(code).toBe(1)
    expect(err).toContain('no node runs on')
  })
})

describe('wrong usage is exit code 2, one line, and nothing is asked', () => {
  const mistakes: readonly (readonly [words: string, says: string])[] = [
    ['frobnicate', 'unknown command "frobnicate"'],
    ['queue', 'needs one of: list, show, retry, drop'],
    ['queue frob', 'needs one of'],
    ['domain add', 'needs NAME'],
    ['domain add a b', 'does not take "b"'],
    ['queue list --bounce', 'has no option --bounce'],
    ['queue list --frob', 'unknown option --frob'],
    ['queue list --limit', '--limit needs a value'],
    ['queue list --limit 0', 'out of range'],
    ['queue list --limit 1001', 'out of range'],
    ['queue list --limit five', 'out of range'],
    ['queue drop m1 --bounce=yes', 'takes no value'],
    ['domain add a.example --hold many', 'no number'],
    ['operator add ann', 'standard input'],
    ['completion tcsh', 'bash, zsh, fish'],
    ['help frobnicate', 'no command'],
    ['serve --peer 127.0.0.1', 'no address'],
    ['serve --advertise mx1.example:7946', 'is a name'],
    ['serve --advertise 192.0.2.1:x', 'no address'],
    [
      'serve --advertise 1.1.1.1,1.1.1.2,1.1.1.3,1.1.1.4,1.1.1.5,1.1.1.6,1.1.1.7,1.1.1.8,1.1.1.9',
      '9 addresses',
    ],
    ['serve --join @/nowhere/token', 'cannot be read'],
    ['serve --adopt-identity --new-identity', 'exclude each other'],
    ['join @/nowhere/token', 'cannot be read'],
    ['join', 'needs TOKEN'],
    ['invite --ttl soon', 'is no time'],
    ['invite --uses many', 'no number'],
    ['token add ci --days x', 'no number'],
    ['serve --smtp 25', 'no address'],
    ['serve --smtp 127.0.0.1:70000', 'no address'],
    ['serve --web http://0.0.0.0:8080', 'clear text'],
    ['serve --web ftp://127.0.0.1:8080', 'no address'],
    ['serve --log-level loud', 'no log level'],
    ['serve --time-scale 0.5', 'out of range'],
    ['serve --time-scale 10001', 'out of range'],
    ['serve --time-scale fast', 'out of range'],
    ['demo --smtp 0.0.0.0:2525', 'on loopback'],
    ['demo --web https://0.0.0.0:8443', 'on loopback'],
  ]
  for (const [words, says] of mistakes) {
    test(words, async () => {
      const { code, out, err, asked } = await ask(words.split(' '), {})
      expect(code).toBe(2)
      expect(out).toBe('')
      expect(asked).toEqual([])
      expect(err).toMatch(/^postern: [^\n]+\n$/)
      expect(err).toContain(says)
    })
  }

  test('without a data directory', async () => {
    const { code, err } = await run(['status'])
    expect(code).toBe(2)
    expect(err).toContain('POSTERN_DATA')
  })

  test('under --json it is an error object too', async () => {
    const { code, err } = await run(['status', '--json', '--frob'])
    expect(code).toBe(2)
    expect(JSON.parse(err)).toMatchObject({ error: { code: 'usage' } })
  })
})

describe('options', () => {
  test('stand before or after the command, with = or without', () => {
    for (const line of ['--data /d queue list', 'queue --data=/d list', 'queue list --data /d']) {
      const call = parseCommandLine(line.split(' '), {})
      expect(call).toMatchObject({ kind: 'call', command: { path: 'queue list' } })
      expect(call.kind === 'call' && call.options.get('--data')).toBe('/d')
    }
  })

  test('come from the environment, and the command line wins', () => {
    const environment = { POSTERN_DATA: '/env', POSTERN_SMTP: '127.0.0.1:1', POSTERN_DEV: '0' }
    const call = parseCommandLine(['serve', '--smtp', '127.0.0.1:2'], environment)
    const options = call.kind === 'call' ? Object.fromEntries(call.options) : {}
    expect(options).toEqual({ '--data': '/env', '--smtp': '127.0.0.1:2' })
  })

  test('an option of another command in the environment changes nothing', () => {
    const call = parseCommandLine(['status'], { POSTERN_SMTP: '127.0.0.1:1' })
    expect(call.kind === 'call' && call.options.size).toBe(0)
  })

  test('after -- nothing is an option', () => {
    const call = parseCommandLine(['trace', '--', '--json'], {})
    expect(call).toMatchObject({ kind: 'call', args: ['--json'] })
  })
})

describe('addresses', () => {
  test('are HOST:PORT, IPv6 in brackets', () => {
    expect(parseAddress('--smtp', '127.0.0.1:0')).toEqual({ host: '127.0.0.1', port: 0 })
    expect(parseAddress('--smtp', '[::1]:25')).toEqual({ host: '::1', port: 25 })
    for (const text of ['', '::1:25', 'a b:25', 'host:', ':25', '[::1]', '[zz]:25', 'h:25:26']) {
      expect(() => parseAddress('--smtp', text)).toThrow('no address')
    }
  })

  test('of the web are https unless they say http, and http stays on loopback', () => {
    expect(parseWeb('--web', '0.0.0.0:8443')).toEqual({ host: '0.0.0.0', port: 8443, tls: true })
    expect(parseWeb('--web', 'https://h.example:1/')).toMatchObject({ tls: true })
    for (const host of ['127.0.0.1', '127.9.9.9', 'localhost', '[::1]']) {
      expect(parseWeb('--web', `http://${host}:80`)).toMatchObject({ port: 80, tls: false })
    }
    for (const host of ['0.0.0.0', '10.0.0.1', '127.0.0.1.example', '[::]']) {
      expect(() => parseWeb('--web', `http://${host}:80`)).toThrow('clear text')
    }
  })
})

describe('serve', () => {
  async function served(
    argv: readonly string[],
    setupUrl: string | null,
    restarts: Promise<NodeOptions>[] = [],
    world: Partial<World> = {},
  ) {
    let options: NodeOptions | null = null
    let stopped = 0
    const ran = await run(argv, {
      environment: { POSTERN_NAME: 'mx1' },
      ...world,
      startNode: async (given) => {
        options = given
        return {
          admin: undefined as never,
          smtp: { host: '127.0.0.1', port: 1 },
          web: { url: 'https://127.0.0.1:2' },
          setupUrl,
          restart: restarts.shift() ?? new Promise(() => {}),
          stop: async () => {
            stopped += 1
          },
        }
      },
    })
    return { ...ran, options: options as NodeOptions | null, stopped }
  }

  test('begins anew in the same process when the node asks for it, and says nothing more', async () => {
    const first = await served(['serve', '--data', '/d'], null)
    const anew = { ...(first.options as NodeOptions), name: 'mx7' }
    const signal = Promise.withResolvers<string>()
    const restart = Promise.resolve(anew)
    restart.then(async () => {
      // Nothing here waits for more than promises: by then it has begun anew.
      for (let round = 0; round < 50; round += 1) await Promise.resolve()
      signal.resolve('SIGTERM')
    })
    const world = { untilSignal: () => signal.promise }
    const ran = await served(['serve', '--data', '/d'], null, [restart], world)
    expect(ran.out).toBe('ready\n')
    expect(ran.stopped).toBe(2)
    expect(ran.options?.name).toBe('mx7')
  })

  test('ends 3 s after a signal that finds it starting, whatever the start waits for', async () => {
    const clock = new ManualClock()
    const codes: number[] = []
    const world = { clock, startNode: () => new Promise<never>(() => {}) }
    const running = run(['serve', '--data', '/d'], world).then(({ code }) => codes.push(code))
    await settled()
    clock.advance(2_999)
    await settled()
    expect(codes).toEqual([])
    clock.advance(1)
    await running
    expect(codes).toEqual([0])
  })

  test('takes a join token from a file that may be gone at the next start', async () => {
    const dir = mkdtempSync(join(tmpdir(), 'postern-serve-'))
    const words = ['serve', '--data', dir, '--join', `@${dir}/token`]
    expect((await served(words, null)).code).toBe(2)
    writeFileSync(join(dir, 'token'), 'pj1_x\n')
    expect((await served(words, null)).options?.join).toBe('pj1_x')
    writeFileSync(join(dir, 'node.json'), '{}')
    rmSync(join(dir, 'token'))
    expect((await served(words, null)).options?.join).toBeNull()
    rmSync(dir, { recursive: true })
  })

  test('tells its peers the addresses of its interfaces, or those that it is told to', async () => {
    const advertised = async (...words: readonly string[]) =>
      (await served(['serve', '--data', '/d', ...words], null)).options?.advertise
    expect(await advertised('--peer', '127.0.0.1:0')).toEqual([{ host: '127.0.0.1', port: 0 }])
    expect(await advertised('--advertise', '192.0.2.1:7,2001:db8::1,[2001:db8::2]:9')).toEqual([
      { host: '192.0.2.1', port: 7 },
      { host: '2001:db8::1', port: 0 },
      { host: '2001:db8::2', port: 9 },
    ])
    const one = (address: string, internal = false) => ({ address, internal }) as never
    const interfaces = {
      lo: [one('127.0.0.1', true), one('::1', true)],
      eth0: [one('fe80::1'), one('2001:db8::1'), one('192.0.2.1')],
    }
    const hosts = (host: string) => ownAddresses(host, interfaces).map((found) => found.host)
    expect(hosts('0.0.0.0')).toEqual(['192.0.2.1'])
    expect(hosts('::')).toEqual(['192.0.2.1', '2001:db8::1'])
    expect(hosts('203.0.113.1')).toEqual(['203.0.113.1'])
    expect(ownAddresses('0.0.0.0', { lo: interfaces.lo })).toEqual([{ host: '127.0.0.1', port: 0 }])
  })

  test('prints the address of the set-up, then exactly ready, and stops on a signal', async () => {
    const { code, out, err, stopped } = await served(['serve', '--data', '/d'], 'https://h/setup')
    expect({ code, out, err, stopped }).toEqual({
      code: 0,
      out: 'https://h/setup\nready\n',
      err: '',
      stopped: 1,
    })
    expect((await served(['serve', '--data', '/d'], null)).out).toBe('ready\n')
  })

  test('listens everywhere by default, and without privilege under --dev', async () => {
    const { options } = await served(['serve', '--data', '/d'], null)
    expect(options).toMatchObject({
      dataDir: '/d',
      smtp: { host: '0.0.0.0', port: 25 },
      web: { host: '0.0.0.0', port: 8443, tls: true },
      name: 'mx1',
    })
    const dev = await served(['serve', '--data', '/d', '--dev'], null)
    expect(dev.options).toMatchObject({ smtp: { port: 2525 }, web: { port: 8443 }, timeScale: 1 })
  })

  test('lets long times pass faster, for tests', async () => {
    for (const [text, timeScale] of [
      ['1', 1],
      ['12.5', 12.5],
      ['10000', 10_000],
    ] as const) {
      const words = ['serve', '--data', '/d', '--time-scale', text]
      expect((await served(words, null)).options).toMatchObject({ timeScale })
    }
  })
})

test('who stops the demo does not wait for the replies to its samples', async () => {
  const silent = createServer()
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve))
  const address = silent.address()
  const port = typeof address === 'object' ? (address?.port ?? 0) : 0
  const asked = new Promise<string>((resolve) => silent.once('connection', () => resolve('SIGINT')))
  node.answer = { status: 200, body: {} }
  let stopped = false
  const words = ['demo', '--sink', '127.0.0.1:0', '--sink-web', '127.0.0.1:0']
  const { code, out } = await run(onNode(...words), {
    untilSignal: () => asked,
    startNode: async () => ({
      // The other two nodes join with this; they start as it does.
      admin: { invite: () => ({ token: 'pj1_x' }) } as never,
      smtp: { host: '127.0.0.1', port },
      web: { url: 'http://127.0.0.1:1' },
      setupUrl: null,
      restart: new Promise(() => {}),
      stop: async () => {
        stopped = true
      },
    }),
  })
  silent.close()
  expect({ code, stopped }).toEqual({ code: 0, stopped: true })
  expect(out).toContain('Postern demo')
})

describe('help, completion and manual', () => {
  test('every command of the table has code, and the other way round', () => {
    expect([...RUNNABLE].sort()).toEqual(COMMANDS.map(({ path }) => path).sort())
  })

  test('help names every command and every option', async () => {
    const overview = overviewHelp()
    for (const command of COMMANDS) {
      expect(overview).toContain(`  ${command.path}`)
      const own = commandHelp([command])
      for (const { name, hidden } of command.options)
        expect([name, own.includes(`${name} `)]).toEqual([name, !hidden])
      const asked = await run([...command.path.split(' '), '--help'])
      expect(asked).toEqual({ code: 0, out: own, err: '' })
    }
  })

  test('the manual page names them too, and no text of ours is a roff request', () => {
    const page = manualPage('1.2.3')
    for (const { path, options } of COMMANDS) {
      expect(page).toContain(path)
      for (const { name } of options) expect(page).toContain(name.replaceAll('-', '\\-'))
    }
    const requests = page.split('\n').filter((line) => line.startsWith('.'))
    for (const line of requests) expect(line).toMatch(/^\.(TH|SH|SS|TP|B|I)\b/)
  })

  test('bash completes commands, options and files', () => {
    const complete = (...words: readonly string[]): string[] => {
      const quoted = words.map((word) => `'${word}'`).join(' ')
      const script = `${completionScript('bash')}
COMP_WORDS=(${quoted}); COMP_CWORD=${words.length - 1}; _postern; printf '%s\\n' "\${COMPREPLY[@]}"`
      const { stdout } = Bun.spawnSync(['bash', '--norc', '-c', script], { cwd: node.dataDir })
      return stdout.toString().trim().split('\n')
    }
    expect(complete('postern', 'quar')).toEqual(['quarantine'])
    expect(complete('postern', 'quarantine', 're')).toEqual(['release'])
    expect(complete('postern', '--data', '/d', 'quarantine', 're')).toEqual(['release'])
    expect(complete('postern', 'queue', 'drop', 'm1', '--bo')).toEqual(['--bounce'])
    expect(complete('postern', 'completion', '')).toEqual(['bash', 'zsh', 'fish'])
    expect(complete('postern', '--data', 'contr')).toEqual(['control.sock'])
  })

  test('zsh and fish know every command', () => {
    for (const shell of ['zsh', 'fish'] as const) {
      const script = completionScript(shell)
      for (const { path } of COMMANDS) expect(script).toContain(path.split(' ').at(-1) ?? '')
    }
  })
})

describe('what people read', () => {
  const world = { terminal: null } as World

  test('columns line up, wide characters too', () => {
    const text = table(
      world,
      ['A', 'B'],
      [
        ['x', '1'],
        ['日本', '2'],
      ],
    )
    expect(text).toBe('A     B\nx     1\n日本  2\n')
  })

  test('a narrow terminal cuts a line instead of wrapping it', () => {
    const narrow = { terminal: { columns: 8, colour: false } } as World
    const text = table(narrow, ['A'], [['123456789']])
    expect(text).toBe('A\n1234567…\n')
  })

  test('times and sizes are short', () => {
    expect([0, 999, 61_000, 3_660_000, 90_000_000].map(span)).toEqual([
      '0 s',
      '0 s',
      '1 min',
      '1 h 1 min',
      '1 d 1 h',
    ])
    expect([0, 999, 1_000, 12_345, 999_999_999].map(size)).toEqual([
      '0 B',
      '999 B',
      '1.0 KB',
      '12.3 KB',
      '1000 MB',
    ])
  })

  test('plain keeps text and drops what steers', () => {
    expect(plain('Grüße 日本 🎉')).toBe('Grüße 日本 🎉')
    expect(plain('a\nb\u009bc\u2028d')).toBe('a·b·c·d')
    expect(JSON.parse(jsonText({ a: '\u009b\u202e🎉\n' }))).toEqual({ a: '\u009b\u202e🎉\n' })
  })
})

describe('the process', () => {
  async function spawn(...words: readonly string[]): Promise<Ran> {
    const child = Bun.spawn(posternCommand(...words), {
      stdin: 'ignore',
      stdout: 'pipe',
      stderr: 'pipe',
    })
    const [out, err] = [
      await new Response(child.stdout).text(),
      await new Response(child.stderr).text(),
    ]
    return { code: await child.exited, out, err }
  }

  test('gives the exit code to the shell', async () => {
    expect(await spawn('version')).toMatchObject({ code: 0, err: '' })
    expect(await spawn('--data', '/nowhere', 'status')).toMatchObject({ code: 1, out: '' })
    expect(await spawn('frobnicate')).toMatchObject({ code: 2, out: '' })
  })

  test('a reader that goes away is no error', async () => {
    const script = '"$@" man | head -1; echo "$PIPESTATUS"'
    const child = Bun.spawnSync(['bash', '-c', script, 'bash', ...posternCommand()])
    expect(child.stdout.toString()).toMatch(/^\.TH POSTERN 8 .*\n0\n$/)
    expect(child.stderr.toString()).toBe('')
  })
})

describe('doctor', () => {
  type Check = {
    readonly name: string
    readonly state: string
    readonly seen: string
    readonly advice: string | null
  }

  async function checks(
    ...words: readonly string[]
  ): Promise<Ran & { readonly by: Map<string, Check> }> {
    const ran = await run(['doctor', '--json', ...words])
    const found = JSON.parse(ran.out) as Check[]
    return { ...ran, by: new Map(found.map((check) => [check.name, check])) }
  }

  let dir = ''
  beforeAll(() => {
    dir = mkdtempSync(join(tmpdir(), 'postern-doctor-'))
  })
  afterAll(() => rmSync(dir, { recursive: true, force: true }))

  test('without a node: a free port passes, a port in use fails and names the option', async () => {
    const taken = createServer()
    await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
    const address = taken.address()
    const port = typeof address === 'object' ? address?.port : 0
    const used = `127.0.0.1:${port}`
    const { by, code } = await checks('--smtp', used, '--web', '127.0.0.1:0', '--peer', used)
    taken.close()
    expect(code).toBe(1)
    expect(by.get('smtp')).toMatchObject({ state: 'fail' })
    expect(by.get('smtp')?.advice).toContain('--smtp')
    expect(by.get('web')).toMatchObject({ state: 'pass' })
    expect(by.get('peers')).toMatchObject({ state: 'fail' })
  })

  test('a directory that others may read fails', async () => {
    const open = join(dir, 'open')
    mkdirSync(open, { mode: 0o755 })
    expect((await checks('--data', open)).by.get('data')).toMatchObject({ state: 'fail' })
    const closed = join(dir, 'closed')
    mkdirSync(closed, { mode: 0o700 })
    expect((await checks('--data', closed)).by.get('data')).toMatchObject({ state: 'pass' })
  })

  test('with a node: its own problems are told, and its ports are tried', async () => {
    const { asked, code, out } = await ask(['doctor', '--json'], {
      name: 'mx1',
      version: '1',
      ready: false,
      problems: ['The disk is full up to its reserve.'],
      smtp: '127.0.0.1:1',
      web: 'http://127.0.0.1:1',
      inspectors: { processes: 2, ready: 2, missing: ['landlock'] },
      node: 'a1',
      nodes: [
        { id: 'a1', name: 'mx1', state: 'dead' },
        { id: 'b2', name: 'mx2', state: 'dead' },
        { id: 'c3', name: 'mx3', state: 'alive' },
        { id: 'd4', name: 'mx4', state: 'left' },
      ],
      alerts: [
        ALERT,
        { ...ALERT, kind: 'disk', node: 'a1', title: 'The disk of mx1 is nearly full' },
        { ...ALERT, kind: 'clock', title: 'The clock of mx2 is 120 s ahead', meaning: 'So it is.' },
      ],
    })
    const found = new Map((JSON.parse(out) as Check[]).map((check) => [check.name, check]))
    expect(code).toBe(1)
    expect(asked.map(({ path }) => path)).toEqual([
      '/api/v1/status',
      '/api/v1/settings/dns.servers',
    ])
    expect((JSON.parse(out) as Check[]).filter(({ name }) => name === 'alert')).toEqual([
      {
        name: 'alert',
        state: 'warn',
        seen: 'The clock of mx2 is 120 s ahead. So it is.',
        advice: 'Remove it. postern remove mx2',
      },
    ])
    expect(found.get('node')).toMatchObject({
      state: 'fail',
      advice: 'The disk is full up to its reserve.',
    })
    expect(found.get('smtp')).toMatchObject({ state: 'fail' })
    expect(found.get('web')).toMatchObject({ state: 'fail' })
    expect(found.get('inspectors')?.seen).toContain('landlock')
    expect(found.get('peers')).toMatchObject({ state: 'warn', seen: 'mx2 is dead.' })
  })
})

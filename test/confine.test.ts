/** The walls of an inspector: what the kernel refuses it, as root and as an ordinary user, compiled. */
import { afterAll, beforeAll, describe, expect, test } from 'bun:test'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../src/base/clock.ts'
import { Observer } from '../src/base/observe.ts'
import { PLAIN_CONFIG } from '../src/mail/inspect/look.ts'
import { createInspectors } from '../src/mail/inspect/pool.ts'
import { seccompFilter } from '../src/mail/inspect/seccomp.ts'
import { ENVELOPE } from './look.ts'
import { needs } from './real.ts'

type Probe = {
  readonly uid: number
  readonly missing: readonly string[]
  readonly tried: Readonly<Record<string, string>>
}

const NOBODY = 65_534
const scratch = mkdtempSync(join(tmpdir(), 'postern-confine-'))
const binary = join(scratch, 'inspector')
const readable = join(scratch, 'spool')
const writable = join(scratch, 'open')

beforeAll(async () => {
  // The walls must hold in a compiled program: it finds its modules in itself, not in files.
  const build = Bun.spawn(
    [
      process.execPath,
      'build',
      '--compile',
      '--minify-whitespace',
      '--minify-syntax',
      '--sourcemap',
      '--no-compile-autoload-dotenv',
      '--no-compile-autoload-bunfig',
      join(import.meta.dir, 'process/inspector.ts'),
      '--outfile',
      binary,
    ],
    { stdout: 'ignore', stderr: 'pipe' },
  )
  if ((await build.exited) !== 0) throw new Error(await new Response(build.stderr).text())
  chmodSync(scratch, 0o755)
  mkdirSync(readable)
  writeFileSync(join(readable, 'readable'), 'x')
  mkdirSync(writable)
  // So that only the walls stand between the probe and a file, whoever runs it.
  chmodSync(writable, 0o777)
}, 60_000)

afterAll(() => rmSync(scratch, { recursive: true }))

/** Runs the probe against a listener of ours; says whether anybody came. */
async function probe(
  uid: number | null,
  command: readonly string[],
  ...options: readonly string[]
): Promise<
  Probe & {
    readonly visitors: number
    readonly written: boolean
    readonly exit: number | null
    readonly signal: unknown
  }
> {
  let visitors = 0
  const listener = Bun.listen({
    hostname: '127.0.0.1',
    port: 0,
    socket: {
      open: () => {
        visitors += 1
      },
      data() {},
    },
  })
  const path = join(writable, `probe-${uid}-${options.join('')}`)
  rmSync(path, { force: true })
  try {
    const child = Bun.spawn(
      [
        ...command,
        'inspector',
        '--probe',
        '--port',
        `${listener.port}`,
        '--dir',
        readable,
        '--write',
        path,
        ...options,
      ],
      {
        stdout: 'pipe',
        stderr: 'ignore',
        stdin: 'ignore',
        env: {},
        ...(uid === null ? {} : { uid, gid: uid }),
      },
    )
    const out = await new Response(child.stdout).text()
    await child.exited
    const answer = JSON.parse(out) as Probe
    return {
      ...answer,
      visitors,
      written: existsSync(path),
      exit: child.exitCode,
      signal: child.signalCode,
    }
  } finally {
    listener.stop(true)
  }
}

/** What each attempt must meet. Only reading the spool is allowed. A host may lack Landlock, nothing else. */
function refusals(tried: Probe['tried'], missing: Probe['missing']): void {
  expect(missing.filter((part) => part !== 'landlock')).toEqual([])
  const {
    readAllowed,
    connect,
    openat2,
    clone3,
    unknownCall,
    readPasswd,
    readPasswdOtherThread,
    readParentMemory,
    listRoot,
    ...rest
  } = tried
  expect(readAllowed).toBe('ok')
  expect(connect).not.toBe('ok')
  // Absent calls make libraries fall back to those that are checked.
  expect([openat2, clone3, unknownCall]).toEqual(['ENOSYS', 'ENOSYS', 'ENOSYS'])
  if (missing.length === 0)
    expect([readPasswd, readPasswdOtherThread, readParentMemory, listRoot]).toEqual([
      'EACCES',
      'EACCES',
      'EACCES',
      'EACCES',
    ])
  expect(rest).toEqual(Object.fromEntries(Object.keys(rest).map((name) => [name, 'EPERM'])))
  for (const name of [
    'write',
    'exec',
    'execve',
    'socketInet',
    'socketUnix',
    'unlinkat',
    'killParent',
    'setrlimit',
  ]) {
    expect(rest).toHaveProperty(name)
  }
}

function suite(who: string, uid: number | null): void {
  test(`${who}: no connection, no file, no program, no other process`, async () => {
    const { uid: asUid, missing, tried, visitors, written } = await probe(uid, [binary])
    expect(asUid).toBe(uid ?? process.getuid?.() ?? -1)
    refusals(tried, missing)
    expect(visitors).toBe(0)
    expect(written).toBe(false)
  })

  test(`${who}: the same attempts succeed without the walls`, async () => {
    const { tried, visitors, written } = await probe(uid, [binary], '--unconfined')
    expect(tried).toMatchObject({
      readAllowed: 'ok',
      connect: 'ok',
      write: 'ok',
      exec: 'ok',
      readPasswd: 'ok',
      readPasswdOtherThread: 'ok',
      listRoot: 'ok',
      socketInet: 'ok',
      socketUnix: 'ok',
    })
    expect(
      Object.entries(tried).filter(
        ([name, result]) => result === 'EPERM' && name !== 'killParent' && name !== 'tgkillParent',
      ),
    ).toEqual([])
    expect(visitors).toBe(1)
    expect(written).toBe(true)
  })

  test(`${who}: a call of a foreign kind ends the process`, async () => {
    if (process.arch !== 'x64') return
    expect((await probe(uid, [binary], '--foreign')).signal).toBe('SIGSYS')
    expect((await probe(uid, [binary], '--foreign', '--unconfined')).signal).toBeNull()
  })
}

describe('as the user of the tests', () => {
  suite('this user', null)

  test('from sources the walls are the same', async () => {
    const source = [process.execPath, join(import.meta.dir, 'process/inspector.ts')]
    const { missing, tried, visitors } = await probe(null, source)
    refusals(tried, missing)
    expect(visitors).toBe(0)
  })
})

needs('root')('as an ordinary user', () => {
  suite('nobody', NOBODY)
})

test('a compiled child inspects and previews inside its walls, with every module it needs', async () => {
  const clock = new SystemClock()
  const pool = createInspectors(
    { command: [binary, 'inspector'], processes: 1, spoolDir: readable },
    { clock, observer: new Observer(clock, () => {}) },
  )
  const html = `Subject: =?iso-2022-jp?B?GyRCJCIbKEI=?=\r\nContent-Type: text/html; charset=shift_jis\r\n\r\n<p onclick=x>\x82\xa0</p>`
  const bytes = Buffer.from(html, 'latin1')
  const path = join(readable, 'mail')
  writeFileSync(path, bytes)
  try {
    const body = {
      kind: 'extents',
      extents: [{ path, offset: 0, length: bytes.length }],
      sizeBytes: bytes.length,
    } as const
    const { findings, unknowns, facts } = await pool.inspect({
      envelope: ENVELOPE,
      body,
      inspectors: ['gtube', 'eicar', 'headers', 'attachments'],
      config: PLAIN_CONFIG,
      clientName: null,
      sha256: null,
      budgetMs: 10_000,
    })
    expect(unknowns).toEqual([])
    expect(findings.map((finding) => finding.rule)).toContain('MISSING_FROM')
    expect(facts.subject).toBe('あ')
    expect((await pool.preview(body)).html).toBe('<p>あ</p>')
    expect(pool.health()).toMatchObject({ processes: 1, ready: 1, replaced: 0 })
    const status = childStatus()
    expect(status).toMatch(/NoNewPrivs:\s+1/)
    expect(status).toMatch(/Seccomp:\s+2/)
    const limits = readFileSync(`/proc/${childPid()}/limits`, 'latin1')
    expect(limits).toMatch(/Max file size\s+0\s+0/)
    expect(limits).toMatch(/Max core file size\s+0\s+0/)
    expect(limits).toMatch(/Max open files\s+64\s+64/)
  } finally {
    await pool.close()
  }
})

function childPid(): string {
  const path = `/proc/${process.pid}/task/${process.pid}/children`
  return readFileSync(path, 'latin1').trim().split(' ')[0] ?? ''
}

/** /proc/PID/status of every thread of our child, one after another. */
function childStatus(): string {
  const pid = childPid()
  const threads = readdirSync(`/proc/${pid}/task`)
  const texts = threads.map((thread) =>
    readFileSync(`/proc/${pid}/task/${thread}/status`, 'latin1'),
  )
  for (const text of texts) expect(text).toMatch(/Seccomp:\s+2/)
  return texts[0] ?? ''
}

describe('the filter', () => {
  /** Runs the program as the kernel would, over one call. */
  function run(
    machine: 'x86_64' | 'aarch64',
    call: number,
    args: readonly number[] = [],
    arch?: number,
  ): number {
    const { program } = seccompFilter(machine, 4_711)
    const words = Buffer.from(program)
    const data = Buffer.alloc(64)
    data.writeUInt32LE(call >>> 0, 0)
    data.writeUInt32LE(arch ?? (machine === 'x86_64' ? 0xc000_003e : 0xc000_00b7), 4)
    for (const [index, value] of args.entries())
      data.writeBigUInt64LE(BigInt.asUintN(64, BigInt(value)), 16 + 8 * index)
    let loaded = 0
    for (let at = 0; at < words.length / 8; at += 1) {
      const [code, yes, no, value] = [
        words.readUInt16LE(at * 8),
        words[at * 8 + 2] ?? 0,
        words[at * 8 + 3] ?? 0,
        words.readUInt32LE(at * 8 + 4),
      ]
      if (code === 0x20) loaded = data.readUInt32LE(value)
      else if (code === 0x06) return value
      else {
        const jump =
          code === 0x15
            ? loaded === value
            : code === 0x35
              ? loaded >= value
              : (loaded & value) !== 0
        at += jump ? yes : no
      }
    }
    throw new Error('the program ran off its end')
  }

  const ALLOW = 0x7fff_0000
  const EPERM = 0x0005_0001
  const ENOSYS = 0x0005_0026
  const KILL = 0x8000_0000

  type Row = [name: string, x86: readonly number[], arm: readonly number[], result: number]
  const rows: Row[] = [
    ['read', [0], [63], ALLOW],
    ['write', [1], [64], ALLOW],
    ['mmap', [9], [222], ALLOW],
    ['futex', [202], [98], ALLOW],
    ['madvise', [28], [233], ALLOW],
    ['exit_group', [231], [94], ALLOW],
    ['clock_gettime', [228], [113], ALLOW],
    ['pread64', [17], [67], ALLOW],
    ['statx', [332], [291], ALLOW],
    ['epoll_pwait', [281], [22], ALLOW],
    ['openat to read', [257, -100, 1, 0o2000000], [56, -100, 1, 0o2000000], ALLOW],
    ['openat to write', [257, -100, 1, 1], [56, -100, 1, 1], EPERM],
    ['openat to read and write', [257, -100, 1, 2], [56, -100, 1, 2], EPERM],
    ['openat that creates', [257, -100, 1, 0o100], [56, -100, 1, 0o100], EPERM],
    ['openat that truncates', [257, -100, 1, 0o1000], [56, -100, 1, 0o1000], EPERM],
    ['openat of a nameless file', [257, -100, 1, 0o20200000], [56, -100, 1, 0o20040000], EPERM],
    ['a thread', [56, 0x3d0f00], [220, 0x3d0f00], ALLOW],
    ['a process by clone', [56, 17], [220, 17], EPERM],
    ['clone3', [435], [435], ENOSYS],
    ['openat2', [437], [437], ENOSYS],
    ['calls newer than the filter', [452], [452], ENOSYS],
    ['a signal to an own thread', [234, 4_711, 4_712, 10], [131, 4_711, 4_712, 10], ALLOW],
    ['a signal to a thread of another', [234, 1, 1, 9], [131, 1, 1, 9], EPERM],
    ['asking for limits', [302, 0, 3, 0, 1], [261, 0, 3, 0, 1], ALLOW],
    ['setting limits', [302, 0, 3, 4_096, 0], [261, 0, 3, 4_096, 0], EPERM],
    [
      'setting limits from a high address',
      [302, 0, 3, 0x1_0000_0000, 0],
      [261, 0, 3, 0x1_0000_0000, 0],
      EPERM,
    ],
    ['input into a terminal', [16, 0, 0x5412], [29, 0, 0x5412], EPERM],
    ['another ioctl', [16, 0, 0x5401], [29, 0, 0x5401], ALLOW],
    ['socket', [41], [198], EPERM],
    ['connect', [42], [203], EPERM],
    ['execve', [59], [221], EPERM],
    ['ptrace', [101], [117], EPERM],
    ['unlinkat', [263], [35], EPERM],
    ['bpf', [321], [280], EPERM],
    ['mount', [165], [40], EPERM],
  ]
  for (const [name, [x86 = 0, ...x86Args], [arm = 0, ...armArgs], result] of rows) {
    test(name, () => {
      expect(run('x86_64', x86, x86Args).toString(16)).toBe(result.toString(16))
      expect(run('aarch64', arm, armArgs).toString(16)).toBe(result.toString(16))
    })
  }

  test('calls of another machine, and of the x32 kind, end the process', () => {
    expect(run('x86_64', 1, [], 0x4000_0003)).toBe(KILL)
    expect(run('aarch64', 64, [], 0xc000_003e)).toBe(KILL)
    expect(run('x86_64', 0x4000_0000 + 1)).toBe(KILL)
  })

  test('open and creat of x86_64 are checked too', () => {
    expect(run('x86_64', 2, [1, 0])).toBe(ALLOW)
    expect(run('x86_64', 2, [1, 0o101])).toBe(EPERM)
    expect(run('x86_64', 85)).toBe(EPERM)
  })
})

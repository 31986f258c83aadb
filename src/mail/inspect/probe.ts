/**
 * `postern inspector --probe`: confines itself like any inspector, then tries what an inspector
 * must not do, and prints what the kernel said. With `--unconfined` the same without walls.
 */
import { dlopen, ptr, read } from 'bun:ffi'
import { readdirSync, readFileSync, writeFileSync, writeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { messageOf } from '../../base/errors.ts'
import { confine } from './confine.ts'

/** Calls that change nothing when they pass: their paths and numbers lead nowhere. */
type RawCall = {
  readonly name: string
  readonly x64: number | null
  readonly arm64: number
  readonly args: readonly (number | Buffer)[]
}

const NOWHERE = Buffer.from('/nowhere/at/all\0')
const AT_FDCWD = -100
const NO_PID = 0x3fff_fff0

const RAW: readonly RawCall[] = [
  { name: 'socketInet', x64: 41, arm64: 198, args: [2, 1, 0] },
  { name: 'socketInet6Datagram', x64: 41, arm64: 198, args: [10, 2, 0] },
  { name: 'socketUnix', x64: 41, arm64: 198, args: [1, 1, 0] },
  { name: 'execve', x64: 59, arm64: 221, args: [NOWHERE, 0, 0] },
  { name: 'execveat', x64: 322, arm64: 281, args: [AT_FDCWD, NOWHERE, 0, 0, 0] },
  { name: 'openat2', x64: 437, arm64: 437, args: [AT_FDCWD, NOWHERE, 0, 0] },
  { name: 'clone3', x64: 435, arm64: 435, args: [0, 0] },
  { name: 'unlinkat', x64: 263, arm64: 35, args: [AT_FDCWD, NOWHERE, 0] },
  { name: 'renameat2', x64: 316, arm64: 276, args: [AT_FDCWD, NOWHERE, AT_FDCWD, NOWHERE, 0] },
  { name: 'linkat', x64: 265, arm64: 37, args: [AT_FDCWD, NOWHERE, AT_FDCWD, NOWHERE, 0] },
  { name: 'symlinkat', x64: 266, arm64: 36, args: [NOWHERE, AT_FDCWD, NOWHERE] },
  { name: 'mkdirat', x64: 258, arm64: 34, args: [AT_FDCWD, NOWHERE, 0] },
  { name: 'mknodat', x64: 259, arm64: 33, args: [AT_FDCWD, NOWHERE, 0x1000, 0] },
  { name: 'fchmodat', x64: 268, arm64: 53, args: [AT_FDCWD, NOWHERE, 0] },
  { name: 'fchownat', x64: 260, arm64: 54, args: [AT_FDCWD, NOWHERE, 0, 0, 0] },
  { name: 'truncate', x64: 76, arm64: 45, args: [NOWHERE, 0] },
  { name: 'ptrace', x64: 101, arm64: 117, args: [16, NO_PID, 0, 0] },
  { name: 'processVmReadv', x64: 310, arm64: 270, args: [NO_PID, 0, 0, 0, 0] },
  { name: 'killParent', x64: 62, arm64: 129, args: [process.ppid, 0] },
  { name: 'tgkillParent', x64: 234, arm64: 131, args: [process.ppid, process.ppid, 0] },
  { name: 'pidfdOpen', x64: 434, arm64: 434, args: [NO_PID, 0] },
  { name: 'ioUringSetup', x64: 425, arm64: 425, args: [0, 0] },
  { name: 'setrlimit', x64: 302, arm64: 261, args: [NO_PID, 7, Buffer.alloc(16, 1), 0] },
  { name: 'keyctl', x64: 250, arm64: 219, args: [0x7fff_ffff, 0] },
  { name: 'unknownCall', x64: 462, arm64: 462, args: [0, 0, 0] },
]

/** Reads `--name value`. */
function option(args: readonly string[], name: string): string | null {
  const at = args.indexOf(`--${name}`)
  return at === -1 ? null : (args[at + 1] ?? null)
}

/**
 * Options: `--port` of a loopback listener, `--dir` that stays readable, `--write` a path that
 * must not come to be, `--foreign` to make a call of the x32 kind last, which ends the process.
 * Prints `{uid, missing, tried}` as one JSON line. Returns 0.
 */
export async function runProbe(args: readonly string[]): Promise<number> {
  const directory = option(args, 'dir') ?? '/tmp'
  const port = Number(option(args, 'port') ?? 9)
  const path = option(args, 'write') ?? `${directory}/probe`
  // Called before the walls stand: afterwards the library could not be opened any more.
  const raw = rawCalls()
  const missing = args.includes('--unconfined')
    ? ['everything']
    : confine({ readable: [directory] }, args).missing
  const tried: Record<string, string> = {
    readAllowed: attempt(() => readdirFirst(directory)),
    connect: await connectTo(port),
    write: attempt(() => writeFileSync(path, 'x')),
    exec: attempt(() => Bun.spawnSync(['/bin/true'])),
    readPasswd: attempt(() => readFileSync('/etc/passwd')),
    readPasswdOtherThread: await readFile('/etc/passwd').then(() => 'ok', codeOf),
    readParentMemory: attempt(() => readFileSync(`/proc/${process.ppid}/environ`)),
    listRoot: attempt(() => readdirSync('/')),
  }
  for (const call of RAW) {
    const number = process.arch === 'x64' ? call.x64 : call.arm64
    if (number !== null) tried[call.name] = raw(number, call.args)
  }
  writeSync(1, `${JSON.stringify({ uid: process.getuid?.(), missing, tried })}\n`)
  if (args.includes('--foreign')) raw(0x4000_0000 + 39, [])
  return 0
}

function readdirFirst(directory: string): void {
  readFileSync(`${directory}/readable`)
}

function attempt(run: () => unknown): string {
  try {
    run()
    return 'ok'
  } catch (error) {
    return codeOf(error)
  }
}

function codeOf(error: unknown): string {
  const { code } = error as { code?: unknown }
  return typeof code === 'string' ? code : messageOf(error)
}

function connectTo(port: number): Promise<string> {
  return new Promise((resolve) => {
    try {
      const socket = connect({ host: '127.0.0.1', port })
      socket.once('connect', () => {
        socket.destroy()
        resolve('ok')
      })
      socket.once('error', (error) => resolve(codeOf(error)))
    } catch (error) {
      resolve(codeOf(error))
    }
  })
}

/** Errors by number that the calls above can give. */
const ERRORS: Readonly<Record<number, string>> = {
  1: 'EPERM',
  2: 'ENOENT',
  3: 'ESRCH',
  9: 'EBADF',
  13: 'EACCES',
  14: 'EFAULT',
  22: 'EINVAL',
  38: 'ENOSYS',
  95: 'EOPNOTSUPP',
  97: 'EAFNOSUPPORT',
}

function rawCalls(): (number: number, args: readonly (number | Buffer)[]) => string {
  const { syscall, __errno_location } = dlopen('libc.so.6', {
    syscall: { args: ['i64', 'i64', 'i64', 'i64', 'i64', 'i64'], returns: 'i64' },
    __errno_location: { args: [], returns: 'ptr' },
  }).symbols
  return (number, args) => {
    const word = (index: number): number => {
      const value = args[index] ?? 0
      return typeof value === 'number' ? value : ptr(value)
    }
    if (Number(syscall(number, word(0), word(1), word(2), word(3), word(4))) >= 0) return 'ok'
    const place = __errno_location()
    const errno = place === null ? 0 : read.i32(place, 0)
    return ERRORS[errno] ?? `errno ${errno}`
  }
}

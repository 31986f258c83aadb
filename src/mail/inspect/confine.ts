/**
 * The walls around an inspector process: limits, no new privileges, Landlock, seccomp. Put up by
 * the process itself before its first mail, as root and as an ordinary user; they cannot be taken
 * down. Nothing here needs a privilege.
 */
import { dlopen, ptr } from 'bun:ffi'
import { readFileSync, realpathSync } from 'node:fs'
import { resolve } from 'node:path'
import { type Machine, seccompFilter } from './seccomp.ts'

export type Walls = {
  /** Absolute directories whose files may be read; nothing else may, where Landlock is there. */
  readonly readable: readonly string[]
}

export type Confinement = {
  /** Parts that this host does not offer: `seccomp`, `landlock`, `landlock-threads`, `limits`… */
  readonly missing: readonly string[]
}

/** include/uapi/linux/prctl.h */
const PR_SET_PDEATHSIG = 1
const PR_SET_NO_NEW_PRIVS = 38
const SIGKILL = 9

/**
 * Resource limits (include/uapi/asm-generic/resource.h). None on address space or data: the
 * JavaScript engine reserves far more than it uses and aborts below about 8 GB. None on CPU
 * time: a child lives for many mails, the pool keeps the time of each.
 */
const LIMITS: readonly (readonly [resource: number, value: bigint])[] = [
  [1, 0n], // RLIMIT_FSIZE: no file grows
  [4, 0n], // RLIMIT_CORE: no mail in a core file
  [7, 64n], // RLIMIT_NOFILE
]

function openLibc() {
  return dlopen('libc.so.6', {
    prctl: { args: ['i32', 'u64', 'u64', 'u64', 'u64'], returns: 'i32' },
    setrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
    syscall: { args: ['i64', 'i64', 'i64', 'i64', 'i64', 'i64'], returns: 'i64' },
    open: { args: ['ptr', 'i32'], returns: 'i32' },
    close: { args: ['i32'], returns: 'i32' },
    execve: { args: ['ptr', 'ptr', 'ptr'], returns: 'i32' },
  }).symbols
}

type Libc = ReturnType<typeof openLibc>

/** Argument by which the second start of a process knows that it is the second. */
const ENCLOSED = '--enclosed'

/**
 * Confines this process for good. What the host lacks is named in `missing`, not thrown.
 *
 * Landlock holds the thread that asks and those it makes, not those that the engine has already
 * started. So the process first encloses itself widely (its own program, the libraries, the
 * readable directories) and starts anew in place: then every thread is born inside. The second
 * time it draws the narrow walls. `args` are those of this command.
 * @throws Error when not even the C library can be called
 */
export function confine({ readable }: Walls, args: readonly string[]): Confinement {
  const c = openLibc()
  const missing: string[] = []
  // The kernel ends us with our parent, also in a loop that never reads its input.
  if (c.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) !== 0) missing.push('parent-death')
  if (c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) missing.push('no-new-privileges')
  if (landlockVersion(c) < 1) missing.push('landlock')
  else {
    if (!args.includes(ENCLOSED)) {
      const enclosed = landlock(c, [...readable.map(readOnly), ...programFiles()])
      if (enclosed) startAnew(c)
      // Still here: threads from before the walls may read what the process may.
      missing.push('landlock-threads')
    }
    if (!landlock(c, [...readable.map(readOnly), ...sources()])) missing.push('landlock')
  }
  for (const [resource, value] of LIMITS) {
    if (c.setrlimit(resource, ptr(new BigUint64Array([value, value]))) !== 0) missing.push('limits')
  }
  if (!seccomp(c)) missing.push('seccomp')
  return { missing: [...new Set(missing)] }
}

/** Replaces this process by itself with ENCLOSED behind its arguments; returns only on failure. */
function startAnew(c: Libc): void {
  const words = readFileSync('/proc/self/cmdline', 'latin1').split('\0').slice(0, -1)
  const texts = [...words, ENCLOSED].map((word) => Buffer.from(`${word}\0`, 'latin1'))
  const pointers = new BigUint64Array([...texts.map((text) => BigInt(ptr(text))), 0n])
  const environment = new BigUint64Array([0n])
  c.execve(ptr(Buffer.from('/proc/self/exe\0')), ptr(pointers), ptr(environment))
}

/** Linux names of process.arch, for those that have a filter. */
const MACHINES: Readonly<Record<string, Machine>> = { x64: 'x86_64', arm64: 'aarch64' }

const SECCOMP_SET_MODE_FILTER = 1
/** All threads of the process, those included that the engine has already started. */
const SECCOMP_FILTER_FLAG_TSYNC = 1

function seccomp(c: Libc): boolean {
  const machine = MACHINES[process.arch]
  if (machine === undefined) return false
  const { program, call } = seccompFilter(machine, process.pid)
  // struct sock_fprog: u16 count of instructions, padding, pointer to them.
  const description = Buffer.alloc(16)
  description.writeUInt16LE(program.length / 8, 0)
  description.writeBigUInt64LE(BigInt(ptr(program)), 8)
  const result = c.syscall(
    call,
    SECCOMP_SET_MODE_FILTER,
    SECCOMP_FILTER_FLAG_TSYNC,
    ptr(description),
    0,
    0,
  )
  return Number(result) === 0
}

/** Landlock calls have one number on every machine (include/uapi/asm-generic/unistd.h). */
const LANDLOCK = { create: 444, add: 445, restrict: 446 } as const
const CREATE_VERSION = 1
const RULE_PATH_BENEATH = 1
const EXECUTE = 1n
const READ_FILE = 4n
const READ_DIR = 8n
/** File rights that each version of the interface knows, as a count of bits. */
const RIGHTS: readonly (readonly [version: number, bits: bigint])[] = [
  [5, 16n],
  [3, 15n],
  [2, 14n],
  [1, 13n],
]
const O_PATH_CLOEXEC = 0x28_0000

type Rule = { readonly path: string; readonly rights: bigint }

function readOnly(path: string): Rule {
  return { path, rights: READ_FILE }
}

/** From sources (not the compiled binary) modules are read when they are first needed. */
function sources(): readonly Rule[] {
  if (import.meta.dir.startsWith('/$bunfs/')) return []
  return [
    { path: realpathSync(resolve(import.meta.dir, '../../..')), rights: READ_FILE | READ_DIR },
  ]
}

/** What a start of this very program reads: itself, its libraries, its own entry under /proc. */
function programFiles(): readonly Rule[] {
  const mapped = readFileSync('/proc/self/maps', 'latin1').match(/(?<= )\/[^\n]+(?=\n)/g) ?? []
  return [
    ...[...new Set(mapped), '/proc/self/exe'].map((path) => ({
      path,
      rights: READ_FILE | EXECUTE,
    })),
    { path: '/etc/ld.so.cache', rights: READ_FILE },
    { path: '/proc/self', rights: READ_FILE | READ_DIR },
    ...sources(),
    // Bun looks for its settings beside the sources and above; a directory is not its files.
    ...(sources().length > 0 ? [{ path: '/', rights: READ_DIR }] : []),
  ]
}

function landlockVersion(c: Libc): number {
  return Number(c.syscall(LANDLOCK.create, 0, 0, CREATE_VERSION, 0, 0))
}

/** Forbids every file right but those of `rules`, and TCP and abstract sockets where it can. */
function landlock(c: Libc, rules: readonly Rule[]): boolean {
  const version = landlockVersion(c)
  const bits = RIGHTS.find(([least]) => version >= least)?.[1] ?? 0n
  // struct landlock_ruleset_attr: handled_access_fs; from 4 on bind and connect; from 6 on scopes.
  const words = [(1n << bits) - 1n, ...(version >= 4 ? [3n] : []), ...(version >= 6 ? [1n] : [])]
  const attributes = new BigUint64Array(words)
  const set = Number(c.syscall(LANDLOCK.create, ptr(attributes), attributes.byteLength, 0, 0, 0))
  if (set < 0) return false
  for (const rule of rules) add(c, set, rule)
  const done = Number(c.syscall(LANDLOCK.restrict, set, 0, 0, 0, 0)) === 0
  c.close(set)
  return done
}

/** A path that is not there stays unreadable: what reads it later fails with its name. */
function add(c: Libc, set: number, { path, rights }: Rule): void {
  const fd = c.open(ptr(Buffer.from(`${path}\0`)), O_PATH_CLOEXEC)
  if (fd < 0) return
  // struct landlock_path_beneath_attr, packed: u64 rights, s32 descriptor.
  const rule = Buffer.alloc(12)
  rule.writeBigUInt64LE(rights, 0)
  rule.writeInt32LE(fd, 8)
  c.syscall(LANDLOCK.add, set, RULE_PATH_BENEATH, ptr(rule), 0, 0)
  c.close(fd)
}

/**
 * The walls around an inspector process: limits, no new privileges, Landlock, seccomp. Put up by
 * the process itself before its first mail, as root and as an ordinary user; they cannot be taken
 * down. Nothing here needs a privilege.
 */
import { dlopen, ptr } from 'bun:ffi'
import { readdirSync, realpathSync } from 'node:fs'
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

const libc = () =>
  dlopen('libc.so.6', {
    prctl: { args: ['i32', 'u64', 'u64', 'u64', 'u64'], returns: 'i32' },
    setrlimit: { args: ['i32', 'ptr'], returns: 'i32' },
    syscall: { args: ['i64', 'i64', 'i64', 'i64', 'i64', 'i64'], returns: 'i64' },
    open: { args: ['ptr', 'i32'], returns: 'i32' },
    close: { args: ['i32'], returns: 'i32' },
  }).symbols

type Libc = ReturnType<typeof libc>

/**
 * Confines this process for good. What the host lacks is named in `missing`, not thrown.
 * @throws Error when not even the C library can be called
 */
export function confine({ readable }: Walls): Confinement {
  const c = libc()
  const missing: string[] = []
  // The kernel ends us with our parent, also in a loop that never reads its input.
  if (c.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) !== 0) missing.push('parent-death')
  for (const [resource, value] of LIMITS) {
    if (c.setrlimit(resource, ptr(new BigUint64Array([value, value]))) !== 0) missing.push('limits')
  }
  if (c.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) !== 0) missing.push('no-new-privileges')
  missing.push(...landlock(c, readable), ...seccomp(c))
  return { missing: [...new Set(missing)] }
}

/** Linux names of process.arch, for those that have a filter. */
const MACHINES: Readonly<Record<string, Machine>> = { x64: 'x86_64', arm64: 'aarch64' }

const SECCOMP_SET_MODE_FILTER = 1
/** All threads of the process, those included that the engine has already started. */
const SECCOMP_FILTER_FLAG_TSYNC = 1

function seccomp(c: Libc): readonly string[] {
  const machine = MACHINES[process.arch]
  if (machine === undefined) return ['seccomp']
  const { program, call } = seccompFilter(machine, process.pid)
  // struct sock_fprog: u16 count of instructions, padding, pointer to them.
  const description = Buffer.alloc(16)
  description.writeUInt16LE(program.length / 8, 0)
  description.writeBigUInt64LE(BigInt(ptr(program)), 8)
  const result = c.syscall(call, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, ptr(description), 0, 0)
  return Number(result) === 0 ? [] : ['seccomp']
}

/** Landlock calls have one number on every machine (include/uapi/asm-generic/unistd.h). */
const LANDLOCK = { create: 444, add: 445, restrict: 446 } as const
const LANDLOCK_RULE_PATH_BENEATH = 1
const READ_FILE = 4n
const READ_DIR = 8n
/** File rights that each version of the interface knows, as a mask. */
const FILE_RIGHTS: readonly (readonly [abi: number, bits: bigint])[] = [
  [5, 16n],
  [3, 15n],
  [2, 14n],
  [1, 13n],
]
const O_PATH_CLOEXEC = 0x28_0000

function landlock(c: Libc, readable: readonly string[]): readonly string[] {
  const abi = Number(c.syscall(LANDLOCK.create, 0, 0, 1, 0, 0))
  const bits = FILE_RIGHTS.find(([least]) => abi >= least)?.[1]
  if (bits === undefined) return ['landlock']
  // Threads that exist already stay outside (before ABI 8); at this point there should be none.
  const threads = readdirSync('/proc/self/task').length
  // handled_access_fs, from ABI 4 handled_access_net (bind, connect), from 6 scoped (abstract sockets).
  const attributes = new BigUint64Array(abi >= 6 ? [(1n << bits) - 1n, 3n, 1n] : abi >= 4 ? [(1n << bits) - 1n, 3n] : [(1n << bits) - 1n])
  const rules = Number(c.syscall(LANDLOCK.create, ptr(attributes), attributes.byteLength, 0, 0, 0))
  if (rules < 0) return ['landlock']
  for (const directory of readable) allow(c, rules, directory, READ_FILE)
  // From sources (not the compiled binary) modules are read when they are first needed.
  if (!import.meta.dir.startsWith('/$bunfs/')) {
    allow(c, rules, realpathSync(resolve(import.meta.dir, '../../..')), READ_FILE | READ_DIR)
  }
  const done = Number(c.syscall(LANDLOCK.restrict, rules, abi >= 8 ? RESTRICT_TSYNC : 0, 0, 0, 0)) === 0
  c.close(rules)
  if (!done) return ['landlock']
  return threads > 1 && abi < 8 ? ['landlock-threads'] : []
}

/** LANDLOCK_RESTRICT_SELF_TSYNC, ABI 8. */
const RESTRICT_TSYNC = 8

/** A directory that is not there stays unreadable: reading in it fails later, with its name. */
function allow(c: Libc, rules: number, directory: string, rights: bigint): void {
  const fd = c.open(ptr(Buffer.from(`${directory}\0`)), O_PATH_CLOEXEC)
  if (fd < 0) return
  // struct landlock_path_beneath_attr, packed: u64 rights, s32 descriptor.
  const rule = Buffer.alloc(12)
  rule.writeBigUInt64LE(rights, 0)
  rule.writeInt32LE(fd, 8)
  c.syscall(LANDLOCK.add, rules, LANDLOCK_RULE_PATH_BENEATH, ptr(rule), 0, 0)
  c.close(fd)
}

/**
 * The system calls that an inspector may not make, as a classic BPF program. It refuses what
 * reaches out (sockets, other processes, programs) and what changes anything (files, the host);
 * what the JavaScript engine needs (memory, threads, reading) stays.
 */

export type Machine = 'x86_64' | 'aarch64'

/** Name: number on x86_64, number on aarch64; null where the machine has none. */
type Calls = Readonly<Record<string, readonly [x86: number | null, arm: number | null]>>

/** Refused with EPERM, whatever their arguments. */
const REFUSED: Calls = {
  // Network and local sockets. Reading and writing the two pipes needs none of these.
  socket: [41, 198],
  socketpair: [53, 199],
  connect: [42, 203],
  bind: [49, 200],
  listen: [50, 201],
  accept: [43, 202],
  accept4: [288, 242],
  sendto: [44, 206],
  sendmsg: [46, 211],
  sendmmsg: [307, 269],
  recvmmsg: [299, 243],
  // Programs and processes.
  execve: [59, 221],
  execveat: [322, 281],
  fork: [57, null],
  vfork: [58, null],
  // Other processes.
  ptrace: [101, 117],
  process_vm_readv: [310, 270],
  process_vm_writev: [311, 271],
  process_madvise: [440, 440],
  process_mrelease: [448, 448],
  kcmp: [312, 272],
  kill: [62, 129],
  tkill: [200, 130],
  rt_sigqueueinfo: [129, 138],
  rt_tgsigqueueinfo: [297, 240],
  pidfd_open: [434, 434],
  pidfd_getfd: [438, 438],
  pidfd_send_signal: [424, 424],
  setpriority: [141, 140],
  sched_setscheduler: [144, 119],
  sched_setattr: [314, 274],
  ioprio_set: [251, 30],
  migrate_pages: [256, 238],
  move_pages: [279, 239],
  // Files and what is known of them.
  creat: [85, null],
  unlink: [87, null],
  unlinkat: [263, 35],
  rmdir: [84, null],
  mkdir: [83, null],
  mkdirat: [258, 34],
  rename: [82, null],
  renameat: [264, 38],
  renameat2: [316, 276],
  link: [86, null],
  linkat: [265, 37],
  symlink: [88, null],
  symlinkat: [266, 36],
  mknod: [133, null],
  mknodat: [259, 33],
  chmod: [90, null],
  fchmod: [91, 52],
  fchmodat: [268, 53],
  chown: [92, null],
  fchown: [93, 55],
  lchown: [94, null],
  fchownat: [260, 54],
  truncate: [76, 45],
  ftruncate: [77, 46],
  fallocate: [285, 47],
  utime: [132, null],
  utimes: [235, null],
  utimensat: [280, 88],
  futimesat: [261, null],
  setxattr: [188, 5],
  lsetxattr: [189, 6],
  fsetxattr: [190, 7],
  removexattr: [197, 14],
  lremovexattr: [198, 15],
  fremovexattr: [199, 16],
  open_by_handle_at: [304, 265],
  name_to_handle_at: [303, 264],
  fanotify_init: [300, 262],
  fanotify_mark: [301, 263],
  memfd_create: [319, 279],
  memfd_secret: [447, 447],
  // Ways around the rest.
  bpf: [321, 280],
  io_uring_setup: [425, 425],
  io_uring_enter: [426, 426],
  io_uring_register: [427, 427],
  io_setup: [206, 0],
  io_submit: [209, 2],
  seccomp: [317, 277],
  userfaultfd: [323, 282],
  perf_event_open: [298, 241],
  personality: [135, 92],
  modify_ldt: [154, null],
  uselib: [134, null],
  // Keys, namespaces, mounts.
  keyctl: [250, 219],
  add_key: [248, 217],
  request_key: [249, 218],
  unshare: [272, 97],
  setns: [308, 268],
  mount: [165, 40],
  umount2: [166, 39],
  pivot_root: [155, 41],
  chroot: [161, 51],
  open_tree: [428, 428],
  move_mount: [429, 429],
  fsopen: [430, 430],
  fsconfig: [431, 431],
  fsmount: [432, 432],
  fspick: [433, 433],
  mount_setattr: [442, 442],
  // Identity and limits.
  setuid: [105, 146],
  setgid: [106, 144],
  setreuid: [113, 145],
  setregid: [114, 143],
  setgroups: [116, 159],
  setresuid: [117, 147],
  setresgid: [119, 149],
  setfsuid: [122, 151],
  setfsgid: [123, 152],
  capset: [126, 91],
  setrlimit: [160, 164],
  // The host, for the case that we run as root.
  init_module: [175, 105],
  finit_module: [313, 273],
  delete_module: [176, 106],
  kexec_load: [246, 104],
  kexec_file_load: [320, 294],
  reboot: [169, 142],
  swapon: [167, 224],
  swapoff: [168, 225],
  acct: [163, 89],
  quotactl: [179, 60],
  quotactl_fd: [443, 443],
  sethostname: [170, 161],
  setdomainname: [171, 162],
  settimeofday: [164, 170],
  clock_settime: [227, 112],
  adjtimex: [159, 171],
  clock_adjtime: [305, 266],
  syslog: [103, 116],
  vhangup: [153, 58],
  iopl: [172, null],
  ioperm: [173, null],
  nfsservctl: [180, 42],
  // Memory and messages that other processes could see.
  shmget: [29, 194],
  shmat: [30, 196],
  shmctl: [31, 195],
  semget: [64, 190],
  semctl: [66, 191],
  semop: [65, 193],
  semtimedop: [220, 192],
  msgget: [68, 186],
  msgsnd: [69, 189],
  msgrcv: [70, 188],
  msgctl: [71, 187],
  mq_open: [240, 180],
  mq_unlink: [241, 181],
}

/** Answered as if the kernel had none: libraries then fall back to the older, checked call. */
const ABSENT: Calls = { clone3: [435, 435], openat2: [437, 437] }

/** From here on the numbers are the same everywhere, and newer than this list: absent too. */
const FIRST_UNKNOWN = 450

/** Refused by their arguments. */
const CHECKED = {
  open: [2, null],
  openat: [257, 56],
  clone: [56, 220],
  tgkill: [234, 131],
  prlimit64: [302, 261],
  ioctl: [16, 29],
} as const satisfies Calls

const SECCOMP_CALL = { x86_64: 317, aarch64: 277 } as const
/** include/uapi/linux/audit.h */
const AUDIT_ARCH = { x86_64: 0xc000_003e, aarch64: 0xc000_00b7 } as const
/** Calls of the x32 kind have this bit. */
const X32_BIT = 0x4000_0000

/** O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_APPEND, and the bit of O_TMPFILE; the same on both. */
const WRITING = 0o1 | 0o2 | 0o100 | 0o1000 | 0o2000 | 0o20_000_000
const CLONE_THREAD = 0x1_0000
/** Both put input into a terminal. */
const TIOCSTI = 0x5412
const TIOCLINUX = 0x541c

/** struct seccomp_data: call, machine, instruction pointer, six arguments of 8 bytes. */
const CALL_AT = 0
const MACHINE_AT = 4
const argumentAt = (index: number): number => 16 + 8 * index

/** Instructions of classic BPF. */
const LOAD = 0x20
const JUMP_EQUAL = 0x15
const JUMP_AT_LEAST = 0x35
const JUMP_BITS = 0x45
const RETURN = 0x06

const ALLOW = 0x7fff_0000
const KILL_PROCESS = 0x8000_0000
const refuse = (errno: number): number => 0x0005_0000 | errno
const EPERM = refuse(1)
const ENOSYS = refuse(38)

type Instruction = readonly [code: number, yes: number, no: number, value: number]

/**
 * The filter for one machine. `pid` is the process that may signal its own threads. `call` is
 * the number of seccomp(2) there.
 */
export function seccompFilter(
  machine: Machine,
  pid: number,
): { readonly program: Uint8Array; readonly call: number } {
  const column = machine === 'x86_64' ? 0 : 1
  const numbers = (calls: Calls): number[] =>
    Object.values(calls).flatMap((row) => row[column] ?? [])
  const body: Instruction[] = [
    [LOAD, 0, 0, MACHINE_AT],
    [JUMP_EQUAL, 1, 0, AUDIT_ARCH[machine]],
    [RETURN, 0, 0, KILL_PROCESS],
    [LOAD, 0, 0, CALL_AT],
  ]
  if (machine === 'x86_64') body.push([JUMP_AT_LEAST, 0, 1, X32_BIT], [RETURN, 0, 0, KILL_PROCESS])
  body.push([JUMP_AT_LEAST, 0, 1, FIRST_UNKNOWN], [RETURN, 0, 0, ENOSYS])
  for (const number of numbers(ABSENT))
    body.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, ENOSYS])
  for (const number of numbers(REFUSED))
    body.push([JUMP_EQUAL, 0, 1, number], [RETURN, 0, 0, EPERM])
  const checked = (name: keyof typeof CHECKED, check: readonly Instruction[]): void => {
    const number = CHECKED[name][column]
    if (number !== null) body.push([JUMP_EQUAL, 0, check.length, number], ...check)
  }
  const onlyReading = (flags: number): readonly Instruction[] => [
    [LOAD, 0, 0, argumentAt(flags)],
    [JUMP_BITS, 0, 1, WRITING],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  ]
  checked('open', onlyReading(1))
  checked('openat', onlyReading(2))
  checked('clone', [
    [LOAD, 0, 0, argumentAt(0)],
    [JUMP_BITS, 1, 0, CLONE_THREAD],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  ])
  checked('tgkill', [
    [LOAD, 0, 0, argumentAt(0)],
    [JUMP_EQUAL, 1, 0, pid],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  ])
  // Asking for limits is fine (new limits: null pointer), setting them is not.
  checked('prlimit64', [
    [LOAD, 0, 0, argumentAt(2)],
    [JUMP_EQUAL, 0, 2, 0],
    [LOAD, 0, 0, argumentAt(2) + 4],
    [JUMP_EQUAL, 1, 0, 0],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  ])
  checked('ioctl', [
    [LOAD, 0, 0, argumentAt(1)],
    [JUMP_EQUAL, 1, 0, TIOCSTI],
    [JUMP_EQUAL, 0, 1, TIOCLINUX],
    [RETURN, 0, 0, EPERM],
    [RETURN, 0, 0, ALLOW],
  ])
  body.push([RETURN, 0, 0, ALLOW])
  return { program: encode(body), call: SECCOMP_CALL[machine] }
}

/** struct sock_filter: u16 code, u8 and u8 jumps, u32 value. */
function encode(instructions: readonly Instruction[]): Uint8Array {
  const bytes = Buffer.alloc(instructions.length * 8)
  for (const [index, [code, yes, no, value]] of instructions.entries()) {
    bytes.writeUInt16LE(code, index * 8)
    bytes.writeUInt8(yes, index * 8 + 2)
    bytes.writeUInt8(no, index * 8 + 3)
    bytes.writeUInt32LE(value >>> 0, index * 8 + 4)
  }
  return bytes
}

/**
 * The processes of one peer, and what they cost: a control group where one may be made, else sums
 * over /proc. Both count children that have ended.
 */
import { existsSync, mkdirSync, readFileSync, rmdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { isAlive, pssOf, treeOf } from '../process/proc.ts'

/** Clock ticks a second in /proc/PID/stat; 100 on every Linux that Bun runs on. */
const TICKS_PER_S = 100
const clock = new SystemClock()
let made = 0

/** Short beside what is measured: who has used up his part waits for the rest of it. */
const PERIOD_US = 5_000

export class Group {
  /** Null: this machine lets us make none. */
  readonly #directory: string | null
  /** Where the first version of control groups bounds their CPU. */
  #bounds: string | null = null
  /** Without a control group: what is at the top of its trees. */
  readonly #roots = new Set<number>()

  constructor(name: string) {
    this.#directory = makeDirectory(name)
  }

  get isControlGroup(): boolean {
    return this.#directory !== null
  }

  /** Words before a command that put it, and all that it starts, into the group. */
  get wrapper(): readonly string[] {
    if (this.#directory === null) return []
    return ['/bin/sh', '-c', 'echo $$ >"$0" && exec "$@"', join(this.#directory, 'cgroup.procs')]
  }

  /** A process that was started with `wrapper`, or that one of them left behind. */
  adopt(pid: number): void {
    this.#roots.add(pid)
  }

  /**
   * All its processes, and what they start, together get at most so many cores from here on.
   * @throws Error when this machine does not let us
   */
  limit(cores: number): void {
    const quotaUs = Math.round(cores * PERIOD_US)
    if (this.#directory !== null && existsSync(join(this.#directory, 'cpu.max'))) {
      return writeFileSync(join(this.#directory, 'cpu.max'), `${quotaUs} ${PERIOD_US}`)
    }
    const mount = mountOf((type, options) => type === 'cgroup' && options.includes('cpu'))
    if (mount === undefined) throw new Error('there is no control group that bounds CPU')
    made += 1
    this.#bounds = join(mount, `postern-bench-${process.pid}-${made}`)
    mkdirSync(this.#bounds)
    writeFileSync(join(this.#bounds, 'cpu.cfs_period_us'), `${PERIOD_US}`)
    writeFileSync(join(this.#bounds, 'cpu.cfs_quota_us'), `${quotaUs}`)
    for (const pid of this.pids()) writeFileSync(join(this.#bounds, 'cgroup.procs'), `${pid}`)
  }

  /** CPU time in ms so far, user and kernel; only differences mean anything. */
  cpuMs(): number {
    if (this.#directory === null) {
      return this.pids().reduce((sum, pid) => sum + processCpuMs(pid), 0)
    }
    const text = readFileSync(join(this.#directory, 'cpu.stat'), 'latin1')
    return Number(/^usage_usec (\d+)/m.exec(text)?.[1] ?? 0) / 1_000
  }

  pids(): number[] {
    if (this.#directory === null) {
      return [...new Set([...this.#roots].filter(isAlive).flatMap(treeOf))]
    }
    const text = readFileSync(join(this.#directory, 'cgroup.procs'), 'latin1')
    return text.split('\n').filter(Boolean).map(Number)
  }

  pssBytes(): number {
    return pssOf(this.pids())
  }

  /** Ends what still runs of it, and nothing else. */
  async end(): Promise<void> {
    for (let tries = 0; tries < 30; tries += 1) {
      const pids = this.pids()
      if (pids.length === 0) break
      for (const pid of pids) {
        try {
          process.kill(pid, tries < 10 ? 'SIGTERM' : 'SIGKILL')
        } catch {
          // It ended by itself meanwhile.
        }
      }
      await pause(clock, 100)
    }
    for (const directory of [this.#directory, this.#bounds]) {
      if (directory === null) continue
      try {
        rmdirSync(directory)
      } catch {
        // A process that is still going away keeps it; it is empty then and costs nothing.
      }
    }
  }
}

/** Own time and that of children that have ended and were waited for. */
function processCpuMs(pid: number): number {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
    return (ticks * 1_000) / TICKS_PER_S
  } catch {
    return 0
  }
}

function mountOf(
  isWanted: (type: string, options: readonly string[]) => boolean,
): string | undefined {
  const mounts = readFileSync('/proc/mounts', 'latin1').split('\n')
  const found = mounts
    .map((line) => line.split(' '))
    .find(([, , type = '', options = '']) => isWanted(type, options.split(',')))
  return found?.[1]
}

function makeDirectory(name: string): string | null {
  const mount = mountOf((type) => type === 'cgroup2')
  if (mount === undefined) return null
  made += 1
  const directory = join(mount, `postern-bench-${process.pid}-${made}-${name}`)
  try {
    mkdirSync(directory)
    // The right to make one is not the right to put processes into it.
    writeFileSync(join(directory, 'cgroup.procs'), '', { flag: 'a' })
    if (existsSync(join(directory, 'cpu.stat'))) return directory
    rmdirSync(directory)
  } catch {
    // Not ours to write.
  }
  return null
}

/** Busy CPU time of the whole machine in ms, to see what neighbours took. */
export function machineCpuMs(): number {
  const line = readFileSync('/proc/stat', 'latin1').split('\n')[0] ?? ''
  const [user = 0, nice = 0, system = 0, , , irq = 0, softIrq = 0] = line
    .trim()
    .split(/\s+/)
    .slice(1)
    .map(Number)
  return ((user + nice + system + irq + softIrq) * 1_000) / TICKS_PER_S
}

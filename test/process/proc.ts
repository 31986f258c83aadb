/** What the kernel says of a process: memory, CPU, descriptors, children. Linux only. */
import { readdirSync, readFileSync, readlinkSync, writeFileSync } from 'node:fs'

/** Clock ticks a second in /proc/PID/stat; 100 on every Linux that Bun runs on. */
const TICKS_PER_S = 100

function field(text: string, name: string): number {
  const match = new RegExp(`^${name}:\\s+(\\d+)`, 'm').exec(text)
  return match === null ? 0 : Number(match[1])
}

/** Resident bytes now and at most since `resetPeak`. @throws when the process is gone */
export function memoryOf(pid: number): { readonly rssBytes: number; readonly peakBytes: number } {
  const status = readFileSync(`/proc/${pid}/status`, 'latin1')
  return { rssBytes: field(status, 'VmRSS') * 1_024, peakBytes: field(status, 'VmHWM') * 1_024 }
}

/** Makes `peakBytes` begin again from the resident size of now. */
export function resetPeak(pid: number): void {
  writeFileSync(`/proc/${pid}/clear_refs`, '5')
}

/** User and system CPU time in ms of the process and its reaped children. */
export function cpuMsOf(pid: number): number {
  const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
  const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  const ticks = fields.slice(11, 15).reduce((sum, field) => sum + Number(field), 0)
  return (ticks * 1_000) / TICKS_PER_S
}

/** Open descriptors of a process, but the segments of a spool: those come and go with the mail. */
export function descriptorsOf(pid: number): number {
  return readdirSync(`/proc/${pid}/fd`).filter((fd) => {
    try {
      return !readlinkSync(`/proc/${pid}/fd/${fd}`).endsWith('.seg')
    } catch {
      // Closed since the directory was read.
      return false
    }
  }).length
}

/** The process and all of its descendants that live now, parents first. */
export function treeOf(pid: number): number[] {
  const parents = new Map<number, number[]>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    try {
      const stat = readFileSync(`/proc/${name}/stat`, 'latin1')
      const parent = Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1])
      const children = parents.get(parent)
      if (children === undefined) parents.set(parent, [Number(name)])
      else children.push(Number(name))
    } catch {
      // It ended between the listing and the look.
    }
  }
  const tree = [pid]
  for (let at = 0; at < tree.length; at += 1) tree.push(...(parents.get(tree[at] as number) ?? []))
  return tree
}

/** Proportional set size in bytes of all of `pids` together. */
export function pssOf(pids: readonly number[]): number {
  let sum = 0
  for (const pid of pids) {
    try {
      sum += field(readFileSync(`/proc/${pid}/smaps_rollup`, 'latin1'), 'Pss') * 1_024
    } catch {
      // It ended between the listing and the look.
    }
  }
  return sum
}

export function commandLineOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1').replaceAll('\0', ' ').trim()
  } catch {
    return ''
  }
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie answers signal 0 as well; its state tells.
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
    return stat.slice(stat.lastIndexOf(')') + 2, stat.lastIndexOf(')') + 3) !== 'Z'
  } catch {
    return false
  }
}

export function megabytes(bytes: number): string {
  return `${(bytes / 1_048_576).toFixed(1)} MB`
}

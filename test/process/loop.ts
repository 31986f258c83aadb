/** File systems in files, to be copied as a power cut would leave them. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pause, SystemClock } from '../../src/base/clock.ts'
import { hostLacks, needs } from '../real.ts'
import { isAlive, treeOf } from './proc.ts'

const clock = new SystemClock()
const FLUSHER = '/proc/sys/vm/dirty_writeback_centisecs'
/** What Linux starts with. */
const FLUSHER_INITIAL = '500'
const read = () => readFileSync(FLUSHER, 'latin1').trim()

/** Null when loop file systems can be mounted here, else why not. */
async function whyNot(): Promise<string | null> {
  if (process.getuid?.() !== 0) return null
  const dir = mkdtempSync(join(tmpdir(), 'postern-proof-loop-'))
  try {
    await mountNew(dir, '8M')
    await Bun.$`umount ${join(dir, 'disk')}`.quiet()
    writeFileSync(FLUSHER, read())
    return null
  } catch {
    return 'loop mounts'
  } finally {
    rmSync(dir, { recursive: true, force: true })
  }
}

const lacking = await whyNot()
/** A `describe` for suites that cut the power; skipped by name where nothing can be mounted. */
export const onLoops = lacking === null ? needs('root') : hostLacks(lacking)

/** A new file system of `size` in DIR/disk.img, mounted at DIR/disk. `more`: words for mkfs.ext4. */
export async function mountNew(
  dir: string,
  size: string,
  more: readonly string[] = [],
): Promise<void> {
  mkdirSync(join(dir, 'disk'), { recursive: true })
  await Bun.$`truncate -s ${size} ${join(dir, 'disk.img')}`.quiet()
  await Bun.$`mkfs.ext4 -q -F ${[...more]} ${join(dir, 'disk.img')}`.quiet()
  await Bun.$`mount -o loop,commit=300 ${join(dir, 'disk.img')} ${join(dir, 'disk')}`.quiet()
}

/** Stops a process with all that it started. What it promised before is on its disk, or nowhere. */
export function stopTree(pid: number): readonly number[] {
  const tree = treeOf(pid)
  for (const one of tree) process.kill(one, 'SIGSTOP')
  return tree
}

/** The file system of DIR as it would be after a power cut now. Its processes are stopped. */
export async function copyDisk(dir: string): Promise<void> {
  await Bun.$`cp --sparse=always ${join(dir, 'disk.img')} ${join(dir, 'copy.img')}`.quiet()
}

/** A stopped child does not notice that its parent is gone, and would hold the file system. */
export function endRest(tree: readonly number[]): void {
  for (const pid of tree.slice(1)) if (isAlive(pid)) process.kill(pid, 'SIGKILL')
}

/** Mounts what `copyDisk` made, at DIR/copy. */
export async function mountCopy(dir: string): Promise<void> {
  mkdirSync(join(dir, 'copy'), { recursive: true })
  await Bun.$`mount -o loop ${join(dir, 'copy.img')} ${join(dir, 'copy')}`.quiet()
}

export async function unmount(dir: string): Promise<void> {
  await Bun.$`umount ${join(dir, 'copy')} ${join(dir, 'disk')}`.quiet().nothrow()
}

/**
 * The kernel's own flusher would save what a node forgot to sync. It is one for the machine:
 * another run may hold it off now, or a killed one may have left it off.
 */
export async function flusherOff(): Promise<() => void> {
  for (let n = 0; n < 120 && read() === '0'; n += 1) await pause(clock, 500)
  const before = read() === '0' ? FLUSHER_INITIAL : read()
  writeFileSync(FLUSHER, '0')
  return () => writeFileSync(FLUSHER, before)
}

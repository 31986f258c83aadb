/** Files that survive a power cut: atomic replacement, directory sync, free space, one owner. */
import { dlopen, FFIType } from 'bun:ffi'
import {
  closeSync,
  fchmodSync,
  fdatasync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  renameSync,
  statfsSync,
  statSync,
  unlinkSync,
  writeSync,
  writev,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { assert, messageOf, RefusalError, StoreError } from './errors.ts'

/** Name ending of a file that is not complete. Left-overs may be deleted at start. */
export const UNFINISHED = '.new'

/**
 * Replaces or makes `path` so that a crash leaves the old or the new content, never a part.
 * File and directory are synced when it returns.
 * @throws StoreError when the disk refuses
 */
export function atomicWrite(path: string, content: string | Uint8Array, mode = 0o600): void {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  const unfinished = path + UNFINISHED
  try {
    const file = openSync(unfinished, 'w', mode)
    try {
      // A left-over keeps its old mode, so it is set and not only asked for.
      fchmodSync(file, mode)
      let written = 0
      while (written < bytes.length) written += writeSync(file, bytes, written)
      fsyncSync(file)
    } finally {
      closeSync(file)
    }
    renameSync(unfinished, path)
    syncDirectory(dirname(path))
  } catch (error) {
    throw storeError(`${basename(path)} could not be written`, error)
  }
}

/** Makes names made, renamed or removed in `path` durable. */
export function syncDirectory(path: string): void {
  const directory = openSync(path, 'r')
  try {
    fsyncSync(directory)
  } finally {
    closeSync(directory)
  }
}

/** Syncs the names in a directory, off the event loop. */
export async function directorySynced(path: string): Promise<void> {
  const directory = await open(path, 'r')
  try {
    await directory.sync()
  } finally {
    await directory.close()
  }
}

/**
 * All that a log asks of a disk. To run one on another disk (a test, a simulation) give
 * `Queue.open` one of these. What a crash may take: bytes written and not synced by `sync`, the
 * last write in part; names made or removed and not synced by `syncNames`. Everything that is not
 * a callback or a promise is done when it returns. A disk may call back at once.
 */
export interface Disk {
  /** Writes all buffers at `position`; `count` may be less than their sum. */
  write(
    fd: number,
    buffers: readonly Buffer[],
    position: number,
    done: (error: Error | null, count: number) => void,
  ): void
  /** All that was written before this call is durable when it is done. */
  sync(fd: number, done: (error: Error | null) => void): void
  /** At most `length` bytes at `offset`, fewer at the end of the file. Rejects when it is not there. */
  read(path: string, offset: number, length: number): Promise<Uint8Array>
  /** The names made and removed in `directory` are durable when it is done. */
  syncNames(directory: string, done: (error: Error | null) => void): void
  /** Names in `directory`, in any order. Throws when there is none. */
  list(directory: string): readonly string[]
  /** Opens for reading and writing: one that is there, or a new one that is not. Throws. */
  open(path: string, how: 'old' | 'new'): number
  close(fd: number): void
  /** The beginning of a file, as much as `room` takes, in it. Throws when it is not there. */
  load(path: string, room: Buffer): Buffer
  /** Bytes of a file. Throws when it is not there. */
  size(path: string): number
  /** As `write`, before anything else goes on: for what is rare. Throws. */
  writeNow(fd: number, bytes: Uint8Array, position: number): void
  /** Throws when it is not there. */
  remove(path: string): void
}

export const systemDisk: Disk = {
  write: (fd, buffers, position, done) =>
    writev(fd, buffers, position, (error, count) => done(error ?? null, count)),
  sync: (fd, done) => fdatasync(fd, (error) => done(error ?? null)),
  read: (path, offset, length) =>
    Bun.file(path)
      .slice(offset, offset + length)
      .bytes(),
  syncNames: (directory, done) => {
    directorySynced(directory).then(
      () => done(null),
      (error) => done(error instanceof Error ? error : new Error(String(error))),
    )
  },
  list: (directory) => readdirSync(directory),
  open: (path, how) => openSync(path, how === 'old' ? 'r+' : 'wx+', 0o600),
  close: (fd) => closeSync(fd),
  load,
  size: (path) => statSync(path).size,
  writeNow: (fd, bytes, position) => {
    for (let done = 0; done < bytes.length; )
      done += writeSync(fd, bytes, done, bytes.length - done, position + done)
  },
  remove: (path) => unlinkSync(path),
}

function load(path: string, room: Buffer): Buffer {
  const file = openSync(path, 'r')
  try {
    let end = 0
    for (let count = -1; count !== 0 && end < room.length; end += count)
      count = readSync(file, room, end, room.length - end, end)
    return room.subarray(0, end)
  } finally {
    closeSync(file)
  }
}

/** Content of a small text file, or null when there is none. @throws StoreError */
export function readIfThere(path: string): string | null {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null
    throw storeError(`${basename(path)} could not be read`, error)
  }
}

/** Removes a file; one that is not there is fine. @throws StoreError */
export function removeFile(path: string): void {
  try {
    unlinkSync(path)
    syncDirectory(dirname(path))
  } catch (error) {
    if (codeOf(error) !== 'ENOENT')
      throw storeError(`${basename(path)} could not be removed`, error)
  }
}

export type DiskSpace = { readonly freeBytes: number; readonly totalBytes: number }

/** What an ordinary process may still write on the file system of `path`, and its size. */
export function diskSpace(path: string): DiskSpace {
  const { bavail, blocks, bsize } = statfsSync(path)
  return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
}

/** An error of the file system as what the caller should do: `cause` is kept. */
export function storeError(what: string, cause: unknown): StoreError {
  const full = ['ENOSPC', 'EDQUOT'].includes(codeOf(cause))
  return new StoreError(`${what}: ${messageOf(cause)}`, {
    remedy: full ? 'retry' : 'ask-operator',
    cause,
  })
}

/** `ENOENT` and the like; '' when the error has none. */
export function codeOf(error: unknown): string {
  return error instanceof Error && 'code' in error ? String(error.code) : ''
}

const LOCK_EXCLUSIVE = 2
const LOCK_AT_ONCE = 4

export type DirectoryLock = { readonly release: () => void }

/**
 * Makes this process the only one on `directory`. The kernel drops the lock when the process
 * dies, however it dies; the file `lock` holds the pid and stays.
 * @throws RefusalError conflict, naming the pid of the owner
 */
export function lockDirectory(directory: string): DirectoryLock {
  const path = join(directory, 'lock')
  // 'a+': the pid of the owner must not be cut off by one who only asks. Bun opens with O_CLOEXEC,
  // so no child keeps the lock.
  const file = openSync(path, 'a+', 0o600)
  if (!flock(file)) {
    closeSync(file)
    const owner = readIfThere(path)?.trim() ?? ''
    throw new RefusalError(
      'conflict',
      'data',
      `Another postern (pid ${/^\d+$/.test(owner) ? owner : 'unknown'}) runs on ${directory}.`,
      'Stop it first, or start this one with another --data directory.',
    )
  }
  ftruncateSync(file, 0)
  writeSync(file, `${process.pid}\n`)
  return { release: () => closeSync(file) }
}

function flock(file: number): boolean {
  const symbols = { flock: { args: [FFIType.i32, FFIType.i32], returns: FFIType.i32 } } as const
  for (const name of ['libc.so.6', 'libc.so']) {
    try {
      // Never closed: the library is in the process anyway.
      return dlopen(name, symbols).symbols.flock(file, LOCK_EXCLUSIVE | LOCK_AT_ONCE) === 0
    } catch {
      // The other name of the C library.
    }
  }
  assert(false, 'the C library can be opened')
}

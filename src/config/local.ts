/** The node's own file, DIR/node.json: who this node is. Made at init, counted up at each start. */
import { chmodSync, existsSync, mkdirSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { RefusalError } from '../base/errors.ts'
import { atomicWrite, codeOf, readIfThere } from '../base/files.ts'
import { type NodeId, newNodeId, newSpoolId, parseNodeId, type SpoolId } from '../base/ids.ts'
import type { Random } from '../base/random.ts'

/** Version of everything stored in a data directory. Grows when an older program cannot read it. */
export const DATA_FORMAT = 2

/** Longest DIR/control.sock that a Unix socket address takes (108 with its end on Linux). */
const SOCKET_PATH_BYTES_MAX = 107

export type NodeFile = {
  readonly nodeId: NodeId
  readonly spoolId: SpoolId
  /** Counts the starts, from 1; synced before this start uses it. */
  readonly epoch: number
  /** What people call this node. */
  readonly name: string
  readonly format: number
}

/**
 * Makes `directory` (0700) when it is not there. @throws RefusalError when it cannot be made or
 * written, or its path is too long for the control socket
 */
export function openDataDirectory(directory: string): void {
  const socket = join(directory, 'control.sock')
  if (Buffer.byteLength(socket) > SOCKET_PATH_BYTES_MAX) {
    throw new RefusalError(
      'invalid',
      'data',
      `The path of the data directory is too long for a socket: ${directory}.`,
      `Choose one with at most ${SOCKET_PATH_BYTES_MAX - '/control.sock'.length} bytes.`,
    )
  }
  try {
    mkdirSync(directory, { recursive: true, mode: 0o700 })
    chmodSync(directory, 0o700)
  } catch (error) {
    throw new RefusalError(
      'invalid',
      'data',
      `The data directory ${directory} cannot be used: ${codeOf(error)}.`,
      'Make it writable for this user, or choose another one with --data.',
    )
  }
}

/**
 * Reads or makes DIR/node.json and counts the epoch up, durably. `name` replaces the stored one.
 * @throws RefusalError when a newer version wrote it (nothing is changed), or it is damaged
 */
export function openNodeFile(
  directory: string,
  options: { readonly random: Random; readonly name?: string; readonly hostname?: string },
): NodeFile {
  const path = join(directory, 'node.json')
  const text = readIfThere(path)
  const before = text === null ? newNode(directory, options.random) : parseNode(path, text)
  // A spool that is gone was lost: others adopt at once what this node owned in it (design: mail.md).
  const isLost = before.epoch > 0 && !existsSync(join(directory, 'spool'))
  const node = {
    ...before,
    spoolId: isLost ? newSpoolId(options.random) : before.spoolId,
    epoch: before.epoch + 1,
    name: cleanName(options.name ?? before.name) || cleanName(options.hostname ?? '') || 'postern',
    format: DATA_FORMAT,
  }
  try {
    atomicWrite(path, `${JSON.stringify(node, null, 2)}\n`)
  } catch (error) {
    throw new RefusalError(
      'invalid',
      'data',
      `The data directory ${directory} is not writable: ${error instanceof Error ? error.message : ''}.`,
      'Make it writable for this user, or choose another one with --data.',
    )
  }
  return node
}

/** Calls the node something else, from its next start on. @throws RefusalError as above; StoreError */
export function storeNodeName(directory: string, name: string): void {
  const before = readNodeFile(directory)
  if (before === null) throw damaged(join(directory, 'node.json'), 'it is missing')
  const after = { ...before, name: cleanName(name) || before.name }
  atomicWrite(join(directory, 'node.json'), `${JSON.stringify(after, null, 2)}\n`)
}

/** What is stored, without counting; null when there is none. @throws RefusalError as above */
export function readNodeFile(directory: string): NodeFile | null {
  const path = join(directory, 'node.json')
  const text = readIfThere(path)
  return text === null ? null : parseNode(path, text)
}

function newNode(directory: string, random: Random): NodeFile {
  // A spool without its node would get ids of another node: better no start than lost mail.
  const others = readdirSync(directory).filter((name) => ['spool', 'state.db'].includes(name))
  if (others.length > 0) throw damaged(join(directory, 'node.json'), 'it is missing')
  return {
    nodeId: newNodeId(random),
    spoolId: newSpoolId(random),
    epoch: 0,
    name: '',
    format: DATA_FORMAT,
  }
}

function parseNode(path: string, text: string): NodeFile {
  let raw: { readonly [Field in keyof NodeFile]?: unknown }
  try {
    raw = JSON.parse(text)
  } catch {
    throw damaged(path, 'it is not JSON')
  }
  if (typeof raw !== 'object' || raw === null) throw damaged(path, 'it is not an object')
  const { format, epoch, name } = raw
  if (typeof format !== 'number') throw damaged(path, 'its format is missing')
  if (format > DATA_FORMAT) throw newerFormat()
  if (format < DATA_FORMAT) throw olderFormat()
  const nodeId = parseNodeId(String(raw.nodeId))
  const spoolId = parseNodeId(String(raw.spoolId))
  if (nodeId === null || spoolId === null) throw damaged(path, 'an id in it is not 16 hex digits')
  if (typeof epoch !== 'number' || !Number.isSafeInteger(epoch) || epoch < 0) {
    throw damaged(path, 'its epoch is not a count')
  }
  // Both are 16 lowercase hex digits; the brand says which is which.
  return { nodeId, spoolId: spoolId as string as SpoolId, epoch, name: String(name ?? ''), format }
}

/** The refusal of a data directory that this program is too old for. */
export function newerFormat(): RefusalError {
  return new RefusalError(
    'invalid',
    'data',
    'The data directory was written by a newer version of postern.',
    'Start that version or a later one; this one has changed nothing.',
  )
}

/** Format 1 knew no other nodes: its settings and decisions stood in other tables. */
function olderFormat(): RefusalError {
  return new RefusalError(
    'invalid',
    'data',
    'The data directory was written by a version that ran alone, and its settings cannot be read; nothing was changed.',
    'Let that version deliver its queue and decide what it holds, keep its "postern config export", and start this one on an empty directory.',
  )
}

function damaged(path: string, why: string): RefusalError {
  return new RefusalError(
    'invalid',
    'data',
    `The file ${path} cannot be used: ${why}.`,
    'Restore it from a backup; without it the mail in this directory has no owner.',
  )
}

/** Printable, one line, at most 63 characters. */
export function cleanName(name: string): string {
  return name
    .replace(/[^\p{L}\p{N}._ -]/gu, '')
    .trim()
    .slice(0, 63)
}

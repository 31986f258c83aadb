/**
 * How a node whose database is lost finds its cluster again. DIR/peers.json repeats the member rows
 * beside the database: they prove themselves, and they tell where the others are. The others know
 * the keys of this node; all that it shared it reads from them, as a node that joins does.
 */
import { existsSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, isoTime } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import { atomicWrite, readIfThere, removeFile, storeError, syncDirectory } from '../base/files.ts'
import type { NodeId } from '../base/ids.ts'
import { DamagedError } from '../store/db.ts'
import type { WireRow } from '../store/feed.ts'
import type { SharedRows } from '../store/shared.ts'
import { storeJoined } from './identity.ts'
import { MEMBER_KIND, type MemberRoster } from './roster.ts'

const FORMAT = 1
const PEERS_FILE = 'peers.json'
const STATE_FILE = 'state.db'

type Known = { readonly clusterId: string; readonly rows: readonly WireRow[] }

/** Writes down who is in the cluster, when that is news; nothing for a node alone. @throws StoreError */
export function keepPeers(directory: string, roster: MemberRoster, state: SharedRows): void {
  const path = join(directory, PEERS_FILE)
  if (roster.peers().length === 0) return removeFile(path)
  const names = state.list(MEMBER_KIND).map(({ key }) => `${MEMBER_KIND}/${key}`)
  const known = { format: FORMAT, clusterId: roster.clusterId, rows: state.rowsOf(names) }
  const text = `${JSON.stringify(known)}\n`
  if (readIfThere(path) !== text) atomicWrite(path, text)
}

/**
 * The database is gone, and this node was one of several: without its rows it would found a cluster
 * of its own, and refuse all mail. @throws DamagedError; StoreError
 */
export function refuseLostState(directory: string): void {
  const path = join(directory, STATE_FILE)
  if (existsSync(path) || readPeers(directory) === null) return
  throw new DamagedError(path, new Error('it is gone, and this node has peers'))
}

/**
 * Makes ready to read everything from the peers: the database, if there is one, is set aside, and
 * the next opening begins as after a join. Gives where it was moved. For the owner of the lock,
 * before the database is opened. @throws RefusalError when no peer is known; StoreError
 */
export function beginRebuild(
  directory: string,
  self: { readonly node: NodeId; readonly name: string },
  clock: Clock,
): string | null {
  const path = join(directory, STATE_FILE)
  const known = readPeers(directory)
  if (known === null) {
    throw new RefusalError(
      'conflict',
      'data',
      `No other node is known in ${directory}: nobody has what was in ${STATE_FILE}.`,
      'Restore it from a backup, or move it away to begin without it.',
    )
  }
  // First: from here on every start goes on with it.
  storeJoined(directory, { ...known, issuer: self.node, name: self.name })
  // With its log, also one that a crash has left behind: it would be read into the next one.
  const ends = ['', '-wal', '-shm'].filter((end) => existsSync(path + end))
  const aside = `${path}.damaged-${isoTime(clock.wallMs()).replaceAll(':', '')}`
  try {
    for (const end of ends) renameSync(path + end, aside + end)
    syncDirectory(directory)
  } catch (error) {
    throw storeError(`${STATE_FILE} could not be set aside`, error)
  }
  return ends.includes('') ? aside : null
}

/** Null: there are none, or the file says nothing that can be used. */
function readPeers(directory: string): Known | null {
  const text = readIfThere(join(directory, PEERS_FILE))
  if (text === null) return null
  try {
    const { clusterId, rows } = JSON.parse(text) as Partial<Known>
    return typeof clusterId === 'string' && Array.isArray(rows) ? { clusterId, rows } : null
  } catch {
    return null
  }
}

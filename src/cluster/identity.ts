/**
 * DIR/node.key: the keys of this node, its cluster, and the machine that it was made for. A copy
 * of the directory on another machine is not a second node: it is refused until a person says
 * what it is.
 */
import { createHash } from 'node:crypto'
import { mkdirSync, readdirSync, renameSync } from 'node:fs'
import { join } from 'node:path'
import { type Clock, isoTime } from '../base/clock.ts'
import { messageOf, RefusalError } from '../base/errors.ts'
import { atomicWrite, readIfThere, storeError, syncDirectory } from '../base/files.ts'
import type { NodeId } from '../base/ids.ts'
import type { Random } from '../base/random.ts'
import type { WireRow } from '../store/feed.ts'
import type { NodeKeys } from './contract.ts'
import { KEY_BYTES, keysOf, newKeys } from './keys.ts'

/** A machine by what distinguishes it: hashes, by the name of their source. */
export type Machine = Readonly<Record<string, string>>

/** A join that was granted: the member rows of the cluster stand in for those of before. */
export type Joined = {
  /** 16 hex digits. */
  readonly clusterId: string
  /** Who let us in. */
  readonly issuer: NodeId
  /** What this node is called there: the token may say it. */
  readonly name: string
  /** Rows of kind `member`. */
  readonly rows: readonly WireRow[]
}

export type Identity = {
  readonly keys: NodeKeys
  /** 16 hex digits. A node without peers is a cluster of one. */
  readonly clusterId: string
  /** Granted and not finished when the process ended; see `finishJoin` of join.ts. */
  readonly joined: Joined | null
  /** Since its join, or the loss of its database, this node has not read all from a peer. */
  readonly awaits: boolean
}

/** What the file holds. Fields of a later version are kept. */
type Stored = Readonly<Record<string, unknown>>

const FORMAT = 1
const KEY_FILE = 'node.key'

/**
 * The cluster that a node founds by being first: made of its random keys, so that whoever knows
 * the id can check who the founder was, and with it every admission after it.
 */
export function clusterIdOf(
  node: NodeId,
  keys: { readonly exchange: Uint8Array; readonly sign: Uint8Array },
): string {
  const hash = createHash('sha256').update(`postern cluster\n${node}\n`)
  return hash.update(keys.exchange).update(keys.sign).digest('hex').slice(0, 16)
}

/**
 * Reads or makes DIR/node.key, durably. `machine` null: nothing tells this machine from another,
 * and nothing is compared. `adopt`: this machine is the node's from now on.
 * @throws RefusalError conflict when the directory was made on another machine; invalid when the
 * file is damaged; StoreError
 */
export function openIdentity(
  directory: string,
  node: NodeId,
  options: { readonly random: Random; readonly machine: Machine | null; readonly adopt: boolean },
): Identity {
  const path = pathOf(directory)
  const text = readIfThere(path)
  const { machine } = options
  if (text === null) {
    const keys = newKeys(options.random)
    const clusterId = clusterIdOf(node, publicKeys(keys))
    write(directory, {
      format: FORMAT,
      exchange: encode(keys.exchange.secret),
      sign: encode(keys.sign.secret),
      clusterId,
      machine,
    })
    return { keys, clusterId, joined: null, awaits: false }
  }
  const stored = parse(path, text)
  const known = machineOf(stored['machine'])
  const other = machine !== null && known !== null && isOther(known, machine)
  if (other && !options.adopt) throw copied(directory)
  // A machine that was not known before, or more of it is now.
  const bound = machine === null ? known : other ? machine : { ...known, ...machine }
  if (JSON.stringify(bound) !== JSON.stringify(known))
    write(directory, { ...stored, machine: bound })
  return identityOf(path, stored)
}

/**
 * Writes down that the node belongs to another cluster, before anything of the old one is dropped:
 * a crash in between is made good at the next start. @throws StoreError
 */
export function storeJoined(directory: string, joined: Joined): void {
  const { clusterId } = joined
  write(directory, { ...read(directory), clusterId, joined, awaits: true })
}

/** The rows of the new cluster are in. @throws StoreError */
export function clearJoined(directory: string): void {
  write(directory, { ...read(directory), joined: null })
}

/** Everything that the peers had is here. @throws StoreError */
export function clearAwaits(directory: string): void {
  write(directory, { ...read(directory), awaits: false })
}

/** Copies that are set aside; more are a mistake in a unit or a script. */
const COPIES_MAX = 5
const COPY = /^copied-/
/** Of this process, not of the node. */
const STAYS = ['lock', 'control.sock']

/**
 * Makes an empty node of a copied directory: all that was copied is moved to DIR/copied-TIME,
 * where no node acts on it; its mail is still the original's to deliver. Gives the name of the
 * place, or null when there was nothing. For the owner of the lock, before anything is opened.
 * @throws RefusalError when it was done too often; StoreError
 */
export function setCopyAside(directory: string, clock: Clock): string | null {
  const names = readdirSync(directory)
  const parts = names.filter((name) => !COPY.test(name) && !STAYS.includes(name))
  if (parts.length === 0) return null
  if (names.filter((name) => COPY.test(name)).length >= COPIES_MAX) {
    throw new RefusalError(
      'conflict',
      'identity',
      `${COPIES_MAX} copies were set aside in ${directory} already.`,
      'Leave --new-identity out: it is for one start. Or remove the copies that nobody needs.',
    )
  }
  const place = join(directory, `copied-${isoTime(clock.wallMs()).replaceAll(':', '')}`)
  try {
    mkdirSync(place, { mode: 0o700 })
    // Last: as long as it is here, another machine refuses the directory.
    for (const name of parts.sort((a, b) => Number(a === KEY_FILE) - Number(b === KEY_FILE))) {
      renameSync(join(directory, name), join(place, name))
      syncDirectory(directory)
    }
    syncDirectory(place)
  } catch (error) {
    throw storeError('the copy could not be set aside', error)
  }
  return place
}

/** Where Linux says which machine this is. `product_uuid` is for root only. */
const SOURCES = {
  machineId: '/etc/machine-id',
  productUuid: '/sys/class/dmi/id/product_uuid',
} as const

/**
 * This machine; null in a container, whose machine changes under it and whose machine-id is that
 * of its image, and where there is no machine-id.
 */
export function thisMachine(
  environment: Readonly<Record<string, string | undefined>>,
  fileOf: (path: string) => string | null = quietly,
): Machine | null {
  const inContainer =
    fileOf('/.dockerenv') !== null ||
    fileOf('/run/.containerenv') !== null ||
    environment['container'] !== undefined ||
    environment['KUBERNETES_SERVICE_HOST'] !== undefined
  if (inContainer || !/^[0-9a-f]{32}\s*$/.test(fileOf(SOURCES.machineId) ?? '')) return null
  const machine: Record<string, string> = {}
  for (const [name, path] of Object.entries(SOURCES)) {
    const text = fileOf(path)?.trim().toLowerCase() ?? ''
    // Hashed: machine-id(5) asks not to show it, and backups of the directory travel.
    if (text !== '') {
      machine[name] = createHash('sha256').update(`postern ${text}`).digest('hex').slice(0, 32)
    }
  }
  return machine
}

function quietly(path: string): string | null {
  try {
    return readIfThere(path)
  } catch {
    return null
  }
}

/** A fact that only one of the two knows says nothing: another user may read less. */
function isOther(known: Machine, now: Machine): boolean {
  return Object.entries(now).some(([name, hash]) => (known[name] ?? hash) !== hash)
}

function machineOf(raw: unknown): Machine | null {
  if (typeof raw !== 'object' || raw === null) return null
  return Object.fromEntries(
    Object.entries(raw).filter((pair): pair is [string, string] => typeof pair[1] === 'string'),
  )
}

function copied(directory: string): RefusalError {
  return new RefusalError(
    'conflict',
    'data',
    `The data directory ${directory} belongs to a node on another machine.`,
    'If that node is gone for good and this machine takes its place, start with --adopt-identity; if this is a copy, start with --new-identity: it begins as a new node, and what was copied is set aside.',
  )
}

function identityOf(path: string, stored: Stored): Identity {
  const [exchange, sign] = [decode(stored['exchange']), decode(stored['sign'])]
  const clusterId = stored['clusterId']
  if (exchange === null || sign === null) throw damaged(path, 'a key in it is not 32 bytes')
  if (typeof clusterId !== 'string' || !/^[0-9a-f]{16}$/.test(clusterId)) {
    throw damaged(path, 'its cluster id is not 16 hex digits')
  }
  const joined = (stored['joined'] ?? null) as Joined | null
  return { keys: keysOf(exchange, sign), clusterId, joined, awaits: stored['awaits'] === true }
}

function read(directory: string): Stored {
  const path = pathOf(directory)
  const text = readIfThere(path)
  if (text === null) throw damaged(path, 'it is missing')
  return parse(path, text)
}

function parse(path: string, text: string): Stored {
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch (error) {
    throw damaged(path, messageOf(error))
  }
  if (typeof raw !== 'object' || raw === null) throw damaged(path, 'it is not an object')
  return raw as Stored
}

function write(directory: string, stored: Stored): void {
  atomicWrite(pathOf(directory), `${JSON.stringify(stored, null, 2)}\n`, 0o600)
}

function pathOf(directory: string): string {
  return join(directory, KEY_FILE)
}

/** The public halves, as they stand in a member row. */
export function publicKeys(keys: NodeKeys): {
  readonly exchange: Uint8Array
  readonly sign: Uint8Array
} {
  return { exchange: keys.exchange.public, sign: keys.sign.public }
}

function encode(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url')
}

function decode(raw: unknown): Uint8Array | null {
  if (typeof raw !== 'string') return null
  const bytes = new Uint8Array(Buffer.from(raw, 'base64url'))
  return bytes.length === KEY_BYTES ? bytes : null
}

function damaged(path: string, why: string): RefusalError {
  return new RefusalError(
    'invalid',
    'data',
    `The file ${path} cannot be used: ${why}.`,
    'Restore it from a backup; without it the other nodes do not know this one. Or start with --new-identity, and join anew.',
  )
}

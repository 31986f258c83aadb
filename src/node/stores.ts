/** Everything of a node that survives a restart, opened in the order in which it leans on itself. */
import { mkdirSync } from 'node:fs'
import { join as joinPath } from 'node:path'
import type { Clock } from '../base/clock.ts'
import { messageOf } from '../base/errors.ts'
import { diskSpace, systemDisk } from '../base/files.ts'
import { type NodeId, parseNodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { Random } from '../base/random.ts'
import type { NodeOptions } from '../cli/world.ts'
import type { Cluster } from '../cluster/cluster.ts'
import { patienceOf } from '../cluster/patience.ts'
import { beginRebuild, refuseLostState } from '../cluster/rebuild.ts'
import type { LiveConfig } from '../config/live.ts'
import type { NodeFile } from '../config/local.ts'
import type { WriterId } from '../config/merge.ts'
import type { NodeName } from '../message/rows.ts'
import { Audit } from '../store/audit.ts'
import { Bodies } from '../store/bodies.ts'
import { Changes } from '../store/changes.ts'
import { Conflicts } from '../store/conflicts.ts'
import { DamagedError } from '../store/db.ts'
import { DetectionStore } from '../store/detection.ts'
import { Fates } from '../store/fates.ts'
import { Greylist } from '../store/greylist.ts'
import { IssuedTokens } from '../store/invitations.ts'
import { KeyRecords } from '../store/key-records.ts'
import { Learned } from '../store/learned.ts'
import { Lists } from '../store/lists.ts'
import { type NodeNames, nodeName } from '../store/names.ts'
import { type Databases, openDatabases } from '../store/open.ts'
import { Operators } from '../store/operators.ts'
import { Quarantine } from '../store/quarantine.ts'
import { Queue } from '../store/queue.ts'
import { Replica } from '../store/replica.ts'
import type { Spool } from '../store/spool.ts'
import { ApiTokens } from '../store/tokens.ts'
import { Trace } from '../store/trace.ts'
import type { Seat } from './seat.ts'

type Deps = { readonly clock: Clock; readonly random: Random; readonly observer: Observer }

/** Null until it runs. */
type Told = { readonly cluster: Cluster | null }

/** Both databases, and what all nodes share. Settings, operators and claims are synced at each
 * commit; the trace at its checkpoints only: it repeats what the spool and the claims know. */
export function openRows(options: NodeOptions, { nodeId: node, name }: NodeFile, seam: Deps) {
  const { state, trace } = openOrRebuild(options, { node, name }, seam)
  const replica = new Replica(state, { ...seam, node })
  return {
    state,
    history: trace,
    replica,
    issued: new IssuedTokens(state),
    close: () => {
      state.close()
      trace.close()
    },
  }
}

/** A state that is lost is read anew from the peers, when a person says so. */
function openOrRebuild(
  { dataDir, rebuildState }: NodeOptions,
  self: { readonly node: NodeId; readonly name: string },
  seam: { readonly clock: Clock; readonly observer: Observer },
): Databases {
  try {
    refuseLostState(dataDir)
    return openDatabases(dataDir, seam)
  } catch (error) {
    if (!rebuildState || !(error instanceof DamagedError)) throw error
    const moved = beginRebuild(dataDir, self, seam.clock)
    seam.observer.emit('state.replaced', { moved, cause: messageOf(error) })
    return openDatabases(dataDir, seam)
  }
}

export type Rows = ReturnType<typeof openRows>

export type Stores = {
  readonly spool: Spool
  readonly queue: Queue
  readonly bodies: Bodies
  readonly quarantine: Quarantine
  readonly greylist: Greylist
  readonly trace: Trace
  readonly changes: Changes
  readonly conflicts: Conflicts
  readonly lists: Lists
  readonly detection: DetectionStore
  readonly keyRecords: KeyRecords
  readonly learned: Learned
  readonly audit: Audit
  readonly tokens: ApiTokens
  readonly operators: Operators
  readonly nodes: NodeNames
  readonly close: () => Promise<void>
}

/** Of the counts of what was learnt, which the inspectors read. */
export function learnedDir(dataDir: string): string {
  return joinPath(dataDir, 'learned')
}

/** Opens everything that survives a restart, and puts the stored configuration in force. */
export async function openStores(
  dataDir: string,
  given: {
    readonly file: NodeFile
    readonly seat: Seat
    readonly rows: Rows
    readonly live: LiveConfig
    readonly timeScale: number
    readonly told: Told
  },
  deps: Deps,
): Promise<Stores> {
  const { clock, observer } = deps
  const { file, seat, rows, live, told } = given
  const { state, history, replica } = rows
  const node = { id: file.nodeId, name: seat.name }
  const nodes = namesOf(node, told)
  const nodeNameOf = (writer: WriterId): string => {
    const id = writerNode(replica.owned('writer', writer)?.value ?? null)
    return id === null ? '' : nodeName(nodes, id).name
  }
  const changes = new Changes(state, replica, live, {
    ...deps,
    nodeNameOf,
    readOnlyBecause: () => told.cluster?.sync.clockTrouble() ?? null,
  })
  const conflicts = new Conflicts(replica, changes, { observer, nodeNameOf })
  const audit = new Audit(state, replica, { clock })
  const operators = new Operators(replica, changes, dataDir, {
    ...deps,
    audit,
    maySetUp: () => seat.isFounder,
  })
  const tokens = new ApiTokens(replica, changes, audit, deps)
  const bodies = new Bodies(dataDir, deps)
  const quarantine = new Quarantine(state, replica, { clock, observer, node, nodes })
  const greylist = new Greylist(replica, { clock, observer })
  const learned = new Learned(state, replica, { ...deps, directory: learnedDir(dataDir) })
  const trace = new Trace(history, {
    ...deps,
    node,
    nodes,
    keepMs: () => live.current.settings['trace.keep'] * 86_400_000,
  })
  replica.start()
  learned.start()
  changes.load()
  conflicts.load()
  operators.load()
  tokens.load()
  const { damaged } = await quarantine.rebuild(bodies)
  for (const id of damaged)
    observer.emit('store.failed', { message: id, cause: 'held file is damaged' })
  const fates = new Fates(state, { clock, keepMs: patienceOf(given.timeScale).fatesMs })
  const { queue, spool } = await openQueue(dataDir, { file, live, told, fates }, deps)
  // What reading the spool took has become old meanwhile: as much as a large queue itself.
  Bun.gc(true)
  observer.emit('spool.opened', { messages: queue.size, segments: spool.segmentCount })
  return {
    spool,
    queue,
    bodies,
    quarantine,
    greylist,
    trace,
    changes,
    conflicts,
    lists: new Lists(replica, changes),
    detection: new DetectionStore(replica, changes, live),
    keyRecords: new KeyRecords(replica, deps),
    learned,
    audit,
    tokens,
    operators,
    nodes,
    close: async () => {
      await spool.close()
      fates.close()
      greylist.close()
      learned.close()
      quarantine.close()
      trace.close()
    },
  }
}

/** Mail is refused without a second copy, or taken with one when there is somebody to keep it. */
function openQueue(
  dataDir: string,
  given: {
    readonly file: NodeFile
    readonly live: LiveConfig
    readonly told: Told
    readonly fates: Fates
  },
  { clock, observer }: Deps,
): ReturnType<typeof Queue.open> {
  const { file, live, told, fates } = given
  const spoolDir = joinPath(dataDir, 'spool')
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 })
  const syncs = process.env['POSTERN_TEST_NO_SYNC'] !== '1'
  if (!syncs)
    observer.emit('node.failed', { cause: 'POSTERN_TEST_NO_SYNC is set: mail will be lost' })
  return Queue.open(
    {
      dir: spoolDir,
      spoolId: file.spoolId,
      clock,
      observer,
      freeSpace: () => diskSpace(spoolDir),
      disk: syncs ? systemDisk : { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: (error) => fallWith(error, observer, clock),
    },
    {
      clock,
      observer,
      node: file.nodeId,
      fates,
      copies: () => {
        const roster = told.cluster?.roster
        const hasOthers = roster !== undefined && roster.peers().length + roster.former().length > 0
        if (!hasOthers) return 'none'
        return live.current.settings['cluster.copies'] === 'require' ? 'require' : 'prefer'
      },
    },
  )
}

/**
 * A spool that failed cannot be trusted again in this process: what runs gets its 451, then the
 * process ends, and its supervisor starts it anew on what is really on the disk.
 */
function fallWith(error: Error, observer: Observer, clock: Clock): void {
  observer.emit('node.failed', { cause: messageOf(error) })
  observer.flush()
  clock.after(1_000, () => {
    throw error
  })
}

/** Members and former ones; this node alone until there is a cluster. */
function namesOf(self: NodeName, told: Told): NodeNames {
  return () => {
    const roster = told.cluster?.roster
    return roster === undefined ? [self] : [...roster.members(), ...roster.former()].map(named)
  }
}

function named({ node, name }: { readonly node: NodeId; readonly name: string }): NodeName {
  return { id: node, name }
}

/** Whose row of kind `writer` this is. */
function writerNode(value: string | null): NodeId | null {
  if (value === null) return null
  const { node } = JSON.parse(value) as { readonly node?: unknown }
  return parseNodeId(String(node))
}

/** The cluster as a node starts it and follows it: its port, its peers on disk, its drain. */
import { type Clock, pause } from '../base/clock.ts'
import { messageOf, RefusalError, StoreError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import type { Address, NodeOptions } from '../cli/world.ts'
import { Cluster, type ClusterOptions } from '../cluster/cluster.ts'
import type { ClusterDeps } from '../cluster/contract.ts'
import { keepPeers } from '../cluster/rebuild.ts'
import type { NodeFile } from '../config/local.ts'
import type { SmtpListener } from '../mail/accept/listener.ts'
import type { Replica } from '../store/replica.ts'
import type { Trace } from '../store/trace.ts'
import { FEATURES, type Seat } from './seat.ts'
import type { Rows } from './stores.ts'

/** While a new node waits for the settings of its peers it says so this often. */
const WAITING_SAID_MS = 30_000

/** Listens for peers and dials them. @throws RefusalError for a port that is taken; StoreError */
export function startCluster(
  options: NodeOptions,
  given: {
    readonly file: NodeFile
    readonly seat: Seat
    readonly rows: Rows
    readonly trace: Trace
    readonly endpoints: { readonly smtp: string; readonly web: string }
    readonly report: ClusterOptions['report']
  },
  seam: ClusterDeps,
): Promise<Cluster> {
  const { file, seat, rows, trace, endpoints, report } = given
  const own = {
    self: seat.self,
    clusterId: seat.clusterId,
    name: seat.name,
    spoolId: file.spoolId,
    advertise: seat.advertise,
    ...endpoints,
    features: FEATURES,
    state: rows.replica,
    trace: trace.feed,
    issued: rows.issued,
    report,
    awaits: seat.awaits,
    parallelCrypto: true,
    onJump: () => {
      rows.replica.renew()
      trace.feed.renew()
    },
  }
  return listen(own, seat.listen, options.peer === null, seam)
}

/** The default port may be another node's on the same machine: then any will do, and is said. */
async function listen(
  options: Omit<ClusterOptions, 'listen'>,
  at: Address,
  isDefault: boolean,
  seam: ClusterDeps,
): Promise<Cluster> {
  try {
    return await Cluster.start({ ...options, listen: at }, seam)
  } catch (error) {
    if (!isDefault || !(error instanceof RefusalError) || error.code !== 'conflict') throw error
    const cluster = await Cluster.start({ ...options, listen: { ...at, port: 0 } }, seam)
    seam.observer.emit('node.moved', { cause: messageOf(error), port: cluster.port })
    return cluster
  }
}

/** Who is in the cluster is written beside the database, for the day when that is lost. */
export function followRoster(
  dataDir: string,
  { roster }: Cluster,
  replica: Replica,
  observer: Observer,
): void {
  const keep = (): void => {
    try {
      keepPeers(dataDir, roster, replica)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
    }
  }
  roster.onChange(keep)
  keep()
}

/** Without the state of its peers a new node would refuse everybody: no domain is known yet. */
export async function untilKnown(
  cluster: Cluster,
  isWaiting: () => boolean,
  { clock, observer }: { readonly clock: Clock; readonly observer: Observer },
): Promise<void> {
  let saidMono = clock.monoMs()
  while (isWaiting()) {
    await pause(clock, 10)
    if (clock.monoMs() - saidMono < WAITING_SAID_MS) continue
    saidMono = clock.monoMs()
    const cause = cluster.roster
      .peers()
      .map(({ node }) =>
        cluster.sync.isWaiting(node)
          ? `${cluster.nameOf(node)}, which waits itself`
          : cluster.describe(node),
      )
      .join('; ')
    observer.emit('node.waiting', { cause })
  }
}

/** Whether a client at port 25 has the address of another node. */
export function peersOf({ roster }: Cluster): (ip: string) => boolean {
  return (ip) =>
    roster
      .members()
      .some(({ node, peer }) => node !== roster.self.node && peer.some(({ host }) => host === ip))
}

/** Closes port 25 to new mail while this node is drained. */
export function followDrain(cluster: Cluster, listener: SmtpListener): void {
  const { roster } = cluster
  const { node } = roster.self
  const look = (): void => {
    const me = roster.get(node)
    const isMember = me !== null && me.standing === 'member' && cluster.removedBy === null
    listener.drain(!isMember || me.drain !== 'accepting')
  }
  roster.onChange(look)
  cluster.links.onRefused(look)
  look()
}

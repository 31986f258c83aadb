/** What is counted about a node as a whole. */
import type { Observer } from '../base/observe.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Quarantine } from '../store/quarantine.ts'
import type { Queue } from '../store/queue.ts'
import type { Replica } from '../store/replica.ts'
import type { Spool } from '../store/spool.ts'

export function registerGauges(
  observer: Observer,
  queue: Queue,
  spool: Spool,
  quarantine: Quarantine,
  inspectors: Inspectors,
): void {
  observer.gauge('queue_messages', 'Messages in the spool that are not final', () => queue.size)
  observer.gauge('held_messages', 'Messages in quarantine', () => quarantine.count())
  observer.gauge('spool_segments', 'Spool segments, free ones included', () => spool.segmentCount)
  observer.gauge(
    'spool_backlog_bytes',
    'Bytes handed to the spool and not written',
    () => spool.backlogBytes,
  )
  observer.gauge(
    'spool_free_bytes',
    'Free bytes of the disk of the spool',
    () => spool.diskSpace().freeBytes,
  )
  observer.gauge(
    'inspectors_ready',
    'Inspector processes that answer',
    () => inspectors.health().ready,
  )
  observer.gauge('memory_resident_bytes', 'Resident memory of the main process', () =>
    process.memoryUsage.rss(),
  )
}

export function registerClusterGauges(
  observer: Observer,
  cluster: Cluster,
  replica: Replica,
): void {
  const { roster, sync, members } = cluster
  const peers = () => roster.peers().map(({ node }) => node)
  observer.gauge('nodes', 'Members of the cluster, this one included', () => peers().length + 1)
  observer.gauge(
    'nodes_alive',
    'Members that are alive, this one included',
    () => peers().filter((node) => members.get(node)?.life === 'alive').length + 1,
  )
  observer.gauge('sync_lag_rows', 'Writes that the slowest peer has not taken', () =>
    Math.max(0, ...peers().map((node) => sync.lagOf(node).rows)),
  )
  observer.gauge('sync_lag_ms', 'Age of the oldest of them', () =>
    Math.max(0, ...peers().map((node) => sync.lagOf(node).ms)),
  )
  observer.gauge('sync_parked_rows', 'Rows that wait for their time', () => replica.parked)
}

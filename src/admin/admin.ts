/** The admin of one node: the topics put together behind the one contract. */
import type { Clock } from '../base/clock.ts'
import type { Observer } from '../base/observe.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { Patience } from '../cluster/patience.ts'
import type { LiveConfig } from '../config/live.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Audit } from '../store/audit.ts'
import type { Changes } from '../store/changes.ts'
import type { Conflicts } from '../store/conflicts.ts'
import type { DetectionStore } from '../store/detection.ts'
import type { Lists } from '../store/lists.ts'
import type { Operators } from '../store/operators.ts'
import type { Quarantine } from '../store/quarantine.ts'
import type { ApiTokens } from '../store/tokens.ts'
import type { Trace } from '../store/trace.ts'
import { accessPart, tokensPart } from './access.ts'
import { Alerts } from './alerts.ts'
import { alarmsOf, type ClusterPartDeps, clusterPart } from './cluster.ts'
import { conflictsPart } from './conflicts.ts'
import type { Admin, NextHopProbe, NodeStatus } from './contract.ts'
import { detectionPart } from './detection.ts'
import { domainsPart } from './domains.ts'
import { registerMailGauges } from './gauges.ts'
import { type HeldDeps, heldPart } from './held.ts'
import type { HeldDecisions } from './held-decisions.ts'
import { type LearningDeps, learningPart } from './learning.ts'
import { listsPart } from './lists.ts'
import type { MailActions } from './mail-actions.ts'
import { messagesPart } from './messages.ts'
import { bansPart, type Outside } from './outside.ts'
import { queuePart } from './queue.ts'
import { queuePeersOf } from './queue-peers.ts'
import { settingsPart } from './settings.ts'
import { type SigningDeps, type SigningPart, signingPart } from './signing.ts'

/** What the node itself knows of its status; the admin adds queue, quarantine and inspectors. */
export type StatusParts = Pick<
  NodeStatus,
  | 'node'
  | 'name'
  | 'version'
  | 'ready'
  | 'problems'
  | 'webPin'
  | 'startedMs'
  | 'smtp'
  | 'web'
  | 'disk'
>

export type AdminDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly live: LiveConfig
  readonly changes: Changes
  readonly conflicts: Conflicts
  readonly lists: Lists
  readonly detection: DetectionStore
  readonly checkYara: (source: string) => Promise<void>
  readonly tokens: ApiTokens
  readonly trace: Trace
  readonly quarantine: Quarantine
  readonly decisions: HeldDecisions
  readonly takeover: HeldDeps['takeover']
  readonly heldNodes: HeldDeps['nodes']
  readonly operators: Operators
  readonly inspectors: Pick<Inspectors, 'preview' | 'sample' | 'health'>
  readonly learned: LearningDeps['learned']
  readonly mail: MailActions
  readonly status: () => StatusParts
  readonly probe: (hop: string) => Promise<NextHopProbe>
  readonly cluster: Cluster
  readonly audit: Audit
  readonly door: ClusterPartDeps['door']
  readonly remains: ClusterPartDeps['remains']
  readonly join: ClusterPartDeps['join']
  readonly patience: Patience
  readonly outside?: Outside
  readonly names: SigningDeps['names']
  readonly secrets: SigningDeps['secrets']
  readonly keyRecords: SigningDeps['keyRecords']
}

/** Beside what people ask: what the cluster is told of alerts, and a job of the cluster. */
export type NodeAdmin = Admin & Pick<Alerts, 'told'> & Pick<SigningPart, 'checkKeys'>

export function createAdmin(deps: AdminDeps): NodeAdmin {
  const { cluster, mail } = deps
  const queuePeers = queuePeersOf(cluster)
  const { checkKeys, lostKeys, forgetSecrets, ...signing } = signingPart(deps)
  const alerts = new Alerts({
    ...deps,
    nodes: () => cluster.nodes(),
    alarms: () => alarmsOf(deps),
    totals: () => mail.queueTotals(),
    parked: () => cluster.parked,
    problems: () => deps.status().problems,
    pending: () => deps.quarantine.read((list) => list.countAsked()),
    lostKeys,
  })
  cluster.onChange(() => alerts.look())
  registerMailGauges({
    ...deps,
    nodes: () => cluster.nodes(),
    totals: () => mail.queueTotals(),
    alerts: () => alerts.current(),
    lostKeys,
  })
  const held = heldPart({ ...deps, nodes: deps.heldNodes })
  return {
    alerts: () => alerts.current(),
    told: () => alerts.told(),
    status: () => statusOf(deps),
    metrics: () => deps.observer.metrics(),
    ...accessPart(deps),
    ...tokensPart(deps),
    ...domainsPart({ ...deps, forgetSecrets }),
    ...settingsPart(deps),
    ...conflictsPart(deps),
    ...listsPart(deps),
    ...bansPart(deps),
    ...detectionPart(deps),
    ...signing,
    checkKeys,
    ...learningPart({ ...deps, held }),
    ...messagesPart({ ...deps, queuePeers, held }),
    ...held,
    ...queuePart({ ...deps, queuePeers }),
    ...clusterPart({ ...deps, copiesOf: (owner) => mail.copiesOf(owner) }),
  }
}

function statusOf({
  status,
  mail,
  quarantine,
  inspectors,
  observer,
  cluster,
}: AdminDeps): NodeStatus {
  const parts = status()
  const { processes, ready, missing } = inspectors.health()
  const { messages, oldestMs } = mail.queueTotals()
  return {
    ...parts,
    queue: { messages, oldestMs },
    held: quarantine.count(),
    inspectors: { processes, ready, missing },
    possibleDuplicates: observer.count('possible_duplicates_total'),
    nodes: cluster.nodes().map(({ id, name, state, lagMs }) => ({ id, name, state, lagMs })),
  }
}

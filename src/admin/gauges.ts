/** What monitoring reads of the mail of this node and of its peers; counters are the events' own. */
import type { Clock } from '../base/clock.ts'
import type { Observer } from '../base/observe.ts'
import type { NodeReport, NodeView } from '../cluster/contract.ts'
import type { Alert } from './contract.ts'
import type { QueueTotals } from './mail-actions.ts'

export type GaugesDeps = {
  readonly clock: Clock
  readonly observer: Pick<Observer, 'gauge'>
  readonly nodes: () => readonly NodeView[]
  readonly totals: () => QueueTotals
  readonly alerts: () => readonly Alert[]
  readonly lostKeys: () => readonly unknown[]
}

export function registerMailGauges(deps: GaugesDeps): void {
  const { clock, observer, nodes, totals, alerts, lostKeys } = deps
  const own = (of: (report: NodeReport) => number) => () => {
    const report = nodes().find(({ here }) => here)?.report ?? null
    return report === null ? 0 : of(report)
  }
  observer.gauge(
    'ready',
    'Whether this node takes mail',
    own(({ ready }) => (ready ? 1 : 0)),
  )
  observer.gauge('queue_oldest_seconds', 'Age of the oldest message that waits here', () => {
    const { oldestMs } = totals()
    return oldestMs === null ? 0 : Math.max(0, (clock.wallMs() - oldestMs) / 1_000)
  })
  observer.gauge(
    'queue_indoubt_messages',
    'Messages here that may have been delivered although nothing says so',
    own(({ inDoubt }) => inDoubt),
  )
  observer.gauge(
    'copies_messages',
    'Messages that this node keeps for others',
    own(({ copies }) => copies),
  )
  observer.gauge(
    'copies_taken',
    'Whether this node takes copies of others now',
    own(({ takesCopies }) => (takesCopies ? 1 : 0)),
  )
  observer.gauge(
    'unreplicated_messages',
    'Messages of this node, queued or held, that no other node is known to have',
    own(({ alone }) => alone),
  )
  observer.gauge('peer_state', 'One for the state in which each peer is seen here', () =>
    nodes().flatMap(({ here, name, state }) =>
      here ? [] : [{ labels: { peer: name, state }, value: 1 }],
    ),
  )
  observer.gauge(
    'signing_records_missing',
    'Keys that sign although the DNS has not their record',
    () => lostKeys().length,
  )
  observer.gauge('alerts', 'What somebody should look at, by its level', () =>
    ['bad', 'warn'].map((level) => ({
      labels: { level },
      value: alerts().filter((alert) => alert.level === level).length,
    })),
  )
}

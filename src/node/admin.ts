/** What people and programs may ask of a node and change in it, given what the node is made of. */
import { type AdminDeps, createAdmin, type NodeAdmin } from '../admin/admin.ts'
import type { HeldDecisions } from '../admin/held-decisions.ts'
import type { Clock } from '../base/clock.ts'
import type { Resolver } from '../base/dns.ts'
import { RefusalError } from '../base/errors.ts'
import type { Observer } from '../base/observe.ts'
import type { NodeOptions } from '../cli/world.ts'
import type { Cluster } from '../cluster/cluster.ts'
import { hashOf } from '../cluster/rank.ts'
import type { LiveConfig } from '../config/live.ts'
import { probeNextHop } from '../mail/deliver/probe.ts'
import type { Inspectors } from '../mail/inspect/contract.ts'
import type { Engines } from '../mail/inspect/engines/engines.ts'
import { checkYara } from '../mail/inspect/yara-check.ts'
import type { Duties } from './duties.ts'
import type { Mail } from './mail.ts'
import type { Names } from './names.ts'
import type { Seat } from './seat.ts'
import type { Stores } from './stores.ts'

const HOUR_MS = 3_600_000

export function openAdmin(
  options: NodeOptions,
  given: {
    readonly seat: Seat
    readonly live: LiveConfig
    readonly store: Stores
    readonly names: Names
    readonly engines: Engines
    readonly inspectors: Inspectors
    readonly cluster: Cluster
    readonly duties: Duties
    readonly mail: Pick<Mail, 'pipeline' | 'bans'>
    readonly decisions: HeldDecisions
    readonly door: AdminDeps['door']
    readonly status: AdminDeps['status']
    readonly join: AdminDeps['join']
  },
  seam: { readonly clock: Clock; readonly resolver: Resolver; readonly observer: Observer },
): NodeAdmin {
  const { seat, live, store, names, engines, inspectors, cluster, duties } = given
  const { pipeline, bans } = given.mail
  const { clock, resolver, observer } = seam
  const { custody, holders, secrets, patience, jobs } = duties
  const admin = createAdmin({
    clock,
    observer,
    live,
    ...store,
    inspectors,
    checkYara: async (source) => {
      const wrong = await checkYara([...options.command, 'inspector'], clock, source)
      if (wrong.length > 0)
        throw new RefusalError(
          'invalid',
          'source',
          wrong.join(' '),
          'Mend the rules and save them again.',
        )
    },
    mail: pipeline,
    decisions: given.decisions,
    takeover: holders.takeover,
    heldNodes: duties.nodes,
    cluster,
    names: names.lists,
    secrets,
    patience,
    outside: {
      names: () => names.client.trouble,
      lists: () => names.lists.troubles(),
      bans: () => bans.list(),
      lift: (author, network) => bans.lift(author, network),
      engines: () => engines.health(live.current.settings['engines.list']),
    },
    probe: (hop) => probeNextHop(hop, { clock, resolver, hostname: seat.name }),
    door: given.door,
    remains: () => custody.transfer.remains(),
    join: given.join,
    status: given.status,
  })
  jobs.add({
    name: 'dkim',
    slotMs: HOUR_MS,
    offsetMs: hashOf(`dkim ${seat.clusterId}`) % HOUR_MS,
    run: async () => {
      const { activated, missing, unknown } = await admin.checkKeys()
      return `${activated.length} keys sign from now on, ${missing} have no record, ${unknown} are unknown`
    },
  })
  return admin
}

/**
 * What the nodes of a cluster do for each other's mail, plugged into this one: copies and
 * succession, held mail of others, counts in common, and jobs that happen once in the cluster.
 */
import { HeldHolders } from '../admin/held-holders.ts'
import { heldNodes } from '../admin/held-nodes.ts'
import type { Clock } from '../base/clock.ts'
import type { AdoptedWhy } from '../cluster/adopt.ts'
import type { Cluster } from '../cluster/cluster.ts'
import type { ClusterDeps } from '../cluster/contract.ts'
import { Custody, type CustodyOptions } from '../cluster/custody.ts'
import type { Resolution } from '../cluster/doubts.ts'
import { Jobs } from '../cluster/jobs.ts'
import { patienceOf } from '../cluster/patience.ts'
import { ClusterSecrets } from '../cluster/secrets.ts'
import { Taken } from '../cluster/taken.ts'
import { ClusterTally } from '../cluster/tally.ts'
import type { LiveConfig } from '../config/live.ts'
import type { Message } from '../store/queued.ts'
import type { Trace } from '../store/trace.ts'
import type { Seat } from './seat.ts'
import type { Rows, Stores } from './stores.ts'

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000

/** How a message came to another owner, for its history; the name of the former one follows. */
const ADOPTED: Readonly<Record<AdoptedWhy | 'transfer', string>> = {
  refused: 'confirmed dead:',
  removed: 'removed from the cluster:',
  respooled: 'came back without its spool:',
  silent: 'silent:',
  transfer: 'handed over by',
}

/** What a former owner that came back has told, for the history. */
const RESOLVED: Readonly<Record<Resolution, string>> = {
  once: 'it arrived once',
  twice: 'it says that it had delivered it too, so it arrived twice',
  open: 'it had not delivered it',
}

function noteAdopted(
  messages: readonly Message[],
  detail: string,
  { clock, trace }: { readonly clock: Clock; readonly trace: Trace },
): void {
  const atMs = clock.wallMs()
  for (const { id } of messages) trace.note(id, { atMs, recipient: null, what: 'adopted', detail })
}

export type Duties = ReturnType<typeof takeDuties>

/** Before there is a queue at work: what it does is asked of `mail` later. */
export function takeDuties(
  given: {
    readonly seat: Seat
    readonly rows: Rows
    readonly store: Stores
    readonly live: LiveConfig
    readonly cluster: Cluster
    readonly timeScale: number
    /** The settings of the cluster are still to be read. */
    readonly isWaiting: () => boolean
    readonly isDelivering: CustodyOptions['isDelivering']
    readonly mail: Pick<CustodyOptions['mail'], 'rest' | 'busy'>
  },
  seam: ClusterDeps,
) {
  const { seat, rows, store, live, cluster, isWaiting, isDelivering, mail } = given
  const { clock, random, observer } = seam
  const { links, members, roster, sync, calls } = cluster
  const tally = new ClusterTally({ clock, observer, links, members, roster })
  const patience = patienceOf(given.timeScale)
  const custody = new Custody(
    {
      self: seat.self,
      cluster,
      queue: store.queue,
      patience,
      isolation: () => (live.current.settings['cluster.isolation'] === 'hold' ? 'hold' : 'deliver'),
      inDoubtMs: () => live.current.settings['queue.inDoubt'] * 1_000,
      isJoined: () => !isWaiting(),
      isDelivering,
      mail: { ...mail, heldLeft: () => heldLeft(holders.takeover) },
      adopted: (messages, why, from) =>
        noteAdopted(messages, `${ADOPTED[why]} ${cluster.nameOf(from)}`, {
          clock,
          trace: store.trace,
        }),
      resolved: (id, index, how, from) =>
        store.trace.note(id, {
          atMs: clock.wallMs(),
          recipient: store.queue.get(id)?.envelope.recipients[index]?.address ?? null,
          what: 'resolved',
          detail: `${cluster.nameOf(from)} is back: ${RESOLVED[how]}`,
        }),
    },
    seam,
  )
  const { absences } = custody
  const { candidates } = custody.copies
  const taken = new Taken({ clock, calls, roster, sync, patienceMs: patience.claimMs })
  const jobs = new Jobs({
    clock,
    observer,
    rows: rows.replica,
    roster,
    members,
    patience,
    isCaughtUp: () => sync.caughtUp('state'),
  })
  jobs.add({
    name: 'retention',
    slotMs: DAY_MS,
    run: () => Promise.resolve(`${cluster.invitations.retire()} tokens forgotten`),
  })
  jobs.add({
    name: 'learning',
    slotMs: HOUR_MS,
    run: () => Promise.resolve(`${store.learned.retire()} samples forgotten`),
  })
  const nodes = heldNodes({ clock, cluster, absences, candidates, taken, patience })
  const holders = new HeldHolders({ clock, observer, ...store, nodes, patience })
  const secrets = new ClusterSecrets({ rows: rows.replica, roster, random })
  return { tally, patience, custody, jobs, nodes, holders, secrets }
}

/** Held mail that this node still decides about while it leaves; asks the others to take it. */
function heldLeft(takeover: HeldHolders['takeover']): number {
  const left = takeover.heldToMove()
  if (left > 0) void takeover.moveHeld()
  return left
}

/**
 * All that the cluster does for the mail of one node, put together: copies that others keep and
 * that it keeps for them, who acts when a node is gone, and what it hands on when it goes itself.
 */
import type { NodeId } from '../base/ids.ts'
import type { Mirror, Tenure } from '../store/copies.ts'
import type { Message } from '../store/queued.ts'
import { Absences } from './absence.ts'
import type { AdoptedWhy } from './adopt.ts'
import type { Cluster } from './cluster.ts'
import type { ClusterDeps, Self } from './contract.ts'
import type { DoubtsDeps } from './doubts.ts'
import { MailCopies } from './mail-copies.ts'
import type { Patience } from './patience.ts'
import { joint, Succession } from './succession.ts'
import { Transfer, type TransferDeps } from './transfer.ts'
import type { MailStore } from './yield.ts'

export type CustodyOptions = {
  readonly self: Self
  readonly cluster: Cluster
  readonly queue: MailStore & { mirror: Mirror | null }
  readonly patience: Patience
  /** The settings `cluster.isolation` and `queue.inDoubt`, as they are now. */
  readonly isolation: () => 'deliver' | 'hold'
  readonly inDoubtMs: () => number
  /** False while the settings of the cluster are still to be read. */
  readonly isJoined: () => boolean
  /** The queue is at work. */
  readonly isDelivering: () => boolean
  readonly mail: TransferDeps['mail']
  /** This node delivers them from now on: for the trace. `transfer`: `from` asked for it. */
  readonly adopted: (
    messages: readonly Message[],
    why: AdoptedWhy | 'transfer',
    from: NodeId,
  ) => void
  /** `from`, whose it was, has said what it had done: for the trace. */
  readonly resolved: DoubtsDeps['resolved']
}

export class Custody {
  readonly absences: Absences
  readonly copies: MailCopies
  readonly succession: Succession
  readonly transfer: Transfer
  /** Whether this node may act on a message. */
  readonly tenure: Tenure

  /** Plugs itself into the queue: mail that begins after this has copies. */
  constructor(options: CustodyOptions, deps: ClusterDeps) {
    const { self, cluster, queue, patience, mail, adopted } = options
    const { links, roster, members, sync, calls } = cluster
    const { clock, observer } = deps
    const own: CustodyOptions['adopted'] = (messages, why, from) => {
      this.copies.owned(messages)
      adopted(messages, why, from)
    }
    const refuses = (): string | null => {
      if (!options.isJoined()) return 'it does not know the settings of the cluster yet'
      if (!this.succession.isPassed) return 'it asks what became of mail of before its start'
      return roster.get(self.node)?.drain === 'accepting' ? null : 'it drains'
    }
    this.absences = new Absences({ roster, members, calls, patience }, deps)
    this.copies = new MailCopies({
      clock,
      observer,
      patience,
      store: queue,
      links,
      roster,
      members,
      sync,
      mayTake: refuses,
      onStale: (id, term, owner) => this.succession.stale([{ id, term, owner }]),
    })
    this.succession = new Succession(
      {
        ...options,
        adopted: own,
        passed: () => sync.look(),
        absences: this.absences,
        store: queue,
        roster,
        links,
        members,
        calls,
      },
      deps,
    )
    this.transfer = new Transfer({
      clock,
      observer,
      patience,
      store: queue,
      calls,
      roster,
      members,
      tenure: this.succession,
      give: (message) => this.copies.giveAny(message),
      mail,
      refuses,
      taken: (messages, from) => {
        this.succession.handed(messages, from)
        own(messages, 'transfer', from)
      },
      isLost: (node) => this.succession.isDue(node),
    })
    this.tenure = joint(this.succession, this.transfer)
    queue.mirror = this.copies.mirror
  }

  /** Goes on with a drain of before, once mail flows. */
  start(): void {
    this.transfer.start()
  }

  stop(): void {
    this.transfer.close()
    this.succession.stop()
    this.copies.close()
  }
}

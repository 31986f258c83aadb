/** What the cluster does for the mail of one run of a simulated node, put together as node.ts does it. */
import type { Cluster } from '../../src/cluster/cluster.ts'
import type { ClusterDeps, Network, Self } from '../../src/cluster/contract.ts'
import { MailCopies } from '../../src/cluster/mail-copies.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import { joint, Succession } from '../../src/cluster/succession.ts'
import { Transfer } from '../../src/cluster/transfer.ts'
import { WITNESS_VERB } from '../../src/cluster/witness.ts'
import type { LiveConfig } from '../../src/config/live.ts'
import type { Tenure } from '../../src/store/copies.ts'
import type { Queue } from '../../src/store/queue.ts'

export type CustodyOptions = {
  readonly self: Self
  readonly cluster: Cluster
  readonly queue: Queue
  readonly live: LiveConfig
  readonly timeScale: number
  /** The pipeline, once there is one. */
  readonly mail: () => { rest(on: boolean): void; readonly attempts: number } | null
}

export type Custody = {
  readonly copies: MailCopies
  readonly succession: Succession
  readonly transfer: Transfer
  readonly tenure: Tenure
}

export function openCustody(options: CustodyOptions, deps: ClusterDeps): Custody {
  const { self, cluster, queue, live, timeScale, mail } = options
  const { links, roster, members, sync, calls } = cluster
  const patience = patienceOf(timeScale)
  const { clock, observer } = deps
  const me = () => roster.get(self.node)
  const copies: MailCopies = new MailCopies({
    clock,
    observer,
    patience,
    store: queue,
    links,
    roster,
    members,
    sync,
    mayTake: () => {
      if (!succession.isPassed) return 'it is behind its own barrier'
      return me()?.drain === 'accepting' ? null : 'it drains'
    },
    onStale: (id, term, owner) => void succession.stale([{ id, term, owner }]),
  })
  const succession: Succession = new Succession(
    {
      self,
      roster,
      links,
      members,
      calls,
      store: queue,
      patience,
      isolation: () => (live.current.settings['cluster.isolation'] === 'hold' ? 'hold' : 'deliver'),
      inDoubtMs: () => live.current.settings['queue.inDoubt'] * 1_000,
      isJoined: () => sync.caughtUp('state'),
      isDelivering: () => true,
      adopted: () => {},
    },
    deps,
  )
  const transfer = new Transfer({
    clock,
    observer,
    patience,
    store: queue,
    calls,
    roster,
    members,
    tenure: succession,
    give: (message) => copies.giveAny(message),
    mail: {
      rest: (on) => mail()?.rest(on),
      busy: () => mail()?.attempts ?? 0,
      heldLeft: () => 0,
    },
    refuses: () => (succession.isPassed ? null : 'it is behind its own barrier'),
    taken: () => {},
    isLost: (node) => succession.absences.isConfirmed(node),
  })
  queue.mirror = copies.mirror
  return { copies, succession, transfer, tenure: joint(succession, transfer) }
}

/** The port for mail, as far as other nodes ask there whether this one lives. */
export function listenForWitness({ witness }: Succession, networks: readonly Network[]): void {
  const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)
  for (const network of networks) {
    void network.listen({ host: '', port: 25 }, (stream) => {
      // Never before this returns.
      queueMicrotask(() => stream.write(bytes('220 sim ESMTP Postern\r\n')))
      let input = ''
      return {
        received: (chunk) => {
          input += Buffer.from(chunk).toString('latin1')
          for (let end = input.indexOf('\r\n'); end >= 0; end = input.indexOf('\r\n')) {
            const line = input.slice(0, end)
            input = input.slice(end + 2)
            const [verb = '', ...rest] = line.split(' ')
            const said = verb === WITNESS_VERB ? witness.answer(rest.join(' ')) : null
            if (verb === 'QUIT') stream.end()
            else
              stream.write(bytes(said === null ? '500 5.5.2 What?\r\n' : `250 2.0.0 ${said}\r\n`))
          }
        },
        drained: () => {},
        closed: () => {},
      }
    })
  }
}

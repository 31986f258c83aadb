/** What the cluster does for the mail of one run of a simulated node, put together as node.ts does it. */
import type { Cluster } from '../../src/cluster/cluster.ts'
import type { ClusterDeps, Network, Self } from '../../src/cluster/contract.ts'
import { Custody, type CustodyOptions } from '../../src/cluster/custody.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import type { Succession } from '../../src/cluster/succession.ts'
import { WITNESS_VERB } from '../../src/cluster/witness.ts'
import type { LiveConfig } from '../../src/config/live.ts'
import type { Queue } from '../../src/store/queue.ts'

export type SimCustodyOptions = {
  readonly self: Self
  readonly cluster: Cluster
  readonly queue: Queue
  readonly live: LiveConfig
  readonly timeScale: number
  readonly resolved: CustodyOptions['resolved']
  readonly mail: () => { rest(on: boolean): void; busy(): number }
}

export function openCustody(options: SimCustodyOptions, deps: ClusterDeps): Custody {
  const { cluster, live, timeScale, mail } = options
  return new Custody(
    {
      ...options,
      patience: patienceOf(timeScale),
      isolation: () => (live.current.settings['cluster.isolation'] === 'hold' ? 'hold' : 'deliver'),
      inDoubtMs: () => live.current.settings['queue.inDoubt'] * 1_000,
      isJoined: () => cluster.sync.caughtUp('state'),
      isDelivering: () => true,
      mail: {
        rest: (on) => mail().rest(on),
        busy: () => mail().busy(),
        heldLeft: () => 0,
      },
      adopted: () => {},
    },
    deps,
  )
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

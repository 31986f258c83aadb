/**
 * The mail of one run of a simulated node: the real spool, queue and pipeline over a simulated
 * disk, with inspectors that look at a token and a next hop that keeps a ledger. Put together as
 * node.ts does it.
 */
import type { Clock } from '../../src/base/clock.ts'
import { pause } from '../../src/base/clock.ts'
import type { StoreError } from '../../src/base/errors.ts'
import { type MessageId, MessageIds, type NodeId } from '../../src/base/ids.ts'
import type { Observer } from '../../src/base/observe.ts'
import type { Random } from '../../src/base/random.ts'
import type { Cluster } from '../../src/cluster/cluster.ts'
import type { ClusterDeps, Network, NodeReport, Self } from '../../src/cluster/contract.ts'
import type { Custody, CustodyOptions } from '../../src/cluster/custody.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import { LiveConfig } from '../../src/config/live.ts'
import { EMPTY_SNAPSHOT, type Snapshot } from '../../src/config/snapshot.ts'
import type { Inspectors } from '../../src/mail/inspect/contract.ts'
import { PLAIN_CONFIG } from '../../src/mail/inspect/look.ts'
import { Pipeline, type PipelineDeps } from '../../src/mail/pipeline.ts'
import type { NodeName } from '../../src/message/rows.ts'
import { type Inspection, NO_FACTS } from '../../src/message/verdict.ts'
import type { StoreDatabase } from '../../src/store/db.ts'
import { Fates } from '../../src/store/fates.ts'
import type { Quarantine } from '../../src/store/quarantine.ts'
import { Queue } from '../../src/store/queue.ts'
import type { Spool } from '../../src/store/spool.ts'
import type { Dice } from './dice.ts'
import type { NextHops } from './hop.ts'
import { DOMAIN, type Ledger } from './ledger.ts'
import { listenForWitness, openCustody } from './mail-cluster.ts'
import type { SimNode } from './node.ts'
import { SIM_SEGMENT_BYTES, SPOOL_DIR } from './spool-disk.ts'
import type { SimProcess, World } from './world.ts'

/** What the mail of all nodes of a simulation has in common. */
export type MailSetting = {
  readonly world: World
  readonly ledger: Ledger
  readonly hops: NextHops
  readonly settings: Partial<Snapshot['settings']>
  /** Of the rules for a dead node's mail. */
  readonly timeScale: number
  readonly inspectMs: number
  /** A link has opened at one of its ends. */
  readonly onLink: () => void
  /** The product believes that this node has a copy. */
  readonly onCopy: (mid: MessageId, by: NodeId) => void
}

/** What one run of the node is built with. */
export type MailDeps = {
  readonly process: SimProcess
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  readonly dice: Dice
  readonly store: StoreDatabase
  readonly quarantine: Quarantine
  /** Where mail comes in; its peers have another one. */
  readonly mailNetwork: Network
  /** Other members. */
  readonly peers: () => number
  readonly nodeName: (node: NodeId) => NodeName
  /** The spool has failed: the process ends, its supervisor starts it anew. */
  readonly onFailure: (error: StoreError) => void
}

/** In the header of a mail that is to be held. */
export const HELD_MARK = 'X-Sim: hold'

export class SimMail {
  readonly queue: Queue
  readonly spool: Spool
  readonly ids: MessageIds
  readonly live = new LiveConfig()
  /** It takes mail of clients. */
  isOpen = false
  /** Of clients, under way. */
  sessions = 0
  custody: Custody | null = null
  #pipeline: Pipeline | null = null
  readonly #node: SimNode
  readonly #setting: MailSetting
  readonly #deps: MailDeps

  /** Reads the spool, as a start does. @throws StoreError */
  static async open(node: SimNode, setting: MailSetting, deps: MailDeps): Promise<SimMail> {
    const { clock, observer, process, store } = deps
    const fates = new Fates(store, { clock, keepMs: patienceOf(setting.timeScale).fatesMs })
    const { queue, spool } = await Queue.open(
      {
        dir: SPOOL_DIR,
        spoolId: node.spoolId,
        clock,
        observer,
        freeSpace: () => node.spool.space(),
        segmentBytes: SIM_SEGMENT_BYTES,
        disk: node.spool.open(process),
        onFailure: deps.onFailure,
      },
      {
        clock,
        observer,
        node: node.id,
        fates,
        copies: () => {
          if (deps.peers() === 0) return 'none'
          return setting.settings['cluster.copies'] === 'require' ? 'require' : 'prefer'
        },
      },
    )
    return new SimMail(node, setting, deps, queue, spool)
  }

  private constructor(
    node: SimNode,
    setting: MailSetting,
    deps: MailDeps,
    queue: Queue,
    spool: Spool,
  ) {
    this.#node = node
    this.#setting = setting
    this.#deps = deps
    this.queue = queue
    this.spool = spool
    this.live.swap(snapshotOf(setting))
    this.ids = new MessageIds(node.id, node.memory.epoch, deps.clock)
  }

  /** @throws before `start` */
  get pipeline(): Pipeline {
    if (this.#pipeline === null) throw new Error('there is no pipeline yet')
    return this.#pipeline
  }

  /** What the node says of its mail to its peers. */
  report(base: NodeReport): NodeReport {
    const { freeBytes, totalBytes } = this.spool.diskSpace()
    return {
      ...base,
      ready: this.isOpen,
      queue: this.queue.size,
      diskFreeBytes: freeBytes,
      diskTotalBytes: totalBytes,
      copies: this.queue.copyCount,
      takesCopies: this.custody?.copies.takesCopies === true,
      alone: this.custody?.copies.alone ?? 0,
    }
  }

  /** The cluster is up: what a crash cut off goes on, and clients are let in. */
  async start(self: Self, cluster: Cluster, deps: ClusterDeps): Promise<void> {
    const { queue, live } = this
    const { timeScale, ledger } = this.#setting
    const resolved: CustodyOptions['resolved'] = (id, index, how) => ledger.resolved(id, index, how)
    const mail = () => ({
      rest: (on: boolean) => this.#pipeline?.rest(on),
      busy: () => (this.#pipeline?.attempts ?? 0) + this.sessions,
    })
    const custody = openCustody({ self, cluster, queue, live, timeScale, mail, resolved }, deps)
    this.custody = custody
    this.#pipeline = this.#openPipeline(custody)
    listenForWitness(custody.succession, [this.#deps.mailNetwork, deps.network])
    await this.#pipeline.resume()
    custody.transfer.start()
    this.isOpen = true
  }

  #openPipeline({ tenure }: Custody): Pipeline {
    const { clock, random, observer, process, quarantine, nodeName } = this.#deps
    const quiet = { record: () => {}, outcome: () => {}, note: () => {}, prune: () => 0 }
    return new Pipeline({
      hostname: this.#node.name,
      clock,
      random,
      observer,
      live: this.live,
      spool: this.spool,
      queue: this.queue,
      bodies: this.#node.bodies as unknown as PipelineDeps['bodies'],
      quarantine,
      trace: quiet as unknown as PipelineDeps['trace'],
      inspectors: inspectorsOf(this.#setting, this.#deps),
      inspectConfig: () => PLAIN_CONFIG,
      deliverer: this.#setting.hops.deliverer(this.#node, process),
      nodeName,
      tenure,
    })
  }
}

function snapshotOf({ settings }: MailSetting): Snapshot {
  const domain = {
    name: DOMAIN,
    nextHops: [],
    recipients: null,
    hold: null,
    reject: null,
    enforce: null,
  }
  return {
    ...EMPTY_SNAPSHOT,
    settings: { ...EMPTY_SNAPSHOT.settings, ...settings },
    domains: new Map([[DOMAIN, domain]]),
  }
}

/** They take their time, and hold what says so in its header. */
function inspectorsOf(setting: MailSetting, { clock, dice }: MailDeps): Inspectors {
  const { ledger, inspectMs } = setting
  return {
    inspect: async ({ envelope, body }): Promise<Inspection> => {
      const isHeld =
        body.kind === 'memory' && Buffer.from(body.bytes.subarray(0, 512)).includes(HELD_MARK)
      await pause(clock, dice.exponential(inspectMs))
      ledger.inspected(envelope.id)
      const evidence = 'The simulation says so.'
      const findings = isHeld ? [{ rule: 'SIM_HOLD', score: 8, evidence }] : []
      return { findings, unknowns: [], facts: NO_FACTS }
    },
    preview: () => Promise.reject(new Error('nobody looks')),
    sample: () => Promise.reject(new Error('nobody learns')),
    health: () => ({ processes: 1, ready: 1, missing: [], replaced: 0 }),
    close: () => Promise.resolve(),
  }
}

/** What the product says of its mail: counted, and seen at least sometimes. */
export function hearMail(setting: MailSetting, event: string, fields: object): void {
  const { world, ledger } = setting
  const { message, recipient, recipients, why, notification, by } = fields as {
    readonly recipients?: number
    readonly by?: NodeId
    readonly notification?: MessageId
    readonly message?: MessageId
    readonly recipient?: number
    readonly why?: string
  }
  if (event === 'queue.doubted' && message !== undefined && recipient !== undefined) {
    ledger.doubted(message, recipient)
    world.sometimes('in doubt delivered')
  }
  if (event === 'held.doubted' && message !== undefined) {
    ledger.heldDoubted(message, recipients ?? 0)
    world.sometimes('held mail released in doubt')
  }
  if (event === 'mail.deleted' && why === 'expired' && message !== undefined) {
    world.sometimes('held mail expired')
    ledger.onExpired?.(message)
  }
  const isCopy = event === 'copy.kept' || event === 'copy.healed'
  if (isCopy && message !== undefined && by !== undefined) setting.onCopy(message, by)
  if (event === 'queue.bounced' && message !== undefined && notification !== undefined) {
    ledger.bounced(message, notification)
  }
  if (event === 'queue.adopted') world.sometimes(ADOPTED[why ?? ''] ?? `adopted: ${why}`)
  if (event === 'queue.barred') world.sometimes(`barred: ${why}`)
  if (event === 'link.opened') setting.onLink()
  const words = SEEN[event]
  if (words !== undefined) world.sometimes(words)
}

const ADOPTED: Readonly<Record<string, string>> = {
  refused: 'adopted by confirmed death',
  removed: 'adopted after a removal',
  respooled: 'adopted from a disk that is gone',
  silent: 'adopted by silence',
}

const SEEN: Readonly<Record<string, string>> = {
  'node.rolledBack': 'rolled back, and it was told so',
  'held.taken': 'held mail taken over',
  'held.healed': 'held mail has a second body',
  'held.yielded': 'held mail yielded',
  'queue.yielded': 'stale answered',
  'queue.transferred': 'XFER',
  'copy.healed': 'healed',
}

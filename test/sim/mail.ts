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
import type { NodeReport } from '../../src/cluster/contract.ts'
import { LiveConfig } from '../../src/config/live.ts'
import { EMPTY_SNAPSHOT, type Snapshot } from '../../src/config/snapshot.ts'
import type { Inspectors } from '../../src/mail/inspect/contract.ts'
import { Pipeline, type PipelineDeps } from '../../src/mail/pipeline.ts'
import type { NodeName } from '../../src/message/rows.ts'
import { type Inspection, NO_FACTS } from '../../src/message/verdict.ts'
import type { Quarantine } from '../../src/store/quarantine.ts'
import { Queue } from '../../src/store/queue.ts'
import type { Spool } from '../../src/store/spool.ts'
import type { Dice } from './dice.ts'
import type { NextHops } from './hop.ts'
import { DOMAIN, type Ledger } from './ledger.ts'
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
}

/** What one run of the node is built with. */
export type MailDeps = {
  readonly process: SimProcess
  readonly clock: Clock
  readonly random: Random
  readonly observer: Observer
  readonly dice: Dice
  readonly quarantine: Quarantine
  readonly nodeName: (node: NodeId) => NodeName
  /** The spool has failed: the process ends, its supervisor starts it anew. */
  readonly onFailure: (error: StoreError) => void
}

/** In the header of a mail that is to be held. */
export const HELD_MARK = 'X-Sim: hold'

export class SimMail {
  readonly queue: Queue
  readonly spool: Spool
  readonly pipeline: Pipeline
  readonly ids: MessageIds
  readonly live: LiveConfig
  /** It takes mail of clients. */
  isOpen = false

  /** Reads the spool, as a start does. @throws StoreError */
  static async open(node: SimNode, setting: MailSetting, deps: MailDeps): Promise<SimMail> {
    const { clock, observer, process } = deps
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
      { clock, observer, node: node.id },
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
    const { clock, random, observer, process } = deps
    this.queue = queue
    this.spool = spool
    this.live = new LiveConfig()
    this.live.swap(snapshotOf(setting))
    this.ids = new MessageIds(node.id, node.memory.epoch, clock)
    this.pipeline = new Pipeline({
      hostname: node.name,
      clock,
      random,
      observer,
      live: this.live,
      spool,
      queue,
      bodies: {} as PipelineDeps['bodies'],
      quarantine: deps.quarantine,
      trace: { record: () => {}, outcome: () => {}, note: () => {}, prune: () => 0 } as never,
      inspectors: inspectorsOf(setting, deps),
      deliverer: setting.hops.deliverer(node, process),
      nodeName: deps.nodeName,
    })
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
    }
  }

  /** What a crash cut off goes on, and clients are let in. */
  async resume(): Promise<void> {
    await this.pipeline.resume()
    this.isOpen = true
  }
}

function snapshotOf({ settings }: MailSetting): Snapshot {
  const domain = { name: DOMAIN, nextHops: [], recipients: null, hold: null, reject: null }
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
    health: () => ({ processes: 1, ready: 1, missing: [], replaced: 0 }),
    close: () => Promise.resolve(),
  }
}

/** Counts what the product says of its messages, for the ledger. */
export function hearMail(setting: MailSetting, event: string, fields: object): void {
  const { message, recipient } = fields as { message?: MessageId; recipient?: number }
  if (event === 'queue.doubted' && message !== undefined && recipient !== undefined) {
    setting.ledger.doubted(message, recipient)
    setting.world.sometimes('in doubt delivered')
  }
}

/**
 * Held mail of one simulated node: the quarantine, its second bodies and its takeover, the decisions
 * of its owner and the clicks of operators as the product has them; the queue is only counted.
 */

import type { Author, HeldDetail } from '../../src/admin/contract.ts'
import { heldPart } from '../../src/admin/held.ts'
import { HeldHolders } from '../../src/admin/held-holders.ts'
import { heldNodes } from '../../src/admin/held-nodes.ts'
import { type Clock, pause } from '../../src/base/clock.ts'
import { StoreError } from '../../src/base/errors.ts'
import { type MessageId, MessageIds, type NodeId } from '../../src/base/ids.ts'
import type { Observer } from '../../src/base/observe.ts'
import type { Cluster } from '../../src/cluster/cluster.ts'
import type { Custody } from '../../src/cluster/custody.ts'
import type { Patience } from '../../src/cluster/patience.ts'
import { Taken } from '../../src/cluster/taken.ts'
import { LiveConfig } from '../../src/config/live.ts'
import { Keeper } from '../../src/mail/quarantine/keep.ts'
import type { Claim } from '../../src/message/rows.ts'
import type { HeldMail } from '../../src/store/bodies.ts'
import type { StoreDatabase } from '../../src/store/db.ts'
import { Quarantine } from '../../src/store/quarantine.ts'
import type { SharedRows } from '../../src/store/shared.ts'
import type { Trace } from '../../src/store/trace.ts'
import type { Files } from '../posts.ts'
import type { Dice } from './dice.ts'

/** What an operator asks for; `recipient` null: all of them. */
export type Click = {
  readonly kind: 'release' | 'delete'
  readonly recipient: string | null
  /** Also when it could arrive twice. */
  readonly anyway: boolean
}

/** A copy left the quarantine for the queue of a node: what a recipient would see. */
export type Effect = { readonly copy: string; readonly claim: Claim }

export type HeldOptions = {
  readonly node: NodeId
  readonly name: string
  readonly epoch: number
  readonly store: StoreDatabase
  readonly rows: SharedRows
  /** Its sealed files: they outlive the process. */
  readonly bodies: Files
  readonly patience: Patience
  /** Durable, and what it holds already is left alone. */
  readonly enqueue: (effect: Effect) => void
  /** It holds the copy, or held it. */
  readonly hasEnqueued: (copy: string) => boolean
}

/** Time that a fast and a slow queue need to sync. */
const SYNC_MS_MAX = 400
/** What is in the queue is on its way already when this node writes that down. */
const ANSWER_MS_MAX = 20
const BODY = Buffer.from('Subject: An offer of gold\r\n\r\nGold!\r\n')
export const KEEP_MS = 30 * 86_400_000
const OPERATOR: Author = { name: 'ruiz', role: 'admin' }

export class SimHeld {
  readonly quarantine: Quarantine
  readonly #options: HeldOptions
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #dice: Dice
  readonly #ids: MessageIds
  #isResumed = false
  #cluster: Cluster | null = null
  #part: ReturnType<typeof heldPart> | null = null

  /** Before `rows.start`. */
  constructor(
    options: HeldOptions,
    deps: { readonly clock: Clock; readonly observer: Observer; readonly dice: Dice },
  ) {
    const { node, name, epoch, store, rows } = options
    this.#options = options
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.#dice = deps.dice
    this.#ids = new MessageIds(node, epoch, deps.clock)
    const nodes = () => {
      const members = this.#cluster?.roster.members() ?? []
      return members.map((member) => ({ id: member.node, name: member.name }))
    }
    this.quarantine = new Quarantine(store, rows, { ...deps, node: { id: node, name }, nodes })
  }

  /** The peers can be asked from here on. `custody`: who knows which of them is gone, and how. */
  open(cluster: Cluster, custody: Custody | null): void {
    this.#cluster = cluster
    const { quarantine } = this
    const { patience, bodies } = this.#options
    const clock = this.#clock
    const quiet = { outcome: () => {}, note: () => {}, audit: () => {} }
    const nodes = nodesOf(clock, cluster, custody, patience)
    const holders = new HeldHolders({
      clock,
      observer: this.#observer,
      quarantine,
      bodies,
      nodes,
      patience,
    })
    const mail = {
      release: (id: MessageId, places: readonly number[], claim: Claim) =>
        this.#release(id, places, claim),
      // A spool knows what was in it until a start has asked; what is delivered is forgotten.
      hasReleased: (id: MessageId, place: number) =>
        !this.#isResumed && this.#options.hasEnqueued(`${id} ${place}`),
      releasesResumed: () => {
        this.#isResumed = true
      },
    }
    const decisions = holders.decide({ trace: quiet, operators: quiet, mail } as unknown as Parts)
    this.#part = heldPart({
      clock,
      quarantine,
      decisions,
      trace: quiet,
      operators: quiet,
      inspectors: {},
      takeover: holders.takeover,
      nodes,
    } as unknown as Parameters<typeof heldPart>[0])
    const keeper = new Keeper({
      clock,
      observer: this.#observer,
      quarantine,
      bodies,
      deletedMs: patience.deletedMs,
      live: new LiveConfig(),
      trace: { prune: () => 0 } as unknown as Trace,
      expired: () => {},
    })
    holders.start(cluster.calls)
    // As the product does at its start: a claim is an outbox.
    decisions.start()
    keeper.start()
  }

  /** Rows and files of this node agree, as far as a start can make them. */
  async rebuild(): Promise<void> {
    await this.quarantine.rebuild(this.#options.bodies)
  }

  /** A mail for two recipients is held here, for `keepMs`. */
  hold(keepMs = KEEP_MS): MessageId {
    const { node, bodies } = this.#options
    const mail = { ...mailOf(this.#ids.next(), this.#clock.wallMs(), keepMs), owner: node, term: 1 }
    bodies.keep(mail, BODY)
    this.quarantine.add(mail)
    this.quarantine.flush()
    return mail.row.id
  }

  /**
   * An operator at this node decides; gives what he is shown, null before the node is open.
   * @throws RefusalError as he reads it; StoreError
   */
  async click(id: MessageId, click: Click): Promise<HeldDetail | null> {
    const part = this.#part
    if (part === null) return null
    const recipient = click.recipient ?? undefined
    if (click.kind === 'delete') return await part.deleteHeld(OPERATOR, id, recipient)
    return await part.release(OPERATOR, id, recipient, click.anyway)
  }

  async #release(id: MessageId, places: readonly number[], claim: Claim): Promise<void> {
    await pause(this.#clock, this.#dice.between(1, SYNC_MS_MAX))
    if ((await this.#options.bodies.meta(id)) === null) {
      throw new StoreError(`the file of ${id} is missing`, { remedy: 'ask-operator' })
    }
    for (const place of places) this.#options.enqueue({ copy: `${id} ${place}`, claim })
    await pause(this.#clock, this.#dice.between(0, ANSWER_MS_MAX))
  }
}

type Parts = Parameters<HeldHolders['decide']>[0]

/** Without mail nobody is known to be dead for sure: who is not heard is silent. */
function nodesOf(
  clock: Clock,
  cluster: Cluster,
  custody: Custody | null,
  patience: Patience,
): ReturnType<typeof heldNodes> {
  const { calls, roster, sync } = cluster
  const taken = new Taken({ clock, calls, roster, sync, patienceMs: patience.claimMs })
  const absences = custody?.absences ?? { of: () => ({ kind: 'here' }) as const }
  const candidates = custody?.copies.candidates ?? { all: () => [] }
  return heldNodes({ clock, cluster, absences, candidates, taken, patience })
}

export const RECIPIENTS = ['b@example.com', 'c@example.com']

function mailOf(id: MessageId, nowMs: number, keepMs: number): HeldMail {
  return {
    row: {
      id,
      sender: 'a@sender.example',
      recipients: RECIPIENTS,
      subject: 'An offer of gold',
      from: 'Someone <a@sender.example>',
      clientIp: '192.0.2.1',
      sizeBytes: 4_000,
      score: 10,
      rules: ['GTUBE'],
      findings: [],
      unknowns: [],
      heldMs: nowMs,
      expiresMs: nowMs + keepMs,
    },
    envelope: {
      id,
      receivedMs: nowMs,
      clientIp: '192.0.2.1',
      greeting: 'sender.example',
      protocol: 'ESMTP',
      tls: null,
      outbound: false,
      sender: 'a@sender.example',
      eightBit: false,
      smtpUtf8: false,
      ret: null,
      envid: null,
      recipients: RECIPIENTS.map((address) => ({ address, notify: null, orcpt: null })),
    },
    places: [0, 1],
    prepend: '',
  }
}

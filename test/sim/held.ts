/**
 * Held mail of one simulated node: the quarantine, the decisions of its owner and the clicks of
 * operators as the product has them; bodies and the queue are only counted.
 */

import type { Author } from '../../src/admin/contract.ts'
import { heldPart } from '../../src/admin/held.ts'
import { HeldHolders } from '../../src/admin/held-holders.ts'
import { heldNodes } from '../../src/admin/held-nodes.ts'
import type { Clock } from '../../src/base/clock.ts'
import { type MessageId, MessageIds, type NodeId } from '../../src/base/ids.ts'
import type { Observer } from '../../src/base/observe.ts'
import type { Cluster } from '../../src/cluster/cluster.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import { Taken } from '../../src/cluster/taken.ts'
import type { Claim } from '../../src/message/rows.ts'
import type { HeldMail } from '../../src/store/bodies.ts'
import type { StoreDatabase } from '../../src/store/db.ts'
import { Quarantine } from '../../src/store/quarantine.ts'
import type { SharedRows } from '../../src/store/shared.ts'
import type { Dice } from './dice.ts'

/** A copy left the quarantine for the queue of a node: what a recipient would see. */
export type Effect = { readonly copy: string; readonly claim: Claim }

export type HeldOptions = {
  readonly node: NodeId
  readonly name: string
  readonly epoch: number
  readonly store: StoreDatabase
  readonly rows: SharedRows
  /** Durable, and what it holds already is left alone. */
  readonly enqueue: (effect: Effect) => void
}

/** Time that a fast and a slow queue need to sync. */
const SYNC_MS_MAX = 400
const OPERATOR: Author = { name: 'ruiz', role: 'admin' }

export class SimHeld {
  readonly quarantine: Quarantine
  readonly #options: HeldOptions
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #dice: Dice
  readonly #ids: MessageIds
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

  /** The peers can be asked from here on. */
  open(cluster: Cluster): void {
    this.#cluster = cluster
    const { quarantine } = this
    const clock = this.#clock
    const quiet = { outcome: () => {}, note: () => {}, audit: () => {} }
    const nodes = nodesOf(clock, cluster)
    const holders = new HeldHolders({
      clock,
      observer: this.#observer,
      quarantine,
      bodies: NO_BODIES,
      nodes,
      patience: patienceOf(1),
    })
    const mail = {
      release: (id: MessageId, places: readonly number[], claim: Claim) =>
        this.#release(id, places, claim),
      releasesResumed: () => {},
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
    holders.start(cluster.calls)
    // As the product does at its start: a claim is an outbox.
    decisions.start()
  }

  /** A mail for two recipients is held here. */
  hold(): MessageId {
    const mail = mailOf(this.#ids.next(), this.#clock.wallMs())
    this.quarantine.add(mail)
    this.quarantine.flush()
    return mail.row.id
  }

  /** An operator at this node decides. @throws RefusalError as he reads it; StoreError */
  async click(id: MessageId, kind: 'release' | 'delete', recipient: string | null): Promise<void> {
    const part = this.#part
    if (part === null) return
    const act = kind === 'release' ? part.release : part.deleteHeld
    await act(OPERATOR, id, recipient ?? undefined)
  }

  async #release(id: MessageId, places: readonly number[], claim: Claim): Promise<void> {
    await new Promise<void>((resolve) =>
      this.#clock.after(this.#dice.between(1, SYNC_MS_MAX), resolve),
    )
    for (const place of places) this.#options.enqueue({ copy: `${id} ${place}`, claim })
  }
}

type Parts = Parameters<HeldHolders['decide']>[0]

/** Sealed files are not simulated: nobody has a second one. */
const NO_BODIES = {
  write: async () => {},
  read: async () => null,
  meta: async () => null,
  remove: async () => {},
  list: () => [],
}

/** Nobody is known to be dead for sure: who was removed is gone, who is not heard is silent. */
function nodesOf(clock: Clock, cluster: Cluster): ReturnType<typeof heldNodes> {
  const { calls, roster, sync } = cluster
  const taken = new Taken({
    clock,
    calls,
    roster,
    sync,
    patienceMs: patienceOf(1).claimMs,
  })
  const absences = { of: () => ({ kind: 'here' }) as const }
  const patience = patienceOf(1)
  return heldNodes({ clock, cluster, absences, candidates: { all: () => [] }, taken, patience })
}

export const RECIPIENTS = ['b@example.com', 'c@example.com']

function mailOf(id: MessageId, nowMs: number): HeldMail {
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
      expiresMs: nowMs + 30 * 86_400_000,
    },
    envelope: {
      id,
      receivedMs: nowMs,
      clientIp: '192.0.2.1',
      greeting: 'sender.example',
      protocol: 'ESMTP',
      sender: 'a@sender.example',
      recipients: RECIPIENTS.map((address) => ({ address, domain: 'example.com' })),
    },
    places: [0, 1],
    prepend: '',
  } as unknown as HeldMail
}

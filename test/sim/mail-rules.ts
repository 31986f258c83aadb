/**
 * Rules of the mail of a dead node that are looked at all the time, on the disks and the wires of
 * the simulation and not in what the product says of itself: who may deliver, who may take over,
 * what is durable before it is told, and when a copy may be forgotten (design: mail.md).
 */
import type { MessageId, NodeId } from '../../src/base/ids.ts'
import { type Patience, patienceOf } from '../../src/cluster/patience.ts'
import { RECORD } from '../../src/store/records.ts'
import type { Arrived, Ledger } from './ledger.ts'
import type { SimNode } from './node.ts'
import type { SeenRecord } from './spool-disk.ts'
import type { World } from './world.ts'

/** Looks of the product and of the simulation are so far apart at most. */
const SLACK_MS = 1_500
/** Part of a long time that may be missing: clocks drift, and looks begin before the silence. */
const SLACK_PART = 0.05
/** A link over which nothing comes any more stands for so long: what was heard is older than it. */
const LINK_SILENT_MS = 15_000

export type RulesDeps = {
  readonly world: World
  readonly ledger: Ledger
  readonly nodes: () => readonly SimNode[]
  readonly timeScale: number
  readonly isolation: string
  /** The disk has the message whole. */
  readonly hasWhole: (node: SimNode, mid: MessageId) => boolean
  /** When two nodes had a link last, ms; never: -1. */
  readonly lastContactMs: (one: NodeId, two: NodeId) => number
  /** Its disk lost something, at any time. */
  readonly hasLost: (node: SimNode) => boolean
}

type Title = { readonly term: number; readonly owner: NodeId }

/** Whose it is, as the disk of a node says. */
function titleOn({ spool }: SimNode, mid: MessageId): Title | null {
  let last: Title | null = null
  for (const { type, text } of spool.durable(mid)) {
    if (type !== RECORD.adopt && type !== RECORD.xfer && type !== RECORD.commit) continue
    const title = JSON.parse(text) as Title
    if (last === null || title.term >= last.term) last = title
  }
  return last
}

export class MailRules {
  readonly #deps: RulesDeps
  readonly #patience: Patience
  /** Who owns what, by the titles that were written anywhere. */
  readonly #titles = new Map<MessageId, Title>()

  constructor(deps: RulesDeps) {
    this.#deps = deps
    this.#patience = patienceOf(deps.timeScale)
  }

  /** A mail has reached a next hop: its node must have known that it may. */
  arrived({ mid, node: id, sender, nodeName }: Arrived): void {
    const node = this.#node(id)
    const startedMs = node?.run?.startedMs
    if (sender === '' || node === null || startedMs === undefined) return
    const others = this.#holders(mid, id)
    if (others.length === 0) return
    this.#checkBarrier(mid, node, startedMs, others)
    this.#checkIsolation(mid, node, startedMs, others, nodeName)
  }

  #checkBarrier(
    mid: MessageId,
    node: SimNode,
    startedMs: number,
    others: readonly SimNode[],
  ): void {
    const { world, ledger, lastContactMs, hasLost } = this.#deps
    // Whom it gave a copy may stand in what its disk lost; nobody has told it yet that it did.
    if (hasLost(node)) return
    const { atMs: acceptedMs, answer } = ledger.submission(mid) ?? {}
    if (acceptedMs === undefined || acceptedMs >= startedMs) return
    // The process ended before it wrote down who else has it: its 250 never left, and the sender
    // tries again (design: mail.md, Accept).
    if (answer !== 250) return
    if (world.nowMs - startedMs >= this.#least(this.#patience.barrierMs)) return
    const unheard = others.filter(({ id }) => lastContactMs(node.id, id) < startedMs)
    if (unheard.length < others.length) return
    world.violate(
      `no barrier: ${node.name} delivers ${mid} of before its start, ` +
        `and has not heard ${unheard.map(({ name }) => name).join(', ')}`,
    )
  }

  #checkIsolation(
    mid: MessageId,
    node: SimNode,
    startedMs: number,
    others: readonly SimNode[],
    nodeName: string,
  ): void {
    const { world, nodes, isolation, lastContactMs } = this.#deps
    const members = nodes().filter(({ isRemoved }) => !isRemoved)
    if (members.length === 2 && isolation === 'deliver') return
    // Who took it over for the silence of the others goes on.
    if (this.#titles.get(mid)?.owner === node.id) return
    // Who refuses is no silence: the owner goes on.
    if (others.some(({ isUp, isQuiet }) => !isUp && !isQuiet)) return
    const { isolatedMs, isolatedEndMs } = this.#patience
    // Who took it over on the other side of a cut has told other holders there to forget it.
    const had = nodes().filter((one) => one !== node && one.spool.has(mid, RECORD.commit))
    const lastMs = Math.max(startedMs, ...had.map(({ id }) => lastContactMs(node.id, id)))
    const aloneMs = world.nowMs - lastMs
    if (aloneMs < isolatedMs * (1 + SLACK_PART) + 20_000) return
    // It asks a holder that has asked all the time only so often whether it was heard.
    if (aloneMs > this.#least(isolatedEndMs - isolatedMs / 4 - LINK_SILENT_MS)) return
    world.violate(
      `no isolation: ${nodeName} delivers ${mid}, ` +
        `whose holders it has not heard for ${Math.round(aloneMs / 1_000)} s`,
    )
  }

  /** An owner counts on the copy of a node: its disk has it, or had it until it was done. */
  believed(mid: MessageId, by: NodeId): void {
    const { world, hasLost } = this.#deps
    const node = this.#node(by)
    if (node === null || hasLost(node) || node.spool.has(mid, RECORD.commit)) return
    world.violate(`acknowledged too soon: ${node.name} is believed to have ${mid}`)
  }

  /** A record is in a file of a node, durable or not. */
  written(node: SimNode, { type, mid, text }: SeenRecord): void {
    if (type === RECORD.discard) return this.#checkDiscard(node, mid)
    if (type !== RECORD.adopt && type !== RECORD.xfer) return
    const title = JSON.parse(text) as Title
    if (title.owner === node.id) this.#checkAdoption(node, mid)
    else this.#checkTold(node, mid, title)
    const known = this.#titles.get(mid)
    if (known === undefined || title.term > known.term) this.#titles.set(mid, title)
  }

  #checkAdoption(node: SimNode, mid: MessageId): void {
    const { world, ledger, lastContactMs, hasLost } = this.#deps
    // Of two sides of a cut each may take over what a third one owned.
    const ownerId = titleOn(node, mid)?.owner ?? ledger.submission(mid)?.node
    const owner = ownerId === undefined ? null : this.#node(ownerId)
    if (owner === null || owner === node || owner.isRemoved) return
    // What a disk lost is asked for, or comes back; and a COMMIT whose 250 never left may stay,
    // also where the client heard 451 and the process ended before it could take the copy back.
    if (hasLost(owner) || hasLost(node) || ledger.submission(mid)?.answer !== 250) return
    // It hands over what it has, and is silent on what it offered before the drain was called off.
    if (owner.run?.cluster?.roster.get(owner.id)?.drain !== 'accepting' && owner.isUp) return
    const { queue, custody } = owner.run?.mail ?? {}
    const offered = queue?.get(mid) ?? null
    if (offered !== null && custody?.transfer.mayAct(offered) === false) return
    const { adoptConfirmedMs, adoptSilentMs } = this.#patience
    const { nowMs } = world
    // A start of a moment ago may not have been noticed.
    const startedMs = owner.run?.startedMs ?? nowMs
    const deadMs = startedMs - owner.endedMs
    if (nowMs - startedMs < SLACK_MS && deadMs >= this.#least(adoptConfirmedMs)) return
    if (nowMs - lastContactMs(node.id, owner.id) >= this.#least(adoptSilentMs)) return
    world.violate(
      `adopted too soon: ${node.name} takes ${mid} of ${owner.name}, ` +
        (owner.isUp ? 'which is up' : `dead for ${Math.round(nowMs - owner.endedMs)} ms`),
    )
  }

  /** Who hears of an owner hears of one whose disk knows it. */
  #checkTold(node: SimNode, mid: MessageId, { owner, term }: Title): void {
    const other = this.#node(owner)
    if (other === null || this.#deps.hasLost(other)) return
    const isDurable = other.spool.durable(mid).some(({ type, text }) => {
      // Two nodes may make the same notification: the COMMIT of one is its title then.
      if (type !== RECORD.adopt && type !== RECORD.commit) return false
      const title = JSON.parse(text) as Title
      return title.owner === owner && title.term >= term
    })
    if (isDurable) return
    this.#deps.world.violate(
      `told too soon: ${node.name} hears that ${other.name} owns ${mid}, whose disk does not say so`,
    )
  }

  /** A copy is forgotten only when some disk says that all of it is final. */
  #checkDiscard(node: SimNode, mid: MessageId): void {
    const { world, ledger, nodes, hasLost } = this.#deps
    const submission = ledger.submission(mid)
    if (submission === undefined || !submission.isRead) return
    // The disk that said so may be gone since: a node that stood still hears of it late.
    const owners = [submission.node, this.#titles.get(mid)?.owner]
    if (nodes().some((one) => owners.includes(one.id) && hasLost(one))) return
    const { length } = submission.mail.recipients
    const isFinal = nodes().some(({ spool }) => {
      const open = new Set(Array.from({ length }, (_, index) => index))
      for (const { type, text } of spool.durable(mid)) {
        if (type === RECORD.done || type === RECORD.fail || type === RECORD.hold) {
          for (const index of (JSON.parse(text) as { r: number[] }).r) open.delete(index)
        } else if (type === RECORD.commit) {
          const { recipients } = JSON.parse(text) as { recipients: { state: string }[] }
          for (const [index, { state }] of recipients.entries()) {
            if (state === 'done' || state === 'failed' || state === 'dropped') open.delete(index)
          }
        }
      }
      return open.size === 0
    })
    if (isFinal) return
    world.violate(`forgotten too soon: ${node.name} drops its copy of ${mid}, which is not done`)
  }

  #holders(mid: MessageId, not: NodeId): readonly SimNode[] {
    const { nodes, hasWhole } = this.#deps
    return nodes().filter(
      (node) => node.id !== not && !node.isRemoved && !node.isTwin && hasWhole(node, mid),
    )
  }

  #node(id: NodeId): SimNode | null {
    return this.#deps.nodes().find((node) => node.id === id && !node.isTwin) ?? null
  }

  #least(ms: number): number {
    return ms * (1 - SLACK_PART) - SLACK_MS
  }
}

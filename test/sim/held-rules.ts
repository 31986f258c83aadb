/**
 * What held mail may never do, looked at where it leaves and where its files are, and not in what
 * the product says of itself: it goes once, or again for a cause that is named here and counted; it
 * does not go when it is known to have expired; and nobody keeps the content of what is over.
 */
import type { MessageId } from '../../src/base/ids.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import type { HeldEntry } from '../../src/store/quarantine.ts'
import { RECIPIENTS } from './held.ts'
import type { MailSimulation } from './mail-simulate.ts'
import type { SimNode } from './node.ts'
import type { SimProcess } from './world.ts'

/** A copy left for the queue of a node, in one of its runs. */
export type Left = {
  readonly node: SimNode
  readonly process: SimProcess | null
  readonly atMs: number
}

/** What was said last before a death, and what its beats still said, ms. */
const LAST_WORDS_MS = 2_000
/** Two nodes in contact for so long know each other's rows. */
const CONTACT_MS = 5_000
/** Steps of retention are so far apart, and holders look at their files as often. */
const STEPS_MS = 60_000

export class HeldRules {
  readonly #sim: MailSimulation
  readonly #lefts = new Map<string, Left[]>()
  readonly #anyway = new Set<MessageId>()
  /** Copies that went again for a cause that the product must count, by message. */
  readonly #counted = new Map<MessageId, number>()
  /** Copies that a node has as expired, and since when it has. */
  readonly #expired = new Map<string, { readonly node: SimNode; readonly atMs: number }>()
  /** Copies of which somebody was told that they are released. */
  readonly #promised = new Set<string>()
  /** Copies that left more than once. */
  doubled = 0

  constructor(sim: MailSimulation) {
    this.#sim = sim
    sim.ledger.onExpired = (id) => this.#noteExpired(id)
  }

  /** Copies that have left. */
  get count(): number {
    return this.#lefts.size
  }

  hasLeft(copy: string): boolean {
    return this.#lefts.has(copy)
  }

  /** A node shows all that a click is about as expired. */
  hasExpired(node: SimNode, id: MessageId, recipient: string | null): boolean {
    const copies = entryAt(node, id)?.copies ?? []
    const asked = copies.filter(({ address }) => recipient === null || address === recipient)
    return asked.length > 0 && asked.every(({ claim }) => claim?.kind === 'expire')
  }

  /** An operator was told that it may arrive twice. */
  anyway(id: MessageId): void {
    this.#anyway.add(id)
  }

  /** An operator was told that it is released. */
  promised(id: MessageId, recipients: readonly string[]): void {
    for (const [place, address] of RECIPIENTS.entries()) {
      if (recipients.includes(address)) this.#promised.add(`${id} ${place}`)
    }
  }

  /** A copy leaves from a node. */
  left(node: SimNode, copy: string): void {
    const { world } = this.#sim
    const [id = '', place = ''] = copy.split(' ')
    const before = this.#lefts.get(copy) ?? []
    const now = { node, process: node.run?.process ?? null, atMs: world.nowMs }
    this.#lefts.set(copy, [...before, now])
    world.tell(() => `${copy} leaves from ${node.name}`)
    world.sometimes('held mail released')
    this.#checkKnown(node, id as MessageId, Number(place))
    this.#checkExpired(node, copy)
    if (before.length > 0) this.#explain(id as MessageId, copy, before, now)
  }

  #noteExpired(id: MessageId): void {
    const { nowMs: atMs } = this.#sim.world
    for (const node of this.#sim.cluster.up) {
      for (const { place, claim } of entryAt(node, id)?.copies ?? []) {
        const copy = `${id} ${place}`
        if (claim?.kind === 'expire' && !this.#expired.has(copy))
          this.#expired.set(copy, { node, atMs })
      }
    }
  }

  /** What was decided before is done, also when that was done apart; nothing after it is. */
  #checkExpired(node: SimNode, copy: string): void {
    const expired = this.#expired.get(copy)
    const [id = '', place = ''] = copy.split(' ')
    if (expired === undefined || this.#anyway.has(id as MessageId)) return
    const { world, cluster } = this.#sim
    const sinceMs = world.nowMs - expired.atMs
    // Nobody knows of it, perhaps, and it expires once more, a few seconds later.
    if (this.#sim.wentBackPast(expired.atMs)) return
    // Who was away decides by what it knew: a release that was made apart counts before the expiry.
    const isTold = (one: SimNode): boolean =>
      one === expired.node || this.#sim.contactMs(one.id, expired.node.id) >= sinceMs
    if (!cluster.up.every(isTold)) return
    const copies = entryAt(node, id as MessageId)?.copies ?? []
    const { claim } = copies.find((one) => one.place === Number(place)) ?? {}
    const decidedMs = (node.run?.clock.wallMs() ?? 0) - (claim?.atMs ?? 0)
    if (decidedMs >= sinceMs) return
    world.violate(`held ${copy} leaves ${node.name}, ${Math.round(sinceMs)} ms after it expired`)
  }

  /** Nobody that it could have heard knows that the copy is over. */
  #checkKnown(node: SimNode, id: MessageId, place: number): void {
    const { world, cluster } = this.#sim
    for (const other of cluster.up) {
      if (other === node || !this.#areInTouch(node, other)) continue
      const copy = entryAt(other, id)?.copies.find((one) => one.place === place)
      const isExpired = copy?.claim?.kind === 'expire'
      if (!isExpired && (copy?.enqueuedMs ?? null) === null) continue
      const what = isExpired ? 'has expired' : 'has left'
      world.violate(`held ${id} ${place} leaves ${node.name}; ${other.name} knows that it ${what}`)
    }
  }

  #areInTouch(one: SimNode, two: SimNode): boolean {
    const { nowMs } = this.#sim.world
    if (this.#sim.contactMs(one.id, two.id) < CONTACT_MS) return false
    return this.#sim.lastContactMs(one.id, two.id) >= nowMs
  }

  /** Again for a reason that an operator was told of before, by a death or apart; or a fault. */
  #explain(id: MessageId, copy: string, before: readonly Left[], now: Left): void {
    const { world } = this.#sim
    this.doubled += 1
    if (this.#anyway.has(id)) return
    if ([...before, now].some(({ node }) => node.isRemoved || node.isDestroyed)) return
    const causes = before.map((left) => this.#causeOf(left, now))
    for (const cause of causes) {
      if (cause !== null) world.sometimes(`held mail released twice: ${cause}`)
    }
    if (causes.includes(null)) {
      const names = [...before, now].map(({ node }) => node.name).join(', ')
      world.violate(`held ${copy} is released twice, by ${names}`)
    }
    if (causes.includes('death') || causes.includes('apart'))
      this.#counted.set(id, (this.#counted.get(id) ?? 0) + 1)
  }

  #causeOf(before: Left, now: Left): 'death' | 'apart' | 'rolled back' | null {
    const sim = this.#sim
    const { takeoverMs, claimMs } = patienceOf(sim.knobs.timeScale)
    if (sim.wentBackPast(before.atMs)) return 'rolled back'
    const endedMs = before.process?.endedMs ?? null
    // It was killed before everybody knew that its queue had the copy.
    if (endedMs !== null && endedMs - before.atMs <= takeoverMs + LAST_WORDS_MS) return 'death'
    if (before.node === now.node) return null
    // Neither had heard of the other for so long that it goes on alone.
    const silentMs = now.atMs - sim.lastContactMs(before.node.id, now.node.id)
    return silentMs >= claimMs ? 'apart' : null
  }

  // ---- at rest ----

  /** Its copies that are not over, as the nodes see them. */
  open(id: MessageId): readonly string[] {
    const { core } = this.#sim.cluster
    return RECIPIENTS.flatMap((_, place) => {
      if (this.#lefts.has(`${id} ${place}`)) return []
      const rows = core.map((node) => entryAt(node, id))
      const claims = rows.map((row) => row?.copies.find((copy) => copy.place === place)?.claim)
      if (claims.every((claim) => claim?.kind === 'delete' || claim?.kind === 'expire')) return []
      const owners = new Set(rows.map((row) => row?.row.owner.name))
      return [`${id} ${place} of ${[...owners].join(', ')}: ${claims.map((one) => one?.kind)}`]
    })
  }

  /** Everything is over: what was counted, what was said, and what is left on the disks. */
  settle(ids: readonly MessageId[]): void {
    const { world, ledger, cluster, knobs } = this.#sim
    const { core } = cluster
    const keepers = (): readonly string[] =>
      ids.flatMap((id) => {
        const some = core.filter(({ bodies }) => bodies.kept.has(id))
        const isLeft = some.length > 0 && core.every((node) => isOver(entryAt(node, id)))
        return isLeft ? [`${some.map(({ name }) => name).join(', ')}: ${id}`] : []
      })
    const { deletedMs } = patienceOf(knobs.timeScale)
    const isGone = world.runTill(() => keepers().length === 0, deletedMs + STEPS_MS, 10_000)
    world.act(() => {
      if (!isGone) world.violate(`what is over is kept: ${keepers().slice(0, 3).join('; ')}`)
      for (const [id, doubled] of this.#counted) {
        const counted = ledger.heldDoubts.get(id) ?? 0
        if (counted >= doubled) continue
        world.violate(`held ${id} arrived ${doubled} times again, and ${counted} were counted`)
      }
      for (const copy of this.#promised) {
        if (!this.#lefts.has(copy))
          world.violate(`held ${copy} was said to be released, and is not`)
      }
    })
  }
}

function entryAt({ run }: SimNode, id: MessageId): HeldEntry | null {
  return run?.held.quarantine.one(id) ?? null
}

/** It is decided, and what is released has gone; or it is forgotten. */
function isOver(entry: HeldEntry | null): boolean {
  return (
    entry?.copies.every(
      ({ claim, enqueuedMs }) =>
        claim !== null && (claim.kind !== 'release' || enqueuedMs !== null),
    ) ?? true
  )
}

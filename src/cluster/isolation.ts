/**
 * The owner of a message that lost its holders goes on until they could take it over, and not
 * longer (design: mail.md, Isolation). What counts is when the last frame left here that a holder
 * acknowledged: the holder heard this node then, or later. After a gap a holder must first say how
 * the messages stand: it may have taken them over meanwhile.
 *
 * The clock is the one that goes on while the machine sleeps.
 */
import type { Clock } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { isFinal, type Message } from '../store/queued.ts'
import type { Absences } from './absence.ts'
import type { Members, Roster } from './contract.ts'
import type { Hearing } from './hearing.ts'
import type { Patience } from './patience.ts'
import { STANDINGS_MAX, titleOf } from './standing.ts'
import type { MailStore } from './yield.ts'

export type IsolationOptions = {
  readonly roster: Pick<Roster, 'self' | 'get' | 'peers'>
  readonly members: Members
  readonly absences: Pick<Absences, 'isConfirmed'>
  readonly hearing: Pick<Hearing, 'ask'>
  readonly store: MailStore
  readonly patience: Pick<Patience, 'isolatedMs' | 'isolatedEndMs'>
  readonly clock: Clock
  readonly observer: Observer
  /** The setting `cluster.isolation`. */
  readonly setting: () => 'deliver' | 'hold'
  /** Something may go on that was held. */
  readonly freed: (messages: readonly Message[]) => void
}

export class Isolation {
  readonly #options: IsolationOptions
  /** Boot ms up to which each holder is known to have heard this node, and to have taken nothing. */
  readonly #known = new Map<NodeId, number>()
  readonly #asking = new Set<NodeId>()
  readonly #startBoot: number
  /** Boot ms since when this node owns what it took over. */
  readonly #ownedBoot = new Map<MessageId, number>()
  /** Messages that were told to wait. */
  readonly #held = new Set<MessageId>()
  /** Messages that went on after the longest time; each is counted once. */
  readonly #doubted = new Set<MessageId>()

  constructor(options: IsolationOptions) {
    this.#options = options
    this.#startBoot = options.clock.bootMs()
  }

  /** Remembers who was told to wait, and counts who goes on all the same. */
  blocks(message: Message): boolean {
    const course = this.courseOf(message)
    if (course === 'hold') this.#held.add(message.id)
    if (course === 'doubt') this.#doubt(message)
    return course === 'hold'
  }

  /** `doubt`: it waited for the longest time, and may have been delivered elsewhere. */
  courseOf(message: Message): 'go' | 'hold' | 'doubt' {
    const { id, holders } = message
    if (holders.size === 0) return 'go'
    const ownedBoot = this.#ownedBoot.get(id) ?? 0
    const { roster, absences, clock, patience, setting } = this.#options
    let lastBoot: number | null = null
    // Who only may have got a byte vouches for nothing while another has all of it.
    const isAnyKept = [...holders.values()].includes('kept')
    for (const [node, how] of holders) {
      if (isAnyKept && how !== 'kept') continue
      if (roster.get(node)?.standing !== 'member' || absences.isConfirmed(node)) continue
      const knownBoot = this.#known.get(node) ?? this.#startBoot
      // Who was silent already when this node took it over cannot take it from this one; nor can
      // who had it before, until he knows that he has it no more.
      if (knownBoot < ownedBoot || (how !== 'kept' && node === message.commit.owner)) continue
      lastBoot = Math.max(lastBoot ?? 0, knownBoot)
    }
    if (lastBoot === null) return 'go'
    const aloneMs = clock.bootMs() - lastBoot
    if (aloneMs <= patience.isolatedMs) return 'go'
    if (roster.peers().length === 1 && setting() === 'deliver') return 'go'
    return aloneMs <= patience.isolatedEndMs ? 'hold' : 'doubt'
  }

  /** These are own messages from now on. */
  adopted(messages: readonly Message[]): void {
    const nowBoot = this.#options.clock.bootMs()
    for (const { id } of messages) this.#ownedBoot.set(id, nowBoot)
  }

  /** Time passed, or somebody came into reach. */
  look(): void {
    const { roster, members, patience, clock } = this.#options
    const nowBoot = clock.bootMs()
    for (const { node } of roster.peers()) {
      const ackedBoot = members.get(node)?.ackedBoot ?? null
      const knownBoot = this.#known.get(node) ?? this.#startBoot
      const isGap = ackedBoot !== null && ackedBoot - knownBoot > patience.isolatedMs
      if (ackedBoot !== null && !isGap) this.#known.set(node, Math.max(ackedBoot, knownBoot))
      // Others may have asked all the time, so that this node had no turn.
      const isStale = nowBoot - Math.max(knownBoot, ackedBoot ?? 0) > patience.isolatedMs / 4
      if (!isGap && !(isStale && members.isUsable(node))) continue
      // Keeps what it hears, and never rejects.
      if (!this.#asking.has(node)) void this.#ask(node)
    }
    this.#free()
  }

  /** An answer is an acknowledgement. After a gap: what did it do with what it has of this node? */
  async #ask(node: NodeId): Promise<void> {
    const { store, hearing, clock, patience } = this.#options
    this.#asking.add(node)
    const askedBoot = clock.bootMs()
    const isGap = askedBoot - (this.#known.get(node) ?? this.#startBoot) > patience.isolatedMs
    const shared = isGap ? [...store.messages()].filter(({ holders }) => holders.has(node)) : []
    let isTold = true
    for (let from = 0; isTold && (from < shared.length || from === 0); from += STANDINGS_MAX) {
      const titles = shared
        .slice(from, from + STANDINGS_MAX)
        .filter(({ id }) => store.get(id) !== null)
        .map((message) => ({ id: message.id, ...titleOf(message) }))
      const said = await hearing.ask(node, titles)
      isTold = said !== null && !said.isBehind
    }
    this.#asking.delete(node)
    if (!isTold) return
    this.#known.set(node, askedBoot)
    this.#free()
  }

  #free(): void {
    const freed: Message[] = []
    for (const id of [...this.#held]) {
      const message = this.#options.store.get(id)
      if (message !== null && this.blocks(message)) continue
      this.#held.delete(id)
      if (message !== null) freed.push(message)
    }
    const { store } = this.#options
    for (const id of [...this.#doubted]) if (store.get(id) === null) this.#doubted.delete(id)
    for (const id of [...this.#ownedBoot.keys()]) {
      if (store.get(id) === null) this.#ownedBoot.delete(id)
    }
    if (freed.length > 0) this.#options.freed(freed)
  }

  #doubt(message: Message): void {
    if (this.#doubted.has(message.id)) return
    this.#doubted.add(message.id)
    for (const recipient of message.recipients) {
      if (!isFinal(recipient.state) && recipient.state !== 'held') recipient.doubtful = true
    }
    this.#options.observer.emit('queue.barred', { why: 'isolated', messages: 1 })
  }
}

/**
 * Who may act on a message when nodes come and go (design: mail.md, A dead node): the parts put
 * together. `node.ts` makes one of them when the queue is open and the cluster has started.
 */
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Tenure } from '../store/copies.ts'
import type { Message } from '../store/queued.ts'
import type { Absences } from './absence.ts'
import { type AdoptedWhy, Adoptions } from './adopt.ts'
import { Barrier } from './barrier.ts'
import type { Calls, ClusterDeps, Links, Members, Roster, Self } from './contract.ts'
import { Doubts, type DoubtsDeps } from './doubts.ts'
import { Hearing } from './hearing.ts'
import { Isolation } from './isolation.ts'
import type { Patience } from './patience.ts'
import { outranks, STANDINGS_MAX, type Standing, type Titled } from './standing.ts'
import { Witness } from './witness.ts'
import { type MailStore, Yields } from './yield.ts'

export type SuccessionOptions = {
  readonly self: Self
  readonly roster: Roster
  readonly links: Pick<Links, 'onOpen'>
  readonly members: Members
  readonly calls: Calls
  readonly absences: Absences
  readonly store: MailStore
  readonly patience: Patience
  /** The settings `cluster.isolation` and `queue.inDoubt`, as they are now. */
  readonly isolation: () => 'deliver' | 'hold'
  readonly inDoubtMs: () => number
  /** False while the settings of the cluster are still to be read. */
  readonly isJoined: () => boolean
  /** The queue is at work. */
  readonly isDelivering: () => boolean
  /** Messages that were taken over, durably: to be delivered, and to be told in the trace. */
  readonly adopted: (messages: readonly Message[], why: AdoptedWhy, from: NodeId) => void
  /** Copies of others may be taken from now on: `isPassed`. */
  readonly passed: () => void
  /** A former owner is back: what an adoption had left open about a recipient is known. */
  readonly resolved: DoubtsDeps['resolved']
}

export class Succession implements Tenure {
  /** For the SMTP session, and to ask others. */
  readonly witness: Witness
  readonly #options: SuccessionOptions
  readonly #yields: Yields
  readonly #hearing: Hearing
  readonly #barrier: Barrier
  readonly #isolation: Isolation
  readonly #adoptions: Adoptions
  readonly #freed: ((messages: readonly Message[]) => void)[] = []
  /** What new owners are still to hear of attempts that ended here. */
  readonly #ended = new Map<MessageId, { readonly to: NodeId; readonly standing: Standing }>()
  #isTelling = false

  constructor(options: SuccessionOptions, deps: ClusterDeps) {
    this.#options = options
    const { self, roster, absences, store, patience, inDoubtMs } = options
    const { clock, observer } = deps
    const free = (messages: readonly Message[]): void => this.#free(messages)
    const moved = (): void => this.#adoptions.lookAgain()
    const yields = new Yields({ store, clock, observer, inDoubtMs, replan: free, moved })
    const doubts = new Doubts({ ...options, clock, observer, replan: free })
    const isBehind = (): boolean => !this.#isMember || !this.#barrier.isPassed
    // It may know what it did itself before it knows what others did.
    const mayDeny = (): boolean => this.#isMember && this.#barrier.isSure
    const hearing = new Hearing({
      ...options,
      yields,
      observer,
      mayDeny,
      settled: () => this.#adoptions.settled(),
      ended: (from, standing) => doubts.hear(from, standing),
    })
    this.#yields = yields
    this.#hearing = hearing
    this.#barrier = new Barrier({
      ...options,
      hearing,
      clock,
      observer,
      freed: (ids) => {
        const messages = ids.flatMap((id) => store.get(id) ?? [])
        // A disk that went back has forgotten what it delivered.
        if (!this.#barrier.isRolledBack) doubts.resume(messages)
        free(messages)
      },
    })
    this.#isolation = new Isolation({
      roster,
      members: options.members,
      absences,
      hearing,
      store,
      patience,
      clock,
      observer,
      setting: options.isolation,
      freed: free,
    })
    const { isDelivering } = options
    this.witness = new Witness({ self, roster, mayAnswer: () => !isBehind(), isDelivering }, deps)
    this.#adoptions = new Adoptions({
      ...options,
      hearing,
      yields,
      doubts,
      clock,
      observer,
      witness: this.witness,
      mayAdopt: () => !isBehind(),
      adopted: (messages, why, from) => {
        this.#isolation.adopted(messages)
        options.adopted(messages, why, from)
      },
    })
    absences.onLook((awakeMs) => this.#look(awakeMs))
    options.links.onOpen(({ peer, instance }) => {
      this.#adoptions.met(peer, instance)
      this.#barrier.look(0)
      this.#isolation.look()
    })
    this.#barrier.look(0)
  }

  /** All that others did before this start is known: copies may be taken, and adopted. */
  get isPassed(): boolean {
    return this.#barrier.isPassed
  }

  mayAct(message: Message): boolean {
    return (
      message.owner === this.#options.store.node &&
      !this.#yields.isYielding(message.id) &&
      !this.#barrier.blocks(message.id) &&
      !this.#isolation.blocks(message)
    )
  }

  why(message: Message): string | null {
    if (message.owner !== this.#options.store.node || this.#yields.isYielding(message.id)) {
      return 'Another node has taken it over.'
    }
    if (this.#barrier.blocks(message.id)) {
      return this.#barrier.isRolledBack
        ? 'The disk of this node went back in time; the others are asked what became of it.'
        : 'This node started anew; whoever has a copy is asked whether it was delivered meanwhile.'
    }
    if (this.#isolation.courseOf(message) !== 'hold') return null
    return 'No other holder answers, and one of them may have taken it over.'
  }

  onFreed(listener: (messages: readonly Message[]) => void): void {
    this.#freed.push(listener)
  }

  /** Somebody says that messages of this node are another's (STALE). Never rejects. */
  async stale(titles: readonly Titled[]): Promise<void> {
    const { store } = this.#options
    for (const title of titles) {
      const { id, owner } = title
      const isHere = store.get(id) !== null || store.copy(id) !== null
      const fate = isHere ? null : store.fate(id)
      if (fate !== null && owner !== store.node && outranks(title, fate)) {
        // It was done here before the other one took it over: nobody else knows that.
        const { states, sure = [] } = fate
        this.#ended.set(id, { to: owner, standing: { ...title, kind: 'copy', states, sure } })
        continue
      }
      // Said again by whoever said it, when it cannot be written down now.
      await this.#yields.take({ ...title, kind: 'own', states: [] }).catch(() => {})
    }
  }

  /** What a node has may be taken over now. */
  isDue(node: NodeId): boolean {
    return this.#adoptions.isDue(node)
  }

  /** `from` handed them to this node (XFER): their other holders are to hear whose they are. */
  handed(messages: readonly Message[], from: NodeId): void {
    this.#adoptions.handed(messages, from)
  }

  stop(): void {
    this.#adoptions.stop()
  }

  get #isMember(): boolean {
    const { roster, self, isJoined } = this.#options
    return isJoined() && (roster.get(self.node)?.standing ?? 'member') === 'member'
  }

  #look(awakeMs: number): void {
    this.#barrier.look(awakeMs)
    this.#isolation.look()
    this.#adoptions.look(awakeMs)
    const isSure = this.#barrier.isSure && !this.#barrier.isRolledBack
    for (const { to, standing } of this.#yields.ended(isSure)) {
      this.#ended.set(standing.id, { to, standing })
    }
    void this.#tellEnded()
  }

  /** Never rejects. */
  async #tellEnded(): Promise<void> {
    if (this.#isTelling) return
    this.#isTelling = true
    const byNode = Map.groupBy(this.#ended.values(), ({ to }) => to)
    for (const [to, all] of byNode) {
      const isGone = this.#options.roster.get(to)?.standing !== 'member'
      for (let from = 0; from < all.length; from += STANDINGS_MAX) {
        const standings = all.slice(from, from + STANDINGS_MAX).map(({ standing }) => standing)
        if (!isGone && !(await this.#hearing.tellEnded(to, standings))) break
        for (const standing of standings) {
          if (this.#ended.get(standing.id)?.standing === standing) this.#ended.delete(standing.id)
        }
      }
    }
    this.#isTelling = false
  }

  #free(messages: readonly Message[]): void {
    for (const listener of this.#freed) listener(messages)
  }
}

/** All of these must allow it: a node that hands its queue on is one more that may not. */
export function joint(...parts: readonly Tenure[]): Tenure {
  return {
    mayAct: (message) => parts.every((part) => part.mayAct(message)),
    why: (message) => {
      for (const part of parts) {
        const why = part.why(message)
        if (why !== null) return why
      }
      return null
    },
    onFreed: (listener) => {
      for (const part of parts) part.onFreed(listener)
    },
  }
}

/**
 * Adoption (design: mail.md, A dead node): copies of an owner that is gone become own messages of
 * their living holder of highest rank. It writes that down first, then tells the others, the old
 * owner too, until each has heard it or was removed. Before it takes a message it asks the other
 * living holders: one of them may have it already, or know more of its recipients.
 */
import type { Clock } from '../base/clock.ts'
import { messageOf, storeOnly } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import { adoptionOf, isFinal, type Message } from '../store/queued.ts'
import { type Absences, mailAddressesOf } from './absence.ts'
import type { Members, Roster } from './contract.ts'
import type { Doubts } from './doubts.ts'
import type { Hearing } from './hearing.ts'
import type { Patience } from './patience.ts'
import { ranked } from './rank.ts'
import { STANDINGS_MAX, type Standing, type Titled, titleOf } from './standing.ts'
import type { Witness } from './witness.ts'
import type { MailStore, Yields } from './yield.ts'

/** Why mail was taken over. */
export type AdoptedWhy = 'refused' | 'removed' | 'respooled' | 'silent'

export type AdoptOptions = {
  readonly roster: Pick<Roster, 'self' | 'get' | 'peers' | 'onChange'>
  readonly members: Members
  readonly absences: Absences
  readonly witness: Pick<Witness, 'isDelivering'>
  readonly hearing: Pick<Hearing, 'ask'>
  readonly store: MailStore
  readonly yields: Yields
  readonly doubts: Doubts
  readonly patience: Patience
  readonly clock: Clock
  readonly observer: Observer
  readonly inDoubtMs: () => number
  /** This node is a member, and behind no barrier. */
  readonly mayAdopt: () => boolean
  /** They are own messages now, durably. `from`: whose they were. */
  readonly adopted: (messages: readonly Message[], why: AdoptedWhy, from: NodeId) => void
}

/** What the witness of a silent owner said last. */
type Questioned = { isSilent: boolean; isBusy: boolean; ageMs: number }

/** A copy of an owner that came back with nothing. */
type Lost = { readonly ids: Set<MessageId>; waitMs: number; isBusy: boolean }

export class Adoptions {
  readonly #options: AdoptOptions
  readonly #questioned = new Map<NodeId, Questioned>()
  /** Who is still to hear of adoptions. */
  readonly #untold = new Map<NodeId, Map<MessageId, Titled>>()
  readonly #telling = new Set<NodeId>()
  /** Holders that have nothing of a message, or for whom it is over; `id node`. */
  readonly #passedOver = new Set<string>()
  /** So long a living holder gave no answer. */
  readonly #muteMs = new Map<NodeId, number>()
  readonly #lost = new Map<NodeId, Lost>()
  /** The run of each peer that was met last. */
  readonly #instances = new Map<NodeId, string>()
  #run: Promise<void> | null = null
  #writing: Promise<unknown> = Promise.resolve()
  #isStale = true
  #isStopped = false

  constructor(options: AdoptOptions) {
    this.#options = options
    const { roster, absences } = options
    roster.onChange(() => {
      this.#isStale = true
    })
    absences.onRespooled((node) => this.#doubtOwner(node))
    // Whoever came back with another spool while this node was away is not noticed otherwise.
    for (const { node } of roster.peers()) this.#doubtOwner(node)
  }

  stop(): void {
    this.#isStopped = true
  }

  /** A copy may be another node's since the last look, also one's that was removed before it. */
  lookAgain(): void {
    this.#isStale = true
  }

  /** Who has started anew may lack what its disk lost: a record is damaged, or a snapshot is older. */
  met(node: NodeId, instance: string): void {
    if (this.#instances.get(node) === instance) return
    this.#instances.set(node, instance)
    this.#doubtOwner(node)
  }

  /** What `owner` has may be adopted now. */
  isDue(owner: NodeId): boolean {
    return this.#dueOf(owner) !== null
  }

  /** `from` handed them to this node: their other holders are to hear whose they are. */
  handed(messages: readonly Message[], from: NodeId): void {
    this.#tellOf(messages, from)
  }

  /** Resolves when no adoption is half written. */
  async settled(): Promise<void> {
    await this.#writing
  }

  look(awakeMs: number): void {
    if (this.#isStopped) return
    this.#options.doubts.look()
    for (const questioned of this.#questioned.values()) questioned.ageMs += awakeMs
    for (const [node, ms] of [...this.#muteMs]) {
      if (this.#options.absences.of(node).kind !== 'here') this.#muteMs.delete(node)
      else this.#muteMs.set(node, ms + awakeMs)
    }
    this.#tellAll()
    if (!this.#options.mayAdopt()) return
    for (const [node, lost] of [...this.#lost]) void this.#lookForLost(node, lost, awakeMs)
    this.#run ??= this.#adoptDue().finally(() => {
      this.#run = null
    })
  }

  // ---- what is due ----

  /** Never rejects. */
  async #adoptDue(): Promise<void> {
    const { roster, absences, observer } = this.#options
    const isAnyAway = roster.peers().some(({ node }) => absences.of(node).kind !== 'here')
    if (!isAnyAway && !this.#isStale) {
      // Who had nothing of what its owner lost still has nothing of it.
      if (this.#lost.size === 0) this.#passedOver.clear()
      return
    }
    try {
      while (await this.#adoptSome()) {}
    } catch (error) {
      // The disk: it is tried again at the next look.
      this.#isStale = true
      observer.emit('call.failed', { peer: null, topic: 'adopt', detail: messageOf(error) })
    }
  }

  /** True: there is more, and it goes. @throws StoreError */
  async #adoptSome(): Promise<boolean> {
    const { store } = this.#options
    const why = new Map<NodeId, AdoptedWhy | null>()
    const due = new Map<NodeId, MessageId[]>()
    const others = new Map<NodeId, MessageId[]>()
    for (const copy of store.copies()) {
      const { id, owner } = copy
      if (!why.has(owner)) why.set(owner, this.#dueOf(owner))
      const reason = why.get(owner) ?? null
      if (reason === null || !isWanted(copy, reason)) continue
      const [first] = ranked(id, this.#livingHolders(copy))
      if (first === store.node) put(due, owner, id)
      else if (first !== undefined) put(others, first, id)
    }
    for (const [node, ids] of others) await this.#remind(node, ids)
    // What could not be taken now is looked at again.
    this.#isStale = due.size + others.size > 0
    let isMore = false
    for (const [owner, ids] of due) {
      const reason = why.get(owner) ?? null
      const count = reason === null ? 0 : await this.#take(owner, ids, reason)
      isMore ||= count > 0 && ids.length === STANDINGS_MAX
    }
    return isMore
  }

  /** Why the mail of an owner may be adopted now; null: it may not. */
  #dueOf(owner: NodeId): AdoptedWhy | null {
    const { absences, patience, roster } = this.#options
    const absence = absences.of(owner)
    if (absence.kind === 'here') {
      this.#questioned.delete(owner)
      return null
    }
    if (absence.kind === 'confirmed' && absence.why === 'removed') return 'removed'
    const member = roster.get(owner)
    // Whoever drained a node is about to start it again.
    const leastMs = member?.drain === 'drained' ? patience.drainedMs : 0
    if (absence.kind === 'confirmed') {
      if (absence.refusedMs >= Math.max(leastMs, patience.adoptConfirmedMs)) return 'refused'
    }
    const { adoptMinorityMs, adoptSilentMs } = patience
    const silentMs = Math.max(leastMs, absences.isMinority ? adoptMinorityMs : adoptSilentMs)
    if (absence.silentMs < silentMs) return null
    return this.#isWitnessSilent(owner) ? 'silent' : null
  }

  /** Asks when it was not asked just now; until the answer came it is not silent. */
  #isWitnessSilent(owner: NodeId): boolean {
    const { witness, roster, patience } = this.#options
    const member = roster.get(owner)
    const questioned = this.#questioned.get(owner) ?? {
      isSilent: false,
      isBusy: false,
      ageMs: Number.POSITIVE_INFINITY,
    }
    this.#questioned.set(owner, questioned)
    if (!questioned.isBusy && questioned.ageMs >= patience.confirmedMs && member !== null) {
      questioned.isBusy = true
      questioned.isSilent = false
      // Never rejects.
      void witness.isDelivering(member, mailAddressesOf(member)).then((isDelivering) => {
        questioned.isSilent = !isDelivering
        questioned.isBusy = false
        questioned.ageMs = 0
      })
    }
    return questioned.isSilent
  }

  #livingHolders({ id, owner, holders }: Message): readonly NodeId[] {
    const { store, absences, patience } = this.#options
    const others = [...holders.keys()].filter(
      (node) =>
        node !== owner &&
        node !== store.node &&
        absences.of(node).kind === 'here' &&
        !this.#passedOver.has(`${id} ${node}`) &&
        (this.#muteMs.get(node) ?? 0) < patience.barrierMs,
    )
    return [store.node, ...others]
  }

  // ---- taking ----

  /** Gives how many it took. @throws StoreError */
  async #take(owner: NodeId, ids: readonly MessageId[], why: AdoptedWhy): Promise<number> {
    const { store } = this.#options
    const said = await this.#consult(ids)
    const left = ids.filter((id) => {
      const copy = store.copy(id)
      return copy !== null && copy.owner === owner && !said.unheard.has(id)
    })
    // Meanwhile it may have spoken.
    const isDue = why === 'respooled' || this.#dueOf(owner) === why
    if (!isDue || left.length === 0 || !this.#options.mayAdopt()) return 0
    const taken = left.map((id) => ({ id, term: (store.copy(id)?.term ?? 0) + 1 }))
    const { doubts } = this.#options
    const adoptions = new Map(
      taken.map(({ id }) => [id, adoptionOf(store.copy(id) as Message)] as const),
    )
    const writing = store.adopt(taken)
    this.#writing = writing.catch(() => {})
    const adopted = await writing
    for (const message of adopted) {
      this.#own(message, said.standings.get(message.id) ?? [])
      const adoption = adoptions.get(message.id)
      if (adoption !== undefined) doubts.began(message, adoption)
    }
    this.#tellOf(adopted, owner)
    const { observer, adopted: on } = this.#options
    for (const { id, term } of adopted) {
      observer.emit('queue.adopted', { message: id, from: owner, why, term })
    }
    const living = adopted.filter(({ id }) => store.get(id) !== null)
    if (living.length > 0) on(living, why, owner)
    return adopted.length
  }

  /** Each delivery may be a second one: the last marks of the owner may not have come. */
  #own(message: Message, standings: readonly Standing[]): void {
    const { store, yields, clock, inDoubtMs } = this.#options
    for (const [index, recipient] of message.recipients.entries()) {
      const { state, attempts } = recipient
      if (isFinal(state) || state === 'held') continue
      recipient.doubtful = true
      if (state === 'inDoubt') recipient.nextTryMs = clock.wallMs() + inDoubtMs()
      const at = state === 'queued' ? clock.wallMs() : recipient.nextTryMs
      // So that a restart knows it too.
      store.mark('defer', message, [index], { at, attempts, doubt: true })
      if (state === 'inDoubt') store.mark('try', message, [index])
    }
    for (const { states } of standings) yields.merge(message, states)
  }

  /** Asks the other living holders, and applies what they know. */
  async #consult(ids: readonly MessageId[]): Promise<{
    /** Somebody who lives has not answered for these yet. */
    readonly unheard: ReadonlySet<MessageId>
    readonly standings: ReadonlyMap<MessageId, readonly Standing[]>
  }> {
    const { store } = this.#options
    const unheard = new Set<MessageId>()
    const standings = new Map<MessageId, Standing[]>()
    const questions = new Map<NodeId, Titled[]>()
    for (const id of ids) {
      const copy = store.copy(id)
      if (copy === null) continue
      for (const node of this.#livingHolders(copy)) {
        if (node === store.node) continue
        const list = questions.get(node) ?? []
        questions.set(node, list)
        list.push({ id, ...titleOf(copy) })
      }
    }
    for (const [node, titles] of questions) {
      const answers = await this.#ask(node, titles)
      for (const { id } of titles) {
        if (answers === null) unheard.add(id)
        const standing = answers?.get(id)
        if (standing !== undefined) standings.set(id, [...(standings.get(id) ?? []), standing])
      }
    }
    return { unheard, standings }
  }

  /** Another one is the first in rank: it acts, unless it has nothing of the message any more. */
  async #remind(node: NodeId, ids: readonly MessageId[]): Promise<void> {
    const { store } = this.#options
    const titles = ids.flatMap((id) => {
      const copy = store.copy(id)
      return copy === null ? [] : [{ id, ...titleOf(copy) }]
    })
    const answers = await this.#ask(node, titles)
    if (answers === null) return
    for (const { id } of titles) {
      const kind = answers.get(id)?.kind ?? 'fate'
      if (kind === 'fate') this.#passedOver.add(`${id} ${node}`)
    }
  }

  /** Null: it gave no answer that denies anything. */
  async #ask(
    node: NodeId,
    titles: readonly Titled[],
  ): Promise<ReadonlyMap<MessageId, Standing> | null> {
    const said = await this.#options.hearing.ask(node, titles)
    if (said === null || said.isBehind) {
      if (!this.#muteMs.has(node)) this.#muteMs.set(node, 0)
      return null
    }
    this.#muteMs.delete(node)
    return new Map(said.standings.map((standing) => [standing.id, standing]))
  }

  // ---- telling ----

  /** The other holders and the old owner are to hear of it. */
  #tellOf(adopted: readonly Message[], owner: NodeId): void {
    for (const message of adopted) {
      for (const node of new Set([...message.holders.keys(), owner])) {
        if (node === this.#options.store.node) continue
        const untold = this.#untold.get(node) ?? new Map<MessageId, Titled>()
        this.#untold.set(node, untold)
        untold.set(message.id, { id: message.id, ...titleOf(message) })
      }
    }
    this.#tellAll()
  }

  #tellAll(): void {
    // A spool that failed ends the process.
    for (const node of [...this.#untold.keys()]) this.#tell(node).catch(storeOnly)
  }

  /** @throws StoreError */
  async #tell(node: NodeId): Promise<void> {
    const { roster, hearing, doubts } = this.#options
    if (this.#telling.has(node)) return
    this.#telling.add(node)
    const untold = this.#untold.get(node)
    while (untold !== undefined && untold.size > 0) {
      if (roster.get(node)?.standing !== 'member') {
        untold.clear()
        break
      }
      const titles = [...untold.values()].slice(0, STANDINGS_MAX)
      const said = this.#options.members.isUsable(node) ? await hearing.ask(node, titles) : null
      if (said === null) break
      for (const standing of said.standings) {
        this.#hold(node, standing)
        // It ended there before this node took it over, as the former owner alone can know.
        if (standing.kind === 'fate' && standing.owner === node) doubts.hear(node, standing)
      }
      for (const title of titles) if (untold.get(title.id) === title) untold.delete(title.id)
    }
    if (untold?.size === 0) this.#untold.delete(node)
    this.#telling.delete(node)
  }

  /** Who has a copy of what is an own message now is to hear when it is done. */
  #hold(node: NodeId, { id, kind, owner }: Standing): void {
    const { store } = this.#options
    const message = store.get(id)
    if (message === null || kind !== 'copy' || owner !== store.node) return
    if (message.holders.get(node) !== 'kept') store.setHolder(message, node, 'kept')
  }

  // ---- owners that came back with less ----

  #doubtOwner(node: NodeId): void {
    const { store, patience } = this.#options
    const ids = new Set([...store.copies()].flatMap((copy) => (copy.owner === node ? copy.id : [])))
    if (ids.size > 0) this.#lost.set(node, { ids, waitMs: patience.confirmedMs, isBusy: false })
    else this.#lost.delete(node)
  }

  /** What its owner has never heard of is lost there. Never rejects. */
  async #lookForLost(node: NodeId, lost: Lost, awakeMs: number): Promise<void> {
    const { store, observer } = this.#options
    // Mail that was under way to here when it ended there is committed by now, or never.
    lost.waitMs -= awakeMs
    if (lost.isBusy || lost.waitMs > 0 || !this.#options.members.isUsable(node)) return
    lost.isBusy = true
    try {
      const ids = [...lost.ids].slice(0, STANDINGS_MAX)
      const titles = ids.flatMap((id) => {
        const copy = store.copy(id)
        return copy?.owner === node ? [{ id, ...titleOf(copy) }] : []
      })
      const answers = await this.#ask(node, titles)
      if (answers === null) return
      const gone = titles.flatMap(({ id }) => (answers.has(id) ? [] : id))
      const mine = gone.filter((id) => {
        const copy = store.copy(id)
        return copy !== null && ranked(id, this.#livingHolders(copy))[0] === store.node
      })
      await this.#take(node, mine, 'respooled')
      for (const id of ids) if (!gone.includes(id) || store.copy(id) === null) lost.ids.delete(id)
      await this.#remindOf(gone)
    } catch (error) {
      observer.emit('call.failed', { peer: node, topic: 'adopt', detail: messageOf(error) })
    } finally {
      lost.isBusy = false
      if (lost.ids.size === 0 && this.#lost.get(node) === lost) this.#lost.delete(node)
    }
  }

  async #remindOf(ids: readonly MessageId[]): Promise<void> {
    const { store } = this.#options
    const first = new Map<NodeId, MessageId[]>()
    for (const id of ids) {
      const copy = store.copy(id)
      const [node] = copy === null ? [] : ranked(id, this.#livingHolders(copy))
      if (node === undefined || node === store.node) continue
      first.set(node, [...(first.get(node) ?? []), id])
    }
    for (const [node, list] of first) await this.#remind(node, list)
  }
}

/** One question takes so many; the rest come with the next. */
function put(lists: Map<NodeId, MessageId[]>, key: NodeId, id: MessageId): void {
  const list = lists.get(key) ?? []
  lists.set(key, list)
  if (list.length < STANDINGS_MAX) list.push(id)
}

/**
 * Held mail is never adopted on silence alone. What is final already is taken over from the dead,
 * so that somebody tells its holders to forget it.
 */
function isWanted({ recipients }: Message, why: AdoptedWhy): boolean {
  return why !== 'silent' || recipients.some(({ state }) => !isFinal(state) && state !== 'held')
}

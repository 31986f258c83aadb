/**
 * XFER: a node that drains or leaves hands its queue to the others (design: mail.md, Drain and
 * leave). The body is there already, or goes there first; what moves is who delivers. The target
 * writes down that it has a message before this node gives it up, so there is always an owner;
 * between question and answer this node is silent about the message, so there is never a second.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, RefusalError, StoreError, storeOnly } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CopyStore, Tenure } from '../store/copies.ts'
import type { Message } from '../store/queued.ts'
import type { Calls, Member, Members, Roster } from './contract.ts'
import type { Patience } from './patience.ts'
import { ranked } from './rank.ts'
import {
  type Ask,
  encodeAnswer,
  encodeAsk,
  marksOf,
  type Owned,
  readAnswer,
  readAsk,
  readIds,
  rowOf,
} from './transfer-wire.ts'

const TAKE = 'mail.take'
const SPARE = 'mail.spare'
/** From one look at what may move to the next, while something does; and while nothing does. */
const STEP_MS = 20
const IDLE_MS = 250
/** A question without an answer is asked again after this. */
const AGAIN_MS = 1_000
const ANSWER_MS = 10_000
/** Messages of one question, and their recipients: with the longest replies it fits a message. */
const BATCH_MESSAGES = 200
const BATCH_RECIPIENTS = 10_000
/** Copies of one question whether they are elsewhere too. */
const SPARE_MAX = 1_000
/** Copies that are made at a time, for messages that nobody else has. */
const GIVING_MAX = 64
/** Who refused, or could not be given a copy, is asked again after this. */
const REFUSED_MS = 5_000

/** What is still here, and keeps a node from leaving. */
export type Remains = {
  /** Own messages that wait for delivery. */
  readonly queue: number
  /** Held messages that this node decides about. */
  readonly held: number
  /** Copies kept for others that are not known to be elsewhere too. */
  readonly copies: number
  /** Messages that are done, and that some node has not yet been heard to forget. */
  readonly owed: number
  /** Why the last one that was asked took nothing; null: nobody has refused. */
  readonly why: string | null
}

export type TransferDeps = {
  readonly clock: Clock
  readonly observer: Observer
  readonly patience: Pick<Patience, 'drainMs'>
  readonly store: CopyStore
  readonly calls: Calls
  readonly roster: Pick<Roster, 'self' | 'get' | 'peers' | 'onChange'> & {
    setDrain(node: NodeId, drain: Member['drain'], by: string): void
    markLeft(node: NodeId, by: string): void
  }
  readonly members: Pick<Members, 'isUsable'>
  /** Messages that somebody else may own already are not handed on. */
  readonly tenure: Pick<Tenure, 'mayAct'>
  /** Makes a copy of an own message; who has it durably then, or null. Never rejects. */
  readonly give: (message: Message) => Promise<NodeId | null>
  readonly mail: {
    /** While on: no attempt begins. */
    rest(on: boolean): void
    /** Attempts and sessions that have not ended. */
    busy(): number
    /** Held messages of this node that no other one decides about yet; tries to move them. */
    heldLeft(): number
  }
  /** Why this node takes nothing over now; null: it does. */
  readonly refuses: () => string | null
  /** They are own messages from here on: to be delivered, and their holders are to hear of it. */
  readonly taken: (messages: readonly Message[], from: NodeId) => void
  /** What a node had may be adopted now: it is dead, or was removed. */
  readonly isLost: (node: NodeId) => boolean
}

/** A message that `to` was asked to take, and perhaps has. */
type Handing = {
  readonly message: Message
  readonly to: NodeId
  readonly term: number
  isOpen: boolean
  askedMono: number
}

type Batch = { readonly messages: Message[]; recipients: number }

type Course = { readonly kind: 'drain' | 'leave'; readonly endsMono: number }

export class Transfer implements Tenure {
  readonly #deps: TransferDeps
  readonly #handing = new Map<MessageId, Handing>()
  readonly #giving = new Set<MessageId>()
  /** Copies for others that somebody else has as well, as their owners say. */
  readonly #spare = new Set<MessageId>()
  /** Owners that were asked, when. */
  readonly #askedSpare = new Map<NodeId, number>()
  /** Who did not take a message, or none at all, until when. */
  readonly #refused = new Map<string, number>()
  readonly #freed: ((messages: readonly Message[]) => void)[] = []
  /** The last question of each node: one of before it comes too late. */
  readonly #heard = new Map<NodeId, Pick<Ask, 'epoch' | 'ask'>>()
  /** Questions of others, one after the other. */
  #turn: Promise<unknown> = Promise.resolve()
  #course: Course | null = null
  #timer: Timer | null = null
  #asks = 0
  #why: string | null = null
  #isClosed = false

  constructor(deps: TransferDeps) {
    this.#deps = deps
    deps.calls.answer(TAKE, (value, from) => {
      const taking = this.#turn.then(() => this.#take(value, from))
      this.#turn = taking.catch(() => {})
      return taking
    })
    deps.calls.answer(SPARE, async (value, from) => {
      const ids = readIds(value, SPARE_MAX)
      if (ids === null) throw unreadable()
      return { kind: 'json', value: ids.filter((id) => this.#isElsewhere(id, from)) }
    })
    deps.roster.onChange(() => this.#follow())
  }

  /** Goes on where the last run of this process was, once mail flows. */
  start(): void {
    this.#follow()
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
    this.#timer = null
  }

  // ---- Tenure ----

  mayAct({ id }: Message): boolean {
    return !this.#handing.has(id)
  }

  why({ id }: Message): string | null {
    const handing = this.#handing.get(id)
    if (handing === undefined) return null
    const name = this.#deps.roster.get(handing.to)?.name ?? handing.to
    return `${name} was asked to take it over, and has not answered yet.`
  }

  onFreed(listener: (messages: readonly Message[]) => void): void {
    this.#freed.push(listener)
  }

  // ---- what the pages and `leave` ask ----

  remains(): Remains {
    const { store, mail } = this.#deps
    const owed = count(store.owed())
    const queue = count(waiting(store))
    return { queue, held: mail.heldLeft(), copies: count(this.#unspared()), owed, why: this.#why }
  }

  /** True: this node may be forgotten, and nothing is lost or delivered twice. */
  get isFree(): boolean {
    const { store, mail } = this.#deps
    if (mail.busy() > 0 || this.#handing.size > 0 || !isEmpty(waiting(store))) return false
    if (!isEmpty(store.owed()) || mail.heldLeft() > 0) return false
    return isEmpty(this.#unspared())
  }

  /** Copies without which a message might have none. Of two nodes the other one has all. */
  *#unspared(): Generator<Message> {
    const { store, roster } = this.#deps
    if (roster.peers().length < 2) return
    for (const copy of store.copies()) if (!this.#spare.has(copy.id)) yield copy
  }

  // ---- the course of a drain ----

  #follow(): void {
    if (this.#isClosed) return
    const { roster, clock, patience, mail } = this.#deps
    const me = roster.get(roster.self.node)
    const kind =
      me?.standing !== 'member'
        ? null
        : me.drain === 'draining'
          ? 'drain'
          : me.drain === 'leaving'
            ? 'leave'
            : null
    // What a node leaves behind is for the others: it does not deliver it as well.
    mail.rest(kind !== null || me?.standing !== 'member')
    if (kind === (this.#course?.kind ?? null)) return
    if (kind !== null) this.#why = null
    this.#course = kind === null ? null : { kind, endsMono: clock.monoMs() + patience.drainMs }
    this.#refused.clear()
    this.#spare.clear()
    this.#plan(0)
  }

  #plan(waitMs: number): void {
    if (this.#timer !== null || this.#isClosed) return
    this.#timer = this.#deps.clock.after(waitMs, () => {
      this.#timer = null
      this.#step()
    })
  }

  #step(): void {
    this.#askAgain()
    if (this.#course !== null) {
      this.#move()
      if (this.#course.kind === 'leave') this.#askSpare()
      this.#conclude(this.#course)
    }
    const moves = this.#giving.size > 0 || [...this.#handing.values()].some(({ isOpen }) => isOpen)
    if (moves) this.#plan(STEP_MS)
    else if (this.#course !== null || this.#handing.size > 0) this.#plan(IDLE_MS)
  }

  /** Drained is said when it is so, or when the time for it is over; `left` only when it is so. */
  #conclude({ kind, endsMono }: Course): void {
    const { roster, clock, store, mail, observer } = this.#deps
    const { node } = roster.self
    try {
      if (kind === 'leave') {
        if (this.isFree) roster.markLeft(node, 'postern')
        return
      }
      const isStill = mail.busy() === 0 && this.#handing.size === 0
      const isMoved = isStill && (isEmpty(waiting(store)) || !this.#isAnybodyThere())
      if (isMoved || clock.monoMs() >= endsMono) roster.setDrain(node, 'drained', 'postern')
    } catch (error) {
      // The next step says it again.
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
    }
  }

  /** Asks each node that could take something, one question at a time. */
  #move(): void {
    const asked = new Set<NodeId>()
    for (const { to, isOpen } of this.#handing.values()) if (isOpen) asked.add(to)
    const batches = new Map<NodeId, Batch>()
    for (const message of waiting(this.#deps.store)) {
      if (!this.#isMovable(message)) continue
      const to = this.#targetOf(message)
      if (to === null) this.#give(message)
      else if (!asked.has(to)) addTo(batches, to, message)
    }
    for (const [to, { messages }] of batches) {
      for (const message of messages) {
        const { id, term } = message
        this.#handing.set(id, { message, to, term: term + 1, isOpen: false, askedMono: 0 })
      }
      void this.#ask(to, messages)
    }
  }

  #isMovable(message: Message): boolean {
    const { recipients, heldMoved, id } = message
    if (this.#handing.has(id) || this.#giving.has(id)) return false
    if (recipients.some(({ state }) => state === 'trying')) return false
    if (!heldMoved && recipients.some(({ state }) => state === 'held')) return false
    return this.#deps.tenure.mayAct(message)
  }

  /** Who has a copy and is there; null: nobody. */
  #targetOf({ id, holders }: Message): NodeId | null {
    const kept = [...holders].flatMap(([node, state]) => (state === 'kept' ? [node] : []))
    const nowMono = this.#deps.clock.monoMs()
    const isRefused = (name: string): boolean => (this.#refused.get(name) ?? 0) > nowMono
    return (
      ranked(id, kept).find(
        (node) => this.#isThere(node) && !isRefused(node) && !isRefused(`${node} ${id}`),
      ) ?? null
    )
  }

  #isThere(node: NodeId): boolean {
    const { roster, members } = this.#deps
    const member = roster.get(node)
    const isMember = member?.standing === 'member' && member.drain === 'accepting'
    return isMember && members.isUsable(node)
  }

  #isAnybodyThere(): boolean {
    return this.#deps.roster.peers().some(({ node }) => this.#isThere(node))
  }

  #give(message: Message): void {
    const { clock, give } = this.#deps
    const { id } = message
    if (this.#giving.size >= GIVING_MAX || !this.#isAnybodyThere()) return
    if ((this.#refused.get(id) ?? 0) > clock.monoMs()) return
    this.#giving.add(id)
    give(message)
      .then((node) => {
        this.#giving.delete(id)
        if (node === null) this.#refused.set(id, clock.monoMs() + REFUSED_MS)
      })
      // A spool that failed ends the process.
      .catch(storeOnly)
  }

  // ---- copies of others ----

  #askSpare(): void {
    const nowMono = this.#deps.clock.monoMs()
    const ids = new Map<NodeId, MessageId[]>()
    for (const { id, owner } of this.#unspared()) {
      const list = ids.get(owner)
      if (list === undefined) ids.set(owner, [id])
      else if (list.length < SPARE_MAX) list.push(id)
    }
    for (const [owner, list] of ids) {
      if (nowMono < (this.#askedSpare.get(owner) ?? 0) + AGAIN_MS) continue
      this.#askedSpare.set(owner, nowMono)
      void this.#hearSpare(owner, list)
    }
  }

  /** Never rejects: who does not answer is asked again. */
  async #hearSpare(owner: NodeId, ids: readonly MessageId[]): Promise<void> {
    const answer = await this.#deps.calls.ask(owner, SPARE, ids).catch(() => null)
    const spare = readIds(answer, SPARE_MAX) ?? []
    const asked = new Set(ids)
    for (const id of spare) if (asked.has(id)) this.#spare.add(id)
    // There are more, perhaps.
    if (spare.length === ids.length) this.#askedSpare.delete(owner)
  }

  /** Somebody beside `node` and this one has an own message, or it is done. */
  #isElsewhere(id: MessageId, node: NodeId): boolean {
    const { store } = this.#deps
    const message = store.get(id)
    if (message === null) return store.fate(id) !== null
    return [...message.holders].some(
      ([other, state]) => other !== node && state === 'kept' && this.#isThere(other),
    )
  }

  // ---- question and answer ----

  /** Never rejects. Without an answer all of them stay silent, and are asked for again. */
  async #ask(to: NodeId, messages: readonly Message[]): Promise<void> {
    const { calls, clock, roster } = this.#deps
    const open = messages.flatMap(({ id }) => this.#handing.get(id) ?? [])
    for (const handing of open) {
      handing.isOpen = true
      handing.askedMono = clock.monoMs()
    }
    this.#asks += 1
    const nowMs = clock.wallMs()
    const rows = open.map(({ message, term }) => rowOf(message, term, nowMs))
    // After a drain that was called off it is only asked who has them.
    const take = this.#course !== null
    const ask = encodeAsk({ epoch: roster.self.epoch, ask: this.#asks, take, rows })
    try {
      const answer = readAnswer(await calls.ask(to, TAKE, ask, ANSWER_MS))
      if (answer !== null) await this.#answered(to, open, answer)
    } catch (error) {
      // No answer is no answer: it may have them. A disk that failed ends the process elsewhere.
      if (!(error instanceof RefusalError) && !(error instanceof StoreError)) throw error
      this.#why = messageOf(error)
    }
    for (const handing of open) handing.isOpen = false
    this.#plan(STEP_MS)
  }

  async #answered(
    to: NodeId,
    open: readonly Handing[],
    answer: { readonly gone: readonly Owned[]; readonly why: string | null },
  ): Promise<void> {
    const { clock } = this.#deps
    const gone = new Map(answer.gone.map((owned) => [owned.id, owned]))
    const untilMono = clock.monoMs() + REFUSED_MS
    if (answer.why !== null) {
      this.#why = answer.why
      this.#refused.set(to, untilMono)
    }
    await Promise.all(
      open.map(async ({ message, term }) => {
        const owned = gone.get(message.id)
        if (owned !== undefined && owned.term >= term) return this.#handedOver(message, owned)
        this.#refused.set(`${to} ${message.id}`, untilMono)
        this.#handing.delete(message.id)
      }),
    )
    this.#free(open.map(({ message }) => message))
  }

  /** They may go on here, or what was planned for them is void. */
  #free(messages: readonly Message[]): void {
    for (const listener of this.#freed) listener(messages)
  }

  async #handedOver(message: Message, { owner, term }: Owned): Promise<void> {
    const { store, observer } = this.#deps
    // Somebody else may have told it meanwhile.
    if (store.get(message.id) === message && message.term < term) {
      await store.handOver(message, owner, term)
      observer.emit('queue.transferred', { message: message.id, to: owner, term })
    }
    this.#handing.delete(message.id)
  }

  /** What was asked and not answered: again, until it is known; or its target is given up. */
  #askAgain(): void {
    const { clock, store, isLost, members } = this.#deps
    const again = new Map<NodeId, Batch>()
    const lost: Handing[] = []
    for (const [id, handing] of this.#handing) {
      const { message, to, isOpen, askedMono } = handing
      if (isOpen || clock.monoMs() < askedMono + AGAIN_MS) continue
      if (store.get(id) !== message) this.#handing.delete(id)
      else if (isLost(to)) lost.push(handing)
      else if (members.isUsable(to)) addTo(again, to, message)
    }
    for (const [to, { messages }] of again) void this.#ask(to, messages)
    if (lost.length > 0) void this.#takeBack(lost)
  }

  /** It may have had them, and delivered: so this node goes on under a term above its. */
  async #takeBack(lost: readonly Handing[]): Promise<void> {
    const { store, observer, taken } = this.#deps
    for (const handing of lost) handing.isOpen = true
    try {
      await Promise.all(lost.map(({ message, to, term }) => store.handOver(message, to, term)))
      const rows = lost.map(({ message, term }) => ({ id: message.id, term: term + 1 }))
      const back = await store.adopt(rows)
      for (const { message } of lost) this.#handing.delete(message.id)
      for (const message of back) {
        for (const recipient of message.recipients) recipient.doubtful = true
        const { id, term } = message
        observer.emit('queue.adopted', { message: id, term, why: 'transfer' })
      }
      const [first] = lost
      if (first !== undefined) taken(back, first.to)
      // While they were being handed on nothing of them could begin.
      this.#free(back)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      for (const handing of lost) handing.isOpen = false
    }
  }

  // ---- the target ----

  /** @throws RefusalError for what cannot be read; StoreError */
  async #take(value: unknown, from: NodeId): Promise<{ kind: 'json'; value: unknown }> {
    const ask = readAsk(value)
    if (ask === null) throw unreadable()
    const { store, observer, clock, refuses, taken } = this.#deps
    const heard = this.#heard.get(from)
    const isLate =
      heard !== undefined &&
      (ask.epoch < heard.epoch || (ask.epoch === heard.epoch && ask.ask <= heard.ask))
    if (isLate) throw unreadable()
    this.#heard.set(from, { epoch: ask.epoch, ask: ask.ask })
    const why = refuses()
    const wanted: { readonly id: MessageId; readonly term: number }[] = []
    for (const row of ask.rows) {
      const copy = store.copy(row.id)
      if (!ask.take || why !== null) continue
      if (copy?.owner !== from || copy.term >= row.term) continue
      for (const { kind, payload } of marksOf(row, clock.wallMs())) {
        store.markCopy(row.id, kind, payload)
      }
      wanted.push({ id: row.id, term: row.term })
    }
    const adopted = wanted.length === 0 ? [] : await store.adopt(wanted)
    for (const message of adopted) {
      const { id, term } = message
      store.setHolder(message, from, 'kept')
      observer.emit('queue.adopted', { message: id, term, why: 'transfer' })
    }
    if (adopted.length > 0) taken(adopted, from)
    // Also what was taken over for another reason, a moment ago.
    await store.synced()
    const gone = ask.rows
      .flatMap((row) => this.#ownerOf(row.id, row.term) ?? [])
      .filter(({ owner }) => owner !== from)
    return { kind: 'json', value: encodeAnswer({ gone, why }) }
  }

  /** Who has a message under `term` or a later one, as this node knows for sure; null: nobody. */
  #ownerOf(id: MessageId, least: number): Owned | null {
    const { store } = this.#deps
    const known = store.get(id) ?? store.copy(id) ?? store.fate(id)
    if (known === null || known.term < least) return null
    return { id, owner: known.owner, term: known.term }
  }
}

/** Own messages of which something waits for delivery, oldest first. */
function* waiting(store: CopyStore): Generator<Message> {
  for (const message of store.messages()) {
    const waits = message.recipients.some(
      ({ state }) =>
        state === 'queued' || state === 'deferred' || state === 'inDoubt' || state === 'trying',
    )
    if (waits) yield message
  }
}

function addTo(batches: Map<NodeId, Batch>, to: NodeId, message: Message): void {
  const batch = batches.get(to) ?? { messages: [], recipients: 0 }
  batches.set(to, batch)
  const { length } = message.recipients
  if (batch.messages.length >= BATCH_MESSAGES) return
  if (batch.messages.length > 0 && batch.recipients + length > BATCH_RECIPIENTS) return
  batch.messages.push(message)
  batch.recipients += length
}

function count(all: Iterable<unknown>): number {
  let sum = 0
  for (const _ of all) sum += 1
  return sum
}

function isEmpty(all: Iterable<unknown>): boolean {
  for (const _ of all) return false
  return true
}

function unreadable(): RefusalError {
  return new RefusalError(
    'invalid',
    null,
    'What the node asked to be taken over cannot be read, or comes too late.',
    'Both nodes should run the same version, or one version apart.',
  )
}

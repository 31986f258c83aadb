/**
 * The messages this node is responsible for, the copies that it keeps for others, and the marks of
 * both: memory rebuilt from the spool, which is the truth. Every change of state is a spool record
 * first, and in memory in the same step, so that a COMMIT copied forward says what the records say.
 */
import type { Clock } from '../base/clock.ts'
import { assert, StoreError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import { CACHE_BYTES_MAX, QUEUE_MESSAGES_MAX } from '../base/limits.ts'
import type { Observer } from '../base/observe.ts'
import type { Body } from '../message/body.ts'
import type { RecipientState } from '../message/rows.ts'
import { Compaction } from './compaction.ts'
import type { Copied, CopyDraft, CopyStore, Fate, Mirror } from './copies.ts'
import { Draft } from './draft.ts'
import { readBody } from './extents.ts'
import type { Fates } from './fates.ts'
import { HolderNotes } from './holder-notes.ts'
import { applyMark, changeOwner, doubt, isAbove, joinStates, type Title } from './marks.ts'
import { MessageRecords } from './message-records.ts'
import {
  type Commit,
  commitOf,
  type HolderState,
  type MarkKind,
  type MarkPayload,
  Message,
  type NewCommit,
  shifted,
} from './queued.ts'
import { type HolderPayload, type HoldingsPayload, Rebuild, type TitlePayload } from './rebuild.ts'
import { BODIES_MAX, RECORD, type RecordType } from './records.ts'
import { Spool } from './spool.ts'

/** Ends of copies that are remembered; about 200 bytes each. */
const FORGOTTEN_MAX = 50_000
/** Part of the disk that copies leave free: own mail goes on below it (design: mail.md, Accept). */
const COPY_RESERVE = 0.1

/** `none`: there is no other node. `require`: no 250 without a copy. */
export type CopyRule = 'none' | 'prefer' | 'require'

/** No other node has acknowledged a copy, and the operator wants one before each 250. */
export class AloneError extends StoreError {
  override name = 'AloneError'
}

const ALONE: Copied = { kind: 'alone', why: 'no node takes copies' }
const NOBODY: readonly NodeId[] = []

export type QueueDeps = {
  readonly clock: Clock
  readonly observer: Observer
  /** This one: the owner of what it delivers. */
  readonly node: NodeId
  /** None where mail never changes its owner. */
  readonly fates?: Fates
  /** Asked when nobody has acknowledged a copy; without it there is no other node. */
  readonly copies?: () => CopyRule
}

export class Queue implements CopyStore {
  readonly #spool: Spool
  readonly #records: MessageRecords
  readonly #deps: QueueDeps
  readonly node: NodeId
  /** Copies of what this node owns; set once, when there is a cluster. */
  mirror: Mirror | null = null
  readonly #messages = new Map<MessageId, Message>()
  readonly #copies = new Map<MessageId, Message>()
  /** Copies whose COMMIT is on its way to the disk. */
  readonly #keeping = new Map<MessageId, Message>()
  /** Own ones that are final, whose holders are still to forget them. */
  readonly #owed = new Map<MessageId, Message>()
  readonly #holderNotes = new HolderNotes()
  /** Copies that ended here lately, the oldest first; in memory, since there is one for every mail. */
  readonly #forgotten = new Map<MessageId, Fate>()
  readonly #keptListeners: ((copy: Message) => void)[] = []
  readonly #ownedListeners: ((messages: readonly Message[]) => void)[] = []
  #bodies = 0
  #cachedBytes = 0
  /** States that the spool knew at the start, also of messages that were final. */
  #replayed = new Map<MessageId, readonly RecipientState[]>()

  constructor(spool: Spool, deps: QueueDeps) {
    this.#spool = spool
    this.#deps = deps
    this.node = deps.node
    this.#records = new MessageRecords(spool, deps.clock)
    const compaction = new Compaction(
      spool,
      this.#records,
      {
        node: this.node,
        all: () => this.#all(),
        isHere: (message) => this.#current(message.id) === message,
        isOwed: (message) => this.#owed.get(message.id) === message,
        draft: (id, type) => this.#newDraft(id, type),
      },
      deps.clock,
    )
    spool.onPressure = () => void compaction.run()
    spool.beforeLazySync = () => this.#writeHolderNotes()
  }

  /** Own messages. */
  get size(): number {
    return this.#messages.size
  }

  get copyCount(): number {
    return this.#copies.size
  }

  get(id: MessageId): Message | null {
    return this.#messages.get(id) ?? null
  }

  copy(id: MessageId): Message | null {
    return this.#copies.get(id) ?? null
  }

  /** In the order in which they came here; what was taken over stands at the end. */
  messages(): IterableIterator<Message> {
    return this.#messages.values()
  }

  copies(): IterableIterator<Message> {
    return this.#copies.values()
  }

  owed(): IterableIterator<Message> {
    return this.#owed.values()
  }

  /**
   * What the spool knew of a recipient at the start; null when it knew nothing. Only until
   * `forgetReplayed`: for work that a crash cut off.
   */
  replayedState(id: MessageId, index: number): RecipientState | null {
    return this.#replayed.get(id)?.[index] ?? null
  }

  forgetReplayed(): void {
    this.#replayed.clear()
  }

  /** It is here, its own or as a copy, or it was and somebody may still ask. @throws StoreError */
  knows(id: MessageId): boolean {
    return this.#current(id) !== null || this.#replayed.has(id) || this.fate(id) !== null
  }

  /** True while one more message of `sizeBytes` may come. */
  hasRoom(sizeBytes: number): boolean {
    return this.#messages.size < QUEUE_MESSAGES_MAX && this.#spool.hasRoom(sizeBytes)
  }

  hasRoomForCopy(sizeBytes: number): boolean {
    const known = this.#messages.size + this.#owed.size + this.#copies.size + this.#keeping.size
    return known < QUEUE_MESSAGES_MAX && this.#spool.hasRoom(sizeBytes, COPY_RESERVE)
  }

  // Mail of its own: draft, commit, marks, settle.

  draft(id: MessageId): Draft {
    const copying = this.mirror?.begin(id) ?? null
    return new Draft(id, this.#spool, { type: RECORD.accept, body: 0, copying })
  }

  /**
   * The moment of responsibility: writes the COMMIT, and resolves when body and COMMIT are
   * durable here and, as far as there is anybody, on another node. `bytes`: the whole body, kept in
   * memory for the first attempt if there is room.
   * @throws StoreError when they are not; nothing is queued then. AloneError: for want of a copy
   */
  async commit(draft: Draft, given: NewCommit, bytes: Uint8Array | null): Promise<Message> {
    const { id } = draft
    // Nobody took a copy when it began; somebody may by now.
    draft.copying ??= this.mirror?.begin(id) ?? null
    const { copying } = draft
    const before = this.#current(id)
    const message = this.#newMessage(draft, given, before)
    const record = draft.commit(Buffer.from(JSON.stringify(commitOf(message, 0))))
    this.#holderNotes.forget(id)
    const told = commitOf(message, this.#deps.clock.wallMs())
    const copied = copying?.commit(told, () => bodyOf(draft, bytes))
    let outcome: Copied = ALONE
    try {
      await this.#spool.synced()
      record.place()
      for (const piece of draft.records) piece.place()
      if (copied !== undefined) outcome = await copied
      // Nobody waits for the answer to a notification or a release: those are ours already.
      const isOurs = given.dsn || given.heldMoved
      if (outcome.kind === 'alone') this.#missed(id, outcome.why, isOurs)
    } catch (error) {
      // The client is told 451: should the record survive all the same, this takes it back.
      await this.#records.takeBack(draft, record)
      throw error
    }
    this.#records.settleIn(message, draft.give(), record)
    this.#records.noteCommit(message, record)
    if (before !== null) {
      message.commits = [...message.commits, ...before.commits]
      this.#replace(before)
    }
    this.#messages.set(id, message)
    if (copying !== null) await this.#noteHolders(message, copying.holders, outcome)
    if (bytes !== null && this.#cachedBytes + bytes.length <= CACHE_BYTES_MAX) {
      message.cached = bytes
      this.#cachedBytes += bytes.length
    } else message.rest()
    return message
  }

  /** Adds a mark. It is in order with all others, not yet durable. @throws StoreError */
  mark(
    kind: MarkKind,
    message: Message,
    indexes: readonly number[],
    rest: Omit<MarkPayload, 'r'> = {},
  ): void {
    if (kind === 'defer') message.rest()
    const payload: MarkPayload = { r: indexes, ...rest }
    this.#records.append(message, RECORD[kind], payload, kind !== 'try')
    for (const index of indexes) message.noteMark(kind, index)
    // That the bytes are in the quarantine here says nothing about another node.
    if (this.mirror === null || kind === 'hold') return
    if (message.holders.size === 0) return
    this.mirror.marked(message)
  }

  /** A body of this queue in chunks of at most PIECE_BYTES. @throws StoreError when bytes are missing */
  read(body: Body): AsyncGenerator<Uint8Array> {
    return readBody(body, this.#spool.disk)
  }

  /** Resolves when all pieces and marks so far are in the files. @throws StoreError */
  written(): Promise<void> {
    return this.#spool.written()
  }

  /** Resolves when all marks so far are durable. @throws StoreError */
  synced(): Promise<void> {
    return this.#spool.synced()
  }

  /** Forgets the message when nothing is left to do. */
  settle(message: Message): void {
    if (
      message.cached !== null &&
      message.recipients.every(({ state }) => state !== 'queued' && state !== 'trying')
    ) {
      this.uncache(message)
    }
    if (this.#copies.get(message.id) === message) return this.#settleCopy(message)
    if (!message.isFinal || this.#messages.get(message.id) !== message) return
    this.#messages.delete(message.id)
    if (message.holders.size === 0) {
      this.mirror?.settled(message)
      return this.#end(message)
    }
    this.uncache(message)
    this.#owed.set(message.id, message)
    // Never before: who forgets its copy on our word must not be the last one who knew. The body
    // stays as long: without its marks the COMMIT would need it.
    this.#spool.afterSync(() => {
      if (this.#owed.get(message.id) !== message) return
      this.#records.letGo(message, 'body')
      this.mirror?.settled(message)
    })
  }

  uncache(message: Message): void {
    if (message.cached === null) return
    this.#cachedBytes -= message.cached.length
    message.cached = null
  }

  // Copies of others.

  draftCopy(id: MessageId): CopyDraft {
    return this.#newDraft(id, RECORD.copy)
  }

  async keep(draft: CopyDraft, given: Commit): Promise<Message> {
    assert(draft instanceof Draft, 'a draft of this queue')
    const { id } = draft
    draft.finish()
    const refusal = this.#refusal(draft, given)
    if (refusal !== null) {
      draft.abort()
      throw new StoreError(`The copy of ${id} is not taken: ${refusal}.`, { remedy: 'give-up' })
    }
    const nowMs = this.#deps.clock.wallMs()
    const recipients = given.recipients.map((recipient) => shifted(recipient, nowMs))
    let copy = new Message(id, { ...given, pieces: draft.records.length, recipients })
    const before = this.#copies.get(id) ?? null
    if (before !== null) {
      // What is known already stands in the new COMMIT: the records that say so will go.
      joinStates(copy, before)
      copy = new Message(id, {
        ...copy.commit,
        heldMoved: copy.heldMoved,
        recipients: copy.recipients,
      })
      copy.commits = before.commits
    }
    const record = draft.commit(Buffer.from(JSON.stringify(commitOf(copy, 0))))
    this.#holderNotes.forget(id)
    // What the owner says next may come before the sync has ended.
    this.#keeping.set(id, copy)
    this.#records.noteCommit(copy, record)
    try {
      await this.#spool.synced()
      record.place()
      for (const piece of draft.records) piece.place()
      if (this.#messages.has(id)) throw new StoreError(`${id} is ours`, { remedy: 'give-up' })
    } catch (error) {
      await this.#records.takeBack(draft, record)
      throw error
    } finally {
      this.#keeping.delete(id)
      const old = this.#copies.get(id)
      if (old !== undefined) this.#settleCopy(old)
    }
    this.#records.settleIn(copy, draft.give(), record)
    const replaced = this.#copies.get(id) ?? null
    if (replaced !== null) {
      copy.heldMoved ||= replaced.heldMoved
      this.#replace(replaced)
    }
    this.#copies.set(id, copy)
    for (const tell of this.#keptListeners) tell(copy)
    copy.rest()
    this.#settleCopy(copy)
    return copy
  }

  markCopy(id: MessageId, kind: MarkKind, payload: MarkPayload): void {
    if (kind === 'hold' || kind === 'discard') return
    const { in: inMs, ...rest } = payload
    const mark = inMs === undefined ? rest : { ...rest, at: this.#deps.clock.wallMs() + inMs }
    const [copy, ...before] = this.#heard(id)
    if (copy !== undefined) {
      this.#records.append(copy, RECORD[kind], mark)
      for (const one of [copy, ...before]) applyMark(one, kind, mark)
      return
    }
    const own = this.#messages.get(id)
    if (own !== undefined) this.#hearFormer(own, kind, mark)
  }

  forgetCopy(id: MessageId): void {
    const [copy, ...before] = this.#heard(id)
    if (copy === undefined || copy.isDiscarded) return
    this.#records.append(copy, RECORD.discard, null)
    for (const one of [copy, ...before]) applyMark(one, 'discard', { r: [] })
    if (!this.#keeping.has(id)) this.#settleCopy(copy)
  }

  onKept(listener: (copy: Message) => void): void {
    this.#keptListeners.push(listener)
    for (const copy of this.#copies.values()) listener(copy)
  }

  // Holders and owners.

  setHolder(message: Message, node: NodeId, state: HolderState | null): void {
    if (this.#current(message.id) !== message) return
    const known = message.holders.get(node) ?? null
    if (known === state) return
    if (state === null) message.holders.delete(node)
    else message.holders.set(node, state)
    // Who stands in the list already: a restart that knows no more hears it when the link opens, or
    // asks once more to forget.
    const isLazy =
      state === 'kept' ? known === 'sent' : state === null && this.#owed.has(message.id)
    if (isLazy) {
      this.#holderNotes.add(message, node, state)
      this.#spool.syncSoon()
    } else if (state !== 'discarding') {
      // That all is final says it already: a restart asks every holder to forget.
      this.#records.append(message, RECORD.holders, { node, state } satisfies HolderPayload)
    }
    if (message.holders.size > 0 || !this.#owed.delete(message.id)) return
    this.#end(message)
  }

  async adopt(
    taken: readonly { readonly id: MessageId; readonly term: number }[],
  ): Promise<readonly Message[]> {
    const adopted: Message[] = []
    for (const { id, term } of taken) {
      const copy = this.#copies.get(id)
      if (copy === undefined || copy.isDiscarded || term <= copy.term) continue
      this.#entitle(copy, RECORD.adopt, { term, owner: this.node })
      doubt(copy, this.#deps.clock.wallMs())
      this.#copies.delete(id)
      this.#messages.set(id, copy)
      adopted.push(copy)
    }
    if (adopted.length === 0) return adopted
    await this.#spool.synced()
    const kept = adopted.filter((message) => this.#messages.get(message.id) === message)
    for (const message of kept) this.settle(message)
    for (const tell of this.#ownedListeners) tell(kept)
    return kept
  }

  /** Called with copies that have become own messages, durably: they are to be delivered. */
  onOwned(listener: (messages: readonly Message[]) => void): void {
    this.#ownedListeners.push(listener)
  }

  async handOver(message: Message, to: NodeId, term: number): Promise<void> {
    const { id } = message
    const isOwn = this.#messages.get(id) === message || this.#owed.get(id) === message
    if (!isOwn || to === this.node || !isAbove({ term, owner: to }, message)) return
    this.#entitle(message, RECORD.xfer, { term, owner: to })
    this.uncache(message)
    this.#messages.delete(id)
    this.#owed.delete(id)
    if (message.isFinal) this.#end(message)
    else this.#copies.set(id, message)
    await this.#spool.synced()
  }

  setOwner(id: MessageId, owner: NodeId, term: number): void {
    const title = { term, owner }
    const [copy, ...before] = this.#heard(id)
    if (copy === undefined || owner === this.node || !isAbove(title, copy)) return
    this.#entitle(copy, RECORD.adopt, title)
    for (const one of before) changeOwner(one, title)
    this.#spool.syncSoon()
  }

  fate(id: MessageId): Fate | null {
    const owed = this.#owed.get(id)
    if (owed !== undefined) return fateOf(owed)
    if (this.#current(id) !== null) return null
    return this.#deps.fates?.get(id) ?? this.#forgotten.get(id) ?? null
  }

  // Inside.

  #current(id: MessageId): Message | null {
    return this.#messages.get(id) ?? this.#owed.get(id) ?? this.#copies.get(id) ?? null
  }

  /** Who hears what is said of a copy: the one that is being kept, then the one that it replaces. */
  #heard(id: MessageId): readonly Message[] {
    return [this.#keeping.get(id) ?? [], this.#copies.get(id) ?? []].flat()
  }

  #newDraft(id: MessageId, type: typeof RECORD.accept | typeof RECORD.copy): Draft {
    this.#bodies = (this.#bodies % (BODIES_MAX - 1)) + 1
    return new Draft(id, this.#spool, { type, body: this.#bodies, copying: null })
  }

  /** What was known of it before, a release in most cases, is in its COMMIT. */
  #newMessage(draft: Draft, given: NewCommit, before: Message | null): Message {
    const { id, copying, records } = draft
    const past: Title | null = before ?? (given.heldMoved ? this.fate(id) : null)
    const least = past === null ? 1 : past.owner === this.node ? past.term : past.term + 1
    const fresh: Commit = {
      ...given,
      owner: this.node,
      term: Math.max(given.term ?? 1, least),
      holders: copying?.holders ?? NOBODY,
      pieces: records.length,
    }
    const message = new Message(id, fresh)
    if (before === null) return message
    joinStates(message, before)
    const others = [...before.holders.keys(), before.owner].filter((node) => node !== this.node)
    const holders = [...new Set([...fresh.holders, ...others])]
    return new Message(id, { ...fresh, holders, recipients: message.recipients })
  }

  /** Who is not in the COMMIT must not be forgotten: it might deliver one day. */
  async #noteHolders(message: Message, nodes: readonly NodeId[], outcome: Copied): Promise<void> {
    const late = nodes.filter((node) => !message.holders.has(node))
    for (const node of late) this.setHolder(message, node, 'sent')
    if (outcome.kind === 'kept') this.setHolder(message, outcome.by, 'kept')
    if (late.length > 0) await this.#spool.synced()
  }

  /** @throws AloneError where that is not enough */
  #missed(id: MessageId, why: string, isOurs: boolean): void {
    const rule = this.#deps.copies?.() ?? 'none'
    if (rule === 'require' && !isOurs) {
      throw new AloneError(`No other node has a copy of ${id}: ${why}.`, { remedy: 'retry' })
    }
    if (rule !== 'none' && this.mirror !== null) {
      this.#deps.observer.emit('copy.missed', { message: id, cause: why })
    }
  }

  /** Why a copy is not taken; null: it is. */
  #refusal(draft: Draft, given: Commit): string | null {
    const { id, records } = draft
    const stored = records.reduce((sum, { length }) => sum + length, 0)
    if (stored !== given.sizeBytes) return `it has ${stored} of ${given.sizeBytes} bytes`
    if (given.owner === this.node) return 'it is said to be ours'
    if (this.#messages.has(id) || this.#owed.has(id)) return 'this node owns it'
    if (this.#keeping.has(id)) return 'another one is being kept'
    const known: Title | null = this.#copies.get(id) ?? this.fate(id)
    if (known !== null && isAbove(known, given)) return `term ${known.term} of it is known`
    return null
  }

  /** A node that owned it before has tried it too: what is done is done. */
  #hearFormer(own: Message, kind: MarkKind, mark: MarkPayload): void {
    if (kind !== 'done' && kind !== 'try') return
    const places = mark.r.filter((place) => {
      const recipient = own.recipients[place]
      if (recipient === undefined || recipient.state === 'done') return false
      return kind === 'done' || !recipient.doubtful
    })
    if (places.length === 0) return
    if (kind === 'done') {
      this.mark('done', own, places, mark.reply === undefined ? {} : { reply: mark.reply })
      applyMark(own, 'done', { ...mark, r: places })
      for (const place of places) own.noteTold(place)
      return this.settle(own)
    }
    // As if it had been tried here: a restart finds it in doubt.
    this.#records.append(own, RECORD.try, { r: places })
    for (const place of places) {
      const recipient = own.recipients[place]
      if (recipient !== undefined) recipient.doubtful = true
    }
  }

  /** What is final is asked for in any case: who kept it need not be known. @throws StoreError */
  #writeHolderNotes(): void {
    const isWanted = (message: Message, state: HolderState | null): boolean => {
      const known = this.#current(message.id)
      if (state === null) return known === null || known === message
      return known === message && !this.#owed.has(message.id)
    }
    for (const { node, state, messages } of this.#holderNotes.take(isWanted)) {
      const payload: HoldingsPayload = { node, state, ids: messages.map(({ id }) => id) }
      this.#records.appendAbout(messages, RECORD.holdings, payload)
    }
  }

  #entitle(message: Message, type: RecordType, title: TitlePayload): void {
    this.#records.append(message, type, title, false)
    changeOwner(message, title)
  }

  #settleCopy(copy: Message): void {
    if (!copy.isOver) return
    this.#copies.delete(copy.id)
    this.#end(copy)
  }

  /** Nothing is left to do for it here; who may still ask is answered from a table. */
  #end(message: Message): void {
    this.uncache(message)
    const { fates } = this.#deps
    if ((message.term > 1 || message.mayBeElsewhere) && fates !== undefined) {
      fates.add(fateOf(message), () => this.#records.letGo(message, 'all'))
    } else this.#records.letGo(message, 'all')
    if (message.term === 1 && message.owner !== this.node) this.#remember(message)
  }

  /** Its owner may come back on an older disk, which says that it still waits. */
  #remember(message: Message): void {
    this.#forgotten.set(message.id, fateOf(message))
    const [oldest] = this.#forgotten.keys()
    if (this.#forgotten.size > FORGOTTEN_MAX && oldest !== undefined) this.#forgotten.delete(oldest)
  }

  #replace(before: Message): void {
    this.uncache(before)
    this.#messages.delete(before.id)
    this.#owed.delete(before.id)
    this.#copies.delete(before.id)
    this.#records.letGo(before, 'all')
  }

  *#all(): Generator<Message> {
    yield* this.#messages.values()
    yield* this.#owed.values()
    yield* this.#copies.values()
  }

  /** Reads what survived, and starts the spool. @throws StoreError */
  static async open(
    options: Parameters<typeof Spool.open>[0],
    deps: QueueDeps,
  ): Promise<{ readonly queue: Queue; readonly spool: Spool }> {
    const rebuild = new Rebuild(deps.node)
    const spool = await Spool.open(options, (record) => rebuild.take(record))
    const queue = new Queue(spool, deps)
    queue.#replayed = rebuild.states()
    for (const { message, pieces, place, isWhole } of rebuild.finish()) {
      const isOwn = message.owner === deps.node
      if (isOwn) doubt(message, deps.clock.wallMs())
      const isOver = isOwn ? message.isFinal : message.isOver || !isWhole
      const isOwed = isOwn && isOver && message.holders.size > 0
      // Most of what a spool knows at a restart is over, and nobody will ask.
      if (isOver && !isOwed && message.term === 1) continue
      message.place = place
      spool.retain(place.segment, place.length)
      if (isOwed) queue.#owed.set(message.id, message)
      else if (isOver) queue.#end(message)
      else {
        message.pieces = pieces
        for (const { segment, length } of pieces) spool.retain(segment, length)
        const map = isOwn ? queue.#messages : queue.#copies
        map.set(message.id, message)
      }
    }
    for (const [segment, guarded] of rebuild.guards) {
      for (const commit of guarded) spool.guard(segment, commit)
    }
    await spool.start()
    // A process that was killed left marks in the page cache: nobody is told of them before they
    // are durable, or a power cut takes back what others have acted on.
    await spool.synced()
    return { queue, spool }
  }
}

function bodyOf(draft: Draft, bytes: Uint8Array | null): Promise<Body> {
  return bytes === null ? draft.body() : Promise.resolve({ kind: 'memory', bytes })
}

function fateOf({ id, term, owner, recipients, told }: Message): Fate {
  const states = recipients.map(({ state }) => state)
  return { id, term, owner, states, sure: states.map((_, index) => !told.has(index)) }
}

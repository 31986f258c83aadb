/**
 * What holders are told of own messages after the COMMIT: how their recipients stand, who else
 * holds them, that they are done. In batches of at most 200 ms, and again until it is acknowledged,
 * over lost links and restarts. Told is how a message stands then, so what is overtaken is never
 * said; of one that is done nothing but that.
 */
import type { Clock, Timer } from '../base/clock.ts'
import { messageOf, StoreError } from '../base/errors.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CopyStore } from '../store/copies.ts'
import type {
  HolderState,
  MarkKind,
  MarkPayload,
  Message,
  QueuedRecipient,
} from '../store/queued.ts'
import type { CopyLine, CopyLines } from './copy-lines.ts'
import type { Holding, Mark, Named } from './copy-wire.ts'

const TELL_MS = 200
/** Batches on their way to one peer; each waits for a sync there. */
const BATCHES_MAX = 4
const BATCH_MARKS = 2_000
const BATCH_INDEXES = 20_000
const BATCH_NAMES = 5_000
const BATCH_HOLDINGS = 1_000
/** Replies of next hops are longer only when somebody means harm. */
const REPLY_CHARS_MAX = 512

/** `message` null: its COMMIT failed here, and perhaps not there. */
type Owed = { readonly term: number; readonly message: Message | null; isUnderWay: boolean }
type Batch = {
  readonly number: number
  readonly news: readonly Message[]
  readonly holders: readonly Message[]
  readonly owed: readonly (readonly [MessageId, Owed])[]
}

type TellingEntry =
  | { readonly kind: 'marks'; readonly marks: readonly Mark[] }
  | { readonly kind: 'holders'; readonly holdings: readonly Holding[] }
  | { readonly kind: 'discard'; readonly names: readonly Named[] }

/** What one peer has not yet acknowledged. */
type Debt = {
  /** Messages that stand otherwise than it was told. */
  readonly news: Map<MessageId, Message>
  readonly holders: Map<MessageId, Message>
  readonly owed: Map<MessageId, Owed>
  batches: Batch[]
  lastNumber: number
}

export type TellingsDeps = {
  readonly clock: Clock
  readonly observer: Observer
  /** It left or was removed: it is told nothing any more. */
  readonly isGone: (node: NodeId) => boolean
}

export class Tellings {
  readonly #store: CopyStore
  readonly #lines: CopyLines
  readonly #clock: Clock
  readonly #observer: Observer
  readonly #isGone: TellingsDeps['isGone']
  readonly #debts = new Map<NodeId, Debt>()
  #timer: Timer | null = null
  #isClosed = false

  constructor(store: CopyStore, lines: CopyLines, deps: TellingsDeps) {
    this.#store = store
    this.#lines = lines
    this.#clock = deps.clock
    this.#observer = deps.observer
    this.#isGone = deps.isGone
    for (const message of store.messages()) this.#resume(message)
    for (const message of [...store.owed()]) this.settled(message)
    lines.listen({
      opened: (line) => this.#tell(line),
      said: (line, entry) => {
        if (entry.kind === 'told') this.#told(line, entry.number)
      },
      closed: (line) => this.#lost(line.peer),
    })
  }

  close(): void {
    this.#isClosed = true
    this.#timer?.cancel()
  }

  marked(message: Message): void {
    if (message.owner !== this.#store.node) {
      // It was handed over while an attempt ran.
      this.anew(message, message.owner)
    } else {
      for (const [node, state] of message.holders) {
        if (state !== 'discarding') this.anew(message, node)
      }
    }
  }

  /** `node` is to hear how it stands. */
  anew(message: Message, node: NodeId): void {
    this.#debt(node).news.set(message.id, message)
    this.#soon()
  }

  /** Others hold it than before. */
  heldOtherwise(message: Message): void {
    for (const [node, state] of message.holders) {
      if (state === 'kept') this.#debt(node).holders.set(message.id, message)
    }
    this.#soon()
  }

  settled(message: Message): void {
    for (const [node, state] of [...message.holders]) {
      // Also where it was taken over from that one, and was done already.
      if (this.#isGone(node)) {
        this.forget(message, node)
        continue
      }
      if (state !== 'discarding') this.setHolder(message, node, 'discarding')
      this.#owe(node, message.id, message.term, message)
    }
  }

  /** A COMMIT that may be durable there is void. */
  discard(node: NodeId, id: MessageId, term: number): void {
    if (!this.#isGone(node)) this.#owe(node, id, term, null)
  }

  /**
   * The message comes to life again (a release): a DISCARD would take the new copy. Gives those who
   * were to forget it, and so may have something of it.
   */
  supersede(id: MessageId): readonly NodeId[] {
    const nodes: NodeId[] = []
    for (const [node, { owed }] of this.#debts) if (owed.delete(id)) nodes.push(node)
    return nodes
  }

  /** The node was removed: it holds nothing and is owed nothing. */
  forget(message: Message, node: NodeId): void {
    const debt = this.#debts.get(node)
    for (const names of [debt?.news, debt?.holders, debt?.owed]) names?.delete(message.id)
    message.mayBeElsewhere = true
    this.setHolder(message, node, null)
  }

  /** As the store does, which a spool that failed does not do: the process ends for that elsewhere. */
  setHolder(message: Message, node: NodeId, state: HolderState | null): void {
    try {
      this.#store.setHolder(message, node, state)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      this.#observer.emit('store.failed', { message: message.id, cause: messageOf(error) })
    }
  }

  /** After a restart nobody knows what was told before it. */
  #resume(message: Message): void {
    if (message.recipients.every(isFresh)) return
    for (const node of message.holders.keys()) this.anew(message, node)
  }

  #owe(node: NodeId, id: MessageId, term: number, message: Message | null): void {
    const { news, holders, owed } = this.#debt(node)
    news.delete(id)
    holders.delete(id)
    if (message === null && owed.has(id)) return
    owed.set(id, { term, message, isUnderWay: false })
    this.#soon()
  }

  #debt(node: NodeId): Debt {
    let debt = this.#debts.get(node)
    if (debt === undefined) {
      debt = { news: new Map(), holders: new Map(), owed: new Map(), batches: [], lastNumber: 0 }
      this.#debts.set(node, debt)
    }
    return debt
  }

  #soon(): void {
    if (this.#isClosed) return
    this.#timer ??= this.#clock.after(TELL_MS, () => {
      this.#timer = null
      for (const node of this.#debts.keys()) {
        const line = this.#lines.get(node)
        if (line !== null) this.#tell(line)
      }
    })
  }

  #tell(line: CopyLine): void {
    const debt = this.#debts.get(line.peer)
    if (debt === undefined || this.#isClosed) return
    while (debt.batches.length < BATCHES_MAX && line.hasRoom) {
      const batch = this.#batch(debt, line)
      if (batch === null) return
      debt.batches.push(batch)
    }
  }

  /** Says the next batch; null: there is nothing to say. */
  #batch(debt: Debt, line: CopyLine): Batch | null {
    const number = debt.lastNumber + 1
    const { news, marks } = this.#takeNews(debt, line.peer)
    const { holders, holdings } = this.#takeHolders(debt)
    const owed: (readonly [MessageId, Owed])[] = []
    const names: Named[] = []
    for (const [id, debit] of debt.owed) {
      if (owed.length >= BATCH_NAMES) break
      if (debit.isUnderWay) continue
      if (this.#store.get(id) !== null) {
        debt.owed.delete(id)
        continue
      }
      debit.isUnderWay = true
      owed.push([id, debit])
      names.push({ id, term: debit.term })
    }
    const entries: TellingEntry[] = [
      ...(marks.length > 0 ? [{ kind: 'marks', marks } as const] : []),
      ...(holdings.length > 0 ? [{ kind: 'holders', holdings } as const] : []),
      ...(names.length > 0 ? [{ kind: 'discard', names } as const] : []),
    ]
    // Each entry may be answered by itself: only the last one says that the batch is complete.
    for (const [at, entry] of entries.entries()) {
      line.put({ ...entry, number: at + 1 < entries.length ? number - 1 : number })
    }
    if (entries.length === 0) return null
    debt.lastNumber = number
    return { number, news, holders, owed }
  }

  #takeNews(debt: Debt, node: NodeId): { readonly news: Message[]; readonly marks: Mark[] } {
    const news: Message[] = []
    const marks: Mark[] = []
    let indexes = 0
    for (const [id, message] of debt.news) {
      if (marks.length >= BATCH_MARKS || indexes >= BATCH_INDEXES) break
      debt.news.delete(id)
      // Who owns it now tells the others of it.
      if (message.owner !== this.#store.node && message.owner !== node) continue
      news.push(message)
      for (const { kind, payload } of marksOf(message, this.#clock.wallMs())) {
        marks.push({ id, term: message.term, kind, payload })
        indexes += payload.r.length
      }
    }
    return { news, marks }
  }

  #takeHolders(debt: Debt): { readonly holders: Message[]; readonly holdings: Holding[] } {
    const holders: Message[] = []
    const holdings: Holding[] = []
    for (const [id, message] of debt.holders) {
      if (holders.length >= BATCH_HOLDINGS) break
      debt.holders.delete(id)
      if (message.owner !== this.#store.node) continue
      holders.push(message)
      holdings.push({ id, term: message.term, holders: [...message.holders] })
    }
    return { holders, holdings }
  }

  #told(line: CopyLine, number: number): void {
    const debt = this.#debts.get(line.peer)
    if (debt === undefined) return
    while (debt.batches[0] !== undefined && debt.batches[0].number <= number) {
      for (const [id, debit] of debt.batches.shift()?.owed ?? []) {
        // It came to life again meanwhile, or is owed anew.
        if (debt.owed.get(id) !== debit) continue
        debt.owed.delete(id)
        if (debit.message !== null) this.setHolder(debit.message, line.peer, null)
      }
    }
    this.#tell(line)
  }

  /** Nobody knows what of it arrived. */
  #lost(node: NodeId): void {
    const debt = this.#debts.get(node)
    if (debt === undefined) return
    for (const { news, holders, owed } of debt.batches) {
      for (const message of news) {
        const { id } = message
        if (this.#store.get(id) !== message && this.#store.copy(id) !== message) continue
        debt.news.set(message.id, message)
      }
      for (const message of holders) {
        if (this.#store.get(message.id) === message) debt.holders.set(message.id, message)
      }
      for (const [, debit] of owed) debit.isUnderWay = false
    }
    debt.batches = []
  }
}

function isFresh({ state, attempts }: QueuedRecipient): boolean {
  return (state === 'queued' || state === 'held') && attempts === 0
}

/** What brings a copy to where the message is; recipients that stand alike share one mark. */
function marksOf(
  message: Message,
  nowMs: number,
): readonly { readonly kind: MarkKind; readonly payload: MarkPayload }[] {
  const alike = new Map<string, { kind: MarkKind; r: number[]; rest: Omit<MarkPayload, 'r'> }>()
  const tries: number[] = []
  const add = (index: number, kind: MarkKind, rest: Omit<MarkPayload, 'r'>): void => {
    const key = `${kind} ${JSON.stringify(rest)}`
    const known = alike.get(key)
    if (known === undefined) alike.set(key, { kind, r: [index], rest })
    else known.r.push(index)
  }
  message.recipients.forEach((recipient, index) => {
    const { state, attempts, nextTryMs, lastReply, doubtful, warned } = recipient
    const said = lastReply === null ? {} : { reply: lastReply.slice(0, REPLY_CHARS_MAX) }
    if (state === 'done') add(index, 'done', said)
    else if (state === 'failed' || state === 'dropped') add(index, 'fail', said)
    else if (state !== 'held' && (state !== 'queued' || attempts > 0 || warned)) {
      if (attempts > 0 || doubtful || warned || state !== 'trying') {
        add(index, 'defer', {
          ...said,
          // Wall clocks differ.
          in: Math.max(0, nextTryMs - nowMs),
          attempts,
          doubt: doubtful,
          ...(warned ? { warned } : {}),
        })
      }
      // What was refused before the dot, or by its reply, is in doubt for nobody.
      const isOut = state === 'trying' && message.tried.has(index)
      if (isOut || state === 'inDoubt') tries.push(index)
    }
  })
  const marks = [...alike.values()].map(({ kind, r, rest }) => ({ kind, payload: { r, ...rest } }))
  // Last: a DEFER of the same recipient would undo it.
  return tries.length === 0 ? marks : [...marks, { kind: 'try', payload: { r: tries } }]
}

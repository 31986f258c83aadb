/** What a queue says of its messages and copies, in memory: what is asked of it is durable a little later. */
import type { Clock } from '../src/base/clock.ts'
import { assert } from '../src/base/errors.ts'
import type { MessageId, NodeId } from '../src/base/ids.ts'
import type { CopyDraft, CopyStore, Fate } from '../src/store/copies.ts'
import {
  type Commit,
  type HolderState,
  isFinal,
  type MarkKind,
  type MarkPayload,
  Message,
} from '../src/store/queued.ts'
import { aCommit } from './commits.ts'

/** Plain ones of a simulated disk. */
const SYNC_MS = 2

export class MemoryCopies implements CopyStore {
  readonly node: NodeId
  readonly own = new Map<MessageId, Message>()
  readonly kept = new Map<MessageId, Message>()
  readonly fates = new Map<MessageId, Fate>()
  readonly debts = new Set<Message>()
  readonly #clock: Clock

  constructor(node: NodeId, clock: Clock) {
    this.node = node
    this.#clock = clock
  }

  /** An own message, and copies of it in `holders`. */
  accept(id: MessageId, recipients: number, ...holders: readonly MemoryCopies[]): Message {
    const message = new Message(id, commitOf(id, this.node, recipients))
    this.own.set(id, message)
    for (const holder of holders) holder.keepOf(message)
    return message
  }

  keepOf(message: Message): void {
    const copy = new Message(message.id, { ...message.commit, recipients: message.recipients })
    copy.owner = message.owner
    copy.term = message.term
    this.kept.set(message.id, copy)
    message.holders.set(this.node, 'kept')
  }

  /** All of it is final: it goes, its fate stays. */
  finish(message: Message): void {
    for (const recipient of message.recipients) recipient.state = 'done'
    const { id, term, owner } = message
    this.fates.set(id, { id, term, owner, states: message.recipients.map(({ state }) => state) })
    this.own.delete(id)
  }

  messages(): Iterable<Message> {
    return this.own.values()
  }

  get(id: MessageId): Message | null {
    return this.own.get(id) ?? null
  }

  copies(): Iterable<Message> {
    return this.kept.values()
  }

  copy(id: MessageId): Message | null {
    return this.kept.get(id) ?? null
  }

  get copyCount(): number {
    return this.kept.size
  }

  hasRoomForCopy(): boolean {
    return true
  }

  draftCopy(): CopyDraft {
    throw new Error('no bodies here')
  }

  read(): AsyncIterable<Uint8Array> {
    throw new Error('no bodies here')
  }

  written(): Promise<void> {
    throw new Error('no bodies here')
  }

  synced(): Promise<void> {
    return this.#synced()
  }

  keep(): Promise<Message> {
    throw new Error('no bodies here')
  }

  markCopy(id: MessageId, kind: MarkKind, payload: MarkPayload): void {
    const copy = this.kept.get(id)
    for (const index of payload.r) {
      const recipient = copy?.recipients[index]
      if (recipient === undefined || isFinal(recipient.state)) continue
      recipient.attempts = payload.attempts ?? recipient.attempts
      recipient.lastReply = payload.reply ?? recipient.lastReply
      recipient.warned ||= payload.warned === true
      if (kind === 'try') recipient.state = 'trying'
      if (kind === 'done') recipient.state = 'done'
      if (kind === 'fail') recipient.state = 'failed'
      if (kind !== 'defer') continue
      recipient.state = 'deferred'
      recipient.nextTryMs = payload.at ?? 0
      recipient.doubtful = payload.doubt === true
    }
  }

  forgetCopy(id: MessageId): void {
    this.kept.delete(id)
  }

  onKept(): void {}

  setHolder(message: Message, node: NodeId, state: HolderState | null): void {
    if (state === null) message.holders.delete(node)
    else message.holders.set(node, state)
  }

  owed(): Iterable<Message> {
    return this.debts
  }

  async adopt(
    taken: readonly { readonly id: MessageId; readonly term: number }[],
  ): Promise<readonly Message[]> {
    const adopted = taken.flatMap(({ id, term }) => {
      const copy = this.kept.get(id)
      if (copy === undefined || copy.term >= term) return []
      this.kept.delete(id)
      copy.owner = this.node
      copy.term = term
      copy.holders.delete(this.node)
      for (const recipient of copy.recipients) {
        if (recipient.state === 'trying') recipient.state = 'inDoubt'
      }
      return [copy]
    })
    await this.#synced()
    for (const message of adopted) this.own.set(message.id, message)
    return adopted
  }

  async handOver(message: Message, to: NodeId, term: number): Promise<void> {
    assert(this.own.get(message.id) === message, 'only what it owns')
    await this.#synced()
    this.own.delete(message.id)
    message.owner = to
    message.term = term
    this.kept.set(message.id, message)
  }

  setOwner(id: MessageId, owner: NodeId, term: number): void {
    const copy = this.kept.get(id)
    if (copy === undefined || copy.term >= term) return
    copy.owner = owner
    copy.term = term
  }

  fate(id: MessageId): Fate | null {
    return this.fates.get(id) ?? null
  }

  #synced(): Promise<void> {
    return new Promise((resolve) => this.#clock.after(SYNC_MS, resolve))
  }
}

export function commitOf(id: MessageId, owner: NodeId, recipients: number): Commit {
  const plain = aCommit(id, 100, recipients, 0)
  return { ...plain, owner, term: 1, holders: [], pieces: 1, expiresMs: 1e15 }
}

/**
 * What a node does with what others say of a message: final marks are applied, an attempt that may
 * have ended well is in doubt, and who has the lower title gives the message up, exactly that one
 * (design: mail.md, A dead node). An attempt that runs may end; what becomes of it is told to the
 * new owner.
 */
import type { Clock } from '../base/clock.ts'
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Observer } from '../base/observe.ts'
import type { CopyStore } from '../store/copies.ts'
import { isFinal, type MarkKind, type MarkPayload, type Message } from '../store/queued.ts'
import {
  outranks,
  ownStatesOf,
  type Standing,
  standingOf,
  type Title,
  titleOf,
} from './standing.ts'

/** The store as adoption uses it: the queue implements it. */
export type MailStore = CopyStore & {
  mark(
    kind: MarkKind,
    message: Message,
    indexes: readonly number[],
    rest?: Omit<MarkPayload, 'r'>,
  ): void
  /** Forgets it when nothing is left to do. */
  settle(message: Message): void
}

export type YieldDeps = {
  readonly store: MailStore
  readonly clock: Clock
  readonly observer: Observer
  /** The setting `queue.inDoubt`. */
  readonly inDoubtMs: () => number
  /** Plans of these messages are void: they may go on now, or are no longer this node's. */
  readonly replan: (messages: readonly Message[]) => void
  /** A message has another owner, who may be gone already. */
  readonly moved: () => void
}

export class Yields {
  readonly #deps: YieldDeps
  readonly #yielding = new Set<MessageId>()
  readonly #giving = new Map<MessageId, Promise<void>>()
  /** Given up, and the new owner has not yet been told what was done here. */
  readonly #ending = new Map<Message, Doing>()

  constructor(deps: YieldDeps) {
    this.#deps = deps
  }

  /** It is being given up: nothing begins any more. */
  isYielding(id: MessageId): boolean {
    return this.#yielding.has(id)
  }

  /** Resolves when what was said is durable as far as it must be. @throws StoreError */
  async take(said: Standing): Promise<void> {
    const { store, replan, moved } = this.#deps
    const own = store.get(said.id)
    if (own !== null) {
      const isOver = said.owner !== store.node && outranks(said, titleOf(own))
      // What was done here is to be told without what the other one knows.
      if (isOver && !this.#ending.has(own)) this.#ending.set(own, doingOf(own))
      this.merge(own, said.states)
      if (isOver) await this.#give(own, said)
      return
    }
    const copy = store.copy(said.id)
    if (copy === null) return
    for (const [kind, index] of marksOf(copy, said.states)) {
      store.markCopy(said.id, kind, { r: [index] })
    }
    if (!outranks(said, titleOf(copy))) return
    if (said.owner !== store.node) {
      store.setOwner(said.id, said.owner, said.term)
      return moved()
    }
    // This node took it over once, and its disk has forgotten that.
    replan(await store.adopt([{ id: said.id, term: said.term }]))
  }

  /**
   * Somebody else has a higher title to an own message: from this moment it may not act here.
   * @throws StoreError when that cannot be written down; it stays silent here all the same
   */
  #give(message: Message, { owner, term }: Title): Promise<void> {
    const { store, observer, replan, moved } = this.#deps
    const { id } = message
    const running = this.#giving.get(id)
    if (running !== undefined) return running
    if (!this.#yielding.has(id)) {
      this.#yielding.add(id)
      observer.emit('queue.yielded', { message: id, peer: owner, term })
    }
    const given = store
      .handOver(message, owner, term)
      .then(() => {
        this.#yielding.delete(id)
        replan([message])
        moved()
      })
      .finally(() => this.#giving.delete(id))
    this.#giving.set(id, given)
    return given
  }

  /** What another one knows of the recipients of an own message. */
  merge(message: Message, states: Standing['states']): void {
    const { store, clock, inDoubtMs, replan } = this.#deps
    let isNew = false
    for (const [kind, index] of marksOf(message, states)) {
      const recipient = message.recipients[index]
      if (recipient === undefined) continue
      store.mark(kind, message, [index])
      isNew = true
      if (kind !== 'try') message.noteTold(index)
      if (kind === 'done') recipient.state = 'done'
      else if (kind === 'fail') recipient.state = states[index] === 'dropped' ? 'dropped' : 'failed'
      else {
        recipient.state = 'inDoubt'
        recipient.doubtful = true
        recipient.nextTryMs = clock.wallMs() + inDoubtMs()
      }
    }
    if (!isNew) return
    store.settle(message)
    if (!message.isFinal) replan([message])
  }

  /**
   * Messages that were given up and whose last attempts have ended, once each. Who is told keeps
   * them until he has heard it. `isSure`: this node knows all that it did itself before its start;
   * until then only what is final or in doubt is told.
   */
  ended(isSure: boolean): readonly { readonly to: NodeId; readonly standing: Standing }[] {
    const ended: { to: NodeId; standing: Standing }[] = []
    const { store } = this.#deps
    for (const [message, { states: before, sure, open }] of [...this.#ending]) {
      if (open.some((index) => message.tried.has(index))) continue
      const states = before.map((state, index) =>
        open.includes(index) ? endOf(message, index) : state,
      )
      const hasMarks = states.some((state) => isFinal(state) || state === 'inDoubt')
      if (!hasMarks && !isSure) continue
      this.#ending.delete(message)
      const known = standingOf(store, message.id)
      // Back here by another adoption: there is nobody to tell.
      if (known === null || known.owner === store.node) continue
      const { id, owner, term } = known
      const isKnown = (is: boolean, index: number): boolean =>
        open.includes(index) ? states[index] === 'done' : is && (isSure || states[index] === 'done')
      const standing = { id, owner, term, kind: 'copy' as const, states, sure: sure.map(isKnown) }
      ended.push({ to: owner, standing })
    }
    return ended
  }
}

/** What was done here about the recipients of a message when it was given up. */
type Doing = {
  readonly states: Standing['states']
  readonly sure: readonly boolean[]
  /** Their dot was out, and no answer had come. */
  readonly open: readonly number[]
}

function doingOf(message: Message): Doing {
  const states = ownStatesOf(message)
  const isSure = (state: Standing['states'][number], index: number): boolean => {
    const isDoubtful = message.recipients[index]?.doubtful !== false
    if (message.told.has(index)) return false
    return state === 'done' || (!isDoubtful && state !== 'trying' && state !== 'inDoubt')
  }
  return { states, sure: states.map(isSure), open: [...message.tried] }
}

/** How an attempt ended; what the next owner did since says nothing of it. */
function endOf({ delivered, recipients }: Message, index: number): Standing['states'][number] {
  if (delivered.has(index)) return 'done'
  const { state, doubtful } = recipients[index] ?? { state: 'queued', doubtful: true }
  if (state === 'failed' || state === 'dropped') return state
  return doubtful ? 'inDoubt' : 'deferred'
}

/** What `states` say that the message does not know: its marks. */
function* marksOf(
  { recipients }: Message,
  states: Standing['states'],
): Generator<readonly ['done' | 'fail' | 'try', number]> {
  for (const [index, { state }] of recipients.entries()) {
    const theirs = states[index]
    if (theirs === undefined || isFinal(state) || state === 'held') continue
    if (theirs === 'done') yield ['done', index]
    else if (theirs === 'failed' || theirs === 'dropped') yield ['fail', index]
    else if (theirs !== 'trying' && theirs !== 'inDoubt') continue
    // What is tried here, or in doubt here too, is known to be so.
    else if (state === 'queued' || state === 'deferred') yield ['try', index]
  }
}

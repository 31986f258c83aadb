/** What waits, as lists show it: newest first, one pass over all without sorting them. */
import type { MessageId, NodeId } from '../../base/ids.ts'
import type { HolderRow, NodeName, QueueRow } from '../../message/rows.ts'
import type { CopyStore } from '../../store/copies.ts'
import { isFinal, type Message } from '../../store/queued.ts'

export type QueueQuery = {
  readonly limit: number
  readonly cursor: string | null
  /** Only mail of which no other node has said that its copy is durable. */
  readonly alone?: boolean
  /** Copies of what these nodes own, too. */
  readonly of?: readonly NodeId[]
}

export type QueuePart = {
  readonly rows: readonly QueueRow[]
  /** Before and after this page, too. */
  readonly total: number
  readonly cursor: MessageId | null
}

/** Something of it waits for delivery. */
export function isWaiting({ recipients }: Message): boolean {
  return recipients.some(({ state }) => !isFinal(state) && state !== 'held')
}

export class QueueList {
  readonly #queue: Pick<CopyStore, 'node' | 'messages' | 'copies' | 'copy'>
  readonly #row: (message: Message) => QueueRow | null
  readonly #nodeName: (node: NodeId) => NodeName

  constructor(deps: {
    readonly queue: Pick<CopyStore, 'node' | 'messages' | 'copies' | 'copy'>
    /** The row of one of them, as its owner gives it. */
    readonly row: (message: Message) => QueueRow | null
    readonly nodeName: (node: NodeId) => NodeName
  }) {
    this.#queue = deps.queue
    this.#row = deps.row
    this.#nodeName = deps.nodeName
  }

  rows({ limit, cursor, alone = false, of = [] }: QueueQuery): QueuePart {
    return pageOfQueue(this.#found(alone, of), (one) => this.#rowOf(one), limit, cursor)
  }

  copiesOf(owner: NodeId): number {
    let count = 0
    for (const copy of this.#queue.copies()) {
      if (copy.owner === owner && isWaiting(copy)) count += 1
    }
    return count
  }

  copyOne(id: MessageId): QueueRow | null {
    const copy = this.#queue.copy(id)
    return copy === null ? null : this.#rowOf(copy)
  }

  *#found(alone: boolean, of: readonly NodeId[]): Iterable<Message> {
    for (const message of this.#queue.messages()) {
      if (isWaiting(message) && !(alone && hasCopy(message))) yield message
    }
    // Whoever asks for those with one copy means what this node answers for.
    if (alone || of.length === 0) return
    for (const copy of this.#queue.copies()) {
      if (of.includes(copy.owner) && isWaiting(copy)) yield copy
    }
  }

  /** Of a copy only its owner says why it waits; that this node has it is known here. */
  #rowOf(message: Message): QueueRow | null {
    const row = this.#row(message)
    const { node } = this.#queue
    if (row === null || message.owner === node) return row
    const here: HolderRow = { node: this.#nodeName(node), state: 'kept' }
    const others = row.holders.filter((holder) => holder.node.id !== node)
    return { ...row, waits: null, holders: [here, ...others] }
  }
}

/** Some other node has said that its copy is durable. */
function hasCopy({ holders }: Message): boolean {
  for (const state of holders.values()) if (state === 'kept') return true
  return false
}

/** At most `limit` rows of those after `cursor`. */
function pageOfQueue(
  messages: Iterable<Message>,
  rowOf: (message: Message) => QueueRow | null,
  limit: number,
  cursor: string | null,
): QueuePart {
  let total = 0
  // The newest so far, oldest first: one more than the page shows whether it goes on.
  const newest: Message[] = []
  for (const message of messages) {
    total += 1
    const { id } = message
    if (cursor !== null && id >= cursor) continue
    const isFull = newest.length > limit
    if (isFull && id < (newest[0]?.id ?? id)) continue
    // Most come in their order: the place is nearly always the end.
    let at = newest.length
    while (at > 0 && id < (newest[at - 1]?.id ?? id)) at -= 1
    if (at === newest.length) newest.push(message)
    else newest.splice(at, 0, message)
    if (isFull) newest.shift()
  }
  const more = newest.length > limit
  const page = (more ? newest.slice(1) : newest).toReversed()
  return {
    rows: page.flatMap((message) => rowOf(message) ?? []),
    total,
    cursor: more ? (page.at(-1)?.id ?? null) : null,
  }
}

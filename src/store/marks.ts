/**
 * What a mark does to a message, and how two accounts of one message become one. Pure: the queue
 * and the replay of the spool use the same rules, so a restart knows what the process knew.
 */
import type { NodeId } from '../base/ids.ts'
import { shared } from '../base/memory.ts'
import type { RecipientState } from '../message/rows.ts'
import {
  isFinal,
  type MarkKind,
  type MarkPayload,
  type Message,
  type QueuedRecipient,
} from './queued.ts'

/** Who owns a message, since which change of owners. */
export type Title = { readonly term: number; readonly owner: NodeId }

/** True when `one` wins over `other`: the later term, of equal ones the higher node. */
export function isAbove(one: Title, other: Title): boolean {
  return one.term > other.term || (one.term === other.term && one.owner > other.owner)
}

/** The message has another owner; the one before has its bytes, perhaps. */
export function changeOwner(message: Message, { term, owner }: Title): void {
  message.holders.set(message.owner, 'sent')
  message.holders.delete(owner)
  message.owner = owner
  message.term = term
}

/** What was under way is in doubt from here on: tried again, never reported as failed. */
export function doubt(message: Message, nowMs: number): void {
  for (const recipient of message.recipients) {
    if (recipient.state !== 'trying') continue
    recipient.state = 'inDoubt'
    recipient.doubtful = true
    recipient.nextTryMs = nowMs
  }
}

/** What is final stays so; only DONE is stronger than a failure. */
export function applyMark(message: Message, kind: MarkKind, mark: MarkPayload): void {
  if (kind === 'discard') {
    message.isDiscarded = true
    return
  }
  if (kind === 'hold') {
    message.heldMoved = true
    return
  }
  for (const index of mark.r) {
    const recipient = message.recipients[index]
    if (recipient === undefined || recipient.state === 'done') continue
    if (isFinal(recipient.state) && kind !== 'done') continue
    if (mark.attempts !== undefined) recipient.attempts = mark.attempts
    if (mark.reply !== undefined) recipient.lastReply = shared(mark.reply)
    if (mark.warned === true) recipient.warned = true
    if (kind === 'try') recipient.state = 'trying'
    else if (kind === 'done') recipient.state = 'done'
    else if (kind === 'fail') recipient.state = 'failed'
    else {
      recipient.state = 'deferred'
      recipient.nextTryMs = mark.at ?? 0
      recipient.doubtful = mark.doubt === true
    }
  }
}

/** Later ones win. */
const ORDER: readonly RecipientState[] = [
  'held',
  'queued',
  'deferred',
  'inDoubt',
  'trying',
  'dropped',
  'failed',
  'done',
]

/**
 * Two accounts of one recipient as one: done wins over everything, then what else is final, then
 * who tried more often. A delivery that only one of them knows of may have arrived. A join:
 * commutative, associative, idempotent where what is being tried counts as doubtful.
 */
export function joined(one: QueuedRecipient, other: QueuedRecipient): QueuedRecipient {
  return {
    ...(compare(one, other) >= 0 ? one : other),
    doubtful: isDoubtful(one) || isDoubtful(other),
    warned: one.warned || other.warned,
  }
}

/** Takes over what `other` knows. */
export function joinStates(message: Message, other: Message): void {
  message.heldMoved ||= other.heldMoved
  for (const [index, recipient] of message.recipients.entries()) {
    const known = other.recipients[index]
    if (known !== undefined) Object.assign(recipient, joined(recipient, known))
  }
}

function isDoubtful({ doubtful, state }: QueuedRecipient): boolean {
  return doubtful || state === 'trying' || state === 'inDoubt'
}

function compare(one: QueuedRecipient, other: QueuedRecipient): number {
  return (
    weight(one) - weight(other) ||
    one.attempts - other.attempts ||
    ORDER.indexOf(one.state) - ORDER.indexOf(other.state) ||
    one.nextTryMs - other.nextTryMs ||
    compareText(one.lastReply, other.lastReply)
  )
}

function weight({ state }: QueuedRecipient): number {
  return state === 'done' ? 2 : isFinal(state) ? 1 : 0
}

function compareText(one: string | null, other: string | null): number {
  if (one === other) return 0
  if (one === null || other === null) return one === null ? -1 : 1
  return one < other ? -1 : 1
}

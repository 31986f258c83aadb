/** What is known of a held message beside its bytes, and what of it a peer may say. */
import { type MessageId, type NodeId, parseNodeId } from '../base/ids.ts'
import { fieldsOf } from '../base/raw.ts'
import type { Envelope } from '../message/envelope.ts'
import type { NewHeldRow } from '../message/rows.ts'
import type { Cut } from '../message/verdict.ts'
import { isFacts } from './held-row.ts'
import { isCuts } from './queued.ts'

export type HeldMail = {
  /** `recipients` are the addresses of `places`, in their order. */
  readonly row: NewHeldRow
  /** With every recipient of the message, the ones that are not held too. */
  readonly envelope: Envelope
  /** Indexes in `envelope.recipients` whose copy is held, ascending; at least one. */
  readonly places: readonly number[]
  /** Our own header lines, each with CRLF; they go out before the body. */
  readonly prepend: string
  /** As of its COMMIT. Left out: none. */
  readonly cuts?: readonly Cut[]
  /** Whose it was when this was written. Of before they say neither: this node's, 1. */
  readonly owner?: NodeId
  readonly term?: number
}

const TEXT_MAX = 20_000
/** Received, and what inspectors write before the message (message/verdict). */
const PREPEND_MAX = 100_000
const RECIPIENTS_MAX = 10_000
const RETS: readonly unknown[] = [null, 'FULL', 'HDRS']

/** Null: it is not the held message `id`. */
export function readHeldMail(text: string, id: MessageId): HeldMail | null {
  let raw: unknown
  try {
    raw = JSON.parse(text)
  } catch {
    return null
  }
  const { row, envelope, places, prepend, cuts, owner, term } = fieldsOf(raw)
  const { recipients } = fieldsOf(envelope)
  const isMail =
    isFacts(row) &&
    fieldsOf(row)['id'] === id &&
    isList(fieldsOf(row)['recipients'], isText) &&
    isEnvelope(envelope, id) &&
    isList(places, isPlace) &&
    isAscending(places as readonly number[], (recipients as readonly unknown[]).length) &&
    typeof prepend === 'string' &&
    prepend.length <= PREPEND_MAX &&
    (cuts === undefined || isCuts(cuts)) &&
    (owner === undefined || (typeof owner === 'string' && parseNodeId(owner) !== null)) &&
    (term === undefined || (isPlace(term) && term > 0))
  return isMail ? (raw as HeldMail) : null
}

function isEnvelope(raw: unknown, id: MessageId): boolean {
  const envelope = fieldsOf(raw)
  const { outbound, eightBit, smtpUtf8, ret, recipients } = envelope
  return (
    envelope['id'] === id &&
    ['clientIp', 'greeting', 'protocol', 'sender'].every((name) => isText(envelope[name])) &&
    ['tls', 'envid'].every((name) => envelope[name] === null || isText(envelope[name])) &&
    [outbound, eightBit, smtpUtf8].every((flag) => typeof flag === 'boolean') &&
    Number.isFinite(envelope['receivedMs']) &&
    RETS.includes(ret) &&
    isList(recipients, isRecipient)
  )
}

function isRecipient(raw: unknown): boolean {
  const { address, notify, orcpt } = fieldsOf(raw)
  return isText(address) && [notify, orcpt].every((part) => part === null || isText(part))
}

function isAscending(places: readonly number[], below: number): boolean {
  return (
    places.length > 0 && places.every((place, n) => place < below && place > (places[n - 1] ?? -1))
  )
}

function isList(raw: unknown, is: (one: unknown) => boolean): boolean {
  return Array.isArray(raw) && raw.length <= RECIPIENTS_MAX && raw.every(is)
}

function isText(raw: unknown): boolean {
  return typeof raw === 'string' && raw.length <= TEXT_MAX
}

function isPlace(raw: unknown): raw is number {
  return Number.isSafeInteger(raw) && (raw as number) >= 0
}

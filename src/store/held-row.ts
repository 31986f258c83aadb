/**
 * Held mail as shared rows. Kind `held`, key `<message id>`: what is known of the message and its
 * first copies; `<message id>/1`, `/2`… further copies, because a message has up to ten thousand
 * and a row must fit a link. Only the owner writes them.
 * Kind `pending`, key `<message id>/<place>/<writer>`: a click that waits for the owner.
 */
import { type MessageId, type NodeId, parseMessageId, parseNodeId } from '../base/ids.ts'
import { isCount, type Raw } from '../base/raw.ts'
import type { Claim, NewHeldRow } from '../message/rows.ts'
import type { Finding, Unknown } from '../message/verdict.ts'

/** Copies in one row: 254 characters of an address and a claim each. */
export const COPIES_MAX = 250
const TEXT_MAX = 20_000
const FINDINGS_MAX = 1_000

export type CopyValue = {
  readonly place: number
  readonly address: string
  readonly claim?: Claim
  /** It is released and in the queue of its owner since. */
  readonly enqueuedMs?: number
  /** An owner before had released it then, and may have had it in its queue when it died. */
  readonly doubtMs?: number
  /** It was in the queue of a former owner too, by a release of then: that is told and counted. */
  readonly formerMs?: number
  /** It went out in doubt then, and was counted: for the first former owner that says the same. */
  readonly countedMs?: number
}

export type HeldFacts = Omit<NewHeldRow, 'id' | 'recipients'>

export type HeldValue = {
  readonly owner: NodeId
  /** In the first row of a message, and only there. */
  readonly row?: HeldFacts
  readonly copies: readonly CopyValue[]
  /** The owner has no sealed file any more; in the first row, as what follows. */
  readonly bodyGoneMs?: number
  /** The other nodes that are known to have the body. */
  readonly holders?: readonly NodeId[]
  /** Others that may have it: bytes went there, and no answer came. */
  readonly perhaps?: readonly NodeId[]
  /** Taken over although the owner before may have released any of it since then. */
  readonly doubtMs?: number
  /** Who ends that doubt, and those of copies, with its word; left out when there were several. */
  readonly doubtOf?: NodeId
}

export type PendingValue = {
  readonly kind: 'release' | 'delete'
  readonly by: string
  readonly atMs: number
  /** The owner that it was addressed to: nobody else runs it. */
  readonly to: NodeId
  /** Not a click, but what is told of a former owner. */
  readonly former?: Former
}

/**
 * What a former owner had decided, or put into its queue, by its own word or that of who read it;
 * `perhaps`: it had decided to release it, as another node knows, and may have sent it.
 */
export type Former = 'claimed' | 'sent' | 'perhaps'

const FORMER: ReadonlySet<unknown> = new Set<Former>(['claimed', 'sent', 'perhaps'])

export function heldKey(id: MessageId, part: number): string {
  return part === 0 ? id : `${id}/${part}`
}

/** Null: no key of ours. */
export function readHeldKey(key: string): { readonly id: MessageId; readonly part: number } | null {
  const [, text = '', digits = '0'] = /^([^/]+)(?:\/([1-9]\d{0,3}))?$/.exec(key) ?? []
  const id = parseMessageId(text)
  return id === null ? null : { id, part: Number(digits) }
}

export function readPendingKey(
  key: string,
): { readonly id: MessageId; readonly place: number } | null {
  const [, text = '', digits = ''] = /^([^/]+)\/(\d{1,5})\/[0-9a-f]{12}$/.exec(key) ?? []
  const id = parseMessageId(text)
  return id === null ? null : { id, place: Number(digits) }
}

/** Null: it is not what a row of this version says; it is kept, passed on and not shown. */
export function readHeldValue(text: string): HeldValue | null {
  const value = parsed(text)
  const copies = value?.['copies']
  if (value === null || !isNode(value['owner']) || !Array.isArray(copies)) return null
  if (copies.length > COPIES_MAX || !copies.every(isCopy)) return null
  if (value['row'] !== undefined && !isFacts(value['row'])) return null
  if (value['bodyGoneMs'] !== undefined && !isCount(value['bodyGoneMs'])) return null
  if (value['doubtMs'] !== undefined && !isCount(value['doubtMs'])) return null
  if (value['doubtOf'] !== undefined && !isNode(value['doubtOf'])) return null
  if (value['holders'] !== undefined && !isListOf(value['holders'], isNode)) return null
  if (value['perhaps'] !== undefined && !isListOf(value['perhaps'], isNode)) return null
  return value as unknown as HeldValue
}

export function readPendingValue(text: string): PendingValue | null {
  const value = parsed(text)
  if (value === null || !isNode(value['to'])) return null
  const { kind, by, atMs } = value
  if ((kind !== 'release' && kind !== 'delete') || !isText(by) || !isCount(atMs)) return null
  if (value['former'] !== undefined && !FORMER.has(value['former'])) return null
  return value as unknown as PendingValue
}

/** A claim that another node made. */
export function isClaim(raw: unknown): raw is Claim {
  const claim = record(raw)
  const kind = claim?.['kind']
  const isKind = kind === 'release' || kind === 'delete' || kind === 'expire'
  return isKind && isText(claim?.['by']) && isCount(claim?.['atMs'])
}

function isCopy(raw: unknown): raw is CopyValue {
  const copy = record(raw)
  if (copy === null || !isCount(copy['place']) || !isText(copy['address'])) return false
  if (copy['enqueuedMs'] !== undefined && !isCount(copy['enqueuedMs'])) return false
  if (copy['doubtMs'] !== undefined && !isCount(copy['doubtMs'])) return false
  if (copy['formerMs'] !== undefined && !isCount(copy['formerMs'])) return false
  if (copy['countedMs'] !== undefined && !isCount(copy['countedMs'])) return false
  return copy['claim'] === undefined || isClaim(copy['claim'])
}

export function isFacts(raw: unknown): raw is HeldFacts {
  const row = record(raw)
  if (row === null) return false
  const { sender, subject, from, clientIp, sizeBytes, score, rules, heldMs, expiresMs } = row
  return (
    isText(sender) &&
    (subject === null || isText(subject)) &&
    (from === null || isText(from)) &&
    isText(clientIp) &&
    isCount(sizeBytes) &&
    Number.isFinite(score) &&
    isListOf(rules, isText) &&
    isListOf(row['findings'], isFinding) &&
    isListOf(row['unknowns'], isUnknown) &&
    isCount(heldMs) &&
    isCount(expiresMs)
  )
}

function isFinding(raw: unknown): raw is Finding {
  const finding = record(raw)
  return (
    isText(finding?.['rule']) && Number.isFinite(finding['score']) && isText(finding['evidence'])
  )
}

function isUnknown(raw: unknown): raw is Unknown {
  const unknown = record(raw)
  return isText(unknown?.['inspector']) && isText(unknown['cause'])
}

function isListOf(raw: unknown, is: (one: unknown) => boolean): boolean {
  return Array.isArray(raw) && raw.length <= FINDINGS_MAX && raw.every(is)
}

function isNode(raw: unknown): raw is NodeId {
  return typeof raw === 'string' && parseNodeId(raw) !== null
}

function isText(raw: unknown): raw is string {
  return typeof raw === 'string' && raw.length <= TEXT_MAX
}

function record(raw: unknown): Raw | null {
  return typeof raw === 'object' && raw !== null && !Array.isArray(raw) ? (raw as Raw) : null
}

function parsed(text: string): Raw | null {
  try {
    return record(JSON.parse(text))
  } catch {
    return null
  }
}

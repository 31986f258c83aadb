/** The shapes that the API answers with: the contract that scripts rely on. */

import type {
  Alarm,
  Alert,
  ApiTokenRow,
  BanView,
  ChangeRow,
  ClusterView,
  ConflictRow,
  HeldDetail,
  Invitation,
  ListEntry,
  MessageDetail,
  NodeStatus,
  OverviewNumbers,
  Page,
  SettingRow,
  TokenView,
} from '../src/admin/contract.ts'
import { isoTime } from '../src/base/clock.ts'
import type { RefusalError } from '../src/base/errors.ts'
import type { Domain } from '../src/config/snapshot.ts'
import { formatNextHop } from '../src/message/nexthop.ts'
import type { HeldRow, QueueRow, TraceRow } from '../src/message/rows.ts'

/** Null stays null; a time is ISO 8601 UTC. */
function at(wallMs: number | null): string | null {
  return wallMs === null ? null : isoTime(wallMs)
}

export function listOf<Row>(rows: readonly Row[], page?: Page<unknown>) {
  return { rows, total: page?.total ?? rows.length, cursor: page?.cursor ?? null }
}

export function statusOf(status: NodeStatus) {
  const { startedMs, queue, ...rest } = status
  return {
    ...rest,
    startedAt: isoTime(startedMs),
    queue: { messages: queue.messages, oldestAt: at(queue.oldestMs) },
  }
}

export function alertOf({ sinceMs, node, ...rest }: Alert) {
  return { ...rest, node: node?.id ?? null, nodeName: node?.name ?? null, since: isoTime(sinceMs) }
}

export function heldOf(row: HeldRow) {
  const { heldMs, expiresMs, owner, holders, pending, ...rest } = row
  const waiting = pending.map(({ atMs, to, ...click }) => ({
    ...click,
    at: isoTime(atMs),
    node: to.id,
    nodeName: to.name,
  }))
  const [node, nodeName] = [owner.id, owner.name]
  return {
    ...rest,
    node,
    nodeName,
    holders: holders.map(({ id, name }) => ({ node: id, nodeName: name })),
    pending: waiting,
    heldAt: isoTime(heldMs),
    expiresAt: isoTime(expiresMs),
  }
}

export function heldDetailOf({ row, claims, waits }: HeldDetail) {
  return {
    ...heldOf(row),
    waits: waits === null ? null : { words: waits.words, doubtSince: at(waits.doubtSinceMs) },
    claims: claims.map(({ atMs, ...claim }) => ({ ...claim, at: isoTime(atMs) })),
  }
}

export function queueOf(row: QueueRow) {
  const { acceptedMs, expiresMs, recipients, owner, holders, ...rest } = row
  return {
    ...rest,
    node: owner.id,
    nodeName: owner.name,
    holders: holders.map(({ node, state }) => ({ node: node.id, nodeName: node.name, state })),
    acceptedAt: isoTime(acceptedMs),
    expiresAt: isoTime(expiresMs),
    recipients: recipients.map(({ nextTryMs, ...one }) => ({ ...one, nextTry: at(nextTryMs) })),
  }
}

export function traceOf(row: TraceRow) {
  const { node, atMs, deliveryMs, acceptReply, deliveryReply, ...rest } = row
  return {
    ...rest,
    node: node.id,
    nodeName: node.name,
    at: isoTime(atMs),
    /** The last word: of the next hop, of who released it, or of the door. */
    reply: deliveryReply ?? acceptReply,
    acceptReply,
    deliveryReply,
    deliveryAt: at(deliveryMs),
  }
}

export function messageOf(detail: MessageDetail) {
  const { rows, events, judgement, held, queue, queuedOn } = detail
  return {
    rows: rows.map(traceOf),
    events: events.map(({ atMs, ...event }) => ({ ...event, at: isoTime(atMs) })),
    judgement,
    held: held === null ? null : heldDetailOf(held),
    queue: queue === null ? null : queueOf(queue),
    queuedOn,
  }
}

export function domainOf({ nextHops, ...rest }: Domain) {
  return { ...rest, nextHops: nextHops.map(formatNextHop) }
}

export function settingOf({ changedMs, ...rest }: SettingRow) {
  return { ...rest, changedAt: at(changedMs) }
}

export function changeOf({ atMs, ...rest }: ChangeRow) {
  return { ...rest, at: isoTime(atMs) }
}

export function operatorOf(row: {
  readonly name: string
  readonly role: string
  readonly addedMs: number
  readonly lastSeenMs: number | null
}) {
  const { addedMs, lastSeenMs, ...rest } = row
  return { ...rest, addedAt: isoTime(addedMs), lastSeenAt: at(lastSeenMs) }
}

export function overviewOf({ series, ...rest }: OverviewNumbers) {
  return {
    ...rest,
    series: series.map(({ atMs, ...bucket }) => ({ ...bucket, at: isoTime(atMs) })),
  }
}

export function clusterOf({ nodes, events, ...rest }: ClusterView, alarms: readonly Alarm[]) {
  return {
    ...rest,
    alarms,
    nodes: nodes.map(({ sinceMs, admittedMs, ...node }) => ({
      ...node,
      since: at(sinceMs),
      admittedAt: isoTime(admittedMs),
    })),
    events: events.map(({ atMs, ...event }) => ({ ...event, at: isoTime(atMs) })),
  }
}

export function invitationOf({ expiresMs, ...rest }: Invitation) {
  return { ...rest, expiresAt: isoTime(expiresMs) }
}

export function issuedOf({ issuedMs, expiresMs, ...rest }: TokenView) {
  return { ...rest, issuedAt: isoTime(issuedMs), expiresAt: isoTime(expiresMs) }
}

export function conflictOf({ key, sides }: ConflictRow) {
  return { key, sides: sides.map(({ atMs, ...side }) => ({ ...side, at: isoTime(atMs) })) }
}

export function apiTokenOf({ addedMs, expiresMs, ...rest }: ApiTokenRow) {
  return { ...rest, addedAt: isoTime(addedMs), expiresAt: at(expiresMs) }
}

export function entryOf({ addedMs, ...rest }: ListEntry) {
  return { ...rest, addedAt: isoTime(addedMs) }
}

export function banOf({ network, untilMs }: BanView) {
  return { network, until: isoTime(untilMs) }
}

/** The form of every refusal. */
export function errorOf(refusal: RefusalError) {
  const { code, field, message, advice } = refusal
  return { error: { code, field, message, remedy: advice } }
}

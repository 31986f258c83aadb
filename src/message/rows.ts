/** What lists show: plain data that stages make, the store keeps, and admin, web and cli read. */
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Finding, Insight, Unknown, VerdictKind } from './verdict.ts'

/** A node as lists show it; one that nobody knows any more is named by its id. */
export type NodeName = { readonly id: NodeId; readonly name: string }

/** State of one recipient in the queue. `done` and `failed` are final. */
export type RecipientState =
  | 'queued'
  | 'trying'
  | 'deferred'
  | 'inDoubt'
  | 'held'
  | 'done'
  | 'failed'
  | 'dropped'

export type QueueRecipientRow = {
  readonly address: string
  readonly state: RecipientState
  readonly attempts: number
  /** Wall ms; null when an attempt runs now or the state is final. */
  readonly nextTryMs: number | null
  /** Last reply of a next hop or what failed, one line; null before the first attempt. */
  readonly lastReply: string | null
}

/** Another node that has, or may have, a copy. */
export type HolderRow = {
  readonly node: NodeName
  /** `sent`: perhaps. `kept`: durably. `discarding`: it is to forget it. */
  readonly state: 'sent' | 'kept' | 'discarding'
}

/** One waiting message. */
export type QueueRow = {
  readonly id: MessageId
  /** Who delivers it. */
  readonly owner: NodeName
  /** Grows with each node that takes it over. */
  readonly term: number
  readonly holders: readonly HolderRow[]
  /** Why it is not delivered now although its time has come; null: nothing holds it. */
  readonly waits: string | null
  readonly sender: string
  readonly subject: string | null
  readonly sizeBytes: number
  readonly acceptedMs: number
  readonly expiresMs: number
  readonly state: 'queued' | 'deferred' | 'inDoubt'
  readonly recipients: readonly QueueRecipientRow[]
}

/** How the held copies of one message stand; one row a message, however many recipients. */
export type HeldRow = {
  readonly id: MessageId
  /** The node that decides about it and has its body. */
  readonly owner: NodeName
  /** The others that have its body. */
  readonly holders: readonly NodeName[]
  readonly sender: string
  /** Recipients whose copy is held and not yet released or deleted. */
  readonly recipients: readonly string[]
  readonly subject: string | null
  readonly from: string | null
  readonly clientIp: string
  readonly sizeBytes: number
  readonly score: number
  readonly rules: readonly string[]
  readonly findings: readonly Finding[]
  readonly unknowns: readonly Unknown[]
  readonly heldMs: number
  readonly expiresMs: number
  /** Clicks that wait for an owner that does not answer, the first one first. */
  readonly pending: readonly PendingClaim[]
}

/** A row as its owner writes it. */
export type NewHeldRow = Omit<HeldRow, 'owner' | 'holders' | 'pending'>

/** A decision about a held recipient, made once (design: mail.md, Release once). */
export type Claim = {
  readonly kind: 'release' | 'delete' | 'expire'
  /** Operator name, `cli`, or `postern` for expiry. */
  readonly by: string
  readonly atMs: number
}

/** A release or deletion that was asked for while the owner was away; it decides, later. */
export type PendingClaim = {
  readonly recipient: string
  readonly kind: 'release' | 'delete'
  readonly by: string
  readonly atMs: number
  readonly to: NodeName
}

/** Phase one: the answer at the door. */
export type AcceptState = 'accepted' | 'held' | 'rejected' | 'deferred' | 'refused'
/** Phase two: what became of it. Null when it ended at the door. */
export type DeliveryState =
  | 'queued'
  | 'deferred'
  | 'inDoubt'
  | 'delivered'
  | 'bounced'
  | 'dropped'
  | 'held'
  | 'released'
  | 'deleted'
  | 'expired'

/** One message and recipient in the trace: two-phase status. */
export type TraceRow = {
  readonly id: MessageId
  /** Where it came in. */
  readonly node: NodeName
  readonly atMs: number
  readonly clientIp: string
  readonly sender: string
  readonly recipient: string
  readonly subject: string | null
  readonly sizeBytes: number
  readonly score: number
  readonly rules: readonly string[]
  readonly accept: AcceptState
  /** What the client read, e.g. `250 2.0.0 <mid>`. */
  readonly acceptReply: string
  readonly delivery: DeliveryState | null
  /** The last reply of a next hop, or who released it; null before that. */
  readonly deliveryReply: string | null
  readonly deliveryMs: number | null
}

/** A row as this node writes it. */
export type NewTraceRow = Omit<TraceRow, 'node'>

/** One line of a message's history. */
export type TraceEvent = {
  readonly atMs: number
  readonly recipient: string | null
  /** A word: accepted, held, tried, deferred, delivered, bounced, released, deleted, expired… */
  readonly what: string
  readonly detail: string
}

/** What the inspectors and the policy said at the door, kept for the message page. */
export type Judgement = {
  readonly verdict: VerdictKind
  readonly score: number
  readonly findings: readonly Finding[]
  readonly unknowns: readonly Unknown[]
  readonly holdFrom: number
  readonly rejectFrom: number
  /**
   * First address of From, as in MessageFacts. Left out: it names nobody, the mail goes out or has
   * no sender, or it was judged before this was kept.
   */
  readonly author?: string
  /** Left out: nothing was seen, or it was judged before this was kept. */
  readonly insight?: Insight
}

/** What the admin asks of the path of a mail; the queue and the quarantine stage implement it. */
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Claim, HeldRow, Judgement, QueueRow } from '../message/rows.ts'
import type { Page, QueueQuery } from './contract.ts'

export interface MailActions {
  /**
   * Enqueues held copies; resolves when they are in the queue, durably. May be called again with
   * the same copies after a crash: then those already there are left alone.
   * @throws StoreError when the queue or the sealed file refuses
   */
  release(id: MessageId, places: readonly number[], claim: Claim): Promise<void>
  /** The queue of this node has this copy since a release, or had it. */
  hasReleased(id: MessageId, place: number): boolean
  /** All releases that a stop had cut off were asked for again. */
  releasesResumed(): void
  /** What this node owns, and what it has copies of that belong to `of`; newest first. */
  queueRows(query: QueueQuery & { readonly of?: readonly NodeId[] }): Page<QueueRow>
  /** Of this node's own queue. */
  queueOne(id: MessageId): QueueRow | null
  /** Copies here of what another node owns and what waits for delivery. */
  copiesOf(owner: NodeId): number
  /** A copy that it keeps for another node. */
  copyOne(id: MessageId): QueueRow | null
  /** Makes one message, or all, due now. Gives how many. */
  retry(id: MessageId | null): number
  /** Gives up on a message, with a DSN when `bounce`. False: not in the queue. */
  drop(id: MessageId, bounce: boolean): Promise<boolean>
  queueTotals(): QueueTotals
  /** What the inspectors and the settings of today say of a held mail; changes nothing. */
  inspectAgain(row: HeldRow, bytes: Uint8Array, before: Judgement | null): Promise<Judgement>
}

/** Of what this node owns and what waits for delivery. */
export type QueueTotals = {
  readonly messages: number
  readonly oldestMs: number | null
  /** Messages with a recipient in doubt. */
  readonly inDoubt: number
}

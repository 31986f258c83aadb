/** What the admin asks of the path of a mail; the queue and the quarantine stage implement it. */
import type { MessageId } from '../base/ids.ts'
import type { Claim, QueueRow } from '../message/rows.ts'
import type { Page } from './contract.ts'

export interface MailActions {
  /**
   * Enqueues held copies; resolves when they are in the queue, durably. May be called again with
   * the same copies after a crash: then those already there are left alone.
   * @throws StoreError when the queue or the sealed file refuses
   */
  release(id: MessageId, places: readonly number[], claim: Claim): Promise<void>
  /** Newest first. */
  queueRows(query: { readonly limit: number; readonly cursor: string | null }): Page<QueueRow>
  queueOne(id: MessageId): QueueRow | null
  /** Makes one message, or all, due now. Gives how many. */
  retry(id: MessageId | null): number
  /** Gives up on a message, with a DSN when `bounce`. False: not in the queue. */
  drop(id: MessageId, bounce: boolean): Promise<boolean>
  queueTotals(): { readonly messages: number; readonly oldestMs: number | null }
}

/** The other nodes, as far as held mail is concerned; `node.ts` gives what the cluster knows. */
import type { MessageId, NodeId } from '../../base/ids.ts'

export type HeldAbsence = {
  /**
   * `silent`: it may live where it is not seen. `confirmed`: dead for sure. `removed`: an operator
   * said that it is gone. `left`: it went by itself, and told all that it had done.
   */
  readonly standing: 'here' | 'silent' | 'confirmed' | 'removed' | 'left'
  /** Wall ms of the first of the refusals that last; null: it does not refuse. */
  readonly refusedSinceMs: number | null
  /** Wall ms of the last sign of life; null: none since this node started. */
  readonly lastContactMs: number | null
}

export type Answered = {
  readonly value: unknown
  readonly bytes: AsyncIterable<Uint8Array>
}

export interface HeldNodes {
  /** @throws RefusalError of the other side; `unavailable` when it does not answer in time */
  ask(node: NodeId, topic: string, value: unknown, timeoutMs?: number): Promise<unknown>
  fetch(node: NodeId, topic: string, value: unknown, timeoutMs?: number): Promise<Answered>
  absence(node: NodeId): HeldAbsence
  /** The members that are alive and do not leave, without this node. */
  staying(): readonly NodeId[]
  /** Who takes a body of `id` now, the best first. */
  candidates(id: MessageId): readonly NodeId[]
  /** The order in which they are to keep or to take over a message. */
  ranked(id: MessageId, nodes: readonly NodeId[]): readonly NodeId[]
  /** All shared rows that the node was heard to have are here. */
  hasReadAll(node: NodeId): boolean
  /**
   * Resolves when all that was written here so far is durable on each of `nodes` that was heard
   * from lately, or when there was no acknowledgement for so long. Never rejects.
   */
  taken(nodes: readonly NodeId[]): Promise<void>
}

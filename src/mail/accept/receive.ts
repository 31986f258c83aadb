/** What the session asks of the pipeline: a message in, a reply out. */
import type { MessageId } from '../../base/ids.ts'
import type { Snapshot } from '../../config/snapshot.ts'
import type { Envelope } from '../../message/envelope.ts'
import type { Reply } from '../../message/reply.ts'
import type { NewTraceRow } from '../../message/rows.ts'
import type { AuthResult, Finding } from '../../message/verdict.ts'

/** What a session knows when DATA begins; id, time and protocol are added at the end. */
export type Arrival = {
  readonly id: MessageId
  readonly envelope: Envelope
  /** The whole body when it is small; else the pieces went to `piece`. */
  readonly last: Uint8Array
  /** True when `last` is all of it. */
  readonly isWhole: boolean
  readonly sizeBytes: number
  /** The configuration since MAIL: one mail is judged by one. */
  readonly snapshot: Snapshot
  /** What was seen of the client before its mail: block lists, names, early talk. */
  readonly findings?: readonly Finding[]
  /** Name of the client that leads back to its address; null or left out: none is known. */
  readonly clientName?: string | null
  /** Whether the name of the client leads back to its address; left out: nobody asked. */
  readonly iprev?: AuthResult | null
}

/** A body that is arriving. */
export interface Incoming {
  /** Memory for a piece of PIECE_BYTES. */
  block(): Buffer
  /** Takes a full piece, a block of ours: it is not the caller's any more. Gives false when the sender should pause until `drained`. */
  piece(bytes: Uint8Array): boolean
  /** Calls once when the sender may go on. */
  onDrained(run: () => void): void
  /** The end of the data: resolves with the one reply to it, after the commit that makes it true. */
  end(arrival: Arrival): Promise<Reply>
  /** The client is gone, or the message was refused: nothing is kept. */
  abort(): void
}

export interface Receiver {
  /** A reply instead when no message of this size can be taken now (452). */
  begin(id: MessageId, sizeBytes: number): Incoming | Reply
  /** Why no further message can begin, or null; asked at MAIL (faults.md P7). */
  refusal(sizeBytes: number): Reply | null
  /** A recipient, a message or a client was refused: a row of the trace. */
  refused(
    row: Omit<
      NewTraceRow,
      'subject' | 'score' | 'rules' | 'delivery' | 'deliveryReply' | 'deliveryMs'
    >,
  ): void
}

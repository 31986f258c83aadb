/**
 * What the queue and the cluster ask of each other about copies of messages: a copy is durable on
 * another node before the client reads 250, and whoever has one goes on when the owner is gone
 * (design: mail.md). The queue knows no network, the cluster no mail: `node.ts` joins them.
 */
import type { MessageId, NodeId } from '../base/ids.ts'
import type { Body } from '../message/body.ts'
import type { RecipientState } from '../message/rows.ts'
import type { Commit, HolderState, MarkKind, MarkPayload, Message } from './queued.ts'

// ---- what the queue asks of the cluster ----

/** Whether a copy is durable elsewhere. */
export type Copied =
  | { readonly kind: 'kept'; readonly by: NodeId }
  /** Nobody has acknowledged one; `why` in words, for the log and the pages. */
  | { readonly kind: 'alone'; readonly why: string }

/** A body on its way to another node. What was sent is inert there until its COMMIT is durable. */
export interface Copying {
  /** Those who may have got a byte so far; stands in the COMMIT. */
  readonly holders: readonly NodeId[]
  /** The next piece, read before this returns. One that cannot go now is read from `body` later. */
  piece(bytes: Uint8Array): void
  /**
   * The COMMIT; `nextTryMs` of its recipients is ms from now. `body`: all of it, for another
   * candidate or what did not go. Resolves at the first acknowledgement, or when no candidate gave
   * one in its time. Never rejects.
   */
  commit(commit: Commit, body: () => Promise<Body>): Promise<Copied>
  /** Nobody will want it: what was sent is forgotten there, a COMMIT too. */
  abort(): void
}

/** Copies of what this node owns. */
export interface Mirror {
  /** A body begins; null: no node takes a copy now. */
  begin(id: MessageId): Copying | null
  /**
   * A message that others hold got a mark: they hear within 200 ms how it stands, not awaited. Also
   * one that was handed over while an attempt ran: its owner wants to know (`owner` is another node
   * then).
   */
  marked(message: Message): void
  /**
   * All is final here, and durable: the holders are to forget it, however long that takes. One
   * without holders is only over, and perhaps not yet durable. Void once `get` gives the id again
   * (a release): a DISCARD after that would take the new copy.
   */
  settled(message: Message): void
}

/** Whether this node may act on a message now (design: mail.md, Rejoin barrier and Isolation). */
export interface Tenure {
  /** Asked before every attempt and again before its final dot, before every bounce and expiry. */
  mayAct(message: Message): boolean
  /** Why not, in words for the queue page; null when it may. */
  why(message: Message): string | null
  /** Called with messages that may go on now, or that are not own ones any more. */
  onFreed(listener: (messages: readonly Message[]) => void): void
}

// ---- what the cluster asks of the queue; `Queue` implements it ----

/** What became of a message that is not here any more; kept for 7 days. */
export type Fate = {
  readonly id: MessageId
  readonly term: number
  /** Who had it last, as far as is known here. */
  readonly owner: NodeId
  /** Of each recipient, in the order of the envelope. */
  readonly states: readonly RecipientState[]
  /** In the same order: so it ended here, and nobody else said so. Left out: not known any more. */
  readonly sure?: readonly boolean[]
}

/** A body of another node on its way into the spool, as COPY records. */
export interface CopyDraft {
  /** @throws StoreError */
  add(bytes: Uint8Array): void
  abort(): void
}

export interface CopyStore {
  readonly node: NodeId
  /** What this node owns: in the order in which it came here, what was taken over last. */
  messages(): Iterable<Message>
  get(id: MessageId): Message | null
  /**
   * A body in chunks of at most PIECE_BYTES. Who reads that of a message adds 1 to its `pins`
   * until it has ended. @throws StoreError when bytes are missing
   */
  read(body: Body): AsyncIterable<Uint8Array>
  /** What it keeps for others. */
  copies(): Iterable<Message>
  copy(id: MessageId): Message | null
  /** Of copies there are so many. */
  readonly copyCount: number

  // copies of others

  /** False below 10 % of free disk, and at the bound of messages: copies never take what own mail needs. */
  hasRoomForCopy(sizeBytes: number): boolean
  draftCopy(id: MessageId): CopyDraft
  /**
   * Body and COMMIT are durable when this resolves: that is the acknowledgement. `commit.pieces` is
   * the owner's and is replaced, `nextTryMs` is ms from now (`commitOf`). A copy of a lower term
   * gives way; the same again is fine.
   * @throws StoreError when they are not, when bytes are missing, or when this node owns it or has
   * a higher term of it
   */
  keep(draft: CopyDraft, commit: Commit): Promise<Message>
  /**
   * A mark of the owner; lazily synced. Unknown ids are passed over. On an own message it is that of
   * a node which owned it before: DONE counts, TRY makes it doubtful. @throws StoreError
   */
  markCopy(id: MessageId, kind: MarkKind, payload: MarkPayload): void
  /**
   * The owner is done with it (DISCARD), lazily synced. Held recipients stay in their sealed file;
   * one that is still to be written is written first. Unknown ids are passed over. @throws StoreError
   */
  forgetCopy(id: MessageId): void
  /** Resolves when all pieces and marks so far are in the files, not yet durable. @throws StoreError */
  written(): Promise<void>
  /** Resolves when all pieces and marks so far are durable. @throws StoreError */
  synced(): Promise<void>
  /** Called with every copy once it is kept, also with those found at the start. */
  onKept(listener: (copy: Message) => void): void

  // holders of own messages

  /**
   * How `node` stands to a message (to a copy: as its owner says), lazily synced; null: it has
   * nothing of it. A message that is not here any more, also one whose id came anew, is passed
   * over. @throws StoreError
   */
  setHolder(message: Message, node: NodeId, state: HolderState | null): void
  /** Own messages that are final, and that some holder has not yet said to have forgotten. */
  owed(): Iterable<Message>

  // ownership

  /**
   * Copies become own messages with these terms (ADOPT), durable when this resolves. What was
   * `trying` is in doubt. Ids that are no copies here, or have such a term already, are left out of
   * the answer. @throws StoreError
   */
  adopt(
    taken: readonly { readonly id: MessageId; readonly term: number }[],
  ): Promise<readonly Message[]>
  /**
   * An own message is another node's from now on (XFER, STALE), with `term`; durable when this
   * resolves. It stays here as a copy while something is left to do. @throws StoreError
   */
  handOver(message: Message, to: NodeId, term: number): Promise<void>
  /** A copy has another owner now. Lower terms are passed over. @throws StoreError */
  setOwner(id: MessageId, owner: NodeId, term: number): void
  /** Null: never heard of, or it ended more than 7 days ago. */
  fate(id: MessageId): Fate | null
}

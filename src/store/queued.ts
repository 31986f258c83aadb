/** A message that a node is responsible for, or has a copy of: what its COMMIT says, and its state. */
import type { MessageId, NodeId } from '../base/ids.ts'
import { parseJson } from '../base/memory.ts'
import { type Body, type Extent, withoutCuts } from '../message/body.ts'
import type { Envelope } from '../message/envelope.ts'
import type { Judgement, RecipientState } from '../message/rows.ts'
import type { Cut, MessageFacts, Verdict } from '../message/verdict.ts'
import { pack, unpack } from './packed.ts'
import type { Segment, Stay } from './segments.ts'

/** One recipient of a queued message; its index is that of the envelope. */
export type QueuedRecipient = {
  state: RecipientState
  attempts: number
  /** Wall ms of the next attempt; meaningless while queued, trying or final. */
  nextTryMs: number
  lastReply: string | null
  /** A delivery may have arrived although nothing says so: the next one may be a duplicate. */
  doubtful: boolean
  /** A delay warning went out. */
  warned: boolean
}

/** What a COMMIT says: all that is needed to deliver, hold or bounce without any other store. */
export type Commit = {
  /** Who delivers it. Records of before there were copies have none: this node. */
  readonly owner: NodeId
  /** From 1; grows by one at each adoption and transfer (design: mail.md, Names). */
  readonly term: number
  /** Every other node that ever got a byte of it, as the owner knew it. */
  readonly holders: readonly NodeId[]
  readonly envelope: Envelope
  /** Our own header lines, each with CRLF. */
  readonly prepend: string
  readonly sizeBytes: number
  /** SHA-256 of the canonical bytes, hex; what was inspected is what goes out, less the cuts. */
  readonly sha256: string
  /** Pieces of the body before this record. */
  readonly pieces: number
  readonly expiresMs: number
  /** Octets of the body that are kept and do not go out. Left out: none. */
  readonly cuts?: readonly Cut[]
  readonly facts: MessageFacts
  readonly verdicts: readonly Verdict[]
  /** Present when a copy is held. */
  readonly judgement: Judgement | null
  /** A DSN of ours: it never causes another one. */
  readonly dsn: boolean
  /** The held copies are in the quarantine already. */
  readonly heldMoved: boolean
  readonly recipients: readonly QueuedRecipient[]
}

/** What a COMMIT says for good: how its recipients stand changes, and is the message's. */
export type Committed = Omit<Commit, 'recipients'>

/** One piece of a body in the spool. */
export type Piece = {
  readonly segment: Segment
  readonly offset: number
  readonly length: number
}

/** What the caller of `Queue.commit` says; the queue knows the rest. */
export type NewCommit = Omit<Commit, 'owner' | 'term' | 'holders' | 'pieces'> & {
  /** At least this term: of held mail that was taken over. */
  readonly term?: number
}

/** How another node stands to a message. */
export type HolderState =
  /** Bytes went there: it may have a copy. */
  | 'sent'
  /** It said that its copy is durable. */
  | 'kept'
  /** It is to forget its copy, and has not said that it did. */
  | 'discarding'

/** What an adoption left open: what of it the former owner had delivered. */
export type Adoption = {
  readonly from: NodeId
  /** Recipients that only the adoption made doubtful, and their attempts by then. */
  readonly places: Map<number, number>
}

const NOBODY: ReadonlySet<number> = new Set()
const NO_PIECES: readonly Piece[] = []
const NO_STAYS: readonly Stay[] = []

export class Message {
  readonly id: MessageId
  /** What was committed: packed once the message rests. */
  #committed: Committed | string
  /** As the envelope says. */
  readonly receivedMs: number
  owner: NodeId
  term: number
  /** The other nodes, and how they stand to it; for a copy, as its owner said last. */
  readonly holders = new Map<NodeId, HolderState>()
  readonly recipients: QueuedRecipient[]
  pieces: readonly Piece[] = NO_PIECES
  /** Where a COMMIT of this message lies, or lay. */
  commits: readonly Stay[] = NO_STAYS
  /** The body, while memory allows. */
  cached: Uint8Array | null = null
  /** Held bytes are in the quarantine: `held` recipients no longer need the spool. */
  heldMoved = false
  /** Where the COMMIT in force lies. */
  place: { readonly segment: Segment; readonly length: number } | null = null
  /** Readers of the body: it must stay where it is, until the last one has ended. */
  pins = 0
  /** Made when there is a first one: most messages that wait have none of them. */
  #tried: Set<number> | null = null
  #delivered: Set<number> | null = null
  #told: Set<number> | null = null
  /** A holder was removed and never said that it forgot it: it may have handed it on. */
  mayBeElsewhere = false
  /** Of a copy: its owner is done with it. */
  isDiscarded = false
  /** As the spool tells at a start of a message that was adopted before it. */
  adoption: Adoption | null = null

  constructor(id: MessageId, commit: Commit) {
    const { recipients, ...committed } = commit
    this.id = id
    this.#committed = committed
    this.receivedMs = commit.envelope.receivedMs
    this.owner = commit.owner
    this.term = commit.term
    for (const node of commit.holders) this.holders.set(node, 'sent')
    this.recipients = recipients.map((recipient) => ({ ...recipient }))
    this.heldMoved = commit.heldMoved
  }

  get commit(): Committed {
    return typeof this.#committed === 'string' ? parsed(this.#committed) : this.#committed
  }

  get envelope(): Envelope {
    return this.commit.envelope
  }

  get isResting(): boolean {
    return typeof this.#committed === 'string'
  }

  /**
   * Nobody will ask for what was committed in a while: it stays packed, in a fifth of the memory, and
   * is read anew by whoever asks.
   */
  rest(): void {
    if (typeof this.#committed !== 'string') this.#committed = pack(this.#committed)
  }

  /** Recipients whose dot may be out here: the TRY of their attempt is written. */
  get tried(): ReadonlySet<number> {
    return this.#tried ?? NOBODY
  }

  /** Recipients that went out from here, in this run. */
  get delivered(): ReadonlySet<number> {
    return this.#delivered ?? NOBODY
  }

  /** Recipients that are final because another node said so. */
  get told(): ReadonlySet<number> {
    return this.#told ?? NOBODY
  }

  /** A mark of this recipient is written, by this node. */
  noteMark(kind: MarkKind, index: number): void {
    // Of an attempt here; else what others tried is written down, as in doubt.
    if (kind === 'try' && this.recipients[index]?.state === 'trying') {
      this.#tried ??= new Set()
      this.#tried.add(index)
    } else if (this.#tried?.delete(index) === true) {
      // Most have one recipient, and wait for long between two attempts.
      if (this.#tried.size === 0) this.#tried = null
      if (kind !== 'done') return
      this.#delivered ??= new Set()
      this.#delivered.add(index)
    }
  }

  /** Another node said that this recipient is final. */
  noteTold(index: number): void {
    this.#told ??= new Set()
    this.#told.add(index)
  }

  /** Nothing is left to do for the spool. */
  get isFinal(): boolean {
    return this.recipients.every(
      ({ state }) => isFinal(state) || (state === 'held' && this.heldMoved),
    )
  }

  /** Nobody wants this copy any more: its owner is done, and what is held is in the quarantine. */
  get isOver(): boolean {
    return (
      this.isDiscarded && (this.heldMoved || this.recipients.every(({ state }) => state !== 'held'))
    )
  }

  /** True when the body or the commit in force lies in `segment`. */
  isIn(segment: Segment): boolean {
    return this.place?.segment === segment || this.pieces.some((piece) => piece.segment === segment)
  }

  /** As it was received: what is copied to other nodes, and held. */
  body(): Body {
    if (this.cached !== null) return { kind: 'memory', bytes: this.cached }
    const extents: Extent[] = this.pieces.map(({ segment, offset, length }) => ({
      path: segment.path,
      offset,
      length,
    }))
    return { kind: 'extents', extents, sizeBytes: this.commit.sizeBytes }
  }

  /** As it goes out. */
  outgoing(): Body {
    return withoutCuts(this.body(), this.commit.cuts ?? [])
  }
}

/** The one that was read last: whoever looks at a message that rests asks several times. */
let last: { readonly packed: string; readonly committed: Committed } | null = null

function parsed(packed: string): Committed {
  if (last?.packed !== packed) {
    // Only `rest` wrote it.
    last = { packed, committed: parseJson(unpack(packed)) as Committed }
  }
  return last.committed
}

/** All there are: for who reads them from others. */
export const RECIPIENT_STATES: ReadonlySet<unknown> = new Set<RecipientState>([
  'queued',
  'trying',
  'deferred',
  'inDoubt',
  'held',
  'done',
  'failed',
  'dropped',
])

const CUTS_MAX = 100

/** For what a file or a peer says. */
export function isCuts(raw: unknown): raw is readonly Cut[] {
  if (!Array.isArray(raw) || raw.length > CUTS_MAX) return false
  let end = 0
  return raw.every((cut: unknown) => {
    if (!Array.isArray(cut) || cut.length !== 2 || !cut.every(Number.isSafeInteger)) return false
    const [offset, length] = cut as [number, number]
    const isApart = offset >= end && length > 0
    end = offset + length
    return isApart
  })
}

/** Before a copy is adopted: its recipients that are in no doubt yet, and their attempts. */
export function adoptionOf({ owner, recipients }: Message): Adoption {
  const places = new Map<number, number>()
  for (const [index, { state, doubtful, attempts }] of recipients.entries()) {
    if (!doubtful && state !== 'inDoubt' && state !== 'held' && !isFinal(state))
      places.set(index, attempts)
  }
  return { from: owner, places }
}

export function isFinal(state: RecipientState): boolean {
  return state === 'done' || state === 'failed' || state === 'dropped'
}

export function freshRecipient(state: RecipientState): QueuedRecipient {
  return { state, attempts: 0, nextTryMs: 0, lastReply: null, doubtful: false, warned: false }
}

/**
 * What a COMMIT says of a message as it stands now. On its way to another node `nextTryMs` of its
 * recipients is ms from now, because wall clocks differ: `nowMs` 0 keeps wall times.
 */
export function commitOf(message: Message, nowMs: number): Commit {
  return {
    ...message.commit,
    owner: message.owner,
    term: message.term,
    holders: [...message.holders.keys()],
    heldMoved: message.heldMoved,
    recipients: message.recipients.map((recipient) => shifted(recipient, -nowMs)),
  }
}

/** As `commitOf`, of an own message for another node: an attempt whose dot is not out is none there. */
export function copiedCommitOf(message: Message, nowMs: number): Commit {
  const commit = commitOf(message, nowMs)
  const recipients = commit.recipients.map((recipient, index): QueuedRecipient => {
    const isBegun = recipient.state === 'trying' && !message.tried.has(index)
    return isBegun ? { ...recipient, state: 'queued' } : recipient
  })
  return { ...commit, recipients }
}

/** The next attempt later by `ms`, where there is one. */
export function shifted(recipient: QueuedRecipient, ms: number): QueuedRecipient {
  const waits = recipient.state === 'deferred' || recipient.state === 'inDoubt'
  return { ...recipient, nextTryMs: waits ? recipient.nextTryMs + ms : recipient.nextTryMs }
}

/** What a mark record says; keys are short because there are millions. `r`: recipient indexes. */
export type MarkPayload = {
  readonly r: readonly number[]
  readonly reply?: string
  /** Wall ms of the next attempt, by the clock of the node that has the mark. */
  readonly at?: number
  /** The same as ms from now, on the way to another node. */
  readonly in?: number
  readonly attempts?: number
  readonly doubt?: boolean
  readonly warned?: boolean
}

export type MarkKind = 'try' | 'done' | 'fail' | 'defer' | 'hold' | 'discard'

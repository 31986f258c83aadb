/**
 * The records of a spool, replayed in order into messages and marks. Of several COMMITs of one
 * message the highest title holds, whichever came first, and what any of them knew stays known.
 */
import type { MessageId, NodeId } from '../base/ids.ts'
import { parseJson } from '../base/memory.ts'
import type { RecipientState } from '../message/rows.ts'
import { applyMark, changeOwner, isAbove, joinStates } from './marks.ts'
import { joined } from './message-records.ts'
import {
  adoptionOf,
  type Commit,
  type HolderState,
  isFinal,
  type MarkKind,
  type MarkPayload,
  Message,
  type Piece,
} from './queued.ts'
import { RECORD, readIndex } from './records.ts'
import type { ReplayedRecord, Segment, Stay } from './segments.ts'

/** One message as the spool knows it. */
export type Rebuilt = {
  readonly message: Message
  readonly pieces: readonly Piece[]
  /** Of the COMMIT. */
  readonly place: { readonly segment: Segment; readonly length: number }
  /** All of its body is there. */
  readonly isWhole: boolean
}

/** A message of which there was a COMMIT. */
type Known = {
  /** Every COMMIT of it, also when it is final: their marks must outlive them. */
  commits: readonly Stay[]
  now: Rebuilt | null
  /** What stood before the youngest COMMIT. */
  before: Rebuilt | null
  /** The body of that, while it may be void. */
  body: number | null
}

const MARKS: ReadonlyMap<number, MarkKind> = new Map([
  [RECORD.try, 'try'],
  [RECORD.done, 'done'],
  [RECORD.fail, 'fail'],
  [RECORD.defer, 'defer'],
  [RECORD.hold, 'hold'],
  [RECORD.discard, 'discard'],
])

export class Rebuild {
  readonly #node: NodeId
  /** Pieces without a COMMIT, by message and body. */
  readonly #drafts = new Map<string, Piece[]>()
  readonly #known = new Map<MessageId, Known>()
  /** Segments with commits that the marks of a segment speak of. */
  readonly guards = new Map<Segment, Set<Segment>>()

  /** `node`: this one. */
  constructor(node: NodeId) {
    this.#node = node
  }

  take(record: ReplayedRecord): void {
    const { type, mid } = record
    if (type === RECORD.accept || type === RECORD.copy) return this.#piece(record)
    if (type === RECORD.commit) return this.#commit(record)
    if (type === RECORD.holdings) {
      const { ids, ...holder } = parseJson(record.payload) as HoldingsPayload
      for (const id of ids) this.#hear(id, record.segment, (message) => setHolder(message, holder))
      return
    }
    if (type !== RECORD.abort) {
      return this.#hear(mid, record.segment, (message) => this.#mark(message, record))
    }
    this.#abort(record)
  }

  #guard({ commits }: Known, mark: Segment): void {
    let guarded = this.guards.get(mark)
    if (guarded === undefined) {
      guarded = new Set()
      this.guards.set(mark, guarded)
    }
    for (const { segment } of commits) guarded.add(segment)
  }

  #hear(id: MessageId, mark: Segment, apply: (message: Message) => void): void {
    const known = this.#known.get(id)
    if (known === undefined) return
    this.#guard(known, mark)
    const { now, before } = known
    if (now === null) return
    apply(now.message)
    // Should the youngest COMMIT be void, what was before it has heard this too.
    if (before !== null && before.message !== now.message) apply(before.message)
  }

  /** The states of every message whose COMMIT counts, final ones too. */
  states(): Map<MessageId, readonly RecipientState[]> {
    const states = new Map<MessageId, readonly RecipientState[]>()
    for (const [id, { now }] of this.#known) {
      if (now === null) continue
      const { message, isWhole } = now
      if (message.owner !== this.#node || (!isWhole && !message.isFinal)) continue
      states.set(
        id,
        message.recipients.map(({ state }) => state),
      )
    }
    return states
  }

  /**
   * Whole ones, and those that are over: of the others the sync of the body never ended, so
   * nobody was told 250. With the segments of its other COMMITs noted.
   */
  *finish(): Generator<Rebuilt> {
    for (const { now, commits } of this.#known.values()) {
      if (now === null) continue
      const { message, isWhole } = now
      if (!isWhole && !message.isFinal && !message.isDiscarded) continue
      message.commits = commits
      yield now
    }
  }

  #piece({ mid, index, segment, offset, payload }: ReplayedRecord): void {
    const { body, place } = readIndex(index)
    const piece = { segment, offset, length: payload.length }
    const key = draftKey(mid, body)
    if (place === 0) this.#drafts.set(key, [piece])
    else this.#drafts.get(key)?.push(piece)
  }

  #commit({ mid, index, segment, payload }: ReplayedRecord): void {
    const commit = readCommit(payload, this.#node)
    const { body } = readIndex(index)
    const key = draftKey(mid, body)
    const pieces = this.#drafts.get(key) ?? []
    this.#drafts.delete(key)
    const known = this.#knownOf(mid)
    known.commits = joined(known.commits, segment.stays)
    const stored = pieces.reduce((sum, { length }) => sum + length, 0)
    const isTorn = pieces.length !== commit.pieces
    const isWhole = !isTorn && stored === commit.sizeBytes
    const message = new Message(mid, commit)
    message.rest()
    const before = known.now
    // A body that is not whole was never acknowledged, or has gone since: it moves nothing. Only
    // what is final and owed stands without one.
    if (before?.isWhole === true && !isWhole && (isTorn || !message.isFinal)) return
    known.before = before
    known.body = body
    const place = { segment, length: payload.length }
    if (before !== null && isAbove(before.message, message)) {
      joinStates(before.message, message)
      // The bytes of a message are the same under every title.
      if (isWhole && !before.isWhole) {
        known.now = { message: before.message, pieces, place, isWhole }
      }
      return
    }
    if (before !== null) joinStates(message, before.message)
    // What was copied forward; a change of owners ends what was open.
    if (before !== null && !isAbove(message, before.message))
      message.adoption = before.message.adoption
    known.now = { message, pieces: isWhole ? pieces : [], place, isWhole }
  }

  #knownOf(mid: MessageId): Known {
    let known = this.#known.get(mid)
    if (known === undefined) {
      known = { commits: [], now: null, before: null, body: null }
      this.#known.set(mid, known)
    }
    return known
  }

  #abort({ mid, index, segment }: ReplayedRecord): void {
    const { body, place } = readIndex(index)
    this.#drafts.delete(draftKey(mid, body))
    const known = this.#known.get(mid)
    if (known === undefined) return
    this.#guard(known, segment)
    // Its sync failed: the client was told to come again, or what was before still stands.
    if (place !== 1 || known.body !== body) return
    known.now = known.before
    known.before = null
    known.body = null
  }

  #mark(message: Message, { type, payload }: ReplayedRecord): void {
    const kind = MARKS.get(type)
    if (kind !== undefined) {
      const mark = payload.length === 0 ? { r: [] } : (parseJson(payload) as MarkPayload)
      // What was tried here since, or is known to have ended, is no doubt of the adoption alone.
      if (kind !== 'defer') for (const index of mark.r) message.adoption?.places.delete(index)
      return applyMark(message, kind, mark)
    }
    if (type === RECORD.adopt || type === RECORD.xfer) {
      const { term, owner } = parseJson(payload) as TitlePayload
      if (!isAbove({ term, owner }, message)) return
      const isMine = type === RECORD.adopt && owner === this.#node
      message.adoption = isMine ? adoptionOf(message) : null
      changeOwner(message, { term, owner })
      // A crash may have come before the marks that say so.
      if (isMine) doubtRest(message)
    } else if (type === RECORD.holders) {
      setHolder(message, parseJson(payload) as HolderPayload)
    }
  }
}

/** The last marks of its owner before may not have come: each delivery may be a second one. */
function doubtRest({ recipients }: Message): void {
  for (const recipient of recipients) {
    if (!isFinal(recipient.state) && recipient.state !== 'held') recipient.doubtful = true
  }
}

/** What ADOPT and XFER say: whose it is from here on. */
export type TitlePayload = { readonly term: number; readonly owner: NodeId }
/** What a `holders` record says; null: it has nothing of the message any more. */
export type HolderPayload = { readonly node: NodeId; readonly state: HolderState | null }
/** The same of many messages. */
export type HoldingsPayload = HolderPayload & { readonly ids: readonly MessageId[] }

function setHolder(message: Message, { node, state }: HolderPayload): void {
  // Before the end nobody is asked to forget it: that one was removed.
  message.mayBeElsewhere ||= state === null && !message.isFinal
  if (state === null) message.holders.delete(node)
  else message.holders.set(node, state)
}

/** A record of before there were copies says nothing of owner, term and holders. */
function readCommit(payload: Buffer, node: NodeId): Commit {
  const said = parseJson(payload) as Commit & Partial<Commit>
  return { ...said, owner: said.owner ?? node, term: said.term ?? 1, holders: said.holders ?? [] }
}

function draftKey(mid: MessageId, body: number): string {
  return body === 0 ? mid : `${mid} ${body}`
}

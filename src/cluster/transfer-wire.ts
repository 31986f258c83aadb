/**
 * What two nodes say to each other when messages change their owner: JSON, every field checked
 * before use. Times are remaining ms, since two clocks differ.
 */
import { type MessageId, type NodeId, parseMessageId, parseNodeId } from '../base/ids.ts'
import { fieldsOf, isCount } from '../base/raw.ts'
import type { MarkKind, MarkPayload, Message } from '../store/queued.ts'

const ROWS_MAX = 1_000
const RECIPIENTS_MAX = 10_000
/** The last reply is for people: so much of it, and so many different ones, for one message. */
const REPLY_CHARS_MAX = 200
const REPLIES_MAX = 10
const WAIT_MS_MAX = 30 * 86_400_000

/** Who owns a message, and under which term. */
export type Owned = { readonly id: MessageId; readonly owner: NodeId; readonly term: number }

type State = 'queued' | 'deferred' | 'inDoubt' | 'done' | 'failed'
const STATES: readonly State[] = ['queued', 'deferred', 'inDoubt', 'done', 'failed']

/** One recipient that is not as it was when the message came. */
type Stand = {
  readonly index: number
  readonly state: State
  readonly attempts: number
  readonly waitMs: number
  readonly reply: string | null
  readonly doubtful: boolean
  readonly warned: boolean
}

export type Row = {
  readonly id: MessageId
  /** Under which the target is to own it. */
  readonly term: number
  readonly stands: readonly Stand[]
}

/** Questions of one node are numbered in each of its runs: one that comes late is known by it. */
export type Ask = {
  readonly epoch: number
  readonly ask: number
  /** False: it only wants to know which of them are taken; nobody drains any more. */
  readonly take: boolean
  readonly rows: readonly Row[]
}

export type Answer = {
  /** Those that are no longer the asker's, and whose they are. */
  readonly gone: readonly Owned[]
  /** Why nothing was taken; null: what could be was. */
  readonly why: string | null
}

/** A message as it stands now, with no attempt under way. */
export function rowOf({ id, recipients }: Message, term: number, nowMs: number): Row {
  const replies = new Set<string>()
  const stands: Stand[] = []
  for (const [index, recipient] of recipients.entries()) {
    const { attempts, doubtful, warned, nextTryMs, lastReply } = recipient
    const state = recipient.state === 'dropped' ? 'failed' : recipient.state
    // Held copies belong to the quarantine, wherever the queue goes.
    if (state === 'held' || state === 'trying') continue
    if (state === 'queued' && attempts === 0 && !doubtful) continue
    const short = lastReply?.slice(0, REPLY_CHARS_MAX) ?? null
    if (short !== null && replies.size < REPLIES_MAX) replies.add(short)
    const reply = short !== null && replies.has(short) ? short : null
    const waits = state === 'deferred' || state === 'inDoubt'
    const waitMs = waits ? Math.max(0, Math.round(nextTryMs - nowMs)) : 0
    stands.push({ index, state, attempts, waitMs, reply, doubtful, warned })
  }
  return { id, term, stands }
}

/** What the copy must be told to stand as the row says. */
export function* marksOf(
  { stands }: Row,
  nowMs: number,
): Generator<{ readonly kind: MarkKind; readonly payload: MarkPayload }> {
  for (const { index, state, attempts, waitMs, reply, doubtful, warned } of stands) {
    const said = { r: [index], attempts, ...(reply === null ? {} : { reply }) }
    if (state === 'done') yield { kind: 'done', payload: said }
    else if (state === 'failed') yield { kind: 'fail', payload: said }
    else {
      // In doubt it stays: it is told by `doubt`, and waits as long as it would have here.
      const doubt = doubtful || state === 'inDoubt'
      const at = nowMs + waitMs
      yield { kind: 'defer', payload: { ...said, at, doubt, ...(warned ? { warned } : {}) } }
    }
  }
}

export function encodeAsk({ epoch, ask, take, rows }: Ask): unknown {
  return {
    epoch,
    ask,
    take,
    rows: rows.map(({ id, term, stands }) => {
      const replies = [...new Set(stands.flatMap(({ reply }) => reply ?? []))]
      return {
        id,
        term,
        replies,
        stands: stands.map(({ index, state, attempts, waitMs, reply, doubtful, warned }) => [
          index,
          STATES.indexOf(state),
          attempts,
          waitMs,
          reply === null ? -1 : replies.indexOf(reply),
          (doubtful ? 1 : 0) + (warned ? 2 : 0),
        ]),
      }
    }),
  }
}

/** Null: not what a node of ours sends. */
export function readAsk(raw: unknown): Ask | null {
  const { epoch, ask, take, rows } = fieldsOf(raw)
  if (!isCount(epoch) || !isCount(ask) || typeof take !== 'boolean') return null
  if (!Array.isArray(rows) || rows.length > ROWS_MAX) return null
  const read = rows.map(readRow)
  return read.every((row) => row !== null) ? { epoch, ask, take, rows: read } : null
}

function readRow(raw: unknown): Row | null {
  const { id, term, replies, stands } = fieldsOf(raw)
  const mid = typeof id === 'string' ? parseMessageId(id) : null
  if (mid === null || !isCount(term) || term < 1) return null
  if (!Array.isArray(replies) || replies.length > REPLIES_MAX) return null
  if (!replies.every((one) => typeof one === 'string' && one.length <= REPLY_CHARS_MAX)) return null
  if (!Array.isArray(stands) || stands.length > RECIPIENTS_MAX) return null
  const read = stands.map((stand) => readStand(stand, replies))
  return read.every((stand) => stand !== null) ? { id: mid, term, stands: read } : null
}

function readStand(raw: unknown, replies: readonly string[]): Stand | null {
  if (!Array.isArray(raw)) return null
  const [index, code, attempts, waitMs, place, flags] = raw as readonly unknown[]
  if (!isCount(index) || index >= RECIPIENTS_MAX || !isCount(attempts) || !isCount(flags))
    return null
  const state = isCount(code) ? STATES[code] : undefined
  if (state === undefined || !isCount(waitMs) || waitMs > WAIT_MS_MAX) return null
  const reply = typeof place === 'number' ? (replies[place] ?? null) : null
  const [doubtful, warned] = [(flags & 1) !== 0, (flags & 2) !== 0]
  return { index, state, attempts, waitMs, reply, doubtful, warned }
}

export function encodeAnswer({ gone, why }: Answer): unknown {
  return { gone: gone.map(({ id, owner, term }) => [id, owner, term]), why }
}

/** Null: not what a node of ours answers. */
export function readAnswer(raw: unknown): Answer | null {
  const { gone, why } = fieldsOf(raw)
  if (!Array.isArray(gone) || gone.length > ROWS_MAX) return null
  const read = gone.map(readOwned)
  if (!read.every((owned) => owned !== null)) return null
  return { gone: read, why: typeof why === 'string' ? why.slice(0, REPLY_CHARS_MAX) : null }
}

function readOwned(raw: unknown): Owned | null {
  if (!Array.isArray(raw)) return null
  const [id, owner, term] = raw as readonly unknown[]
  const mid = typeof id === 'string' ? parseMessageId(id) : null
  const node = typeof owner === 'string' ? parseNodeId(owner) : null
  return mid === null || node === null || !isCount(term) ? null : { id: mid, owner: node, term }
}

/** Null: no list of at most `most` ids. */
export function readIds(raw: unknown, most: number): readonly MessageId[] | null {
  if (!Array.isArray(raw) || raw.length > most) return null
  const ids = raw.map((id) => (typeof id === 'string' ? parseMessageId(id) : null))
  return ids.every((id) => id !== null) ? ids : null
}

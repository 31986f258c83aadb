/**
 * How a message stands on a node, as nodes tell each other: who owns it, under which term, and what
 * became of each recipient. Every field of a peer is checked before it is used.
 */
import { type MessageId, type NodeId, parseMessageId, parseNodeId } from '../base/ids.ts'
import { fieldsOf, isCount } from '../base/raw.ts'
import type { CopyStore } from '../store/copies.ts'
import type { Message, QueuedRecipient } from '../store/queued.ts'

type RecipientState = QueuedRecipient['state']

/** Messages of one question. */
export const STANDINGS_MAX = 500
const RECIPIENTS_MAX = 10_000
/** One letter a recipient; never to be changed. */
const LETTERS: Readonly<Record<RecipientState, string>> = {
  queued: 'q',
  trying: 't',
  deferred: 'l',
  inDoubt: 'i',
  held: 'h',
  done: 'd',
  failed: 'f',
  dropped: 'x',
}
const STATES: ReadonlyMap<string, RecipientState> = new Map(
  Object.entries(LETTERS).map(([state, letter]) => [letter, state as RecipientState]),
)

/** Who owns a message, and under which term. */
export type Title = { readonly owner: NodeId; readonly term: number }

export type Standing = Title & {
  readonly id: MessageId
  /** `fate`: it ended there, or went away. */
  readonly kind: 'own' | 'copy' | 'fate'
  /** In the order of the envelope. */
  readonly states: readonly RecipientState[]
  /** In the same order: what the state says is all that happened there. Left out: not known. */
  readonly sure?: readonly boolean[]
}

/** What a node says of the messages that it was asked about; whom it does not know is not in it. */
export type Standings = {
  /** It is joining, or does not know yet itself what others did: only facts, no denial. */
  readonly isBehind: boolean
  /** The highest count of starts of the asker that it knows; 0: none. */
  readonly epoch: number
  readonly standings: readonly Standing[]
}

/** Equal terms: the higher id wins (design: mail.md, Names). */
export function outranks(a: Title, b: Title): boolean {
  return a.term > b.term || (a.term === b.term && a.owner > b.owner)
}

/** Null: never heard of it. */
export function standingOf(
  store: Pick<CopyStore, 'get' | 'copy' | 'fate'>,
  id: MessageId,
): Standing | null {
  const own = store.get(id)
  if (own !== null) return { id, kind: 'own', ...titleOf(own), states: ownStatesOf(own) }
  const copy = store.copy(id)
  if (copy !== null) return { id, kind: 'copy', ...titleOf(copy), states: statesOf(copy) }
  const fate = store.fate(id)
  return fate === null ? null : { kind: 'fate', ...fate }
}

export function titleOf({ owner, term }: Message): Title {
  return { owner, term }
}

/** An attempt whose dot is not out is none: in doubt elsewhere, its sender would never hear of a failure. */
export function ownStatesOf({ recipients, tried }: Message): readonly RecipientState[] {
  return recipients.map(({ state }, index) =>
    state === 'trying' && !tried.has(index) ? 'queued' : state,
  )
}

export function statesOf({ recipients }: Message): readonly RecipientState[] {
  return recipients.map(({ state }) => state)
}

// ---- the wire ----

export function encodeStandings({ isBehind, epoch, standings }: Standings): unknown {
  return {
    behind: isBehind,
    epoch,
    rows: standings.map(({ id, kind, owner, term, states, sure = [] }) => [
      id,
      kind,
      owner,
      term,
      states.map((state) => LETTERS[state]).join(''),
      sure.map((isSure) => (isSure ? 's' : 'u')).join(''),
    ]),
  }
}

/** Null: not what a node of ours says. */
export function readStandings(raw: unknown): Standings | null {
  const { behind, epoch, rows } = fieldsOf(raw)
  if (typeof behind !== 'boolean' || !isCount(epoch)) return null
  const standings = readRows(rows, readStanding)
  return standings === null ? null : { isBehind: behind, epoch, standings }
}

function readStanding(raw: unknown): Standing | null {
  if (!Array.isArray(raw)) return null
  // Nodes of before do not say what they are sure of.
  const [id, kind, owner, term, letters, sure = ''] = raw as readonly unknown[]
  const title = readTitle([id, owner, term])
  if (title === null || (kind !== 'own' && kind !== 'copy' && kind !== 'fate')) return null
  if (typeof letters !== 'string' || letters.length > RECIPIENTS_MAX) return null
  if (typeof sure !== 'string' || sure.length > RECIPIENTS_MAX) return null
  const states = [...letters].map((letter) => STATES.get(letter) ?? null)
  if (!states.every((state) => state !== null)) return null
  return { ...title, kind, states, sure: [...sure].map((letter) => letter === 's') }
}

export type Titled = Title & { readonly id: MessageId }

export function encodeTitles(titles: readonly Titled[]): unknown {
  return titles.map(({ id, owner, term }) => [id, owner, term])
}

/** Null: not what a node of ours asks. */
export function readTitles(raw: unknown): readonly Titled[] | null {
  return readRows(raw, readTitle)
}

function readTitle(raw: unknown): Titled | null {
  if (!Array.isArray(raw)) return null
  const [id, owner, term] = raw as readonly unknown[]
  const mid = typeof id === 'string' ? parseMessageId(id) : null
  const node = typeof owner === 'string' ? parseNodeId(owner) : null
  return mid === null || node === null || !isCount(term) || term < 1
    ? null
    : { id: mid, owner: node, term }
}

function readRows<Row>(raw: unknown, read: (one: unknown) => Row | null): readonly Row[] | null {
  if (!Array.isArray(raw) || raw.length > STANDINGS_MAX) return null
  const rows = raw.map(read)
  return rows.every((row) => row !== null) ? rows : null
}

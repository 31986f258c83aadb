/**
 * How two nodes agree: the two kinds of shared row, and the join of two states of one row. Pure.
 *
 * A cell is a causal multi-value register (Shapiro et al., CRDTs, 2011; the context rule is that
 * of an observed-remove set per element): concurrent writes stay side by side until somebody who
 * saw them all writes again. An owned row is won whole by its highest version.
 * Both joins are commutative, associative and idempotent, and give canonical states: two nodes
 * that have seen the same writes hold equal text.
 */
import { type Stamp, stampOf } from './stamp.ts'

/** 12 lowercase hex digits, random at every start of a process, never used again. */
export type WriterId = string

export function isWriterId(raw: unknown): raw is WriterId {
  return typeof raw === 'string' && /^[0-9a-f]{12}$/.test(raw)
}

/** For each writer the highest sequence number whose effect is known. No zero entries. */
export type Vector = ReadonlyMap<WriterId, number>

/** One write that nothing known supersedes. Fields of a later version are kept and passed on. */
export type Head = {
  readonly writer: WriterId
  /** From 1, without gaps in one writer. */
  readonly seq: number
  readonly stamp: Stamp
  /** Operator, `cli`, or `postern` for what no person did. */
  readonly author: string
  /** Text, JSON by convention; null: deleted. */
  readonly value: string | null
}

export type Cell = {
  readonly shape: 'cell'
  /** Everything that this state has seen of the cell; covers the heads. Ascending by writer. */
  readonly context: readonly (readonly [WriterId, number])[]
  /** Ascending by writer, then seq. At least one. */
  readonly heads: readonly Head[]
}

export type OwnedRow = {
  readonly shape: 'owned'
  /** Compared in order; then the writer, then the seq. */
  readonly version: readonly [term: number, revision: number]
  readonly writer: WriterId
  readonly seq: number
  readonly stamp: Stamp
  readonly author: string
  readonly value: string | null
  /** Wall time from which everybody may forget the row; null: only by tombstone. */
  readonly untilMs: number | null
  /** It was forgotten, a day after `untilMs`: nothing of its value is left. */
  readonly over?: true
}

export type SharedState = Cell | OwnedRow

/** `kind/key` names a row in the whole cluster: `setting/policy.hold`, `held/<message id>`. */
export type SharedRow = {
  readonly kind: string
  readonly key: string
  readonly state: SharedState
}

/** How several heads are read as one. Concurrent heads are a conflict all the same. */
export type Reading = 'latest' | 'present-wins' | 'absent-wins'

export const EMPTY_VECTOR: Vector = new Map()

export function covers(vector: Vector, writer: WriterId, seq: number): boolean {
  return (vector.get(writer) ?? 0) >= seq
}

/** Pointwise maximum. */
export function joinVectors(a: Vector, b: Vector): Vector {
  const joined = new Map(a)
  for (const [writer, seq] of b) if (!covers(joined, writer, seq)) joined.set(writer, seq)
  return joined
}

/** Pointwise minimum: what both cover. */
export function meetVectors(a: Vector, b: Vector): Vector {
  const met = new Map<WriterId, number>()
  for (const [writer, seq] of a) {
    const least = Math.min(seq, b.get(writer) ?? 0)
    if (least > 0) met.set(writer, least)
  }
  return met
}

/** Every write that the state has seen: what a peer must know to do without the row. */
export function dotsOf(state: SharedState): readonly (readonly [WriterId, number])[] {
  return state.shape === 'cell' ? state.context : [[state.writer, state.seq]]
}

/** True when a peer that covers `vector` has the effect of this state. */
export function isKnown(state: SharedState, vector: Vector): boolean {
  return dotsOf(state).every(([writer, seq]) => covers(vector, writer, seq))
}

/**
 * The cell after one more write. `seen`: the context that the author was shown; heads that it
 * does not cover stay beside the new one. Null: all that is known here.
 */
export function writeCell(before: Cell | null, head: Head, seen: Vector | null): Cell {
  const kept = (before?.heads ?? []).filter(
    (other) => seen !== null && !covers(seen, other.writer, other.seq),
  )
  return canonicalCell(
    joinVectors(new Map(before?.context ?? []), new Map([[head.writer, head.seq]])),
    [...kept, head],
    before === null ? {} : laterFields(before),
  )
}

/** The join of two states of one row. Different shapes: the cell wins (only a mistake makes two). */
export function mergeStates(a: SharedState, b: SharedState): SharedState {
  if (a.shape === 'cell' && b.shape === 'cell') return mergeCells(a, b)
  if (a.shape === 'owned' && b.shape === 'owned') return compareOwned(a, b) >= 0 ? a : b
  return a.shape === 'cell' ? a : b
}

function mergeCells(a: Cell, b: Cell): Cell {
  const seenByA = new Map(a.context)
  const seenByB = new Map(b.context)
  const heads = new Map<string, Head>()
  const add = (head: Head, others: Cell, seenByOther: Vector): void => {
    const name = `${head.writer} ${head.seq}`
    const twin = others.heads.find(({ writer, seq }) => writer === head.writer && seq === head.seq)
    if (twin === undefined && covers(seenByOther, head.writer, head.seq)) return
    const before = heads.get(name)
    heads.set(name, before === undefined ? head : greaterHead(before, head))
  }
  for (const head of a.heads) add(head, b, seenByB)
  for (const head of b.heads) add(head, a, seenByA)
  const later = joinLater(laterFields(a), laterFields(b))
  return canonicalCell(joinVectors(seenByA, seenByB), [...heads.values()], later)
}

type Fields = Readonly<Record<string, unknown>>

/** What a later version has put beside context and heads. */
function laterFields({ shape: _, context: __, heads: ___, ...later }: Cell): Fields {
  return later
}

/** Field by field the greater text: a join, though nothing is known of what the fields mean. */
function joinLater(a: Fields, b: Fields): Fields {
  const joined: Record<string, unknown> = { ...a }
  for (const [name, value] of Object.entries(b)) {
    const isGreater = !(name in a) || canonicalText(value) > canonicalText(a[name])
    if (isGreater) joined[name] = value
  }
  return joined
}

/** Two writes under one name: only a cloned or rolled back writer makes them. One must win. */
function greaterHead(a: Head, b: Head): Head {
  if (a.stamp !== b.stamp) return a.stamp > b.stamp ? a : b
  return canonicalText(a) >= canonicalText(b) ? a : b
}

function canonicalCell(context: Vector, heads: readonly Head[], later: Fields): Cell {
  return {
    ...later,
    shape: 'cell',
    context: [...context].sort(([a], [b]) => (a < b ? -1 : 1)),
    heads: [...heads].sort((a, b) =>
      a.writer === b.writer ? a.seq - b.seq : a.writer < b.writer ? -1 : 1,
    ),
  }
}

/** Positive when `a` wins. 0 only for equal text. */
export function compareOwned(a: OwnedRow, b: OwnedRow): number {
  return (
    a.version[0] - b.version[0] ||
    a.version[1] - b.version[1] ||
    (a.writer === b.writer ? 0 : a.writer > b.writer ? 1 : -1) ||
    a.seq - b.seq ||
    a.stamp - b.stamp ||
    compareText(canonicalText(a), canonicalText(b))
  )
}

function compareText(a: string, b: string): number {
  return a === b ? 0 : a > b ? 1 : -1
}

/** The head that is in force. Never null: a cell has heads. */
export function headInForce(cell: Cell, reading: Reading): Head {
  const wanted = cell.heads.filter(({ value }) =>
    reading === 'present-wins' ? value !== null : reading === 'absent-wins' ? value === null : true,
  )
  const from = wanted.length > 0 ? wanted : cell.heads
  return from.reduce((best, head) =>
    head.stamp > best.stamp || (head.stamp === best.stamp && head.writer > best.writer)
      ? head
      : best,
  )
}

/** Heads beside each other that do not say the same. */
export function isConflict(cell: Cell): boolean {
  return new Set(cell.heads.map(({ value }) => value)).size > 1
}

/** Nothing is left but the memory of a deletion. */
export function isTombstone(state: SharedState): boolean {
  return state.shape === 'cell'
    ? state.heads.every(({ value }) => value === null)
    : state.value === null
}

/** The latest stamp in a state. */
export function stampOfState(state: SharedState): Stamp {
  if (state.shape === 'owned') return state.stamp
  return state.heads.reduce((latest, { stamp }) => Math.max(latest, stamp), stampOf(0))
}

/** JSON with the keys of every object in order: equal states have equal text on every node. */
export function canonicalText(value: unknown): string {
  return JSON.stringify(value, (_, inner: unknown) =>
    inner !== null && typeof inner === 'object' && !Array.isArray(inner)
      ? Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
      : inner,
  )
}

/** Checks a shared row that came from outside, field by field. Fields of later versions stay. */
import { RefusalError } from '../base/errors.ts'
import type { Cell, Head, OwnedRow, SharedRow, SharedState } from '../config/merge.ts'

const KIND = /^[a-z][a-zA-Z-]{0,39}$/
const WRITER = /^[0-9a-f]{12}$/
const KEY_MAX = 1_024
/** Characters of one value: a list of a domain's recipients is the longest. */
export const VALUE_MAX = 400_000
const HEADS_MAX = 64
const CONTEXT_MAX = 10_000

type Raw = Readonly<Record<string, unknown>>

/** @throws RefusalError invalid, naming the field */
export function readSharedRow(raw: unknown): SharedRow {
  const row = object(raw, 'row')
  const { kind, key } = row
  if (typeof kind !== 'string' || !KIND.test(kind)) throw wrong('kind')
  if (typeof key !== 'string' || key.length > KEY_MAX) throw wrong('key')
  return { kind, key, state: readState(row['state']) }
}

function readState(raw: unknown): SharedState {
  const state = object(raw, 'state')
  if (state['shape'] === 'cell') return readCell(state)
  if (state['shape'] === 'owned') return readOwned(state)
  throw wrong('state.shape')
}

function readCell(raw: Raw): Cell {
  const context = array(raw['context'], 'context', CONTEXT_MAX)
  let before = ''
  for (const dot of context) {
    const [writer, seq] = array(dot, 'context', 2)
    if (!isWriter(writer) || !isSeq(seq) || writer <= before) throw wrong('context')
    before = writer
  }
  const seen = new Map(context as readonly (readonly [string, number])[])
  const heads = array(raw['heads'], 'heads', HEADS_MAX)
  if (heads.length === 0) throw wrong('heads')
  let last = ''
  for (const one of heads) {
    const head = readHead(object(one, 'heads'))
    const name = `${head.writer} ${String(head.seq).padStart(16, '0')}`
    if (name <= last || (seen.get(head.writer) ?? 0) < head.seq) throw wrong('heads')
    last = name
  }
  // Checked above, field by field; what is not known stays in it.
  return raw as unknown as Cell
}

function readOwned(raw: Raw): OwnedRow {
  readHead(raw)
  const [term, revision] = array(raw['version'], 'version', 2)
  if (!isCount(term) || !isCount(revision)) throw wrong('version')
  const { untilMs } = raw
  if (untilMs !== null && !isCount(untilMs)) throw wrong('untilMs')
  return raw as unknown as OwnedRow
}

function readHead(raw: Raw): Head {
  const { writer, seq, stamp, author, value } = raw
  if (!isWriter(writer)) throw wrong('writer')
  if (!isSeq(seq)) throw wrong('seq')
  if (!isCount(stamp)) throw wrong('stamp')
  if (typeof author !== 'string' || author.length > 200) throw wrong('author')
  if (value !== null && (typeof value !== 'string' || value.length > VALUE_MAX))
    throw wrong('value')
  return raw as unknown as Head
}

function object(raw: unknown, field: string): Raw {
  if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) throw wrong(field)
  return raw as Raw
}

function array(raw: unknown, field: string, most: number): readonly unknown[] {
  if (!Array.isArray(raw) || raw.length > most) throw wrong(field)
  return raw
}

function isWriter(raw: unknown): raw is string {
  return typeof raw === 'string' && WRITER.test(raw)
}

function isSeq(raw: unknown): raw is number {
  return isCount(raw) && raw > 0
}

function isCount(raw: unknown): raw is number {
  return Number.isSafeInteger(raw) && (raw as number) >= 0
}

function wrong(field: string): RefusalError {
  return new RefusalError(
    'invalid',
    field,
    `A row of a peer is not valid: its field ${field} is not what it must be.`,
    'Both nodes should run the same version, or one version apart.',
  )
}
